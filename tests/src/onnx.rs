//! Small ONNX models, written out.

use emo_proto::attribute_proto::AttributeType;
use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::tensor_shape_proto::{Dimension, dimension};
use emo_proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

/// An extent of a declared shape: a number, a name, or neither.
#[derive(Debug, Clone)]
pub enum Extent {
    Number(i64),
    Name(&'static str),
    Open,
}

impl From<i64> for Extent {
    fn from(n: i64) -> Self {
        Extent::Number(n)
    }
}

impl From<&'static str> for Extent {
    fn from(name: &'static str) -> Self {
        Extent::Name(name)
    }
}

#[must_use]
pub fn tensor_type(dtype: DataType, shape: Option<&[Extent]>) -> TypeProto {
    let dim = |extent: &Extent| Dimension {
        value: match extent {
            Extent::Number(n) => Some(dimension::Value::DimValue(*n)),
            Extent::Name(name) => Some(dimension::Value::DimParam((*name).to_owned())),
            Extent::Open => None,
        },
        ..Default::default()
    };
    let shape = shape.map(|shape| TensorShapeProto { dim: shape.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: Some(dtype.into()), shape };
    TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }
}

/// A declared tensor.
#[must_use]
pub fn value(name: &str, dtype: DataType, shape: &[Extent]) -> ValueInfoProto {
    let r#type = Some(tensor_type(dtype, Some(shape)));
    ValueInfoProto { name: Some(name.to_owned()), r#type, ..Default::default() }
}

/// A value without a type.
#[must_use]
pub fn named(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..Default::default() }
}

/// A node called after its operator and first output.
#[must_use]
pub fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    NodeProto {
        op_type: Some(operator.into()),
        input: strings(inputs),
        output: strings(outputs),
        attribute: attributes,
        ..Default::default()
    }
}

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(r#type.into()), ..Default::default() }
}

#[must_use]
pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i: Some(i), ..attribute(name, AttributeType::Int) }
}

#[must_use]
pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f: Some(f), ..attribute(name, AttributeType::Float) }
}

#[must_use]
pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { ints: ints.to_vec(), ..attribute(name, AttributeType::Ints) }
}

#[must_use]
pub fn text(name: &str, text: &str) -> AttributeProto {
    AttributeProto { s: Some(text.as_bytes().to_vec()), ..attribute(name, AttributeType::String) }
}

#[must_use]
pub fn tensor(name: &str, tensor: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(tensor.into()), ..attribute(name, AttributeType::Tensor) }
}

#[must_use]
pub fn graph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(graph.into()), ..attribute(name, AttributeType::Graph) }
}

/// What a function's caller gives as `argument`.
#[must_use]
pub fn reference(name: &str, argument: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { ref_attr_name: Some(argument.to_owned()), ..attribute(name, r#type) }
}

/// A list of integers as a constant.
///
/// # Panics
/// Never: the list has the length that it says.
#[must_use]
pub fn list(name: &str, elements: &[i64]) -> TensorProto {
    Tensor::from_i64(vec![elements.len()], elements).expect("as many elements as it says").encode(name)
}

/// A scalar as a constant.
///
/// # Panics
/// Never: it holds one element.
#[must_use]
pub fn scalar(name: &str, element: i64) -> TensorProto {
    Tensor::from_i64(Vec::new(), &[element]).expect("one element").encode(name)
}

/// Float zeros as a constant that keeps no data.
#[must_use]
pub fn weight(name: &str, shape: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(DataType::Float.into()),
        dims: shape.to_vec(),
        ..Default::default()
    }
}

#[must_use]
pub fn graph_of(
    input: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
    node: Vec<NodeProto>,
    outputs: &[&str],
) -> GraphProto {
    let output = outputs.iter().map(|name| named(name)).collect();
    GraphProto { input, initializer, node, output, ..Default::default() }
}

/// A model in the newest operator set that its `opset` names.
#[must_use]
pub fn model(opset: i64, graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(opset) }],
        graph: Some(graph),
        ..Default::default()
    }
}
