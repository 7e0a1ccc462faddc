//! EMO-1M, 2M, 5M and 6M: a row each.
//!
//! Source of every figure: "Rethinking Mobile Block for Efficient Attention-based
//! Models" (ICCV 2023, arXiv 2301.01146) and its published model definitions.

use emo_proto::Result;

use super::dense::{self, Head, LARGE, SEGMENTED, SMALL};
use super::mmb::{Attention, AttentionLayout, Block, Layout, MetaMobileBlock, Values};
use super::{CLASSES, Definition, Model, Outputs, Paper};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form, Linear, NORM, NORM_EPSILON, Norm, Normed, Pattern};
use crate::profile::Pool;

pub const PAPER: Paper = Paper {
    title: "Rethinking Mobile Block for Efficient Attention-based Models",
    venue: "ICCV 2023",
    url: "https://arxiv.org/abs/2301.01146",
    source: "https://github.com/zhangzjn/EMO",
};

/// A stage of the network; its first block halves the map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    pub depth: usize,
    /// Channels at the stage's output.
    pub dim: usize,
    /// Expansion ratio λ of every block but the first, which doubles it.
    pub expansion: f64,
    /// Side of the depthwise kernel.
    pub kernel: usize,
    pub norm: Norm,
    pub act: Act,
    /// The heads and windows of the blocks after the first, where they attend.
    pub attention: Option<Attention>,
}

/// A network of the family.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Channels of the stem.
    pub stem: usize,
    pub stages: Vec<Stage>,
}

/// Side of an attention window, in tokens.
pub const WINDOW: usize = 7;
/// Side of the stem's depthwise kernel.
pub const STEM_KERNEL: usize = 3;

/// The depthwise convolution of the stem and of the blocks.
pub(super) const LOCAL: Linear = Linear {
    name: "conv_local.conv",
    bias: false,
    norm: Some(("conv_local.norm", NORM_EPSILON)),
    act: Some("conv_local"),
};
pub(super) const PROJECT: Linear = Linear { name: "proj.conv", bias: false, norm: None, act: None };

/// The inverted residual mobile block.
pub const IRMB: Layout = Layout {
    norm: Some(NORM),
    attention: Some(AttentionLayout {
        module: "",
        layer: "qk.conv",
        values: Values::Input,
        patterns: &[Pattern::Strided],
    }),
    expand: Some(Linear { name: "v.conv", bias: true, norm: None, act: Some("v") }),
    local: Some((LOCAL, Act::Silu)),
    project: PROJECT,
    scale: None,
    shortcut: "shortcut",
    matrices: false,
};

/// The published classifiers.
pub(super) fn published() -> [Model; 4] {
    [
        variant("emo-1m", "EMO-1M", [2, 2, 8, 3], [32, 48, 80, 168], [2.0, 2.5, 3.0, 3.5], [16, 16, 20, 21]),
        variant("emo-2m", "EMO-2M", [3, 3, 9, 3], [32, 48, 120, 200], [2.0, 2.5, 3.0, 3.5], [16, 16, 20, 20]),
        variant("emo-5m", "EMO-5M", [3, 3, 9, 3], [48, 72, 160, 288], [2.0, 3.0, 4.0, 4.0], [24, 24, 32, 32]),
        variant("emo-6m", "EMO-6M", [3, 3, 9, 3], [48, 72, 160, 320], [2.0, 3.0, 4.0, 5.0], [16, 24, 20, 32]),
    ]
}

/// The dense models on its backbones: which head, on which variants, the side of the windows, the published sizes.
pub(super) fn dense() -> Vec<Model> {
    let rows = [
        (Head::maps(), 0..4, WINDOW, &[SEGMENTED][..]),
        (Head::Ssdlite, 0..2, WINDOW, &[SMALL]),
        (Head::Ssdlite, 2..3, 10, &[SMALL]),
        (Head::RetinaNet, 0..2, WINDOW, &[LARGE]),
        (Head::RetinaNet, 2..3, 10, &[LARGE]),
        (Head::DeepLabV3, 0..2, WINDOW, &[SEGMENTED]),
        (Head::DeepLabV3, 2..3, 16, &[SEGMENTED]),
        (Head::PspNet, 0..2, WINDOW, &[SEGMENTED]),
        (Head::PspNet, 2..3, 16, &[SEGMENTED]),
        (Head::SemanticFpn, 0..2, WINDOW, &[SEGMENTED]),
        (Head::SemanticFpn, 2..3, 16, &[SEGMENTED]),
    ];
    dense::models(&published(), rows)
}

/// The columns in which the variants differ; the others are common to all four.
fn variant(
    name: &'static str,
    title: &'static str,
    depths: [usize; 4],
    dims: [usize; 4],
    expansions: [f64; 4],
    head_dims: [usize; 4],
) -> Model {
    let stages = stages(depths, dims, expansions, [3, 3, 5, 5], head_dims);
    let network = Network { stem: 24, stages };
    Model { name: name.into(), title: title.into(), classes: CLASSES, definition: Definition::Emo(network) }
}

/// EMO's and EMOv2's published stages: the last two attend, over normalised tokens and with GELU.
pub(super) fn stages(
    depths: [usize; 4],
    dims: [usize; 4],
    expansions: [f64; 4],
    kernels: [usize; 4],
    head_dims: [usize; 4],
) -> Vec<Stage> {
    let stage = |i: usize| {
        let late = i >= 2;
        Stage {
            depth: depths[i],
            dim: dims[i],
            expansion: expansions[i],
            kernel: kernels[i],
            norm: if late { Norm::Layer } else { Norm::Batch },
            act: if late { Act::Gelu } else { Act::Silu },
            attention: late.then_some(Attention { head_dim: head_dims[i], window: Some(WINDOW) }),
        }
    };
    (0..4).map(stage).collect()
}

impl Network {
    /// The blocks of the stages with their names, in order: `stage1.0`, `stage1.1`, …
    #[must_use]
    pub fn blocks(&self) -> Vec<(String, Block)> {
        blocks(self.stem, &self.stages, |_| &IRMB)
    }

    /// `x: [N, 3, H, W]` → `logits: [N, classes]`.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub(super) fn build(&self, b: &mut Builder, x: Value, classes: usize, form: Form) -> Result<Outputs> {
        let x = last(&self.features(b, x, form)?, x);
        Ok(vec![("logits".into(), head(b, x, classes, form)?)])
    }

    /// The maps behind the stem and behind each stage.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub(super) fn features(&self, b: &mut Builder, x: Value, form: Form) -> Result<Vec<Value>> {
        let x = stem(b, x, self.stem, form)?;
        through(b, x, &self.stages, self.blocks(), form)
    }
}

/// The map behind the last stage; the input where there is none.
pub(super) fn last(maps: &[Value], input: Value) -> Value {
    maps.last().copied().unwrap_or(input)
}

/// The map `x` of the stem, and what each stage makes of it.
pub(super) fn through(
    b: &mut Builder,
    mut x: Value,
    stages: &[Stage],
    blocks: Vec<(String, Block)>,
    form: Form,
) -> Result<Vec<Value>> {
    let mut maps = vec![x];
    let mut blocks = blocks.into_iter();
    for stage in stages {
        for (name, block) in blocks.by_ref().take(stage.depth) {
            x = b.within(&name, |b| block.build(b, x, form))?;
        }
        maps.push(x);
    }
    Ok(maps)
}

/// The blocks of EMO's and EMOv2's stages behind a stem of `dim_in` channels; whether a block attends decides its
/// layout. The first of a stage halves the map, expands twice as far and does not attend.
pub(super) fn blocks(
    mut dim_in: usize,
    stages: &[Stage],
    layout: impl Fn(bool) -> &'static Layout,
) -> Vec<(String, Block)> {
    let mut blocks = Vec::new();
    for (i, stage) in stages.iter().enumerate() {
        for j in 0..stage.depth {
            let first = j == 0;
            let (expansion, stride) = if first { (2.0 * stage.expansion, 2) } else { (stage.expansion, 1) };
            let attention = stage.attention.filter(|_| !first);
            let mmb = MetaMobileBlock::irmb(expansion, stage.kernel, stride, attention);
            let (dim_out, norm, act) = (stage.dim, stage.norm, stage.act);
            let block = Block { mmb, dim_in, dim_out, norm, act, layout: layout(attention.is_some()) };
            blocks.push((format!("stage{}.{j}", i + 1), block));
            dim_in = stage.dim;
        }
    }
    blocks
}

/// Gives all stages that attend windows of this side.
pub(super) fn set_window(stages: &mut [Stage], window: usize) {
    for attention in stages.iter_mut().filter_map(|stage| stage.attention.as_mut()) {
        attention.window = Some(window);
    }
}

/// The stem halves the map, and so does every stage.
pub(super) fn smallest_side(stages: &[Stage]) -> usize {
    2 << stages.len()
}

/// A strided convolution with norm, then a depthwise block with squeeze-excite:
/// `[N, 3, H, W]` → `[N, dim, ⌈H/2⌉, ⌈W/2⌉]`.
fn stem(b: &mut Builder, x: Value, dim: usize, form: Form) -> Result<Value> {
    let x = b.within("stage0.0.convs.0", |b| {
        let c = Conv { kernel: 3, stride: 2, ..Conv::pointwise(dim).biased() };
        let x = b.within("0", |b| layer::conv(b, x, &c))?;
        b.within("1", |b| layer::batch_norm(b, x, NORM_EPSILON))
    })?;
    b.within("stage0.1", |b| {
        let c = Conv { kernel: STEM_KERNEL, depthwise: true, ..Conv::pointwise(dim) };
        let x = layer::convolve(b, x, &LOCAL, c, Act::Silu, form)?;
        let x = layer::squeeze_excite(b, x, form)?;
        layer::convolve(b, x, &PROJECT, Conv::pointwise(dim), Act::Silu, form)
    })
}

/// Layer norm, mean over the map, classifier: `[N, C, H, W]` → `[N, classes]`. What the norm left
/// to its readers passes through the mean.
pub(super) fn head(b: &mut Builder, x: Value, classes: usize, form: Form) -> Result<Value> {
    let (n, channels, ..) = b.feature_map(x)?;
    let normed = layer::norm(b, &Normed::first(x), Norm::Layer, NORM, true, form)?;
    let x = match form.pool(Pool::ReduceMean) {
        Pool::ReduceMean | Pool::Published if normed.last => {
            b.reduce_mean("mean", normed.x, &[1, 2], false)?
        }
        Pool::ReduceMean | Pool::Published => b.reduce_mean("mean", normed.x, &[2, 3], false)?,
        Pool::GlobalAveragePool => {
            let map = b.within("norm", |b| normed.channels_first(b))?;
            let mean = layer::mean(b, map, Pool::ReduceMean, form)?;
            b.reshape("mean.rows", mean, [n, channels.into()])?
        }
    };
    b.within("head", |b| {
        let c = Conv { before: normed.affine, ..Conv::pointwise(classes).biased() };
        layer::linear(b, x, &c)
    })
}
