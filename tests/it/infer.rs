//! Inference over what nodes hold and over shape arithmetic: small models, each with one point.

use emo_proto::attribute_proto::AttributeType;
use emo_proto::tensor_proto::DataType;
use emo_proto::{FunctionProto, GraphProto, ModelProto, OperatorSetIdProto};
use emo_tests::onnx::*;
use emo_verifier::cost::Cost;
use emo_verifier::infer::{Bindings, Inference, NodeFacts, infer};

const FLOAT: DataType = DataType::Float;
const INT64: DataType = DataType::Int64;

fn inferred(model: &ModelProto) -> Inference<'_> {
    infer(model, &Bindings::new())
}

/// `FLOAT [1, 2]` of a value of the main graph.
fn of(inference: &Inference, value: &str) -> String {
    inference.values[value].describe()
}

fn problems(inference: &Inference) -> Vec<String> {
    let problems = inference.nodes.iter().filter_map(|n| Some((n.place(), n.problem()?)));
    problems.map(|(place, why)| format!("{place}: {why}")).collect()
}

fn macs(inference: &Inference) -> String {
    let sum = inference.nodes.iter().fold(Cost::default(), |mut sum, node| {
        sum += &node.cost;
        sum
    });
    sum.macs.to_string()
}

/// `[n, 8] → [n, width]`, n · 8 · width multiply-adds.
fn linear(x: &str, y: &str, width: i64) -> (emo_proto::TensorProto, emo_proto::NodeProto) {
    let name = format!("{y}_weight");
    (weight(&name, &[8, width]), node("MatMul", &[x, &name], &[y], vec![]))
}

#[test]
fn the_dearer_branch_counts_unless_a_constant_decides() {
    let branch = |name: &str, width: i64| {
        let (weight, product) = linear("x", "y", width);
        let ones = node("ReduceSum", &["y"], &[name], vec![int("keepdims", 0)]);
        graph_of(vec![], vec![weight], vec![product, ones], &[name])
    };
    let decide = |condition: Option<i64>| {
        let (mut inputs, mut constants) = (vec![value("x", FLOAT, &["n".into(), 8.into()])], vec![]);
        match condition {
            None => inputs.push(value("c", DataType::Bool, &[])),
            Some(n) => constants.push(emo_proto::TensorProto {
                name: Some("c".to_owned()),
                data_type: Some(DataType::Bool.into()),
                int32_data: vec![n as i32],
                ..Default::default()
            }),
        }
        let branches = vec![graph("then_branch", branch("a", 2)), graph("else_branch", branch("b", 5))];
        model(13, graph_of(inputs, constants, vec![node("If", &["c"], &["z"], branches)], &["z"]))
    };
    for (condition, expected) in [(None, "40·n"), (Some(1), "16·n"), (Some(0), "40·n")] {
        let model = decide(condition);
        let inference = inferred(&model);
        assert_eq!((of(&inference, "z"), macs(&inference)), ("FLOAT []".to_owned(), expected.to_owned()));
        assert_eq!(inference.nodes[0].note().is_some(), condition.is_none());
        // Both branches hold parameters, whichever runs.
        let weights: usize = inference.nodes.iter().map(|n| n.weights().len()).sum();
        assert_eq!((weights, problems(&inference)), (2, vec![]));
        assert_eq!(inference.bodies[1].values["y"].describe(), "FLOAT [n, 5]");
        assert_eq!(&*inference.nodes[1].path, "If(z)/then_branch/");
    }
}

/// A loop of `limit` turns over `x: [4, 8]` that collects `x · w: [4, 3]`.
fn looping(limit: Option<i64>, condition: &str, carried: &[&str]) -> ModelProto {
    let (weight, product) = linear("x", "y", 3);
    let body = graph_of(
        vec![named("i"), named("go"), named("s")],
        vec![weight, list("one", &[1])],
        vec![
            node("Identity", &[if condition == "go" { "go" } else { condition }], &["go_on"], vec![]),
            product,
            node(carried[0], &carried[1..], &["s_out"], vec![int("axis", 0)]),
        ],
        &["go_on", "s_out", "y"],
    );
    let mut inputs = vec![value("x", FLOAT, &[4.into(), 8.into()]), value("flag", DataType::Bool, &[])];
    let mut constants = vec![list("start", &[0])];
    match limit {
        Some(n) => constants.push(scalar("m", n)),
        None => inputs.push(value("m", INT64, &[])),
    }
    let node = node("Loop", &["m", "", "start"], &["s_end", "ys"], vec![graph("body", body)]);
    model(16, graph_of(inputs, constants, vec![node], &["s_end", "ys"]))
}

#[test]
fn a_loop_costs_its_turns() {
    let keeps = ["Identity", "s"];
    let model = looping(Some(7), "go", &keeps);
    let inference = inferred(&model);
    assert_eq!(macs(&inference), (7 * 4 * 8 * 3).to_string());
    assert_eq!(
        (of(&inference, "ys"), of(&inference, "s_end")),
        ("FLOAT [7, 4, 3]".into(), "INT64 [1]".into())
    );
    assert_eq!(problems(&inference), Vec::<String>::new());

    // What grows from turn to turn has no extent that holds for all.
    let model = looping(Some(7), "go", &["Concat", "s", "one"]);
    assert_eq!(of(&inferred(&model), "s_end"), "INT64 [?]");

    // The data decide how often it runs: a finding with the node's name, no silent number.
    for (model, why) in [
        (looping(None, "go", &keeps), "Loop(s_end): the number of turns of Loop(s_end)"),
        (looping(Some(7), "flag", &keeps), "Loop(s_end): the last turn of Loop(s_end)"),
    ] {
        let inference = inferred(&model);
        assert!(problems(&inference)[0].starts_with(why), "{:?}", problems(&inference));
        assert!(macs(&inference).contains('?'));
        assert_eq!(of(&inference, "ys"), "FLOAT [?, 4, 3]");
    }
}

#[test]
fn a_scan_runs_once_a_slice_and_bodies_see_what_is_around() {
    let (weight, product) = linear("slice", "y", 3);
    let body = graph_of(
        vec![named("s"), named("slice")],
        vec![weight],
        vec![
            product,
            node("Add", &["y", "outer"], &["z"], vec![]),
            node("Add", &["s", "z"], &["s_out"], vec![]),
        ],
        &["s_out", "z"],
    );
    let attributes = vec![int("num_scan_inputs", 1), ints("scan_input_axes", &[1]), graph("body", body)];
    let inputs = vec![
        value("x", FLOAT, &["n".into(), "t".into(), 8.into()]),
        value("s0", FLOAT, &["n".into(), 3.into()]),
        value("outer", FLOAT, &[3.into()]),
    ];
    let node = node("Scan", &["s0", "x"], &["s_end", "zs"], attributes);
    let model = model(11, graph_of(inputs, vec![], vec![node], &["s_end", "zs"]));
    let inference = inferred(&model);
    assert_eq!(
        (of(&inference, "s_end"), of(&inference, "zs")),
        ("FLOAT [n, 3]".into(), "FLOAT [t, n, 3]".into())
    );
    assert_eq!((macs(&inference).as_str(), problems(&inference)), ("24·n·t", vec![]));
}

/// `inner(x; to) = Cast(x; to)`, `outer(x, w, absent; kind) = inner(x · w; kind)`.
fn functions() -> Vec<FunctionProto> {
    let function = |name: &str, inputs: &[&str], nodes: Vec<emo_proto::NodeProto>| FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("local".to_owned()),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec!["y".to_owned()],
        node: nodes,
        opset_import: vec![
            OperatorSetIdProto { domain: None, version: Some(18) },
            OperatorSetIdProto { domain: Some("local".to_owned()), version: Some(1) },
        ],
        ..Default::default()
    };
    let mut call = node("inner", &["p"], &["y"], vec![reference("to", "kind", AttributeType::Int)]);
    call.rare().domain = Some("local".to_owned());
    let clip = node("Clip", &["q", "absent"], &["p"], vec![]);
    vec![
        function(
            "inner",
            &["x"],
            vec![node("Cast", &["x"], &["y"], vec![reference("to", "to", AttributeType::Int)])],
        ),
        function(
            "outer",
            &["x", "w", "absent"],
            vec![node("MatMul", &["x", "w"], &["q"], vec![]), clip, call],
        ),
    ]
}

#[test]
fn functions_are_walked_at_each_call() {
    let call = |x: &str, y: &str, kind: DataType| {
        let mut call = node("outer", &[x, "w"], &[y], vec![int("kind", i32::from(kind).into())]);
        call.rare().domain = Some("local".to_owned());
        call.name = Some(format!("call_{y}"));
        call
    };
    let nodes = vec![call("a", "x", DataType::Double), call("b", "y", DataType::Float16)];
    let inputs =
        vec![value("a", FLOAT, &["n".into(), 8.into()]), value("b", FLOAT, &[2.into(), 5.into(), 8.into()])];
    let mut model = model(18, graph_of(inputs, vec![weight("w", &[8, 3])], nodes, &["x", "y"]));
    model.functions = functions();
    let inference = inferred(&model);
    assert_eq!(
        (of(&inference, "x"), of(&inference, "y")),
        ("DOUBLE [n, 3]".into(), "FLOAT16 [2, 5, 3]".into())
    );
    assert_eq!(macs(&inference), "24·n + 240");
    // One tensor is one weight, however often it is read.
    assert_eq!(inference.nodes.iter().map(|n| n.weights().len()).sum::<usize>(), 1);
    assert_eq!(problems(&inference), Vec::<String>::new());
    let places: Vec<String> = inference.nodes.iter().map(NodeFacts::place).collect();
    assert_eq!(places[4], "call_x/inner(y)/Cast(y)");
}

#[test]
fn shape_arithmetic_is_followed() {
    let floats = |name: &str, values: &[f32]| {
        emo_proto::tensor::Tensor::from_f32(vec![values.len()], values.to_vec()).unwrap().encode(name)
    };
    // As exporters halve an image: Shape, Cast, Mul, Floor, Cast, then Concat before what stays.
    let nodes = vec![
        node("Shape", &["x"], &["shape"], vec![]),
        node("Slice", &["shape", "two", "four"], &["size"], vec![]),
        node("Cast", &["size"], &["float"], vec![int("to", 1)]),
        node("Mul", &["float", "half"], &["halved"], vec![]),
        node("Floor", &["halved"], &["floor"], vec![]),
        node("Cast", &["floor"], &["whole"], vec![int("to", 7)]),
        node("Slice", &["shape", "zero", "two"], &["head"], vec![]),
        node("Concat", &["head", "whole"], &["target"], vec![int("axis", 0)]),
        node("ConstantOfShape", &["target"], &["y"], vec![]),
        // A batch that Where must not take for -1, and an Expand to it.
        node("Equal", &["head", "minus"], &["is_open"], vec![]),
        node("Where", &["is_open", "ones", "head"], &["expand_to"], vec![]),
        node("Expand", &["scalar", "expand_to"], &["z"], vec![]),
        // The product of all extents but the first, put into a list.
        node("Slice", &["shape", "one", "four"], &["tail"], vec![]),
        node("ReduceProd", &["tail"], &["area"], vec![int("keepdims", 1)]),
        node("ScatterND", &["head", "places", "area"], &["scattered"], vec![]),
        node("Reshape", &["x", "scattered"], &["r"], vec![]),
        // Indices of what is not zero, and a range.
        node("NonZero", &["mask"], &["found"], vec![]),
        node("Transpose", &["found"], &["columns"], vec![]),
        node("Gather", &["shape", "columns"], &["picked"], vec![]),
        node("Squeeze", &["picked"], &["picked_list"], vec![]),
        node("ConstantOfShape", &["picked_list"], &["p"], vec![]),
    ];
    let constants = vec![
        list("zero", &[0]),
        list("one", &[1]),
        list("two", &[2]),
        list("four", &[4]),
        list("minus", &[-1]),
        list("ones", &[1, 1]),
        list("mask", &[0, 1, 0, 1]),
        emo_proto::tensor::Tensor::from_i64(vec![1, 1], &[1]).unwrap().encode("places"),
        floats("half", &[0.5, 0.5]),
        weight("scalar", &[1]),
    ];
    let inputs = vec![value("x", FLOAT, &["n".into(), 3.into(), "h".into(), "w".into()])];
    let model = model(13, graph_of(inputs, constants, nodes, &["y", "z", "r", "p"]));
    let inference = inferred(&model);
    let expected = [
        ("y", "FLOAT [n, 3, floor((h)/2), floor((w)/2)]"),
        ("z", "FLOAT [n, 3]"),
        ("r", "FLOAT [n, 3·h·w]"),
        ("p", "FLOAT [3, w]"),
    ];
    for (value, shape) in expected {
        assert_eq!(of(&inference, value), shape);
    }
    assert_eq!(problems(&inference), Vec::<String>::new());

    // The same with numbers.
    let bindings = [("n", 2), ("h", 9), ("w", 7)].map(|(name, n)| (name.to_owned(), n)).into();
    let inference = infer(&model, &bindings);
    for (value, shape) in [("y", "[2, 3, 4, 3]"), ("z", "[2, 3]"), ("r", "[2, 189]"), ("p", "[3, 7]")] {
        assert_eq!(of(&inference, value), format!("FLOAT {shape}"));
    }
}

/// How detectors scale an image to the size that they want: floats of the extents, reduced.
#[test]
fn reductions_of_extents_are_followed() {
    let floats = |name: &str, elements: &[f32]| {
        emo_proto::tensor::Tensor::from_f32(vec![elements.len()], elements.to_vec()).unwrap().encode(name)
    };
    let reduced = |operator: &str| {
        let nodes = vec![
            node("Shape", &["x"], &["shape"], vec![]),
            node("Slice", &["shape", "two", "four"], &["sides"], vec![]),
            node("Cast", &["sides"], &["floats"], vec![int("to", 1)]),
            node(operator, &["floats"], &["one"], vec![int("keepdims", 1)]),
            node("Div", &["want", "one"], &["scale"], vec![]),
            node("Mul", &["floats", "scale"], &["scaled"], vec![]),
            node("Floor", &["scaled"], &["floor"], vec![]),
            node("Cast", &["floor"], &["size"], vec![int("to", 7)]),
            node("ConstantOfShape", &["size"], &["z"], vec![]),
        ];
        let constants = vec![list("two", &[2]), list("four", &[4]), floats("want", &[96.0])];
        let x = value("x", FLOAT, &[1.into(), 3.into(), 48.into(), 64.into()]);
        let model = model(17, graph_of(vec![x], constants, nodes, &["z"]));
        inferred(&model).values["z"].describe()
    };
    for (operator, expected) in [
        ("ReduceMin", "FLOAT [96, 128]"),
        ("ReduceMax", "FLOAT [72, 96]"),
        // 96 / 112 = 0.857…
        ("ReduceSum", "FLOAT [41, 54]"),
        // 96 / 56 = 1.714…
        ("ReduceMean", "FLOAT [82, 109]"),
        ("ReduceProd", "FLOAT [1, 2]"),
        // Nothing is known of what no rule folds.
        ("ReduceL2", "FLOAT [?, ?]"),
    ] {
        assert_eq!(reduced(operator), expected, "{operator}");
    }
}

#[test]
fn declared_types_are_claims() {
    let mut graph = graph_of(
        vec![value("x", FLOAT, &["n".into(), 8.into()])],
        vec![],
        vec![node("Relu", &["x"], &["y"], vec![]), node("Shape", &["y"], &["s"], vec![])],
        &[],
    );
    let claims = |y: DataType, rows: Extent, columns: i64| GraphProto {
        value_info: vec![value("y", y, &[rows, columns.into()])],
        output: vec![value("s", INT64, &[2.into()])],
        ..graph.clone()
    };
    let wrong = [claims(DataType::Double, "n".into(), 8), claims(FLOAT, "n".into(), 9)];
    let right =
        [claims(FLOAT, "other".into(), 8), claims(FLOAT, Extent::Open, 8), claims(FLOAT, 4.into(), 8)];
    for (graphs, count) in [(wrong.to_vec(), 1), (right.to_vec(), 0)] {
        for graph in graphs {
            let model = model(13, graph);
            assert_eq!(inferred(&model).contradictions().len(), count);
        }
    }
    graph.output = vec![value("s", INT64, &[3.into()])];
    let model = model(13, graph);
    let found = &inferred(&model).contradictions()[0];
    assert_eq!((found.declared.as_str(), found.inferred.as_str()), ("INT64 [3]", "INT64 [2]"));
}

#[test]
fn an_order_that_is_none_is_put_right() {
    let nodes = vec![
        node("Relu", &["b"], &["c"], vec![]),
        node("Reshape", &["x", "shape"], &["b"], vec![]),
        node("Neg", &["cycle_b"], &["cycle_a"], vec![]),
        node("Neg", &["cycle_a"], &["cycle_b"], vec![]),
    ];
    let inputs = vec![value("x", FLOAT, &[6.into()])];
    let model = model(13, graph_of(inputs, vec![list("shape", &[2, -1])], nodes, &["c"]));
    let inference = inferred(&model);
    assert_eq!(of(&inference, "c"), "FLOAT [2, 3]");
    assert_eq!(of(&inference, "cycle_b"), "UNDEFINED ?");
}
