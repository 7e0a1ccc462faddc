//! Files that round: what is allowed follows from what lies on the way of the data, and from nothing beside it.

use emo_exporter::target::Batch;
use emo_exporter::weights::Spec;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::{GraphProto, Message as _, ModelProto, NodeProto};
use emo_tests::Order;
use emo_tests::fixture;
use emo_tests::onnx::{int, node, value};
use emo_verifier::compare::FLOAT32;
use emo_verifier::runtime::{Own, Runtime, Tract};
use emo_verifier::verify::{self, Outcome, Verdict, cause};

const FORMULA: Option<Spec> = Some(Spec::Formula(0));

fn judge(model: &ModelProto, weights: Option<Spec>, runtime: &dyn Runtime) -> Verdict {
    let file = OnnxFile::from_bytes(model.encode_to_vec().into(), External::none()).unwrap();
    let request = verify::Request { weights, probes: Some(3), ..Default::default() };
    verify::verify(&file, None, &request, runtime).unwrap()
}

fn right() -> ModelProto {
    let request = Order::named("emo-1m", "portable");
    let request = request.with(|t| {
        t.size = (64, 64);
        t.batch = Batch::Fixed(1);
    });
    let bytes = request.export(&Spec::Formula(0)).unwrap().bytes;
    ModelProto::decode(&*bytes).unwrap()
}

fn zeros(dtype: DataType, name: &str) -> emo_proto::TensorProto {
    let bytes = vec![0; 2000 * if dtype == DataType::Uint8 { 1 } else { 2 }];
    Tensor::new(dtype, vec![2000], bytes.into()).unwrap().encode(name)
}

fn number(name: &str, x: f32) -> emo_proto::TensorProto {
    Tensor::from_f32(Vec::new(), vec![x]).unwrap().encode(name)
}

/// What it is, and how it is added.
type Unread = (&'static str, fn(&mut GraphProto));

/// Things that are coarse and that nothing reads.
const UNREAD: [Unread; 6] = [
    ("bytes", |g| g.initializer.push(zeros(DataType::Uint8, "unread"))),
    ("float16", |g| g.initializer.push(zeros(DataType::Float16, "unread"))),
    ("bfloat16", |g| g.initializer.push(zeros(DataType::Bfloat16, "unread"))),
    ("a pair of the picture", |g| {
        let input = g.input[0].name().to_owned();
        g.initializer.push(number("scale", 0.1));
        g.node.push(node("QuantizeLinear", &[&input, "scale"], &["q"], Vec::new()));
        g.node.push(node("DequantizeLinear", &["q", "scale"], &["unread"], Vec::new()));
    }),
    ("a cast of the logits", |g| {
        let output = g.output[0].name().to_owned();
        g.node.push(node("Cast", &[&output], &["unread"], vec![int("to", DataType::Float16 as i64)]));
    }),
    ("a declared type", |g| {
        let name = g.node[0].output[0].clone();
        g.value_info.push(value(&name, DataType::Float16, &[]));
    }),
];

#[test]
fn what_nothing_reads_earns_nothing() {
    for (what, add) in UNREAD {
        let mut model = right();
        add(model.graph.as_mut().unwrap());
        let verdict = judge(&model, FORMULA, &Tract);
        assert_eq!(verdict.verdict, Outcome::Pass, "{what}: {:?}", verdict.reason);
        assert_eq!((verdict.tolerance, verdict.bound), (Some("f32"), Some(FLOAT32.bound)), "{what}");
    }
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn what_nothing_reads_excuses_nothing() {
    let wrong = fixture("third_party/wrong_tiles.onnx");
    let wrong = ModelProto::decode(&*std::fs::read(wrong).unwrap()).unwrap();
    for (what, add) in UNREAD {
        let mut model = wrong.clone();
        add(model.graph.as_mut().unwrap());
        let verdict = judge(&model, FORMULA, &Tract);
        let found = (verdict.verdict, verdict.cause, verdict.first_divergence.as_deref());
        assert_eq!(found, (Outcome::Fail, Some("tiles"), Some("stage3.1")), "{what}: {:?}", verdict.reason);
    }
}

/// Puts `nodes`, which read `before` and write `after`, behind the first node of `operator`.
fn behind(model: &mut ModelProto, operator: &str, nodes: &[NodeProto], numbers: &[(&str, f32)]) {
    let graph = model.graph.as_mut().unwrap();
    let at = graph.node.iter().position(|node| node.op_type() == operator).unwrap();
    let name = std::mem::replace(&mut graph.node[at].output[0], "before".to_owned());
    graph.initializer.extend(numbers.iter().map(|(name, x)| number(name, *x)));
    for (i, node) in nodes.iter().enumerate() {
        let mut node = node.clone();
        node.output
            .iter_mut()
            .filter(|output| *output == "after")
            .for_each(|output| output.clone_from(&name));
        graph.node.insert(at + 1 + i, node);
    }
}

/// The values behind the first convolution, `factor` times as large, in another type and back.
fn through(dtype: DataType, factor: f32) -> ModelProto {
    let mut model = right();
    let cast =
        |from: &str, to: &str, dtype: DataType| node("Cast", &[from], &[to], vec![int("to", dtype as i64)]);
    let nodes = [
        node("Mul", &["before", "factor"], &["large"], Vec::new()),
        cast("large", "coarse", dtype),
        cast("coarse", "wide", DataType::Float),
        node("Div", &["wide", "factor"], &["after"], Vec::new()),
    ];
    behind(&mut model, "Conv", &nodes, &[("factor", factor)]);
    model
}

#[test]
fn a_cast_that_rounds_is_run_as_it_is_written() {
    for weights in [None, FORMULA] {
        let verdict = judge(&through(DataType::Float16, 1e6), weights, &Tract);
        assert_eq!(
            (verdict.verdict, verdict.cause),
            (Outcome::Fail, Some(cause::ROUNDING)),
            "{:?}",
            verdict.reason
        );
    }
    // In one place a coarse type costs that place's share, which is far from the type's own tolerance.
    for (dtype, name, most) in [(DataType::Float16, "f16", 2e-3), (DataType::Bfloat16, "bf16", 2e-2)] {
        let verdict = judge(&through(dtype, 1.0), FORMULA, &Tract);
        assert_eq!((verdict.verdict, verdict.tolerance), (Outcome::Pass, Some(name)), "{:?}", verdict.reason);
        let (bound, error) = (verdict.bound.unwrap(), verdict.max_relative.unwrap());
        assert!(FLOAT32.bound < error && error < bound && bound < most, "{name}: {error:e} within {bound:e}");
    }
}

/// What a pair of QuantizeLinear and DequantizeLinear with this scale earns, and what becomes of the verdict.
#[test]
fn a_range_that_is_too_small_is_left_open_and_a_fine_one_passes() {
    let pair = |scale: f32| {
        let mut model = right();
        let zero = Tensor::new(DataType::Uint8, Vec::new(), vec![128].into()).unwrap().encode("zero");
        let nodes = [
            node("QuantizeLinear", &["before", "scale", "zero"], &["q"], Vec::new()),
            node("DequantizeLinear", &["q", "scale", "zero"], &["after"], Vec::new()),
        ];
        behind(&mut model, "Conv", &nodes, &[("scale", scale)]);
        model.graph.as_mut().unwrap().initializer.push(zero);
        model
    };
    let engines: [&dyn Runtime; 2] = [&Tract, &Own];
    for engine in engines {
        let fine = judge(&pair(0.05), FORMULA, engine);
        assert_eq!((fine.verdict, fine.tolerance), (Outcome::Pass, Some("int8")), "{:?}", fine.reason);
        assert!(fine.bound.unwrap() < 0.1 && fine.max_relative.unwrap() > FLOAT32.bound);
        let saturated = judge(&pair(0.002), FORMULA, engine);
        assert_eq!(saturated.verdict, Outcome::Undecided, "other pictures may fit: {:?}", saturated.reason);
        assert!(saturated.reason.unwrap().contains("ranges of integers are too small"));
        // So coarse that anything may come out: the function is right, and that is all that can be said.
        let crude = judge(&pair(50.0), FORMULA, engine);
        assert_ne!(crude.verdict, Outcome::Pass, "{:?}", crude.reason);
    }
}
