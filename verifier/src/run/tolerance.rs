//! The tolerance that a file's types ask for.

use emo_proto::ModelProto;
use emo_proto::tensor_proto::DataType;

use crate::compare::{BFLOAT16, FLOAT16, FLOAT32, INT8, Tolerance, coarser};
use crate::infer::Inference;
use crate::path::DataPath;

/// Whether an operator rounds to integers.
#[must_use]
pub fn quantizes(operator: &str) -> bool {
    matches!(operator, "QuantizeLinear" | "DynamicQuantizeLinear")
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
