//! How a file spells EMO: told from its nodes, whatever their names.

use emo_proto::ModelProto;
use emo_proto::tensor_proto::DataType;
use serde::Serialize;

use crate::compare::{BFLOAT16, FLOAT16, FLOAT32, INT8, Tolerance, coarser};
use crate::infer::Inference;

use crate::path::DataPath;

/// A way of writing the network down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Weights or activations are integers with a scale.
    Quantized,
    /// No tensor has more than four axes: as mobile runtimes want it.
    Rank4,
    /// Traced: the shapes' arithmetic is left in the graph.
    Torchscript,
    /// Exported from a captured program: shapes are constants, what does nothing is left in.
    Dynamo,
    /// What does nothing is gone, as after onnxsim or onnxslim.
    Simplified,
}

impl Form {
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Quantized => "quantized",
            Self::Rank4 => "rank 4",
            Self::Torchscript => "TorchScript, decomposed",
            Self::Dynamo => "dynamo",
            Self::Simplified => "simplified",
        }
    }
}

/// The form of a recognised file.
#[must_use]
pub fn form(inference: &Inference, path: &DataPath) -> Form {
    let has = |operators: &[&str]| inference.nodes.iter().any(|n| operators.contains(&n.node.op_type()));
    if path.nodes(inference).any(|(_, node)| quantizes(node.node.op_type())) {
        Form::Quantized
    } else if inference.highest_rank().is_some_and(|(rank, _)| rank <= 4) {
        Form::Rank4
    } else if has(&["Shape"]) {
        Form::Torchscript
    } else if does_nothing(inference) {
        Form::Dynamo
    } else {
        Form::Simplified
    }
}

/// Whether an operator rounds to integers.
fn quantizes(operator: &str) -> bool {
    matches!(operator, "QuantizeLinear" | "DynamicQuantizeLinear")
}

/// Whether nodes are left that a simplifier takes out: copies, pads and slices of nothing, constants
/// that are nodes.
fn does_nothing(inference: &Inference) -> bool {
    let same_shape = |operator: &str| matches!(operator, "Pad" | "Slice" | "Expand" | "Reshape");
    inference.nodes.iter().any(|n| match n.node.op_type() {
        "Identity" | "Dropout" | "Constant" => true,
        operator if same_shape(operator) => {
            let before = n.node.input.first().and_then(|name| inference.values.get(name.as_str()));
            let after = n.node.output.first().and_then(|name| inference.values.get(name.as_str()));
            before.zip(after).is_some_and(|(a, b)| a.dims.is_ok() && a.dims == b.dims)
        }
        _ => false,
    })
}

/// The tolerance of the coarsest type that anything on the way from the picture to the logits is rounded to.
#[must_use]
pub fn own_tolerance(inference: &Inference, path: &DataPath) -> &'static Tolerance {
    let coarsest = path.nodes(inference).map(|(_, node)| {
        if quantizes(node.node.op_type()) {
            return &INT8;
        }
        match node.outputs.first().map(|fact| fact.dtype) {
            Some(DataType::Bfloat16) => &BFLOAT16,
            Some(DataType::Float16) => &FLOAT16,
            _ => &FLOAT32,
        }
    });
    coarsest.fold(&FLOAT32, coarser)
}

/// What a file's weights are stored in, where that is coarser than its arithmetic: its tolerance.
#[must_use]
pub fn stored_tolerance(model: &ModelProto, own: &'static Tolerance) -> &'static Tolerance {
    /// A smaller constant is a bound or a scale.
    const FEW: i64 = 1 << 10;
    let initializers = model.graph.iter().flat_map(|g| &g.initializer);
    let large = initializers.filter(|i| i.dims.iter().product::<i64>() > FEW);
    let tolerance = large.map(|i| match i.data_type() {
        t if t == DataType::Float16 as i32 => &FLOAT16,
        t if t == DataType::Bfloat16 as i32 => &BFLOAT16,
        t if t == DataType::Int8 as i32 || t == DataType::Uint8 as i32 => &INT8,
        _ => &FLOAT32,
    });
    tolerance.chain([own]).max_by(|a, b| a.bound.total_cmp(&b.bound)).unwrap_or(own)
}
