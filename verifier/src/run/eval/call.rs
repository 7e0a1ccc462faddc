//! What an operator's function sees of its node.

use std::cell::{Cell, RefCell};
use std::ops::Deref;

use emo_proto::tensor_proto::DataType;

use super::Why;
use super::round::Step;
use super::value::{Value, axis};
use crate::ops::Ctx;

/// Runs a body that the node holds as this attribute, on values for the body's inputs.
pub(crate) type Bodies<'a> = dyn Fn(&str, &[Value]) -> Result<Vec<Value>, Why> + 'a;

/// A node with the values of its operands; its attributes are [`Ctx`]'s.
pub(crate) struct Call<'a> {
    pub attributes: Ctx<'a>,
    pub operands: Vec<Option<Value>>,
    /// How what it computes is rounded.
    pub step: RefCell<Step<'a>>,
    /// Terms of the longest sum behind an element of its output.
    pub terms: Cell<usize>,
    /// Whether its output is free of rounding of its own, though its operator's is not always.
    pub moved: Cell<bool>,
    pub bodies: &'a Bodies<'a>,
}

impl<'a> Deref for Call<'a> {
    type Target = Ctx<'a>;
    fn deref(&self) -> &Ctx<'a> {
        &self.attributes
    }
}

impl Call<'_> {
    /// The operand, which must be there.
    pub fn operand(&self, index: usize) -> Result<&Value, Why> {
        self.maybe(index).ok_or_else(|| format!("operand {index} is missing"))
    }

    pub fn maybe(&self, index: usize) -> Option<&Value> {
        self.operands.get(index).and_then(Option::as_ref)
    }

    /// The number of outputs that the node names.
    pub fn wanted(&self) -> usize {
        self.node.output.len()
    }

    pub fn real(&self, name: &str, default: f64) -> f64 {
        // Written in decimal and stored as f32: 1e-5 is meant as every engine computes with it.
        self.float(name).map_or(default, f64::from)
    }

    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.int(name, default.into()) != 0
    }

    /// The axis that an attribute names.
    pub fn axis_of(&self, name: &str, default: i64, rank: usize) -> Result<usize, Why> {
        axis(self.int(name, default), rank)
    }

    /// Integers that an older opset has as the attribute `name`, a newer one as operand `index`.
    pub fn list(&self, name: &str, index: usize) -> Option<Vec<i64>> {
        self.ints(name).map(<[i64]>::to_vec).or_else(|| self.maybe(index).map(Value::integers))
    }

    /// Says that elements of the output are sums of so many terms.
    pub fn sums(&self, terms: usize) {
        self.terms.set(self.terms.get().max(terms));
    }

    /// A real number of integer units, beside its zero point, as the file stores it in `dtype`.
    pub fn quantised(&self, units: f64, zero: f64, dtype: DataType) -> f64 {
        self.step.borrow().quantised(units, zero, dtype)
    }

    /// A number on the way to the output as the file stores it in `dtype`.
    pub fn stored(&self, x: f64, dtype: DataType) -> f64 {
        self.step.borrow().stored(x, dtype)
    }
}
