//! Matrix products.

use super::elementwise::broadcast;
use super::{Ctx, Row, Why, written};
use crate::cost::Work;
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row { name: "Gemm", rule: gemm, work: gemm_work, weights: &[1, 2] },
    Row { name: "MatMul", rule: matmul, work: matmul_work, weights: &[0, 1] },
];

pub(super) fn gemm(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || gemm_dims(ctx, 0, 1))?])
}

/// `[M, N]` of the product of operands `a` and `b`.
pub(super) fn gemm_dims(ctx: &Ctx, a: usize, b: usize) -> Result<Vec<Expr>, Why> {
    let ([m, k], [k_b, n]) = gemm_sides(ctx, a, b)?;
    agree(&k, &k_b)?;
    Ok(vec![m, n])
}

/// The two factors as they are multiplied: `[M, K]` and `[K, N]`.
///
/// Before opset 7 a factor of more axes counts as the matrix of its first axis by the others.
fn gemm_sides(ctx: &Ctx, a: usize, b: usize) -> Result<([Expr; 2], [Expr; 2]), Why> {
    let side = |index: usize, name: &str| match ctx.dims(index)? {
        [rows, columns] if ctx.int(name, 0) == 0 => Ok([rows.clone(), columns.clone()]),
        [rows, columns] => Ok([columns.clone(), rows.clone()]),
        [rows, others @ ..] if ctx.opset < 7 && others.len() > 1 => {
            Ok([rows.clone(), others.iter().cloned().product()])
        }
        other => Err(format!("expected a matrix, found {other:?}")),
    };
    Ok((side(a, "transA")?, side(b, "transB")?))
}

fn agree(k_a: &Expr, k_b: &Expr) -> Result<(), Why> {
    match (k_a.number(), k_b.number()) {
        (Some(a), Some(b)) if a != b => Err(format!("inner extents {a} and {b} differ")),
        _ => Ok(()),
    }
}

pub(super) fn gemm_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    gemm_macs(ctx, 0, 1, written(outputs), ctx.optional(2).is_some())
}

pub(super) fn gemm_macs(ctx: &Ctx, a: usize, b: usize, out: Expr, biased: bool) -> Result<Work, Why> {
    let ([_, k], _) = gemm_sides(ctx, a, b)?;
    let bias = if biased { out.clone() } else { 0.into() };
    Ok(Work::Linear { macs: &out * &k, bias })
}

fn matmul(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || matmul_dims(ctx.dims(0)?, ctx.dims(1)?))?])
}

/// numpy's product: matrices in the last two axes, the others broadcast, a vector is a row or a
/// column.
pub(super) fn matmul_dims(a: &[Expr], b: &[Expr]) -> Result<Vec<Expr>, Why> {
    let (Some((k_a, a)), Some((last_b, b))) = (a.split_last(), b.split_last()) else {
        return Err("expected factors of one axis at least".to_owned());
    };
    let (row, batch_a) = a.split_last().map_or((None, a), |(m, batch)| (Some(m), batch));
    let (k_b, column, batch_b) = match b.split_last() {
        Some((k, batch)) => (k, Some(last_b), batch),
        None => (last_b, None, b),
    };
    agree(k_a, k_b)?;
    let mut dims = broadcast(&[batch_a, batch_b])?;
    dims.extend(row.into_iter().chain(column).cloned());
    Ok(dims)
}

fn matmul_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    let inner = ctx.dims(0)?.last().cloned().ok_or("expected factors of one axis at least")?;
    Ok(product(ctx, &[0, 1], &written(outputs) * &inner))
}

/// A product with a weight where one of the operands is a constant, of two activations otherwise.
pub(super) fn product(ctx: &Ctx, operands: &[usize], macs: Expr) -> Work {
    let constant = |&i: &usize| ctx.optional(i).is_some_and(|fact| fact.source.is_some());
    match operands.iter().any(constant) {
        true => Work::Linear { macs, bias: 0.into() },
        false => Work::MatMul { macs },
    }
}
