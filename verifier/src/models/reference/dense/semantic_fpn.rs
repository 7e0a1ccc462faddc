//! Semantic FPN.
//!
//! Source: "Panoptic Feature Pyramid Networks" (CVPR 2019, arXiv 1901.02446), section 3.1, with the batch norm and the
//! widths of the published configuration.

use emo_proto::Result;

use super::layer::{Layer, SEGMENTER, size};
use super::{Level, fpn};
use crate::models::reference::Mistake;
use crate::models::reference::ops::planes;
use crate::models::reference::parts::{Junction, Map, Part, Parts, Source};
use crate::models::reference::resize::{linear, linear_can_make};
use crate::models::reference::scope::Scope;

const CHANNELS: usize = 128;

/// Logits of the finest map's size; `maps` are those of strides 4 to 32.
pub fn load(parts: &mut Parts, maps: &[Level], root: &Scope) -> Result<Source> {
    let levels = fpn::load(parts, maps, 0, root)?;
    let mut branches = Vec::new();
    for (index, level) in levels.into_iter().enumerate() {
        let name = format!("decode_head.scale_heads.{index}");
        let mut layers = Vec::new();
        for step in 0..index.max(1) {
            // Every second module of the published list is a resize.
            let scope = root.at(&name).at(&(2 * step).to_string());
            let inputs = if step == 0 { fpn::CHANNELS } else { CHANNELS };
            layers.push(Layer::normed(&scope, [inputs, CHANNELS], [3, 1], SEGMENTER)?);
        }
        branches.push(parts.push(name, Scale { layers, doubles: index > 0 }, [level]));
    }
    let name = "decode_head.conv_seg";
    Ok(parts.push(name, Sum(Layer::plain(&root.at(name), CHANNELS, 1)?), branches))
}

/// Layers, behind each of which a coarse map is doubled.
struct Scale {
    layers: Vec<Layer>,
    doubles: bool,
}

impl Part for Scale {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        let mut y = planes(x).into_owned();
        for layer in &self.layers {
            y = layer.apply(&y, mistake);
            if self.doubles {
                let (.., height, width) = y.dim();
                y = linear(&y, [2 * height, 2 * width], mistake);
            }
        }
        y.into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        self.doubles && linear_can_make(mistake) || self.layers.iter().any(|layer| layer.can_make(mistake))
    }
}

/// A layer of the sum of all maps at the first one's size.
struct Sum(Layer);

impl Junction for Sum {
    fn forward(&self, maps: &[&Map], mistake: Option<Mistake>) -> Map {
        let mut sum = planes(maps[0]).into_owned();
        for map in &maps[1..] {
            sum += &linear(&planes(map), size(maps[0]), mistake);
        }
        self.0.apply(&sum, mistake).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        linear_can_make(mistake) || self.0.can_make(mistake)
    }
}
