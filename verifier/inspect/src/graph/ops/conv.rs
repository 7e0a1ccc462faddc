//! Convolutions.

use super::window::{Window, spatial};
use super::{Ctx, Row, Why, written};
use crate::cost::Work;
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row { name: "Conv", rule: conv, work: conv_work, weights: &[1, 2] },
    Row {
        name: "ConvTranspose",
        rule: conv_transpose,
        work: |ctx, out| conv_transpose_work(ctx, 2, out),
        weights: &[1, 2],
    },
    Row { name: "DeformConv", rule: deform_conv, work: deform_conv_work, weights: &[1, 3] },
    Row { name: "CausalConvWithState", rule: causal_conv, work: causal_conv_work, weights: &[1, 2] },
];

pub(super) fn conv(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || conv_dims(ctx, ctx.dims(0)?, ctx.dims(1)?))?])
}

/// `x: [N, C, …]`, `weight: [M, C/group, …]` → `[N, M, …]`.
pub(super) fn conv_dims(ctx: &Ctx, x: &[Expr], weight: &[Expr]) -> Result<Vec<Expr>, Why> {
    let axes = spatial(x)?;
    if weight.len() != x.len() {
        return Err(format!("expected a weight of {} axes, found {weight:?}", x.len()));
    }
    let group = ctx.int("group", 1);
    let expected = &weight[1] * group;
    if let (Some(a), Some(b)) = (expected.number(), x[1].number())
        && a != b
    {
        return Err(format!("expected {b} input channels, found a weight {weight:?} in {group} groups"));
    }
    let window = Window::of(ctx, axes)?;
    let mut dims = vec![x[0].clone(), weight[0].clone()];
    for i in 0..axes {
        dims.push(window.output(i, &x[i + 2], &weight[i + 2])?);
    }
    Ok(dims)
}

pub(super) fn conv_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    conv_macs(ctx.dims(1)?, written(outputs), ctx.optional(2).is_some())
}

/// One multiply-add for each weight of a channel at each output position of each image.
pub(super) fn conv_macs(weight: &[Expr], out: Expr, biased: bool) -> Result<Work, Why> {
    let per_output: Expr = weight.iter().skip(1).cloned().product();
    let bias = if biased { out.clone() } else { 0.into() };
    Ok(Work::Conv { macs: &out * &per_output, bias })
}

/// `x: [N, C, …]`, `weight: [C, M/group, …]` → `[N, M, …]`.
fn conv_transpose(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || conv_transpose_dims(ctx))?])
}

fn conv_transpose_dims(ctx: &Ctx) -> Result<Vec<Expr>, Why> {
    let (x, weight) = (ctx.dims(0)?, ctx.dims(1)?);
    let axes = spatial(x)?;
    if weight.len() != x.len() {
        return Err(format!("expected a weight of {} axes, found {weight:?}", x.len()));
    }
    if let (Some(a), Some(b)) = (weight[0].number(), x[1].number())
        && a != b
    {
        return Err(format!("expected a weight of {b} input channels, found {weight:?}"));
    }
    let window = Window::of(ctx, axes)?;
    let per_axis = |name: &str| match ctx.ints(name) {
        None | Some([]) => Ok(None),
        Some(values) if values.len() >= axes => Ok(Some(&values[values.len() - axes..])),
        Some(values) => Err(format!("expected {name} of {axes} extents, found {values:?}")),
    };
    let (extra, shape) = (per_axis("output_padding")?, per_axis("output_shape")?);
    let mut dims = vec![x[0].clone(), &weight[1] * ctx.int("group", 1)];
    for i in 0..axes {
        dims.push(match shape {
            Some(shape) => shape[i].into(),
            None => window.transposed(i, &x[i + 2], &weight[i + 2], extra.map_or(0, |extra| extra[i]))?,
        });
    }
    Ok(dims)
}

/// One multiply-add for each weight of a channel at each input position, padding cut off or not.
pub(super) fn conv_transpose_work(ctx: &Ctx, bias: usize, outputs: &[Fact]) -> Result<Work, Why> {
    let (x, weight) = (ctx.input(0)?.count(), ctx.dims(1)?);
    let per_input: Expr = weight.iter().skip(1).cloned().product();
    let bias = ctx.optional(bias).map_or(0.into(), |_| written(outputs));
    Ok(Work::Deconv { macs: &x * &per_input, bias, axes: spatial(ctx.dims(0)?)? })
}

/// `x: [N, C, …]`, `weight: [M, C/group, …]`, `offset: [N, …, oH, oW]`: a convolution's output.
fn deform_conv(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    conv(ctx)
}

fn deform_conv_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    let per_output: Expr = ctx.dims(1)?.iter().skip(1).cloned().product();
    Ok(Work::DeformConv { macs: &written(outputs) * &per_output })
}

/// `x: [B, C, L]`, `weight: [C, 1, K]` → the output as long as `x`, and `[B, C, K-1]` to carry on.
pub(super) fn causal_conv(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let (x, weight) = (ctx.dims(0)?, ctx.dims(1)?);
    let ([batch, channels, _], Some(kernel)) = (x, weight.last()) else {
        return Err(format!("expected [B, C, L], found {x:?}"));
    };
    let dtype = ctx.input(0)?.dtype;
    let state = vec![batch.clone(), channels.clone(), kernel - 1];
    Ok(vec![Fact::new(dtype, x.to_vec()), Fact::new(dtype, state)])
}

pub(super) fn causal_conv_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    conv_macs(ctx.dims(1)?, written(outputs), ctx.optional(2).is_some())
}
