//! A row a target: what the runtime takes, and how each layer is spelled for it.
//!
//! One table ([`PROFILES`]) serves both sides. The exporter spells layers by a row's
//! [`Forms`] and refuses what the row does not allow ([`Target::accept`](crate::target::Target::accept)); a lint holds any
//! file against the same row: opset, rank, static shapes, and the permitted operators, whose
//! [`Condition`]s are read without knowing who wrote the file ([`Profile::judge`]). Every
//! constraint names its source.

mod accept;
mod condition;
mod lists;
mod table;

pub use accept::{Allow, MostImages, Opsets};
pub use condition::{
    Attribute, Condition, Judgement, List, NodeFacts, Operand, Operators, Permit, Rule, instead,
};
pub use table::PROFILES;

use crate::graph::Part;
pub use crate::op::Resizing;

/// A family of runtimes, what it takes, and how a model is spelled for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    pub name: &'static str,
    pub summary: &'static str,
    pub opsets: Opsets,
    pub rank: HighestRank,
    /// Whether the batch may be free.
    pub free_batch: Allow,
    /// How many images a fixed batch may have; `None` where any number will do.
    pub most_images: Option<MostImages>,
    /// Whether weights and computation may be float16.
    pub half: Allow,
    /// What a float16 file keeps in float32.
    pub float32: &'static [Part],
    /// Whether the input may be an image of bytes.
    pub image_input: Allow,
    pub operators: Operators,
    /// What a reader of this row should know beside its constraints: where sources contradict
    /// each other, what a form was chosen for.
    pub notes: &'static [&'static str],
    pub forms: Forms,
}

/// The rank that no tensor should exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HighestRank {
    pub rank: usize,
    /// The rank up to which the runtime takes a tensor at all, slowly or on another processor.
    pub taken: usize,
    pub source: &'static str,
}

/// How each layer is spelled, and what is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forms {
    /// Batch norms go into the convolutions beside them, the attention scale into q.
    pub fold: bool,
    /// Pointwise convolutions with nothing but a folded norm between them are one.
    pub merge: bool,
    /// Pointwise convolutions over maps side by side are one a map, before the map is resized.
    pub split: bool,
    /// Windows are put back and their padding cut off before the value convolution, which
    /// is pointwise, rather than after it: fewer channels move, padded tokens cost nothing.
    pub unpartition_first: bool,
    pub expansion: Expansion,
    pub attention: Attention,
    pub layer_norm: LayerNorm,
    pub silu: Silu,
    pub gelu: Gelu,
    pub pool: Pool,
    pub padding: Padding,
    pub resizing: Resizing,
}

/// How a block's expansion is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expansion {
    /// A 1×1 convolution.
    Conv,
    /// A product over rows of channels between transposes, where the depthwise convolution behind it
    /// strides or its map is narrow: a runtime that moves transposes to where they vanish then has
    /// the channels last in that convolution.
    Rows,
}

/// How the tokens of each window attend to one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Windows are maps `[windows·N, C, 7, 7]`, q and k come from 1×1 convolutions.
    Channels { windows: Windows, qk: Qk, mix: Mix },
    /// Tokens lie outermost, `[N, 49, windows·heads, d]`, q and k come from matrix products:
    /// one transpose makes all windows, and the heads need none of their own where a runtime
    /// multiplies batches with a stride.
    Tokens,
}

/// How a map is cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// Reshape, Transpose, Reshape, all of rank 4.
    Strips,
    /// `SpaceToDepth` and back, where the grid of windows is square; strips otherwise.
    SpaceToDepth,
}

/// Where q and k come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qk {
    /// One convolution over the windows.
    OfWindows,
    /// One convolution over the map, before it is cut.
    OfMap,
    /// A convolution each, over the windows.
    Apart,
}

/// How values are weighted: S is `[tokens, tokens]`, V is `[d, tokens]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// (S·Vᵀ)ᵀ: the values are transposed, and the result back.
    TransposedValues,
    /// V·Sᵀ: the values stay.
    TransposedScores,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerNorm {
    /// `LayerNormalization` over the last axis.
    Operator,
    /// Means over the channel axis, spelled out. Scale and shift go into the convolutions that
    /// read them where that is exact: not where padded tokens take part.
    ChannelFirst,
    /// The same over rows of channels, one a pixel.
    Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silu {
    /// x·sigmoid(x), which runtimes fuse.
    Sigmoid,
    /// x/(1 + e^(0−x)), for a runtime whose fused one is slower than these four together.
    Quotient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// The operator where the opset has it; the Erf chain otherwise.
    Operator,
    /// x/√2, Erf, +1, ·x, ·½: the order that runtimes fuse.
    Erf,
    /// ½·(x + |x|·erf(|x|/√2)), erf as Abramowitz and Stegun 7.1.26 gives it (5e-7), for
    /// runtimes that have neither.
    Spelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// As the model's definition has it: fvcore counts pooling and no mean.
    Published,
    ReduceMean,
    GlobalAveragePool,
}

/// How windows that the map does not fill are filled with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    Pad,
    /// Concat with constants, where the batch is fixed.
    Concat,
}

/// An opset that models can be written in, and what it brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opset {
    pub version: i64,
    /// The lowest file format version that may declare the opset (`onnx.helper`'s table).
    pub ir_version: i64,
    /// Whether GELU is an operator; it is spelled with Erf otherwise.
    pub gelu: bool,
    /// Whether a reduction takes its axes as an operand instead of an attribute.
    pub reduce_axes_operand: bool,
}

pub const OPSETS: [Opset; 2] = [
    Opset { version: 17, ir_version: 8, gelu: false, reduce_axes_operand: false },
    Opset { version: 20, ir_version: 9, gelu: true, reduce_axes_operand: true },
];

impl Profile {
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|p| p.name == name)
    }

    /// The row that folds nothing: the initializers are the published state dict.
    #[must_use]
    pub fn reference() -> &'static Self {
        &PROFILES[0]
    }

    /// The opset that a file is written in unless another is asked for.
    #[must_use]
    pub fn default_opset(&self) -> &'static Opset {
        let default = self.opsets.versions.first().copied().unwrap_or_default();
        Opset::version(default).unwrap_or(&OPSETS[0])
    }
}

impl Opset {
    #[must_use]
    pub fn version(version: i64) -> Option<&'static Self> {
        OPSETS.iter().find(|o| o.version == version)
    }
}
