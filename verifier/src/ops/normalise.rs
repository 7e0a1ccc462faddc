//! Normalisations and softmax: the shape stays, the elements are counted.

use super::{Ctx, Row, Why};
use crate::cost::Work;
use crate::fact::Fact;

pub(super) const ROWS: &[Row] = &[
    Row { name: "BatchNormalization", rule: same, work: batch_norm, weights: &[1, 2] },
    Row { name: "LayerNormalization", rule: same, work: layer_norm, weights: &[1, 2] },
    Row::free("Softmax", same),
];

/// The first operand's type.
pub(super) fn same(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    Ok(vec![Fact { dims: x.dims.clone(), ..Fact::new(x.dtype, Vec::new()) }])
}

fn batch_norm(_: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    Ok(Work::BatchNorm { elements: outputs[0].count() })
}

fn layer_norm(_: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    Ok(Work::LayerNorm { elements: outputs[0].count() })
}
