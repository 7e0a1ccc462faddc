//! What a declared type tells.

use std::sync::Arc;

use emo_proto::tensor_proto::DataType;
use emo_proto::tensor_shape_proto::dimension;
use emo_proto::{TypeProto, type_proto};

use crate::fact::{Fact, Kind};
use crate::sym::Expr;

/// What exporters write for the name of an extent that has none.
pub(crate) const NAMELESS: [&str; 4] = ["", "?", "-1", "None"];

/// The fact that a type tells; a nameless extent is called after the value and its axis.
pub(crate) fn of_type(r#type: &TypeProto, name: &str) -> Fact {
    let boxed = |inner: Option<&TypeProto>| {
        let missing = || Fact::unknown(DataType::Undefined, &format!("{name} declares no type"));
        Arc::new(inner.map_or_else(missing, |t| of_type(t, name)))
    };
    let dtype = |code: i32| DataType::try_from(code).unwrap_or(DataType::Undefined);
    let tensor = |code: i32, shape: &Option<emo_proto::TensorShapeProto>| match shape {
        None => Fact::unknown(dtype(code), &format!("{name} declares no shape")),
        Some(shape) => {
            let dim = |(axis, dim): (usize, &emo_proto::tensor_shape_proto::Dimension)| match &dim.value {
                Some(dimension::Value::DimValue(n)) if *n >= 0 => Expr::Number(*n),
                Some(dimension::Value::DimParam(symbol)) if !NAMELESS.contains(&symbol.as_str()) => {
                    Expr::symbol(symbol)
                }
                _ => Expr::symbol(&format!("{name}.{axis}")),
            };
            Fact::new(dtype(code), shape.dim.iter().enumerate().map(dim).collect())
        }
    };
    match &r#type.value {
        Some(type_proto::Value::TensorType(t)) => tensor(t.elem_type(), &t.shape),
        Some(type_proto::Value::SparseTensorType(t)) => {
            Fact { kind: Kind::Sparse, ..tensor(t.elem_type(), &t.shape) }
        }
        Some(type_proto::Value::SequenceType(t)) => {
            Fact::sequence(Arc::unwrap_or_clone(boxed(t.elem_type.as_deref())), None)
        }
        Some(type_proto::Value::OptionalType(t)) => {
            Fact::of_kind(Kind::Optional(boxed(t.elem_type.as_deref())))
        }
        Some(type_proto::Value::MapType(t)) => {
            Fact::of_kind(Kind::Map(dtype(t.key_type()), boxed(t.value_type.as_deref())))
        }
        Some(type_proto::Value::OpaqueType(_)) => Fact::of_kind(Kind::Opaque),
        None => Fact::unknown(DataType::Undefined, &format!("{name} declares no type")),
    }
}
