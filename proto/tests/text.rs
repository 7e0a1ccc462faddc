//! The text form: what a line has, and that it does not depend on how a file keeps things.

use emo_proto::attribute_proto::AttributeType;
use emo_proto::tensor::{External, Tensor};
use emo_proto::text::{Text, digest};
use emo_proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(r#type.into()), ..Default::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { ints: ints.to_vec(), ..attribute(name, AttributeType::Ints) }
}

fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    NodeProto {
        op_type: Some(operator.into()),
        input: strings(inputs),
        output: strings(outputs),
        attribute: attributes,
        ..Default::default()
    }
}

fn graph(initializer: Vec<TensorProto>, nodes: Vec<NodeProto>) -> GraphProto {
    let value = |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..Default::default() };
    GraphProto {
        name: Some("g".to_owned()),
        input: vec![value("x")],
        output: vec![value("y")],
        initializer,
        node: nodes,
        ..Default::default()
    }
}

fn model(graph: GraphProto) -> ModelProto {
    let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(17) }];
    ModelProto { ir_version: Some(8), opset_import, graph: Some(graph), ..Default::default() }
}

fn text(model: &ModelProto) -> String {
    let describe = |path: &str, name: &str| (name != "untyped").then(|| format!("T@{path}"));
    Text {
        model,
        external: &External::none(),
        digests: &std::collections::HashMap::new(),
        describe: &describe,
    }
    .to_string()
}

#[test]
fn a_line_a_node() {
    let weight = Tensor::from_f32(vec![3, 3], (0..9_u8).map(f32::from).collect()).unwrap().encode("w");
    let shape = Tensor::from_i64(vec![2], &[1, -1]).unwrap().encode("shape");
    let body = GraphProto {
        name: Some("body".to_owned()),
        input: Vec::new(),
        ..graph(vec![], vec![node("Neg", &["x"], &["y"], vec![])])
    };
    let body = AttributeProto { g: Some(body.into()), ..attribute("then_branch", AttributeType::Graph) };
    let float = AttributeProto { f: Some(0.1), ..attribute("alpha", AttributeType::Float) };
    let reference =
        AttributeProto { ref_attr_name: Some("a".to_owned()), ..attribute("alpha", AttributeType::Float) };
    let mut named = node("Gemm", &["x", "w", ""], &["h", ""], vec![ints("pads", &[0, 1]), float]);
    named.name = Some("fc".to_owned());
    let mut custom = node("Op", &["h"], &["untyped"], vec![ints("long", &[7; 9])]);
    custom.rare().domain = Some("com.example".to_owned());
    let nodes = vec![named, custom, node("If", &["c"], &["y"], vec![body])];
    let mut model = model(graph(vec![weight, shape], nodes));
    model.producer_name = Some("a \"tool\"".to_owned());
    model.functions = vec![FunctionProto {
        name: Some("f".to_owned()),
        domain: Some("local".to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        attribute: vec!["a".to_owned()],
        node: vec![node("Elu", &["a"], &["b"], vec![reference])],
        ..Default::default()
    }];
    let expected = r#"model ir_version 8
opset ai.onnx 17
producer "a \"tool\""
function local.f(a) -> (b)
  attribute a
  b = Elu(a) {alpha = @a}
graph g
  input x: T@
  output y: T@
  constant shape: INT64 [2] {1, -1}
  constant w: FLOAT [3, 3] sha256:eb5e38fa46a2
  h: T@, _ = Gemm(x, w, ) {alpha = 0.1, pads = [0, 1]} # fc
  untyped = com.example.Op(h) {long = [7, 7, 7, 7, 7, 7, 7, 7, … 9 in all, sha256:b01a9e00224b]}
  y: T@ = If(c)
    then_branch = graph body
      output y: T@If(y)/then_branch/
      y: T@If(y)/then_branch/ = Neg(x)
"#;
    // The digests are Python's: hashlib.sha256(struct.pack("<9f", *range(9))), and of nine sevens.
    assert_eq!(text(&model), expected);
}

#[test]
fn files_that_mean_the_same_are_the_same_text() {
    let values: Vec<f32> = (0..20_u8).map(f32::from).collect();
    let raw = Tensor::from_f32(vec![20], values.clone()).unwrap().encode("w");
    let typed = TensorProto { raw_data: None, float_data: values, ..raw.clone() };
    let other = Tensor::from_i64(vec![1], &[3]).unwrap().encode("a");
    let attributes = [ints("pads", &[0]), ints("axes", &[1])];
    let reversed = attributes.iter().rev().cloned().collect();
    let one = model(graph(
        vec![raw.clone(), other.clone()],
        vec![node("Pad", &["x"], &["y"], attributes.to_vec())],
    ));
    let two = model(graph(vec![other, typed.clone()], vec![node("Pad", &["x"], &["y"], reversed)]));
    assert_eq!(text(&one), text(&two));
    assert_eq!(digest(&raw, &External::none()), digest(&typed, &External::none()));
}

#[test]
fn a_weight_that_is_not_there_says_so() {
    let mut tensor = Tensor::from_f32(vec![9], vec![0.0; 9]).unwrap().encode("w");
    tensor.raw_data = None;
    tensor.data_location = Some(emo_proto::tensor_proto::DataLocation::External.into());
    assert!(text(&model(graph(vec![tensor], vec![]))).contains("constant w: FLOAT [9] unreadable: "));
}
