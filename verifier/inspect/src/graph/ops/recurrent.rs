//! Recurrent cells.

use super::{Ctx, Row, Why};
use crate::cost::Work;
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row { name: "RNN", rule: hidden, work: |ctx, _| work(ctx, 1), weights: &[1, 2, 3] },
    Row { name: "GRU", rule: hidden, work: |ctx, _| work(ctx, 3), weights: &[1, 2, 3] },
    Row { name: "LSTM", rule: cell, work: |ctx, _| work(ctx, 4), weights: &[1, 2, 3, 7] },
];

/// What the operands of a cell agree on.
pub(super) struct Extents {
    steps: Expr,
    batch: Expr,
    inputs: Expr,
    directions: Expr,
    hidden: Expr,
    batch_first: bool,
}

/// `x: [steps, batch, inputs]` or, in layout 1, `[batch, steps, inputs]`;
/// `w: [directions, gates·hidden, inputs]`, `r: [directions, gates·hidden, hidden]`.
fn extents(ctx: &Ctx) -> Result<Extents, Why> {
    let [a, b, inputs] = ctx.dims(0)? else {
        return Err(format!("expected [steps, batch, inputs], found {:?}", ctx.dims(0)?));
    };
    let directions = match ctx.text("direction").unwrap_or("forward") {
        "forward" | "reverse" => 1.into(),
        "bidirectional" => 2.into(),
        other => return Err(format!("expected direction forward, reverse or bidirectional, found {other}")),
    };
    let hidden = match ctx.attribute("hidden_size").and_then(|a| a.i) {
        Some(hidden) => hidden.into(),
        None => ctx.dims(2)?.last().cloned().ok_or("expected a recurrent weight of three axes")?,
    };
    let batch_first = ctx.int("layout", 0) == 1;
    let (steps, batch) = if batch_first { (b, a) } else { (a, b) };
    let (steps, batch, inputs) = (steps.clone(), batch.clone(), inputs.clone());
    Ok(Extents { steps, batch, inputs, directions, hidden, batch_first })
}

/// The hidden state after every step, and after the last.
pub(super) fn hidden(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let e = extents(ctx)?;
    let dtype = ctx.input(0)?.dtype;
    let (all, last) = match e.batch_first {
        true => {
            (vec![e.batch.clone(), e.steps, e.directions.clone(), e.hidden.clone()], [e.batch, e.directions])
        }
        false => {
            (vec![e.steps, e.directions.clone(), e.batch.clone(), e.hidden.clone()], [e.directions, e.batch])
        }
    };
    let last = last.into_iter().chain([e.hidden]).collect();
    Ok(vec![Fact::new(dtype, all), Fact::new(dtype, last)])
}

/// The same, and the cell's own state after the last step.
pub(super) fn cell(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let mut outputs = hidden(ctx)?;
    outputs.extend(outputs.last().cloned());
    Ok(outputs)
}

/// Every gate multiplies the input and the hidden state by a matrix, each step; steps that
/// `sequence_lens` leaves out are counted too.
pub(super) fn work(ctx: &Ctx, gates: i64) -> Result<Work, Why> {
    let e = extents(ctx)?;
    let per_step = &(&e.hidden * gates) * &(&e.inputs + &e.hidden);
    let macs = [e.steps, e.batch, e.directions, per_step].into_iter().product();
    Ok(Work::Recurrent { macs })
}
