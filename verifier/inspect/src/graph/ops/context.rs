//! What a rule sees of its node.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use emo_proto::attribute_proto::AttributeType;
use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::{AttributeProto, NodeProto, TensorProto};

use super::Why;
use crate::fact::{Fact, MOST_ELEMENTS, MOST_REALS};
use crate::real::Real;
use crate::sym::Expr;

/// The attributes that a function was called with, by name.
pub type Arguments<'a> = HashMap<&'a str, &'a AttributeProto>;

/// A node with the facts of its operands.
#[derive(Debug)]
pub struct Ctx<'a> {
    pub node: &'a NodeProto,
    /// Version of the operator set that the node belongs to.
    pub opset: i64,
    /// `None` where an optional operand is absent.
    pub inputs: &'a [Option<Arc<Fact>>],
    /// What the attributes of a function's node may refer to.
    pub arguments: &'a Arguments<'a>,
    /// Where tensors keep their data.
    pub external: &'a External,
    /// Whether the rule asked for something that is not known before the graph runs: then its
    /// failure is no contradiction.
    pub(crate) blind: Cell<bool>,
}

impl<'a> Ctx<'a> {
    /// Of a node whose attributes alone are read.
    #[must_use]
    pub fn of_attributes(
        node: &'a NodeProto,
        opset: i64,
        arguments: &'a Arguments<'a>,
        external: &'a External,
    ) -> Self {
        Self { node, opset, inputs: &[], arguments, external, blind: Cell::new(false) }
    }

    /// The operand, which must be there.
    pub fn input(&self, index: usize) -> Result<&'a Fact, Why> {
        self.optional(index).ok_or_else(|| format!("operand {index} is missing"))
    }

    #[must_use]
    pub fn optional(&self, index: usize) -> Option<&'a Fact> {
        self.inputs.get(index).and_then(Option::as_deref)
    }

    /// The element type of an operand, which must be there.
    pub fn dtype(&self, index: usize) -> Result<DataType, Why> {
        Ok(self.input(index)?.dtype)
    }

    /// The extents of an operand, which must be known in number.
    pub fn dims(&self, index: usize) -> Result<&'a [Expr], Why> {
        self.input(index)?.dims.as_deref().map_err(|reason| self.unknown(reason))
    }

    /// The elements of an integer operand that decides a shape.
    pub fn elements(&self, index: usize) -> Result<&'a [Expr], Why> {
        self.input(index)?.elements.as_deref().ok_or_else(|| self.unknown(&self.runtime(index)))
    }

    /// The elements of an operand that is a shape or part of one; unknown ones where only their
    /// number is known.
    pub fn extents(&self, index: usize) -> Result<Vec<Expr>, Why> {
        let blind = self.blind.get();
        let why = match self.elements(index) {
            Ok(elements) => return Ok(elements.to_vec()),
            Err(why) => why,
        };
        match self.input(index)?.count().count() {
            Some(count) if count <= MOST_REALS as u64 => {
                self.blind.set(blind);
                Ok(vec![Expr::unknown(&why); count as usize])
            }
            _ => Err(why),
        }
    }

    /// The elements of a float operand that decides a shape.
    pub fn reals(&self, index: usize) -> Result<&'a [Real], Why> {
        self.input(index)?.reals.as_deref().ok_or_else(|| self.unknown(&self.runtime(index)))
    }

    /// The only element of an integer operand.
    pub fn element(&self, index: usize) -> Result<&'a Expr, Why> {
        match self.elements(index)? {
            [one] => Ok(one),
            many => Err(format!("expected one element, found {}", many.len())),
        }
    }

    fn runtime(&self, index: usize) -> String {
        let name = self.node.input.get(index).map_or("", String::as_str);
        format!("{name} is known only when the graph runs")
    }

    /// The reason as an error that is no contradiction.
    #[must_use]
    pub fn unknown(&self, reason: &str) -> Why {
        self.blind.set(true);
        reason.to_owned()
    }

    /// A fact of this type: with the extents that `dims` finds, or none where they depend on what is
    /// not known before the graph runs. A contradiction stays an error.
    pub fn shaped(
        &self,
        dtype: DataType,
        dims: impl FnOnce() -> Result<Vec<Expr>, Why>,
    ) -> Result<Fact, Why> {
        let before = self.blind.replace(false);
        let found = match dims() {
            Ok(dims) => Ok(Fact::new(dtype, dims)),
            Err(why) if self.blind.get() => Ok(Fact::unknown(dtype, &why)),
            Err(why) => Err(why),
        };
        self.blind.set(before);
        found
    }

    /// The attribute; inside a function perhaps the caller's.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        let attribute = self.node.attribute.iter().find(|a| a.name() == name)?;
        match attribute.ref_attr_name.as_deref() {
            None | Some("") => Some(attribute),
            Some(argument) => self.arguments.get(argument).copied(),
        }
    }

    #[must_use]
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    #[must_use]
    pub fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name).and_then(|a| a.f)
    }

    #[must_use]
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    #[must_use]
    pub fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|a| a.floats.as_slice())
    }

    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.attribute(name).and_then(|a| a.s.as_deref()).and_then(|s| std::str::from_utf8(s).ok())
    }

    /// An element type that an attribute gives: a number, or its name in the first opset.
    pub fn dtype_of(&self, name: &str) -> Result<Option<DataType>, Why> {
        let Some(attribute) = self.attribute(name) else { return Ok(None) };
        let dtype = match attribute.s.as_deref() {
            Some(s) if attribute.r#type() == AttributeType::String => {
                std::str::from_utf8(s).ok().and_then(|s| DataType::from_str_name(&s.to_uppercase()))
            }
            _ => i32::try_from(attribute.i()).ok().and_then(|i| DataType::try_from(i).ok()),
        };
        dtype.map(Some).ok_or_else(|| format!("expected {name} to be an element type, found {attribute:?}"))
    }

    /// Integers that an older opset has as the attribute `name`, a newer one as operand `index`.
    pub fn ints_or_operand(&self, name: &str, index: usize) -> Result<Option<Vec<Expr>>, Why> {
        if let Some(ints) = self.ints(name) {
            return Ok(Some(ints.iter().map(|&n| n.into()).collect()));
        }
        self.optional(index).map(|_| self.elements(index).map(<[Expr]>::to_vec)).transpose()
    }

    /// An axis of a tensor of `rank` axes, counted from the end where negative.
    pub fn axis(axis: i64, rank: usize) -> Result<usize, Why> {
        let from_start = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        from_start
            .and_then(|a| usize::try_from(a).ok())
            .filter(|&a| a < rank)
            .ok_or_else(|| format!("expected an axis of {rank}, found {axis}"))
    }

    /// Axes given as elements, each once.
    pub fn axes(axes: &[Expr], rank: usize) -> Result<Vec<usize>, Why> {
        let mut seen = vec![false; rank];
        let mut once = |axis: &Expr| {
            let axis = Self::axis(axis.number().ok_or("an axis is known only when the graph runs")?, rank)?;
            match std::mem::replace(&mut seen[axis], true) {
                false => Ok(axis),
                true => Err(format!("expected each axis once, found {axis} again")),
            }
        };
        axes.iter().map(&mut once).collect()
    }

    /// The fact of a tensor that an attribute holds.
    #[must_use]
    pub fn tensor_of(&self, proto: &TensorProto) -> Fact {
        Self::tensor_in(proto, self.external)
    }

    /// The fact of a tensor that the file holds: a constant's type, and its elements where small.
    #[must_use]
    pub fn tensor(proto: &TensorProto) -> Fact {
        Self::tensor_in(proto, &External::none())
    }

    /// The same, where small tensors may keep their data outside the file.
    #[must_use]
    pub fn tensor_in(proto: &TensorProto, external: &External) -> Fact {
        let dims = proto.dims.iter().map(|&d| d.into()).collect();
        let fact = Fact::new(DataType::try_from(proto.data_type()).unwrap_or(DataType::Undefined), dims);
        let most = match fact.dtype {
            DataType::Int64 | DataType::Int32 | DataType::Bool => MOST_ELEMENTS,
            _ => MOST_REALS,
        };
        if fact.count().count().is_none_or(|n| n > most as u64) {
            return fact;
        }
        let Ok(tensor) = Tensor::decode(proto, external) else { return fact };
        if fact.is_float() {
            let reals = tensor.f64s().ok().map(|r| r.into_iter().map(Real::Number).collect());
            return fact.holding_reals(reals);
        }
        fact.holding(tensor.i64s().ok().map(|e| e.into_iter().map(Expr::Number).collect()))
    }
}
