//! Detectors, segmenters and backbones as anybody's files: recognised, verified, reconciled, and wrong ones placed.

use emo_exporter::models::{Model, own};
use emo_exporter::profile::Profile;
use emo_exporter::target::{Output, Target};
use emo_exporter::weights::Spec;
use emo_proto::tensor::Tensor;
use emo_proto::{AttributeProto, GraphProto, Message as _, ModelProto, NodeProto};
use emo_tests::onnx;
use emo_verifier::runtime::Tract;
use emo_verifier::verify::{self, Outcome, Verdict};

use crate::dense::{Edit, node, set};
use crate::own_profiles::nameless;
use crate::profiles::open;

fn export(model: &str, size: (usize, usize), target: &str, output: Option<Output>) -> Vec<u8> {
    let model = Model::named(model).unwrap();
    let target = Target { size, output, ..model.target(Profile::named(target).unwrap()) };
    emo_exporter::export(model, &target, &Spec::Formula(0)).unwrap().bytes
}

fn judge(bytes: &[u8], weights: Option<Spec>) -> Verdict {
    let request = verify::Request { weights, probes: Some(2), ..Default::default() };
    verify::verify(&open(bytes), None, &request, &Tract).unwrap()
}

type Right = (&'static str, (usize, usize), &'static str, Option<Output>);

/// A head each, targets and outputs by turns; sizes that windows and strides divide and others.
const RIGHT: [Right; 10] = [
    ("ssdlite-emo-1m", (128, 128), "portable", None),
    ("ssdlite-emo2-1m", (96, 131), "coreml", Some(Output::Decoded)),
    ("retinanet-emo-1m", (128, 96), "tract", None),
    ("retinanet-emo2-1m", (96, 96), "openvino", Some(Output::Decoded)),
    ("deeplabv3-emo-1m", (128, 96), "ort-cpu", None),
    ("pspnet-emo-1m", (192, 192), "portable", None),
    ("pspnet-emo2-2m", (131, 96), "reference", Some(Output::LogitsSmall)),
    ("semantic-fpn-emo-1m", (96, 96), "qnn", Some(Output::Labels)),
    ("segformer-emo2-2m", (96, 128), "nnapi", Some(Output::LogitsSmall)),
    ("emo-5m-backbone", (96, 200), "tensorrt", None),
];

#[test]
fn nameless_files_are_recognised_and_hold() {
    for (model, size, target, output) in RIGHT {
        let bytes = nameless(&export(model, size, target, output));
        for weights in [None, Some(Spec::Formula(0))] {
            let verdict = judge(&bytes, weights);
            let at = format!("{model} for {target} at {size:?}: {:?}", verdict.reason);
            assert_eq!((verdict.verdict, verdict.model.as_deref()), (Outcome::Pass, Some(model)), "{at}");
            let gives = output.unwrap_or_else(|| Model::named(model).unwrap().output_forms()[0]);
            assert_eq!(verdict.output, Some(gives.name()), "{at}");
            assert!(verdict.claim.as_ref().is_some_and(|claim| claim.holds), "{at}: {:?}", verdict.claim);
            assert!(verdict.weights.is_some_and(|weights| weights.differing.is_empty()), "{at}");
        }
    }
}

/// A network of one's own takes a head: it is written back as it was read, verified, and told apart from all others.
#[test]
fn a_network_of_ones_own_takes_a_head() {
    let rows = [("deeplabv3", 5), ("ssdlite", 3), ("segformer", 7)];
    let classifier = own::write(Model::named("emo-1m").unwrap()).unwrap();
    for (head, classes) in rows {
        let text = classifier
            .replace("name = \"emo-1m\"", &format!("name = \"mine-{head}\""))
            .replace("classes = 1000", &format!("classes = {classes}\nhead = \"{head}\""));
        let model = own::read(&text, "my.toml").unwrap();
        assert_eq!(own::write(&model).unwrap(), text);
        let target = Target { size: (96, 96), ..model.target(Profile::named("portable").unwrap()) };
        let bytes = emo_exporter::export(&model, &target, &Spec::Formula(0)).unwrap().bytes;
        let request = verify::Request { model: Some(model), probes: Some(2), ..Default::default() };
        let verdict = verify::verify(&open(&nameless(&bytes)), None, &request, &Tract).unwrap();
        let found = (verdict.verdict, verdict.classes);
        assert_eq!(found, (Outcome::Pass, Some(classes)), "{head}: {:?}", verdict.reason);
    }
    let three =
        classifier.replacen("[[stages]]", "[[gone]]", 1).replace("classes", "head = \"ssdlite\"\nclasses");
    assert!(own::read(&three, "my.toml").is_err());
}

fn resize(graph: &mut GraphProto, mode: &str, attribute: &str, value: &str) {
    let of_mode = |node: &&mut NodeProto| {
        let is = |a: &AttributeProto| a.name() == "mode" && a.s.as_deref() == Some(mode.as_bytes());
        node.op_type() == "Resize" && node.attribute.iter().any(is)
    };
    graph.node.iter_mut().filter(of_mode).for_each(|node| set(node, onnx::text(attribute, value)));
}

pub type Wrong = (&'static str, (usize, usize), Option<Output>, Edit, &'static str, &'static str);

/// A mistake in a right file, the part that is wrong first, and why.
pub const WRONG: [Wrong; 5] = [
    (
        "segformer-emo2-2m",
        (96, 128),
        None,
        |graph| resize(graph, "linear", "coordinate_transformation_mode", "align_corners"),
        "decode_head.convs.1",
        "corner-aligned",
    ),
    (
        "deeplabv3-emo-1m",
        (128, 128),
        None,
        |graph| node(graph, "decode_head.concat").input.rotate_left(1),
        "decode_head.bottleneck",
        "exchanged-levels",
    ),
    (
        "retinanet-emo-1m",
        (200, 168),
        None,
        |graph| {
            resize(graph, "nearest", "coordinate_transformation_mode", "half_pixel");
            resize(graph, "nearest", "nearest_mode", "round_prefer_ceil");
        },
        "neck.lateral_convs.1",
        "nearest-rounding",
    ),
    (
        "ssdlite-emo-1m",
        (96, 96),
        Some(Output::Decoded),
        |graph| {
            let node = node(graph, "decode.softmax");
            node.op_type = Some("Sigmoid".into());
            node.attribute.clear();
        },
        "scores",
        "scores",
    ),
    (
        "retinanet-emo-1m",
        (96, 96),
        Some(Output::Decoded),
        |graph| {
            let node = graph.node.iter_mut().rfind(|node| node.op_type() == "Sigmoid").unwrap();
            node.op_type = Some("Softmax".into());
        },
        "scores",
        "scores",
    ),
];

#[test]
fn mistakes_of_heads_are_placed_and_named() {
    for (model, size, output, edit, block, cause) in WRONG {
        let mut wrong = ModelProto::decode(export(model, size, "reference", output).as_slice()).unwrap();
        edit(wrong.graph.as_mut().unwrap());
        let verdict = judge(&wrong.encode_to_vec(), None);
        let at = format!(
            "{model}, {cause}: {:?} {:#?}",
            verdict.reason,
            verdict.blocks.iter().filter(|b| !b.holds).collect::<Vec<_>>()
        );
        assert_eq!(verdict.verdict, Outcome::Fail, "{at}");
        assert_eq!((verdict.first_divergence.as_deref(), verdict.cause), (Some(block), Some(cause)), "{at}");
    }
}

/// What no test input reaches keeps a verdict open, where boxes are decoded too; and a layer more is a departure.
#[test]
fn one_operator_more_is_not_passed_over() {
    let far = |graph: &mut GraphProto| {
        let bounds = [("far.low", -1e6), ("far.high", 1e6)];
        let constants = bounds.map(|(name, x)| Tensor::from_f32(Vec::new(), vec![x]).unwrap().encode(name));
        graph.initializer.extend(constants);
        let at = graph.node.iter().position(|node| node.name() == "decode.inside").unwrap();
        let corners = std::mem::replace(&mut graph.node[at].input[0], "far".to_owned());
        graph.node.insert(at, onnx::node("Clip", &[&corners, "far.low", "far.high"], &["far"], Vec::new()));
    };
    let layer = |graph: &mut GraphProto| {
        let identity = (0..150 * 150).map(|i| if i % 151 == 0 { 1.0 } else { 0.0 }).collect();
        graph.initializer.push(Tensor::from_f32(vec![150, 150, 1, 1], identity).unwrap().encode("same"));
        let at = graph.node.iter().position(|node| node.name() == "logits.resize").unwrap();
        let logits = std::mem::replace(&mut graph.node[at].input[0], "again".to_owned());
        graph.node.insert(at, onnx::node("Conv", &[&logits, "same"], &["again"], Vec::new()));
    };
    let rows = [
        ("ssdlite-emo-1m", far as Edit, (Outcome::Undecided, None)),
        ("deeplabv3-emo-1m", layer, (Outcome::Fail, Some("not-emo"))),
    ];
    for (name, edit, expected) in rows {
        // What is decoded, where there is something to decode.
        let output = Model::named(name).unwrap().output_forms().contains(&Output::Decoded);
        let output = output.then_some(Output::Decoded);
        let mut file = ModelProto::decode(export(name, (96, 96), "reference", output).as_slice()).unwrap();
        edit(file.graph.as_mut().unwrap());
        let verdict = judge(&file.encode_to_vec(), None);
        assert_eq!((verdict.verdict, verdict.cause), expected, "{name}: {:?}", verdict.reason);
    }
}
