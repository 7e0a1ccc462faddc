//! What a rule sees of its node.

use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::{AttributeProto, NodeProto};

use super::Why;
use crate::fact::Fact;
use crate::sym::Expr;

/// A node with the facts of its operands.
#[derive(Debug)]
pub struct Ctx<'a> {
    pub node: &'a NodeProto,
    /// Version of the operator set that the node belongs to.
    pub opset: i64,
    /// `None` where an optional operand is absent.
    pub inputs: &'a [Option<Fact>],
}

impl<'a> Ctx<'a> {
    /// The operand, which must be there.
    pub fn input(&self, index: usize) -> Result<&'a Fact, Why> {
        self.optional(index).ok_or_else(|| format!("operand {index} is missing"))
    }

    #[must_use]
    pub fn optional(&self, index: usize) -> Option<&'a Fact> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// The extents of an operand, which must be known in number.
    pub fn dims(&self, index: usize) -> Result<&'a [Expr], Why> {
        match &self.input(index)?.dims {
            Ok(dims) => Ok(dims),
            Err(reason) => Err(reason.to_string()),
        }
    }

    /// The elements of an integer operand that decides a shape.
    pub fn elements(&self, index: usize) -> Result<&'a [Expr], Why> {
        let fact = self.input(index)?;
        let name = || self.node.input.get(index).map_or("", String::as_str);
        fact.elements.as_deref().ok_or_else(|| format!("{} is known only when the graph runs", name()))
    }

    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|a| a.name() == name)
    }

    #[must_use]
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    #[must_use]
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.attribute(name).and_then(|a| a.s.as_deref()).and_then(|s| std::str::from_utf8(s).ok())
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

    /// Axes given as elements.
    pub fn axes(axes: &[Expr], rank: usize) -> Result<Vec<usize>, Why> {
        axes.iter()
            .map(|axis| Self::axis(axis.number().ok_or("an axis is known only when the graph runs")?, rank))
            .collect()
    }

    /// The fact of a tensor that the file holds: a constant's type, and its elements where small.
    #[must_use]
    pub fn tensor(proto: &emo_proto::TensorProto) -> Fact {
        let dims = proto.dims.iter().map(|&d| d.into()).collect();
        let fact = Fact::new(DataType::try_from(proto.data_type()).unwrap_or(DataType::Undefined), dims);
        let integers = matches!(fact.dtype, DataType::Int64 | DataType::Int32 | DataType::Bool);
        let small = fact.count().number().is_some_and(|n| n <= crate::fact::MOST_ELEMENTS as i64);
        if !(integers && small) {
            return fact;
        }
        let elements = Tensor::decode(proto, &External::none()).and_then(|t| t.i64s()).ok();
        fact.holding(elements.map(|e| e.into_iter().map(Expr::Number).collect()))
    }
}
