//! Convolutions and matrix products.

use super::{Ctx, Row, Why};
use crate::cost::Work;
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row { name: "Conv", rule: conv, work: conv_work, weights: &[1, 2] },
    Row { name: "Gemm", rule: gemm, work: gemm_work, weights: &[1, 2] },
    Row { name: "MatMul", rule: matmul, work: matmul_work, weights: &[0, 1] },
];

/// `x: [N, C, …]`, `w: [M, C/group, …]` → `[N, M, …]`.
fn conv(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let (x, weight) = (ctx.dims(0)?, ctx.dims(1)?);
    let spatial = match (x.len().checked_sub(2), weight.len()) {
        (Some(spatial), rank) if spatial > 0 && rank == x.len() => spatial,
        _ => return Err(format!("expected [N, C, …] and a weight of its rank, found {x:?} and {weight:?}")),
    };
    let group = Expr::Number(ctx.int("group", 1));
    let expected = &weight[1] * &group;
    if let (Some(a), Some(b)) = (expected.number(), x[1].number())
        && a != b
    {
        return Err(format!("expected {b} input channels, found a weight {weight:?} in {group} groups"));
    }
    let kernel = &weight[2..];
    let list = |name: &str, length: usize, default: i64| match ctx.ints(name) {
        Some(values) if values.len() == length && values.iter().all(|&v| v >= 0) => Ok(values.to_vec()),
        Some(values) => Err(format!("expected {length} {name}, none negative, found {values:?}")),
        None => Ok(vec![default; length]),
    };
    let (strides, dilations) = (list("strides", spatial, 1)?, list("dilations", spatial, 1)?);
    let pads = list("pads", 2 * spatial, 0)?;
    let mut dims = vec![x[0].clone(), weight[0].clone()];
    for i in 0..spatial {
        let (side, stride) = (&x[i + 2], Expr::Number(strides[i]));
        if strides[i] == 0 {
            return Err("expected strides above 0".to_owned());
        }
        dims.push(match ctx.text("auto_pad").unwrap_or("NOTSET") {
            "SAME_UPPER" | "SAME_LOWER" => side.ceil_div(&stride),
            mode => {
                let reach = (&kernel[i] - 1) * dilations[i] + 1;
                let pad = if mode == "VALID" { 0 } else { pads[i].saturating_add(pads[i + spatial]) };
                let room = side + pad - &reach;
                if room.number().is_some_and(|n| n < 0) {
                    return Err(format!("a kernel that reaches over {reach} does not fit into {side}"));
                }
                room.floor_div(&stride) + 1
            }
        });
    }
    Ok(vec![Fact::new(ctx.input(0)?.dtype, dims)])
}

/// One multiply-add for each weight at each output position of each image.
fn conv_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    let weight = ctx.dims(1)?;
    let per_output: Expr = weight[1..].iter().cloned().product();
    let out = outputs[0].count();
    let bias = ctx.optional(2).map_or(0.into(), |_| out.clone());
    Ok(Work::Conv { macs: &out * &per_output, bias })
}

fn gemm(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let ([m, k], [k_b, n]) = gemm_sides(ctx)?;
    if let (Some(a), Some(b)) = (k.number(), k_b.number())
        && a != b
    {
        return Err(format!("inner extents {k} and {k_b} differ"));
    }
    Ok(vec![Fact::new(ctx.input(0)?.dtype, vec![m, n])])
}

/// The two factors as they are multiplied: `[M, K]` and `[K, N]`.
fn gemm_sides(ctx: &Ctx) -> Result<([Expr; 2], [Expr; 2]), Why> {
    let side = |index: usize, name: &str| match ctx.dims(index)? {
        [rows, columns] if ctx.int(name, 0) == 0 => Ok([rows.clone(), columns.clone()]),
        [rows, columns] => Ok([columns.clone(), rows.clone()]),
        other => Err(format!("expected a matrix, found {other:?}")),
    };
    Ok((side(0, "transA")?, side(1, "transB")?))
}

fn gemm_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    let ([_, k], _) = gemm_sides(ctx)?;
    let out = outputs[0].count();
    let bias = ctx.optional(2).map_or(0.into(), |_| out.clone());
    Ok(Work::Linear { macs: &out * &k, bias })
}

fn matmul(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let (a, b) = (ctx.dims(0)?, ctx.dims(1)?);
    let (Some((k_a, a)), Some((last_b, b))) = (a.split_last(), b.split_last()) else {
        return Err("expected factors of one axis at least".to_owned());
    };
    let (row, batch_a) = a.split_last().map_or((None, a), |(m, batch)| (Some(m), batch));
    let (k_b, column, batch_b) = match b.split_last() {
        Some((k, batch)) => (k, Some(last_b), batch),
        None => (last_b, None, b),
    };
    if let (Some(x), Some(y)) = (k_a.number(), k_b.number())
        && x != y
    {
        return Err(format!("inner extents {k_a} and {k_b} differ"));
    }
    let mut dims = super::elementwise::broadcast(&[batch_a, batch_b])?;
    dims.extend(row.into_iter().chain(column).cloned());
    Ok(vec![Fact::new(ctx.input(0)?.dtype, dims)])
}

fn matmul_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    let inner = ctx.dims(0)?.last().cloned().ok_or("expected factors of one axis at least")?;
    Ok(Work::MatMul { macs: &outputs[0].count() * &inner })
}
