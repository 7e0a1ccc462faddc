//! EMO-1M, 2M, 5M and 6M: a row each.
//!
//! Source of every figure: "Rethinking Mobile Block for Efficient Attention-based
//! Models" (ICCV 2023, arXiv 2301.01146) and its published model definitions.

use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};

use crate::builder::Builder;
use crate::fold;
use crate::graph::{Dim, Graph, Value};
use crate::half;
use crate::layer::{self, Conv, Form};
use crate::models::image;
use crate::models::mmb::{Attention, Block, MetaMobileBlock};
use crate::profile::{Expansion, Opset, PROFILES, Pool, Profile};
use crate::weights::Parameter;

/// Which normalisation stands before a block's expansion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    Batch,
    /// Over the channels of each pixel.
    Layer,
}

/// Which activation follows a block's expansion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Silu,
    Gelu,
}

/// One of the four stages; its first block halves the map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    pub depth: usize,
    /// Channels at the stage's output.
    pub dim: usize,
    /// Expansion ratio λ of every block but the first, which doubles it.
    pub expansion: f64,
    /// Channels of an attention head.
    pub head_dim: usize,
    /// Side of the depthwise kernel.
    pub kernel: usize,
    pub norm: Norm,
    pub act: Act,
    /// Whether the blocks after the first attend.
    pub attention: bool,
}

/// A row of the family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variant {
    /// As the command line spells it: `emo-1m`.
    pub name: &'static str,
    /// As the paper spells it: `EMO-1M`.
    pub title: &'static str,
    /// Channels of the stem.
    pub stem: usize,
    pub stages: [Stage; 4],
}

/// ε of every batch and layer norm.
pub const NORM_EPSILON: f64 = 1e-6;
/// Side of an attention window, in tokens.
pub const WINDOW: usize = 7;
/// Smallest side of an input: the network halves its map five times.
pub const SMALLEST_SIDE: usize = 32;
/// Largest side of an input, far beyond any use and far below what overflows a count.
pub const LARGEST_SIDE: usize = 1 << 14;
/// Most images a run, and most classes, for the same reason.
pub const LARGEST_BATCH: usize = 1 << 16;
pub const MOST_CLASSES: usize = 1 << 20;
/// Side of the stem's depthwise kernel.
pub const STEM_KERNEL: usize = 3;
/// Classes of ImageNet-1K.
pub const CLASSES: usize = 1000;

pub const VARIANTS: [Variant; 4] = [
    variant("emo-1m", "EMO-1M", [2, 2, 8, 3], [32, 48, 80, 168], [2.0, 2.5, 3.0, 3.5], [16, 16, 20, 21]),
    variant("emo-2m", "EMO-2M", [3, 3, 9, 3], [32, 48, 120, 200], [2.0, 2.5, 3.0, 3.5], [16, 16, 20, 20]),
    variant("emo-5m", "EMO-5M", [3, 3, 9, 3], [48, 72, 160, 288], [2.0, 3.0, 4.0, 4.0], [24, 24, 32, 32]),
    variant("emo-6m", "EMO-6M", [3, 3, 9, 3], [48, 72, 160, 320], [2.0, 3.0, 4.0, 5.0], [16, 24, 20, 32]),
];

/// The columns in which the variants differ; the others are common to all four.
const fn variant(
    name: &'static str,
    title: &'static str,
    depths: [usize; 4],
    dims: [usize; 4],
    expansions: [f64; 4],
    head_dims: [usize; 4],
) -> Variant {
    const KERNELS: [usize; 4] = [3, 3, 5, 5];
    let mut stages = [Stage {
        depth: 0,
        dim: 0,
        expansion: 0.0,
        head_dim: 0,
        kernel: 0,
        norm: Norm::Batch,
        act: Act::Silu,
        attention: false,
    }; 4];
    let mut i = 0;
    while i < 4 {
        let late = i >= 2;
        stages[i] = Stage {
            depth: depths[i],
            dim: dims[i],
            expansion: expansions[i],
            head_dim: head_dims[i],
            kernel: KERNELS[i],
            norm: if late { Norm::Layer } else { Norm::Batch },
            act: if late { Act::Gelu } else { Act::Silu },
            attention: late,
        };
        i += 1;
    }
    Variant { name, title, stem: 24, stages }
}

impl Variant {
    /// The row called `name` (`emo-1m`), if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        VARIANTS.iter().find(|v| v.name == name)
    }
}

/// The extent of the batch axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    Fixed(usize),
    /// Known only when the file runs.
    Dynamic,
}

/// What a file is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    pub variant: &'static Variant,
    pub profile: &'static Profile,
    pub opset: &'static Opset,
    /// Height and width of the input, in pixels.
    pub size: (usize, usize),
    pub batch: Batch,
    pub classes: usize,
    /// Of weights and computation: `Float` or `Float16`. Input and output are float32 either way.
    pub dtype: DataType,
    /// Whether the input is an image of bytes, `[N, H, W, 3]` RGB, normalised in the file.
    pub image_input: bool,
}

impl Request {
    /// The published classifier: 224 × 224, batch 1, 1000 classes, float32, the profile's opset.
    #[must_use]
    pub fn new(variant: &'static Variant, profile: &'static Profile) -> Self {
        Self {
            variant,
            profile,
            opset: profile.default_opset(),
            size: (224, 224),
            batch: Batch::Fixed(1),
            classes: CLASSES,
            dtype: DataType::Float,
            image_input: false,
        }
    }
}

impl Variant {
    /// The blocks of the four stages with their names, in order: `stage1.0`, `stage1.1`, …
    #[must_use]
    pub fn blocks(&self) -> Vec<(String, Block)> {
        let mut dim_in = self.stem;
        let mut blocks = Vec::new();
        for (i, stage) in self.stages.iter().enumerate() {
            for j in 0..stage.depth {
                let first = j == 0;
                let (expansion, stride) =
                    if first { (2.0 * stage.expansion, 2) } else { (stage.expansion, 1) };
                let attends = stage.attention && !first;
                let attention =
                    attends.then_some(Attention { head_dim: stage.head_dim, window: Some(WINDOW) });
                let mmb = MetaMobileBlock::irmb(expansion, stage.kernel, stride, attention);
                let block = Block { mmb, dim_in, dim_out: stage.dim, norm: stage.norm, act: stage.act };
                blocks.push((format!("stage{}.{j}", i + 1), block));
                dim_in = stage.dim;
            }
        }
        blocks
    }

    /// The float entries of the published state dict, running statistics included.
    #[must_use]
    pub fn parameters(&'static self, classes: usize) -> Vec<Parameter> {
        let request = Request { classes, ..Request::new(self, &PROFILES[0]) };
        let graph = build(&request).expect("the published size fits every variant");
        let constants = graph.constants().into_iter().map(|v| graph.value(v));
        constants
            .filter(|v| v.is_parameter())
            .map(|v| Parameter {
                name: v.name.clone(),
                shape: v.shape.0.iter().map(|d| d.at_batch_one()).collect(),
            })
            .collect()
    }
}

/// The network: `input: [N, 3, H, W]` → `logits: [N, classes]`.
///
/// # Errors
/// A side, the batch or the number of classes is out of bounds, or the profile does not allow it.
pub fn build(request: &Request) -> Result<Graph> {
    let (height, width) = request.size;
    if [height, width].iter().any(|side| !(SMALLEST_SIDE..=LARGEST_SIDE).contains(side)) {
        return Err(Error::new(format!(
            "expected sides from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels, found {height}x{width}"
        ))
        .at("input size"));
    }
    if !(1..=MOST_CLASSES).contains(&request.classes) {
        let found = request.classes;
        return Err(Error::new(format!("expected 1 to {MOST_CLASSES}, found {found}")).at("classes"));
    }
    if let Batch::Fixed(n) = request.batch
        && !(1..=LARGEST_BATCH).contains(&n)
    {
        return Err(Error::new(format!("expected 1 to {LARGEST_BATCH} images, found {n}")).at("batch"));
    }
    request.profile.accept(request)?;
    let half = request.dtype == DataType::Float16;
    let form = Form { profile: request.profile, opset: request.opset, half };
    let batch = match request.batch {
        Batch::Fixed(n) => Dim::Fixed(n),
        Batch::Dynamic => Dim::Batch(1),
    };
    let mut b = Builder::new(request.variant.name);
    let input = if request.image_input {
        image::input(&mut b, batch, (height, width))?
    } else {
        b.input("input", [batch, 3.into(), height.into(), width.into()], DataType::Float)
    };
    let mut x = stem(&mut b, input, request.variant.stem, form)?;
    for (name, block) in request.variant.blocks() {
        x = b.within(&name, |b| block.build(b, x, form))?;
    }
    let logits = head(&mut b, x, request.classes, form)?;
    b.output(logits, "logits");
    let mut graph = b.finish();
    if form.forms().fold {
        fold::batch_norms(&mut graph);
    }
    if form.forms().merge {
        fold::merge_neighbours(&mut graph);
    }
    if form.forms().expansion == Expansion::Rows {
        fold::expansions_as_rows(&mut graph);
    }
    graph.rewrites.sort_by(|a, b| a.what.cmp(&b.what));
    if request.dtype == DataType::Float16 {
        half::lower(&mut graph, request.profile.float32);
    }
    Ok(graph)
}

/// A strided convolution with norm, then a depthwise block with squeeze-excite:
/// `[N, 3, H, W]` → `[N, dim, ⌈H/2⌉, ⌈W/2⌉]`.
fn stem(b: &mut Builder, x: Value, dim: usize, form: Form) -> Result<Value> {
    let x = b.within("stage0.0.convs.0", |b| {
        let c = Conv { kernel: 3, stride: 2, ..Conv::pointwise(dim).biased() };
        let x = b.within("0", |b| layer::conv(b, x, &c))?;
        b.within("1", |b| layer::batch_norm(b, x))
    })?;
    b.within("stage0.1", |b| {
        let x = layer::conv_local(b, x, STEM_KERNEL, 1, form)?;
        let x = layer::squeeze_excite(b, x, form)?;
        b.within("proj", |b| b.within("conv", |b| layer::conv(b, x, &Conv::pointwise(dim))))
    })
}

/// Layer norm, mean over the map, classifier: `[N, C, H, W]` → `[N, classes]`. What the norm left
/// to its readers passes through the mean.
fn head(b: &mut Builder, x: Value, classes: usize, form: Form) -> Result<Value> {
    let (n, channels, ..) = b.feature_map(x)?;
    let normed = layer::norm(b, x, Norm::Layer, true, form)?;
    let x = match form.forms().pool {
        Pool::ReduceMean if normed.last => b.reduce_mean("mean", normed.x, &[1, 2], false)?,
        Pool::ReduceMean => b.reduce_mean("mean", normed.x, &[2, 3], false)?,
        Pool::GlobalAveragePool => {
            let map = b.within("norm", |b| normed.channels_first(b))?;
            let mean = layer::mean(b, map, form)?;
            b.reshape("mean.rows", mean, [n, channels.into()])?
        }
    };
    b.within("head", |b| {
        let c = Conv { before: normed.affine, ..Conv::pointwise(classes).biased() };
        layer::linear(b, x, &c)
    })
}
