//! Semantic FPN: all levels of a feature pyramid, enlarged step by step to the finest and added.

use emo_proto::Result;

use super::{conv_seg, fpn, module, three};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Form};
use crate::op::Binary;

pub const CHANNELS: usize = 128;
/// ε of its batch norms.
pub const EPSILON: f64 = 1e-5;

/// Logits of the finest map's size.
pub(super) fn build(b: &mut Builder, stages: &[Value], classes: usize, form: Form) -> Result<Value> {
    let levels = fpn::build(b, stages, 0, form)?;
    let (.., height, width) = b.feature_map(levels[0])?;
    b.within("decode_head", |b| {
        let mut sum = None;
        for (i, &level) in levels.iter().enumerate() {
            let x = b.within(&format!("scale_heads.{i}"), |b| {
                let x = enlarged(b, level, i, form)?;
                layer::resize_linear(b, x, [height, width], form)
            })?;
            sum = Some(match sum {
                None => x,
                Some(sum) => b.binary(&format!("sum{i}"), Binary::Add, sum, x)?,
            });
        }
        conv_seg(b, sum.unwrap_or(levels[0]), classes)
    })
}

/// Convolutions of a level, each followed by a doubling but on the finest, where there is one and no doubling.
fn enlarged(b: &mut Builder, mut x: Value, level: usize, form: Form) -> Result<Value> {
    for j in 0..level.max(1) {
        // Doublings have a place in the published list too.
        let place = if level == 0 { j } else { 2 * j };
        x =
            b.within(&place.to_string(), |b| module(b, x, three(CHANNELS), Some(EPSILON), Act::Relu, form))?;
        if level > 0 {
            let (.., height, width) = b.feature_map(x)?;
            let doubled = [2 * height, 2 * width];
            x = b.within(&(place + 1).to_string(), |b| layer::resize_linear(b, x, doubled, form))?;
        }
    }
    Ok(x)
}
