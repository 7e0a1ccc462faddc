//! Files that are right on every test input and wrong elsewhere: none passes, and what is harmless does.

use emo_exporter::target::Batch;
use emo_exporter::weights::Spec;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::{GraphProto, Message as _, ModelProto, NodeProto};
use emo_tests::Order;
use emo_tests::onnx::{self, float, int, ints, list, node};
use emo_verifier::runtime::Tract;
use emo_verifier::verify::{self, Outcome, Verdict, cause::NOT_EMO, explain::UNEXPLAINED};

const SIDE: i64 = 64;
const CLASSES: i64 = 1000;

/// A graph whose last node writes `last` in place of the logits.
struct Trick<'a> {
    graph: &'a mut GraphProto,
}

impl Trick<'_> {
    fn number(&mut self, name: &str, x: f32) {
        let tensor = Tensor::from_f32(Vec::new(), vec![x]).unwrap();
        self.graph.initializer.push(tensor.encode(name));
    }

    fn list(&mut self, name: &str, elements: &[i64]) {
        self.graph.initializer.push(list(name, elements));
    }

    fn add(&mut self, node: NodeProto) {
        self.graph.node.push(node);
    }

    /// The element of the picture at row 3, column 5 of the first channel, as `pixel` `[1, 1]`.
    fn pixel(&mut self) {
        self.list("from", &[0, 3, 5]);
        self.list("to", &[1, 4, 6]);
        self.list("axes", &[1, 2, 3]);
        self.add(node("Slice", &["input", "from", "to", "axes"], &["corner"], Vec::new()));
        self.list("flat", &[1, 1]);
        self.add(node("Reshape", &["corner", "flat"], &["pixel"], Vec::new()));
    }
}

/// The right file with its logits called `right`, and `trick` to make `logits` of them.
fn file(trick: impl Fn(&mut Trick)) -> ModelProto {
    let request = Order::named("emo-1m", "portable");
    let request = request.with(|t| {
        t.size = (SIDE as usize, SIDE as usize);
        t.batch = Batch::Fixed(1);
    });
    let bytes = request.export(&Spec::Formula(0)).unwrap().bytes;
    let mut model = ModelProto::decode(&*bytes).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let output = graph.output[0].name().to_owned();
    assert_eq!((graph.input[0].name(), output.as_str()), ("input", "logits"));
    for name in graph.node.iter_mut().flat_map(|node| &mut node.output).filter(|name| **name == output) {
        "right".clone_into(name);
    }
    trick(&mut Trick { graph });
    model
}

fn judge(model: &ModelProto) -> Verdict {
    let file = OnnxFile::from_bytes(model.encode_to_vec().into(), External::none()).unwrap();
    verify::verify(&file, None, &verify::Request::default(), &Tract).unwrap()
}

type Row = (&'static str, fn(&mut Trick));

/// A condition that no test input meets chooses between the logits and their opposite.
fn choose(t: &mut Trick, condition: &str) {
    t.add(node("Neg", &["right"], &["wrong"], Vec::new()));
    t.add(node("Where", &[condition, "wrong", "right"], &["logits"], Vec::new()));
}

/// Adds `by`, which is nearly zero on every test input.
fn disturb(t: &mut Trick, by: &str) {
    t.add(node("Add", &["right", by], &["logits"], Vec::new()));
}

const TRICKS: [Row; 17] = [
    ("a bright picture", |t| {
        t.add(node("ReduceMax", &["input"], &["brightest"], vec![int("keepdims", 0)]));
        t.number("limit", 3e3);
        t.add(node("Greater", &["brightest", "limit"], &["bright"], Vec::new()));
        choose(t, "bright");
    }),
    ("a magic pixel", |t| {
        t.pixel();
        t.number("magic", 1.2345);
        t.add(node("Equal", &["pixel", "magic"], &["met"], Vec::new()));
        choose(t, "met");
    }),
    ("a branch", |t| {
        t.add(node("ReduceMax", &["input"], &["brightest"], vec![int("keepdims", 0)]));
        t.number("limit", 3e3);
        t.add(node("Greater", &["brightest", "limit"], &["bright"], Vec::new()));
        let body = |operator: &str, output: &str| {
            let mut graph = onnx::graph_of(
                Vec::new(),
                Vec::new(),
                vec![node(operator, &["right"], &[output], Vec::new())],
                &[],
            );
            graph.name = Some(output.to_owned());
            graph.output.push(onnx::value(output, DataType::Float, &[1.into(), CLASSES.into()]));
            graph
        };
        let (then, otherwise) = (body("Neg", "negated"), body("Identity", "kept"));
        let bodies = vec![onnx::graph("then_branch", then), onnx::graph("else_branch", otherwise)];
        t.add(node("If", &["bright"], &["logits"], bodies));
    }),
    ("a sigmoid that is a step", |t| {
        t.pixel();
        t.number("far", 1e3);
        t.number("steep", 1e4);
        t.add(node("Sub", &["pixel", "far"], &["over"], Vec::new()));
        t.add(node("Mul", &["over", "steep"], &["steeply"], Vec::new()));
        t.add(node("Sigmoid", &["steeply"], &["step"], Vec::new()));
        t.number("much", 50.0);
        t.add(node("Mul", &["step", "much"], &["by"], Vec::new()));
        disturb(t, "by");
    }),
    ("a rectified difference", |t| {
        t.pixel();
        t.number("far", 1e3);
        t.add(node("Sub", &["pixel", "far"], &["over"], Vec::new()));
        t.add(node("Relu", &["over"], &["by"], Vec::new()));
        disturb(t, "by");
    }),
    ("a largest of two", |t| {
        t.number("far", -300.0);
        t.add(node("Max", &["right", "far"], &["logits"], Vec::new()));
    }),
    ("a smallest of two", |t| {
        t.number("far", 300.0);
        t.add(node("Min", &["right", "far"], &["logits"], Vec::new()));
    }),
    ("a clip", |t| {
        t.number("low", -300.0);
        t.number("high", 300.0);
        t.add(node("Clip", &["right", "low", "high"], &["logits"], Vec::new()));
    }),
    ("a rounded threshold", |t| {
        t.pixel();
        t.number("far", 1e-4);
        t.add(node("Mul", &["pixel", "far"], &["small"], Vec::new()));
        t.add(node("Round", &["small"], &["by"], Vec::new()));
        disturb(t, "by");
    }),
    ("a truncation to integers", |t| {
        t.pixel();
        t.number("far", 1e-4);
        t.add(node("Mul", &["pixel", "far"], &["small"], Vec::new()));
        t.add(node("Cast", &["small"], &["whole"], vec![int("to", DataType::Int64 as i64)]));
        t.add(node("Cast", &["whole"], &["by"], vec![int("to", DataType::Float as i64)]));
        disturb(t, "by");
    }),
    ("a high power", |t| {
        t.pixel();
        t.number("far", 1e-4);
        t.add(node("Mul", &["pixel", "far"], &["small"], Vec::new()));
        t.number("thirty", 30.0);
        t.add(node("Pow", &["small", "thirty"], &["by"], Vec::new()));
        disturb(t, "by");
    }),
    ("a power by squares", |t| {
        t.pixel();
        t.number("far", 1e-3);
        t.add(node("Mul", &["pixel", "far"], &["p0"], Vec::new()));
        for (from, to) in [("p0", "p1"), ("p1", "p2"), ("p2", "p3"), ("p3", "p4"), ("p4", "by")] {
            t.add(node("Mul", &[from, from], &[to], Vec::new()));
        }
        disturb(t, "by");
    }),
    ("a softmax over a picture", |t| {
        t.list("flat", &[1, -1]);
        t.add(node("Reshape", &["input", "flat"], &["row"], Vec::new()));
        t.number("steep", 0.0);
        t.add(node("Mul", &["row", "steep"], &["scaled"], Vec::new()));
        t.add(node("Softmax", &["scaled"], &["shares"], vec![int("axis", -1)]));
        t.add(node("ReduceSum", &["shares"], &["one"], Vec::new()));
        t.number("minus", -1.0);
        t.add(node("Add", &["one", "minus"], &["by"], Vec::new()));
        disturb(t, "by");
    }),
    ("the largest places", |t| {
        t.list("k", &[CLASSES]);
        t.add(node("TopK", &["right", "k"], &["sorted", "places"], vec![int("axis", 1)]));
        t.add(node("ScatterElements", &["right", "places", "sorted"], &["logits"], vec![int("axis", 1)]));
    }),
    ("a layer from the picture", |t| {
        let count = 3 * SIDE * SIDE;
        t.list("flat", &[1, count]);
        t.add(node("Reshape", &["input", "flat"], &["row"], Vec::new()));
        let tensor = Tensor::from_f32(vec![count as usize, 1], vec![1e-12; count as usize]).unwrap();
        t.graph.initializer.push(tensor.encode("hidden"));
        t.add(node("MatMul", &["row", "hidden"], &["by"], Vec::new()));
        disturb(t, "by");
    }),
    ("a convolution beside the stem", |t| {
        let tensor = Tensor::from_f32(vec![1, 12, 1, 1], vec![1e-12; 12]).unwrap();
        t.graph.initializer.push(tensor.encode("hidden"));
        t.add(node("SpaceToDepth", &["input"], &["deep"], vec![int("blocksize", 2)]));
        t.add(node("Conv", &["deep", "hidden"], &["map"], Vec::new()));
        t.add(node("ReduceMean", &["map"], &["by"], vec![int("keepdims", 0)]));
        disturb(t, "by");
    }),
    ("a sum over the picture", |t| {
        t.number("small", 1e-12);
        t.add(node("Mul", &["input", "small"], &["map"], Vec::new()));
        t.add(node("ReduceSum", &["map"], &["by"], vec![int("keepdims", 0)]));
        disturb(t, "by");
    }),
];

/// Rows that add a layer of their own.
const MORE_LAYERS: [&str; 2] = ["a layer from the picture", "a convolution beside the stem"];

#[test]
fn what_no_test_input_reaches_keeps_a_verdict_open() {
    for (what, trick) in TRICKS {
        let verdict = judge(&file(trick));
        if MORE_LAYERS.contains(&what) {
            // A linear layer that the network has not got makes it another network.
            assert_eq!((verdict.verdict, verdict.cause), (Outcome::Fail, Some(NOT_EMO)), "{what}");
            let reason = verdict.reason.unwrap();
            assert!(reason.contains("(by)") || reason.contains("(map)"), "{what}: {reason}");
            continue;
        }
        assert_eq!(verdict.verdict, Outcome::Undecided, "{what}: {:?}", verdict.reason);
        let unexplained = verdict.findings.iter().filter(|finding| finding.code == UNEXPLAINED);
        assert!(unexplained.count() > 0, "{what}");
        assert!(verdict.probes.iter().all(|probe| probe.holds), "{what}: the numbers say nothing against it");
    }
}

const HARMLESS: [Row; 7] = [
    ("a copy", |t| t.add(node("Identity", &["right"], &["logits"], Vec::new()))),
    ("a dropout", |t| t.add(node("Dropout", &["right"], &["logits"], Vec::new()))),
    ("a pair of reshapes", |t| {
        t.list("there", &[10, -1]);
        t.list("back", &[1, CLASSES]);
        t.add(node("Reshape", &["right", "there"], &["moved"], Vec::new()));
        t.add(node("Reshape", &["moved", "back"], &["logits"], Vec::new()));
    }),
    ("a pair of transposes", |t| {
        t.add(node("Transpose", &["right"], &["moved"], vec![ints("perm", &[1, 0])]));
        t.add(node("Transpose", &["moved"], &["logits"], vec![ints("perm", &[1, 0])]));
    }),
    ("a cast to what it is", |t| {
        t.add(node("Cast", &["right"], &["logits"], vec![int("to", DataType::Float as i64)]));
    }),
    ("a factor of one", |t| {
        t.number("one", 1.0);
        t.add(node("Mul", &["right", "one"], &["logits"], Vec::new()));
    }),
    ("halves that are put together", |t| {
        t.list("halves", &[CLASSES / 2, CLASSES / 2]);
        t.add(node("Split", &["right", "halves"], &["a", "b"], vec![int("axis", 1)]));
        t.add(node("Concat", &["a", "b"], &["logits"], vec![int("axis", 1)]));
    }),
];

#[test]
fn what_is_harmless_passes() {
    for (what, trick) in HARMLESS {
        let verdict = judge(&file(trick));
        assert_eq!(verdict.verdict, Outcome::Pass, "{what}: {:?}", verdict.reason);
        assert!(verdict.findings.iter().all(|finding| finding.code != UNEXPLAINED), "{what}");
    }
    // What does nothing, and of which nobody has shown it.
    let verdict = judge(&file(|t| {
        t.add(node("LeakyRelu", &["right"], &["logits"], vec![float("alpha", 1.0)]));
    }));
    assert_eq!(verdict.verdict, Outcome::Undecided);
}
