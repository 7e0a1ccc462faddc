//! How a file spells EMO: told from its nodes, whatever their names.

use serde::Serialize;

use crate::infer::Inference;
use crate::path::DataPath;
use crate::tolerance::quantizes;

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
