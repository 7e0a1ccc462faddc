//! Quantised operators: each is counted as what it computes in floats.

use emo_proto::tensor_proto::DataType;

use super::layout::{channels_first, channels_last};
use crate::cost::{Pool, Work};
use crate::fact::Fact;
use crate::ops::conv::{conv_dims, conv_macs};
use crate::ops::elementwise::{broadcast, like, same};
use crate::ops::linear::{gemm_dims, gemm_macs, matmul_dims};
use crate::ops::normalise::layer_norm_work;
use crate::ops::pool::{global_dims, window_dims};
use crate::ops::quantised::{dequantize, products, quantize};
use crate::ops::recurrent::{self, cell};
use crate::ops::{Ctx, Row, Why, written};
use crate::sym::Expr;

pub(in crate::graph::ops) const ROWS: &[Row] = &[
    Row::free("QuantizeLinear", quantize),
    Row::free("DequantizeLinear", dequantize),
    Row { name: "QLinearConv", rule: conv, work: conv_work, weights: &[3, 8] },
    Row {
        name: "QGemm",
        rule: gemm,
        work: |ctx, o| gemm_macs(ctx, 0, 3, written(o), ctx.optional(6).is_some()),
        weights: &[3, 6],
    },
    Row {
        name: "DynamicQuantizeMatMul",
        rule: |ctx| matmul(ctx, 2),
        work: |ctx, o| products(ctx, [0, 1], o),
        weights: &[1, 4],
    },
    Row {
        name: "MatMulIntegerToFloat",
        rule: |ctx| matmul(ctx, 2),
        work: |ctx, o| products(ctx, [0, 1], o),
        weights: &[0, 1, 6],
    },
    Row {
        name: "MatMulInteger16",
        rule: matmul_integer,
        work: |ctx, o| products(ctx, [0, 1], o),
        weights: &[0, 1],
    },
    Row {
        name: "MatMulNBits",
        rule: matmul_bits,
        work: |ctx, o| matmul_bits_work(ctx, ctx.optional(5).is_some(), o),
        weights: &[1, 5],
    },
    Row {
        name: "MatMulBnb4",
        rule: matmul_bits,
        work: |ctx, o| matmul_bits_work(ctx, false, o),
        weights: &[1],
    },
    Row {
        name: "DynamicQuantizeLSTM",
        rule: cell,
        work: |ctx, _| recurrent::work(ctx, 4),
        weights: &[1, 2, 3, 7],
    },
    Row {
        name: "QLinearAveragePool",
        rule: average_pool,
        work: |ctx, _| pool_work(ctx, Pool::Window),
        weights: &[],
    },
    Row {
        name: "QLinearGlobalAveragePool",
        rule: global_average_pool,
        work: |ctx, _| pool_work(ctx, Pool::GlobalMean),
        weights: &[],
    },
    Row { name: "QLinearLeakyRelu", rule: same, work: rectifier, weights: &[] },
    Row { name: "QEmbedLayerNormalization", rule: embed, work: layer_norm_work, weights: &[2, 3, 4, 5, 6] },
    Row { weights: &[0, 3], ..Row::free("QLinearAdd", |ctx| broadcasting(ctx, &[0, 3], ctx.dtype(0)?)) },
    Row { weights: &[0, 3], ..Row::free("QLinearMul", |ctx| broadcasting(ctx, &[0, 3], ctx.dtype(0)?)) },
    Row { weights: &[0, 2], ..Row::free("MulInteger", |ctx| broadcasting(ctx, &[0, 2], DataType::Int32)) },
    Row::free("QLinearWhere", |ctx| broadcasting(ctx, &[0, 1, 4], ctx.dtype(1)?)),
    Row::free("QLinearSigmoid", same),
    Row::free("QLinearSoftmax", same),
    Row::free("QLinearConcat", concat),
    Row::free("QLinearReduceMean", |ctx| reduce(ctx, ctx.dtype(0)?)),
    Row::free("ReduceSumInteger", |ctx| reduce(ctx, DataType::Int32)),
];

fn is_last(ctx: &Ctx) -> bool {
    ctx.int("channels_last", 0) != 0
}

/// Dimensions of a rule that wants channels first, of operands that may have them last.
fn either(ctx: &Ctx, rule: impl FnOnce(&[Expr]) -> Result<Vec<Expr>, Why>) -> Result<Vec<Expr>, Why> {
    if is_last(ctx) { channels_last(&rule(&channels_first(ctx.dims(0)?)?)?) } else { rule(ctx.dims(0)?) }
}

fn conv(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(7)?, || either(ctx, |x| conv_dims(ctx, x, ctx.dims(3)?)))?])
}

fn conv_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    conv_macs(ctx.dims(3)?, written(outputs), ctx.optional(8).is_some())
}

/// The output is quantised where its zero point is given, FLOAT otherwise.
fn gemm(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.optional(8).map_or(DataType::Float, |zero_point| zero_point.dtype);
    Ok(vec![ctx.shaped(dtype, || gemm_dims(ctx, 0, 3))?])
}

/// A product in the type of the scale.
fn matmul(ctx: &Ctx, scale: usize) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(scale)?, || matmul_dims(ctx.dims(0)?, ctx.dims(1)?))?])
}

fn matmul_integer(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(DataType::Int32, || matmul_dims(ctx.dims(0)?, ctx.dims(1)?))?])
}

/// `a: [.., K]` by a packed matrix `K × N`, of which only the attributes tell the extents.
fn matmul_bits(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match ctx.dims(0)? {
        [rows @ .., _] => Ok(rows.iter().cloned().chain([ctx.int("N", 0).into()]).collect()),
        [] => Err("expected one axis at least".to_owned()),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn matmul_bits_work(ctx: &Ctx, biased: bool, outputs: &[Fact]) -> Result<Work, Why> {
    let out = written(outputs);
    let bias = if biased { out.clone() } else { 0.into() };
    Ok(Work::Linear { macs: &out * ctx.int("K", 0), bias })
}

fn average_pool(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || either(ctx, |x| window_dims(ctx, x)))?])
}

fn global_average_pool(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || either(ctx, global_dims))?])
}

fn pool_work(ctx: &Ctx, kind: Pool) -> Result<Work, Why> {
    crate::ops::pool::work(ctx, kind)
}

fn rectifier(_: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    Ok(Work::Rectifier { elements: written(outputs) })
}

fn broadcasting(ctx: &Ctx, operands: &[usize], dtype: DataType) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let shapes: Vec<_> = operands.iter().map(|&i| ctx.dims(i)).collect::<Result<_, _>>()?;
        broadcast(&shapes)
    };
    Ok(vec![ctx.shaped(dtype, dims)?])
}

/// `y_scale, y_zero_point`, then each part with its scale and zero point.
fn concat(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let parts: Vec<_> =
            (2..ctx.inputs.len()).step_by(3).map(|i| ctx.dims(i)).collect::<Result<_, _>>()?;
        let mut dims = parts.first().ok_or("expected one part at least")?.to_vec();
        let axis = Ctx::axis(ctx.int("axis", 0), dims.len())?;
        for part in &parts[1..] {
            let extent = part.get(axis).filter(|_| part.len() == dims.len());
            dims[axis] =
                &dims[axis] + extent.ok_or_else(|| format!("expected parts of one rank, found {part:?}"))?;
        }
        Ok(dims)
    };
    Ok(vec![ctx.shaped(ctx.dtype(1)?, dims)?])
}

fn reduce(ctx: &Ctx, dtype: DataType) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let x = ctx.dims(0)?;
        let axes = ctx.ints("axes").unwrap_or_default().iter().map(|&axis| Ctx::axis(axis, x.len()));
        let axes = axes.collect::<Result<Vec<_>, _>>()?;
        let keep = ctx.int("keepdims", 1) != 0;
        let reduced = |i: usize| axes.is_empty() || axes.contains(&i);
        let kept = x.iter().enumerate().filter_map(|(i, dim)| match reduced(i) {
            true => keep.then_some(Expr::Number(1)),
            false => Some(dim.clone()),
        });
        Ok(kept.collect())
    };
    Ok(vec![ctx.shaped(dtype, dims)?])
}

/// The embedding comes out in the type of the scales.
fn embed(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.dims(2)?) {
        ([batch, length], [_, hidden]) => Ok(vec![batch.clone(), length.clone(), hidden.clone()]),
        (ids, words) => {
            Err(format!("expected ids [B, L] and words [V, hidden], found {ids:?} and {words:?}"))
        }
    };
    let embedded = ctx.shaped(ctx.dtype(8)?, dims)?;
    let batch = like(ctx.input(0)?, DataType::Int32);
    let index =
        Fact { dims: batch.dims.map(|dims| dims.into_iter().take(1).collect()), ..Fact::scalar(batch.dtype) };
    Ok(vec![embedded, index])
}
