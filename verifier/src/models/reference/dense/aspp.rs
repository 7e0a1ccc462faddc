//! DeepLabv3: atrous spatial pyramid pooling.
//!
//! Source: "Rethinking Atrous Convolution for Semantic Image Segmentation" (arXiv 1706.05587), section 3.3; the branches
//! and their order are those of the published configuration.

use emo_proto::Result;

use super::Level;
use super::layer::{Joined, Layer, SEGMENTER, size};
use crate::models::reference::Mistake;
use crate::models::reference::ops::{mean_over_pixels, planes};
use crate::models::reference::parts::{Map, Part, Parts, Source};
use crate::models::reference::resize::linear;
use crate::models::reference::scope::Scope;

const CHANNELS: usize = 256;
const DILATIONS: [usize; 4] = [1, 12, 24, 36];

/// Logits of the map's size.
pub fn load(parts: &mut Parts, map: Level, root: &Scope) -> Result<Source> {
    let mut branches = Vec::new();
    let name = "decode_head.image_pool";
    let layer = Layer::normed(&root.at(name).at("1"), [map.channels, CHANNELS], [1, 1], SEGMENTER)?;
    branches.push(parts.push(name, ImagePool(layer), [map.source]));
    for (index, dilation) in DILATIONS.into_iter().enumerate() {
        let name = format!("decode_head.aspp_modules.{index}");
        let kernel = if dilation == 1 { 1 } else { 3 };
        let layer = Layer::normed(&root.at(&name), [map.channels, CHANNELS], [kernel, dilation], SEGMENTER)?;
        branches.push(parts.push(name, layer, [map.source]));
    }
    let name = "decode_head.bottleneck";
    let layer = Layer::normed(&root.at(name), [branches.len() * CHANNELS, CHANNELS], [3, 1], SEGMENTER)?;
    let joined = parts.push(name, Joined(layer), branches);
    let name = "decode_head.conv_seg";
    Ok(parts.push(name, Layer::plain(&root.at(name), CHANNELS, 1)?, [joined]))
}

/// A layer of the mean over all pixels, at every pixel.
struct ImagePool(Layer);

impl Part for ImagePool {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        let mean = mean_over_pixels(&planes(x).into_owned(), mistake);
        linear(&self.0.apply(&mean, mistake), size(x), mistake).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        self.0.can_make(mistake)
    }
}
