//! Small files for the tests of the engines.

use emo_proto::attribute_proto::AttributeType;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::tensor_shape_proto::{Dimension, dimension};
use emo_proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};
use ndarray::ArrayD;

pub(crate) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

pub(crate) fn shapes(shapes: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    shapes.iter().map(|&(name, shape)| (name.to_owned(), shape.to_vec())).collect()
}

pub(crate) fn array(shape: &[usize], values: &[f32]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(shape, values.to_vec()).unwrap()
}

/// A node called `the {op}`.
pub(crate) fn node(
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        name: Some(format!("the {op}")),
        op_type: Some(op.into()),
        input: strings(inputs),
        output: strings(outputs),
        attribute: attributes,
        ..NodeProto::default()
    }
}

pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i: Some(i), ..attribute(name, AttributeType::Int) }
}

pub(crate) fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(graph.into()), ..attribute(name, AttributeType::Graph) }
}

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(r#type.into()), ..AttributeProto::default() }
}

/// A value of rank `dims`, an extent of −1 called after its axis; without `dims` of any rank.
pub(crate) fn value(name: &str, dtype: DataType, dims: Option<&[i64]>) -> ValueInfoProto {
    let extent = |(axis, &n): (usize, &i64)| {
        let value = if n < 0 {
            dimension::Value::DimParam(format!("d{axis}"))
        } else {
            dimension::Value::DimValue(n)
        };
        Dimension { value: Some(value), ..Dimension::default() }
    };
    let shape = dims.map(|dims| TensorShapeProto { dim: dims.iter().enumerate().map(extent).collect() });
    let tensor = type_proto::Tensor { elem_type: Some(dtype.into()), shape };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

pub(crate) fn ints(name: &str, values: &[i64]) -> TensorProto {
    Tensor::from_i64(vec![values.len()], values).unwrap().encode(name)
}

pub(crate) fn floats(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    Tensor::from_f32(dims.to_vec(), values.to_vec()).unwrap().encode(name)
}

pub(crate) fn graph(
    inputs: Vec<ValueInfoProto>,
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    outputs: Vec<ValueInfoProto>,
) -> GraphProto {
    GraphProto {
        node: nodes,
        input: inputs,
        initializer: constants,
        output: outputs,
        ..GraphProto::default()
    }
}

pub(crate) fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { version: Some(17), ..OperatorSetIdProto::default() }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

pub(crate) fn file(model: ModelProto) -> OnnxFile {
    OnnxFile { model, bytes: bytes::Bytes::new(), external: External::none() }
}

/// The file of `nodes`, each (operator, inputs, output), from the f32 inputs a and b to `output`.
pub(crate) fn binary(nodes: &[(&str, &[&str], &str)], output: &str) -> OnnxFile {
    let nodes = nodes.iter().map(|(op, inputs, output)| node(op, inputs, &[output], vec![])).collect();
    let input = |name| value(name, DataType::Float, None);
    file(model(graph(vec![input("a"), input("b")], vec![], nodes, vec![input(output)])))
}

/// A float attribute.
pub(crate) fn attribute_of(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f: Some(f), ..attribute(name, AttributeType::Float) }
}

/// Integers as an attribute.
pub(crate) fn int_list(name: &str, list: &[i64]) -> AttributeProto {
    AttributeProto { ints: list.to_vec(), ..attribute(name, AttributeType::Ints) }
}

/// A text as an attribute.
pub(crate) fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { s: Some(s.as_bytes().to_vec()), ..attribute(name, AttributeType::String) }
}
