//! Quantised operators: each is counted as what it computes.
//!
//! The 8- or 4-bit constant is the parameter; its scale and zero point are not.

use emo_proto::tensor_proto::DataType;

use super::conv::{conv_dims, conv_macs};
use super::elementwise::like;
use super::linear::{matmul_dims, product};
use super::{Ctx, Row, Why, written};
use crate::cost::Work;
use crate::fact::Fact;

pub(super) const ROWS: &[Row] = &[
    Row::free("QuantizeLinear", quantize),
    Row { name: "DequantizeLinear", rule: dequantize, work: |_, _| Ok(Work::Free), weights: &[] },
    Row::free("DynamicQuantizeLinear", dynamic_quantize),
    Row { name: "ConvInteger", rule: conv_integer, work: conv_integer_work, weights: &[1] },
    Row { name: "QLinearConv", rule: q_conv, work: q_conv_work, weights: &[3, 8] },
    Row {
        name: "MatMulInteger",
        rule: matmul_integer,
        work: |ctx, o| products(ctx, [0, 1], o),
        weights: &[0, 1],
    },
    Row { name: "QLinearMatMul", rule: q_matmul, work: |ctx, o| products(ctx, [0, 3], o), weights: &[0, 3] },
];

/// The type is the zero point's, or `output_dtype`, or UINT8.
pub(super) fn quantize(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = match (ctx.optional(2), ctx.dtype_of("output_dtype")?) {
        (Some(zero_point), _) => zero_point.dtype,
        (None, Some(dtype)) if dtype != DataType::Undefined => dtype,
        (None, _) => DataType::Uint8,
    };
    Ok(vec![like(ctx.input(0)?, dtype)])
}

/// The type is `output_dtype` or the scale's.
pub(super) fn dequantize(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = match ctx.dtype_of("output_dtype")? {
        Some(dtype) if dtype != DataType::Undefined => dtype,
        _ => ctx.dtype(1)?,
    };
    Ok(vec![like(ctx.input(0)?, dtype)])
}

/// The quantised values, a scale and a zero point for all of them.
fn dynamic_quantize(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![
        like(ctx.input(0)?, DataType::Uint8),
        Fact::scalar(DataType::Float),
        Fact::scalar(DataType::Uint8),
    ])
}

fn conv_integer(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(DataType::Int32, || conv_dims(ctx, ctx.dims(0)?, ctx.dims(1)?))?])
}

fn conv_integer_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    conv_macs(ctx.dims(1)?, written(outputs), false)
}

/// `x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias`.
fn q_conv(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(7)?, || conv_dims(ctx, ctx.dims(0)?, ctx.dims(3)?))?])
}

pub(super) fn q_conv_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    conv_macs(ctx.dims(3)?, written(outputs), ctx.optional(8).is_some())
}

fn matmul_integer(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(DataType::Int32, || matmul_dims(ctx.dims(0)?, ctx.dims(1)?))?])
}

/// `a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point`.
fn q_matmul(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(7)?, || matmul_dims(ctx.dims(0)?, ctx.dims(3)?))?])
}

pub(super) fn products(ctx: &Ctx, factors: [usize; 2], outputs: &[Fact]) -> Result<Work, Why> {
    let inner = ctx.dims(factors[0])?.last().cloned().ok_or("expected factors of one axis at least")?;
    Ok(product(ctx, &factors, &written(outputs) * &inner))
}
