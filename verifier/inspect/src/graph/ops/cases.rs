//! Every line of `cases.txt`: what a rule says of a node that ONNX Runtime has run.

use emo_proto::attribute_proto::AttributeType;
use emo_proto::tensor::{DataType, Tensor};
use emo_proto::tensor_shape_proto::{Dimension, dimension};
use emo_proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

use crate::infer::infer;
use crate::sym::Expr;

fn dtype(letter: &str) -> DataType {
    match letter {
        "f" => DataType::Float,
        "d" => DataType::Double,
        "i" => DataType::Int64,
        "j" => DataType::Int32,
        "u" => DataType::Uint8,
        "b" => DataType::Int8,
        "t" => DataType::Bool,
        other => panic!("no type {other}"),
    }
}

fn numbers<T: std::str::FromStr<Err: std::fmt::Debug>>(list: &str) -> Vec<T> {
    list.split(',').filter(|s| !s.is_empty()).map(|s| s.parse().unwrap()).collect()
}

/// `[2,3]` of `f[2,3]`.
fn extents(operand: &str) -> Vec<i64> {
    numbers(operand[1..].trim_matches(['[', ']']))
}

fn input(name: &str, operand: &str) -> ValueInfoProto {
    let dim = |n| Dimension { value: Some(dimension::Value::DimValue(n)), ..Dimension::default() };
    let tensor = type_proto::Tensor {
        elem_type: Some(dtype(&operand[..1]).into()),
        shape: Some(TensorShapeProto { dim: extents(operand).into_iter().map(dim).collect() }),
    };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

/// `i{1,2}`, or `i(3)`.
fn constant(name: &str, operand: &str) -> TensorProto {
    let list = operand[1..].trim_matches(['{', '}', '(', ')']);
    let scalar = operand.contains('(');
    let dims = |n: usize| if scalar { Vec::new() } else { vec![n] };
    let tensor = match dtype(&operand[..1]) {
        DataType::Float => {
            let values: Vec<f32> = numbers(list);
            Tensor::from_f32(dims(values.len()), values)
        }
        DataType::Int64 => {
            let values: Vec<i64> = numbers(list);
            Tensor::from_i64(dims(values.len()), &values)
        }
        DataType::Int32 => {
            let values: Vec<i32> = numbers(list);
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            Tensor::new(DataType::Int32, dims(values.len()), bytes.into())
        }
        DataType::Uint8 | DataType::Int8 => {
            let values: Vec<u8> = numbers(list);
            Tensor::new(dtype(&operand[..1]), dims(values.len()), values.into())
        }
        other => panic!("no constants of {other:?}"),
    };
    tensor.unwrap().encode(name)
}

/// `group=2`, `alpha=0.5`, `pads=[1,1]`, `scale=[0.5]`, `mode="linear"`.
fn attribute(text: &str) -> AttributeProto {
    let (name, value) = text.split_once('=').unwrap();
    let mut attribute = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let r#type = if let Some(text) = value.strip_prefix('"') {
        attribute.s = Some(text.trim_end_matches('"').as_bytes().to_vec());
        AttributeType::String
    } else if let Some(list) = value.strip_prefix('[') {
        let list = list.trim_end_matches(']');
        if list.contains('"') {
            let words = list.split(',').map(|word| word.trim_matches('"').as_bytes().to_vec());
            attribute.strings = words.collect();
            AttributeType::Strings
        } else if list.contains('.') {
            attribute.floats = numbers(list);
            AttributeType::Floats
        } else {
            attribute.ints = numbers(list);
            AttributeType::Ints
        }
    } else if value.contains('.') {
        attribute.f = Some(value.parse().unwrap());
        AttributeType::Float
    } else {
        attribute.i = Some(value.parse().unwrap());
        AttributeType::Int
    };
    attribute.set_type(r#type);
    attribute
}

#[test]
fn rules_say_what_onnx_runtime_computes() {
    let mut wrong = Vec::new();
    for line in include_str!("cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [operator, opset, operands, attributes, outputs, macs] =
            line.split('|').map(str::trim).collect::<Vec<_>>().try_into().unwrap();
        let (domain, operator) = operator.split_once(':').unwrap_or(("", operator));
        let outputs: Vec<&str> = outputs.split_whitespace().collect();
        let mut graph = GraphProto::default();
        let mut node = NodeProto {
            op_type: Some(operator.into()),
            output: (0..outputs.len()).map(|i| format!("y{i}")).collect(),
            attribute: attributes.split_whitespace().map(attribute).collect(),
            ..NodeProto::default()
        }
        .of_domain(domain);
        for (i, operand) in operands.split_whitespace().enumerate() {
            let name = if operand == "-" { String::new() } else { format!("x{i}") };
            match operand.as_bytes().get(1) {
                Some(b'[') => graph.input.push(input(&name, operand)),
                Some(_) => graph.initializer.push(constant(&name, operand)),
                None => {}
            }
            node.input.push(name);
        }
        graph.node.push(node);
        let imported = OperatorSetIdProto { domain: Some(domain.to_owned()), version: opset.parse().ok() };
        let model = ModelProto { graph: Some(graph), opset_import: vec![imported], ..ModelProto::default() };

        let inference = infer(&model, &Default::default());
        let facts = &inference.nodes[0];
        let described =
            |output: &&str| format!("{} {:?}", dtype(&output[..1]).as_str_name(), extents(output));
        let expected: Vec<String> = outputs.iter().map(described).collect();
        let found: Vec<String> = facts.written().map(super::super::fact::Fact::describe).collect();
        let expected_macs = Expr::Number(macs.parse().unwrap());
        if found != expected || facts.cost.macs != expected_macs || facts.problem().is_some() {
            wrong.push(format!("{line}\n    found {found:?}, {}, {:?}", facts.cost.macs, facts.problem()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
