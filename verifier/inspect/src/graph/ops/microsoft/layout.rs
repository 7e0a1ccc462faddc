//! Operators on channels last, and on channels in blocks.
//!
//! In blocks the channels are padded to a multiple of the block, which is the writing machine's:
//! 16 with 512-bit vectors, 8 otherwise. The padding is counted: the file computes it. The block
//! is not in the file, so a reordered input keeps its channels here, and a weight of more input
//! channels than that pads them.

use crate::cost::{Interpolation, Pool, Work};
use crate::fact::Fact;
use crate::ops::conv::{conv_dims, conv_macs, conv_work};
use crate::ops::elementwise::same;
use crate::ops::pool::{self, global_dims, window_dims};
use crate::ops::{Ctx, Row, Why, written};
use crate::sym::Expr;

use super::fused::activated;

pub(in crate::graph::ops) const ROWS: &[Row] = &[
    Row { name: "NhwcConv", rule: nhwc_conv, work: conv_work, weights: &[1, 2] },
    Row {
        name: "NhwcFusedConv",
        rule: nhwc_conv,
        work: |ctx, o| activated(ctx, conv_work(ctx, o)?, o),
        weights: &[1, 2],
    },
    Row {
        name: "NhwcMaxPool",
        rule: nhwc_max_pool,
        work: |ctx, _| pool::work(ctx, Pool::Window),
        weights: &[],
    },
];

pub(in crate::graph::ops) const NCHWC: &[Row] = &[
    Row { name: "Conv", rule: blocked_conv, work: blocked_conv_work, weights: &[1, 2] },
    Row { name: "MaxPool", rule: blocked_pool, work: |ctx, _| pool::work(ctx, Pool::Window), weights: &[] },
    Row {
        name: "AveragePool",
        rule: blocked_pool,
        work: |ctx, _| pool::work(ctx, Pool::Window),
        weights: &[],
    },
    Row {
        name: "GlobalMaxPool",
        rule: blocked_global,
        work: |ctx, _| pool::work(ctx, Pool::Global),
        weights: &[],
    },
    Row {
        name: "GlobalAveragePool",
        rule: blocked_global,
        work: |ctx, _| pool::work(ctx, Pool::GlobalMean),
        weights: &[],
    },
    Row { name: "Upsample", rule: upsample, work: upsample_work, weights: &[] },
    Row::free("ReorderInput", reorder_input),
    Row::free("ReorderOutput", reorder_output),
];

/// `[N, …, C]` → `[N, C, …]`.
pub(super) fn channels_first(x: &[Expr]) -> Result<Vec<Expr>, Why> {
    match x {
        [batch, axes @ .., channels] => Ok([batch, channels].into_iter().chain(axes).cloned().collect()),
        other => Err(format!("expected [N, …, C], found {other:?}")),
    }
}

/// `[N, C, …]` → `[N, …, C]`.
pub(super) fn channels_last(x: &[Expr]) -> Result<Vec<Expr>, Why> {
    match x {
        [batch, channels, axes @ ..] => {
            Ok([batch].into_iter().chain(axes).chain([channels]).cloned().collect())
        }
        other => Err(format!("expected [N, C, …], found {other:?}")),
    }
}

fn nhwc_conv(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || channels_last(&conv_dims(ctx, &channels_first(ctx.dims(0)?)?, ctx.dims(1)?)?);
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn nhwc_max_pool(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || channels_last(&window_dims(ctx, &channels_first(ctx.dims(0)?)?)?);
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// The weight's input channels are padded, so they need not be the input's.
fn blocked_conv(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let (mut x, weight) = (ctx.dims(0)?.to_vec(), ctx.dims(1)?);
        if let (Some(channels), Some(per_group)) = (x.get_mut(1), weight.get(1)) {
            *channels = per_group * ctx.int("group", 1);
        }
        conv_dims(ctx, &x, weight)
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn blocked_conv_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    activated(ctx, conv_macs(ctx.dims(1)?, written(outputs), ctx.optional(2).is_some())?, outputs)
}

fn blocked_pool(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || window_dims(ctx, ctx.dims(0)?))?])
}

fn blocked_global(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || global_dims(ctx.dims(0)?))?])
}

/// Whole scales, an attribute each axis.
fn upsample(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.ints("scales")) {
        (x, Some(scales)) if x.len() == scales.len() => {
            Ok(x.iter().zip(scales).map(|(dim, &s)| dim * s).collect())
        }
        (x, scales) => Err(format!("expected a scale for each of {x:?}, found {scales:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn upsample_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    let linear = ctx.text("mode") == Some("linear");
    let kind = if linear { Interpolation::Linear } else { Interpolation::Nearest };
    Ok(Work::Resize { kind, outputs: written(outputs), axes: 2 })
}

fn reorder_input(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    if ctx.int("channels_last", 0) == 0 {
        return same(ctx);
    }
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || channels_first(ctx.dims(0)?))?])
}

/// Cuts the padded channels off.
fn reorder_output(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let mut x = ctx.dims(0)?.to_vec();
        if let Some(channels) = x.get_mut(1) {
            *channels = ctx.int("channels", 0).into();
        }
        if ctx.int("channels_last", 0) != 0 { channels_last(&x) } else { Ok(x) }
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}
