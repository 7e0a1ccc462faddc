//! Normalisations, softmax: the shape stays, the elements are counted.

use emo_proto::tensor_proto::DataType;

use super::elementwise::same;
use super::{Ctx, Row, Why, written};
use crate::cost::Work;
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row { name: "BatchNormalization", rule: batch_norm, work: batch_norm_work, weights: &[1, 2] },
    Row { name: "LayerNormalization", rule: layer_norm, work: layer_norm_work, weights: &[1, 2] },
    Row { name: "GroupNormalization", rule: same, work: layer_norm_work, weights: &[1, 2] },
    Row { name: "InstanceNormalization", rule: same, work: layer_norm_work, weights: &[1, 2] },
    Row { name: "RMSNormalization", rule: rms_norm, work: |_, _| Ok(Work::Free), weights: &[1] },
    // ONNX Runtime puts this one into ONNX's domain.
    Row {
        name: "SimplifiedLayerNormalization",
        rule: layer_norm,
        work: |_, _| Ok(Work::Free),
        weights: &[1],
    },
    Row::free("LpNormalization", same),
    Row::free("MeanVarianceNormalization", same),
    Row::free("LRN", same),
    Row::free("Softmax", same),
    Row::free("LogSoftmax", same),
    Row::free("Hardmax", same),
];

/// The normalised values; in training the running statistics, one a channel, and up to opset 13
/// the saved ones.
fn batch_norm(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let mut outputs = same(ctx)?;
    if let (Some(mean), true) = (ctx.optional(3), is_training(ctx)) {
        let statistic = Fact { dims: mean.dims.clone(), ..Fact::new(mean.dtype, Vec::new()) };
        outputs.resize(ctx.node.output.len().clamp(1, 5), statistic);
    }
    Ok(outputs)
}

fn is_training(ctx: &Ctx) -> bool {
    match ctx.opset {
        14.. => ctx.int("training_mode", 0) != 0,
        7..14 => ctx.node.output.iter().skip(1).any(|name| !name.is_empty()),
        _ => ctx.int("is_test", 0) == 0 && ctx.node.output.len() > 1,
    }
}

/// In training the statistics are the input's own.
fn batch_norm_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    let elements = written(outputs);
    Ok(if is_training(ctx) { Work::LayerNorm { elements } } else { Work::BatchNorm { elements } })
}

/// The normalised values, the means and the inverse deviations, for each position before `axis`.
pub(super) fn layer_norm(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.dims(0)?;
    let axis = Ctx::axis(ctx.int("axis", -1), x.len())?;
    let dims = x.iter().enumerate().map(|(i, dim)| if i < axis { dim.clone() } else { Expr::Number(1) });
    let stash = ctx.dtype_of("stash_type")?.unwrap_or(DataType::Float);
    let statistic = Fact::new(stash, dims.collect());
    Ok(vec![same(ctx)?.remove(0), statistic.clone(), statistic])
}

pub(super) fn layer_norm_work(_: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    Ok(Work::LayerNorm { elements: written(outputs) })
}

/// The values come out in the scale's type.
fn rms_norm(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let (x, scale) = (ctx.input(0)?, ctx.input(1)?);
    Ok(vec![Fact { dims: x.dims.clone(), ..Fact::new(scale.dtype, Vec::new()) }])
}
