//! Reductions over axes.

use super::{Ctx, Row, Why};
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[Row::free("ReduceMean", reduce)];

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
