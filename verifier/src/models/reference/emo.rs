//! EMO.
//!
//! Source: "Rethinking Mobile Block for Efficient Attention-based Models" (ICCV 2023, arXiv 2301.01146),
//! sections 3.2 and 3.3, and its published model definitions.

use emo_exporter::layer::NORM_EPSILON;
use emo_exporter::models::emo::{Network, Stage};
use emo_proto::Result;
use ndarray::{Array4, ArrayRef4};

use super::attention::{Pattern, WindowAttention};
use super::classifier::Classifier;
use super::convolution::{Convolution, NormedConvolution};
use super::ops::{Activation, BatchNorm, LayerNorm, Norm, Pointwise, mean_over_pixels, planes, sigmoid};
use super::scope::Scope;
use super::{Block, Map, Mistake, OfImage, Part, Parts};

pub fn load(network: &Network, root: &Scope) -> Result<Parts> {
    let channels = network.stages.last().map_or(network.stem, |stage| stage.dim);
    Ok(Parts::classifier(backbone(network, root)?, classifier(root, channels)?))
}

/// The stem and the stages.
pub fn backbone(network: &Network, root: &Scope) -> Result<Vec<Block>> {
    let stem = Stem(NormedConvolution {
        convolution: Convolution::full(&root.at("stage0.0.convs.0.0"), 3, network.stem, 3, 2)?
            .biased(&root.at("stage0.0.convs.0.0"))?,
        norm: BatchNorm::load(&root.at("stage0.0.convs.0.1"), network.stem, NORM_EPSILON)?,
    });
    let mobile = MobileBlock::stem(&root.at("stage0.1"), network.stem)?;
    let mut blocks =
        vec![Block::new("stage0.0", OfImage(stem)), Block::new("stage0.1", mobile).ending("stage0")];
    for place in places(&network.stages, network.stem) {
        blocks.push(place.block(MobileBlock::of_stage(&root.at(&place.name), &place)?));
    }
    Ok(blocks)
}

/// Layer norm, mean, linear.
pub fn classifier(root: &Scope, channels: usize) -> Result<Classifier> {
    Ok(Classifier {
        norm: Norm::Layer(LayerNorm::load(&root.at("norm.norm"), channels, NORM_EPSILON)?),
        linear: Pointwise::classifier(&root.at("head"), channels)?,
    })
}

/// A block's place in a network.
pub struct Place<'a> {
    /// `stage3.4`
    pub name: String,
    /// The stage's name, if the block is its last.
    ends: Option<String>,
    pub row: &'a Stage,
    /// Whether it is its stage's first.
    pub first: bool,
    /// Of its input.
    pub channels: usize,
    /// Between expansion and projection.
    pub expanded: usize,
    pub stride: usize,
}

impl Place<'_> {
    /// Whether the depthwise convolution and the block have their shortcuts.
    pub fn skip(&self) -> bool {
        self.channels == self.row.dim && self.stride == 1
    }

    pub fn block(&self, part: impl Part + 'static) -> Block {
        let block = Block::new(&self.name, part);
        match &self.ends {
            Some(stage) => block.ending(stage),
            None => block,
        }
    }
}

/// Where the blocks of the stages behind a stem of `channels` stand. The first of a stage halves the map and expands
/// by twice the stage's ratio.
pub fn places(stages: &[Stage], mut channels: usize) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for (stage, row) in (1..).zip(stages) {
        for index in 0..row.depth {
            let first = index == 0;
            let expansion = if first { 2.0 * row.expansion } else { row.expansion };
            places.push(Place {
                name: format!("stage{stage}.{index}"),
                ends: (index + 1 == row.depth).then(|| format!("stage{stage}")),
                row,
                first,
                channels,
                // The definition truncates: int(dim_in * exp_ratio).
                expanded: (channels as f64 * expansion) as usize,
                stride: if first { 2 } else { 1 },
            });
            channels = row.dim;
        }
    }
    places
}

/// `stage0.0`: a biased 3×3 convolution of stride 2 from the image's three channels, without activation.
struct Stem(NormedConvolution);

impl Part for Stem {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        self.0.forward(&planes(x), mistake).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        mistake.is_of_norm(NORM_EPSILON)
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

impl MobileBlock {
    /// `stage0.1`: no norm, no expansion, no shortcut, but a squeeze-excite.
    fn stem(scope: &Scope, channels: usize) -> Result<Self> {
        Ok(Self {
            norm: Norm::None,
            attention: None,
            expand: None,
            local: NormedConvolution::depthwise(&scope.at("conv_local"), channels, 3, 1, NORM_EPSILON)?,
            excite: Some(SqueezeExcite::load(&scope.at("se"), channels)?),
            project: Pointwise::unbiased(&scope.at("proj.conv"), channels, channels)?,
            skip: false,
        })
    }

    fn of_stage(scope: &Scope, place: &Place) -> Result<Self> {
        let Place { row, first, channels, expanded, stride, .. } = *place;
        let local = &scope.at("conv_local");
        Ok(Self {
            norm: Norm::load(&scope.at("norm"), row.norm, channels, NORM_EPSILON)?,
            attention: match row.attention.filter(|_| !first) {
                Some(row) => Some(WindowAttention::load(&scope.at("qk.conv"), channels, row)?),
                None => None,
            },
            expand: Some((
                Pointwise::biased(&scope.at("v.conv"), channels, expanded)?,
                Activation::of(row.act),
            )),
            local: NormedConvolution::depthwise(local, expanded, row.kernel, stride, NORM_EPSILON)?,
            excite: None,
            project: Pointwise::unbiased(&scope.at("proj.conv"), expanded, row.dim)?,
            skip: place.skip(),
        })
    }

    fn expand(&self, x: &ArrayRef4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let Some((value, activation)) = &self.expand else { return x.to_owned() };
        let mut y = value.forward(x);
        if mistake != Some(Mistake::BareValue) {
            activation.apply(&mut y, mistake);
        }
        y
    }
}

impl Part for MobileBlock {
    fn forward(&self, input: &Map, mistake: Option<Mistake>) -> Map {
        let lacks = |part: Mistake| mistake == Some(part);
        let x = planes(input);
        let mut y = x.to_owned();
        self.norm.apply(&mut y, mistake);
        // The value projection follows the attention (the definition's attn_pre), and with it its activation.
        y = match self.attention.as_ref().filter(|_| !lacks(Mistake::NoAttention)) {
            Some(attention) => {
                let pattern = if lacks(Mistake::Tiles) { Pattern::Tiled } else { Pattern::Strided };
                if lacks(Mistake::ValueBeforeAttention) {
                    let [y] = attention.forward(&y, [pattern], |x| self.expand(x, mistake), mistake);
                    y
                } else {
                    let [y] = attention.forward(&y, [pattern], Array4::clone, mistake);
                    self.expand(&y, mistake)
                }
            }
            None => self.expand(&y, mistake),
        };
        // Another ε is that of the norm before the block; this one's is folded as a rule.
        let mut local = self.local.forward(&y, None);
        if !lacks(Mistake::BareLocal) {
            Activation::Silu.apply(&mut local, mistake);
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
            y += &x;
        }
        y.into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        use Mistake::*;
        match mistake {
            Epsilon(_) => mistake.is_of_norm(NORM_EPSILON) && !matches!(self.norm, Norm::None),
            BareValue => self.expand.is_some(),
            BareLocal => true,
            NoGate => self.excite.is_some(),
            NoSkip | NoShortcut => self.skip,
            Tiles | NoScale | ExchangedQueriesKeys | MaskedPadding | LatePadding | ValueBeforeAttention
            | NoAttention => self.attention.is_some(),
            other => self.expand.as_ref().is_some_and(|(_, activation)| activation.can_make(other)),
        }
    }

    fn normed(&self, x: &Map) -> Map {
        let mut y = planes(x).into_owned();
        self.norm.apply(&mut y, None);
        y.into_dyn()
    }
}

/// Each channel times a gate: σ(expand(SiLU(reduce(mean over the pixels)))).
struct SqueezeExcite {
    reduce: Pointwise,
    expand: Pointwise,
}

impl SqueezeExcite {
    fn load(scope: &Scope, channels: usize) -> Result<Self> {
        Ok(Self {
            reduce: Pointwise::biased(&scope.at("conv_reduce"), channels, channels)?,
            expand: Pointwise::biased(&scope.at("conv_expand"), channels, channels)?,
        })
    }

    fn apply(&self, map: &mut Array4<f64>, mistake: Option<Mistake>) {
        let mut gate = self.reduce.forward(&mean_over_pixels(map, mistake));
        Activation::Silu.apply(&mut gate, None);
        gate = self.expand.forward(&gate);
        gate.mapv_inplace(sigmoid);
        *map *= &gate;
    }
}
