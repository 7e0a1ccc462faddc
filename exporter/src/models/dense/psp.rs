//! PSPNet: means of the coarsest map over grids of several sizes, beside the map itself.

use emo_proto::Result;

use super::{conv_seg, module, three};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form};

pub const CHANNELS: usize = 256;
/// Bins of a side, a branch each.
pub const BINS: [usize; 4] = [1, 2, 3, 6];
/// ε of its batch norms.
pub const EPSILON: f64 = 1e-5;

/// Logits of the coarsest map's size.
pub(super) fn build(b: &mut Builder, stages: &[Value], classes: usize, form: Form) -> Result<Value> {
    let x = stages[stages.len() - 1];
    let (.., height, width) = b.feature_map(x)?;
    let (norm, act) = (Some(EPSILON), Act::Relu);
    b.within("decode_head", |b| {
        let mut branches = vec![x];
        for (i, bins) in BINS.into_iter().enumerate() {
            branches.push(b.within(&format!("psp_modules.{i}"), |b| {
                let pooled = layer::adaptive_pool(b, x, bins, form)?;
                let pooled =
                    b.within("1", |b| module(b, pooled, Conv::pointwise(CHANNELS), norm, act, form))?;
                layer::resize_linear(b, pooled, [height, width], form)
            })?);
        }
        let x = b.concat("concat", &branches, 1)?;
        let x = b.within("bottleneck", |b| module(b, x, three(CHANNELS), norm, act, form))?;
        conv_seg(b, x, classes)
    })
}
