//! Reductions over axes, running sums, choices along an axis.

use emo_proto::tensor_proto::DataType;

use super::arithmetic::{extents, place, places};
use super::elementwise::same;
use super::{Ctx, Row, Why};
use crate::fact::Fact;
use crate::real::Real;
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
    let mut reduced = Vec::new();
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
        reduced = vec![false; dims.len()];
        axes.iter().for_each(|&axis| reduced[axis] = true);
        let extents = dims.iter().zip(&reduced).filter_map(|(dim, reduced)| match reduced {
            true => keep.then_some(Expr::Number(1)),
            false => Some(dim.clone()),
        });
        Ok(extents.collect())
    })?;
    Ok(vec![folded(ctx.node.op_type(), x, output, &reduced)])
}

/// The output with its elements, where those of `x` are known.
fn folded(name: &str, x: &Fact, output: Fact, reduced: &[bool]) -> Fact {
    let shape = x.dims.as_deref().ok().and_then(extents).filter(|shape| shape.len() == reduced.len());
    let Some(shape) = shape else { return output };
    // An axis of one in place of each that goes: then places are those of the output.
    let left: Vec<usize> = shape.iter().zip(reduced).map(|(&n, &gone)| if gone { 1 } else { n }).collect();
    let at = |index: &[usize]| {
        let index = index.iter().zip(reduced).map(|(&i, &gone)| if gone { 0 } else { i });
        Some(place(&left, index))
    };
    let Some(groups) = places(&shape, at) else { return output };
    let count = left.iter().product();
    let elements = x.elements.as_deref().and_then(|e| {
        grouped(e, &groups, count).iter().map(|group| total(name, group)).collect::<Option<Vec<_>>>()
    });
    let dtype = output.dtype;
    let reals = x.reals.as_deref().and_then(|r| {
        let total = |group: &Vec<Real>| total_of_reals(name, group, dtype)?.rounded(dtype);
        grouped(r, &groups, count).iter().map(total).collect::<Option<Vec<_>>>()
    });
    output.holding(elements).holding_reals(reals)
}

/// The elements that become one, for each of `count`.
fn grouped<T: Clone>(elements: &[T], groups: &[usize], count: usize) -> Vec<Vec<T>> {
    let mut found = vec![Vec::new(); count];
    elements.iter().zip(groups).for_each(|(e, &group)| found[group].push(e.clone()));
    found
}

/// Integers as one.
fn total(name: &str, elements: &[Expr]) -> Option<Expr> {
    let elements = || elements.iter().cloned();
    match name {
        "ReduceProd" => Some(elements().product()),
        "ReduceSum" => Some(elements().sum()),
        "ReduceMax" => elements().reduce(|a, b| a.larger(&b)),
        "ReduceMin" => elements().reduce(|a, b| a.smaller(&b)),
        // Integers are divided towards zero; of formulas only what is known to be whole.
        "ReduceMean" => {
            let (sum, n) = (elements().sum::<Expr>(), i64::try_from(elements().count()).ok()?);
            match sum.number() {
                Some(sum) => sum.checked_div(n).map(Expr::Number),
                None => sum.exact_div(&Expr::Number(n)),
            }
        }
        _ => None,
    }
}

/// Floats as one, where the order in which an engine takes them does not matter.
fn total_of_reals(name: &str, reals: &[Real], dtype: DataType) -> Option<Real> {
    let (first, rest) = reals.split_first()?;
    match name {
        "ReduceProd" => Real::product(reals, dtype),
        "ReduceSum" => Real::sum(reals, dtype),
        "ReduceMean" => Real::sum(reals, dtype)?.over(&(reals.len() as f64).into()),
        "ReduceMax" => rest.iter().try_fold(first.clone(), |a, b| a.larger(b)),
        "ReduceMin" => rest.iter().try_fold(first.clone(), |a, b| a.smaller(b)),
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
