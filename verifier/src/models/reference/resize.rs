//! Maps of another size, as PyTorch's `interpolate` makes them.

use ndarray::{Array4, ArrayRef4};

use super::mistake::{Mistake, Rounding};
use super::ops::{STANDARD, count};

/// Bilinear, between the centres of pixels; beyond the outermost centres the map goes on as it is there.
pub fn linear(map: &ArrayRef4<f64>, [height, width]: [usize; 2], mistake: Option<Mistake>) -> Array4<f64> {
    let (n, channels, rows, columns) = map.dim();
    let corners = mistake == Some(Mistake::CornerAligned);
    let down: Vec<_> = (0..height).map(|i| Between::of(i, rows, height, corners)).collect();
    let across: Vec<_> = (0..width).map(|i| Between::of(i, columns, width, corners)).collect();
    let mut y = Array4::zeros((n, channels, height, width));
    for (map, mut y) in map.outer_iter().zip(y.outer_iter_mut()) {
        for (map, mut y) in map.outer_iter().zip(y.outer_iter_mut()) {
            let map = map.as_slice().expect(STANDARD);
            for (place, mut y) in down.iter().zip(y.outer_iter_mut()) {
                let [above, below] = [place.first, place.second].map(|row| &map[row * columns..][..columns]);
                for (at, y) in across.iter().zip(&mut y) {
                    *y = place.mix(
                        at.mix(above[at.first], above[at.second]),
                        at.mix(below[at.first], below[at.second]),
                    );
                }
            }
        }
    }
    y
}

/// Whether a mistake is one of bilinear resizing.
pub fn linear_can_make(mistake: Mistake) -> bool {
    mistake == Mistake::CornerAligned
}

/// Two pixels of an axis, and the weight of the second.
struct Between {
    first: usize,
    second: usize,
    weight: f64,
}

impl Between {
    /// Where the pixel `i` of `to` lies among `from`.
    fn of(i: usize, from: usize, to: usize, corners: bool) -> Self {
        let place = if corners {
            if to > 1 { count(i) * count(from - 1) / count(to - 1) } else { 0.0 }
        } else {
            (count(i) + 0.5) * count(from) / count(to) - 0.5
        };
        let place = place.clamp(0.0, count(from - 1));
        let first = place.floor();
        let second = (first as usize + 1).min(from - 1);
        Self { first: first as usize, second, weight: place - first }
    }

    fn mix(&self, first: f64, second: f64) -> f64 {
        (1.0 - self.weight) * first + self.weight * second
    }
}

/// The pixel in which the upper left corner of each lies.
pub fn nearest(map: &ArrayRef4<f64>, [height, width]: [usize; 2], mistake: Option<Mistake>) -> Array4<f64> {
    let (n, channels, rows, columns) = map.dim();
    let rounding = match mistake {
        Some(Mistake::Nearest(rounding)) => Some(rounding),
        _ => None,
    };
    Array4::from_shape_fn((n, channels, height, width), |(item, channel, row, column)| {
        map[[item, channel, pixel(row, rows, height, rounding), pixel(column, columns, width, rounding)]]
    })
}

/// Whether a mistake is one of resizing by the nearest pixel.
pub fn nearest_can_make(mistake: Mistake) -> bool {
    matches!(mistake, Mistake::Nearest(_))
}

/// The one of `from` pixels that becomes the pixel `i` of `to`.
fn pixel(i: usize, from: usize, to: usize, rounding: Option<Rounding>) -> usize {
    let pixel = match rounding {
        None => i * from / to,
        Some(Rounding::Up) => (i * from).div_ceil(to),
        Some(Rounding::Half) => (2 * i * from + to) / (2 * to),
        // (i + ½)·from/to − ½, of which an exact half goes down: ⌈x − ½⌉.
        Some(Rounding::Centres) => ((2 * i + 1) * from).saturating_sub(2 * to).div_ceil(2 * to),
        // ⌊(i + ½)·from/to⌋.
        Some(Rounding::CentresUp) => (2 * i + 1) * from / (2 * to),
    };
    pixel.min(from - 1)
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::{Mistake, Rounding, linear, nearest};

    /// A map of one row.
    fn row(pixels: &[f64]) -> Array4<f64> {
        Array4::from_shape_vec((1, 1, 1, pixels.len()), pixels.to_vec()).unwrap()
    }

    #[test]
    fn bilinear_is_between_centres() {
        let x = row(&[0.0, 8.0]);
        let made = |mistake| linear(&x, [1, 4], mistake).into_iter().collect::<Vec<_>>();
        assert_eq!(made(None), [0.0, 2.0, 6.0, 8.0]);
        assert_eq!(made(Some(Mistake::CornerAligned)), [0.0, 8.0 / 3.0, 16.0 / 3.0, 8.0]);
    }

    #[test]
    fn nearest_rounds_down_and_its_mistakes_do_not() {
        let x = row(&[0.0, 1.0, 2.0]);
        let made = |rounding: Option<Rounding>| {
            nearest(&x, [1, 5], rounding.map(Mistake::Nearest)).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(made(None), [0.0, 0.0, 1.0, 1.0, 2.0]);
        assert_eq!(made(Some(Rounding::Up)), [0.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(made(Some(Rounding::Half)), [0.0, 1.0, 1.0, 2.0, 2.0]);
        // Centres lie at −0.2, 0.4, 1, 1.6 and 2.2.
        assert_eq!(made(Some(Rounding::Centres)), [0.0, 0.0, 1.0, 2.0, 2.0]);
    }
}
