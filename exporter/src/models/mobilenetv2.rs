//! MobileNetV2: the Meta Mobile Block with F = depthwise convolution.
//!
//! Source: "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018, arXiv 1801.04381), table 2; names and
//! rounding of channels as in the published weights of timm (`mobilenetv2_100`, `mobilenetv2_140`).

use super::{CLASSES, Definition, Model};

/// A row of table 2: `depth` blocks, of which the first has the stride.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// Expansion ratio λ.
    pub expansion: usize,
    /// Channels at the stage's output.
    pub dim: usize,
    pub depth: usize,
    pub stride: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Channels of the stem.
    pub stem: usize,
    pub stages: Vec<Stage>,
    /// Channels of the last pointwise convolution.
    pub features: usize,
}

/// (λ, channels, depth, stride) of table 2.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// The published width multipliers.
pub(super) fn published() -> [Model; 2] {
    [variant("mobilenetv2-100", "MobileNetV2 1.0", 1.0), variant("mobilenetv2-140", "MobileNetV2 1.4", 1.4)]
}

fn variant(name: &'static str, title: &'static str, width: f64) -> Model {
    let stage =
        |(expansion, dim, depth, stride)| Stage { expansion, dim: channels(dim, width), depth, stride };
    let network = Network {
        stem: channels(32, width),
        stages: STAGES.map(stage).into(),
        features: channels(1280, width.max(1.0)),
    };
    Model {
        name: name.into(),
        title: title.into(),
        classes: CLASSES,
        definition: Definition::MobileNetV2(network),
    }
}

/// A multiple of 8 that is at least 8 and at least nine tenths of `channels` · `width`.
fn channels(channels: usize, width: f64) -> usize {
    let wanted = channels as f64 * width;
    let rounded = ((wanted + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * wanted { rounded + 8 } else { rounded }
}
