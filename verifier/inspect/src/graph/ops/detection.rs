//! Boxes, determinants, images from files.

use emo_proto::tensor_proto::DataType;

use super::{Ctx, Row, Why};
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row::free("NonMaxSuppression", non_max_suppression),
    Row::free("Det", det),
    Row::free("ImageDecoder", image_decoder),
];

/// `[kept, 3]` of image, class and box.
fn non_max_suppression(_: &Ctx) -> Result<Vec<Fact>, Why> {
    let kept = Expr::unknown("how many boxes are kept depends on their scores");
    Ok(vec![Fact::new(DataType::Int64, vec![kept, 3.into()])])
}

/// `[…, M, M]` → `[…]`.
fn det(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match ctx.dims(0)? {
        [batch @ .., _, _] => Ok(batch.to_vec()),
        other => Err(format!("expected matrices, found {other:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// `[height, width, channels]`.
fn image_decoder(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let side = || Expr::unknown("the extents of an image stand in its file");
    let channels = if ctx.text("pixel_format") == Some("Grayscale") { 1 } else { 3 };
    Ok(vec![Fact::new(DataType::Uint8, vec![side(), side(), channels.into()])])
}
