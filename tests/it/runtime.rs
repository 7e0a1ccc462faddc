//! Third-party files in the engines: whole, at sizes that need padding, and piece by piece.

use std::path::PathBuf;

use emo_exporter::profile::Profile;
use emo_exporter::target::Batch;
use emo_exporter::weights::Spec;
use emo_proto::file::{OnnxFile, open};
use emo_proto::tensor::External;
use emo_tests::Order;
use emo_tests::fixture;
use emo_tests::golden::Golden;
use emo_verifier::compare::{FLOAT32, Tolerance};
use emo_verifier::runtime::{Concrete, Engine, Failure, Form, Options, Runtime};
use ndarray::ArrayD;

/// Weights that were rounded to float16.
const HALF: Tolerance = Tolerance { name: "half", bound: 5e-3, why: "weights keep 11 bits" };

/// (file, what it may be off by; `None` where it computes something else)
const THIRD_PARTY: [(&str, Option<Tolerance>); 8] = [
    ("emo_1m_dynamo_op18", Some(FLOAT32)),
    ("emo_1m_dynamo_op20_onnxslim", Some(FLOAT32)),
    ("emo_1m_einops_torchscript_op17", Some(FLOAT32)),
    ("emo_1m_fp16", Some(HALF)),
    ("emo_1m_torchscript_op13", Some(FLOAT32)),
    ("emo_1m_torchscript_op17_dynamic", Some(FLOAT32)),
    ("wrong_bn_eps", None),
    ("wrong_tiles", None),
];

fn third_party(name: &str) -> PathBuf {
    fixture(&format!("third_party/{name}.onnx"))
}

/// The engines: tract, our own evaluation, and ONNX Runtime where a library of it is found. Where `EMO_REQUIRE_ORT=1` is set its
/// absence is a failure.
fn engines() -> Vec<Box<dyn Runtime>> {
    let open =
        |name| (Engine::named(name).unwrap().open)(&Options { threads: Some(1), ..Options::default() });
    let mut engines = vec![open("tract").unwrap(), open("f64").unwrap()];
    match open("ort") {
        Ok(ort) => engines.push(ort),
        Err(failure) => {
            let required = std::env::var("EMO_REQUIRE_ORT").is_ok_and(|v| v == "1");
            assert!(!required, "expected ONNX Runtime: {failure}");
        }
    }
    engines
}

fn f64s(array: &ArrayD<f32>) -> Vec<f64> {
    array.iter().map(|&x| x.into()).collect()
}

fn shaped(name: &str, x: &ArrayD<f32>) -> Vec<(String, Vec<usize>)> {
    vec![(name.to_owned(), x.shape().to_vec())]
}

/// Shape, Gather and the like are what TorchScript computes shapes with; the einops file also takes windows apart
/// by indexing, which is no arithmetic.
#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn no_shape_arithmetic_is_left() {
    for (name, _) in THIRD_PARTY {
        let path = third_party(name);
        let file = open(&path).unwrap();
        let concrete = Concrete::new(&file, &[("input".to_owned(), vec![1, 3, 224, 224])]).unwrap();
        let cut = concrete.cut(&[], &[], Form::Plain).unwrap();
        let graph = cut.model.graph.unwrap();
        assert!(graph.node.len() <= 520, "{name}: {}", graph.node.len());
        for node in &graph.node {
            let arithmetic =
                ["Shape", "Range", "Where", "Equal", "Expand", "Concat", "Unsqueeze", "ConstantOfShape"];
            assert!(!arithmetic.contains(&node.op_type()), "{name}: {} {}", node.op_type(), node.name());
        }
    }
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn third_party_files_equal_the_golden() {
    let golden = Golden::load("emo_1m_224x224_b1");
    let x = golden.input().into_dyn();
    for engine in engines() {
        for (name, tolerance) in THIRD_PARTY {
            let path = third_party(name);
            let place = format!("{name} in {}", engine.name());
            let mut session = engine.prepare(&open(&path).unwrap(), &shaped("input", &x), &[]).expect(&place);
            let logits = session.run(std::slice::from_ref(&x)).expect(&place).remove(0);
            let checked = golden.check_logits(&f64s(&logits), logits.shape(), &tolerance.unwrap_or(FLOAT32));
            assert_eq!(checked.is_ok(), tolerance.is_some(), "{place}: {checked:?}");
        }
    }
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn a_free_batch_takes_any() {
    let golden = Golden::load("emo_1m_224x224_b3");
    let x = golden.input().into_dyn();
    let path = third_party("emo_1m_torchscript_op17_dynamic");
    let file = open(&path).unwrap();
    for engine in engines() {
        let mut session = engine.prepare(&file, &shaped("input", &x), &[]).unwrap();
        let logits = session.run(std::slice::from_ref(&x)).unwrap().remove(0);
        golden.check_logits(&f64s(&logits), logits.shape(), &FLOAT32).unwrap();
    }
    // One image is what the others were written for.
    let path = third_party("emo_1m_torchscript_op13");
    let failure = Concrete::new(&open(&path).unwrap(), &shaped("input", &x)).unwrap_err();
    assert_eq!(failure.to_string(), "input: expected FLOAT [1, 3, 224, 224], found [3, 3, 224, 224]");
}

/// Maps that no window divides, of a file with a free batch.
#[test]
fn padded_sizes_run() {
    let golden = Golden::load("emo_5m_200x131_b1");
    let request = Order::new(golden.variant(), Profile::named("reference").unwrap());
    let request = request.with(|t| {
        t.size = (200, 131);
        t.batch = Batch::Dynamic;
    });
    let export = request.export(&Spec::Formula(golden.seed)).unwrap();
    let file = OnnxFile::from_bytes(export.bytes.into(), External::none()).unwrap();
    let x = golden.input().into_dyn();
    for engine in engines() {
        let mut session = engine.prepare(&file, &shaped("input", &x), &[]).unwrap();
        let logits = session.run(std::slice::from_ref(&x)).unwrap().remove(0);
        golden.check_logits(&f64s(&logits), logits.shape(), &FLOAT32).unwrap();
    }
}

/// Each third-party file cut in two at a value in its middle: the second part, fed what the first gives, gives the whole's
/// logits.
#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn parts_make_the_whole() {
    let golden = Golden::load("emo_1m_224x224_b1");
    let x = golden.input().into_dyn();
    for engine in engines() {
        for (name, tolerance) in THIRD_PARTY {
            let Some(tolerance) = tolerance else { continue };
            let path = third_party(name);
            let place = format!("{name} in {}", engine.name());
            let file = open(&path).unwrap();
            let concrete = Concrete::new(&file, &shaped("input", &x)).unwrap();
            // The first map of stage 3: 80 channels on 14 × 14 pixels.
            let outputs = file.model.graph.iter().flat_map(|g| &g.node).flat_map(|n| &n.output);
            let mut middle = outputs.filter(|name| concrete.shape(name) == Some(&[1, 80, 14, 14]));
            let middle = [middle.next().cloned().expect(&place)];
            let mut first = engine.ready(&concrete, &[], &middle).expect(&place);
            let map = first.run(std::slice::from_ref(&x)).expect(&place);
            let mut second = engine.ready(&concrete, &middle, &[]).expect(&place);
            let logits = second.run(&map).expect(&place).remove(0);
            golden.check_logits(&f64s(&logits), logits.shape(), &tolerance).expect(&place);
        }
    }
}

#[test]
fn an_operator_that_an_engine_lacks_is_named() {
    let request = Order::named("emo-1m", "reference");
    let export = request.export(&Spec::Formula(0)).unwrap();
    let mut file = OnnxFile::from_bytes(export.bytes.into(), External::none()).unwrap();
    let graph = file.model.graph.as_mut().unwrap();
    let sigmoid = graph.node.iter_mut().find(|node| node.op_type() == "Sigmoid").unwrap();
    let name = sigmoid.name().to_owned();
    sigmoid.op_type = Some("Frobnicate".into());
    let inputs = [("input".to_owned(), vec![1, 3, 224, 224])];
    for engine in engines() {
        match engine.prepare(&file, &inputs, &[]).err() {
            Some(Failure::Lacking { runtime, operator, node }) => {
                assert_eq!((runtime, operator.as_str(), node), (engine.name(), "Frobnicate", name.clone()));
            }
            other => panic!("{}: {other:?}", engine.name()),
        }
    }
}

/// Whatever is wrong in a third-party graph, to cut it ends in a graph or in a failure.
#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn wrong_graphs_are_cut_or_refused() {
    let path = third_party("emo_1m_einops_torchscript_op17");
    let whole = open(&path).unwrap();
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut cut, mut refused) = (0, 0);
    for _ in 0..100 {
        let mut model = whole.model.clone();
        let graph = model.graph.as_mut().unwrap();
        for _ in 0..=draw(4) {
            let (at, other) = (draw(graph.node.len()), draw(graph.node.len()));
            match draw(6) {
                0 => drop(graph.node.remove(at)),
                1 => graph.node.swap(at, other),
                2 => graph.node[at].op_type = graph.node[other].op_type.clone(),
                3 => graph.node[at].input = graph.node[other].input.clone(),
                4 => graph.node[at].output = graph.node[other].output.clone(),
                _ => {
                    let number = [i64::MIN, -1, 0, 1 << 40, i64::MAX][draw(5)];
                    let attributes = graph.node.iter_mut().skip(at).flat_map(|node| &mut node.attribute);
                    attributes.take(3).for_each(|attribute| {
                        attribute.i = Some(number);
                        attribute.ints = vec![number; attribute.ints.len()];
                    });
                }
            }
        }
        let file = OnnxFile { model, bytes: whole.bytes.clone(), external: External::none() };
        let inputs = [("input".to_owned(), vec![1, 3, 224, 224])];
        let result = Concrete::new(&file, &inputs).and_then(|concrete| {
            concrete.cut(&[], &[], Form::Written)?;
            concrete.cut(&[], &[], Form::Plain)
        });
        match result {
            Ok(_) => cut += 1,
            Err(Failure::Wrong(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(cut > 10 && refused > 10, "{cut} {refused}");
}
