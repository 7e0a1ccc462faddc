//! SSDLite: boxes of six levels, two of the backbone and four that a neck adds, by depthwise separable convolutions.

use emo_proto::Result;

use super::{levels, module, three};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form};
use crate::models::Outputs;

/// The backbone's stages that it reads, by their place among the four.
pub const STAGES: [usize; 2] = [2, 3];
/// Channels of the levels that the neck adds; half as many before the convolution that halves the map.
pub const EXTRA: [usize; 4] = [512, 256, 256, 128];
/// Anchors of a cell, on every level.
pub const ANCHORS: usize = 6;
/// ε of its batch norms.
pub const EPSILON: f64 = 1e-3;

/// Scores `[N, 6·(classes + 1), h, w]` of all levels, the background last; then deltas `[N, 6·4, h, w]`.
pub(super) fn build(b: &mut Builder, stages: &[Value], classes: usize, form: Form) -> Result<Outputs> {
    let mut maps: Vec<Value> = STAGES.iter().filter_map(|&i| stages.get(i).copied()).collect();
    for (i, out) in EXTRA.into_iter().enumerate() {
        let x = maps[maps.len() - 1];
        maps.push(b.within(&format!("neck.extra_layers.{i}"), |b| halved(b, x, out, form))?);
    }
    let mut branch = |name: &str, out: usize| -> Result<Vec<Value>> {
        let maps = maps.iter().enumerate();
        maps.map(|(i, &x)| b.within(&format!("bbox_head.{name}.{i}"), |b| predict(b, x, out, form))).collect()
    };
    let scores = branch("cls_convs", ANCHORS * (classes + 1))?;
    let deltas = branch("reg_convs", ANCHORS * 4)?;
    Ok(levels(scores, deltas))
}

/// A level of `out` channels on half the map.
fn halved(b: &mut Builder, x: Value, out: usize, form: Form) -> Result<Value> {
    let (norm, act) = (Some(EPSILON), Act::Relu6);
    let narrow = out / 2;
    let x = b.within("0", |b| module(b, x, Conv::pointwise(narrow), norm, act, form))?;
    let depthwise = Conv { stride: 2, depthwise: true, ..three(narrow) };
    let x = b.within("1.depthwise_conv", |b| module(b, x, depthwise, norm, act, form))?;
    b.within("1.pointwise_conv", |b| module(b, x, Conv::pointwise(out), norm, act, form))
}

fn predict(b: &mut Builder, x: Value, out: usize, form: Form) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    let depthwise = Conv { depthwise: true, ..three(channels) };
    let x = b.within("0", |b| module(b, x, depthwise, Some(EPSILON), Act::Relu6, form))?;
    b.within("1", |b| layer::conv(b, x, &Conv::pointwise(out).biased()))
}
