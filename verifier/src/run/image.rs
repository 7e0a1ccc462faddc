//! The image that a classifier takes: how its axes lie, and what is in it.

use emo_proto::tensor_proto::DataType;
use ndarray::{Array4, ArrayD};

use crate::fact::Fact;
use crate::sym::Expr;

/// Red, green and blue of ImageNet as shares of white: what the published models were trained on is
/// (x/255 − mean)/deviation.
pub const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
pub const DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

/// An input of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Where in its shape N, C, H and W are.
    pub axes: [usize; 4],
    /// Whether it is bytes, RGB, which the file normalises, rather than normalised floats.
    pub bytes: bool,
}

impl Image {
    /// Normalised floats, `[N, 3, H, W]`.
    pub const FLOATS: Self = Self { axes: [0, 1, 2, 3], bytes: false };
    /// Bytes, `[N, H, W, 3]`.
    pub const BYTES: Self = Self { axes: [0, 3, 1, 2], bytes: true };

    /// `[N, 3, H, W]`, or `[N, H, W, 3]` where the extents tell; 3 may be open in the first.
    #[must_use]
    pub fn of(input: &Fact) -> Option<Self> {
        let [_, first, _, last] = input.dims.as_deref().ok()? else { return None };
        let three = |extent: &Expr| extent.number() == Some(3);
        let axes = match (three(first), three(last)) {
            (false, true) => Self::BYTES.axes,
            _ if first.number().is_none_or(|n| n == 3) => Self::FLOATS.axes,
            _ => return None,
        };
        Some(Self { axes, bytes: input.dtype == DataType::Uint8 })
    }

    /// N, C, H and W of what lies as the image does.
    pub fn extents<'a, T>(&self, shape: &'a [T]) -> Option<[&'a T; 4]> {
        (shape.len() == 4).then(|| self.axes.map(|axis| &shape[axis]))
    }

    /// `[N, 3, H, W]` as the image lies, element by element.
    #[must_use]
    pub fn lay(&self, map: ArrayD<f32>) -> ArrayD<f32> {
        let from: Vec<usize> = (0..4).filter_map(|axis| self.axes.iter().position(|&a| a == axis)).collect();
        map.permuted_axes(from).as_standard_layout().into_owned()
    }

    /// The normalised images `map`, `[N, 3, H, W]`, as the file takes them: of bytes the nearest ones.
    #[must_use]
    pub fn feed(&self, mut map: ArrayD<f32>) -> ArrayD<f32> {
        if self.bytes {
            map.indexed_iter_mut().for_each(|(index, x)| {
                let white = f64::from(*x) * DEVIATION[index[1]] + MEAN[index[1]];
                *x = (white * 255.0).round().clamp(0.0, 255.0) as f32;
            });
        }
        self.lay(map)
    }

    /// What the file takes as the reference takes it: normalised, `[N, 3, H, W]`.
    #[must_use]
    pub fn map(&self, input: &ArrayD<f32>) -> Option<Array4<f64>> {
        let channels = *self.extents(input.shape())?[1];
        let view = input.view().permuted_axes(self.axes.to_vec()).into_dimensionality().ok()?;
        let mut map: Array4<f64> = view.mapv(f64::from).as_standard_layout().into_owned();
        if self.bytes && channels == 3 {
            map.indexed_iter_mut().for_each(|((_, c, ..), x)| *x = (*x / 255.0 - MEAN[c]) / DEVIATION[c]);
        }
        Some(map)
    }
}
