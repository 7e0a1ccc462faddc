//! The operators that we emit, in families; one shape rule serves a family.

use emo_proto::tensor_proto::DataType;

/// An ONNX operator with its attributes and its integer operands.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `x: [N, C, H, W]`, `w: [M, C/group, k, k]`, optional `b: [M]`; equal strides,
    /// equal zero padding on all four sides, taps so many cells apart.
    Conv {
        stride: usize,
        pad: usize,
        dilation: usize,
        group: usize,
    },
    /// `x: [N, K]`, `w: [M, K]`, `b: [M]` → `x·wᵀ + b: [N, M]`.
    Gemm,
    /// `[…, M, K] × […, K, N]` → `[…, M, N]`.
    MatMul,
    /// `x: [N, C, H, W]` with scale, shift, mean and variance `[C]`, in inference form.
    BatchNormalization {
        epsilon: f64,
    },
    /// Over the last axis, with scale and shift.
    LayerNormalization {
        epsilon: f64,
    },
    /// Over the last axis.
    Softmax,
    Unary(Unary),
    /// `x` with two scalars, the lowest and the highest value.
    Clip,
    /// With numpy's broadcasting.
    Binary(Binary),
    /// Mean over `axes`, kept as extents of one or dropped.
    ReduceMean {
        axes: Vec<usize>,
        keep: bool,
    },
    /// To the type that the builder was given.
    Reshape,
    Transpose {
        perm: Vec<usize>,
    },
    /// Into parts of these sizes.
    Split {
        axis: usize,
        sizes: Vec<usize>,
    },
    /// Along one axis, one behind the other.
    Concat {
        axis: usize,
    },
    /// So many zeros before the start and behind the end of each axis.
    Pad {
        before: Vec<usize>,
        behind: Vec<usize>,
    },
    /// The first elements of some axes: which, how many.
    Crop {
        axes: Vec<usize>,
        extents: Vec<usize>,
    },
    /// `[N, C, b·H, b·W]` → `[N, b²·C, H, W]`, the place in a block outermost.
    SpaceToDepth {
        block: usize,
    },
    /// The inverse (mode DCR).
    DepthToSpace {
        block: usize,
    },
    /// `[N, C, H, W]` → `[N, C, 1, 1]`, the mean of each map.
    GlobalAveragePool,
    /// The means of windows of so many rows and columns, which start so many rows and columns apart.
    AveragePool {
        kernel: [usize; 2],
        stride: [usize; 2],
    },
    /// Maps `[N, C, H, W]` of other sides.
    Resize {
        mode: Resize,
        size: [usize; 2],
        resizing: Resizing,
    },
    /// The place of the largest element of one axis, which is dropped: the first of equal ones.
    ArgMax {
        axis: usize,
    },
    /// The largest so many elements of a line, sorted, and their places; of equal ones the first.
    TopK {
        count: usize,
    },
    /// Rows of the first operand, by the places that the second holds.
    Gather,
    /// Integers divided by a number, rounded down.
    Quotient {
        by: usize,
    },
    /// What is left of them.
    Remainder {
        by: usize,
    },
    /// Boxes `[1, K, 4]` by their scores `[1, C, K]` → places (image, class, box) `[S, 3]` of those above `score` that
    /// overlap no better one of their class by more than `iou`. As with a free batch, S is known only when the file
    /// runs.
    NonMaxSuppression {
        most: usize,
        iou: f32,
        score: f32,
    },
    /// A line with other elements `[S]` at the places `[S, 1]`.
    ScatterNd,
    /// The sum of a line, as its one element.
    ReduceSum,
    /// To the type that the builder was given.
    Cast {
        to: DataType,
    },
}

/// How a map is resized: by an operator that is told scales where they are whole or the batch is free, else sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resizing {
    /// The region and the scales are left out where they say nothing.
    LeftOut,
    /// They are empty there, for readers that take an operand that is left out for one of free shape.
    Empty,
    /// The region is empty, and scales stand wherever the map grows: for readers that look for no sizes where there is
    /// an operand for scales.
    Scales,
    /// As [`LeftOut`](Self::LeftOut), but for logits of maps that are at most so wide, from which no convolution reads:
    /// these are products with constant matrices.
    Logits { widest: usize },
    /// The same of all linear resizes.
    Products { widest: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    Sigmoid,
    Abs,
    Exp,
    Sqrt,
    Erf,
    Relu,
    Sign,
    /// The exact form, ½·x·(1 + erf(x/√2)); opset 20.
    Gelu,
}

/// How a map is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// Cell i is cell ⌊i·n/m⌋ of n where there are to be m, as PyTorch's `nearest` has it.
    Nearest,
    /// Between the centres of cells, PyTorch's `bilinear` without aligned corners.
    Linear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

impl Op {
    /// The name that ONNX gives the operator.
    #[must_use]
    pub fn onnx_name(&self) -> &'static str {
        match self {
            Op::Conv { .. } => "Conv",
            Op::Gemm => "Gemm",
            Op::MatMul => "MatMul",
            Op::BatchNormalization { .. } => "BatchNormalization",
            Op::LayerNormalization { .. } => "LayerNormalization",
            Op::Softmax => "Softmax",
            Op::Clip => "Clip",
            Op::Unary(Unary::Sigmoid) => "Sigmoid",
            Op::Unary(Unary::Abs) => "Abs",
            Op::Unary(Unary::Exp) => "Exp",
            Op::Unary(Unary::Sqrt) => "Sqrt",
            Op::Unary(Unary::Erf) => "Erf",
            Op::Unary(Unary::Relu) => "Relu",
            Op::Unary(Unary::Sign) => "Sign",
            Op::Unary(Unary::Gelu) => "Gelu",
            Op::Binary(Binary::Add) => "Add",
            Op::Binary(Binary::Sub) => "Sub",
            Op::Binary(Binary::Mul) => "Mul",
            Op::Binary(Binary::Div) => "Div",
            Op::ReduceMean { .. } => "ReduceMean",
            Op::Reshape => "Reshape",
            Op::Transpose { .. } => "Transpose",
            Op::Split { .. } => "Split",
            Op::Concat { .. } => "Concat",
            Op::Pad { .. } => "Pad",
            Op::Crop { .. } => "Slice",
            Op::SpaceToDepth { .. } => "SpaceToDepth",
            Op::DepthToSpace { .. } => "DepthToSpace",
            Op::GlobalAveragePool => "GlobalAveragePool",
            Op::AveragePool { .. } => "AveragePool",
            Op::Resize { .. } => "Resize",
            Op::ArgMax { .. } => "ArgMax",
            Op::TopK { .. } => "TopK",
            Op::Gather => "Gather",
            Op::Quotient { .. } => "Div",
            Op::Remainder { .. } => "Mod",
            Op::NonMaxSuppression { .. } => "NonMaxSuppression",
            Op::ScatterNd => "ScatterND",
            Op::ReduceSum => "ReduceSum",
            Op::Cast { .. } => "Cast",
        }
    }
}
