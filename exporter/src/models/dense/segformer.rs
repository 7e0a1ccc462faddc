//! SegFormer: every map made as wide and as large as the finest, and one layer over all of them.

use emo_proto::Result;

use super::{conv_seg, module};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form};

/// ε of its batch norms.
pub const EPSILON: f64 = 1e-5;

/// Logits of the finest map's size.
pub(super) fn build(
    b: &mut Builder,
    stages: &[Value],
    channels: usize,
    classes: usize,
    form: Form,
) -> Result<Value> {
    let (.., height, width) = b.feature_map(stages[0])?;
    let pointwise =
        |b: &mut Builder, x| module(b, x, Conv::pointwise(channels), Some(EPSILON), Act::Relu, form);
    b.within("decode_head", |b| {
        let mut maps = Vec::with_capacity(stages.len());
        for (i, &stage) in stages.iter().enumerate() {
            maps.push(b.within(&format!("convs.{i}"), |b| {
                let x = pointwise(b, stage)?;
                layer::resize_linear(b, x, [height, width], form)
            })?);
        }
        let x = b.concat("concat", &maps, 1)?;
        let x = b.within("fusion_conv", |b| pointwise(b, x))?;
        conv_seg(b, x, classes)
    })
}
