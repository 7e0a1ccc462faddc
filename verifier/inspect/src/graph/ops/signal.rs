//! Fourier transforms and their windows.

use emo_proto::tensor_proto::DataType;

use super::{Ctx, Row, Why};
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row::free("DFT", dft),
    Row::free("STFT", stft),
    Row::free("MelWeightMatrix", mel_weight_matrix),
    Row::free("HannWindow", window),
    Row::free("HammingWindow", window),
    Row::free("BlackmanWindow", window),
];

/// Frequencies of a real signal that do not follow from the others.
pub(super) fn half(length: &Expr) -> Expr {
    length.floor_div(&2.into()) + 1
}

/// `[…, length, …, 1 or 2]` → the same with `dft_length` along the axis, in complex numbers;
/// one-sided a real signal has half of the frequencies, and they give back a real signal.
fn dft(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let mut dims = ctx.dims(0)?.to_vec();
        let (onesided, inverse) = (ctx.int("onesided", 0) != 0, ctx.int("inverse", 0) != 0);
        let axis = match (ctx.opset, ctx.optional(2)) {
            (..20, _) => Some(ctx.int("axis", 1)),
            (_, Some(_)) => ctx.element(2).ok().and_then(Expr::number),
            (_, None) => Some(-2),
        };
        if let Some(axis) = axis {
            let axis = Ctx::axis(axis, dims.len())?;
            if ctx.optional(1).is_some() {
                dims[axis] = ctx.element(1).cloned().unwrap_or_else(|why| Expr::unknown(&why));
            } else if onesided && inverse {
                dims[axis] = (&dims[axis] - 1) * 2;
            }
            if onesided && !inverse {
                dims[axis] = half(&dims[axis]);
            }
        } else if onesided || ctx.optional(1).is_some() {
            // Any axis may be cut.
            dims.fill(Expr::unknown("the axis is known only when the graph runs"));
        }
        if let Some(last) = dims.last_mut() {
            *last = if onesided && inverse { 1.into() } else { 2.into() };
        }
        Ok(dims)
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// `[B, length, 1 or 2]` → `[B, frames, frequencies, 2]`.
fn stft(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let [batch, length, ..] = ctx.dims(0)? else {
            return Err(format!("expected [B, length, …], found {:?}", ctx.dims(0)?));
        };
        let frame = match (ctx.optional(3), ctx.optional(2)) {
            (Some(_), _) => ctx.element(3)?.clone(),
            (None, Some(_)) => ctx.dims(2)?.first().cloned().ok_or("expected a window of one axis")?,
            (None, None) => length.clone(),
        };
        let frames = (length - &frame).floor_div(ctx.element(1)?) + 1;
        let frequencies = if ctx.int("onesided", 1) != 0 { half(&frame) } else { frame };
        Ok(vec![batch.clone(), frames, frequencies, 2.into()])
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn mel_weight_matrix(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(output(ctx)?, || Ok(vec![half(ctx.element(1)?), ctx.element(0)?.clone()]))?])
}

fn window(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(output(ctx)?, || Ok(vec![ctx.element(0)?.clone()]))?])
}

fn output(ctx: &Ctx) -> Result<DataType, Why> {
    Ok(ctx.dtype_of("output_datatype")?.unwrap_or(DataType::Float))
}
