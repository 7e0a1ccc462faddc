//! Spatial convolutions.

use std::ops::Range;

use emo_proto::Result;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, Array4, ArrayRef4, ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis, s};

use super::mistake::Mistake;
use super::ops::{BatchNorm, STANDARD, pixels_mut};
use super::scope::Scope;

/// Most elements of a matrix of neighbourhoods.
const MOST: usize = 1 << 22;

/// A square convolution, padded with zeros by half of what its kernel spans.
pub struct Convolution {
    /// [outputs, inputs of an output, kernel, kernel]
    weight: Array4<f64>,
    bias: Option<Vec<f64>>,
    stride: usize,
    dilation: usize,
}

impl Convolution {
    /// Every output sees all inputs.
    pub fn full(scope: &Scope, inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Result<Self> {
        Self::load(scope, [outputs, inputs, kernel, kernel], stride)
    }

    /// The same with the bias that the weights have for it.
    pub fn biased(self, scope: &Scope) -> Result<Self> {
        Ok(Self { bias: Some(scope.get("bias", &[self.weight.dim().0])?), ..self })
    }

    /// The same with a kernel whose taps are that far apart.
    pub fn dilated(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    /// Unbiased; every output sees the one input of its number.
    pub fn depthwise(scope: &Scope, channels: usize, kernel: usize, stride: usize) -> Result<Self> {
        Self::load(scope, [channels, 1, kernel, kernel], stride)
    }

    fn load(scope: &Scope, dims: [usize; 4], stride: usize) -> Result<Self> {
        let weight = Array4::from_shape_vec(dims, scope.get("weight", &dims)?).expect(STANDARD);
        Ok(Self { weight, bias: None, stride, dilation: 1 })
    }

    /// Whether a mistake is another stride or dilation than the convolution's.
    pub fn can_make(&self, mistake: Mistake) -> bool {
        match mistake {
            Mistake::Stride(stride) => self.stride > 1 && stride != self.stride,
            Mistake::Dilation(dilation) => self.dilation > 1 && dilation != self.dilation,
            _ => false,
        }
    }

    pub fn forward(&self, x: &ArrayRef4<f64>) -> Array4<f64> {
        self.forward_with(x, None)
    }

    pub fn forward_with(&self, x: &ArrayRef4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let (mut stride, mut dilation) = (self.stride, self.dilation);
        match mistake.filter(|&mistake| self.can_make(mistake)) {
            Some(Mistake::Stride(other)) => stride = other,
            Some(Mistake::Dilation(other)) => dilation = other,
            _ => {}
        }
        let (outputs, inputs, kernel, _) = self.weight.dim();
        let (items, channels, height, width) = x.dim();
        assert_eq!(channels, if inputs == 1 { outputs } else { inputs }, "channels of a convolution's input");
        let taps = Taps { padding: kernel / 2 * dilation, stride, dilation };
        let side = |n: usize| (n + 2 * taps.padding - dilation * (kernel - 1) - 1) / stride + 1;
        let mut y = Array4::zeros((items, outputs, side(height), side(width)));
        for (x, mut y) in x.outer_iter().zip(y.outer_iter_mut()) {
            if let Some(bias) = &self.bias {
                y.outer_iter_mut().zip(bias).for_each(|(mut y, bias)| y.fill(*bias));
            }
            if inputs > 1 {
                self.multiply(&x, y, taps);
                continue;
            }
            for ((x, mut y), kernel) in x.outer_iter().zip(y.outer_iter_mut()).zip(self.weight.outer_iter()) {
                add_convolved(&x, &kernel.index_axis(Axis(0), 0), taps, &mut y);
            }
        }
        y
    }

    /// y += weight · the neighbourhoods of x, some rows of y after the other.
    fn multiply(&self, x: &ArrayView3<f64>, y: ArrayViewMut3<f64>, taps: Taps) {
        let (outputs, inputs, kernel, _) = self.weight.dim();
        let (_, height, width) = x.dim();
        let (_, rows, columns) = y.dim();
        let seen = inputs * kernel * kernel;
        let weight = self.weight.to_shape((outputs, seen)).expect(STANDARD);
        let mut y = pixels_mut(y);
        let several = (MOST / (seen * columns)).clamp(1, rows);
        for first in (0..rows).step_by(several) {
            let last = (first + several).min(rows);
            let mut around = Array2::zeros((seen, (last - first) * columns));
            for (at, mut around) in around.outer_iter_mut().enumerate() {
                let (input, i, j) = (at / (kernel * kernel), at / kernel % kernel, at % kernel);
                let x = x.index_axis(Axis(0), input);
                let down = taps.reach(i, height, rows);
                let across = taps.reach(j, width, columns);
                if across.is_empty() {
                    continue;
                }
                for row in down.start.max(first)..down.end.min(last) {
                    let x = x.slice_move(s![taps.at(i, row), taps.at(j, across.start)..;taps.stride]);
                    let start = (row - first) * columns;
                    let mut to = around.slice_mut(s![start + across.start..start + across.end]);
                    to.iter_mut().zip(x).for_each(|(to, from)| *to = *from);
                }
            }
            general_mat_mul(
                1.0,
                &weight,
                &around,
                1.0,
                &mut y.slice_mut(s![.., first * columns..last * columns]),
            );
        }
    }
}

/// y += x convolved with `kernel`. The innermost loop runs along a row of the map, which vectorises.
fn add_convolved(x: &ArrayView2<f64>, kernel: &ArrayView2<f64>, taps: Taps, y: &mut ArrayViewMut2<f64>) {
    let (height, width) = x.dim();
    let (rows, columns) = y.dim();
    let x = x.as_slice().expect(STANDARD);
    let y = y.as_slice_mut().expect(STANDARD);
    for ((i, j), &weight) in kernel.indexed_iter() {
        let across = taps.reach(j, width, columns);
        if across.is_empty() {
            continue;
        }
        for row in taps.reach(i, height, rows) {
            let y = &mut y[row * columns..][across.clone()];
            let x = &x[taps.at(i, row) * width..][taps.at(j, across.start)..];
            if taps.stride == 1 {
                y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
            } else {
                y.iter_mut().zip(x.iter().step_by(taps.stride)).for_each(|(y, x)| *y += weight * x);
            }
        }
    }
}

/// Where the taps of a kernel lie on its input, along an axis.
#[derive(Clone, Copy)]
struct Taps {
    padding: usize,
    stride: usize,
    dilation: usize,
}

impl Taps {
    /// The input under the tap `tap` for the output `output`, which it reaches.
    fn at(self, tap: usize, output: usize) -> usize {
        output * self.stride + tap * self.dilation - self.padding
    }

    /// The outputs of 0..`outputs` for which the tap `tap` lies inside the input 0..`inputs`.
    fn reach(self, tap: usize, inputs: usize, outputs: usize) -> Range<usize> {
        let before = tap * self.dilation;
        let start = self.padding.saturating_sub(before).div_ceil(self.stride).min(outputs);
        let end = (inputs + self.padding).saturating_sub(before).div_ceil(self.stride).min(outputs);
        start..end.max(start)
    }
}

/// A spatial convolution and its batch norm.
pub struct NormedConvolution {
    pub convolution: Convolution,
    pub norm: BatchNorm,
}

impl NormedConvolution {
    /// Depthwise, `conv` and `norm`.
    pub fn depthwise(
        scope: &Scope,
        channels: usize,
        kernel: usize,
        stride: usize,
        epsilon: f64,
    ) -> Result<Self> {
        Ok(Self {
            convolution: Convolution::depthwise(&scope.at("conv"), channels, kernel, stride)?,
            norm: BatchNorm::load(&scope.at("norm"), channels, epsilon)?,
        })
    }

    pub fn forward(&self, x: &ArrayRef4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let mut y = self.convolution.forward(x);
        self.norm.apply(&mut y, mistake);
        y
    }
}
