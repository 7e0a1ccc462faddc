//! MobileNetV2: the Meta Mobile Block with F = depthwise convolution.
//!
//! Source: "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018, arXiv 1801.04381), table 2; names and
//! rounding of channels as in the published weights of timm (`mobilenetv2_100`, `mobilenetv2_140`).

use emo_proto::Result;

use super::mmb::{Block, Layout, MetaMobileBlock};
use super::{CLASSES, Definition, Model, Outputs, Paper};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form, Linear, Norm};
use crate::profile::Pool;

pub const PAPER: Paper = Paper {
    title: "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    venue: "CVPR 2018",
    url: "https://arxiv.org/abs/1801.04381",
    source: "https://github.com/huggingface/pytorch-image-models",
};

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

/// ε of its batch norms.
pub const EPSILON: f64 = 1e-5;
/// Side of the stem's and the depthwise kernels.
pub const KERNEL: usize = 3;

/// The inverted residual: each linear map has a batch norm behind it.
pub const INVERTED_RESIDUAL: Layout = Layout {
    norm: None,
    attention: None,
    expand: Some(linear("conv_pw", "bn1", true)),
    local: Some((linear("conv_dw", "bn2", true), Act::Relu6)),
    project: linear("conv_pwl", "bn3", false),
    scale: None,
    shortcut: "shortcut",
    matrices: false,
};

/// The same of λ = 1, without an expansion: its layers are counted from the next.
pub const SEPARABLE: Layout = Layout {
    expand: None,
    local: Some((linear("conv_dw", "bn1", true), Act::Relu6)),
    project: linear("conv_pw", "bn2", false),
    ..INVERTED_RESIDUAL
};

/// A convolution with a batch norm, which has the activation where there is one.
const fn linear(name: &'static str, norm: &'static str, act: bool) -> Linear {
    Linear { name, bias: false, norm: Some((norm, EPSILON)), act: if act { Some(norm) } else { None } }
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

impl Network {
    /// The blocks with their names, in order: `blocks.0.0`, `blocks.1.0`, …
    #[must_use]
    pub fn blocks(&self) -> Vec<(String, Block)> {
        let mut dim_in = self.stem;
        let mut blocks = Vec::new();
        for (i, stage) in self.stages.iter().enumerate() {
            for j in 0..stage.depth {
                let stride = if j == 0 { stage.stride } else { 1 };
                let mmb = MetaMobileBlock::inverted_residual(stage.expansion as f64, KERNEL, stride);
                let layout = if stage.expansion == 1 { &SEPARABLE } else { &INVERTED_RESIDUAL };
                let (norm, act) = (Norm::Batch, Act::Relu6);
                let block = Block { mmb, dim_in, dim_out: stage.dim, norm, act, layout };
                blocks.push((format!("blocks.{i}.{j}"), block));
                dim_in = stage.dim;
            }
        }
        blocks
    }

    /// The stem halves the map, and so do some stages.
    pub(super) fn smallest_side(&self) -> usize {
        self.stages.iter().map(|stage| stage.stride).product::<usize>() * 2
    }

    /// `x: [N, 3, H, W]` → `logits: [N, classes]`.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub(super) fn build(&self, b: &mut Builder, x: Value, classes: usize, form: Form) -> Result<Outputs> {
        let stem = Conv { kernel: KERNEL, stride: 2, ..Conv::pointwise(self.stem) };
        let mut x = layer::convolve(b, x, &linear("conv_stem", "bn1", true), stem, Act::Relu6, form)?;
        for (name, block) in self.blocks() {
            x = b.within(&name, |b| block.build(b, x, form))?;
        }
        let features = Conv::pointwise(self.features);
        let x = layer::convolve(b, x, &linear("conv_head", "bn2", true), features, Act::Relu6, form)?;
        let (n, channels, ..) = b.feature_map(x)?;
        let mean = b.within("global_pool", |b| layer::mean(b, x, Pool::GlobalAveragePool, form))?;
        let rows = b.reshape("global_pool.rows", mean, [n, channels.into()])?;
        let logits =
            b.within("classifier", |b| layer::linear(b, rows, &Conv::pointwise(classes).biased()))?;
        Ok(vec![("logits".into(), logits)])
    }
}
