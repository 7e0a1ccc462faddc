//! How far a candidate's values are from the truth's, and how far they may be.

use emo_proto::{Error, Result};
use ndarray::{ArrayD, Axis};
use serde::Serialize;

/// The error measures of a candidate against the truth, element by element, all in f64.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Elements compared.
    pub elements: usize,
    /// Largest |candidate − truth|.
    pub max_abs: f64,
    /// Largest |candidate − truth| / |truth| of the elements that are not below [`SMALLEST_SHARE`] of the largest.
    pub max_relative: f64,
    /// Root of the mean of (candidate − truth)².
    pub rms: f64,
    /// Largest |truth|.
    pub peak: f64,
    /// Cosine of the angle between the two as vectors; 1 when both are zero, 0 when one is.
    pub cosine: f64,
    /// Signal to quantisation noise, 10·log₁₀(Σ truth² / Σ (candidate − truth)²) in dB; infinite when equal.
    pub sqnr_db: f64,
}

/// Below this share of the largest truth, an element's error relative to itself says nothing.
pub const SMALLEST_SHARE: f64 = 1e-2;

impl Difference {
    /// The largest error as a share of the largest truth: the figure that a [`Tolerance`] bounds. Against a
    /// truth of zeros any error is infinitely large.
    #[must_use]
    pub fn relative(&self) -> f64 {
        if self.max_abs == 0.0 { 0.0 } else { self.max_abs / self.peak }
    }
}

/// Measures `candidate` against `truth`.
///
/// # Errors
///
/// What has no measure, and therefore passes under no tolerance: a different number of elements, none at all,
/// a NaN or an infinity on either side.
pub fn compare<T: Copy + Into<f64>>(candidate: &[T], truth: &[f64]) -> Result<Difference> {
    if candidate.len() != truth.len() {
        return Err(Error::new(format!("expected {} elements, found {}", truth.len(), candidate.len())));
    }
    if truth.is_empty() {
        return Err(Error::new("expected elements to compare, found none"));
    }
    let (mut max_abs, mut peak) = (0.0_f64, 0.0_f64);
    let (mut noise, mut signal, mut power, mut product) = (0.0, 0.0, 0.0, 0.0);
    for (index, (&c, &t)) in candidate.iter().zip(truth).enumerate() {
        let c = c.into();
        if let Some(bad) = [c, t].into_iter().find(|x| !x.is_finite()) {
            return Err(Error::new(format!("expected finite numbers, found {bad} at element {index}")));
        }
        let error = c - t;
        max_abs = max_abs.max(error.abs());
        peak = peak.max(t.abs());
        noise += error * error;
        signal += t * t;
        power += c * c;
        product += c * t;
    }
    let max_relative =
        candidate.iter().zip(truth).filter(|(_, t)| **t != 0.0 && t.abs() >= SMALLEST_SHARE * peak);
    let max_relative = max_relative.map(|(&c, t)| ((c.into() - t) / t).abs()).fold(0.0, f64::max);
    let rms = (noise / truth.len() as f64).sqrt();
    let cosine = match (power > 0.0, signal > 0.0) {
        (true, true) => product / (power.sqrt() * signal.sqrt()),
        (false, false) => 1.0,
        _ => 0.0,
    };
    let sqnr_db = if noise > 0.0 { 10.0 * (signal / noise).log10() } else { f64::INFINITY };
    Ok(Difference { elements: truth.len(), max_abs, max_relative, rms, peak, cosine, sqnr_db })
}

/// At how many images, or pixels, of logits `[N, classes, …]` the `k` largest stand at the same places on both sides, in
/// any order: (agreeing, all). Arrays of other elements agree nowhere.
#[must_use]
pub fn top(k: usize, candidate: &ArrayD<f32>, truth: &ArrayD<f64>) -> (usize, usize) {
    let Ok(candidate) = candidate.to_shape(truth.shape()) else { return (0, 0) };
    if truth.ndim() < 2 {
        return (0, 0);
    }
    let lanes = truth.lanes(Axis(1)).into_iter().zip(candidate.lanes(Axis(1)));
    let (mut agreeing, mut all) = (0, 0);
    for (truth, candidate) in lanes {
        all += 1;
        let found = largest(k, candidate.iter().map(|&x| f64::from(x)));
        agreeing += usize::from(found == largest(k, truth.iter().copied()));
    }
    (agreeing, all)
}

/// Sorted indices of the `k` largest values; of equal ones the first.
fn largest(k: usize, row: impl Iterator<Item = f64>) -> Vec<usize> {
    // The best so far, best first.
    let mut best: Vec<(f64, usize)> = Vec::with_capacity(k + 1);
    for (index, value) in row.enumerate() {
        let place = best.partition_point(|(other, _)| other.total_cmp(&value).is_ge());
        if place < k {
            best.insert(place, (value, index));
            best.truncate(k);
        }
    }
    let mut indices: Vec<usize> = best.into_iter().map(|(_, index)| index).collect();
    indices.sort_unstable();
    indices
}

/// A largest error that is still agreement, and why.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tolerance {
    /// As reports name it.
    pub name: &'static str,
    /// Of [`Difference::relative`], inclusive.
    pub bound: f64,
    /// Where the bound comes from.
    pub why: &'static str,
}

impl Tolerance {
    #[must_use]
    pub fn admits(&self, difference: &Difference) -> bool {
        difference.relative() <= self.bound
    }
}

/// Two evaluations in f64.
pub const FLOAT64: Tolerance = Tolerance {
    name: "f64",
    bound: 1e-8,
    why: "published vectors print 9 significant digits, which is up to 5e-9 of the value; the arithmetic itself \
          stays near 1e-14",
};

// Let u be half of what separates 1 from the next number of a format. The longest path through a decomposed
// EMO has 380 operators that round their result: 380 roundings of random sign add up to √380 · u/√3 = 11 u of a
// typical value. The largest of a thousand such errors is 3.3 times the typical one, the largest of a thousand
// logits 3.3 times the typical logit: 11 u of the largest.

/// An engine in f32 against the truth in f64.
pub const FLOAT32: Tolerance = Tolerance {
    name: "f32",
    bound: 2e-6,
    why: "u = 2^-24 = 6e-8: 11 u for up to 380 roundings one after the other, as much for sums over up to 1600 \
          terms, which are in f32 too, and for engines' polynomials for erf and exp: 33 u; right files are off by \
          4e-7 to 1.2e-6, the mildest known mistake, a batch norm's epsilon of 1e-5, by 1e-3",
};

/// An engine in f32 against the truth in f64, through a backbone and what stands on it.
pub const FLOAT32_DEEP: Tolerance = Tolerance {
    name: "f32",
    bound: 5e-6,
    why: "as f32's for a classifier, whose head averages errors over a map and here does not: an output has a value for \
          each pixel, behind up to 13 convolutions more over up to 11520 terms; right files are off by 1e-6 to 3e-6",
};

/// An engine in f16 with sums in f32.
pub const FLOAT16: Tolerance = Tolerance {
    name: "f16",
    bound: 6e-3,
    why: "u = 2^-11 = 4.9e-4: 12 u for weights that are rounded and up to 380 roundings one after the other; \
          engines sum in f32",
};

/// An engine in bf16 with sums in f32.
pub const BFLOAT16: Tolerance = Tolerance {
    name: "bf16",
    bound: 4.7e-2,
    why: "u = 2^-8 = 3.9e-3: 12 u for weights that are rounded and up to 380 roundings one after the other; \
          engines sum in f32",
};

/// An engine in 8-bit integers with a scale a tensor or a channel.
pub const INT8: Tolerance = Tolerance {
    name: "int8",
    bound: 1e-1,
    why: "255 steps from a tensor's smallest value to its largest: 2.3e-3 of the largest a tensor, which some 180 \
          tensors make 3e-2, and the largest of a thousand errors 1e-1; wider than bf16, \
          since a step is a share of the largest value and not of each",
};

/// The tolerances that can be asked for, from fine to coarse.
pub const TOLERANCES: [&Tolerance; 4] = [&FLOAT32, &FLOAT16, &BFLOAT16, &INT8];

impl Tolerance {
    /// `f32`, `f16`, `bf16` or `int8`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TOLERANCES.into_iter().find(|tolerance| tolerance.name == name)
    }
}

/// Of two tolerances the wider one.
#[must_use]
pub fn coarser(a: &'static Tolerance, b: &'static Tolerance) -> &'static Tolerance {
    if a.bound < b.bound { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_the_definitions() {
        let d = compare(&[3.0_f32, -4.0, 0.5], &[3.0, -5.0, 0.0]).unwrap();
        assert_eq!((d.elements, d.max_abs, d.peak, d.relative(), d.max_relative), (3, 1.0, 5.0, 0.2, 0.2));
        assert!((d.rms - (1.25_f64 / 3.0).sqrt()).abs() < 1e-15);
        assert!((d.cosine - 29.0 / (25.25_f64 * 34.0).sqrt()).abs() < 1e-15);
        assert!((d.sqnr_db - 10.0 * (34.0_f64 / 1.25).log10()).abs() < 1e-12);
    }

    #[test]
    fn equal_values_have_no_error() {
        let d = compare(&[1.0, -2.0], &[1.0, -2.0]).unwrap();
        assert_eq!((d.relative(), d.sqnr_db), (0.0, f64::INFINITY));
        assert!((d.cosine - 1.0).abs() < 1e-15);
        assert!(FLOAT32.admits(&d));
    }

    #[test]
    fn against_zeros_only_zeros_pass() {
        assert!(FLOAT32.admits(&compare(&[0.0, -0.0], &[0.0, 0.0]).unwrap()));
        let d = compare(&[1e-30, 0.0], &[0.0, 0.0]).unwrap();
        assert_eq!((d.relative(), d.cosine), (f64::INFINITY, 0.0));
        assert!(!FLOAT32.admits(&d));
    }

    #[test]
    fn what_has_no_measure_is_an_error() {
        let cases: [(&[f64], &[f64], &str); 6] = [
            (&[1.0], &[1.0, 2.0], "expected 2 elements, found 1"),
            (&[], &[], "expected elements to compare, found none"),
            (&[1.0, f64::NAN], &[1.0, 2.0], "found NaN at element 1"),
            (&[1.0, 2.0], &[f64::NAN, 2.0], "found NaN at element 0"),
            (&[f64::INFINITY], &[f64::INFINITY], "found inf at element 0"),
            (&[f64::NEG_INFINITY], &[1.0], "found -inf at element 0"),
        ];
        for (candidate, truth, expected) in cases {
            let message = compare(candidate, truth).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_bound_is_inclusive_and_relative_to_the_peak() {
        let half = Tolerance { name: "half", bound: 0.5, why: "" };
        assert!(half.admits(&compare(&[2.0, 3.0], &[1.0, 2.0]).unwrap()));
        assert!(!half.admits(&compare(&[2.1, 3.0], &[1.0, 2.0]).unwrap()));
    }

    fn array(values: &[f64]) -> ArrayD<f64> {
        ArrayD::from_shape_vec(vec![values.len() / 3, 3], values.to_vec()).unwrap()
    }

    #[test]
    fn top1_counts_rows_and_ties_go_to_the_first() {
        let truth = array(&[1.0, 3.0, 3.0, /**/ 0.0, -1.0, 2.0]);
        let other = |values: &[f64]| array(values).mapv(|x| x as f32);
        assert_eq!(top(1, &other(&[0.0, 9.0, 1.0, 5.0, 0.0, 4.0]), &truth), (1, 2));
        assert_eq!(top(1, &truth.mapv(|x| x as f32), &truth), (2, 2));
        assert_eq!(top(2, &other(&[0.0, 3.0, 9.0, 5.0, 0.0, 4.0]), &truth), (2, 2));
        assert_eq!(top(5, &truth.mapv(|x| x as f32), &array(&[-1.0; 6])), (2, 2));
        assert_eq!(top(1, &other(&[0.0; 3]), &truth), (0, 0));
    }
}
