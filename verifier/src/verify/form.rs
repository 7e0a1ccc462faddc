//! How a file spells EMO: told from its nodes, whatever their names.

use emo_proto::ModelProto;
use emo_proto::tensor_proto::DataType;
use serde::Serialize;

use crate::compare::{BFLOAT16, FLOAT16, FLOAT32, INT8, Tolerance};
use crate::infer::Inference;
use crate::recognise::Recognition;

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
pub fn form(inference: &Inference) -> Form {
    let has = |operators: &[&str]| inference.nodes.iter().any(|n| operators.contains(&n.node.op_type()));
    let quantized = |operator: &str| {
        let integer = operator.ends_with("Integer") || operator.starts_with("QLinear");
        integer
            || matches!(
                operator,
                "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear" | "QAttention"
            )
    };
    if inference.nodes.iter().any(|n| quantized(n.node.op_type())) {
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

/// What a file's arithmetic can be held to: its type's tolerance.
#[must_use]
pub fn own_tolerance(inference: &Inference, recognition: &Recognition) -> &'static Tolerance {
    if form(inference) == Form::Quantized {
        return &INT8;
    }
    let parts = recognition.layers.iter().flat_map(|(_, found)| &found.parts);
    let outputs = parts.filter_map(|part| inference.nodes[part.node].outputs.first());
    let coarseness = |dtype: DataType| match dtype {
        DataType::Bfloat16 => 2,
        DataType::Float16 => 1,
        _ => 0,
    };
    match outputs.map(|fact| coarseness(fact.dtype)).max() {
        Some(2) => &BFLOAT16,
        Some(1) => &FLOAT16,
        _ => &FLOAT32,
    }
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
