//! The image that a classifier takes: how its axes lie, and what is in it.

use emo_proto::tensor_proto::DataType;

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
    /// `[N, 3, H, W]`, or `[N, H, W, 3]` where the extents tell; 3 may be open in the first.
    #[must_use]
    pub fn of(input: &Fact) -> Option<Self> {
        let [_, first, _, last] = input.dims.as_deref().ok()? else { return None };
        let three = |extent: &Expr| extent.number() == Some(3);
        let axes = match (three(first), three(last)) {
            (false, true) => [0, 3, 1, 2],
            _ if first.number().is_none_or(|n| n == 3) => [0, 1, 2, 3],
            _ => return None,
        };
        Some(Self { axes, bytes: input.dtype == DataType::Uint8 })
    }

    /// N, C, H and W of what lies as the image does.
    pub fn extents<'a, T>(&self, shape: &'a [T]) -> Option<[&'a T; 4]> {
        (shape.len() == 4).then(|| self.axes.map(|axis| &shape[axis]))
    }
}
