//! EMO's forward pass in f64, written from the paper: the witness that shares nothing with the exporter
//! but the variant's row and the weights' names.
//!
//! Two engines that run the same wrong graph agree with each other; they do not agree with this module. It
//! therefore favours the published formulas over speed and over sharing, and a block can be run alone, on any
//! input, to find where a candidate starts to differ.
//!
//! Source: "Rethinking Mobile Block for Efficient Attention-based Models" (ICCV 2023, arXiv 2301.01146),
//! sections 3.2 and 3.3, and its published model definitions.

mod mistake;
mod ops;
mod scope;

use emo_exporter::layer::{Act, Norm as NormKind};
use emo_exporter::models::emo::Stage;
use emo_exporter::models::{Definition, Model};
use emo_exporter::weights::Weights;
use emo_proto::Result;
use ndarray::{Array2, Array4, ArrayRef4, ArrayView4, Axis};

pub use mistake::Mistake;
use mistake::epsilon;
use ops::{Activation, BatchNorm, Convolution, LayerNorm, Pointwise, SqueezeExcite, WindowAttention};
use scope::Scope;

/// A variant with its weights, ready to run.
pub struct Reference {
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Pointwise,
    /// The smallest side of an input, in pixels.
    smallest_side: usize,
}

impl Reference {
    /// The network of `model` with the published names' `weights`, widened to f64. The number of classes is
    /// the length of `head.bias`.
    ///
    /// # Errors
    ///
    /// A weight is missing or has another shape than the model's; the error carries its name.
    pub fn new(model: &Model, weights: &Weights) -> Result<Self> {
        let root = Scope::root(weights);
        let Definition::Emo(network) = &model.definition else { unimplemented!("another family") };
        let stem = NormedConvolution::stem(&root.at("stage0.0"), network.stem)?;
        let mobile = MobileBlock::stem(&root.at("stage0.1"), network.stem)?;
        let mut blocks =
            vec![Block::new(0, 0, 2, Kind::Stem(Box::new(stem))), Block::new(0, 1, 2, Kind::Mobile(mobile))];
        let mut channels = network.stem;
        for (stage, row) in (1..).zip(&network.stages) {
            for index in 0..row.depth {
                let scope = root.at(&format!("stage{stage}.{index}"));
                let block = MobileBlock::of_stage(&scope, row, index, channels)?;
                blocks.push(Block::new(stage, index, row.depth, Kind::Mobile(block)));
                channels = row.dim;
            }
        }
        Ok(Self {
            blocks,
            norm: LayerNorm::load(&root.at("norm.norm"), channels)?,
            head: Pointwise::linear(&root.at("head"), channels)?,
            smallest_side: model.smallest_side(),
        })
    }

    /// The blocks from the input on, each of which takes the map that the one before it gave.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Logits [N, classes] of an `input` [N, 3, H, W].
    ///
    /// # Panics
    ///
    /// If `input` has not 3 channels or a side is below the model's smallest.
    #[must_use]
    pub fn forward(&self, input: Array4<f64>) -> Array2<f64> {
        self.forward_with(input, |_, _| ())
    }

    /// As [`Self::forward`], and shows every block's output [N, C, H, W] to `on_block` before it is dropped.
    ///
    /// # Panics
    ///
    /// As [`Self::forward`].
    pub fn forward_with(
        &self,
        input: Array4<f64>,
        mut on_block: impl FnMut(&Block, &Array4<f64>),
    ) -> Array2<f64> {
        require(&input, self.smallest_side);
        let mut map = input;
        for block in &self.blocks {
            map = block.forward(&map);
            on_block(block, &map);
        }
        self.head(map)
    }

    /// The logits of an `input` [N, 3, H, W], one image's after the other's, with a mistake in all that can make it.
    /// Image by image: none depends on another, and the maps of one are large enough.
    ///
    /// # Panics
    ///
    /// As [`Self::forward`].
    #[must_use]
    pub fn logits(&self, input: &Array4<f64>, mistake: Option<Mistake>) -> Vec<f64> {
        require(input, self.smallest_side);
        let logits = |image: ArrayView4<f64>| {
            let blocks = self.blocks.iter();
            self.head_with(
                blocks.fold(image.to_owned(), |map, block| block.forward_with(&map, mistake)),
                mistake,
            )
        };
        input.axis_chunks_iter(Axis(0), 1).flat_map(logits).collect()
    }

    /// How much of an error means over the pixels of a map explain, as a share of the largest logit: what the
    /// `logits` of `input` change by when these means are summed in f32. Where a map is flat, as that of a white
    /// picture is, thousands of roundings go the same way, and one more operator rounds than a tolerance counts.
    ///
    /// # Panics
    ///
    /// As [`Self::forward`].
    #[must_use]
    pub fn single_sums(&self, input: &Array4<f64>, logits: &[f64]) -> f64 {
        let rounded = self.logits(input, Some(Mistake::SingleSums)).into_iter();
        let change = rounded.zip(logits).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
        let peak = logits.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        if peak > 0.0 { change / peak } else { 0.0 }
    }

    /// Logits [N, classes] of the last block's `map` [N, C, H, W]: norm, mean over the pixels, classifier.
    #[must_use]
    pub fn head(&self, map: Array4<f64>) -> Array2<f64> {
        self.head_with(map, None)
    }

    /// As [`Self::head`], with a mistake.
    #[must_use]
    pub fn head_with(&self, mut map: Array4<f64>, mistake: Option<Mistake>) -> Array2<f64> {
        self.norm.apply(&mut map, epsilon(mistake));
        let logits = self.head.forward(&ops::mean_over_pixels(&map, mistake));
        logits.remove_axis(Axis(3)).remove_axis(Axis(2))
    }
}

fn require(input: &Array4<f64>, smallest: usize) {
    let (_, channels, height, width) = input.dim();
    assert!(
        channels == 3 && height.min(width) >= smallest,
        "expected an input of 3 channels and sides from {smallest} up, found {:?}",
        input.shape()
    );
}

/// One of [`Reference::blocks`].
pub struct Block {
    name: String,
    stage: usize,
    last: bool,
    kind: Kind,
}

enum Kind {
    Stem(Box<NormedConvolution>),
    Mobile(Box<MobileBlock>),
}

impl Block {
    /// Block `index` of the `depth` blocks of a stage.
    fn new(stage: usize, index: usize, depth: usize, kind: Kind) -> Self {
        Self { name: format!("stage{stage}.{index}"), stage, last: index + 1 == depth, kind }
    }

    /// The published module path: `stage3.4`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 0 for the stem, 1 to 4 for the stages.
    #[must_use]
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// Whether this block's output is its stage's.
    #[must_use]
    pub fn is_last_of_stage(&self) -> bool {
        self.last
    }

    /// The block's output [N, D, H', W'] for its input `x` [N, C, H, W].
    ///
    /// # Panics
    ///
    /// If `x` has not the block's channels.
    #[must_use]
    pub fn forward(&self, x: &ArrayRef4<f64>) -> Array4<f64> {
        self.forward_with(x, None)
    }

    /// As [`Self::forward`], with a mistake; one in a part that the block has not got changes nothing.
    ///
    /// # Panics
    ///
    /// As [`Self::forward`].
    #[must_use]
    pub fn forward_with(&self, x: &ArrayRef4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let x = x.as_standard_layout();
        match &self.kind {
            Kind::Stem(stem) => stem.forward(&x, mistake),
            Kind::Mobile(block) => block.forward(&x, mistake),
        }
    }

    /// Whether the block has the part that a mistake is in.
    #[must_use]
    pub fn can_make(&self, mistake: Mistake) -> bool {
        use Mistake::*;
        let Kind::Mobile(block) = &self.kind else { return matches!(mistake, Epsilon(_)) };
        let gelu = matches!(block.expand, Some((_, Activation::Gelu)));
        match mistake {
            Epsilon(_) => !matches!(block.norm, Norm::None),
            TanhGelu | SigmoidGelu => gelu,
            BareValue => block.expand.is_some(),
            BareLocal => true,
            NoGate => block.excite.is_some(),
            NoSkip | NoShortcut => block.skip,
            SingleSums => false,
            Tiles | NoScale | ExchangedQueriesKeys | MaskedPadding | LatePadding | NoAttention => {
                block.attention.is_some()
            }
        }
    }

    /// The block's input `x` [N, C, H, W] behind the norm that the block begins with.
    #[must_use]
    pub fn normed(&self, x: &ArrayRef4<f64>) -> Array4<f64> {
        let mut y = x.as_standard_layout().into_owned();
        if let Kind::Mobile(block) = &self.kind {
            block.norm.apply(&mut y, None);
        }
        y
    }
}

/// A spatial convolution and its batch norm.
struct NormedConvolution {
    convolution: Convolution,
    norm: BatchNorm,
}

impl NormedConvolution {
    /// `stage0.0`: a biased 3×3 convolution of stride 2 from the image's three channels, without activation.
    fn stem(scope: &Scope, channels: usize) -> Result<Self> {
        Ok(Self {
            convolution: Convolution::full(&scope.at("convs.0.0"), 3, channels, 3, 2)?,
            norm: BatchNorm::load(&scope.at("convs.0.1"), channels)?,
        })
    }

    fn depthwise(scope: &Scope, channels: usize, kernel: usize, stride: usize) -> Result<Self> {
        Ok(Self {
            convolution: Convolution::depthwise(&scope.at("conv"), channels, kernel, stride)?,
            norm: BatchNorm::load(&scope.at("norm"), channels)?,
        })
    }

    fn forward(&self, x: &ArrayRef4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let mut y = self.convolution.forward(x);
        self.norm.apply(&mut y, epsilon(mistake));
        y
    }
}

/// The inverted residual mobile block (iRMB) in the steps of its definition; a step that a block lacks is `None`.
struct MobileBlock {
    norm: Norm,
    attention: Option<WindowAttention>,
    expand: Option<(Pointwise, Activation)>,
    /// Depthwise; SiLU follows.
    local: NormedConvolution,
    excite: Option<SqueezeExcite>,
    project: Pointwise,
    /// Whether the depthwise convolution and the block have their shortcuts.
    skip: bool,
}

enum Norm {
    None,
    Batch(BatchNorm),
    Layer(LayerNorm),
}

impl Norm {
    fn apply(&self, map: &mut Array4<f64>, mistake: Option<Mistake>) {
        match self {
            Norm::None => (),
            Norm::Batch(norm) => norm.apply(map, epsilon(mistake)),
            Norm::Layer(norm) => norm.apply(map, epsilon(mistake)),
        }
    }
}

impl MobileBlock {
    /// `stage0.1`: no norm, no expansion, no shortcut, but a squeeze-excite.
    fn stem(scope: &Scope, channels: usize) -> Result<Box<Self>> {
        Ok(Box::new(Self {
            norm: Norm::None,
            attention: None,
            expand: None,
            local: NormedConvolution::depthwise(&scope.at("conv_local"), channels, 3, 1)?,
            excite: Some(SqueezeExcite::load(&scope.at("se"), channels)?),
            project: Pointwise::unbiased(&scope.at("proj.conv"), channels, channels)?,
            skip: false,
        }))
    }

    /// Block `index` of a stage, for maps of `channels`.
    fn of_stage(scope: &Scope, row: &Stage, index: usize, channels: usize) -> Result<Box<Self>> {
        let first = index == 0;
        let expansion = if first { 2.0 * row.expansion } else { row.expansion };
        // The definition truncates: int(dim_in * exp_ratio).
        let expanded = (channels as f64 * expansion) as usize;
        let stride = if first { 2 } else { 1 };
        Ok(Box::new(Self {
            norm: match row.norm {
                NormKind::Batch => Norm::Batch(BatchNorm::load(&scope.at("norm"), channels)?),
                NormKind::Layer => Norm::Layer(LayerNorm::load(&scope.at("norm.norm"), channels)?),
            },
            attention: match row.attention.filter(|_| !first) {
                Some(row) => Some(WindowAttention::load(&scope.at("qk.conv"), channels, row)?),
                None => None,
            },
            expand: Some((
                Pointwise::biased(&scope.at("v.conv"), channels, expanded)?,
                match row.act {
                    Act::Silu => Activation::Silu,
                    Act::Gelu => Activation::Gelu,
                },
            )),
            local: NormedConvolution::depthwise(&scope.at("conv_local"), expanded, row.kernel, stride)?,
            excite: None,
            project: Pointwise::unbiased(&scope.at("proj.conv"), expanded, row.dim)?,
            skip: channels == row.dim && stride == 1,
        }))
    }

    fn forward(&self, x: &ArrayRef4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let lacks = |part: Mistake| mistake == Some(part);
        let mut y = x.to_owned();
        self.norm.apply(&mut y, mistake);
        if let Some(attention) = self.attention.as_ref().filter(|_| !lacks(Mistake::NoAttention)) {
            y = attention.forward(&y, mistake);
        }
        // The value projection follows the attention (the definition's attn_pre), and with it its activation.
        if let Some((value, activation)) = &self.expand {
            y = value.forward(&y);
            match activation {
                _ if lacks(Mistake::BareValue) => (),
                Activation::Gelu if lacks(Mistake::TanhGelu) => Activation::TanhGelu.apply(&mut y),
                Activation::Gelu if lacks(Mistake::SigmoidGelu) => Activation::SigmoidGelu.apply(&mut y),
                activation => activation.apply(&mut y),
            }
        }
        // Another ε is that of the norm before the block; this one's is folded as a rule.
        let mut local = self.local.forward(&y, None);
        if !lacks(Mistake::BareLocal) {
            Activation::Silu.apply(&mut local);
        }
        if let Some(excite) = self.excite.as_ref().filter(|_| !lacks(Mistake::NoGate)) {
            excite.apply(&mut local, mistake);
        }
        if self.skip && !lacks(Mistake::NoSkip) {
            local += &y;
        }
        drop(y);
        let mut y = self.project.forward(&local);
        if self.skip && !lacks(Mistake::NoShortcut) {
            *y += x;
        }
        y
    }
}
