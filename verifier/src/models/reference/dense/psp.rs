//! `PSPNet`: a pyramid of pooled maps.
//!
//! Source: "Pyramid Scene Parsing Network" (CVPR 2017, arXiv 1612.01105), section 3.2.

use std::ops::Range;

use emo_proto::Result;
use ndarray::{Array4, ArrayRef4, Axis, s};

use super::Level;
use super::layer::{Joined, Layer, SEGMENTER, size};
use crate::models::reference::Mistake;
use crate::models::reference::ops::planes;
use crate::models::reference::parts::{Map, Part, Parts, Source};
use crate::models::reference::resize::{linear, linear_can_make};
use crate::models::reference::scope::Scope;

const CHANNELS: usize = 256;
/// Of the maps that are pooled.
const SIDES: [usize; 4] = [1, 2, 3, 6];

/// Logits of the map's size.
pub fn load(parts: &mut Parts, map: Level, root: &Scope) -> Result<Source> {
    let mut branches = vec![map.source];
    for (index, side) in SIDES.into_iter().enumerate() {
        let name = format!("decode_head.psp_modules.{index}");
        let layer = Layer::normed(&root.at(&name).at("1"), [map.channels, CHANNELS], [1, 1], SEGMENTER)?;
        branches.push(parts.push(name, Pooled { side, layer }, [map.source]));
    }
    let name = "decode_head.bottleneck";
    let inputs = map.channels + SIDES.len() * CHANNELS;
    let layer = Layer::normed(&root.at(name), [inputs, CHANNELS], [3, 1], SEGMENTER)?;
    let joined = parts.push(name, Joined(layer), branches);
    let name = "decode_head.conv_seg";
    Ok(parts.push(name, Layer::plain(&root.at(name), CHANNELS, 1)?, [joined]))
}

/// A layer of a pooled map of `side` × `side`, at the size of what was pooled.
struct Pooled {
    side: usize,
    layer: Layer,
}

impl Part for Pooled {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        let pooled = pool(&planes(x), self.side, mistake);
        linear(&self.layer.apply(&pooled, mistake), size(x), mistake).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        match mistake {
            // Halves overlap by as much either way.
            Mistake::StridedPool => self.side > 2,
            other => self.side > 1 && linear_can_make(other) || self.layer.can_make(other),
        }
    }
}

/// Means over `side` × `side` bins, which overlap where the map is no multiple of them.
fn pool(map: &ArrayRef4<f64>, side: usize, mistake: Option<Mistake>) -> Array4<f64> {
    let (n, channels, height, width) = map.dim();
    let mut pooled = Array4::zeros((n, channels, side, side));
    for (i, j) in (0..side).flat_map(|i| (0..side).map(move |j| (i, j))) {
        let (rows, columns) = (bin(i, side, height, mistake), bin(j, side, width, mistake));
        let cells = map.slice(s![.., .., rows, columns]);
        let mean = cells.mean_axis(Axis(3)).and_then(|means| means.mean_axis(Axis(2)));
        pooled.slice_mut(s![.., .., i, j]).assign(&mean.expect("a pixel in every bin"));
    }
    pooled
}

/// The pixels of bin `i` of `bins`: all that it has a share of.
fn bin(i: usize, bins: usize, pixels: usize, mistake: Option<Mistake>) -> Range<usize> {
    if mistake == Some(Mistake::StridedPool) && pixels >= bins {
        let stride = pixels / bins;
        return i * stride..pixels - (bins - 1 - i) * stride;
    }
    i * pixels / bins..((i + 1) * pixels).div_ceil(bins)
}

#[cfg(test)]
mod tests {
    use super::{Mistake, bin};

    #[test]
    fn bins_overlap_where_they_must() {
        let bins = |mistake| (0..6).map(|i| bin(i, 6, 16, mistake)).collect::<Vec<_>>();
        assert_eq!(bins(None), [0..3, 2..6, 5..8, 8..11, 10..14, 13..16]);
        assert_eq!(bins(Some(Mistake::StridedPool)), [0..6, 2..8, 4..10, 6..12, 8..14, 10..16]);
    }
}
