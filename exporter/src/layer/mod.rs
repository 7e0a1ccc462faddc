//! Layers: what the network is made of, each spelled as the profile wants it.

mod activation;
mod attention;
mod norm;
mod window;

use std::ops::Range;

use emo_proto::Result;

use crate::builder::Builder;
use crate::graph::{Affine, Dim, FoldedConv, Shape, Source, Value};
use crate::op::{Binary, Unary};
use crate::profile::{Forms, Opset, Pool, Profile};
use crate::rewrite::{Kind, Rewrite};

pub use activation::{Act, activation};
pub use attention::attend;
pub use norm::{NORM_EPSILON, Norm, Normed, batch_norm, norm};
pub use window::Grid;

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
}

/// A convolution of a square kernel, zero-padded by half of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    pub out: usize,
    pub kernel: usize,
    pub stride: usize,
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
    b.conv(c.name(), &operands, c.stride, c.kernel / 2, group)
}

/// The same of a 1×1 convolution over rows of channels, `x: [N, C]` → `[N, out]`: the weight is a
/// matrix, as the classifier's is published and a product wants it.
pub fn linear(b: &mut Builder, x: Value, c: &Conv) -> Result<Value> {
    let channels = b.shape(x).0.last().map_or(0, |d| d.at_batch_one());
    let operands = c.operands(b, [c.out, channels]);
    b.gemm(c.name(), x, operands[0], operands[1])
}

/// Depthwise convolution, batch norm, SiLU: the local half of a block.
pub fn conv_local(b: &mut Builder, x: Value, kernel: usize, stride: usize, form: Form) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    b.within("conv_local", |b| {
        let c = Conv { kernel, stride, depthwise: true, ..Conv::pointwise(channels) };
        let y = b.within("conv", |b| conv(b, x, &c))?;
        let y = b.within("norm", |b| batch_norm(b, y))?;
        activation(b, y, Act::Silu, form)
    })
}

/// The mean of each map, `x: [N, C, H, W]` → `[N, C, 1, 1]`.
///
/// fvcore counts pooling, one an element, and no mean, as the published model has them.
pub fn mean(b: &mut Builder, x: Value, form: Form) -> Result<Value> {
    match form.forms().pool {
        Pool::ReduceMean => b.reduce_mean("mean", x, &[2, 3], true),
        Pool::GlobalAveragePool => {
            let elements = b.shape(x).elements().map_or(0, Dim::at_batch_one) as i64;
            let free = Rewrite::free(Kind::Pool, b.path("mean"), b.path("mean"));
            b.rewrote(Rewrite { fvcore: -elements, ..free });
            b.global_average_pool("mean", x)
        }
    }
}

/// `x · sigmoid(expand(silu(reduce(mean(x)))))`, `x: [N, C, H, W]`, C channels throughout.
pub fn squeeze_excite(b: &mut Builder, x: Value, form: Form) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    let c = Conv::pointwise(channels).biased();
    b.within("se", |b| {
        let mean = mean(b, x, form)?;
        let reduced = b.within("conv_reduce", |b| conv(b, mean, &c))?;
        let reduced = activation(b, reduced, Act::Silu, form)?;
        let expanded = b.within("conv_expand", |b| conv(b, reduced, &c))?;
        let gate = b.unary("gate", Unary::Sigmoid, expanded)?;
        b.binary("mul", Binary::Mul, x, gate)
    })
}
