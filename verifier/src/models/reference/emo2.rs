//! EMOv2.
//!
//! Source: "EMOv2: Pushing 5M Vision Model Frontier" (TPAMI 2025, arXiv 2412.06674) and its published model
//! definitions.

use emo_exporter::layer::NORM_EPSILON;
use emo_exporter::models::emo2::Network;
use emo_proto::Result;
use ndarray::{Array4, ArrayRef4, Axis};

use super::attention::{Pattern, WindowAttention};
use super::convolution::{Convolution, NormedConvolution};
use super::emo::{self, Place};
use super::ops::{Activation, BatchNorm, Norm, Pointwise, planes};
use super::scope::Scope;
use super::{Block, Map, Mistake, OfImage, Part, Parts};

pub fn load(network: &Network, root: &Scope) -> Result<Parts> {
    let channels = network.stages.last().map_or(network.stem, |stage| stage.dim);
    Ok(Parts::classifier(backbone(network, root)?, emo::classifier(root, channels)?))
}

/// The stem and the stages.
pub fn backbone(network: &Network, root: &Scope) -> Result<Vec<Block>> {
    let scope = root.at("stage0.0");
    let stem = NormedConvolution {
        convolution: Convolution::full(&scope.at("conv"), 3, network.stem, 3, 2)?
            .biased(&scope.at("conv"))?,
        norm: BatchNorm::load(&scope.at("norm"), network.stem, NORM_EPSILON)?,
    };
    let local = NormedConvolution::depthwise(&root.at("stage0.1"), network.stem, 3, 1, NORM_EPSILON)?;
    let project = Pointwise::unbiased(&root.at("stage0.2.conv"), network.stem, network.stem)?;
    let mut blocks = vec![
        Block::new("stage0.0", OfImage(StemConvolution(stem))),
        Block::new("stage0.1", StemConvolution(local)),
        Block::new("stage0.2", StemProjection(project)).ending("stage0"),
    ];
    for place in emo::places(&network.stages, network.stem) {
        blocks.push(place.block(MobileBlock::load(&root.at(&place.name), &place)?));
    }
    Ok(blocks)
}

/// A convolution of the stem with its batch norm and SiLU.
struct StemConvolution(NormedConvolution);

impl Part for StemConvolution {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        let mut y = self.0.forward(&planes(x), mistake);
        if mistake != Some(Mistake::BareLocal) {
            Activation::Silu.apply(&mut y, mistake);
        }
        y.into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        mistake == Mistake::BareLocal || mistake.is_of_norm(NORM_EPSILON)
    }
}

/// The stem's last, pointwise convolution: no bias, no norm, no activation.
struct StemProjection(Pointwise);

impl Part for StemProjection {
    fn forward(&self, x: &Map, _: Option<Mistake>) -> Map {
        self.0.forward(&planes(x)).into_dyn()
    }

    fn can_make(&self, _: Mistake) -> bool {
        false
    }
}

/// The improved inverted residual mobile block (i²RMB).
struct MobileBlock {
    norm: Norm,
    /// Spanning attention: one set of queries, keys and values in both patterns of windows.
    attention: Option<WindowAttention>,
    value: Pointwise,
    activation: Activation,
    /// Depthwise; SiLU follows.
    local: NormedConvolution,
    project: Pointwise,
    /// `LayerScale`, a factor for each channel.
    scale: Array4<f64>,
    /// Whether the depthwise convolution and the block have their shortcuts.
    skip: bool,
}

impl MobileBlock {
    fn load(scope: &Scope, place: &Place) -> Result<Self> {
        let Place { row, first, channels, expanded, stride, .. } = *place;
        let operator = scope.at("eops.0");
        let attention = row.attention.filter(|_| !first);
        let value = operator.at(if attention.is_some() { "v.conv" } else { "net.conv" });
        let local = &scope.at("conv_local");
        let gamma = [1, row.dim, 1, 1];
        let scale = scope.at("ls").get("gamma", &gamma)?;
        Ok(Self {
            norm: Norm::load(&scope.at("norm"), row.norm, channels, NORM_EPSILON)?,
            attention: match attention {
                Some(row) => Some(WindowAttention::load(&operator.at("qk.conv"), channels, row)?),
                None => None,
            },
            value: Pointwise::biased(&value, channels, expanded)?,
            activation: Activation::of(row.act),
            local: NormedConvolution::depthwise(local, expanded, row.kernel, stride, NORM_EPSILON)?,
            project: Pointwise::unbiased(&scope.at("proj.conv"), expanded, row.dim)?,
            scale: Array4::from_shape_vec(gamma, scale).expect("a factor for each channel"),
            skip: place.skip(),
        })
    }

    fn expand(&self, x: &ArrayRef4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let mut y = self.value.forward(x);
        if mistake != Some(Mistake::BareValue) {
            self.activation.apply(&mut y, mistake);
        }
        y
    }

    /// The values of both patterns of windows, summed.
    fn span(&self, attention: &WindowAttention, x: &Array4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let patterns = [Pattern::Strided, Pattern::Tiled];
        if mistake == Some(Mistake::ValueAfterAttention) {
            let [remote, close] = attention.forward(x, patterns, Array4::clone, mistake);
            return self.expand(&(remote + close), mistake);
        }
        let [remote, close] = attention.forward(x, patterns, |x| self.expand(x, mistake), mistake);
        match mistake {
            Some(Mistake::RemoteOnly) => remote,
            Some(Mistake::CloseOnly) => close,
            Some(Mistake::Concatenated { close_first: false }) => halves(remote, &close),
            Some(Mistake::Concatenated { close_first: true }) => halves(close, &remote),
            _ => remote + close,
        }
    }
}

/// The first half of the channels of one map, the second half of another's.
fn halves(mut first: Array4<f64>, second: &Array4<f64>) -> Array4<f64> {
    let half = first.dim().1 / 2;
    first.view_mut().split_at(Axis(1), half).1.assign(&second.view().split_at(Axis(1), half).1);
    first
}

impl Part for MobileBlock {
    fn forward(&self, input: &Map, mistake: Option<Mistake>) -> Map {
        let lacks = |part: Mistake| mistake == Some(part);
        let x = planes(input);
        let mut y = x.to_owned();
        self.norm.apply(&mut y, mistake);
        y = match self.attention.as_ref().filter(|_| !lacks(Mistake::NoAttention)) {
            Some(attention) => self.span(attention, &y, mistake),
            None => self.expand(&y, mistake),
        };
        // Another ε is that of the norm before the block; this one's is folded as a rule.
        let mut local = self.local.forward(&y, None);
        if !lacks(Mistake::BareLocal) {
            Activation::Silu.apply(&mut local, mistake);
        }
        if self.skip && !lacks(Mistake::NoSkip) {
            local += &y;
        }
        drop(y);
        let mut y = self.project.forward(&local);
        if !lacks(Mistake::NoLayerScale) {
            y *= &self.scale;
        }
        if self.skip && !lacks(Mistake::NoShortcut) {
            y += &x;
        }
        y.into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        use Mistake::*;
        match mistake {
            Epsilon(_) => mistake.is_of_norm(NORM_EPSILON),
            BareValue | BareLocal | NoLayerScale => true,
            NoSkip | NoShortcut => self.skip,
            CloseOnly
            | RemoteOnly
            | Concatenated { .. }
            | NoScale
            | ExchangedQueriesKeys
            | MaskedPadding
            | LatePadding
            | ZeroPaddedValues
            | ValueAfterAttention
            | NoAttention => self.attention.is_some(),
            other => self.activation.can_make(other),
        }
    }

    fn normed(&self, x: &Map) -> Map {
        let mut y = planes(x).into_owned();
        self.norm.apply(&mut y, None);
        y.into_dyn()
    }
}
