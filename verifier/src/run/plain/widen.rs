//! The tensors within a graph: their data as raw bytes, 16-bit floats made f32.

use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::{AttributeProto, GraphProto, Result, TensorProto, ValueInfoProto, type_proto};

/// Attributes that name an element type.
const ELEMENT_TYPES: [&str; 4] = ["to", "dtype", "output_dtype", "stash_type"];

/// Makes the data of all tensors in `graph` raw, external data too, and, if `widen`, its 16-bit floats f32:
/// constants, the casts to them, what bodies declare. The values are the same; what is computed from them is rounded less.
pub(super) fn tensors(graph: &mut GraphProto, external: &External, widen: bool) -> Result<()> {
    graph.initializer.iter_mut().try_for_each(|t| tensor(t, external, widen))?;
    if widen {
        graph.input.iter_mut().chain(&mut graph.output).for_each(declaration);
        graph.value_info.clear();
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute
            .t
            .as_deref_mut()
            .into_iter()
            .chain(&mut attribute.tensors)
            .try_for_each(|t| tensor(t, external, widen))?;
        attribute
            .g
            .as_deref_mut()
            .into_iter()
            .chain(&mut attribute.graphs)
            .try_for_each(|g| tensors(g, external, widen))?;
        if widen {
            element_type(attribute);
        }
    }
    Ok(())
}

fn tensor(proto: &mut TensorProto, external: &External, widen: bool) -> Result<()> {
    let half = widen && is_half(proto.data_type());
    let is_raw = proto.raw_data.is_some();
    if proto.data_type() != i32::from(DataType::String) && (half || !is_raw) {
        let mut whole = Tensor::decode(proto, external)?;
        if half {
            whole = whole.into_f32()?;
        }
        *proto = whole.encode(proto.name());
    }
    Ok(())
}

fn is_half(dtype: i32) -> bool {
    dtype == i32::from(DataType::Float16) || dtype == i32::from(DataType::Bfloat16)
}

fn element_type(attribute: &mut AttributeProto) {
    let half = attribute.i.and_then(|i| i32::try_from(i).ok()).is_some_and(is_half);
    if half && ELEMENT_TYPES.contains(&attribute.name()) {
        attribute.i = Some(i32::from(DataType::Float).into());
    }
}

fn declaration(value: &mut ValueInfoProto) {
    if let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_mut().and_then(|t| t.value.as_mut())
        && is_half(tensor.elem_type())
    {
        tensor.elem_type = Some(DataType::Float.into());
    }
}
