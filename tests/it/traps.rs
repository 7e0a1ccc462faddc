//! Files made to cost time or memory: long chains, constants that pile up, functions and loops that multiply.

use std::time::{Duration, Instant};

use emo_proto::tensor_proto::DataType;
use emo_proto::{FunctionProto, ModelProto};
use emo_tests::onnx::*;

use crate::hostile::survive;

/// Long for what is linear even in an unoptimised build, short for what is not.
const SOON: Duration = Duration::from_secs(60);

/// A chain of one operator on `x: [n, 8]`.
fn chain(operator: &str, length: usize, second: Option<&str>) -> ModelProto {
    let name = |i: usize| if i == 0 { "x".to_owned() } else { format!("v{i}") };
    let nodes = (0..length).map(|i| {
        let (from, to) = (name(i), name(i + 1));
        let operands: Vec<&str> = std::iter::once(from.as_str()).chain(second).collect();
        node(operator, &operands, &[to.as_str()], vec![int("axis", 0)])
    });
    let inputs = vec![value("x", DataType::Float, &["n".into(), 8.into()]), named("go")];
    model(17, graph_of(inputs, vec![weight("c", &[1, 8]), list("k", &[1; 4096])], nodes.collect(), &[]))
}

#[test]
fn long_chains_take_time_in_proportion() {
    let cases = [
        ("Relu", 200_000, None),
        ("Add", 100_000, Some("c")),
        // Extents that grow, formulas that could.
        ("Concat", 20_000, Some("x")),
        ("Concat", 20_000, Some("c")),
        ("MatMul", 20_000, Some("x")),
        ("Tile", 20_000, Some("k")),
    ];
    for (operator, length, second) in cases {
        let start = Instant::now();
        survive(&chain(operator, length, second));
        assert!(start.elapsed() < SOON, "{operator} took {:?}", start.elapsed());
    }
}

#[test]
fn elements_and_constants_do_not_pile_up() {
    // Each constant is made of all before it; each node makes 4096 elements.
    let constant = |i: usize| format!("c{i}");
    let sums = (0..50_000).map(|i| {
        let (from, to) = (constant(i), constant(i + 1));
        node("Add", &[from.as_str(), "c0"], &[to.as_str()], vec![])
    });
    let fills = (0..50_000).map(|i| {
        let to = format!("e{i}");
        let value = tensor("value", list("", &[7]));
        node("ConstantOfShape", &["shape"], &[to.as_str()], vec![value])
    });
    let read = node("Mul", &["x", "c50000"], &["y"], vec![]);
    let constants = vec![weight("c0", &[8]), list("shape", &[4096])];
    let inputs = vec![value("x", DataType::Float, &[8.into()])];
    let model = model(17, graph_of(inputs, constants, sums.chain(fills).chain([read]).collect(), &["y"]));
    let start = Instant::now();
    let inference = survive(&model);
    assert_eq!(inference.nodes.last().unwrap().weights(), [0]);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn functions_that_multiply_or_call_themselves_are_found() {
    let function = |name: String, calls: Vec<String>| {
        let mut last = "x".to_owned();
        let nodes = calls.into_iter().enumerate().map(|(i, callee)| {
            let mut call = node(&callee, &[last.as_str()], &[format!("y{i}").as_str()], vec![]);
            call.rare().domain = Some("trap".to_owned());
            last = format!("y{i}");
            call
        });
        FunctionProto {
            node: nodes.collect(),
            output: vec![last],
            name: Some(name),
            domain: Some("trap".to_owned()),
            input: vec!["x".to_owned()],
            ..Default::default()
        }
    };
    let doubling = (0..40).map(|i| function(format!("f{i}"), vec![format!("f{}", i + 1); 2]));
    let itself = function("f0".to_owned(), vec!["f0".to_owned()]);
    let deep = (0..500).map(|i| function(format!("f{i}"), vec![format!("f{}", i + 1)]));
    for (functions, why) in [
        (doubling.collect::<Vec<_>>(), "more than"),
        (vec![itself], "calls itself"),
        (deep.collect(), "nest deeper"),
    ] {
        let mut call = node("f0", &["x"], &["y"], vec![]);
        call.rare().domain = Some("trap".to_owned());
        let inputs = vec![value("x", DataType::Float, &[1.into()])];
        let model = ModelProto { functions, ..model(17, graph_of(inputs, vec![], vec![call], &["y"])) };
        let inference = survive(&model);
        let found = inference.nodes.iter().filter_map(|n| n.problem()).any(|p| p.contains(why));
        assert!(found, "nobody says {why}");
    }
}

#[test]
fn nested_loops_end() {
    // Each loop walks its body until what it carries settles: nested, that multiplies.
    let mut body: Option<emo_proto::GraphProto> = None;
    for depth in 0..25 {
        let (carried, grown) = (format!("s{depth}"), format!("t{depth}"));
        let mut nodes = vec![
            node("Identity", &[format!("go{depth}").as_str()], &[format!("on{depth}").as_str()], vec![]),
            node("Concat", &[carried.as_str(), carried.as_str()], &[grown.as_str()], vec![int("axis", 0)]),
        ];
        if let Some(inner) = body.take() {
            let out = format!("inner{depth}");
            nodes.push(node("Loop", &["m", "", grown.as_str()], &[out.as_str()], vec![graph("body", inner)]));
        }
        let inputs = vec![named(&format!("i{depth}")), named(&format!("go{depth}")), named(&carried)];
        body = Some(graph_of(inputs, vec![], nodes, &[format!("on{depth}").as_str(), grown.as_str()]));
    }
    let outer = node("Loop", &["m", "", "x"], &["y"], vec![graph("body", body.unwrap())]);
    let inputs = vec![value("x", DataType::Float, &[2.into()])];
    let model = model(17, graph_of(inputs, vec![scalar("m", 9)], vec![outer], &["y"]));
    let start = Instant::now();
    survive(&model);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn shapes_of_a_million_axes_are_refused() {
    let mut giant = weight("giant", &[]);
    giant.dims = vec![1; 1_000_000];
    let nodes = (0..1000).map(|i| node("Relu", &["giant"], &[format!("y{i}").as_str()], vec![]));
    let model = model(17, graph_of(vec![], vec![giant], nodes.collect(), &["y0"]));
    let inference = survive(&model);
    assert!(inference.values["giant"].dims.is_err());
}
