//! The layers of the heads, one behind the other, and maps that are joined.

use std::sync::Arc;

use emo_proto::Result;
use ndarray::{Array4, ArrayRef4, Axis, concatenate};

use crate::models::reference::Mistake;
use crate::models::reference::convolution::Convolution;
use crate::models::reference::ops::{Activation, BatchNorm, planes};
use crate::models::reference::parts::{Junction, Map, Part};
use crate::models::reference::scope::Scope;

/// The norm's ε and the activation of a head's layers.
#[derive(Clone, Copy)]
pub struct Style {
    pub epsilon: f64,
    pub activation: Activation,
}

/// Of mmsegmentation's heads.
pub const SEGMENTER: Style = Style { epsilon: 1e-5, activation: Activation::Relu };

/// A convolution, a batch norm if it has one, an activation if it has one.
pub struct Layer {
    convolution: Convolution,
    norm: Option<(BatchNorm, f64)>,
    activation: Option<Activation>,
}

impl Layer {
    /// A biased convolution of as many outputs as its bias is long, alone.
    pub fn plain(scope: &Scope, inputs: usize, kernel: usize) -> Result<Self> {
        let outputs = scope.dims("bias")?.iter().product();
        let convolution = Convolution::full(scope, inputs, outputs, kernel, 1)?.biased(scope)?;
        Ok(Self { convolution, norm: None, activation: None })
    }

    /// `conv` with a bias.
    pub fn biased(
        scope: &Scope,
        [inputs, outputs]: [usize; 2],
        [kernel, stride]: [usize; 2],
        activation: Option<Activation>,
    ) -> Result<Self> {
        let scope = scope.at("conv");
        let convolution = Convolution::full(&scope, inputs, outputs, kernel, stride)?.biased(&scope)?;
        Ok(Self { convolution, norm: None, activation })
    }

    /// `conv` without bias, `bn`, an activation.
    pub fn normed(
        scope: &Scope,
        [inputs, outputs]: [usize; 2],
        [kernel, dilation]: [usize; 2],
        style: Style,
    ) -> Result<Self> {
        let convolution = Convolution::full(&scope.at("conv"), inputs, outputs, kernel, 1)?.dilated(dilation);
        Self::with_norm(scope, convolution, outputs, style)
    }

    /// The same of which every output sees the one input of its number, through 3 × 3 taps.
    pub fn depthwise(scope: &Scope, channels: usize, stride: usize, style: Style) -> Result<Self> {
        let convolution = Convolution::depthwise(&scope.at("conv"), channels, 3, stride)?;
        Self::with_norm(scope, convolution, channels, style)
    }

    fn with_norm(scope: &Scope, convolution: Convolution, channels: usize, style: Style) -> Result<Self> {
        let norm = BatchNorm::load(&scope.at("bn"), channels, style.epsilon)?;
        Ok(Self { convolution, norm: Some((norm, style.epsilon)), activation: Some(style.activation) })
    }

    pub fn apply(&self, x: &ArrayRef4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let mut y = self.convolution.forward_with(x, mistake);
        if let Some((norm, _)) = &self.norm {
            norm.apply(&mut y, mistake);
        }
        if let Some(activation) = self.activation {
            activation.apply(&mut y, mistake);
        }
        y
    }

    pub fn can_make(&self, mistake: Mistake) -> bool {
        self.convolution.can_make(mistake)
            || self.norm.as_ref().is_some_and(|(_, epsilon)| mistake.is_of_norm(*epsilon))
            || self.activation.is_some_and(|activation| activation.can_make(mistake))
    }
}

impl Part for Layer {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        self.apply(&planes(x), mistake).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        self.can_make(mistake)
    }
}

/// Layers one behind the other.
pub struct Sequence(pub Vec<Layer>);

impl Part for Sequence {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        self.0.iter().fold(planes(x).into_owned(), |x, layer| layer.apply(&x, mistake)).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        self.0.iter().any(|layer| layer.can_make(mistake))
    }
}

/// A part whose weights several levels share.
impl<P: Part> Part for Arc<P> {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        P::forward(self, x, mistake)
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        P::can_make(self, mistake)
    }
}

/// A layer of the channels of all maps, one map's behind the other's.
pub struct Joined(pub Layer);

impl Junction for Joined {
    fn forward(&self, maps: &[&Map], mistake: Option<Mistake>) -> Map {
        let mut maps: Vec<_> = maps.iter().map(|map| map.view()).collect();
        match mistake {
            Some(Mistake::ReversedLevels) => maps.reverse(),
            Some(Mistake::FirstLast) => maps.rotate_left(1),
            _ => {}
        }
        let joined = concatenate(Axis(1), &maps).expect("maps of one size");
        self.0.apply(&planes(&joined), mistake).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        matches!(mistake, Mistake::ReversedLevels | Mistake::FirstLast) || self.0.can_make(mistake)
    }
}

/// Height and width of a map.
pub fn size(map: &Map) -> [usize; 2] {
    let (.., height, width) = planes(map).dim();
    [height, width]
}
