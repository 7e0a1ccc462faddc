//! The layers of the reference. A map is [N, C, H, W] in standard (row-major) layout; every sum is in f64.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use emo_exporter::layer::{Act, Norm as NormKind};
use emo_proto::Result;
use ndarray::linalg::general_mat_mul;
use ndarray::{
    Array2, Array4, ArrayRef4, ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis, CowArray, Ix4, Zip,
};

use super::scope::Scope;
use super::{Map, Mistake};

/// What the checked constructors below guarantee of every array that is taken apart as a slice or a matrix.
pub const STANDARD: &str = "maps and weights are in standard layout";

/// A map as [N, C, H, W].
///
/// # Panics
///
/// If it has other axes.
pub fn planes(map: &Map) -> CowArray<'_, f64, Ix4> {
    map.as_standard_layout().into_dimensionality().expect("a map of four axes")
}

#[derive(Clone, Copy)]
pub enum Activation {
    /// x · σ(x)
    Silu,
    /// x · Φ(x) with the normal distribution Φ, by erf and not by its tanh approximation.
    Gelu,
    /// min(max(x, 0), 6)
    Relu6,
    /// max(x, 0)
    Relu,
    /// GELU's approximation ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), which no model of ours uses.
    TanhGelu,
    /// GELU's approximation x · σ(1.702 · x), which no model of ours uses.
    SigmoidGelu,
}

impl Activation {
    pub fn of(row: Act) -> Self {
        match row {
            Act::Silu => Self::Silu,
            Act::Gelu => Self::Gelu,
            Act::Relu6 => Self::Relu6,
            Act::Relu => Self::Relu,
        }
    }

    /// Whether a mistake is one of this activation.
    pub fn can_make(self, mistake: Mistake) -> bool {
        match self {
            Self::Gelu => matches!(mistake, Mistake::TanhGelu | Mistake::SigmoidGelu),
            Self::Relu6 => mistake == Mistake::Relu,
            Self::Silu | Self::Relu | Self::TanhGelu | Self::SigmoidGelu => false,
        }
    }

    pub fn apply(self, map: &mut Array4<f64>, mistake: Option<Mistake>) {
        let made = match (self, mistake) {
            (Self::Gelu, Some(Mistake::TanhGelu)) => Self::TanhGelu,
            (Self::Gelu, Some(Mistake::SigmoidGelu)) => Self::SigmoidGelu,
            (Self::Relu6, Some(Mistake::Relu)) => Self::Relu,
            (published, _) => published,
        };
        map.mapv_inplace(match made {
            Self::Silu => |x| x * sigmoid(x),
            Self::Relu6 => |x: f64| x.clamp(0.0, 6.0),
            Self::Relu => |x: f64| x.max(0.0),
            Self::SigmoidGelu => |x| x * sigmoid(1.702 * x),
            Self::Gelu => |x| 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)),
            Self::TanhGelu => |x: f64| {
                0.5 * x * (1.0 + (FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (x + 0.044715 * x * x * x)).tanh())
            },
        });
    }
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A scale and a shift for each channel: what both norms end with.
#[derive(Clone)]
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    fn apply(&self, map: &mut Array4<f64>) {
        for mut item in map.outer_iter_mut() {
            for ((mut plane, scale), shift) in item.outer_iter_mut().zip(&self.scale).zip(&self.shift) {
                plane.mapv_inplace(|x| x * scale + shift);
            }
        }
    }
}

/// Inference form: (x − mean) / √(var + ε) · weight + bias, with each channel's running statistics.
pub struct BatchNorm {
    affine: Affine,
    mean: Vec<f64>,
    variance: Vec<f64>,
    epsilon: f64,
}

impl BatchNorm {
    pub fn load(scope: &Scope, channels: usize, epsilon: f64) -> Result<Self> {
        let get = |name| scope.get(name, &[channels]);
        let affine = Affine { scale: get("weight")?, shift: get("bias")? };
        Ok(Self { affine, mean: get("running_mean")?, variance: get("running_var")?, epsilon })
    }

    pub fn apply(&self, map: &mut Array4<f64>, mistake: Option<Mistake>) {
        let epsilon = Mistake::epsilon(mistake, self.epsilon);
        let Affine { mut scale, mut shift } = self.affine.clone();
        for (c, (mean, variance)) in self.mean.iter().zip(&self.variance).enumerate() {
            scale[c] /= (variance + epsilon).sqrt();
            shift[c] -= mean * scale[c];
        }
        Affine { scale, shift }.apply(map);
    }
}

/// (x − mean) / √(var + ε) · weight + bias, with the mean and population variance of each pixel's channels.
pub struct LayerNorm {
    affine: Affine,
    epsilon: f64,
}

impl LayerNorm {
    pub fn load(scope: &Scope, channels: usize, epsilon: f64) -> Result<Self> {
        let get = |name| scope.get(name, &[channels]);
        Ok(Self { affine: Affine { scale: get("weight")?, shift: get("bias")? }, epsilon })
    }

    pub fn apply(&self, map: &mut Array4<f64>, mistake: Option<Mistake>) {
        let epsilon = Mistake::epsilon(mistake, self.epsilon);
        for mut item in map.outer_iter_mut() {
            let channels = count(item.dim().0);
            item -= &(item.sum_axis(Axis(0)) / channels);
            let mut deviation = Array2::<f64>::zeros((item.dim().1, item.dim().2));
            for plane in item.outer_iter() {
                Zip::from(&mut deviation).and(plane).for_each(|sum, x| *sum += x * x);
            }
            deviation.mapv_inplace(|sum| (sum / channels + epsilon).sqrt());
            item /= &deviation;
        }
        self.affine.apply(map);
    }
}

/// What a block begins with.
pub enum Norm {
    None,
    Batch(BatchNorm),
    Layer(LayerNorm),
}

impl Norm {
    /// The published name of a layer norm is one level deeper.
    pub fn load(scope: &Scope, row: NormKind, channels: usize, epsilon: f64) -> Result<Self> {
        Ok(match row {
            NormKind::Batch => Self::Batch(BatchNorm::load(scope, channels, epsilon)?),
            NormKind::Layer => Self::Layer(LayerNorm::load(&scope.at("norm"), channels, epsilon)?),
        })
    }

    pub fn apply(&self, map: &mut Array4<f64>, mistake: Option<Mistake>) {
        match self {
            Self::None => (),
            Self::Batch(norm) => norm.apply(map, mistake),
            Self::Layer(norm) => norm.apply(map, mistake),
        }
    }
}

/// A 1×1 convolution: the channels of every pixel through one matrix.
pub struct Pointwise {
    /// [outputs, inputs]
    weight: Array2<f64>,
    bias: Option<Vec<f64>>,
}

impl Pointwise {
    pub fn unbiased(scope: &Scope, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = scope.get("weight", &[outputs, inputs, 1, 1])?;
        Ok(Self { weight: matrix_of(weight, outputs, inputs), bias: None })
    }

    pub fn biased(scope: &Scope, inputs: usize, outputs: usize) -> Result<Self> {
        let bias = scope.get("bias", &[outputs])?;
        Ok(Self { bias: Some(bias), ..Self::unbiased(scope, inputs, outputs)? })
    }

    /// A linear layer, whose weight has no spatial axes.
    pub fn linear(scope: &Scope, inputs: usize, outputs: usize) -> Result<Self> {
        let bias = scope.get("bias", &[outputs])?;
        let weight = scope.get("weight", &[outputs, inputs])?;
        Ok(Self { weight: matrix_of(weight, outputs, inputs), bias: Some(bias) })
    }

    /// A linear layer of as many outputs as its bias is long.
    pub fn classifier(scope: &Scope, inputs: usize) -> Result<Self> {
        Self::linear(scope, inputs, scope.dims("bias")?.iter().product())
    }

    /// A biased convolution whose kernel of `side` × `side` is its stride: a matrix for the pixels of a patch.
    pub fn patches(scope: &Scope, inputs: usize, outputs: usize, side: usize) -> Result<Self> {
        let bias = scope.get("bias", &[outputs])?;
        let weight = scope.get("weight", &[outputs, inputs, side, side])?;
        Ok(Self { weight: matrix_of(weight, outputs, inputs * side * side), bias: Some(bias) })
    }

    pub fn forward(&self, x: &ArrayRef4<f64>) -> Array4<f64> {
        let (items, _, height, width) = x.dim();
        let mut y = Array4::zeros((items, self.weight.nrows(), height, width));
        for (x, y) in x.outer_iter().zip(y.outer_iter_mut()) {
            self.multiply(pixels(x), pixels_mut(y));
        }
        y
    }

    /// y [outputs, pixels] = weight · x [inputs, pixels] + bias
    fn multiply(&self, x: ArrayView2<f64>, mut y: ArrayViewMut2<f64>) {
        general_mat_mul(1.0, &self.weight, &x, 0.0, &mut y);
        if let Some(bias) = &self.bias {
            for (mut row, bias) in y.outer_iter_mut().zip(bias) {
                row += *bias;
            }
        }
    }
}

/// [N, C, 1, 1]
pub fn mean_over_pixels(map: &Array4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
    let (n, channels, height, width) = map.dim();
    let sum = if mistake == Some(Mistake::SingleSums) {
        let planes = map.to_shape((n, channels, height * width)).expect(STANDARD);
        planes.fold_axis(Axis(2), 0.0, |sum, x| f64::from(*sum as f32 + *x as f32))
    } else {
        map.sum_axis(Axis(3)).sum_axis(Axis(2))
    };
    let mean = sum / count(height * width);
    mean.insert_axis(Axis(2)).insert_axis(Axis(3))
}

pub fn count(n: usize) -> f64 {
    n as f64
}

/// An item's map [C, H, W] as [C, H·W].
pub fn pixels(item: ArrayView3<f64>) -> ArrayView2<f64> {
    let (channels, height, width) = item.dim();
    item.into_shape_with_order((channels, height * width)).expect(STANDARD)
}

pub fn pixels_mut(item: ArrayViewMut3<f64>) -> ArrayViewMut2<f64> {
    let (channels, height, width) = item.dim();
    item.into_shape_with_order((channels, height * width)).expect(STANDARD)
}

fn matrix_of(elements: Vec<f64>, rows: usize, columns: usize) -> Array2<f64> {
    Array2::from_shape_vec((rows, columns), elements).expect(STANDARD)
}
