//! Detectors and segmenters of every spelling: goldens in an engine, right files, and mistakes with their place and name.

use emo_exporter::models::Model;
use emo_exporter::profile::Profile;
use emo_exporter::target::{Output, Target};
use emo_exporter::weights::Spec;
use emo_exporter::{export, export_with};
use emo_proto::file::OnnxFile;
use emo_proto::tensor::{External, Tensor};
use emo_proto::{GraphProto, Message, NodeProto};
use emo_tests::golden::{DECODED, DETECTORS, Golden, SEGMENTERS};
use emo_tests::{Order, onnx};
use emo_verifier::compare::FLOAT32_DEEP;
use emo_verifier::models::recover::recover_as;
use emo_verifier::runtime::{Runtime, Tract};
use emo_verifier::verify::{self, Outcome, Verdict};

/// Goldens that take seconds; the others are run with `EMO_THOROUGH=1`.
const SMALL: [&str; 5] = [
    "ssdlite_emo_1m_320x320",
    "deeplabv3_emo2_5m_256x320",
    "pspnet_emo2_2m_320x256",
    "semantic_fpn_emo2_1m_256x256",
    "decoded_ssdlite_emo_1m_320x320",
];

#[test]
fn tract_equals_the_dense_goldens() {
    let thorough = std::env::var("EMO_THOROUGH").is_ok_and(|v| v == "1");
    let all = DETECTORS.iter().chain(&SEGMENTERS).chain(&DECODED);
    for name in all.filter(|name| thorough || SMALL.contains(name)) {
        let golden = Golden::load(name);
        let [_, _, height, width] = golden.input;
        for profile in ["reference", "portable"] {
            let place = format!("{name} for {profile}");
            let mut target = Target::new(Profile::named(profile).unwrap());
            target.size = (height, width);
            target.output = name.starts_with("decoded").then_some(Output::Decoded);
            let bytes = export(&golden.model(), &target, &Spec::Formula(golden.seed)).expect(&place).bytes;
            let file = open(bytes);
            let outputs = file.model.graph.as_ref().unwrap().output.iter().map(|o| o.name().to_owned());
            let outputs: Vec<String> = outputs.collect();
            let input = ("input".to_owned(), golden.input.to_vec());
            let mut session = Tract.prepare(&file, &[input], &outputs).expect(&place);
            let values = session.run(&[golden.input().into_dyn()]).expect(&place);
            assert_eq!(values.len(), golden.outputs.len(), "{place}");
            for (position, output) in values.iter().enumerate() {
                let values: Vec<f64> = output.iter().map(|&x| x.into()).collect();
                golden.check_output(position, &values, output.shape(), &FLOAT32_DEEP).expect(&place);
            }
        }
    }
}

fn open(bytes: Vec<u8>) -> OnnxFile {
    OnnxFile::from_bytes(bytes.into(), External::none()).unwrap()
}

fn judge(file: &OnnxFile, weights: Option<Spec>) -> Verdict {
    let request = verify::Request { weights, probes: Some(1), ..Default::default() };
    verify::verify(file, None, &request, &Tract).unwrap()
}

fn order(model: &str, target: &str, size: (usize, usize), output: Output) -> Order {
    Order::named(model, target).with(|t| (t.size, t.output) = (size, Some(output)))
}

pub type Row = (&'static str, &'static str, (usize, usize), Output);

/// Every head, at sizes that its strides divide and at one that they do not.
const RIGHT: [Row; 14] = [
    ("ssdlite-emo-1m", "portable", (128, 128), Output::Raw),
    ("ssdlite-emo2-1m", "coreml", (96, 96), Output::Decoded),
    ("ssdlite-emo-1m", "reference", (200, 131), Output::Decoded),
    ("retinanet-emo-1m", "reference", (96, 128), Output::Raw),
    ("retinanet-emo2-1m", "portable", (136, 131), Output::Decoded),
    ("deeplabv3-emo-1m", "coreml", (128, 128), Output::Logits),
    ("deeplabv3-emo2-1m", "reference", (200, 131), Output::LogitsSmall),
    ("pspnet-emo-1m", "portable", (128, 128), Output::Logits),
    ("pspnet-emo-1m", "reference", (200, 131), Output::Logits),
    ("semantic-fpn-emo2-1m", "portable", (96, 96), Output::Labels),
    ("segformer-emo2-1m", "qnn", (96, 96), Output::LogitsSmall),
    ("segformer-emo2-2m", "portable", (200, 131), Output::Logits),
    // The layer over all maps is taken apart, behind resizes by an operator and by products.
    ("segformer-emo2-1m", "ort-cpu", (128, 128), Output::Logits),
    ("segformer-emo2-2m", "tract", (200, 131), Output::LogitsSmall),
];

/// With their own weights and the checkpoint's; and what is recovered of them is the checkpoint's again.
#[test]
fn right_dense_files_pass() {
    for (name, target, size, output) in RIGHT {
        let order = order(name, target, size, output);
        let place = format!("{name} for {target} at {size:?}, {output:?}");
        let file = open(order.export(&Spec::Formula(0)).expect(&place).bytes);
        let weights = recover_as(&file, Model::named(name).unwrap()).expect(&place);
        let again = open(export_with(order.model, &order.target, weights).expect(&place).bytes);
        for (file, weights) in
            [(&file, None), (&file, Some(Spec::Formula(0))), (&again, Some(Spec::Formula(0)))]
        {
            let verdict = judge(file, weights);
            assert_eq!(verdict.verdict, Outcome::Pass, "{place}: {:?}", verdict.reason);
            assert_eq!(verdict.model.as_deref(), Some(name), "{place}");
            assert!(verdict.claim.is_some_and(|claim| claim.holds), "{place}");
        }
    }
}

/// A mistake, made in a file of ours.
pub type Edit = fn(&mut GraphProto);

pub fn node<'g>(graph: &'g mut GraphProto, name: &str) -> &'g mut NodeProto {
    let found = graph.node.iter_mut().find(|n| n.name() == name);
    found.unwrap_or_else(|| panic!("no node is called {name}"))
}

pub fn set(node: &mut NodeProto, attribute: emo_proto::AttributeProto) {
    node.attribute.retain(|a| a.name() != attribute.name());
    node.attribute.push(attribute);
}

/// Other numbers for those of a constant.
fn renumber(graph: &mut GraphProto, name: &str, change: impl FnOnce(&mut [f32])) {
    let node = node(graph, name);
    let value = node.attribute.iter_mut().find_map(|a| a.t.as_mut()).unwrap();
    let tensor = Tensor::decode(value, &External::none()).unwrap();
    let mut values = tensor.f32s().unwrap();
    change(&mut values);
    *value = Tensor::from_f32(tensor.dims.clone(), values).unwrap().encode(name).into();
}

fn corner_aligned(graph: &mut GraphProto, name: &str) {
    set(node(graph, name), onnx::text("coordinate_transformation_mode", "align_corners"));
}

/// Each level's cells begin at 0: the first anchor of a level lies half a stride from the corner.
fn shifted(centres: &mut [f32]) {
    let mut rest = centres;
    // Maps of 8, 4, 2 and three times 1 pixels a side, 6 anchors a cell, two numbers each.
    for side in [8, 4, 2, 1, 1, 1] {
        let (level, others) = rest.split_at_mut(side * side * 6 * 2);
        let half = [level[0], level[1]];
        level.iter_mut().enumerate().for_each(|(at, x)| *x -= half[at % 2]);
        rest = others;
    }
}

/// What is wrong, in which file, how it is made, and the block and the cause that must be named.
pub const WRONG: [(&str, Row, Edit, &str, &str); 8] = [
    (
        "another dilation",
        ("deeplabv3-emo-1m", "reference", (128, 128), Output::Logits),
        |graph| {
            let conv = node(graph, "decode_head.aspp_modules.2.conv");
            set(conv, onnx::ints("dilations", &[2, 2]));
            set(conv, onnx::ints("pads", &[2, 2, 2, 2]));
        },
        "decode_head.aspp_modules.2",
        "dilation",
    ),
    (
        "corners",
        ("segformer-emo2-1m", "reference", (96, 96), Output::Logits),
        |graph| corner_aligned(graph, "decode_head.convs.2.resize"),
        "decode_head.convs.2",
        "corner-aligned",
    ),
    (
        "corners",
        ("pspnet-emo-1m", "reference", (192, 192), Output::LogitsSmall),
        |graph| corner_aligned(graph, "decode_head.psp_modules.1.resize"),
        "decode_head.psp_modules.1",
        "corner-aligned",
    ),
    (
        "another rounding",
        ("semantic-fpn-emo2-1m", "reference", (136, 136), Output::LogitsSmall),
        |graph| {
            let resize = node(graph, "neck.top_down.1.resize");
            set(resize, onnx::text("nearest_mode", "ceil"));
        },
        "neck.lateral_convs.1",
        "nearest-rounding",
    ),
    (
        "anchors half a stride off",
        ("ssdlite-emo-1m", "portable", (128, 128), Output::Decoded),
        |graph| renumber(graph, "anchors.centres", shifted),
        "boxes",
        "shifted-anchors",
    ),
    (
        "no variances",
        ("ssdlite-emo-1m", "portable", (128, 128), Output::Decoded),
        |graph| {
            renumber(graph, "anchors.steps", |steps| steps.iter_mut().for_each(|x| *x *= 10.0));
            renumber(graph, "constant.0.2", |factor| factor.fill(1.0));
        },
        "boxes",
        "no-variances",
    ),
    (
        "the first class for the background",
        ("ssdlite-emo-1m", "portable", (128, 128), Output::Decoded),
        |graph| {
            graph.initializer.extend([onnx::list("one", &[1]), onnx::list("all", &[81])]);
            let slice = node(graph, "decode.foreground");
            (slice.input[1], slice.input[2]) = ("one".into(), "all".into());
        },
        "scores",
        "background-first",
    ),
    (
        "sigmoid for softmax",
        ("ssdlite-emo-1m", "portable", (128, 128), Output::Decoded),
        |graph| {
            let softmax = node(graph, "decode.softmax");
            softmax.op_type = Some("Sigmoid".into());
            softmax.attribute.clear();
        },
        "scores",
        "scores",
    ),
];

#[test]
fn mistakes_of_heads_are_placed_and_named() {
    for (what, (name, target, size, output), edit, block, cause) in WRONG {
        let place = format!("{what} in {name}");
        let bytes = order(name, target, size, output).export(&Spec::Formula(0)).expect(&place).bytes;
        let mut model = emo_proto::ModelProto::decode(&*bytes).unwrap();
        edit(model.graph.as_mut().unwrap());
        let verdict = judge(&open(model.encode_to_vec()), None);
        assert_eq!(
            (verdict.verdict, verdict.first_divergence.as_deref(), verdict.cause),
            (Outcome::Fail, Some(block), Some(cause)),
            "{place}: {:?}",
            verdict.reason
        );
    }
}
