//! The boxes of an image that are kept: non-maximum suppression class by class, as mmdetection has it.

use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};

use super::Levels;
use super::boxes::{self, Coder};
use crate::builder::Builder;
use crate::graph::{Part, Value};
use crate::models::Outputs;
use crate::op::{Binary, Unary};
use crate::target::{Batch, Suppression, Target};

/// Pairs of a box and a class that each level sends into the suppression: the best ones.
pub const CANDIDATES: usize = 1000;
/// Most boxes that may be asked for, far beyond any use.
const MOST: usize = 10_000;

/// `boxes [1, M, 4]`, `scores [1, M]` and `labels [1, M]` of the best boxes of one image, best first, and of equal ones
/// the earlier. Of the M places `count [1]` are taken; behind them boxes and scores are 0, labels −1.
pub(super) fn build(
    b: &mut Builder,
    levels: &Levels,
    coder: &Coder,
    classes: usize,
    target: &Target,
) -> Result<Outputs> {
    if target.batch != Batch::Fixed(1) {
        return Err(Error::new("expected a batch of 1 for nms, which is of one image").at("batch"));
    }
    let (score, iou, most) = thresholds(coder, target)?;
    let [boxes, scores] = boxes::decode(b, levels, coder, classes, target.size)?;
    let mut sizes = Vec::with_capacity(levels.deltas.len());
    for &deltas in &levels.deltas {
        let (_, channels, rows, columns) = b.feature_map(deltas)?;
        sizes.push(channels / 4 * rows * columns);
    }
    b.within("nms", |b| {
        b.part(Part::Boxes, |b| {
            let [boxes, scores, labels] = candidates(b, [boxes, scores], classes, &sizes)?;
            let kept = suppress(b, [boxes, scores, labels], classes, (score, iou, most))?;
            best(b, [boxes, kept, labels], most)
        })
    })
}

/// What is asked for; the published ones where nothing is.
fn thresholds(coder: &Coder, target: &Target) -> Result<(f32, f32, usize)> {
    let Suppression { score_threshold, iou_threshold, most } = target.suppression;
    let (score, iou, published) = coder.suppression;
    let (score, iou) = (score_threshold.unwrap_or(score), iou_threshold.unwrap_or(iou));
    let most = most.unwrap_or(published);
    for (name, threshold) in [("score threshold", score), ("IoU threshold", iou)] {
        if !(0.0..=1.0).contains(&threshold) {
            return Err(Error::new(format!("expected 0 to 1, found {threshold}")).at(name));
        }
    }
    if !(1..=MOST).contains(&most) {
        return Err(Error::new(format!("expected 1 to {MOST}, found {most}")).at("detections"));
    }
    Ok((score, iou, most))
}

/// The best pairs of a box and a class of each level, level behind level: boxes `[K, 4]`, scores `[K]`, classes `[K]`.
fn candidates(
    b: &mut Builder,
    [boxes, scores]: [Value; 2],
    classes: usize,
    sizes: &[usize],
) -> Result<[Value; 3]> {
    let boxes = b.split_into("boxes", boxes, 1, sizes)?;
    let scores = b.split_into("scores", scores, 1, sizes)?;
    let mut parts = [const { Vec::new() }; 3];
    for (i, &size) in sizes.iter().enumerate() {
        let level = b.within(&format!("level{i}"), |b| {
            let pairs = size * classes;
            let line = b.reshape("line", scores[i], [pairs])?;
            let [scores, places] = b.top("best", line, pairs.min(CANDIDATES))?;
            let [anchors, labels] = b.divide(["anchors", "classes"], places, classes)?;
            let rows = b.reshape("rows", boxes[i], [size, 4])?;
            let boxes = b.gather("boxes", rows, anchors)?;
            Ok::<_, Error>([boxes, scores, b.cast("labels", labels, DataType::Float)?])
        })?;
        parts.iter_mut().zip(level).for_each(|(parts, part)| parts.push(part));
    }
    let [boxes, scores, labels] = &parts;
    let boxes = b.concat("candidates.boxes", boxes, 0)?;
    let scores = b.concat("candidates.scores", scores, 0)?;
    let scores = solid(b, boxes, scores)?;
    Ok([boxes, scores, b.concat("candidates.labels", labels, 0)?])
}

/// The scores; 0 of boxes without width or height, as of those that lay beyond the input: the published configurations
/// keep boxes with sides above 0 (`min_bbox_size=0`).
fn solid(b: &mut Builder, boxes: Value, scores: Value) -> Result<Value> {
    let k = b.shape(scores).0[0];
    let corners = b.split("corners", boxes, 1, 2)?;
    let sides = b.binary("sides", Binary::Sub, corners[1], corners[0])?;
    let some = b.unary("sides.some", Unary::Sign, sides)?;
    let some = b.split("sides.each", some, 1, 2)?;
    let some = b.binary("sides.both", Binary::Mul, some[0], some[1])?;
    let some = b.reshape("sides.line", some, [k])?;
    b.binary("solid", Binary::Mul, scores, some)
}

/// The candidates' scores; 0 of those that are not kept.
fn suppress(
    b: &mut Builder,
    [boxes, scores, labels]: [Value; 3],
    classes: usize,
    (score, iou, most): (f32, f32, usize),
) -> Result<Value> {
    let k = b.shape(scores).0[0].at_batch_one();
    // A candidate has a score for its own class alone: 1 − |class − label| is 1 there, 0 or less elsewhere.
    let names = (0..classes).map(|class| class as f32).collect();
    let names = b.numbers("nms.names", [classes, 1].into(), names);
    let one = b.scalar(1.0);
    let apart = b.binary("apart", Binary::Sub, names, labels)?;
    let distance = b.unary("distance", Unary::Abs, apart)?;
    let near = b.binary("near", Binary::Sub, one, distance)?;
    let same = b.unary("same", Unary::Relu, near)?;
    let by_class = b.binary("by_class", Binary::Mul, same, scores)?;
    let by_class = b.reshape("by_class.batch", by_class, [1, classes, k])?;
    let batch = b.reshape("candidates.batch", boxes, [1, k, 4])?;
    let kept = b.suppress("suppress", [batch, by_class], most, iou, score)?;
    let places = b.split("kept", kept, 1, 3)?[2];
    let kept = b.gather("kept.scores", scores, places)?;
    let free = b.shape(kept).0[0];
    let kept = b.reshape("kept.line", kept, [free])?;
    let none = b.numbers("nms.none", [k].into(), vec![0.0; k]);
    b.scatter("kept.places", none, places, kept)
}

/// The best of the kept ones, and how many there are.
fn best(b: &mut Builder, [boxes, kept, labels]: [Value; 3], most: usize) -> Result<Outputs> {
    let most = most.min(b.shape(kept).0[0].at_batch_one());
    let one = b.scalar(1.0);
    let [scores, places] = b.top("best", kept, most)?;
    let taken = b.unary("taken", Unary::Sign, scores)?;
    let count = b.sum("count", taken)?;
    let boxes = b.gather("best.boxes", boxes, places)?;
    let column = b.reshape("taken.column", taken, [most, 1])?;
    let boxes = b.binary("taken.boxes", Binary::Mul, boxes, column)?;
    let labels = b.gather("best.labels", labels, places)?;
    let above = b.binary("above", Binary::Add, labels, one)?;
    let labels = b.binary("taken.labels", Binary::Mul, above, taken)?;
    let labels = b.binary("labels", Binary::Sub, labels, one)?;
    let labels = b.cast("labels.whole", labels, DataType::Int64)?;
    Ok(vec![
        ("boxes".into(), b.reshape("boxes.batch", boxes, [1, most, 4])?),
        ("scores".into(), b.reshape("scores.batch", scores, [1, most])?),
        ("labels".into(), b.reshape("labels.batch", labels, [1, most])?),
        ("count".into(), b.cast("count.whole", count, DataType::Int64)?),
    ])
}
