//! Whether the values of a network fit float16: each tensor's range, taken from a run in f32.

use std::collections::HashSet;

use emo_proto::file::OnnxFile;
use emo_proto::tensor::Tensor;
use emo_proto::{Error, Result};
use ndarray::ArrayD;
use serde::Serialize;

use crate::runtime::Runtime;

/// The largest float16, 65504; beyond it a value becomes infinite.
pub const LARGEST: f64 = 65504.0;
/// The smallest float16 of full precision, 2⁻¹⁴; below it a value loses digits.
pub const SMALLEST_NORMAL: f64 = 1.0 / (1 << 14) as f64;

/// What a tensor holds on the inputs that were run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Range {
    pub name: String,
    /// Largest |x|.
    pub largest: f64,
    /// The share of the elements that are no zeros and lie below [`SMALLEST_NORMAL`].
    pub below_normal: f64,
}

impl Range {
    /// Of the values called `name`.
    #[must_use]
    pub fn of(name: &str, values: impl IntoIterator<Item = f32>) -> Self {
        let (mut largest, mut small, mut all) = (0.0_f64, 0_usize, 0_usize);
        for x in values.into_iter().map(|x| f64::from(x).abs()) {
            // A NaN is larger than all.
            largest = if x.is_nan() { f64::INFINITY } else { largest.max(x) };
            small += usize::from(x > 0.0 && x < SMALLEST_NORMAL);
            all += 1;
        }
        Self { name: name.to_owned(), largest, below_normal: small as f64 / all.max(1) as f64 }
    }

    /// Whether float16 holds all of it.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.largest <= LARGEST
    }
}

/// The ranges of those tensors of an f32 file that `wanted` names: weights as they are stored, and what the
/// nodes of the main graph write while they compute `input`, the one input's elements.
///
/// # Errors
/// The engine does not take the file, or data is missing.
pub fn ranges(
    file: &OnnxFile,
    wanted: &HashSet<&str>,
    input: ArrayD<f32>,
    runtime: &dyn Runtime,
) -> Result<Vec<Range>> {
    let graph = file.model.graph.as_ref().ok_or_else(|| Error::new("expected a graph, found none"))?;
    let mut ranges = Vec::new();
    for initializer in graph.initializer.iter().filter(|i| wanted.contains(i.name())) {
        ranges.push(Range::of(initializer.name(), Tensor::decode(initializer, &file.external)?.f32s()?));
    }
    let written = graph.node.iter().flat_map(|node| &node.output);
    let names: Vec<String> = written.filter(|name| wanted.contains(name.as_str())).cloned().collect();
    let inputs: Vec<_> = graph.input.iter().map(|i| (i.name().to_owned(), input.shape().to_vec())).collect();
    let mut session = runtime.prepare(file, &inputs, &names)?;
    let values = session.run(&[input])?;
    ranges.extend(names.iter().zip(values).map(|(name, values)| Range::of(name, values)));
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_float16s() {
        let range = Range::of("x", [0.0, -65504.0, 6.0e-5, 6.2e-5]);
        assert!(range.fits());
        assert_eq!((range.largest, range.below_normal), (65504.0, 0.25));
        assert!(!Range::of("x", [65536.0]).fits());
        assert!(!Range::of("x", [f32::NAN, 1.0]).fits());
        assert_eq!(half::f16::MAX.to_f64(), LARGEST);
        assert_eq!(half::f16::MIN_POSITIVE.to_f64(), SMALLEST_NORMAL);
    }
}
