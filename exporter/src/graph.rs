//! The intermediate representation: a list of nodes over typed values.
//!
//! It knows nothing of protobuf, of weights or of opsets. What an ONNX operator takes
//! as an integer operand (a target shape, axes, pads) is part of the [`Op`] here and
//! becomes an operand only when the graph is written.

use std::fmt;
use std::ops::Range;

use emo_proto::tensor_proto::DataType;

use crate::op::Op;
use crate::rewrite::Rewrite;

/// One extent of a shape: a number, or a multiple of the free batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    Fixed(usize),
    /// This many times the batch, which is known only when the file runs.
    Batch(usize),
}

impl Dim {
    /// The extent when the free batch is one.
    #[must_use]
    pub fn at_batch_one(self) -> usize {
        match self {
            Dim::Fixed(n) | Dim::Batch(n) => n,
        }
    }

    /// The product, unless it would hold the batch twice or overflow.
    #[must_use]
    pub fn times(self, other: Dim) -> Option<Dim> {
        let n = self.at_batch_one().checked_mul(other.at_batch_one())?;
        match (self, other) {
            (Dim::Fixed(_), Dim::Fixed(_)) => Some(Dim::Fixed(n)),
            (Dim::Batch(_), Dim::Batch(_)) => None,
            _ => Some(Dim::Batch(n)),
        }
    }

    /// The product with a number.
    #[must_use]
    pub fn by(self, factor: usize) -> Dim {
        match self {
            Dim::Fixed(n) => Dim::Fixed(n * factor),
            Dim::Batch(n) => Dim::Batch(n * factor),
        }
    }

    /// The quotient, if it is whole.
    #[must_use]
    pub fn over(self, divisor: usize) -> Option<Dim> {
        let whole = |n: usize| (divisor != 0 && n.is_multiple_of(divisor)).then(|| n / divisor);
        match self {
            Dim::Fixed(n) => whole(n).map(Dim::Fixed),
            Dim::Batch(n) => whole(n).map(Dim::Batch),
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::Fixed(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Batch(1) => f.write_str("batch"),
            Dim::Batch(n) => write!(f, "{n}·batch"),
        }
    }
}

/// The shape of a tensor, outermost extent first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The number of elements, unless it overflows or holds the batch twice.
    #[must_use]
    pub fn elements(&self) -> Option<Dim> {
        self.0.iter().try_fold(Dim::Fixed(1), |product, &d| product.times(d))
    }

    /// The four extents of a feature map: `[N, C, H, W]`.
    #[must_use]
    pub fn map(&self) -> Option<[Dim; 4]> {
        self.0.as_slice().try_into().ok()
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape(dims.map(Dim::Fixed).to_vec())
    }
}

impl<const N: usize> From<[Dim; N]> for Shape {
    fn from(dims: [Dim; N]) -> Self {
        Shape(dims.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            write!(f, "{}{dim}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// A handle to a value of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) usize);

/// A scale and a shift per channel, by their state-dict entries.
#[derive(Debug, Clone, PartialEq)]
pub enum Affine {
    /// A batch norm in inference form: four entries and ε.
    BatchNorm { name: String, epsilon: f64 },
    /// What a layer norm does once its statistics are divided out: two entries.
    LayerNorm { name: String },
    /// A scale alone: one entry, whose name this is.
    Scale { name: String },
}

/// A convolution, or a matrix product, and everything linear that was folded into it.
///
/// With `before` = scale s, shift t per input channel, `after` = scale a, shift c per
/// output channel, P the weight of the pointwise convolution `inner`, and r the factor of an
/// output row: `W'[o,i] = r·a·Σ_j W[o,j]·s[j]·P[j,i]` (without `inner`, P is the identity)
/// and `b'[o] = r·(a·(b[o] + Σ W[o,j]·t[j]) + c)`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FoldedConv {
    pub weight: String,
    pub bias: Option<String>,
    pub inner: Option<String>,
    pub before: Option<Affine>,
    pub after: Option<Affine>,
    /// The first output channels are multiplied by a factor: how many, by what.
    pub scaled: Option<(usize, f64)>,
    /// The published output channels that are here; all where absent.
    pub rows: Option<Range<usize>>,
    /// The published input channels that are read here; all where absent, and where there is `inner`.
    pub columns: Option<Range<usize>>,
}

/// Where the elements of a constant come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The state-dict entry of the value's own name.
    Parameter,
    FoldedWeight(FoldedConv),
    FoldedBias(FoldedConv),
    /// Numbers that are no parameters of the model, written as a `Constant` node.
    Numbers(Vec<f32>),
}

#[derive(Debug, Clone)]
pub struct ValueInfo {
    pub name: String,
    pub shape: Shape,
    pub dtype: DataType,
    /// `None` for inputs and node outputs.
    pub constant: Option<Source>,
}

#[derive(Debug, Clone)]
pub struct Node {
    /// The module path, as the published checkpoint spells it.
    pub name: String,
    pub op: Op,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
    /// Which layer it is part of, where that decides its precision.
    pub part: Part,
}

/// Parts of the network that may need float32 in a float16 file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    #[default]
    Other,
    /// Mean and variance of a layer norm, and what divides by them.
    LayerNorm,
    Softmax,
    /// Bytes made numbers.
    Image,
    /// A GELU that is spelled out: powers and differences of near-equal numbers.
    Gelu,
    /// Scores and boxes in pixels, of which float16 has no fractions: float32 for any target.
    Boxes,
}

/// Nodes in execution order, each value assigned once.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub name: String,
    pub(crate) values: Vec<ValueInfo>,
    pub nodes: Vec<Node>,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
    /// What exact rewrites took out of the published model, in network order.
    pub rewrites: Vec<Rewrite>,
}

impl ValueInfo {
    /// Whether the value is an entry of the published state dict, untouched.
    #[must_use]
    pub fn is_parameter(&self) -> bool {
        self.constant == Some(Source::Parameter)
    }
}

impl Graph {
    #[must_use]
    pub fn value(&self, value: Value) -> &ValueInfo {
        &self.values[value.0]
    }

    #[must_use]
    pub fn shape(&self, value: Value) -> &Shape {
        &self.values[value.0].shape
    }

    /// The constants that nodes read, in the order of their first use.
    #[must_use]
    pub fn constants(&self) -> Vec<Value> {
        let mut seen = vec![false; self.values.len()];
        let operands = self.nodes.iter().flat_map(|n| &n.inputs).copied();
        operands
            .filter(|&v| self.value(v).constant.is_some() && !std::mem::replace(&mut seen[v.0], true))
            .collect()
    }

    pub(crate) fn add_constant(&mut self, name: String, shape: Shape, source: Source) -> Value {
        self.values.push(ValueInfo { name, shape, dtype: DataType::Float, constant: Some(source) });
        Value(self.values.len() - 1)
    }

    pub(crate) fn add_value(&mut self, name: String, shape: Shape) -> Value {
        self.values.push(ValueInfo { name, shape, dtype: DataType::Float, constant: None });
        Value(self.values.len() - 1)
    }

    /// The nodes that read `value`, by index.
    pub(crate) fn readers(&self, value: Value) -> impl Iterator<Item = usize> {
        self.nodes.iter().enumerate().filter(move |(_, n)| n.inputs.contains(&value)).map(|(i, _)| i)
    }

    pub(crate) fn writer(&self, value: Value) -> Option<usize> {
        self.nodes.iter().position(|n| n.outputs.contains(&value))
    }
}
