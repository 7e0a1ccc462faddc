//! DeepLabv3: atrous spatial pyramid pooling, convolutions of several dilations over the coarsest map.

use emo_proto::Result;

use super::{conv_seg, module, three};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form};
use crate::profile::Pool;

pub const CHANNELS: usize = 256;
/// Of a branch each; a branch that is not dilated is pointwise.
pub const DILATIONS: [usize; 4] = [1, 12, 24, 36];
/// ε of its batch norms.
pub const EPSILON: f64 = 1e-5;

/// Logits of the coarsest map's size.
pub(super) fn build(b: &mut Builder, stages: &[Value], classes: usize, form: Form) -> Result<Value> {
    let x = stages[stages.len() - 1];
    let (.., height, width) = b.feature_map(x)?;
    let (norm, act) = (Some(EPSILON), Act::Relu);
    b.within("decode_head", |b| {
        let pooled = b.within("image_pool", |b| {
            let mean = layer::mean(b, x, Pool::GlobalAveragePool, form)?;
            let pooled = b.within("1", |b| module(b, mean, Conv::pointwise(CHANNELS), norm, act, form))?;
            layer::resize_linear(b, pooled, [height, width], form)
        })?;
        let mut branches = vec![pooled];
        for (i, dilation) in DILATIONS.into_iter().enumerate() {
            let kernel = if dilation == 1 { 1 } else { 3 };
            let conv = Conv { kernel, dilation, ..Conv::pointwise(CHANNELS) };
            branches.push(b.within(&format!("aspp_modules.{i}"), |b| module(b, x, conv, norm, act, form))?);
        }
        let x = b.concat("concat", &branches, 1)?;
        let x = b.within("bottleneck", |b| module(b, x, three(CHANNELS), norm, act, form))?;
        conv_seg(b, x, classes)
    })
}
