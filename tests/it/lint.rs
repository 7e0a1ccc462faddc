//! Files against profiles: ours keep their own, others' are told what to change.

use std::thread;

use emo_exporter::models::MODELS;
use emo_exporter::profile::{PROFILES, Profile};
use emo_exporter::weights::Spec;
use emo_proto::tensor_proto::DataType;
use emo_proto::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use emo_tests::onnx::{graph, graph_of, list, model, node, value};
use emo_tests::{Order, families};
use emo_tests::{RIGHT_THIRD_PARTY, WRONG_THIRD_PARTY, fixture};
use emo_verifier::infer::{Bindings, infer};
use emo_verifier::lint::{CODES, Code, Lint, Violation, lint};

use crate::profiles::{SIZES, open, place, requests};

/// Profiles of runtimes that take parts of a graph, or none, where a rule is broken.
const MOBILE: [&str; 5] = ["coreml", "nnapi", "qnn", "tflite", "ncnn"];

fn linted(model: &ModelProto, profile: &str) -> Lint {
    lint(model, &infer(model, &Bindings::new()), Profile::named(profile).unwrap())
}

/// A file breaks no rule of its own profile, and nothing stays open: one partition, every node.
#[test]
fn a_file_keeps_its_own_profile() {
    let models = families();
    thread::scope(|scope| {
        for half in models.chunks(4) {
            scope.spawn(move || {
                for request in half.iter().flat_map(|v| SIZES.iter().flat_map(|&size| requests(v, size))) {
                    let file = open(&request.export(&Spec::Formula(0)).unwrap().bytes);
                    let lint = linted(&file.model, request.target.profile.name);
                    assert!(lint.violations.is_empty(), "{}: {:?}", place(&request), lint.violations);
                    assert_eq!(lint.partitions, [lint.nodes], "{}", place(&request));
                }
            });
        }
    });
}

/// So does a float16 file, and one that takes bytes, where the profile allows them.
#[test]
fn float16_and_images_keep_it_too() {
    for profile in &PROFILES {
        let plain = Order::new(&MODELS[0], profile);
        for request in [plain.with(|t| t.dtype = DataType::Float16), plain.with(|t| t.image_input = true)] {
            let Ok(export) = request.export(&Spec::Formula(0)) else { continue };
            let lint = linted(&open(&export.bytes).model, profile.name);
            assert!(lint.violations.is_empty(), "{}: {:?}", place(&request), lint.violations);
        }
    }
}

/// PyTorch's files break every mobile profile, and their transposes of rank 6 are named.
#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn pytorch_files_break_the_mobile_profiles() {
    for name in RIGHT_THIRD_PARTY.into_iter().chain(WRONG_THIRD_PARTY) {
        let path = fixture(&format!("third_party/{name}.onnx"));
        let file = emo_proto::file::open(&path).unwrap();
        let inference = infer(&file.model, &Bindings::new());
        let nodes = &file.model.graph.as_ref().unwrap().node;
        let transposes = nodes.iter().filter(|n| n.op_type() == "Transpose");
        let rank_6 = transposes.filter(|n| n.attribute.iter().any(|a| a.ints.len() == 6));
        let mut expected: Vec<&str> = rank_6.map(NodeProto::name).collect();
        expected.sort_unstable();
        assert!(expected.len() >= 14, "{name}: {}", expected.len());
        for profile in MOBILE {
            let lint = lint(&file.model, &inference, Profile::named(profile).unwrap());
            let named = lint.violations.iter().filter(|b| b.code == Code::Rank && b.operator == "Transpose");
            let named = named.filter(|b| b.found == "Transpose of rank 6");
            let mut named: Vec<&str> = named.map(|violation| violation.name.as_str()).collect();
            named.sort_unstable();
            assert_eq!(named, expected, "{name} {profile}");
            assert_eq!(lint.open(), 0, "{name} {profile}");
            // LiteRT moves six axes on a processor; the others leave them out.
            assert!(lint.taken < lint.nodes || profile == "tflite", "{name} {profile}");
        }
    }
}

/// `Relu` is on CoreML's list, `Sign` is not.
fn sketch(nodes: Vec<NodeProto>, output: &str) -> GraphProto {
    let input = vec![value("x", DataType::Float, &[2.into(), 8.into()])];
    graph_of(input, Vec::new(), nodes, &[output])
}

fn relu(from: &str, to: &str) -> NodeProto {
    node("Relu", &[from], &[to], vec![])
}

fn sign(from: &str, to: &str) -> NodeProto {
    node("Sign", &[from], &[to], vec![])
}

fn add(a: &str, b: &str, to: &str) -> NodeProto {
    node("Add", &[a, b], &[to], vec![])
}

/// Partitions as ONNX Runtime cuts them; none depends on itself through a node outside of it.
#[test]
fn partitions_of_small_graphs() {
    type Case<'a> = (&'a str, Vec<NodeProto>, &'a str, &'a [usize]);
    let cases: [Case; 7] = [
        ("all taken", vec![relu("x", "a"), relu("a", "y")], "y", &[2]),
        ("none taken", vec![sign("x", "y")], "y", &[]),
        ("cut in two", vec![relu("x", "a"), sign("a", "b"), relu("b", "y")], "y", &[1, 1]),
        // The partition waits for the node outside, which waits for nothing of it.
        (
            "a branch beside",
            vec![relu("x", "a"), sign("x", "b"), relu("b", "c"), add("a", "c", "y")],
            "y",
            &[3],
        ),
        // Here it would wait for itself.
        (
            "a way around",
            vec![relu("x", "a"), sign("a", "b"), relu("a", "c"), add("b", "c", "y")],
            "y",
            &[2, 1],
        ),
        (
            "two outside in a row",
            vec![relu("x", "a"), sign("a", "b"), sign("b", "c"), relu("c", "y")],
            "y",
            &[1, 1],
        ),
        ("apart, in one partition", vec![relu("x", "a"), sign("x", "b"), relu("x", "y")], "y", &[2]),
    ];
    for (name, nodes, output, partitions) in cases {
        let count = nodes.len();
        let lint = linted(&model(17, sketch(nodes, output)), "coreml");
        assert_eq!((lint.partitions.as_slice(), lint.nodes), (partitions, count), "{name}");
        assert_eq!(lint.taken, partitions.iter().sum::<usize>(), "{name}");
    }
}

/// A function is its nodes, at each call; a body that is not taken with its node is a graph of its own.
#[test]
fn functions_are_written_out_and_bodies_entered() {
    let function = FunctionProto {
        name: Some("block".to_owned()),
        domain: Some("local".to_owned()),
        input: vec!["p".to_owned()],
        output: vec!["r".to_owned()],
        node: vec![relu("p", "a"), sign("a", "b"), relu("b", "r")],
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        ..Default::default()
    };
    let call = |from: &str, to: &str| NodeProto {
        name: Some(format!("call_{to}")),
        ..node("block", &[from], &[to], vec![]).of_domain("local")
    };
    let mut called =
        model(17, sketch(vec![relu("x", "s"), call("s", "t"), call("t", "u"), relu("u", "y")], "y"));
    called.opset_import.push(OperatorSetIdProto { domain: Some("local".to_owned()), version: Some(1) });
    called.functions.push(function);
    called.ir_version = Some(8);
    let lint = linted(&called, "coreml");
    assert_eq!((lint.nodes, lint.partitions.as_slice()), (8, [2, 2, 2].as_slice()));
    let places: Vec<String> = lint.violations.iter().map(Violation::place).collect();
    assert_eq!(places, [r#"node "call_t/Sign(b)" (Sign)"#, r#"node "call_u/Sign(b)" (Sign)"#]);

    let branch = |nodes: Vec<NodeProto>, output: &str| graph_of(vec![], vec![], nodes, &[output]);
    let branches = vec![
        graph("then_branch", branch(vec![relu("s", "a"), sign("a", "b"), relu("b", "t")], "t")),
        graph("else_branch", branch(vec![relu("s", "e")], "e")),
    ];
    let nodes = vec![relu("x", "s"), node("If", &["c"], &["i"], branches), relu("i", "y")];
    let mut decided = model(17, sketch(nodes, "y"));
    decided.ir_version = Some(8);
    let inputs = &mut decided.graph.as_mut().unwrap().input;
    inputs.push(value("c", DataType::Bool, &[]));
    // Before and behind the If; both sides of Sign in one branch, all of the other.
    let lint = linted(&decided, "coreml");
    assert_eq!((lint.nodes, lint.taken, lint.partitions.as_slice()), (7, 5, [1, 1, 1, 1, 1].as_slice()));
    // What takes If takes its bodies with it.
    let lint = linted(&decided, "portable");
    assert_eq!((lint.taken, lint.partitions.as_slice()), (7, [3].as_slice()));
    assert!(lint.violations.is_empty(), "{:?}", lint.violations);
}

/// What is not known leaves a rule open; what is known decides it.
#[test]
fn unknown_shapes_leave_rules_open() {
    let shape = |length: emo_tests::onnx::Extent| {
        let inputs = vec![
            value("x", DataType::Float, &[2.into(), 8.into()]),
            value("target", DataType::Int64, &[length]),
        ];
        let mut reshape = model(
            17,
            graph_of(inputs, vec![], vec![node("Reshape", &["x", "target"], &["y"], vec![])], &["y"]),
        );
        reshape.ir_version = Some(8);
        linted(&reshape, "ort-cpu")
    };
    for (length, open, violations) in [("n".into(), 1, 0), (4.into(), 0, 0), (5.into(), 0, 1)] {
        let lint = shape(length);
        assert_eq!((lint.open(), lint.broken()), (open, violations), "{:?}", lint.violations);
        // Slow is not refused.
        assert_eq!(lint.partitions, [1]);
    }
}

/// Every code can fire, and says what was found, by whose word, and what to do.
#[test]
fn every_code_fires_and_advises() {
    let mut zoo = Vec::new();
    let inputs = vec![
        value("x", DataType::Float16, &["batch".into(), 8.into()]),
        value("bytes", DataType::Uint8, &[4.into()]),
        value("images", DataType::Float, &[2.into(), 3.into(), 8.into(), 8.into()]),
        value("target", DataType::Int64, &["n".into()]),
    ];
    let nodes = vec![
        sign("x", "a"),
        node("Reshape", &["a", "six"], &["b"], vec![]),
        node("Reshape", &["a", "target"], &["c"], vec![]),
    ];
    let mut wild = model(99, graph_of(inputs, vec![list("six", &[1, 1, 1, 1, 1, -1])], nodes, &["b", "c"]));
    wild.ir_version = Some(99);
    for profile in ["coreml", "nnapi", "ncnn"] {
        zoo.extend(linted(&wild, profile).violations.into_iter().map(|violation| (profile, violation)));
    }
    for (code, _) in CODES {
        let (profile, violation) =
            zoo.iter().find(|(_, b)| b.code == code).unwrap_or_else(|| panic!("{code:?}"));
        let finding = violation.finding(profile);
        assert_eq!(finding.code, code.name());
        assert!(!violation.source.is_empty() && finding.message.contains(violation.source), "{finding:?}");
        assert!(finding.message.contains(&violation.found), "{finding:?}");
        assert!(finding.message.contains("; "), "{finding:?}");
    }
}
