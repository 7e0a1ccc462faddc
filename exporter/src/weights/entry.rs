//! A tensor of a file, before it is read.

use std::collections::BTreeMap;
use std::fmt;

use emo_proto::tensor::Tensor;
use emo_proto::{Error, Result};

/// A tensor of a file.
pub(super) struct Entry {
    pub shape: Vec<usize>,
    /// Reads the elements, as f32.
    pub read: Box<dyn Fn() -> Result<Tensor>>,
}

/// Tensors by name.
pub(super) type Listing = BTreeMap<String, Entry>;

/// The error of a tensor whose elements cannot be weights.
pub(super) fn not_float(dtype: impl fmt::Debug) -> Error {
    Error::new(format!("expected elements of type f16, bf16, f32 or f64, found {dtype:?}"))
}
