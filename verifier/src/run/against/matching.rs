//! Whether two values of two graphs are the same, whatever they are called and however they lie.

use ndarray::ArrayD;

/// A value of a run with what is true of it in any order of its elements.
#[derive(Debug)]
pub struct Value {
    elements: Vec<f32>,
    /// Without extents of 1.
    dims: Vec<usize>,
    /// Largest |x| of the finite elements.
    peak: f64,
    /// Smallest and largest element, mean and mean of |x|: each moves by no more than the elements do.
    marks: [f64; 4],
    finite: usize,
    /// The largest |x| beside what masks put in place of elements, where they do.
    unmasked: Option<f64>,
}

/// The largest |x| of the elements that no mask has taken out, where one has: −10,000 and the like beside scores
/// would hide any error of theirs.
pub fn unmasked(elements: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let lowest = elements.clone().filter(|x| x.is_finite()).fold(0.0, f64::min);
    if lowest > FILLED {
        return None;
    }
    let rest = elements.filter(|x| x.is_finite() && !is_masked(*x, lowest)).map(f64::abs).fold(0.0, f64::max);
    (rest > 0.0 && rest < -lowest / APART).then_some(rest)
}

/// What masks fill in is this or below.
const FILLED: f64 = -1e3;
/// How many times smaller all other elements are.
const APART: f64 = 16.0;

fn is_masked(x: f64, lowest: f64) -> bool {
    x <= lowest / 2.0
}

/// How the elements of equal values lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// In the same order, whatever the extents.
    Same,
    /// In that of other axes.
    Other,
}

/// Axes whose orders are tried: 720.
const MOST_AXES: usize = 6;

impl Value {
    /// `None` for what tells nothing: no elements, or one number throughout.
    pub fn of(array: &ArrayD<f32>) -> Option<Self> {
        let elements: Vec<f32> = array.iter().copied().collect();
        let first = *elements.first()?;
        if elements.iter().all(|x| x.to_bits() == first.to_bits()) {
            return None;
        }
        let finite: Vec<f64> = elements.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x)).collect();
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / finite.len().max(1) as f64;
        let low = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let high = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let marks = [low, high, mean(&mut finite.iter().copied()), mean(&mut finite.iter().map(|x| x.abs()))];
        let dims = array.shape().iter().copied().filter(|&n| n != 1).collect();
        let unmasked = unmasked(finite.iter().copied());
        let peak = low.abs().max(high.abs());
        Some(Self { dims, peak, marks, finite: finite.len(), unmasked, elements })
    }

    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether this is `other` but for errors up to `bound` of the largest value.
    pub fn is(&self, other: &Value, bound: f64) -> Option<Order> {
        let within = bound * self.peak.max(other.peak);
        let near = match self.unmasked.zip(other.unmasked) {
            Some((a, b)) => bound * a.max(b),
            None => within,
        };
        let within = Within { all: within, below: self.peak / APART, near };
        let alike = self.len() == other.len()
            && self.finite == other.finite
            && self.marks.iter().zip(&other.marks).all(|(a, b)| a == b || (a - b).abs() <= within.all);
        if !alike {
            return None;
        }
        if same(self.elements.iter(), &other.elements, within) {
            return Some(Order::Same);
        }
        let turned = self.is_turned(other, within) || other.is_turned(self, within);
        turned.then_some(Order::Other)
    }

    /// Whether an order of this value's axes gives the other.
    fn is_turned(&self, other: &Value, within: Within) -> bool {
        let rank = self.dims.len();
        if !(2..=MOST_AXES).contains(&rank) {
            return false;
        }
        let mut strides = vec![1; rank];
        (1..rank).rev().for_each(|axis| strides[axis - 1] = strides[axis] * self.dims[axis]);
        let mut order: Vec<usize> = (0..rank).collect();
        while next(&mut order) {
            let dims: Vec<usize> = order.iter().map(|&axis| self.dims[axis]).collect();
            let steps: Vec<usize> = order.iter().map(|&axis| strides[axis]).collect();
            let turned = Turned { at: vec![0; rank], dims, steps, place: Some(0) };
            if same(turned.map(|place| &self.elements[place]), &other.elements, within) {
                return true;
            }
        }
        false
    }

    /// The largest error of this value where `other` is the truth, element by element, as a share of the
    /// truth's largest.
    pub fn error(&self, other: &Value) -> Option<f64> {
        if self.len() != other.len() || other.peak == 0.0 {
            return None;
        }
        let errors = self.elements.iter().zip(&other.elements).map(|(a, b)| f64::from(a - b).abs());
        Some(errors.filter(|e| !e.is_nan()).fold(0.0, f64::max) / other.peak)
    }
}

/// How far two elements may be apart: `near` where they are smaller than `below`.
#[derive(Debug, Clone, Copy)]
struct Within {
    all: f64,
    below: f64,
    near: f64,
}

fn same<'a>(a: impl Iterator<Item = &'a f32>, b: &[f32], within: Within) -> bool {
    let near = |(&a, &b): (&f32, &f32)| {
        let allowed = if f64::from(b).abs() < within.below { within.near } else { within.all };
        a == b
            || a.is_nan() && b.is_nan()
            || f64::from(a - b).abs() <= allowed && a.is_finite() && b.is_finite()
    };
    a.zip(b).all(near)
}

/// The places of elements in the order of other axes.
struct Turned {
    at: Vec<usize>,
    dims: Vec<usize>,
    steps: Vec<usize>,
    place: Option<usize>,
}

impl Iterator for Turned {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = self.place?;
        let mut following = place;
        self.place = None;
        for axis in (0..self.dims.len()).rev() {
            self.at[axis] += 1;
            following += self.steps[axis];
            if self.at[axis] < self.dims[axis] {
                self.place = Some(following);
                break;
            }
            following -= self.steps[axis] * self.dims[axis];
            self.at[axis] = 0;
        }
        Some(place)
    }
}

/// The order after `order`, as a dictionary has them; false behind the last.
fn next(order: &mut [usize]) -> bool {
    let Some(i) = (1..order.len()).rev().find(|&i| order[i - 1] < order[i]) else { return false };
    let Some(j) = (i..order.len()).rev().find(|&j| order[j] > order[i - 1]) else { return false };
    order.swap(i - 1, j);
    order[i..].reverse();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(shape: &[usize], element: impl Fn(usize) -> f32) -> Value {
        let elements = (0..shape.iter().product()).map(element).collect();
        Value::of(&ArrayD::from_shape_vec(shape.to_vec(), elements).unwrap()).unwrap()
    }

    #[test]
    fn values_are_told_in_every_layout() {
        let count = |i: usize| (i * i % 23) as f32;
        let map = value(&[1, 2, 3, 4], count);
        assert_eq!(map.is(&value(&[6, 4], count), 1e-6), Some(Order::Same));
        // [2, 3, 4] → [3, 4, 2]
        let last = value(&[3, 4, 2], |i| count(i % 2 * 12 + i / 2));
        assert_eq!(map.is(&last, 1e-6), Some(Order::Other));
        assert_eq!(last.is(&map, 1e-6), Some(Order::Other));
        // The axes are known on one side alone.
        assert_eq!(map.is(&value(&[24], |i| count(i % 2 * 12 + i / 2)), 1e-6), Some(Order::Other));
        // The same elements in no order of axes.
        assert_eq!(map.is(&value(&[2, 3, 4], |i| count((i + 5) % 24)), 1e-6), None);
        let noisy = |by: f32| value(&[2, 3, 4], |i| count(i) + if i == 7 { by } else { 0.0 });
        assert_eq!(map.is(&noisy(1e-5), 1e-6), Some(Order::Same));
        assert_eq!(map.is(&noisy(1e-4), 1e-6), None);
        // The largest square modulo 23 is 18.
        assert!((noisy(1.8).error(&map).unwrap() - 0.1).abs() < 1e-6);
    }

    #[test]
    fn a_mask_hides_no_error_beside_it() {
        let scores = |by: f32| value(&[4, 6], |i| if i % 6 > 3 { -1e4 } else { (i % 7) as f32 * 0.1 + by });
        assert_eq!(scores(0.0).is(&scores(1e-7), 1e-6), Some(Order::Same));
        assert_eq!(scores(0.0).is(&scores(1e-3), 1e-6), None);
        assert_eq!(unmasked([0.5, -0.25, -1e9, f64::NEG_INFINITY].into_iter()), Some(0.5));
        assert_eq!(unmasked([2000.0, -1500.0, -3000.0].into_iter()), None);
    }

    #[test]
    fn infinite_elements_are_equal_to_themselves() {
        let masked = |x: f32| value(&[4], |i| if i == 1 { x } else { i as f32 });
        assert_eq!(masked(f32::NEG_INFINITY).is(&masked(f32::NEG_INFINITY), 1e-6), Some(Order::Same));
        assert_eq!(masked(f32::NEG_INFINITY).is(&masked(f32::INFINITY), 1e-6), None);
        assert!(Value::of(&ArrayD::zeros(vec![3])).is_none());
    }
}
