//! EMOv2-1M to 50M: a row each.
//!
//! Source of every figure: "EMOv2: Pushing 5M Vision Model Frontier" (TPAMI 2025, arXiv 2412.06674) and its
//! published model definitions.

use emo_proto::Result;

use super::dense::{self, Head, LARGE, SEGMENTED, SMALL};
use super::emo::{self, Stage};
use super::mmb::{AttentionLayout, Block, Layout, Values};
use super::{CLASSES, Definition, Model, Outputs, Paper};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form, Linear, NORM_EPSILON, Pattern};

pub const PAPER: Paper = Paper {
    title: "EMOv2: Pushing 5M Vision Model Frontier",
    venue: "TPAMI 2025",
    url: "https://arxiv.org/abs/2412.06674",
    source: "https://github.com/zhangzjn/EMOv2",
};

/// Sides of the windows of the published classifiers: of 224 × 224 pixels, and of 256 × 256 and 512 × 512.
pub const WINDOWS: [usize; 2] = [emo::WINDOW, 8];

/// A network of the family: the same columns as EMO's; the blocks attend in strided and in contiguous windows.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Channels of the stem.
    pub stem: usize,
    pub stages: Vec<Stage>,
}

/// Side of the depthwise kernels of all stages.
pub const KERNEL: usize = 5;

/// The improved inverted residual mobile block of pure convolution.
pub const CONVOLVES: Layout = Layout {
    attention: None,
    expand: Some(Linear { name: "eops.0.net.conv", bias: true, norm: None, act: Some("eops.0.net") }),
    scale: Some("ls.gamma"),
    ..emo::IRMB
};

/// The same with spanning attention: values are expanded first, and mixed in two patterns of windows.
pub const ATTENDS: Layout = Layout {
    attention: Some(AttentionLayout {
        module: "eops.0",
        layer: "qk.conv",
        values: Values::Expanded,
        patterns: &[Pattern::Strided, Pattern::Contiguous],
    }),
    expand: emo::IRMB.expand,
    ..CONVOLVES
};

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

/// Side of the windows of all dense models.
const DENSE_WINDOW: usize = 10;

/// The dense models on its backbones: which head, on which variants, the side of the windows, the published sizes.
pub(super) fn dense() -> Vec<Model> {
    let rows = [
        (Head::maps(), 0..5, DENSE_WINDOW, &[SEGMENTED][..]),
        (Head::Ssdlite, 0..4, DENSE_WINDOW, &[SMALL, SEGMENTED]),
        (Head::RetinaNet, 0..4, DENSE_WINDOW, &[LARGE]),
        (Head::DeepLabV3, 0..4, DENSE_WINDOW, &[SEGMENTED]),
        (Head::PspNet, 0..4, DENSE_WINDOW, &[SEGMENTED]),
        (Head::SemanticFpn, 0..4, DENSE_WINDOW, &[SEGMENTED]),
        (Head::SegFormer { channels: 180 }, 0..1, DENSE_WINDOW, &[SEGMENTED]),
        (Head::SegFormer { channels: 288 }, 1..4, DENSE_WINDOW, &[SEGMENTED]),
    ];
    dense::models(&published(), rows)
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
    let stages = emo::stages(depths, dims, expansions, [KERNEL; 4], head_dims);
    let network = Network { stem: dims[0] / 2, stages };
    Model { name: name.into(), title: title.into(), classes: CLASSES, definition: Definition::Emo2(network) }
}

impl Network {
    /// The blocks of the stages with their names, in order: `stage1.0`, `stage1.1`, …
    #[must_use]
    pub fn blocks(&self) -> Vec<(String, Block)> {
        emo::blocks(self.stem, &self.stages, |attends| if attends { &ATTENDS } else { &CONVOLVES })
    }

    /// `x: [N, 3, H, W]` → `logits: [N, classes]`.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub(super) fn build(&self, b: &mut Builder, x: Value, classes: usize, form: Form) -> Result<Outputs> {
        let x = emo::last(&self.features(b, x, form)?, x);
        Ok(vec![("logits".into(), emo::head(b, x, classes, form)?)])
    }

    /// The maps behind the stem and behind each stage.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub(super) fn features(&self, b: &mut Builder, x: Value, form: Form) -> Result<Vec<Value>> {
        let x = stem(b, x, self.stem, form)?;
        emo::through(b, x, &self.stages, self.blocks(), form)
    }
}

/// Three convolutions, the first of which strides: `[N, 3, H, W]` → `[N, dim, ⌈H/2⌉, ⌈W/2⌉]`.
fn stem(b: &mut Builder, mut x: Value, dim: usize, form: Form) -> Result<Value> {
    let plain = Linear { name: "conv", bias: false, norm: None, act: None };
    let normed = Linear { norm: Some(("norm", NORM_EPSILON)), act: Some(""), ..plain };
    let pointwise = Conv::pointwise(dim);
    let steps = [
        (Linear { bias: true, ..normed }, Conv { kernel: 3, stride: 2, ..pointwise.clone() }),
        (normed, Conv { kernel: emo::STEM_KERNEL, depthwise: true, ..pointwise.clone() }),
        (plain, pointwise),
    ];
    for (i, (linear, conv)) in steps.into_iter().enumerate() {
        x = b.within(&format!("stage0.{i}"), |b| layer::convolve(b, x, &linear, conv, Act::Silu, form))?;
    }
    Ok(x)
}
