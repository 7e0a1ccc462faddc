//! Boxes that are kept, and labels: every way to give them, mistakes by their names, and what no rule decides.

use emo_exporter::models::Model;
use emo_exporter::profile::Profile;
use emo_exporter::target::{Output, Suppression, Target};
use emo_exporter::weights::Spec;
use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::{GraphProto, Message as _, ModelProto};
use emo_tests::onnx::{self, Extent};
use emo_verifier::runtime::{Options, Ort, Own, Runtime, Tract};
use emo_verifier::verify::detections::THRESHOLDS;
use emo_verifier::verify::probes::Probe;
use emo_verifier::verify::{self, Outcome, Request, Verdict};
use ndarray::ArrayD;

use crate::command::emo;
use crate::dense::{Edit, Row, node, set};
use crate::profiles::open;

fn export((model, target, size, output): Row, suppression: Suppression) -> ModelProto {
    let target =
        Target { size, output: Some(output), suppression, ..Target::new(Profile::named(target).unwrap()) };
    let model = Model::named(model).unwrap();
    let bytes = emo_exporter::export(model, &target, &Spec::Formula(0)).unwrap().bytes;
    ModelProto::decode(&*bytes).unwrap()
}

fn judge(model: &ModelProto, runtime: &dyn Runtime) -> Verdict {
    let request = Request { probes: Some(2), ..Default::default() };
    verify::verify(&open(&model.encode_to_vec()), None, &request, runtime).unwrap()
}

/// Our own evaluation, and ONNX Runtime where it must be there.
fn engines() -> Vec<Box<dyn Runtime>> {
    let ort = std::env::var("EMO_REQUIRE_ORT").ok().map(|_| Ort::open(&Options::default()).unwrap());
    let own: Box<dyn Runtime> = Box::new(Own);
    std::iter::once(own).chain(ort.map(|ort| Box::new(ort) as Box<dyn Runtime>)).collect()
}

fn add(graph: &mut GraphProto, operator: &str, inputs: &[&str], output: &str, axis: Option<i64>) {
    let attributes = axis.map(|axis| onnx::int("axis", axis)).into_iter().collect();
    graph.node.push(onnx::node(operator, inputs, &[output], attributes));
}

fn numbers(graph: &mut GraphProto, name: &str, values: &[f32]) {
    let tensor = Tensor::from_f32(vec![values.len()], values.to_vec()).unwrap();
    graph.initializer.push(tensor.encode(name));
}

/// Outputs in this order, of these types and extents; 0 is an open one.
fn give(graph: &mut GraphProto, outputs: &[(&str, DataType, &[i64])]) {
    let extent = |&n: &i64| if n == 0 { Extent::Open } else { Extent::Number(n) };
    let output = |(name, dtype, dims): &(&str, DataType, &[i64])| {
        onnx::value(name, *dtype, &dims.iter().map(extent).collect::<Vec<_>>())
    };
    graph.output = outputs.iter().map(output).collect();
}

/// Puts nodes before the output called `name`; what they read is `name` and `.was`.
fn before(graph: &mut GraphProto, name: &str) -> String {
    let was = format!("{name}.was");
    let outputs = graph.node.iter_mut().flat_map(|node| &mut node.output);
    outputs.filter(|output| *output == name).for_each(|output| output.clone_from(&was));
    was
}

/// Boxes and their scores in one: mmdeploy's `dets` and `labels`.
fn dets(graph: &mut GraphProto) {
    graph.initializer.push(onnx::list("two", &[2]));
    add(graph, "Unsqueeze", &["scores", "two"], "column", None);
    add(graph, "Concat", &["boxes", "column"], "dets", Some(2));
    give(graph, &[("dets", DataType::Float, &[1, 0, 5]), ("labels", DataType::Int64, &[1, 0])]);
}

/// The number first, as TensorRT's operator has it.
fn count_first(graph: &mut GraphProto) {
    graph.output.rotate_right(1);
}

/// As many rows as there are boxes, of one image.
fn flat(graph: &mut GraphProto) {
    let lists = [onnx::list("four", &[-1, 4]), onnx::list("line", &[-1]), onnx::list("none", &[0])];
    graph.initializer.extend(lists);
    for (name, shape) in [("boxes", "four"), ("scores", "line"), ("labels", "line")] {
        let (all, kept) = (format!("{name}.all"), format!("{name}.kept"));
        add(graph, "Reshape", &[name, shape], &all, None);
        add(graph, "Slice", &[&all, "none", "count"], &kept, None);
    }
    give(
        graph,
        &[
            ("boxes.kept", DataType::Float, &[0, 4]),
            ("labels.kept", DataType::Int64, &[0]),
            ("scores.kept", DataType::Float, &[0]),
        ],
    );
}

/// Another writer's suppression behind decoded boxes: all pairs take part, and the best of what is kept are taken.
fn suppressed_otherwise(graph: &mut GraphProto) {
    let lists = [
        onnx::list("each", &[200]),
        onnx::list("image", &[0]),
        onnx::list("class", &[1]),
        onnx::list("box", &[2]),
        onnx::list("line", &[-1]),
        onnx::list("images.boxes", &[0, 2]),
    ];
    graph.initializer.extend(lists);
    numbers(graph, "iou", &[0.45]);
    numbers(graph, "above", &[0.02]);
    let last = onnx::node("Transpose", &["scores"], &["turned"], vec![onnx::ints("perm", &[0, 2, 1])]);
    graph.node.push(last);
    add(graph, "NonMaxSuppression", &["boxes", "turned", "each", "iou", "above"], "kept", None);
    add(graph, "GatherND", &["turned", "kept"], "kept.scores", None);
    add(graph, "Gather", &["kept", "images.boxes"], "kept.places", Some(1));
    add(graph, "GatherND", &["boxes", "kept.places"], "kept.boxes", None);
    add(graph, "Gather", &["kept", "class"], "kept.column", Some(1));
    add(graph, "Reshape", &["kept.column", "line"], "kept.labels", None);
    add(graph, "Shape", &["kept.scores"], "kept.number", None);
    add(graph, "Min", &["kept.number", "each"], "most", None);
    graph.node.push(onnx::node("TopK", &["kept.scores", "most"], &["best", "best.places"], Vec::new()));
    add(graph, "Gather", &["kept.boxes", "best.places"], "best.boxes", Some(0));
    add(graph, "Gather", &["kept.labels", "best.places"], "best.labels", Some(0));
    add(graph, "Unsqueeze", &["best", "class"], "best.column", None);
    add(graph, "Concat", &["best.boxes", "best.column"], "best.rows", Some(1));
    add(graph, "Unsqueeze", &["best.rows", "image"], "dets", None);
    add(graph, "Unsqueeze", &["best.labels", "image"], "classes", None);
    give(graph, &[("dets", DataType::Float, &[1, 0, 5]), ("classes", DataType::Int64, &[1, 0])]);
}

const SSDLITE: Row = ("ssdlite-emo-1m", "reference", (96, 96), Output::Nms);
const DECODED: Row = ("ssdlite-emo-1m", "reference", (96, 96), Output::Decoded);

/// Every way to give the boxes that are kept, and a file of each.
const RIGHT: [(Row, Edit); 7] = [
    (SSDLITE, |_| ()),
    (("ssdlite-emo2-1m", "ort-cpu", (96, 131), Output::Nms), |_| ()),
    (("retinanet-emo-1m", "reference", (96, 64), Output::Nms), |_| ()),
    (SSDLITE, dets),
    (SSDLITE, count_first),
    (SSDLITE, flat),
    (DECODED, suppressed_otherwise),
];

#[test]
fn boxes_that_are_kept_are_judged() {
    for engine in engines() {
        for (row, (order, edit)) in RIGHT.into_iter().enumerate() {
            let mut model = export(order, Suppression::default());
            edit(model.graph.as_mut().unwrap());
            let verdict = judge(&model, &*engine);
            let place = format!("row {row} in {}: {:?}", engine.name(), verdict.reason);
            assert_eq!((verdict.verdict, verdict.output), (Outcome::Pass, Some("nms")), "{place}");
            for probe in &verdict.probes {
                let boxes = probe.boxes.unwrap();
                assert!(boxes.boxes > 0 && boxes.least_iou > 0.999, "{place}: {boxes:?}");
            }
        }
    }
}

/// tract takes our own files; what it does not take of another writer's is told, and nothing is taken for wrong.
#[test]
fn tract_judges_what_it_takes() {
    for (row, (order, edit)) in RIGHT.into_iter().enumerate() {
        let mut model = export(order, Suppression::default());
        edit(model.graph.as_mut().unwrap());
        let verdict = judge(&model, &Tract);
        let told = verdict.reason.as_deref().is_some_and(|reason| reason.starts_with("tract: "));
        let open = row > 2 && verdict.verdict == Outcome::Undecided && told;
        assert!(verdict.verdict == Outcome::Pass || open, "row {row}: {:?}", verdict.reason);
    }
}

/// Boxes beyond the input have no width or no height once they are clipped; as published none of them is kept.
#[test]
fn flat_boxes_are_not_kept() {
    let size = (97, 64);
    let [decoded, kept] = [Output::Decoded, Output::Nms].map(|output| {
        let model = export(("retinanet-emo-1m", "portable", size, output), Suppression::default());
        let input = ("input".to_owned(), vec![1, 3, size.0, size.1]);
        let outputs = ["boxes", "scores"].map(str::to_owned);
        let mut session = Tract.prepare(&open(&model.encode_to_vec()), &[input], &outputs).unwrap();
        let image =
            ArrayD::from_shape_fn(vec![1, 3, size.0, size.1], |at| ((at[2] * 7 + at[3] * 13) % 5) as f32);
        session.run(&[image]).unwrap()
    });
    // Of the boxes with a score above the published threshold, how many have no area.
    let flat = |outputs: &[ArrayD<f32>]| {
        let boxes = outputs[0].as_slice().unwrap().chunks_exact(4);
        let classes = outputs[1].len() / boxes.len();
        let scores = outputs[1].as_slice().unwrap().chunks_exact(classes);
        let shown = boxes.zip(scores).filter(|(_, scores)| scores.iter().any(|&score| score > 0.05));
        let (mut all, mut flat) = (0, 0);
        for (corners, _) in shown {
            all += 1;
            flat += usize::from(corners[2] <= corners[0] || corners[3] <= corners[1]);
        }
        (all, flat)
    };
    let (decoded, kept) = (flat(&decoded), flat(&kept));
    assert!(decoded.1 > 0, "of {} boxes none is flat: nothing is shown", decoded.0);
    assert!(kept.0 > 0 && kept.1 == 0, "{} of {} boxes that are kept are flat", kept.1, kept.0);
}

/// A file that keeps boxes is judged by them before it gets its name, where there are any.
#[test]
fn an_export_says_what_was_judged_of_its_boxes() {
    let folder = tempfile::TempDir::new().unwrap();
    for (threshold, told) in [("0.05", "those that are kept are the reference's"), ("0.99", "was not judged")]
    {
        let order =
            ["export", "ssdlite-emo-1m", "--size", "96", "--output", "nms", "--score-threshold", threshold];
        let (code, text, stderr) = emo(&folder, &order);
        assert!(code == 0 && text.contains(told), "{text}{stderr}");
    }
}

/// The published thresholds are remarked upon and not demanded; what none of the inputs shows is open.
#[test]
fn the_files_own_thresholds_decide() {
    let with = |score: f32, iou: f32, most: usize| {
        let own = Suppression { score_threshold: Some(score), iou_threshold: Some(iou), most: Some(most) };
        judge(&export(SSDLITE, own), &Own)
    };
    let verdict = with(0.05, 0.3, 50);
    assert_eq!(verdict.verdict, Outcome::Pass, "{:?}", verdict.reason);
    assert!(verdict.findings.iter().any(|finding| finding.code == THRESHOLDS));
    assert!(verdict.probes.iter().all(|probe| probe.boxes.unwrap().boxes == 50));
    let verdict = with(0.99, 0.45, 200);
    assert_eq!(verdict.verdict, Outcome::Undecided);
    assert!(verdict.reason.is_some_and(|reason| reason.contains("no test input has a box")));
    let published = judge(&export(SSDLITE, Suppression::default()), &Own);
    assert!(published.findings.iter().all(|finding| finding.code != THRESHOLDS));
}

/// Columns of boxes in another order.
fn columns(graph: &mut GraphProto, order: &[i64]) {
    let was = before(graph, "boxes");
    graph.initializer.push(onnx::list("order", order));
    add(graph, "Gather", &[&was, "order"], "boxes", Some(2));
}

fn shares(graph: &mut GraphProto) {
    let was = before(graph, "boxes");
    numbers(graph, "sides", &[1.0 / 96.0]);
    add(graph, "Mul", &[&was, "sides"], "boxes", None);
}

/// The first corner and the sides, or the centre and these.
fn sides(graph: &mut GraphProto, centre: bool) {
    let was = before(graph, "boxes");
    graph.initializer.extend([onnx::list("first", &[0, 1]), onnx::list("second", &[2, 3])]);
    numbers(graph, "half", &[0.5]);
    add(graph, "Gather", &[&was, "first"], "low", Some(2));
    add(graph, "Gather", &[&was, "second"], "high", Some(2));
    add(graph, "Sub", &["high", "low"], "extent", None);
    add(graph, "Add", &["high", "low"], "sum", None);
    add(graph, "Mul", &["sum", "half"], "centre", None);
    add(graph, "Concat", &[if centre { "centre" } else { "low" }, "extent"], "boxes", Some(2));
}

/// One list of scores for all classes.
fn agnostic(graph: &mut GraphProto) {
    let scores = node(graph, "nms.by_class").input[1].clone();
    graph.initializer.push(onnx::list("one.class", &[1, 1, -1]));
    let at = graph.node.iter().position(|node| node.name() == "nms.suppress").unwrap();
    graph.node.insert(at, onnx::node("Reshape", &[&scores, "one.class"], &["all.classes"], Vec::new()));
    graph.node[at + 1].input[1] = "all.classes".to_owned();
}

fn sigmoid(graph: &mut GraphProto) {
    let softmax = node(graph, "decode.softmax");
    softmax.op_type = Some("Sigmoid".into());
    softmax.attribute.clear();
}

/// The worst first.
fn reversed(graph: &mut GraphProto) {
    let order: Vec<i64> = (0..200).rev().collect();
    graph.initializer.push(onnx::list("backwards", &order));
    for name in ["boxes", "scores", "labels"] {
        let was = before(graph, name);
        add(graph, "Gather", &[&was, "backwards"], name, Some(1));
    }
}

/// Scores of the best box are another's.
fn rescored(graph: &mut GraphProto) {
    let was = before(graph, "scores");
    numbers(graph, "more", &[1.001]);
    add(graph, "Mul", &[&was, "more"], "scores", None);
}

/// A mistake, the part that is wrong, and its cause.
pub const WRONG: [(Row, Edit, &str, &str); 14] = [
    (SSDLITE, |graph| columns(graph, &[1, 0, 3, 2]), "boxes", "exchanged-axes"),
    (DECODED, |graph| columns(graph, &[1, 0, 3, 2]), "boxes", "exchanged-axes"),
    (SSDLITE, shares, "boxes", "normalised-boxes"),
    (DECODED, shares, "boxes", "normalised-boxes"),
    (SSDLITE, |graph| sides(graph, true), "boxes", "boxes-by-sides"),
    (SSDLITE, |graph| sides(graph, false), "boxes", "boxes-by-sides"),
    (SSDLITE, agnostic, "nms", "class-agnostic"),
    (SSDLITE, sigmoid, "scores", "scores"),
    (SSDLITE, reversed, "nms", "box-order"),
    (SSDLITE, rescored, "nms", "suppression"),
    (
        SSDLITE,
        |graph| {
            let was = before(graph, "labels");
            graph.initializer.push(onnx::list("one.more", &[1]));
            add(graph, "Add", &[&was, "one.more"], "labels", None);
        },
        "nms",
        "labels-from-one",
    ),
    (
        // Without a level.
        SSDLITE,
        |graph| {
            numbers(graph, "nothing", &[0.0]);
            let at = graph.node.iter().position(|node| node.name() == "nms.level0.best").unwrap();
            let scores = std::mem::replace(&mut graph.node[at].output[0], "level".to_owned());
            let nothing = onnx::node("Mul", &["level", "nothing"], &[&scores], Vec::new());
            graph.node.insert(at + 1, nothing);
        },
        "nms",
        "suppression",
    ),
    (
        DECODED,
        |graph| {
            let at = graph.node.iter().position(|node| node.name() == "decode.foreground").unwrap();
            let slice = graph.node.remove(at);
            let scores = graph.node.iter_mut().flat_map(|node| &mut node.output);
            scores.filter(|name| **name == slice.input[0]).for_each(|name| name.clone_from(&slice.output[0]));
            let boxes = graph.output.remove(0);
            give(graph, &[(&slice.output[0], DataType::Float, &[1, 0, 81])]);
            graph.output.insert(0, boxes);
        },
        "scores",
        "background-kept",
    ),
    (
        ("semantic-fpn-emo2-1m", "reference", (96, 96), Output::Labels),
        |graph| {
            let resize = node(graph, "decode_head.scale_heads.1.1.resize");
            set(resize, onnx::text("coordinate_transformation_mode", "align_corners"));
        },
        "decode_head.scale_heads.1",
        "corner-aligned",
    ),
];

#[test]
fn mistakes_show_in_boxes_and_labels() {
    for engine in engines() {
        for (row, (order, edit, block, cause)) in WRONG.into_iter().enumerate() {
            let mut model = export(order, Suppression::default());
            edit(model.graph.as_mut().unwrap());
            let verdict = judge(&model, &*engine);
            let found = (verdict.verdict, verdict.first_divergence.as_deref(), verdict.cause);
            let place = format!("row {row} in {}: {:?}", engine.name(), verdict.reason);
            assert_eq!(found, (Outcome::Fail, Some(block), Some(cause)), "{place}");
        }
    }
}

const LABELS: Row = ("semantic-fpn-emo2-1m", "reference", (96, 96), Output::Labels);

/// Labels of any type, with an axis of classes or without.
#[test]
fn labels_of_any_type_are_judged() {
    let types: [(DataType, &[i64]); 4] = [
        (DataType::Int64, &[1, 1, 96, 96]),
        (DataType::Int32, &[1, 96, 96]),
        (DataType::Float, &[1, 96, 96]),
        (DataType::Float, &[1, 1, 96, 96]),
    ];
    for (dtype, dims) in types {
        let mut model = export(LABELS, Suppression::default());
        let graph = model.graph.as_mut().unwrap();
        set(node(graph, "labels.cast"), onnx::int("to", dtype as i64));
        let was = before(graph, "labels");
        graph.initializer.push(onnx::list("extents", dims));
        add(graph, "Reshape", &[&was, "extents"], "labels", None);
        give(graph, &[("labels", dtype, dims)]);
        let verdict = judge(&model, &Tract);
        let place = format!("{dtype:?} {dims:?}: {:?}", verdict.reason);
        assert_eq!((verdict.verdict, verdict.output), (Outcome::Pass, Some("labels")), "{place}");
        assert!(verdict.probes.iter().all(|probe| probe.top1 == (96 * 96, 96 * 96)), "{place}");
    }
}

/// What was saved of right labels holds when it is read again, and what is no label is told.
#[test]
fn recorded_labels_hold_and_others_are_told() {
    let mut model = export(LABELS, Suppression::default());
    let file = open(&model.encode_to_vec());
    let request = Request { probes: Some(1), keep: true, ..Default::default() };
    let verdict = verify::verify(&file, None, &request, &Tract).unwrap();
    let mut set = verdict.sets(&file.model).remove(0);
    let recorded = set.outputs.remove(0);
    assert_eq!(recorded.as_ref().map(|labels| labels.shape().to_vec()), Some(vec![1, 96, 96]));
    let own = vec![Probe { name: "saved".to_owned(), input: set.inputs.remove(0), recorded }];
    let request = Request { probes: Some(0), own, ..Default::default() };
    let verdict = verify::verify(&file, None, &request, &Tract).unwrap();
    assert_eq!((verdict.verdict, verdict.probes.len()), (Outcome::Pass, 2), "{:?}", verdict.reason);
    assert!(verdict.probes[1].recorded);

    let graph = model.graph.as_mut().unwrap();
    set_type(graph, DataType::Float);
    let was = before(graph, "labels");
    numbers(graph, "less", &[-1000.0]);
    add(graph, "Add", &[&was, "less"], "labels", None);
    let verdict = judge(&model, &Tract);
    assert_eq!(verdict.verdict, Outcome::Fail);
    let reason = verdict.probes[0].reason.clone().unwrap();
    assert!(reason.starts_with("expected labels from 0 to 149, found -"), "{reason}");
}

fn set_type(graph: &mut GraphProto, dtype: DataType) {
    set(node(graph, "labels.cast"), onnx::int("to", dtype as i64));
    give(graph, &[("labels", dtype, &[1, 96, 96])]);
}
