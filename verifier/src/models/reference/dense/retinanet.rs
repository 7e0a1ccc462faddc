//! RetinaNet.
//!
//! Source: "Focal Loss for Dense Object Detection" (ICCV 2017, arXiv 1708.02002), section 4.

use std::sync::Arc;

use emo_proto::Result;

use super::decode::{self, Anchors, Scores};
use super::layer::{Layer, Sequence};
use super::{Level, fpn};
use crate::models::reference::ops::Activation;
use crate::models::reference::parts::{Parts, Source};
use crate::models::reference::scope::Scope;

/// Levels beyond the backbone's.
const EXTRA: usize = 2;
/// Convolutions before a prediction.
const DEPTH: usize = 4;
/// Pixels between the cells of the finest level; each coarser one doubles it.
const STRIDE: f32 = 8.0;
/// Sides of anchors, in strides: three to an octave.
const OCTAVE: f64 = 4.0;
/// Heights to widths.
const RATIOS: [f32; 3] = [0.5, 1.0, 2.0];

/// `maps` are those of strides 8, 16 and 32.
pub fn load(parts: &mut Parts, maps: &[Level], root: &Scope) -> Result<()> {
    let levels = fpn::load(parts, maps, EXTRA, root)?;
    let mut branch = |convs: &str, last: &str| -> Result<Vec<Source>> {
        let head = root.at("bbox_head");
        let mut layers = Vec::new();
        for index in 0..DEPTH {
            let scope = head.at(&format!("{convs}.{index}"));
            layers.push(Layer::biased(&scope, [fpn::CHANNELS; 2], [3, 1], Some(Activation::Relu))?);
        }
        layers.push(Layer::plain(&head.at(last), fpn::CHANNELS, 3)?);
        // All levels have these weights.
        let layers = Arc::new(Sequence(layers));
        let part =
            |(index, &level)| parts.push(format!("bbox_head.{last}.{index}"), Arc::clone(&layers), [level]);
        Ok(levels.iter().enumerate().map(part).collect())
    };
    let scores = branch("cls_convs", "retina_cls")?;
    let deltas = branch("reg_convs", "retina_reg")?;
    let coder = anchors(levels.len());
    let made = Scores { anchors: coder.of_a_cell(), background: false };
    decode::finish(parts, [&scores, &deltas], coder, made);
    Ok(())
}

/// Of a cell, ratio by ratio the sizes of an octave. A cell's anchors are around its upper left corner.
fn anchors(levels: usize) -> Anchors {
    let octave = [0.0, 1.0, 2.0].map(|third| (OCTAVE * 2.0_f64.powf(third / 3.0)) as f32);
    let sides = |stride: f32| {
        let of = |ratio: f32| {
            octave.map(|scale| [stride * (1.0 / ratio.sqrt()) * scale, stride * ratio.sqrt() * scale])
        };
        RATIOS.into_iter().flat_map(of).collect()
    };
    let strides = std::iter::successors(Some(STRIDE), |stride| Some(2.0 * stride));
    Anchors {
        offset: 0.0,
        levels: strides.take(levels).map(|stride| (stride, sides(stride))).collect(),
        deviations: [1.0; 4],
    }
}
