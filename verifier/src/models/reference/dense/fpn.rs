//! Feature pyramid: each level of the backbone with what the coarser ones add to it.
//!
//! Source: "Feature Pyramid Networks for Object Detection" (CVPR 2017, arXiv 1612.03144), section 3. Levels beyond the
//! backbone's are made of its coarsest map itself, as RetinaNet's P6 and P7 are.

use emo_proto::Result;

use super::Level;
use super::layer::{Layer, size};
use crate::models::reference::Mistake;
use crate::models::reference::ops::planes;
use crate::models::reference::parts::{Junction, Map, Parts, Source};
use crate::models::reference::resize::{nearest, nearest_can_make};
use crate::models::reference::scope::Scope;

/// Of every level.
pub const CHANNELS: usize = 256;

/// The levels of a pyramid on `maps`, the finest first, and `extra` that are coarser.
pub fn load(parts: &mut Parts, maps: &[Level], extra: usize, root: &Scope) -> Result<Vec<Source>> {
    let neck = root.at("neck");
    let mut coarser = None;
    let mut sums = Vec::new();
    for (index, map) in maps.iter().enumerate().rev() {
        let name = format!("lateral_convs.{index}");
        let lateral = Layer::biased(&neck.at(&name), [map.channels, CHANNELS], [1, 1], None)?;
        let takes: Vec<Source> = std::iter::once(map.source).chain(coarser).collect();
        let sum = parts.push(
            format!("neck.{name}"),
            Lateral { layer: lateral, coarsest: coarser.is_none() },
            takes,
        );
        coarser = Some(sum);
        sums.insert(0, sum);
    }
    let mut levels = Vec::new();
    let mut smooth = |index: usize, inputs, stride, source| -> Result<Source> {
        let name = format!("fpn_convs.{index}");
        let layer = Layer::biased(&neck.at(&name), [inputs, CHANNELS], [3, stride], None)?;
        Ok(parts.push(format!("neck.{name}"), layer, [source]))
    };
    for (index, &sum) in sums.iter().enumerate() {
        levels.push(smooth(index, CHANNELS, 1, sum)?);
    }
    let coarsest = &maps[maps.len() - 1];
    let (mut source, mut channels) = (coarsest.source, coarsest.channels);
    for index in maps.len()..maps.len() + extra {
        source = smooth(index, channels, 2, source)?;
        channels = CHANNELS;
        levels.push(source);
    }
    Ok(levels)
}

/// A pointwise convolution of a level, and the coarser level's sum at this level's size.
struct Lateral {
    layer: Layer,
    coarsest: bool,
}

impl Junction for Lateral {
    fn forward(&self, maps: &[&Map], mistake: Option<Mistake>) -> Map {
        let mut sum = self.layer.apply(&planes(maps[0]), mistake);
        for coarser in &maps[1..] {
            sum += &nearest(&planes(coarser), size(maps[0]), mistake);
        }
        sum.into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        self.layer.can_make(mistake) || !self.coarsest && nearest_can_make(mistake)
    }
}
