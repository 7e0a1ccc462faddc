//! Pools: windows and whole planes of maxima, means and norms; their inverse; regions.

use emo_proto::tensor_proto::DataType;

use super::window::{Window, kernel, spatial};
use super::{Ctx, Row, Why};
use crate::cost::{Pool, Work};
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    pool("MaxPool", window, |ctx, _| work(ctx, Pool::Window)),
    pool("AveragePool", window, |ctx, _| work(ctx, Pool::Window)),
    pool("LpPool", window, |ctx, _| work(ctx, Pool::Window)),
    pool("GlobalAveragePool", global, |ctx, _| work(ctx, Pool::GlobalMean)),
    pool("GlobalMaxPool", global, |ctx, _| work(ctx, Pool::Global)),
    pool("GlobalLpPool", global, |ctx, _| work(ctx, Pool::Global)),
    Row::free("MaxUnpool", unpool),
    Row::free("Col2Im", col2im),
    Row::free("MaxRoiPool", max_roi_pool),
    Row::free("RoiAlign", roi_align),
];

const fn pool(name: &'static str, rule: super::Rule, work: super::WorkRule) -> Row {
    Row { name, rule, work, weights: &[] }
}

pub(super) fn work(ctx: &Ctx, kind: Pool) -> Result<Work, Why> {
    Ok(Work::Pool { kind, inputs: ctx.input(0)?.count(), axes: spatial(ctx.dims(0)?)? })
}

/// `x: [N, C, …]` → as many positions as the window takes, and where a second output wants
/// them the indices of the maxima.
fn window(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let pooled = ctx.shaped(ctx.dtype(0)?, || window_dims(ctx, ctx.dims(0)?))?;
    let indices = Fact { dtype: DataType::Int64, ..pooled.clone() };
    Ok(vec![pooled, indices])
}

pub(super) fn window_dims(ctx: &Ctx, x: &[Expr]) -> Result<Vec<Expr>, Why> {
    let axes = spatial(x)?;
    let (window, kernel) = (Window::of(ctx, axes)?, kernel(ctx, axes)?);
    let mut dims = x[..2].to_vec();
    for i in 0..axes {
        dims.push(window.output(i, &x[i + 2], &kernel[i])?);
    }
    Ok(dims)
}

fn global(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || global_dims(ctx.dims(0)?))?])
}

/// `[N, C, …]` → `[N, C, 1, …]`.
pub(super) fn global_dims(x: &[Expr]) -> Result<Vec<Expr>, Why> {
    let axes = spatial(x)?;
    Ok(x[..2].iter().cloned().chain(std::iter::repeat_n(1.into(), axes)).collect())
}

/// The shape is an operand, or what a pool with these attributes would have read.
fn unpool(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || unpool_dims(ctx))?])
}

fn unpool_dims(ctx: &Ctx) -> Result<Vec<Expr>, Why> {
    let x = ctx.dims(0)?;
    let axes = spatial(x)?;
    let dims = match ctx.optional(2) {
        Some(_) => ctx.elements(2)?.to_vec(),
        None => {
            let (window, kernel) = (Window::of(ctx, axes)?, kernel(ctx, axes)?);
            let sides = (0..axes).map(|i| window.transposed(i, &x[i + 2], &kernel[i], 0));
            x[..2].iter().cloned().map(Ok).chain(sides).collect::<Result<Vec<_>, _>>()?
        }
    };
    if dims.len() != x.len() {
        return Err(format!("expected an output shape of {} extents, found {dims:?}", x.len()));
    }
    Ok(dims)
}

/// Columns `[N, C·block, L]`, the image's sides, the block's sides → `[N, C, …sides]`.
fn col2im(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match ctx.dims(0)? {
        [batch, columns, _] => {
            let block: Expr = ctx.extents(2)?.into_iter().product();
            let sides = ctx.extents(1)?;
            Ok([batch.clone(), columns.floor_div(&block)].into_iter().chain(sides).collect())
        }
        other => Err(format!("expected columns [N, C·block, L], found {other:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// `x: [N, C, H, W]`, `rois: [R, 5]` → `[R, C, …pooled_shape]`.
fn max_roi_pool(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    match ctx.ints("pooled_shape") {
        Some(&[height, width]) => regions(ctx, height, width),
        other => Err(format!("expected a pooled_shape of two extents, found {other:?}")),
    }
}

/// `x: [N, C, H, W]`, `rois: [R, 4]` → `[R, C, output_height, output_width]`.
fn roi_align(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    regions(ctx, ctx.int("output_height", 1), ctx.int("output_width", 1))
}

fn regions(ctx: &Ctx, height: i64, width: i64) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.dims(1)?) {
        ([_, channels, _, _], [rois, ..]) => {
            Ok(vec![rois.clone(), channels.clone(), height.into(), width.into()])
        }
        (x, _) => Err(format!("expected [N, C, H, W] and rois, found {x:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}
