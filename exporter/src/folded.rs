//! The elements of weights that norms, scales and neighbours are folded into.
//!
//! Plain f64 loops in a fixed order and a square root, which IEEE 754 rounds exactly: the same bytes
//! on every machine.

use emo_proto::{Error, Result};

use crate::graph::{Affine, FoldedConv};
use crate::weights::Weights;

impl FoldedConv {
    /// The weight `[O, I, …]` with everything folded in, row-major.
    ///
    /// # Errors
    /// A state-dict entry is missing or no float.
    pub(crate) fn weight(&self, weights: &Weights) -> Result<Vec<f32>> {
        let weight = weights.require(&self.weight)?;
        let (out, inner) = (weight.dims[0], weight.dims[1]);
        let taps: usize = weight.dims[2..].iter().product();
        let before = self.before.as_ref().map(|n| n.scale_and_shift(weights)).transpose()?;
        let after = self.after.as_ref().map(|n| n.scale_and_shift(weights)).transpose()?;
        let elements = weight.f32s()?;
        let rows = self.rows.clone().unwrap_or(0..out);
        let columns = self.columns.clone().unwrap_or(0..inner);
        let mut scaled = Vec::with_capacity(rows.len() * columns.len() * taps);
        for o in rows {
            let row = after.as_ref().map_or(1.0, |(scale, _)| scale[o]) * self.factor(o);
            for i in columns.clone() {
                let factor = row * before.as_ref().map_or(1.0, |(scale, _)| scale[i]);
                let start = (o * inner + i) * taps;
                scaled.extend(elements[start..start + taps].iter().map(|&e| f64::from(e) * factor));
            }
        }
        if let Some(name) = &self.inner {
            scaled = product(&scaled, &weights.require(name)?.f64s()?, inner);
        }
        Ok(scaled.into_iter().map(|e| e as f32).collect())
    }

    /// The bias `[O]` with everything folded in.
    ///
    /// # Errors
    /// As [`FoldedConv::weight`].
    pub(crate) fn bias(&self, weights: &Weights) -> Result<Vec<f32>> {
        let weight = weights.require(&self.weight)?;
        let (out, inner) = (weight.dims[0], weight.dims[1]);
        let mut bias = match &self.bias {
            Some(name) => weights.require(name)?.f64s()?,
            None => vec![0.0; out],
        };
        if let Some(norm) = &self.before {
            let (_, shift) = norm.scale_and_shift(weights)?;
            for (b, row) in bias.iter_mut().zip(weight.f64s()?.chunks_exact(inner)) {
                for (w, t) in row.iter().zip(&shift) {
                    *b += w * t;
                }
            }
        }
        if let Some(norm) = &self.after {
            let (scale, shift) = norm.scale_and_shift(weights)?;
            for ((b, s), t) in bias.iter_mut().zip(&scale).zip(&shift) {
                *b = *b * s + t;
            }
        }
        let rows = self.rows.clone().unwrap_or(0..out);
        Ok(rows.map(|o| (bias[o] * self.factor(o)) as f32).collect())
    }

    fn factor(&self, row: usize) -> f64 {
        self.scaled.filter(|&(rows, _)| row < rows).map_or(1.0, |(_, factor)| factor)
    }
}

/// `a: [M, K]` times `b: [K, N]`, row-major, summed in order.
fn product(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let n = b.len() / k.max(1);
    let mut c = Vec::with_capacity(a.len() / k.max(1) * n);
    for row in a.chunks_exact(k.max(1)) {
        let start = c.len();
        c.resize(start + n, 0.0);
        for (a, b) in row.iter().zip(b.chunks_exact(n.max(1))) {
            for (c, b) in c[start..].iter_mut().zip(b) {
                *c += a * b;
            }
        }
    }
    c
}

impl Affine {
    /// `γ/√(σ²+ε)` and `β − μ·γ/√(σ²+ε)` of a batch norm, γ and β of a layer norm, γ and 0 of a scale, per channel.
    fn scale_and_shift(&self, weights: &Weights) -> Result<(Vec<f64>, Vec<f64>)> {
        let (Affine::BatchNorm { name, .. } | Affine::LayerNorm { name } | Affine::Scale { name }) = self;
        if let Affine::Scale { .. } = self {
            let scale = weights.require(name)?.f64s()?;
            let shift = vec![0.0; scale.len()];
            return Ok((scale, shift));
        }
        let entry = |entry: &str| {
            weights.require(&format!("{name}.{entry}")).and_then(emo_proto::tensor::Tensor::f64s)
        };
        let (gamma, beta) = (entry("weight")?, entry("bias")?);
        let Affine::BatchNorm { epsilon, .. } = self else { return Ok((gamma, beta)) };
        let (mean, variance) = (entry("running_mean")?, entry("running_var")?);
        if let Some(v) = variance.iter().find(|&&v| v < 0.0) {
            return Err(Error::new(format!("a variance of {v} cannot be folded")).at(name));
        }
        let scale: Vec<f64> = gamma.iter().zip(&variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        let shift = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        Ok((scale, shift))
    }
}
