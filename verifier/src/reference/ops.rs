//! The layers of the reference. A map is [N, C, H, W] in standard (row-major) layout; every sum is in f64.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use std::ops::Range;

use emo_exporter::models::mmb::Attention;
use emo_proto::Result;
use ndarray::linalg::general_mat_mul;
use ndarray::{
    Array2, Array4, ArrayRef4, ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis, Zip, s,
};

use super::mistake::Mistake;
use super::scope::Scope;

/// What the checked constructors below guarantee of every array that is taken apart as a slice or a matrix.
const STANDARD: &str = "maps and weights are in standard layout";

#[derive(Clone, Copy)]
pub enum Activation {
    /// x · σ(x)
    Silu,
    /// x · Φ(x) with the normal distribution Φ, by erf and not by its tanh approximation.
    Gelu,
    /// GELU's approximation ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), which EMO does not use.
    TanhGelu,
    /// GELU's approximation x · σ(1.702 · x), which EMO does not use.
    SigmoidGelu,
}

impl Activation {
    pub fn apply(self, map: &mut Array4<f64>) {
        map.mapv_inplace(match self {
            Self::Silu => |x| x * sigmoid(x),
            Self::SigmoidGelu => |x| x * sigmoid(1.702 * x),
            Self::Gelu => |x| 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)),
            Self::TanhGelu => |x: f64| {
                0.5 * x * (1.0 + (FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (x + 0.044715 * x * x * x)).tanh())
            },
        });
    }
}

fn sigmoid(x: f64) -> f64 {
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
}

impl BatchNorm {
    pub fn load(scope: &Scope, channels: usize) -> Result<Self> {
        let get = |name| scope.get(name, &[channels]);
        let affine = Affine { scale: get("weight")?, shift: get("bias")? };
        Ok(Self { affine, mean: get("running_mean")?, variance: get("running_var")? })
    }

    pub fn apply(&self, map: &mut Array4<f64>, epsilon: f64) {
        let Affine { mut scale, mut shift } = self.affine.clone();
        for (c, (mean, variance)) in self.mean.iter().zip(&self.variance).enumerate() {
            scale[c] /= (variance + epsilon).sqrt();
            shift[c] -= mean * scale[c];
        }
        Affine { scale, shift }.apply(map);
    }
}

/// (x − mean) / √(var + ε) · weight + bias, with the mean and population variance of each pixel's channels.
pub struct LayerNorm(Affine);

impl LayerNorm {
    pub fn load(scope: &Scope, channels: usize) -> Result<Self> {
        let get = |name| scope.get(name, &[channels]);
        Ok(Self(Affine { scale: get("weight")?, shift: get("bias")? }))
    }

    pub fn apply(&self, map: &mut Array4<f64>, epsilon: f64) {
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
        self.0.apply(map);
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

    /// A linear layer, whose weight has no spatial axes: as many outputs as its bias is long.
    pub fn linear(scope: &Scope, inputs: usize) -> Result<Self> {
        let outputs = scope.dims("bias")?.iter().product();
        let bias = scope.get("bias", &[outputs])?;
        let weight = scope.get("weight", &[outputs, inputs])?;
        Ok(Self { weight: matrix_of(weight, outputs, inputs), bias: Some(bias) })
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

/// A square convolution, padded with zeros by half its kernel.
pub struct Convolution {
    /// [outputs, inputs of an output, kernel, kernel]
    weight: Array4<f64>,
    bias: Option<Vec<f64>>,
    stride: usize,
}

impl Convolution {
    /// Biased; every output sees all inputs.
    pub fn full(scope: &Scope, inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Result<Self> {
        let bias = scope.get("bias", &[outputs])?;
        Ok(Self { bias: Some(bias), ..Self::load(scope, [outputs, inputs, kernel, kernel], stride)? })
    }

    /// Unbiased; every output sees the one input of its number.
    pub fn depthwise(scope: &Scope, channels: usize, kernel: usize, stride: usize) -> Result<Self> {
        Self::load(scope, [channels, 1, kernel, kernel], stride)
    }

    fn load(scope: &Scope, dims: [usize; 4], stride: usize) -> Result<Self> {
        let weight = Array4::from_shape_vec(dims, scope.get("weight", &dims)?).expect(STANDARD);
        Ok(Self { weight, bias: None, stride })
    }

    pub fn forward(&self, x: &ArrayRef4<f64>) -> Array4<f64> {
        let (outputs, inputs, kernel, _) = self.weight.dim();
        let (items, channels, height, width) = x.dim();
        assert_eq!(channels, if inputs == 1 { outputs } else { inputs }, "channels of a convolution's input");
        let side = |n: usize| (n + 2 * (kernel / 2) - kernel) / self.stride + 1;
        let mut y = Array4::zeros((items, outputs, side(height), side(width)));
        for (x, mut y) in x.outer_iter().zip(y.outer_iter_mut()) {
            for (output, mut y) in y.outer_iter_mut().enumerate() {
                if let Some(bias) = &self.bias {
                    y.fill(bias[output]);
                }
                for (input, kernel) in self.weight.index_axis(Axis(0), output).outer_iter().enumerate() {
                    let x = x.index_axis(Axis(0), if inputs == 1 { output } else { input });
                    add_convolved(&x, &kernel, self.stride, &mut y);
                }
            }
        }
        y
    }
}

/// y += x convolved with `kernel`. The innermost loop runs along a row of the map, which vectorises.
fn add_convolved(x: &ArrayView2<f64>, kernel: &ArrayView2<f64>, stride: usize, y: &mut ArrayViewMut2<f64>) {
    let padding = kernel.nrows() / 2;
    let (height, width) = x.dim();
    let (rows, columns) = y.dim();
    let x = x.as_slice().expect(STANDARD);
    let y = y.as_slice_mut().expect(STANDARD);
    for ((i, j), &weight) in kernel.indexed_iter() {
        let across = reach(j, padding, stride, width, columns);
        if across.is_empty() {
            continue;
        }
        for row in reach(i, padding, stride, height, rows) {
            let y = &mut y[row * columns..][across.clone()];
            let x = &x[(row * stride + i - padding) * width..][across.start * stride + j - padding..];
            if stride == 1 {
                y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
            } else {
                y.iter_mut().zip(x.iter().step_by(stride)).for_each(|(y, x)| *y += weight * x);
            }
        }
    }
}

/// The outputs 0..`outputs` of an axis for which the kernel's tap `tap` lies inside the input 0..`inputs`.
fn reach(tap: usize, padding: usize, stride: usize, inputs: usize, outputs: usize) -> Range<usize> {
    let start = padding.saturating_sub(tap).div_ceil(stride).min(outputs);
    let end = (inputs + padding).saturating_sub(tap).div_ceil(stride).min(outputs);
    start..end.max(start)
}

/// Each channel times a gate: σ(expand(SiLU(reduce(mean over the pixels)))).
pub struct SqueezeExcite {
    reduce: Pointwise,
    expand: Pointwise,
}

impl SqueezeExcite {
    pub fn load(scope: &Scope, channels: usize) -> Result<Self> {
        Ok(Self {
            reduce: Pointwise::biased(&scope.at("conv_reduce"), channels, channels)?,
            expand: Pointwise::biased(&scope.at("conv_expand"), channels, channels)?,
        })
    }

    pub fn apply(&self, map: &mut Array4<f64>, mistake: Option<Mistake>) {
        let mut gate = self.reduce.forward(&mean_over_pixels(map, mistake));
        Activation::Silu.apply(&mut gate);
        gate = self.expand.forward(&gate);
        gate.mapv_inplace(sigmoid);
        *map *= &gate;
    }
}

/// Attention inside windows, of the unexpanded map on itself: softmax(Q·Kᵀ / √`head_dim`)·X.
pub struct WindowAttention {
    /// Channels (q or k, head, `head_dim`).
    queries_keys: Pointwise,
    head_dim: usize,
    /// Side of a window; `None` attends over the whole map.
    window: Option<usize>,
}

impl WindowAttention {
    pub fn load(scope: &Scope, channels: usize, row: Attention) -> Result<Self> {
        let Attention { head_dim, window } = row;
        Ok(Self { queries_keys: Pointwise::biased(scope, channels, 2 * channels)?, head_dim, window })
    }

    /// Windows are dilated grids, `(h1 n1) (w1 n2) -> n1 n2 h1 w1`: of `down` × `across` windows, window
    /// (i, j) has the pixels whose row is i modulo `down` and whose column is j modulo `across`. Where the map
    /// ends before the grid, tokens of zeros fill the window and take part like any other: none is masked.
    pub fn forward(&self, x: &ArrayRef4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let (_, channels, height, width) = x.dim();
        let (rows, columns) = self.window.map_or((height, width), |side| (side, side));
        let (down, across) = (height.div_ceil(rows), width.div_ceil(columns));
        let mut y = Array4::zeros(x.dim());
        for (x, mut y) in x.outer_iter().zip(y.outer_iter_mut()) {
            for (i, j) in (0..down).flat_map(|i| (0..across).map(move |j| (i, j))) {
                // (token of the window, row and column of the map), without the tokens past the map's end
                let tokens = || {
                    let inside = (0..rows * columns).map(move |token| {
                        let (row, column) = (token / columns, token % columns);
                        match mistake {
                            Some(Mistake::Tiles) => (token, i * rows + row, j * columns + column),
                            _ => (token, row * down + i, column * across + j),
                        }
                    });
                    inside.filter(move |&(_, row, column)| row < height && column < width)
                };
                let mut values = Array2::zeros((channels, rows * columns));
                for c in 0..channels {
                    tokens().for_each(|(token, row, column)| values[[c, token]] = x[[c, row, column]]);
                }
                let mut padding = vec![true; rows * columns];
                tokens().for_each(|(token, ..)| padding[token] = false);
                let attended = self.attend(&values, &padding, mistake);
                for c in 0..channels {
                    tokens().for_each(|(token, row, column)| y[[c, row, column]] = attended[[c, token]]);
                }
            }
        }
        y
    }

    /// One window's tokens [C, tokens], some of them padding, attended head by head.
    fn attend(&self, values: &Array2<f64>, padding: &[bool], mistake: Option<Mistake>) -> Array2<f64> {
        let channels = values.nrows();
        let mut projected = Array2::zeros((2 * channels, values.ncols()));
        self.queries_keys.multiply(values.view(), projected.view_mut());
        let padded = || padding.iter().enumerate().filter(|(_, padded)| **padded).map(|(token, _)| token);
        if mistake == Some(Mistake::LatePadding) {
            padded().for_each(|token| projected.column_mut(token).fill(0.0));
        }
        let (mut queries, mut keys) = projected.view().split_at(Axis(0), channels);
        if mistake == Some(Mistake::ExchangedQueriesKeys) {
            (queries, keys) = (keys, queries);
        }
        let scale = match mistake {
            Some(Mistake::NoScale) => 1.0,
            _ => 1.0 / count(self.head_dim).sqrt(),
        };
        let mut attended = Array2::zeros(values.dim());
        for head in (0..channels).step_by(self.head_dim) {
            let head = s![head..head + self.head_dim, ..];
            let mut weights = queries.slice(head).t().dot(&keys.slice(head)) * scale;
            if mistake == Some(Mistake::MaskedPadding) {
                padded().for_each(|token| weights.column_mut(token).fill(f64::NEG_INFINITY));
            }
            softmax_rows(&mut weights);
            general_mat_mul(1.0, &values.slice(head), &weights.t(), 0.0, &mut attended.slice_mut(head));
        }
        attended
    }
}

fn softmax_rows(scores: &mut Array2<f64>) {
    for mut row in scores.outer_iter_mut() {
        let largest = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        row.mapv_inplace(|score| (score - largest).exp());
        row /= row.sum();
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

fn count(n: usize) -> f64 {
    n as f64
}

/// An item's map [C, H, W] as [C, H·W].
fn pixels(item: ArrayView3<f64>) -> ArrayView2<f64> {
    let (channels, height, width) = item.dim();
    item.into_shape_with_order((channels, height * width)).expect(STANDARD)
}

fn pixels_mut(item: ArrayViewMut3<f64>) -> ArrayViewMut2<f64> {
    let (channels, height, width) = item.dim();
    item.into_shape_with_order((channels, height * width)).expect(STANDARD)
}

fn matrix_of(elements: Vec<f64>, rows: usize, columns: usize) -> Array2<f64> {
    Array2::from_shape_vec((rows, columns), elements).expect(STANDARD)
}
