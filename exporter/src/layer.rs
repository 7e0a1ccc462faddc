//! Layers: what the network is made of, each spelled as the profile wants it.

use std::f32::consts::SQRT_2;

use emo_proto::Result;

use crate::builder::Builder;
use crate::fold::{Kind, Rewrite};
use crate::graph::{FoldedConv, Source, Value};
use crate::models::emo::{Act, NORM_EPSILON, Norm};
use crate::op::{Binary, Unary};
use crate::profile::{Opset, Profile};

/// How layers are to be spelled.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub profile: &'static Profile,
    pub opset: &'static Opset,
}

/// A convolution of a square kernel, zero-padded by half of it.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    pub out: usize,
    pub kernel: usize,
    pub stride: usize,
    pub depthwise: bool,
    pub bias: bool,
    /// The first output channels are multiplied by a factor: how many, by what.
    pub scaled: Option<(usize, f64)>,
}

impl Conv {
    /// A 1×1 convolution to `out` channels.
    #[must_use]
    pub fn pointwise(out: usize) -> Self {
        Self { out, kernel: 1, stride: 1, depthwise: false, bias: false, scaled: None }
    }

    #[must_use]
    pub fn biased(self) -> Self {
        Self { bias: true, ..self }
    }
}

/// `x: [N, C, H, W]` → `[N, out, ⌈H/stride⌉, ⌈W/stride⌉]`; weights `weight`, `bias` of this scope.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn conv(b: &mut Builder, x: Value, c: Conv) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    let group = if c.depthwise { channels } else { 1 };
    let mut operands = vec![x, b.parameter("weight", [c.out, channels / group, c.kernel, c.kernel])];
    if c.bias {
        operands.push(b.parameter("bias", [c.out]));
    }
    if c.scaled.is_some() {
        let names = ["weight", "bias"].map(|name| b.path(name));
        let folded = FoldedConv {
            weight: names[0].clone(),
            bias: c.bias.then(|| names[1].clone()),
            scaled: c.scaled,
            ..FoldedConv::default()
        };
        for (&operand, source) in operands[1..].iter().zip([Source::FoldedWeight, Source::FoldedBias]) {
            b.resource(operand, source(folded.clone()));
        }
    }
    b.conv("", &operands, c.stride, c.kernel / 2, group)
}

/// Batch norm in inference form, `x: [N, C, H, W]`.
pub fn batch_norm(b: &mut Builder, x: Value) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    let [scale, shift, mean, variance] =
        ["weight", "bias", "running_mean", "running_var"].map(|name| b.parameter(name, [channels]));
    b.batch_norm("", [x, scale, shift, mean, variance], NORM_EPSILON)
}

/// Layer norm over the channels of each pixel, `x: [N, C, H, W]`.
pub fn layer_norm(b: &mut Builder, x: Value) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    let last = b.transpose("channels_last", x, &[0, 2, 3, 1])?;
    let normed = b.within("norm", |b| {
        let [scale, shift] = ["weight", "bias"].map(|name| b.parameter(name, [channels]));
        b.layer_norm("", [last, scale, shift], NORM_EPSILON)
    })?;
    b.transpose("channels_first", normed, &[0, 3, 1, 2])
}

/// The norm before a block's expansion, `x: [N, C, H, W]`.
pub fn norm(b: &mut Builder, x: Value, norm: Norm) -> Result<Value> {
    b.within("norm", |b| match norm {
        Norm::Batch => batch_norm(b, x),
        Norm::Layer => layer_norm(b, x),
    })
}

pub fn activation(b: &mut Builder, x: Value, act: Act, form: Form) -> Result<Value> {
    b.within("act", |b| match act {
        Act::Silu => {
            let gate = b.unary("sigmoid", Unary::Sigmoid, x)?;
            b.binary("mul", Binary::Mul, x, gate)
        }
        Act::Gelu if form.opset.gelu => b.unary("gelu", Unary::Gelu, x),
        // The order of these five is the one that runtimes fuse.
        Act::Gelu => {
            let [root, one, half] = [SQRT_2, 1.0, 0.5].map(|number| b.scalar(number));
            let scaled = b.binary("div", Binary::Div, x, root)?;
            let erf = b.unary("erf", Unary::Erf, scaled)?;
            let gate = b.binary("add", Binary::Add, erf, one)?;
            let gated = b.binary("mul", Binary::Mul, x, gate)?;
            b.binary("half", Binary::Mul, gated, half)
        }
    })
}

/// Depthwise convolution, batch norm, SiLU: the local half of a block.
pub fn conv_local(b: &mut Builder, x: Value, kernel: usize, stride: usize, form: Form) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    b.within("conv_local", |b| {
        let c = Conv { kernel, stride, depthwise: true, ..Conv::pointwise(channels) };
        let y = b.within("conv", |b| conv(b, x, c))?;
        let y = b.within("norm", |b| batch_norm(b, y))?;
        activation(b, y, Act::Silu, form)
    })
}

/// `x · sigmoid(expand(silu(reduce(mean(x)))))`, `x: [N, C, H, W]`, C channels throughout.
pub fn squeeze_excite(b: &mut Builder, x: Value, form: Form) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    let c = Conv::pointwise(channels).biased();
    b.within("se", |b| {
        let mean = b.reduce_mean("mean", x, &[2, 3], true)?;
        let reduced = b.within("conv_reduce", |b| conv(b, mean, c))?;
        let reduced = activation(b, reduced, Act::Silu, form)?;
        let expanded = b.within("conv_expand", |b| conv(b, reduced, c))?;
        let gate = b.unary("gate", Unary::Sigmoid, expanded)?;
        b.binary("mul", Binary::Mul, x, gate)
    })
}

/// A map of H × W tokens in `rows` × `columns` windows of `window`² tokens: the pixels with
/// row ≡ i modulo `rows` and column ≡ j modulo `columns` are window (i, j). What is missing
/// to whole windows is padded with zeros.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    height: usize,
    width: usize,
    rows: usize,
    columns: usize,
    window: usize,
}

impl Grid {
    #[must_use]
    pub fn new(height: usize, width: usize, window: usize) -> Self {
        Self { height, width, rows: height.div_ceil(window), columns: width.div_ceil(window), window }
    }

    /// Tokens that padding adds to an image's map.
    #[must_use]
    pub fn padding(self) -> usize {
        self.windows() * self.window * self.window - self.height * self.width
    }

    fn windows(self) -> usize {
        self.rows * self.columns
    }

    /// `[N, C, H, W]` → `[rows·columns·N, C, window, window]`, window-major.
    pub fn partition(self, b: &mut Builder, x: Value) -> Result<Value> {
        let side = self.window;
        let (bottom, right) = (self.rows * side - self.height, self.columns * side - self.width);
        b.within("partition", |b| {
            let padded = if self.padding() > 0 { b.pad("pad", x, bottom, right)? } else { x };
            if self.windows() == 1 {
                return Ok(padded);
            }
            let (n, c, ..) = b.feature_map(padded)?;
            let [lines, batch] = [n.by(c * side), n.by(self.windows())];
            let strips = [lines, self.rows.into(), side.into(), self.columns.into()];
            let x = b.reshape("strips", padded, strips)?;
            let x = b.transpose("transpose", x, &[1, 3, 0, 2])?;
            b.reshape("windows", x, [batch, c.into(), side.into(), side.into()])
        })
    }

    /// The inverse of [`Grid::partition`]; the padding is cut off.
    pub fn merge(self, b: &mut Builder, x: Value) -> Result<Value> {
        let side = self.window;
        b.within("merge", |b| {
            let (batch, c, ..) = b.feature_map(x)?;
            let mut merged = x;
            if self.windows() > 1 {
                let n = batch.over(self.windows()).unwrap_or(batch);
                let strips = [self.rows.into(), self.columns.into(), n.by(c * side), side.into()];
                let x = b.reshape("strips", x, strips)?;
                let x = b.transpose("transpose", x, &[2, 0, 3, 1])?;
                let map = [n, c.into(), (self.rows * side).into(), (self.columns * side).into()];
                merged = b.reshape("map", x, map)?;
            }
            if self.padding() > 0 {
                merged = b.crop("crop", merged, self.height, self.width)?;
            }
            Ok(merged)
        })
    }
}

/// Multi-head self-attention among the tokens of each window: `x: [N, C, h, w]` → the same
/// shape, softmax(q·kᵀ/√`head_dim`)·x. q and k come from one biased 1×1 convolution `qk`
/// whose output channels are (q then k) × heads × `head_dim`.
pub fn attention(b: &mut Builder, x: Value, head_dim: usize, form: Form) -> Result<Value> {
    let (n, c, h, w) = b.feature_map(x)?;
    let (heads, tokens) = (c / head_dim, h * w);
    let scale = 1.0 / (head_dim as f64).sqrt();
    let qk_path = b.path("qk.conv");
    let qk = b.within("qk", |b| {
        let scaled = form.profile.fold.then_some((c, scale));
        let qk = b.within("conv", |b| conv(b, x, Conv { scaled, ..Conv::pointwise(2 * c).biased() }))?;
        b.reshape("heads", qk, [n, (2 * heads).into(), head_dim.into(), tokens.into()])
    })?;
    b.within("attn", |b| {
        let [q, k] = b.halves("split", qk, 1)?;
        let q = b.transpose("q", q, &[0, 1, 3, 2])?;
        let mut scores = b.matmul("scores", q, k)?;
        if form.profile.fold {
            b.rewrote(Rewrite::free(Kind::Scale, b.path("scale"), qk_path));
        } else {
            let scale = b.scalar(scale as f32);
            scores = b.binary("scale", Binary::Mul, scores, scale)?;
        }
        let weights = b.softmax("softmax", scores)?;
        let values = b.reshape("heads", x, [n, heads.into(), head_dim.into(), tokens.into()])?;
        let values = b.transpose("values", values, &[0, 1, 3, 2])?;
        let mixed = b.matmul("mix", weights, values)?;
        let mixed = b.transpose("mixed", mixed, &[0, 1, 3, 2])?;
        b.reshape("map", mixed, [n, c.into(), h.into(), w.into()])
    })
}
