//! Losses and the optimisers of `ai.onnx.preview.training`.

use super::elementwise::same;
use super::{Ctx, Row, Why};
use crate::fact::Fact;

pub(super) const ROWS: &[Row] =
    &[Row::free("NegativeLogLikelihoodLoss", loss), Row::free("SoftmaxCrossEntropyLoss", loss_and_scores)];

/// Operators of `ai.onnx.preview.training`; `Gradient` differentiates what the graph does not
/// spell out, so its work cannot be counted.
pub(super) const PREVIEW: &[Row] = &[
    Row::free("Adagrad", |ctx| update(ctx, 2)),
    Row::free("Adam", |ctx| update(ctx, 3)),
    Row::free("Momentum", |ctx| update(ctx, 2)),
    Row { name: "Gradient", rule: gradient, work: |_, _| Err(OPAQUE.to_owned()), weights: &[] },
];

const OPAQUE: &str = "a gradient's work is not written in the graph";

/// A loss for each target, or one for all.
fn loss(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype(0)?;
    let target = ctx.input(1)?;
    Ok(vec![match ctx.text("reduction").unwrap_or("mean") {
        "none" => Fact { dims: target.dims.clone(), ..Fact::scalar(dtype) },
        "mean" | "sum" => Fact::scalar(dtype),
        other => return Err(format!("expected reduction none, mean or sum, found {other}")),
    }])
}

fn loss_and_scores(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok([loss(ctx)?, same(ctx)?].concat())
}

/// `rate, step, x…, gradient of x…, states of x…` → `x…, states of x…`: `kinds` of the tensors
/// that are optimised, of which there are a `kinds + 1`-th of the operands.
fn update(ctx: &Ctx, kinds: usize) -> Result<Vec<Fact>, Why> {
    let operands = ctx.inputs.get(2..).unwrap_or_default();
    let tensors = operands.len() / (kinds + 1);
    if tensors == 0 || operands.len() % (kinds + 1) != 0 {
        return Err(format!(
            "expected {} operands a tensor after the first two, found {}",
            kinds + 1,
            operands.len()
        ));
    }
    let kept = (0..tensors).chain(2 * tensors..operands.len());
    kept.map(|i| Ok(ctx.input(i + 2)?.clone())).map(|f| f.map(|f| Fact { source: None, ..f })).collect()
}

/// A derivative has the shape of what it is taken by.
fn gradient(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let by = ctx.attribute("xs").map_or(0, |a| a.strings.len());
    (0..by).map(|i| Ok(Fact { source: None, ..ctx.input(i)?.clone() })).collect()
}
