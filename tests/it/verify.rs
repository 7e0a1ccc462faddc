//! The verdict: right files of any writer pass, and each mistake is found, placed and named.

use std::collections::BTreeMap;

use emo_exporter::models::Model;
use emo_exporter::profile::OPSETS;
use emo_exporter::target::Batch;
use emo_exporter::weights::Spec;
use emo_proto::Message as _;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_proto::tensor_proto::DataType;
use emo_tests::Order;
use emo_tests::mutate::{self, Kind, Mutation, Subject};
use emo_tests::{fixture, onnx};
use emo_verifier::compare::{FLOAT32, Tolerance};
use emo_verifier::runtime::Tract;
use emo_verifier::verify::probes::Probed;
use emo_verifier::verify::{self, Form, Outcome, Verdict, cause};

const FORMULA: Option<Spec> = Some(Spec::Formula(0));

fn judge(
    bytes: Vec<u8>,
    weights: Option<Spec>,
    tolerance: Option<&'static Tolerance>,
    probes: usize,
) -> Verdict {
    let file = OnnxFile::from_bytes(bytes.into(), External::none()).unwrap();
    let request = verify::Request { weights, tolerance, probes: Some(probes), ..Default::default() };
    verify::verify(&file, None, &request, &Tract).unwrap()
}

fn third_party(name: &str) -> Vec<u8> {
    std::fs::read(fixture(&format!("third_party/{name}.onnx"))).unwrap()
}

fn order(model: &str, profile: &str, size: (usize, usize), batch: Batch, opset: usize) -> Order {
    Order::named(model, profile).with(|t| {
        t.size = size;
        t.batch = batch;
        t.opset = &OPSETS[opset];
    })
}

fn export(model: &str, profile: &str, size: (usize, usize), batch: Batch, opset: usize) -> Vec<u8> {
    order(model, profile, size, batch, opset).export(&Spec::Formula(0)).unwrap().bytes
}

/// The right files of other toolchains, and how they are spelled.
const THIRD_PARTY: [(&str, Form, &str); 6] = [
    ("emo_1m_torchscript_op13", Form::Torchscript, "f32"),
    ("emo_1m_torchscript_op17_dynamic", Form::Torchscript, "f32"),
    ("emo_1m_einops_torchscript_op17", Form::Torchscript, "f32"),
    ("emo_1m_dynamo_op18", Form::Dynamo, "f32"),
    ("emo_1m_dynamo_op20_onnxslim", Form::Simplified, "f32"),
    ("emo_1m_fp16", Form::Torchscript, "f16"),
];

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn right_third_party_files_pass_with_and_without_weights() {
    for (name, form, dtype) in THIRD_PARTY {
        let bytes = third_party(name);
        let checkpoint = Some(Spec::File(fixture("third_party/emo_1m_train.pth")));
        for weights in [None, FORMULA, checkpoint] {
            let verdict = judge(bytes.clone(), weights.clone(), None, verify::PROBES);
            assert_eq!(verdict.verdict, Outcome::Pass, "{name} {weights:?}: {:?}", verdict.reason);
            assert_eq!(
                (verdict.model.as_deref(), verdict.size, verdict.classes),
                (Some("emo-1m"), Some((224, 224)), Some(1000))
            );
            assert_eq!(
                (verdict.form, verdict.dtype, verdict.tolerance),
                (Some(form), Some(dtype), Some(dtype)),
                "{name}"
            );
            assert_eq!(verdict.probes.len(), verify::PROBES);
            assert!(verdict.claim.is_some_and(|claim| claim.holds), "{name}");
            // Without weights, what that leaves open is said.
            assert_eq!(verdict.weights.unwrap().open.is_empty(), weights.is_some(), "{name}");
        }
    }
}

/// On a flat picture the stem's mean over 12,544 pixels rounds one way all along, in every engine: files with these
/// weights are right beyond the tolerance.
#[test]
fn flat_pictures_may_round_alike() {
    let portable = Order::named("emo-1m", "portable");
    for weights in [1, 7, 8].map(Spec::Formula) {
        let bytes = portable.export(&weights).unwrap().bytes;
        let verdict = judge(bytes, Some(weights.clone()), None, 8);
        assert_eq!(verdict.verdict, Outcome::Pass, "{weights}: {:?}", verdict.reason);
        let beyond = |p: &&Probed| p.difference.is_some_and(|d| d.relative() > FLOAT32.bound);
        let beyond: Vec<&Probed> = verdict.probes.iter().filter(beyond).collect();
        assert!(!beyond.is_empty() && beyond.iter().all(|p| p.allowance > 0.0), "{weights}: {beyond:?}");
        // What is no flat picture has none.
        let noise = verdict.probes.iter().filter(|p| p.name.starts_with("noise"));
        assert!(noise.into_iter().all(|p| p.allowance == 0.0));
    }
}

/// Sizes that nobody can run, of a third-party file, end the verdict and not the process.
#[test]
fn what_is_too_large_is_undecided() {
    let bytes = export("emo-1m", "portable", (16384, 16384), Batch::Fixed(65536), 0);
    let verdict = judge(bytes, None, None, 1);
    assert_eq!(verdict.verdict, Outcome::Undecided);
    assert!(verdict.reason.unwrap().contains("too large"));
    let bytes = export("emo-1m", "portable", (224, 224), Batch::Fixed(1), 0);
    assert_eq!(judge(bytes, None, None, 0).verdict, Outcome::Undecided, "no input is no evidence");
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn a_float16_file_is_no_float32_file() {
    let bytes = third_party("emo_1m_fp16");
    for weights in [None, FORMULA] {
        let verdict = judge(bytes.clone(), weights, Some(&FLOAT32), 1);
        assert_eq!((verdict.verdict, verdict.cause), (Outcome::Fail, Some(cause::PRECISION)));
    }
}

/// Rounded to float16 and written as float32: the error of a right float16 file, in a file that has no right to it.
#[test]
fn float16_error_fails_in_a_float32_file() {
    let bytes = export("emo-1m", "portable", (224, 224), Batch::Fixed(1), 0);
    let mut file = emo_proto::ModelProto::decode(&*bytes).unwrap();
    for initializer in &mut file.graph.as_mut().unwrap().initializer {
        let tensor = emo_proto::tensor::Tensor::decode(initializer, &External::none()).unwrap();
        if tensor.dtype == DataType::Float {
            let values =
                tensor.f32s().unwrap().into_iter().map(|x| half::f16::from_f32(x).to_f32()).collect();
            let name = initializer.name().to_owned();
            *initializer =
                emo_proto::tensor::Tensor::from_f32(tensor.dims.clone(), values).unwrap().encode(&name);
        }
    }
    let verdict = judge(file.encode_to_vec(), FORMULA, None, 1);
    assert_eq!((verdict.verdict, verdict.tolerance), (Outcome::Fail, Some("f32")), "{:?}", verdict.reason);
    assert_eq!(verdict.cause, Some(cause::WEIGHTS));
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn wrong_third_party_files_fail_with_block_and_cause() {
    for (name, block, cause) in
        [("wrong_tiles", "stage3.1", "tiles"), ("wrong_bn_eps", "stage1.1", cause::NORM_EPSILON)]
    {
        let bytes = third_party(name);
        for weights in [None, FORMULA] {
            let verdict = judge(bytes.clone(), weights, None, 2);
            assert_eq!(
                (verdict.verdict, verdict.cause),
                (Outcome::Fail, Some(cause)),
                "{:?}",
                verdict.reason
            );
            assert_eq!(verdict.first_divergence.as_deref(), Some(block));
            assert!(verdict.probes.iter().all(|probe| !probe.holds), "{name}: numbers differ too");
        }
    }
}

#[test]
fn right_files_of_ours_pass() {
    let fixed = Batch::Fixed;
    let rows = [
        ("emo-1m", "reference", (224, 224), fixed(1), 1, 2),
        ("emo-1m", "portable", (256, 320), fixed(2), 0, 2),
        ("emo-1m", "portable", (256, 320), Batch::Dynamic, 1, 8),
        ("emo-1m", "reference", (200, 131), Batch::Dynamic, 0, 1),
        ("emo-2m", "portable", (224, 224), fixed(1), 0, 2),
        ("emo-5m", "reference", (224, 224), fixed(1), 1, 2),
        ("emo-5m", "portable", (200, 131), fixed(1), 0, 2),
        ("emo-6m", "portable", (224, 224), Batch::Dynamic, 1, 1),
    ];
    for (model, profile, size, batch, opset, probes) in rows {
        let bytes = export(model, profile, size, batch, opset);
        for weights in [None, FORMULA] {
            let verdict = judge(bytes.clone(), weights, None, probes);
            let place = format!("{model} {profile} {size:?} {batch:?}: {:?}", verdict.reason);
            assert_eq!(verdict.verdict, Outcome::Pass, "{place}");
            assert_eq!((verdict.model.as_deref(), verdict.size), (Some(model), Some(size)), "{place}");
            assert_eq!(verdict.form, Some(Form::Rank4), "{place}");
            let free = matches!(batch, Batch::Dynamic);
            let several = batch == fixed(2) || free && probes == verify::PROBES;
            assert_eq!(verdict.batch.is_none(), free, "{place}");
            assert_eq!(verdict.probes.iter().any(|p| p.shape[0] > 1), several, "{place}");
        }
    }
}

/// The mistakes of EMO that every writer's file is given.
pub const MUTATIONS: [Mutation; 16] = [
    mutate::EPSILON,
    mutate::LOCAL_EPSILON,
    mutate::TANH_GELU,
    mutate::NO_SKIP,
    mutate::NO_SHORTCUT,
    mutate::TILES,
    mutate::MASKED_PADDING,
    mutate::NO_VALUE_ACTIVATION,
    mutate::NO_LOCAL_ACTIVATION,
    mutate::NO_GATE,
    mutate::NO_ATTENTION,
    mutate::EXCHANGED_QK,
    mutate::NO_SCALE,
    mutate::SCALED_WEIGHT,
    mutate::FLIPPED_BIT,
    mutate::TRANSPOSED_KERNEL,
];

/// Every mutation of a file: in every block with `EMO_THOROUGH=1`, else in one block of one stage, such that with
/// the other files, numbered by `offset`, every stage has its turn. Returns how many were made.
fn mutations(name: &str, offset: usize, subject: &Subject, masks: bool) -> usize {
    let thorough = std::env::var("EMO_THOROUGH").is_ok_and(|v| v == "1");
    let mut made = 0;
    for (turn, mutation) in MUTATIONS.iter().enumerate() {
        if (mutation.cause == mutate::MASKED_PADDING.cause) != masks {
            continue;
        }
        let mut files: BTreeMap<String, Vec<(String, Vec<u8>)>> = BTreeMap::new();
        for block in subject.blocks() {
            let stage = block.split('.').next().unwrap_or_default().to_owned();
            if let Some(bytes) = subject.with(mutation.edit, &block) {
                files.entry(stage).or_default().push((block, bytes));
            }
        }
        let mut files: Vec<_> = files.into_values().collect();
        if !thorough && !files.is_empty() {
            let mut stage = files.swap_remove((turn + offset) % files.len());
            files = vec![vec![stage.swap_remove(turn % stage.len())]];
        }
        for (block, bytes) in files.into_iter().flatten() {
            made += 1;
            found(&format!("{name}: {} in {block}", mutation.what), &bytes, &block, mutation);
        }
    }
    made
}

/// A file with a mistake fails with its block and cause; one that shows beside the checkpoint alone is open without.
pub fn found(place: &str, bytes: &[u8], block: &str, mutation: &Mutation) {
    for weights in [None, FORMULA] {
        let place = format!("{place}, weights {}", weights.is_some());
        let hidden = mutation.kind == Kind::Weights && weights.is_none();
        let verdict = judge(bytes.to_vec(), weights, None, 1);
        let reason = verdict.reason.as_deref();
        if hidden {
            assert_eq!(verdict.verdict, Outcome::Pass, "{place}: {reason:?}");
            assert!(!verdict.weights.unwrap().open.is_empty(), "{place}");
            continue;
        }
        assert_eq!(verdict.verdict, Outcome::Fail, "{place}: {reason:?}");
        let found = (verdict.cause, verdict.first_divergence.as_deref());
        assert_eq!(found, (Some(mutation.cause), Some(block)), "{place}: {reason:?}");
    }
}

macro_rules! mutations_of_third_party {
    ($($test:ident: $file:literal, $offset:literal;)*) => {$(
        #[test]
        #[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
        fn $test() {
            let subject = Subject::third_party(third_party($file), Model::named("emo-1m").unwrap());
            let made = mutations($file, $offset, &subject, false);
            assert!(made >= 12, "{made} mutations were made");
        }
    )*};
}

mutations_of_third_party! {
    mutations_of_a_torchscript_file: "emo_1m_torchscript_op13", 0;
    mutations_of_a_dynamic_file: "emo_1m_torchscript_op17_dynamic", 1;
    mutations_of_an_einops_file: "emo_1m_einops_torchscript_op17", 2;
    mutations_of_a_dynamo_file: "emo_1m_dynamo_op18", 3;
    mutations_of_a_slim_file: "emo_1m_dynamo_op20_onnxslim", 4;
    mutations_of_a_float16_file: "emo_1m_fp16", 5;
}

#[test]
fn mutations_of_our_files() {
    for (profile, opset, offset) in [("reference", 0, 6), ("portable", 1, 7)] {
        let order = order("emo-1m", profile, (224, 224), Batch::Fixed(1), opset);
        assert!(mutations(profile, offset, &Subject::ours(&order), false) >= 12);
        let order = order.with(|t| t.size = (256, 320));
        assert!(mutations(profile, offset, &Subject::ours(&order), true) >= 1);
    }
}

#[test]
fn a_graph_of_one_node_is_no_emo() {
    let input = onnx::value("input", DataType::Float, &[1.into(), 3.into(), 224.into(), 224.into()]);
    let node = onnx::node("Relu", &["input"], &["output"], Vec::new());
    let output = onnx::value("output", DataType::Float, &[1.into(), 3.into(), 224.into(), 224.into()]);
    let mut graph = onnx::graph_of(vec![input], Vec::new(), vec![node], &["output"]);
    (graph.name, graph.output) = (Some("relu".to_owned()), vec![output]);
    let verdict = judge(onnx::model(17, graph).encode_to_vec(), None, None, 1);
    assert_eq!((verdict.verdict, verdict.cause), (Outcome::Fail, Some(cause::NOT_EMO)));
    let departure = verdict.departure.unwrap();
    assert_eq!((departure.matched, verdict.model), (0, None));
    assert!(verdict.reason.unwrap().contains("found the end of the network"));
}

#[test]
fn a_file_that_cannot_run_ends_there() {
    let input = onnx::value("input", DataType::Float, &[1.into(), 3.into(), 224.into(), 224.into()]);
    let node = onnx::node("Frobnicate", &["input"], &["output"], Vec::new());
    let mut graph = onnx::graph_of(vec![input], Vec::new(), vec![node], &["output"]);
    graph.name = Some("frobnicate".to_owned());
    let verdict = judge(onnx::model(17, graph).encode_to_vec(), None, None, 1);
    assert_eq!((verdict.verdict, verdict.cause), (Outcome::Fail, Some(cause::UNRUNNABLE)));
    assert!(verdict.reason.unwrap().contains("Frobnicate"));
}
