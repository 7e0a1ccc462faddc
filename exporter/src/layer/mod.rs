//! Layers: what the network is made of, each spelled as the profile wants it.

mod activation;
mod attention;
mod norm;
mod resize;
mod span;
mod window;

use std::ops::Range;

use emo_proto::Result;

use crate::builder::Builder;
use crate::graph::{Affine, Dim, FoldedConv, Shape, Source, Value};
use crate::op::{Binary, Unary};
use crate::profile::{Attention, Forms, Opset, Pool, Profile};
use crate::rewrite::{Kind, Rewrite};

pub use activation::{Act, activation};
pub use attention::attend;
pub use norm::{NORM, NORM_EPSILON, Norm, NormName, Normed, batch_norm, norm};
pub use resize::{adaptive_pool, labels, resize_linear, resize_logits, resize_nearest};
pub use span::{Span, span};

pub use window::{Grid, Pattern, pad_tokens};

/// How layers are to be spelled.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub profile: &'static Profile,
    pub opset: &'static Opset,
    /// Whether the graph is to be float16.
    pub half: bool,
}

impl Form {
    #[must_use]
    pub fn forms(self) -> &'static Forms {
        &self.profile.forms
    }

    /// How a mean is written that is published as `published`.
    #[must_use]
    pub fn pool(self, published: Pool) -> Pool {
        match self.forms().pool {
            Pool::Published => published,
            pool @ (Pool::ReduceMean | Pool::GlobalAveragePool) => pool,
        }
    }

    /// Whether maps of matrices, which take rows of channels, keep the channels last: as published where nothing is
    /// folded, and where tokens lie outermost.
    #[must_use]
    pub fn rows(self) -> bool {
        !self.forms().fold || self.forms().attention == Attention::Tokens
    }
}

/// A convolution of a square kernel, zero-padded by half of what it spans, or cutting patches where it strides by its
/// side.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    pub out: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Its taps are so many cells apart.
    pub dilation: usize,
    pub depthwise: bool,
    pub bias: bool,
    /// The first output channels are multiplied by a factor: how many, by what.
    pub scaled: Option<(usize, f64)>,
    /// What scales and shifts its input, to be folded in.
    pub before: Option<Affine>,
    /// The published output channels that this one holds, and what it is called; all where absent.
    pub part: Option<(Range<usize>, &'static str)>,
}

impl Conv {
    /// A 1×1 convolution to `out` channels.
    #[must_use]
    pub fn pointwise(out: usize) -> Self {
        Self {
            out,
            kernel: 1,
            stride: 1,
            dilation: 1,
            depthwise: false,
            bias: false,
            scaled: None,
            before: None,
            part: None,
        }
    }

    #[must_use]
    pub fn biased(self) -> Self {
        Self { bias: true, ..self }
    }

    /// The weight, in `shape`, and the bias, if there is one; of this scope.
    fn operands(&self, b: &mut Builder, shape: impl Into<Shape>) -> Vec<Value> {
        let folds = self.scaled.is_some() || self.before.is_some() || self.part.is_some();
        let folded = folds.then(|| FoldedConv {
            weight: b.path("weight"),
            bias: self.bias.then(|| b.path("bias")),
            before: self.before.clone(),
            scaled: self.scaled,
            rows: self.part.as_ref().map(|(rows, _)| rows.clone()),
            ..FoldedConv::default()
        });
        let mut constant = |name: &str, shape: Shape, source: fn(FoldedConv) -> Source| {
            let name = self.part.as_ref().map_or(name.to_owned(), |(_, part)| format!("{part}.{name}"));
            b.constant(&name, shape, folded.clone().map_or(Source::Parameter, source))
        };
        let mut operands = vec![constant("weight", shape.into(), Source::FoldedWeight)];
        if self.bias {
            operands.push(constant("bias", [self.out].into(), Source::FoldedBias));
        }
        operands
    }

    fn pad(&self) -> usize {
        if self.stride == self.kernel { 0 } else { self.dilation * (self.kernel / 2) }
    }

    fn name(&self) -> &'static str {
        self.part.as_ref().map_or("", |(_, part)| part)
    }
}

/// `x: [N, C, H, W]` → `[N, out, ⌈H/stride⌉, ⌈W/stride⌉]`; weights `weight`, `bias` of this scope.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn conv(b: &mut Builder, x: Value, c: &Conv) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    let group = if c.depthwise { channels } else { 1 };
    let mut operands = vec![x];
    operands.extend(c.operands(b, [c.out, channels / group, c.kernel, c.kernel]));
    b.conv(c.name(), &operands, c.stride, c.pad(), c.dilation, group)
}

/// The same of a 1×1 convolution over rows of channels, `x: [N, C]` → `[N, out]`: the weight is a
/// matrix, as the classifier's is published and a product wants it.
pub fn linear(b: &mut Builder, x: Value, c: &Conv) -> Result<Value> {
    let channels = b.shape(x).0.last().map_or(0, |d| d.at_batch_one());
    let operands = c.operands(b, [c.out, channels]);
    b.gemm(c.name(), x, operands[0], operands[1])
}

/// A linear map with what stands behind it, by the names of the published modules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    pub name: &'static str,
    pub bias: bool,
    /// The batch norm behind it, and its ε.
    pub norm: Option<(&'static str, f64)>,
    /// The module that has the activation behind that.
    pub act: Option<&'static str>,
}

/// The convolution `c` and what stands behind it, of a map `[N, C, H, W]` or of rows of channels `[R, C]`.
pub fn convolve(b: &mut Builder, x: Value, layer: &Linear, c: Conv, act: Act, form: Form) -> Result<Value> {
    let c = Conv { bias: layer.bias, ..c };
    let rows = b.shape(x).rank() == 2;
    let mut y = b.within(layer.name, |b| if rows { linear(b, x, &c) } else { conv(b, x, &c) })?;
    if let Some((name, epsilon)) = layer.norm {
        y = b.within(name, |b| batch_norm(b, y, epsilon))?;
    }
    match layer.act {
        Some(name) => b.within(name, |b| activation(b, y, act, form)),
        None => Ok(y),
    }
}

/// The extents (N, C, H, W) of a map, `[N, H, W, C]` where `last`, `[N, C, H, W]` otherwise.
pub fn extents(b: &Builder, x: Value, last: bool) -> Result<(Dim, usize, usize, usize)> {
    let (n, a, h, w) = b.feature_map(x)?;
    Ok(if last { (n, w, a, h) } else { (n, a, h, w) })
}

/// A map `[N, H, W, C]` as rows of channels, `[N·H·W, C]`.
pub fn rows(b: &mut Builder, name: &str, x: Value) -> Result<Value> {
    let (n, channels, height, width) = extents(b, x, true)?;
    b.reshape(name, x, [n.by(height * width), channels.into()])
}

/// The mean of each map, `x: [N, C, H, W]` → `[N, C, 1, 1]`, published as `published`.
///
/// fvcore counts pooling, one an element, and no mean, as the published model has them.
pub fn mean(b: &mut Builder, x: Value, published: Pool, form: Form) -> Result<Value> {
    let pool = form.pool(published);
    if pool != published {
        let elements = b.shape(x).elements().map_or(0, Dim::at_batch_one) as i64;
        let free = Rewrite::free(Kind::Pool, b.path("mean"), b.path("mean"));
        let sign = if pool == Pool::GlobalAveragePool { -1 } else { 1 };
        b.rewrote(Rewrite { fvcore: sign * elements, ..free });
    }
    match pool {
        Pool::GlobalAveragePool => b.global_average_pool("mean", x),
        Pool::ReduceMean | Pool::Published => b.reduce_mean("mean", x, &[2, 3], true),
    }
}

/// `x · sigmoid(expand(silu(reduce(mean(x)))))`, `x: [N, C, H, W]`, C channels throughout.
pub fn squeeze_excite(b: &mut Builder, x: Value, form: Form) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    let c = Conv::pointwise(channels).biased();
    b.within("se", |b| {
        let mean = mean(b, x, Pool::ReduceMean, form)?;
        let reduced = b.within("conv_reduce", |b| conv(b, mean, &c))?;
        let reduced = activation(b, reduced, Act::Silu, form)?;
        let expanded = b.within("conv_expand", |b| conv(b, reduced, &c))?;
        let gate = b.unary("gate", Unary::Sigmoid, expanded)?;
        b.binary("mul", Binary::Mul, x, gate)
    })
}
