//! Two files beside one another: what they are run on, what tells nothing, where they part.

use std::fs;

use emo_proto::file::{OnnxFile, open};
use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::{AttributeProto, GraphProto, Message as _, NodeProto, TensorProto, ValueInfoProto};
use emo_tests::onnx::{self, Extent};
use emo_verifier::against::{Against, Origin, Request, Run, against};
use emo_verifier::compare::FLOAT32;
use emo_verifier::data;
use emo_verifier::infer::Bindings;
use emo_verifier::runtime::{Concrete, Failure, Own, Runtime, Session, Tract};
use emo_verifier::verify::Outcome;
use ndarray::ArrayD;
use tempfile::TempDir;

use crate::command::{emo, json_of, refused};

type Extents<'a> = &'a [Extent];

fn float(name: &str, shape: Extents) -> ValueInfoProto {
    onnx::value(name, DataType::Float, shape)
}

fn numbers(name: &str, shape: &[usize], element: impl Fn(usize) -> f32) -> TensorProto {
    let elements = (0..shape.iter().product()).map(element).collect();
    Tensor::from_f32(shape.to_vec(), elements).unwrap().encode(name)
}

/// A weight whose elements differ.
fn weight(name: &str, shape: &[usize]) -> TensorProto {
    let seed = name.bytes().map(usize::from).sum::<usize>();
    numbers(name, shape, |i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0)
}

fn file(graph: GraphProto) -> OnnxFile {
    let graph = GraphProto { name: Some("graph".to_owned()), ..graph };
    OnnxFile::from_bytes(onnx::model(17, graph).encode_to_vec().into(), External::none()).unwrap()
}

/// Nodes from operator, operands in one text, output and attributes; the last output is the graph's.
type Row<'a> = (&'a str, &'a str, &'a str, Vec<AttributeProto>);

fn graph(inputs: Vec<ValueInfoProto>, weights: Vec<TensorProto>, rows: Vec<Row>) -> OnnxFile {
    let output = rows.last().unwrap().2;
    let node = |(operator, operands, output, attributes): &Row| NodeProto {
        name: Some(format!("/{output}/{operator}")),
        ..onnx::node(operator, &operands.split(' ').collect::<Vec<_>>(), &[output], attributes.clone())
    };
    file(onnx::graph_of(inputs, weights, rows.iter().map(node).collect(), &[output]))
}

fn compared(file: &OnnxFile, truth: &OnnxFile) -> Against {
    held(file, truth, &[], &Tract).unwrap()
}

fn held(
    file: &OnnxFile,
    truth: &OnnxFile,
    runs: &[Run],
    runtime: &dyn Runtime,
) -> emo_proto::Result<Against> {
    let none = Bindings::new();
    against(&Request {
        file,
        truth: ("truth.onnx", truth),
        runs,
        probes: 2,
        dims: [&none, &none],
        tolerance: None,
        runtime,
    })
}

fn sizes(found: &Against) -> Vec<(&str, usize, Origin)> {
    found.extents.iter().map(|e| (e.dimension.as_str(), e.size, e.from)).collect()
}

/// x · W, then the operator.
fn product(operator: &str, axis: i64, shape: Extents) -> OnnxFile {
    let rows =
        vec![("MatMul", "x w", "product", vec![]), (operator, "product", "y", vec![onnx::int("axis", axis)])];
    graph(vec![float("x", shape)], vec![weight("w", &[8, 8])], rows)
}

#[test]
fn open_extents_tell_something() {
    let shape: [Extent; 3] = ["batch".into(), "words".into(), 8.into()];
    let (right, wrong) = (product("Softmax", 2, &shape), product("Softmax", 1, &shape));
    let found = compared(&wrong, &right);
    assert_eq!(found.verdict, Outcome::Fail, "{found:?}");
    assert_eq!(sizes(&found), [("batch", 2, Origin::Chosen), ("words", 24, Origin::Chosen)]);
    assert_eq!(compared(&right, &right).verdict, Outcome::Pass);
}

#[test]
fn what_one_file_fixes_holds_for_both() {
    let open = product("Softmax", 2, &["batch".into(), "words".into(), 8.into()]);
    let fixed = product("Softmax", 2, &[1.into(), 5.into(), 8.into()]);
    for (file, truth) in [(&open, &fixed), (&fixed, &open)] {
        let found = compared(file, truth);
        assert_eq!(found.verdict, Outcome::Pass);
        assert_eq!(sizes(&found), [("batch", 1, Origin::File), ("words", 5, Origin::File)]);
    }
}

#[test]
fn one_name_is_one_number_and_another_is_another() {
    let named = |x: &'static str, y: &'static str| {
        let inputs = vec![float("x", &["batch".into(), x.into()]), float("y", &[y.into(), 3.into()])];
        graph(inputs, Vec::new(), vec![("MatMul", "x y", "z", vec![])])
    };
    let found = compared(&named("inner", "inner"), &named("a", "b"));
    assert_eq!(sizes(&found), [("batch", 2, Origin::Chosen), ("inner", 24, Origin::Chosen)]);
    // Two names for what must be one: the sizes that are tried come to be equal.
    let found = compared(&named("a", "b"), &named("a", "b"));
    assert_eq!(found.verdict, Outcome::Pass, "{found:?}");
}

#[test]
fn sizes_that_a_graph_refuses_make_way_for_smaller_ones() {
    let table = |rows: usize| {
        let inputs = vec![float("x", &["batch".into(), "words".into(), 4.into()])];
        let rows = (weight("w", &[rows, 4]), ("Add", "x w", "y", vec![]));
        graph(inputs, vec![rows.0], vec![rows.1])
    };
    let found = compared(&table(12), &table(12));
    assert_eq!((found.verdict, found.extents[1].size), (Outcome::Pass, 12));
    // None of the sizes is 13: it can be given.
    let found = compared(&table(13), &table(13));
    assert_eq!(found.verdict, Outcome::Undecided);
    assert!(found.reason.unwrap().contains("no sizes of batch, words that were tried"));
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.onnx"), table(13).model.encode_to_vec()).unwrap();
    let arguments = ["verify", "a.onnx", "--against", "a.onnx"];
    let (code, stdout, _) = emo(&folder, &arguments);
    assert!(code == 3 && stdout.contains("--dim words=N or --input x=SHAPE"), "{stdout}");
    let given = json_of(&folder, 0, &[&arguments[..], &["--dim", "words=13"]].concat());
    assert_eq!(given["extents"][1], serde_json::json!({ "dimension": "words", "size": 13, "from": "given" }));
}

#[test]
fn files_of_other_shapes_are_refused_with_the_dimension() {
    let folder = TempDir::new().unwrap();
    let shaped = |shape: Extents| graph(vec![float("x", shape)], vec![], vec![("Tanh", "x", "y", vec![])]);
    let rows: [(&str, &[Extent]); 3] =
        [("a", &[2.into(), "n".into()]), ("b", &[3.into(), "n".into()]), ("c", &["n".into()])];
    for (name, shape) in rows {
        fs::write(folder.path().join(format!("{name}.onnx")), shaped(shape).model.encode_to_vec()).unwrap();
    }
    // A size may be called as either file calls it.
    fs::write(folder.path().join("d.onnx"), shaped(&[2.into(), "m".into()]).model.encode_to_vec()).unwrap();
    let given = json_of(&folder, 0, &["verify", "a.onnx", "--against", "d.onnx", "--dim", "m=7"]);
    assert_eq!(given["extents"][0], serde_json::json!({ "dimension": "n", "size": 7, "from": "given" }));
    refused(
        &folder,
        &["verify", "a.onnx", "--against", "b.onnx"],
        &["x: axis 0: expected 3 as the other file has, found 2", "--dim n=N or --input x=SHAPE"],
    );
    refused(
        &folder,
        &["verify", "a.onnx", "--against", "c.onnx"],
        &["x: expected the shape of x, [n], found [2, n]"],
    );
}

#[test]
fn what_does_not_move_keeps_a_pass_open() {
    let shape: [Extent; 2] = ["batch".into(), 8.into()];
    let inputs = || vec![float("x", &shape), float("z", &shape)];
    let small = || numbers("small", &[1], |_| 1e-9);
    let constant = |operator: &str| {
        let rows =
            vec![(operator, "x", "a", vec![]), ("Mul", "a small", "b", vec![]), ("Add", "b w", "y", vec![])];
        graph(inputs()[..1].to_vec(), vec![small(), weight("w", &[8])], rows)
    };
    // The difference is a billionth of the output.
    let found = compared(&constant("Tanh"), &constant("Sigmoid"));
    assert_eq!(found.verdict, Outcome::Undecided, "{found:?}");
    assert!(found.open[0].starts_with("the output y does not move"), "{:?}", found.open);

    let one_of_two = |operator: &str| {
        let rows =
            vec![(operator, "z", "a", vec![]), ("Mul", "a small", "b", vec![]), ("Add", "b x", "y", vec![])];
        graph(inputs(), vec![small()], rows)
    };
    let found = compared(&one_of_two("Tanh"), &one_of_two("Sigmoid"));
    assert_eq!(found.verdict, Outcome::Undecided, "{found:?}");
    assert!(found.open[0].starts_with("the input z alone moves no output"), "{:?}", found.open);

    // What no input reaches needs not move.
    let fixed = graph(inputs()[..1].to_vec(), vec![weight("w", &[8])], vec![("Tanh", "w", "y", vec![])]);
    assert_eq!(compared(&fixed, &fixed).verdict, Outcome::Pass);
}

#[test]
fn what_is_no_number_in_both_decides_nothing() {
    let of = |operator: &'static str| {
        let input = vec![float("x", &["batch".into(), 8.into()])];
        graph(input, Vec::new(), vec![(operator, "x", "y", vec![])])
    };
    let found = compared(&of("Log"), &of("Log"));
    assert_eq!(found.verdict, Outcome::Undecided);
    assert!(found.outputs.iter().all(|o| o.holds && !o.decides), "{found:?}");
    assert!(found.open[0].contains("no finite number on any input"), "{:?}", found.open);
    assert_eq!(compared(&of("Log"), &of("Tanh")).verdict, Outcome::Fail);
    // Inputs of the caller's on which it is one decide.
    let positive = |at: f32| Run {
        name: format!("from {at}"),
        inputs: vec![ArrayD::from_shape_fn(vec![2, 8], |i| at + i[0] as f32 + i[1] as f32)],
        changed: None,
    };
    let runs = [positive(1.0), positive(2.0)];
    assert_eq!(held(&of("Log"), &of("Log"), &runs, &Tract).unwrap().verdict, Outcome::Pass);
}

#[test]
fn empty_outputs_are_equal_and_tell_nothing() {
    let rows = vec![("Slice", "x zero zero", "y", vec![])];
    let zero = onnx::list("zero", &[0]);
    let empty = graph(vec![float("x", &[4.into(), 2.into()])], vec![zero], rows);
    let found = held(&empty, &empty, &[], &Own).unwrap();
    assert!(found.outputs.iter().all(|o| o.holds && o.decides && o.shape == [0, 2]), "{found:?}");
    assert_eq!(found.verdict, Outcome::Undecided);
}

#[test]
fn integers_are_what_their_use_allows() {
    let inputs = vec![
        onnx::value("ids", DataType::Int64, &["batch".into(), "words".into()]),
        onnx::value("mask", DataType::Int64, &["batch".into(), "words".into()]),
        onnx::value("flag", DataType::Bool, &["batch".into(), "words".into()]),
    ];
    let to = |dtype: DataType| vec![onnx::int("to", dtype as i64)];
    let rows: Vec<Row> = vec![
        ("Gather", "table ids", "found", vec![]),
        ("Cast", "mask", "real", to(DataType::Float)),
        ("Sub", "one real", "not", vec![]),
        ("Mul", "not far", "masked", vec![]),
        ("Add", "found masked", "sum", vec![]),
        ("Where", "flag sum found", "chosen", vec![]),
        ("Softmax", "chosen", "y", vec![]),
    ];
    let weights = vec![weight("table", &[7]), numbers("one", &[1], |_| 1.0), numbers("far", &[1], |_| -1e4)];
    let file = graph(inputs, weights, rows);
    for runtime in [&Tract as &dyn Runtime, &Own] {
        let found = held(&file, &file, &[], runtime).unwrap();
        assert_eq!(found.verdict, Outcome::Pass, "{found:?}");
        // Each of the three alone, too.
        assert_eq!(found.outputs.len(), 5);
    }
}

#[test]
fn a_tensor_that_no_output_needs_decides_no_tolerance() {
    let shape: [Extent; 3] = ["batch".into(), "words".into(), 8.into()];
    let right = product("Softmax", 2, &shape);
    let mut model = right.model.clone();
    let unread = Tensor::new(DataType::Uint8, vec![2000], vec![7; 2000].into()).unwrap().encode("unread");
    model.graph.as_mut().unwrap().initializer.push(unread);
    let found = compared(&file(model.graph.unwrap()), &right);
    assert_eq!((found.tolerance, found.bound), (FLOAT32.name, compared(&right, &right).bound));
}

/// A layer of attention, with other names and another spelling where `plain` is false.
fn attention(plain: bool, wrong: bool) -> OnnxFile {
    let names = ["q", "k", "kt", "scores", "scaled", "weights", "out", "y"];
    let names: Vec<String> = match plain {
        true => names.map(str::to_owned).to_vec(),
        false => (0..names.len()).map(|i| format!("val_{i}")).collect(),
    };
    let [q, k, kt, scores, scaled, weights, out, y] = std::array::from_fn(|i| names[i].as_str());
    let scale = if plain { numbers("scale", &[1], |_| 0.25) } else { numbers("scale", &[1], |_| 4.0) };
    let axis = if wrong { 1 } else { 2 };
    let scores_of = format!("{q} {kt}");
    let (scale_of, out_of, y_of) = (format!("{scores} scale"), format!("{weights} x"), format!("{out} x"));
    let rows: Vec<Row> = vec![
        ("MatMul", "x wq", q, vec![]),
        ("MatMul", "x wk", k, vec![]),
        ("Transpose", k, kt, vec![onnx::ints("perm", &[0, 2, 1])]),
        ("MatMul", &scores_of, scores, vec![]),
        (if plain { "Mul" } else { "Div" }, &scale_of, scaled, vec![]),
        ("Softmax", scaled, weights, vec![onnx::int("axis", axis)]),
        ("MatMul", &out_of, out, vec![]),
        ("Add", &y_of, y, vec![]),
    ];
    let input = vec![float("x", &["batch".into(), "words".into(), 8.into()])];
    let weights = vec![weight("wq", &[8, 8]), weight("wk", &[8, 8]), scale];
    graph(input, weights, rows)
}

#[test]
fn the_first_node_that_parts_is_named_in_both_files() {
    let (right, wrong) = (attention(false, false), attention(true, true));
    assert_eq!(compared(&attention(true, false), &right).verdict, Outcome::Pass);
    let found = compared(&wrong, &right);
    let place = found.first_divergence.as_ref().unwrap();
    assert_eq!((place.node.node.as_str(), place.node.operator.as_str()), ("/weights/Softmax", "Softmax"));
    assert_eq!(place.counterpart.as_ref().unwrap().operator, "Softmax");
    // q, k, kᵀ, the scores, and the scaled ones.
    assert_eq!(place.agree, 5);
    assert!(place.error.unwrap() > 1e-2);
    assert_eq!(found.findings[0].place, "/weights/Softmax");
    // Another engine says the same.
    assert!(found.second.is_some(), "{found:?}");
}

#[test]
fn the_wrong_piece_is_a_file_with_its_data() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, file: OnnxFile| fs::write(folder.path().join(name), file.model.encode_to_vec());
    write("right.onnx", attention(false, false)).unwrap();
    write("wrong.onnx", attention(true, true)).unwrap();
    let arguments = ["verify", "wrong.onnx", "--against", "right.onnx", "--save-node", "piece.onnx"];
    let verdict = json_of(&folder, 1, &arguments);
    assert_eq!(verdict["first_divergence"]["node"], "/weights/Softmax");
    let piece = open(&folder.path().join("piece.onnx")).unwrap();
    let nodes = &piece.model.graph.as_ref().unwrap().node;
    assert_eq!(nodes.iter().map(NodeProto::op_type).collect::<Vec<_>>(), ["Softmax"]);
    let sets = data::read(&folder.path().join("piece_data"), &data::Ports::of(&piece.model)).unwrap();
    let [set] = sets.as_slice() else { panic!("one set") };
    // It gives what the wrong file gives, and the recorded output is the right one's.
    let ports = [("scaled".to_owned(), set.inputs[0].shape().to_vec())];
    let expected = set.outputs[0].as_ref().unwrap();
    for runtime in [&Tract as &dyn Runtime, &Own] {
        let found = &runtime.prepare(&piece, &ports, &[]).unwrap().run(&set.inputs).unwrap()[0];
        assert_eq!(found.shape(), expected.shape());
        assert!((found - expected).iter().any(|d| d.abs() > 1e-2));
        let columns = found.sum_axis(ndarray::Axis(1));
        assert!(columns.iter().all(|sum| (sum - 1.0).abs() < 1e-5));
    }
    let again = emo(&folder, &arguments);
    assert!(again.0 == 2 && again.2.contains("expected a new folder"), "{again:?}");
}

/// An engine that gets `Softmax` over the axis 1 wrong.
struct Faulty;

struct Off(Box<dyn Session>, bool);

impl Runtime for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn ready(
        &self,
        model: &Concrete,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<Box<dyn Session>, Failure> {
        // The two files differ in the name of a value.
        Ok(Box::new(Off(Tract.ready(model, inputs, outputs)?, model.shape("weights").is_some())))
    }
}

impl Session for Off {
    fn run(&mut self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, Failure> {
        let mut outputs = self.0.run(inputs)?;
        outputs.iter_mut().filter(|_| self.1).for_each(|output| *output *= 1.5);
        Ok(outputs)
    }
}

#[test]
fn no_file_is_blamed_for_its_engine() {
    let found = held(&attention(true, false), &attention(false, false), &[], &Faulty).unwrap();
    assert_eq!(found.verdict, Outcome::Undecided, "{found:?}");
    let reason = found.reason.unwrap();
    assert!(reason.contains("in faulty") && reason.contains("the files agree there"), "{reason}");
    assert!(reason.contains("faulty is wrong at /q/MatMul of the file"), "{reason}");
    // A file that is wrong is so in every engine.
    let found = held(&attention(true, true), &attention(false, false), &[], &Faulty).unwrap();
    assert_eq!(found.verdict, Outcome::Fail);
}
