//! Reductions over axes, running sums, choices along an axis.

use emo_proto::tensor_proto::DataType;

use super::elementwise::same;
use super::{Ctx, Row, Why};
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row::free("ReduceL1", reduce),
    Row::free("ReduceL2", reduce),
    Row::free("ReduceLogSum", reduce),
    Row::free("ReduceLogSumExp", reduce),
    Row::free("ReduceMax", reduce),
    Row::free("ReduceMean", reduce),
    Row::free("ReduceMin", reduce),
    Row::free("ReduceProd", reduce),
    Row::free("ReduceSum", reduce),
    Row::free("ReduceSumSquare", reduce),
    Row::free("ArgMax", arg),
    Row::free("ArgMin", arg),
    Row::free("CumSum", running),
    Row::free("CumProd", running),
    Row::free("TopK", top_k),
];

/// Axes are an attribute up to some opset and an operand after; none means all.
fn reduce(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let keep = ctx.int("keepdims", 1) != 0;
    let mut all = false;
    let output = ctx.shaped(x.dtype, || {
        let dims = ctx.dims(0)?;
        let axes = match ctx.ints_or_operand("axes", 1) {
            Ok(Some(axes)) if !axes.is_empty() => Ctx::axes(&axes, dims.len())?,
            Ok(_) if ctx.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
            Ok(_) => (0..dims.len()).collect(),
            // Which axes go is open, but not that they stay.
            Err(why) if keep => return Ok(vec![Expr::unknown(&why); dims.len()]),
            Err(why) => {
                return match ctx.input(1)?.count().count() {
                    Some(gone) if gone > 0 && gone <= dims.len() as u64 => {
                        Ok(vec![Expr::unknown(&why); dims.len() - gone as usize])
                    }
                    _ => Err(why),
                };
            }
        };
        all = axes.len() == dims.len();
        let mut reduced = vec![false; dims.len()];
        axes.iter().for_each(|&axis| reduced[axis] = true);
        let extents = dims.iter().zip(reduced).filter_map(|(dim, reduced)| match reduced {
            true => keep.then_some(Expr::Number(1)),
            false => Some(dim.clone()),
        });
        Ok(extents.collect())
    })?;
    let folded = x.elements.as_deref().filter(|_| all).and_then(|e| total(ctx.node.op_type(), e));
    Ok(vec![output.holding(folded.map(|e| vec![e]))])
}

/// All elements as one.
fn total(name: &str, elements: &[Expr]) -> Option<Expr> {
    let elements = || elements.iter().cloned();
    match name {
        "ReduceProd" => Some(elements().product()),
        "ReduceSum" => Some(elements().sum()),
        "ReduceMax" => elements().reduce(|a, b| a.larger(&b)),
        "ReduceMin" => elements().reduce(|a, b| a.smaller(&b)),
        _ => None,
    }
}

/// The place of an extremum along an axis.
fn arg(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    ctx.input(0)?;
    let keep = ctx.int("keepdims", 1) != 0;
    let output = ctx.shaped(DataType::Int64, || {
        let mut dims = ctx.dims(0)?.to_vec();
        let axis = Ctx::axis(ctx.int("axis", 0), dims.len())?;
        if keep {
            dims[axis] = 1.into();
        } else {
            dims.remove(axis);
        }
        Ok(dims)
    })?;
    Ok(vec![output])
}

fn running(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let mut outputs = same(ctx)?;
    let x = ctx.input(0)?;
    let flag = |name: &str| ctx.int(name, 0) != 0;
    if x.rank() == Some(1) && ctx.node.op_type() == "CumSum" && !flag("exclusive") && !flag("reverse") {
        let mut sum = Expr::Number(0);
        let sums = x.elements.as_deref().map(|e| {
            let next = |e: &Expr| {
                sum = &sum + e;
                sum.clone()
            };
            e.iter().map(next).collect()
        });
        outputs = outputs.into_iter().map(|output| output.holding(sums.clone())).collect();
    }
    Ok(outputs)
}

/// The k largest along an axis and their places; k is an attribute in the first opset.
fn top_k(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype(0)?;
    let values = ctx.shaped(dtype, || {
        let mut dims = ctx.dims(0)?.to_vec();
        let axis = Ctx::axis(ctx.int("axis", -1), dims.len())?;
        dims[axis] = match ctx.attribute("k") {
            Some(k) => k.i().into(),
            None => ctx.element(1).cloned().unwrap_or_else(|why| Expr::unknown(&why)),
        };
        Ok(dims)
    })?;
    let places = super::elementwise::like(&values, DataType::Int64);
    Ok(vec![values, places])
}
