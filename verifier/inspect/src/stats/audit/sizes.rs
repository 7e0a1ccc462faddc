//! Sizes that a user gives to what a file leaves open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use emo_proto::tensor_shape_proto::{Dimension, dimension};
use emo_proto::{Error, ModelProto, Result, ValueInfoProto, type_proto};

use crate::infer::Bindings;
use crate::typed::NAMELESS;

/// Numbers for named dimensions, and whole shapes for inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    /// `batch` → 1; a dimension without a name is called after its input and axis: `images.0`.
    pub dims: Bindings,
    /// `images` → `[1, 3, 640, 640]`.
    pub inputs: BTreeMap<String, Vec<i64>>,
}

impl Sizes {
    /// Adds `batch=1`.
    ///
    /// # Errors
    /// The text is no name and number, or contradicts what was given before.
    pub fn dim(&mut self, text: &str) -> Result<()> {
        let parsed = named(text).and_then(|(name, size)| Some((name, number(size)?)));
        let (name, size) =
            parsed.ok_or_else(|| Error::new(format!("expected a dimension as batch=1, found {text}")))?;
        insert(&mut self.dims, name, size)
    }

    /// Adds `images=1,3,640,640`; an `x` separates as well as a comma.
    ///
    /// # Errors
    /// The text is no name and numbers, or contradicts what was given before.
    pub fn input(&mut self, text: &str) -> Result<()> {
        let parsed = named(text).and_then(|(name, shape)| {
            let extents = shape.split([',', 'x']).filter(|_| !shape.is_empty());
            Some((name, extents.map(number).collect::<Option<Vec<i64>>>()?))
        });
        let (name, shape) = parsed
            .ok_or_else(|| Error::new(format!("expected an input as images=1,3,640,640, found {text}")))?;
        insert(&mut self.inputs, name, shape)
    }

    /// The names given that `model` has neither an open dimension nor an input for.
    #[must_use]
    pub fn unknown(&self, model: &ModelProto) -> Vec<String> {
        let known = open_names(model);
        self.dims.keys().chain(self.inputs.keys()).filter(|name| !known.contains(*name)).cloned().collect()
    }

    /// The number of every dimension of `model` that has one: what an input's whole shape fixes
    /// holds wherever the dimension's name stands.
    ///
    /// # Errors
    /// Two sizes for one dimension, or a shape of another rank than the input declares.
    pub fn bindings(&self, model: &ModelProto) -> Result<Bindings> {
        let mut bindings = self.dims.clone();
        for input in model.graph.iter().flat_map(|graph| &graph.input) {
            let Some(sizes) = self.inputs.get(input.name()) else { continue };
            let at = |error: Error| error.at(format!("input {}", input.name()));
            let dims = declared(input);
            if dims.is_some_and(|dims| dims.len() != sizes.len()) {
                let (expected, found) = (dims.unwrap_or_default().len(), sizes.len());
                return Err(at(Error::new(format!("expected {expected} extents, found {found}"))));
            }
            for (axis, &size) in sizes.iter().enumerate() {
                insert(&mut bindings, &format!("{}.{axis}", input.name()), size).map_err(at)?;
                let dim = dims.and_then(|dims| dims.get(axis));
                if let Some(symbol) = dim.and_then(|dim| symbol(input.name(), axis, dim)) {
                    insert(&mut bindings, &symbol, size).map_err(at)?;
                }
            }
        }
        Ok(bindings)
    }
}

/// The inputs of a file, the names of their open dimensions, and their axes: what takes a size.
#[must_use]
pub fn open_names(model: &ModelProto) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for input in model.graph.iter().flat_map(|graph| &graph.input) {
        names.insert(input.name().to_owned());
        let dims = declared(input).unwrap_or_default().iter().enumerate();
        names.extend(dims.clone().filter_map(|(axis, dim)| symbol(input.name(), axis, dim)));
        names.extend(dims.map(|(axis, _)| format!("{}.{axis}", input.name())));
    }
    names
}

fn named(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once('=').filter(|(name, _)| !name.is_empty())
}

fn number(text: &str) -> Option<i64> {
    text.trim().parse().ok().filter(|&n| n >= 0)
}

fn insert<V: PartialEq + Debug + Clone>(map: &mut BTreeMap<String, V>, name: &str, value: V) -> Result<()> {
    match map.insert(name.to_owned(), value.clone()) {
        Some(before) if before != value => {
            Err(Error::new(format!("expected one size for {name}, found {before:?} and {value:?}")))
        }
        _ => Ok(()),
    }
}

/// The name of an open dimension.
fn symbol(input: &str, axis: usize, dim: &Dimension) -> Option<String> {
    match &dim.value {
        Some(dimension::Value::DimValue(_)) => None,
        Some(dimension::Value::DimParam(name)) if !NAMELESS.contains(&name.as_str()) => Some(name.clone()),
        _ => Some(format!("{input}.{axis}")),
    }
}

/// The extents that an input declares, if it declares any.
fn declared(input: &ValueInfoProto) -> Option<&[Dimension]> {
    match input.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.as_ref().map(|shape| shape.dim.as_slice()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let mut sizes = Sizes::default();
        for (input, shape) in
            [("images=1,3,640,640", vec![1, 3, 640, 640]), ("x=2x3", vec![2, 3]), ("s=", vec![])]
        {
            sizes.input(input).unwrap();
            assert_eq!(sizes.inputs[input.split('=').next().unwrap()], shape);
        }
        for wrong in ["", "=1", "images", "images=1,-1", "images=1,,3"] {
            assert!(sizes.input(wrong).is_err(), "{wrong}");
        }
        sizes.dim("batch=1").unwrap();
        sizes.dim("batch=1").unwrap();
        let error = sizes.dim("batch=2").unwrap_err().to_string();
        assert_eq!(error, "expected one size for batch, found 1 and 2");
    }
}
