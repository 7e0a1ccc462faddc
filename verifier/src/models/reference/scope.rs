//! Weights by their published, dotted names.

use emo_exporter::weights::Weights;
use emo_proto::{Error, Result};

/// A module's place in the state dict: `stage3.4.qk.conv`.
pub struct Scope<'w> {
    weights: &'w Weights,
    path: String,
}

impl<'w> Scope<'w> {
    pub fn root(weights: &'w Weights) -> Self {
        Self { weights, path: String::new() }
    }

    /// The module `name` inside this one.
    pub fn at(&self, name: &str) -> Self {
        Self { weights: self.weights, path: self.join(name) }
    }

    /// This module's tensor `name`, which must have the shape `dims`: row-major elements.
    pub fn get(&self, name: &str, dims: &[usize]) -> Result<Vec<f64>> {
        let path = self.join(name);
        let found = self.dims(name)?;
        if found != dims {
            return Err(Error::new(format!("expected a weight of shape {dims:?}, found {found:?}")).at(path));
        }
        self.tensor(name)?.f64s().map_err(|e| e.at(path))
    }

    /// The shape of this module's tensor `name`.
    pub fn dims(&self, name: &str) -> Result<&'w [usize]> {
        Ok(&self.tensor(name)?.dims)
    }

    fn tensor(&self, name: &str) -> Result<&'w emo_proto::tensor::Tensor> {
        let path = self.join(name);
        self.weights
            .get(&path)
            .ok_or_else(|| Error::new("expected a weight of this name, found none").at(path))
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}
