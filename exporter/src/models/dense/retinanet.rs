//! RetinaNet: boxes of five levels of a feature pyramid, by one head for all of them.

use emo_proto::Result;

use super::boxes::Coder;
use super::{Levels, fpn, module, three};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Form};

/// The first of the backbone's stages that it reads, by its place among the four.
pub const FIRST_STAGE: usize = 1;
/// Levels beyond the backbone's.
pub const EXTRA: usize = 2;
/// Convolutions before a prediction.
pub const DEPTH: usize = 4;
/// Anchors of a cell, on every level.
pub const ANCHORS: usize = 9;

/// Pixels from a cell of the first level to the next; each later level doubles it.
pub const STRIDE: f64 = 8.0;
/// Sides of a cell's square anchors, in strides: 4, and thirds of an octave above.
pub const SIDES: [f64; 3] = [4.0, 5.039_684_199_579_493, 6.349_604_207_872_798];

const fn stride(level: usize) -> f64 {
    STRIDE * (1 << level) as f64
}

pub const CODER: Coder = Coder {
    anchors: |level| {
        // Height by width.
        let ratio = |ratio: f64| {
            SIDES.map(|side| [stride(level) * side / ratio.sqrt(), stride(level) * side * ratio.sqrt()])
        };
        [0.5, 1.0, 2.0].map(ratio).concat()
    },
    grid: |level| (0.0, stride(level)),
    deviations: [1.0, 1.0],
    softmax: false,
    suppression: (0.05, 0.5, 100),
};

/// Logits `[N, 9·classes, h, w]` of all levels, then deltas `[N, 9·4, h, w]`.
pub(super) fn build(b: &mut Builder, stages: &[Value], classes: usize, form: Form) -> Result<Levels> {
    let maps = fpn::build(b, &stages[FIRST_STAGE..], EXTRA, form)?;
    let mut branch = |convs: &str, last: &str, out: usize| -> Result<Vec<Value>> {
        let level = |(i, &map): (usize, &Value)| {
            b.within("bbox_head", |b| {
                b.again(&format!("level{i}"), |b| predict(b, map, (convs, last), out, form))
            })
        };
        maps.iter().enumerate().map(level).collect()
    };
    let scores = branch("cls_convs", "retina_cls", ANCHORS * classes)?;
    let deltas = branch("reg_convs", "retina_reg", ANCHORS * 4)?;
    Ok(Levels { scores, deltas })
}

fn predict(
    b: &mut Builder,
    mut x: Value,
    (convs, last): (&str, &str),
    out: usize,
    form: Form,
) -> Result<Value> {
    for i in 0..DEPTH {
        let name = format!("{convs}.{i}");
        x = b.within(&name, |b| module(b, x, three(fpn::CHANNELS), None, Act::Relu, form))?;
    }
    b.within(last, |b| layer::conv(b, x, &three(out).biased()))
}
