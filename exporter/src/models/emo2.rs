//! EMOv2-1M to 50M: a row each.
//!
//! Source of every figure: "EMOv2: Pushing 5M Vision Model Frontier" (TPAMI 2025, arXiv 2412.06674) and its
//! published model definitions.

use super::emo::{self, Stage};
use super::mmb::Attention;
use super::{CLASSES, Definition, Model};
use crate::layer::{Act, Norm};

/// A network of the family: the same columns as EMO's; the blocks attend in strided and in contiguous windows.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Channels of the stem.
    pub stem: usize,
    pub stages: Vec<Stage>,
}

/// Side of the depthwise kernels of all stages.
pub const KERNEL: usize = 5;

/// The published classifiers, with the windows of 224 × 224 pixels.
pub(super) fn published() -> [Model; 5] {
    [
        variant(
            "emo2-1m",
            "EMOv2-1M",
            [2, 2, 8, 3],
            [32, 48, 80, 180],
            [2.0, 2.5, 3.0, 3.5],
            [16, 16, 20, 20],
        ),
        variant(
            "emo2-2m",
            "EMOv2-2M",
            [3, 3, 9, 3],
            [32, 48, 120, 200],
            [2.0, 2.5, 3.0, 3.5],
            [16, 16, 20, 20],
        ),
        variant(
            "emo2-5m",
            "EMOv2-5M",
            [3, 3, 9, 3],
            [48, 72, 160, 288],
            [2.0, 3.0, 4.0, 4.0],
            [16, 24, 32, 32],
        ),
        variant(
            "emo2-20m",
            "EMOv2-20M",
            [3, 3, 13, 3],
            [64, 128, 320, 448],
            [2.0, 3.0, 4.0, 4.0],
            [16, 32, 32, 32],
        ),
        variant(
            "emo2-50m",
            "EMOv2-50M",
            [5, 8, 20, 7],
            [64, 128, 384, 512],
            [2.0, 3.0, 4.0, 4.0],
            [16, 32, 32, 32],
        ),
    ]
}

/// The columns in which the variants differ; the others are common to all five.
fn variant(
    name: &'static str,
    title: &'static str,
    depths: [usize; 4],
    dims: [usize; 4],
    expansions: [f64; 4],
    head_dims: [usize; 4],
) -> Model {
    let stage = |i: usize| {
        let late = i >= 2;
        Stage {
            depth: depths[i],
            dim: dims[i],
            expansion: expansions[i],
            kernel: KERNEL,
            norm: if late { Norm::Layer } else { Norm::Batch },
            act: if late { Act::Gelu } else { Act::Silu },
            attention: late.then_some(Attention { head_dim: head_dims[i], window: Some(emo::WINDOW) }),
        }
    };
    let network = Network { stem: dims[0] / 2, stages: (0..4).map(stage).collect() };
    Model { name: name.into(), title: title.into(), classes: CLASSES, definition: Definition::Emo2(network) }
}
