//! Exact rewrites: batch norms and the attention scale go into the convolutions beside
//! them. Each notes what it took out, so that an audit ends at the published figures.
//!
//! Weights are folded with plain f64 loops in a fixed order and a square root, which
//! IEEE 754 rounds exactly: the same bytes on every machine.

use std::fmt;
use std::str::FromStr;

use emo_proto::{Error, Result};

use crate::graph::{BatchNorm, FoldedConv, Graph, Source, Value};
use crate::op::Op;
use crate::weights::Weights;

/// What an exact rewrite removed from the published model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    pub kind: Kind,
    /// The module that is gone, or whose work shrank: `stage1.0.norm`.
    pub what: String,
    /// The module that does its work now: `stage1.0.v.conv`.
    pub into: String,
    /// Learnable parameters fewer in the file.
    pub parameters: u64,
    /// Multiply-adds fewer, for the whole (or a free batch's single) input.
    pub macs: u64,
    /// Fewer in fvcore's count: multiply-adds, and 2 per element of a batch norm.
    pub fvcore: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A batch norm folded into a convolution.
    Norm,
    /// The attention scale folded into q.
    Scale,
    /// A pointwise convolution that skips the tokens that only pad a window.
    Padding,
}

impl Kind {
    pub const ALL: [Self; 3] = [Kind::Norm, Kind::Scale, Kind::Padding];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Norm => "norm",
            Kind::Scale => "scale",
            Kind::Padding => "padding",
        }
    }

    /// What several of this kind are, in a report.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Kind::Norm => "batch norms folded into convolutions",
            Kind::Scale => "attention scales folded into q",
            Kind::Padding => "value convolutions that skip padded tokens",
        }
    }
}

/// `norm stage1.0.norm -> stage1.0.v.conv: 48 params, 0 MACs, 602112 fvcore`
impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, what, into, parameters, macs, fvcore } = self;
        let kind = kind.name();
        write!(f, "{kind} {what} -> {into}: {parameters} params, {macs} MACs, {fvcore} fvcore")
    }
}

impl FromStr for Rewrite {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let parse = || {
            let (modules, counts) = line.rsplit_once(": ")?;
            let (kind, modules) = modules.split_once(' ')?;
            let (what, into) = modules.split_once(" -> ")?;
            let mut counts = counts.split(", ").zip([" params", " MACs", " fvcore"]);
            let mut count = || counts.next().and_then(|(count, unit)| count.strip_suffix(unit)?.parse().ok());
            Some(Self {
                kind: Kind::ALL.into_iter().find(|k| k.name() == kind)?,
                what: what.to_owned(),
                into: into.to_owned(),
                parameters: count()?,
                macs: count()?,
                fvcore: count()?,
            })
        };
        parse().ok_or_else(|| {
            let shape = "KIND MODULE -> MODULE: N params, N MACs, N fvcore";
            Error::new(format!("expected a rewrite `{shape}`, found {line:?}"))
        })
    }
}

/// Folds every batch norm that has a convolution to go into.
///
/// Forward, where all that reads the norm are pointwise convolutions (a padded kernel would
/// see zeros where the norm's shift should be); backward otherwise, where a convolution
/// feeds the norm and nothing else.
pub(crate) fn batch_norms(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        let node = &graph.nodes[index];
        let Op::BatchNormalization { epsilon } = node.op else {
            index += 1;
            continue;
        };
        let (x, y) = (node.inputs[0], node.outputs[0]);
        let norm = BatchNorm { name: node.name.clone(), epsilon };
        let forward: Vec<usize> = graph.readers(y).collect();
        let backward = graph.writer(x).filter(|&w| matches!(graph.nodes[w].op, Op::Conv { .. }));
        let pointwise = |&i: &usize| matches!(graph.nodes[i].op, Op::Conv { pad: 0, group: 1, stride: 1 });
        let is_output = |v: Value| graph.outputs.contains(&v);
        let (targets, before) = if !forward.is_empty() && forward.iter().all(pointwise) && !is_output(y) {
            (forward, true)
        } else if let Some(conv) = backward.filter(|_| graph.readers(x).count() == 1 && !is_output(x)) {
            (vec![conv], false)
        } else {
            index += 1;
            continue;
        };
        let biases = targets.iter().map(|&conv| fold_into(graph, conv, &norm, before)).sum::<usize>();
        let elements = graph.shape(x).elements().map_or(0, |d| d.at_batch_one() as u64);
        let channels =
            graph.shape(graph.nodes[index].inputs[1]).elements().map_or(0, super::graph::Dim::at_batch_one);
        graph.rewrites.push(Rewrite {
            kind: Kind::Norm,
            what: norm.name,
            into: targets.iter().map(|&i| graph.nodes[i].name.as_str()).collect::<Vec<_>>().join(", "),
            parameters: (2 * channels).saturating_sub(biases) as u64,
            macs: 0,
            fvcore: 2 * elements,
        });
        remove(graph, index, x, y);
    }
    graph.rewrites.sort_by(|a, b| a.what.cmp(&b.what));
}

/// Notes `norm` in the convolution's weight and bias; returns how many bias elements are new.
fn fold_into(graph: &mut Graph, conv: usize, norm: &BatchNorm, before: bool) -> usize {
    let weight = graph.nodes[conv].inputs[1];
    let mut folded = match graph.value(weight).constant.clone() {
        Some(Source::FoldedWeight(folded)) => folded,
        _ => FoldedConv {
            weight: graph.value(weight).name.clone(),
            bias: graph.nodes[conv].inputs.get(2).map(|&b| graph.value(b).name.clone()),
            ..FoldedConv::default()
        },
    };
    *(if before { &mut folded.before } else { &mut folded.after }) = Some(norm.clone());
    graph.values[weight.0].constant = Some(Source::FoldedWeight(folded.clone()));
    if let Some(&bias) = graph.nodes[conv].inputs.get(2) {
        graph.values[bias.0].constant = Some(Source::FoldedBias(folded));
        return 0;
    }
    let out = graph.shape(weight).0[0];
    let name = format!("{}.bias", graph.nodes[conv].name);
    let bias = graph.add_constant(name, [out].into(), Source::FoldedBias(folded));
    graph.nodes[conv].inputs.push(bias);
    out.at_batch_one()
}

/// Takes a node out and lets what read `output` read `input`.
fn remove(graph: &mut Graph, index: usize, input: Value, output: Value) {
    graph.nodes.remove(index);
    let operands = graph.nodes.iter_mut().flat_map(|n| &mut n.inputs).chain(&mut graph.outputs);
    operands.filter(|v| **v == output).for_each(|v| *v = input);
}

impl FoldedConv {
    /// The weight `[O, I, k, k]` with everything folded in, row-major.
    ///
    /// # Errors
    /// A state-dict entry is missing or no float.
    pub(crate) fn weight(&self, weights: &Weights) -> Result<Vec<f32>> {
        let weight = weights.require(&self.weight)?;
        let (out, inner) = (weight.dims[0], weight.dims[1]);
        let taps: usize = weight.dims[2..].iter().product();
        let before = self.before.as_ref().map(|n| n.scale_and_shift(weights)).transpose()?;
        let after = self.after.as_ref().map(|n| n.scale_and_shift(weights)).transpose()?;
        let mut elements = weight.f32s()?;
        for o in 0..out {
            let row = after.as_ref().map_or(1.0, |(scale, _)| scale[o]) * self.factor(o);
            for i in 0..inner {
                let factor = row * before.as_ref().map_or(1.0, |(scale, _)| scale[i]);
                let start = (o * inner + i) * taps;
                for element in &mut elements[start..start + taps] {
                    *element = (f64::from(*element) * factor) as f32;
                }
            }
        }
        Ok(elements)
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
        Ok(bias.iter().enumerate().map(|(o, b)| (b * self.factor(o)) as f32).collect())
    }

    fn factor(&self, row: usize) -> f64 {
        self.scaled.filter(|&(rows, _)| row < rows).map_or(1.0, |(_, factor)| factor)
    }
}

impl BatchNorm {
    /// `γ/√(σ²+ε)` and `β − μ·γ/√(σ²+ε)`, per channel.
    fn scale_and_shift(&self, weights: &Weights) -> Result<(Vec<f64>, Vec<f64>)> {
        let entry = |name: &str| {
            weights.require(&format!("{}.{name}", self.name)).and_then(emo_proto::tensor::Tensor::f64s)
        };
        let (gamma, beta) = (entry("weight")?, entry("bias")?);
        let (mean, variance) = (entry("running_mean")?, entry("running_var")?);
        if let Some(v) = variance.iter().find(|&&v| v < 0.0) {
            return Err(Error::new(format!("a variance of {v} cannot be folded")).at(&self.name));
        }
        let scale: Vec<f64> =
            gamma.iter().zip(&variance).map(|(g, v)| g / (v + self.epsilon).sqrt()).collect();
        let shift = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        Ok((scale, shift))
    }
}

impl Rewrite {
    /// A rewrite that leaves the counts as they are.
    pub(crate) fn free(kind: Kind, what: String, into: String) -> Self {
        Self { kind, what, into, parameters: 0, macs: 0, fvcore: 0 }
    }
}
