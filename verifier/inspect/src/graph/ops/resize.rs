//! Resizing and sampling of images.

use super::{Ctx, Row, Why, written};
use crate::cost::{Interpolation, Work};
use crate::fact::Fact;
use crate::real::Real;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row { name: "Resize", rule: resize, work: resize_work, weights: &[] },
    Row { name: "Upsample", rule: upsample, work: resize_work, weights: &[] },
    Row { name: "GridSample", rule: grid_sample, work: grid_sample_work, weights: &[] },
    Row::free("AffineGrid", affine_grid),
];

/// Scales are an operand in opset 10; from 11 on sizes may stand instead, from 18 on for some
/// axes only.
fn resize(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.opset, ctx.optional(3)) {
        (..11, _) => scaled(ctx, &reals(ctx, 1)?),
        (_, Some(_)) => sized(ctx),
        (_, None) => scaled(ctx, &reals(ctx, 2)?),
    };
    resized(ctx, dims)
}

/// Which extents change may be known where their sizes are not.
fn resized(ctx: &Ctx, dims: impl FnOnce() -> Result<Vec<Expr>, Why>) -> Result<Vec<Fact>, Why> {
    let output = ctx.shaped(ctx.dtype(0)?, dims)?;
    let (Err(reason), Ok(dims)) = (&output.dims, &ctx.input(0)?.dims) else { return Ok(vec![output]) };
    let mut dims = dims.clone();
    let axes = axes(ctx, dims.len())?;
    axes.into_iter().for_each(|axis| dims[axis] = Expr::unknown(reason));
    Ok(vec![Fact::new(output.dtype, dims)])
}

/// Scales are two attributes in opset 1, one in 7 and an operand from 9 on.
fn upsample(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let attribute = |scales: &[f32]| scales.iter().map(|&s| f64::from(s).into()).collect::<Vec<Real>>();
    let dims = || match (ctx.floats("scales"), ctx.float("height_scale"), ctx.float("width_scale")) {
        (Some(scales), ..) => scaled(ctx, &attribute(scales)),
        (None, Some(height), Some(width)) => scaled(ctx, &attribute(&[1.0, 1.0, height, width])),
        _ => scaled(ctx, &reals(ctx, 1)?),
    };
    resized(ctx, dims)
}

fn reals(ctx: &Ctx, index: usize) -> Result<Vec<Real>, Why> {
    ctx.reals(index).map(<[Real]>::to_vec)
}

/// The axes that scales and sizes speak of.
fn axes(ctx: &Ctx, rank: usize) -> Result<Vec<usize>, Why> {
    match ctx.ints("axes") {
        Some(axes) => axes.iter().map(|&axis| Ctx::axis(axis, rank)).collect(),
        None => Ok((0..rank).collect()),
    }
}

/// The same, for as many scales or sizes.
fn axes_of(ctx: &Ctx, rank: usize, given: usize) -> Result<Vec<usize>, Why> {
    let axes = axes(ctx, rank)?;
    if axes.len() != given {
        return Err(format!("expected a scale or size for each of {} axes, found {given}", axes.len()));
    }
    Ok(axes)
}

fn scaled(ctx: &Ctx, scales: &[Real]) -> Result<Vec<Expr>, Why> {
    let mut dims = ctx.dims(0)?.to_vec();
    for (&axis, scale) in axes_of(ctx, dims.len(), scales.len())?.iter().zip(scales) {
        dims[axis] = times(&dims[axis], scale).ok_or_else(|| {
            ctx.unknown(&format!("{} times {scale:?} is known only when the graph runs", dims[axis]))
        })?;
    }
    Ok(dims)
}

/// `⌊extent · scale⌋`, in 32-bit floats as the operator computes it.
fn times(extent: &Expr, scale: &Real) -> Option<Expr> {
    let product = match (extent.number(), scale.number()) {
        (Some(n), Some(scale)) => Real::Number(f64::from(n as f32 * scale as f32)),
        _ => Real::from(extent).times(scale)?,
    };
    product.floor().truncated()
}

fn sized(ctx: &Ctx) -> Result<Vec<Expr>, Why> {
    let sizes = ctx.elements(3)?;
    let mut dims = ctx.dims(0)?.to_vec();
    let axes = axes_of(ctx, dims.len(), sizes.len())?;
    let pick: fn(f32, f32) -> f32 = match ctx.text("keep_aspect_ratio_policy").unwrap_or("stretch") {
        "stretch" => {
            axes.iter().zip(sizes).for_each(|(&axis, size)| dims[axis] = size.clone());
            return Ok(dims);
        }
        "not_larger" => f32::min,
        "not_smaller" => f32::max,
        other => return Err(format!("expected policy stretch, not_larger or not_smaller, found {other}")),
    };
    let sides = axes.iter().zip(sizes).map(|(&axis, size)| Some((dims[axis].number()?, size.number()?)));
    let sides: Option<Vec<(i64, i64)>> = sides.collect();
    let sides = sides.ok_or_else(|| ctx.unknown("an aspect ratio is known only when the graph runs"))?;
    let ratios = sides.iter().map(|&(from, to)| to as f32 / from as f32);
    let scale =
        ratios.reduce(pick).filter(|scale| scale.is_finite()).ok_or("an image of no extent has no ratio")?;
    for (&axis, (from, _)) in axes.iter().zip(sides) {
        dims[axis] = ((scale * from as f32).round() as i64).into();
    }
    Ok(dims)
}

pub(super) fn resize_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    let kind = match ctx.text("mode").unwrap_or("nearest") {
        "nearest" => Interpolation::Nearest,
        "linear" | "bilinear" => Interpolation::Linear,
        "cubic" => Interpolation::Cubic,
        other => return Err(format!("expected mode nearest, linear or cubic, found {other}")),
    };
    let axes = outputs.first().and_then(Fact::rank).unwrap_or(0).saturating_sub(2);
    Ok(Work::Resize { kind, outputs: written(outputs), axes })
}

/// `x: [N, C, …]`, `grid: [N, …out, axes]` → `[N, C, …out]`.
pub(super) fn grid_sample(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.dims(1)?) {
        ([batch, channels, axes @ ..], [_, out @ .., _]) if axes.len() == out.len() => {
            Ok([batch, channels].into_iter().chain(out).cloned().collect())
        }
        (x, grid) => Err(format!("expected [N, C, …] and a grid of its rank, found {x:?} and {grid:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

pub(super) fn grid_sample_work(_: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    Ok(Work::GridSample { outputs: written(outputs) })
}

/// `theta: [N, axes, axes+1]`, `size` = `[N, C, …]` → `[N, …, axes]`.
fn affine_grid(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match ctx.extents(1)?.as_slice() {
        [batch, _, sides @ ..] if matches!(sides.len(), 2 | 3) => {
            Ok([batch].into_iter().chain(sides).cloned().chain([sides.len().into()]).collect())
        }
        other => Err(format!("expected a size of [N, C, H, W] or [N, C, D, H, W], found {other:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}
