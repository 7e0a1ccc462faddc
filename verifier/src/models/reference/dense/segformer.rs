//! `SegFormer`'s head of pointwise layers.
//!
//! Source: "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers" (NeurIPS 2021, arXiv
//! 2105.15203), section 3.2, with the widths and layers of EMOv2's published configuration.

use emo_proto::Result;

use super::Level;
use super::layer::{Joined, Layer, SEGMENTER, size};
use crate::models::reference::Mistake;
use crate::models::reference::ops::planes;
use crate::models::reference::parts::{Junction, Map, Parts, Source};
use crate::models::reference::resize::{linear, linear_can_make};
use crate::models::reference::scope::Scope;

/// Logits of the finest map's size; `maps` are those of strides 4 to 32.
pub fn load(parts: &mut Parts, maps: &[Level], channels: usize, root: &Scope) -> Result<Source> {
    let mut branches = Vec::new();
    for (index, map) in maps.iter().enumerate() {
        let name = format!("decode_head.convs.{index}");
        let layer = Layer::normed(&root.at(&name), [map.channels, channels], [1, 1], SEGMENTER)?;
        let takes = [map.source, maps[0].source];
        branches.push(parts.push(name, Levelled { layer, finest: index == 0 }, takes));
    }
    let name = "decode_head.fusion_conv";
    let layer = Layer::normed(&root.at(name), [maps.len() * channels, channels], [1, 1], SEGMENTER)?;
    let joined = parts.push(name, Joined(layer), branches);
    let name = "decode_head.conv_seg";
    Ok(parts.push(name, Layer::plain(&root.at(name), channels, 1)?, [joined]))
}

/// A layer of the first map at the size of the second.
struct Levelled {
    layer: Layer,
    /// Whether both have one size.
    finest: bool,
}

impl Junction for Levelled {
    fn forward(&self, maps: &[&Map], mistake: Option<Mistake>) -> Map {
        let [x, finest] = maps else { panic!("expected a map and the finest, found {} maps", maps.len()) };
        linear(&self.layer.apply(&planes(x), mistake), size(finest), mistake).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        !self.finest && linear_can_make(mistake) || self.layer.can_make(mistake)
    }
}
