//! RetinaNet: boxes of five levels of a feature pyramid, by one head for all of them.

use emo_proto::Result;

use super::{fpn, levels, module, three};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Form};
use crate::models::Outputs;

/// The first of the backbone's stages that it reads, by its place among the four.
pub const FIRST_STAGE: usize = 1;
/// Levels beyond the backbone's.
pub const EXTRA: usize = 2;
/// Convolutions before a prediction.
pub const DEPTH: usize = 4;
/// Anchors of a cell, on every level.
pub const ANCHORS: usize = 9;

/// Logits `[N, 9·classes, h, w]` of all levels, then deltas `[N, 9·4, h, w]`.
pub(super) fn build(b: &mut Builder, stages: &[Value], classes: usize, form: Form) -> Result<Outputs> {
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
    Ok(levels(scores, deltas))
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
