//! Reductions over axes.

use super::{Ctx, Row, Why};
use crate::cost::Work;
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] =
    &[Row::free("ReduceMean", reduce), Row { work: pooled, ..Row::free("GlobalAveragePool", pool) }];

fn pooled(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    Ok(Work::GlobalMean { inputs: ctx.input(0)?.count() })
}

fn pool(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.dims(0)?;
    let dims =
        x.iter().take(2).cloned().chain(std::iter::repeat_n(Expr::Number(1), x.len().saturating_sub(2)));
    Ok(vec![Fact::new(ctx.input(0)?.dtype, dims.collect())])
}

/// Axes are an attribute up to some opset and an operand after; none means all.
fn reduce(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.dims(0)?;
    let keep = ctx.int("keepdims", 1) != 0;
    let axes = match ctx.ints_or_operand("axes", 1)? {
        Some(axes) if !axes.is_empty() => Ctx::axes(&axes, x.len())?,
        _ if ctx.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
        _ => (0..x.len()).collect(),
    };
    let reduced = x.iter().enumerate().filter_map(|(i, dim)| match axes.contains(&i) {
        true => keep.then_some(Expr::Number(1)),
        false => Some(dim.clone()),
    });
    Ok(vec![Fact::new(ctx.input(0)?.dtype, reduced.collect())])
}
