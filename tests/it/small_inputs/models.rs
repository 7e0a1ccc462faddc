//! Models that are small and come to much: what they hold is met over and over, or grows from node to node.

use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::{DataLocation, DataType};
use emo_proto::{
    FunctionProto, GraphProto, Message as _, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
};
use emo_tests::onnx::*;

use super::files::opset;

fn bytes(inputs: &[(&str, &[Extent])], constants: Vec<TensorProto>, nodes: Vec<NodeProto>) -> Vec<u8> {
    let inputs = inputs.iter().map(|(name, shape)| value(name, DataType::Float, shape)).collect();
    model(17, graph_of(inputs, constants, nodes, &["y"])).encode_to_vec()
}

/// Nodes of one operand in a row, from `x` to `y`.
fn chain(length: usize, mut link: impl FnMut(&str, &str) -> NodeProto) -> Vec<NodeProto> {
    let name = |i: usize| match i {
        0 => "x".to_owned(),
        i if i == length => "y".to_owned(),
        i => format!("v{i}"),
    };
    (0..length).map(|i| link(&name(i), &name(i + 1))).collect()
}

/// 400 tensors that are the one megabyte of the file beside the model.
pub fn overlapping() -> Vec<u8> {
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    let tensor = |i: usize| TensorProto {
        name: Some(format!("w{i}")),
        data_type: Some(DataType::Float.into()),
        dims: vec![512, 512],
        data_location: Some(DataLocation::External.into()),
        external_data: vec![entry("location", "megabyte.bin"), entry("length", "1048576")],
        ..Default::default()
    };
    let mut i = 0;
    let nodes = chain(400, |from, to| {
        i += 1;
        node("MatMul", &[from, &format!("w{}", i - 1)], &[to], vec![])
    });
    bytes(&[("x", &[1.into(), 512.into()])], (0..400).map(tensor).collect(), nodes)
}

/// Branches within branches, two in each, all of one name.
pub fn branching() -> Vec<u8> {
    fn branch(depth: usize) -> GraphProto {
        let nodes = match depth {
            0 => vec![node("Identity", &["x"], &["o"], vec![])],
            _ => vec![choice(depth, "p"), choice(depth, "o")],
        };
        graph_of(vec![], vec![], nodes, &["o"])
    }
    fn choice(depth: usize, to: &str) -> NodeProto {
        let branches = ["then_branch", "else_branch"].map(|name| graph(name, branch(depth - 1)));
        NodeProto { name: Some("same".to_owned()), ..node("If", &["c"], &[to], branches.into()) }
    }
    let flag = Tensor::new(DataType::Bool, vec![], vec![1].into()).unwrap().encode("c");
    bytes(&[("x", &[1.into()])], vec![flag], vec![choice(8, "y")])
}

/// A value of 250 open axes that goes through many nodes.
pub fn axes() -> Vec<u8> {
    let shape: Vec<Extent> = (0..250).map(|_| Extent::Open).collect();
    bytes(&[("x", &shape)], vec![], chain(5000, |from, to| node("Relu", &[from], &[to], vec![])))
}

/// Thousands of integers that overflow in every node.
pub fn overflowing() -> Vec<u8> {
    let (sums, axis) = (list("x", &[1 << 40; 4096]), scalar("axis", 0));
    let nodes = chain(300, |from, to| node("CumSum", &[from, "axis"], &[to], vec![]));
    bytes(&[], vec![sums, axis], nodes)
}

/// A function of 30,000 nodes that 30,000 nodes call.
pub fn calls() -> Vec<u8> {
    let function = FunctionProto {
        node: chain(30_000, |from, to| node("Relu", &[from], &[to], vec![])),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        name: Some("f".to_owned()),
        domain: Some("trap".to_owned()),
        opset_import: vec![opset("", 17)],
        ..Default::default()
    };
    let call = |from: &str, to: &str| node("f", &[from], &[to], vec![]).of_domain("trap");
    let graph = graph_of(vec![value("x", DataType::Float, &[1.into()])], vec![], chain(30_000, call), &["y"]);
    let mut model = ModelProto { functions: vec![function], ..model(17, graph) };
    model.opset_import.push(opset("trap", 1));
    model.encode_to_vec()
}

/// A branch in a node whose name is a path of many parts.
pub fn parts() -> Vec<u8> {
    let inner =
        || graph_of(vec![], vec![], chain(3000, |from, to| node("Relu", &[from], &[to], vec![])), &["y"]);
    let branches = ["then_branch", "else_branch"].map(|name| graph(name, inner()));
    let name = Some("/a".repeat(20_000));
    let choice = NodeProto { name, ..node("If", &["c"], &["y"], branches.into()) };
    let inputs = vec![value("x", DataType::Float, &[1.into()]), value("c", DataType::Bool, &[])];
    model(17, graph_of(inputs, vec![], vec![choice], &["y"])).encode_to_vec()
}

/// One operator and one node with a name of megabytes among others.
pub fn long() -> Vec<u8> {
    let mut nodes = chain(20_000, |from, to| node("Relu", &[from], &[to], vec![]));
    nodes[7].name = Some("n".repeat(1 << 20));
    nodes.push(node(&"o".repeat(1 << 20), &["x"], &["z"], vec![]));
    bytes(&[("x", &[1.into()])], vec![], nodes)
}

fn ones(name: &str, shape: &[usize]) -> TensorProto {
    Tensor::from_f32(shape.to_vec(), vec![1.0; shape.iter().product()]).unwrap().encode(name)
}

/// Extents of values that no machine can run.
pub fn unrunnable() -> Vec<(&'static str, Vec<u8>)> {
    let vector: &[(&str, &[Extent])] = &[("x", &[1.into()])];
    let image: &[(&str, &[Extent])] = &[("x", &[1.into(), 1.into(), 4.into(), 4.into()])];
    let open: &[(&str, &[Extent])] = &[("x", &["a".into(), "b".into(), "c".into(), "d".into()])];
    let padded = |pad: i64| {
        let conv = node("Conv", &["x", "w"], &["y"], vec![ints("pads", &[pad; 4])]);
        bytes(image, vec![ones("w", &[1, 1, 1, 1])], vec![conv])
    };
    let tiled = |from: &str, copies: &str| {
        let add = node("Add", &["x", "t"], &["y"], vec![]);
        vec![node("Tile", &[from, copies], &["t"], vec![]), add]
    };
    let twice = |from: &str, to: &str| node("Concat", &[from, from], &[to], vec![int("axis", 0)]);
    vec![
        ("padded.onnx", padded(20_000)),
        ("overflowed.onnx", padded(1 << 40)),
        ("tiled.onnx", bytes(vector, vec![list("n", &[1 << 31])], tiled("x", "n"))),
        ("constant.onnx", {
            let constants = vec![ones("w", &[1]), list("n", &[1 << 28])];
            bytes(vector, constants, tiled("w", "n"))
        }),
        // Fits once, and not for each run.
        (
            "kept.onnx",
            bytes(
                &[("x", &[(1 << 26).into()])],
                vec![],
                chain(1, |from, to| node("Relu", &[from], &[to], vec![])),
            ),
        ),
        ("grown.onnx", bytes(open, vec![], chain(40, twice))),
    ]
}
