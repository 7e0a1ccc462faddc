//! SSDLite: boxes of six levels, two of the backbone and four that a neck adds, by depthwise separable convolutions.

use emo_proto::Result;

use super::boxes::Coder;
use super::{Levels, module, three};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form};

/// The backbone's stages that it reads, by their place among the four.
pub const STAGES: [usize; 2] = [2, 3];
/// Channels of the levels that the neck adds; half as many before the convolution that halves the map.
pub const EXTRA: [usize; 4] = [512, 256, 256, 128];
/// Anchors of a cell, on every level.
pub const ANCHORS: usize = 6;
/// ε of its batch norms.
pub const EPSILON: f64 = 1e-3;

/// Pixels from a cell of each level to the next.
pub const STRIDES: [f64; 6] = [16.0, 32.0, 64.0, 107.0, 160.0, 320.0];
/// Side of each level's smallest anchor, and behind them what the last level's larger square is made of.
pub const SIDES: [f64; 7] = [48.0, 100.0, 150.0, 202.0, 253.0, 304.0, 320.0];

pub const CODER: Coder = Coder {
    anchors: |level| {
        let (side, next) = (SIDES[level], SIDES[level + 1]);
        let square = (side * next).sqrt();
        // Height by width: ½, 2, ⅓, 3.
        let long = |ratio: f64| [side / ratio.sqrt(), side * ratio.sqrt()];
        vec![[side, side], [square, square], long(0.5), long(2.0), long(1.0 / 3.0), long(3.0)]
    },
    grid: |level| (STRIDES[level] / 2.0, STRIDES[level]),
    deviations: [0.1, 0.2],
    softmax: true,
    suppression: (0.02, 0.45, 200),
};

/// Scores `[N, 6·(classes + 1), h, w]` of all levels, the background last; then deltas `[N, 6·4, h, w]`.
pub(super) fn build(b: &mut Builder, stages: &[Value], classes: usize, form: Form) -> Result<Levels> {
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
    Ok(Levels { scores, deltas })
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
