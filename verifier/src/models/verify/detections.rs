//! The boxes of a file that suppresses them: how its outputs give them, and what it should keep.

use emo_exporter::models::dense::Head;
use emo_exporter::models::{Definition, Model};
use ndarray::{Array1, Array2, Array4, ArrayD, ArrayView1, ArrayView2, Axis, s};

use super::cause::{self, CAUSES};
use crate::boxes::{Agreement, Candidate, Corners, Departure, Detection, Kind, Rule, Slack, describe, kept};
use crate::compare::{Difference, FLOAT32_DEEP, Tolerance};
use crate::fact::Fact;
use crate::finding::{Finding, Severity};
use crate::infer::{Inference, NodeFacts};
use crate::reference::{Map, Mistake, Reference, Source};

/// The operator that alone is read.
pub const OPERATOR: &str = "NonMaxSuppression";

/// The code of a file with other thresholds than the published ones.
pub const THRESHOLDS: &str = "other-thresholds";

/// What an output gives of each box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Boxes,
    Scores,
    Labels,
    /// How many boxes there are, of an image.
    Count,
    /// A box and its score: mmdeploy's `dets`.
    Scored,
    /// The same and its class.
    Whole,
}

/// Which boxes are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Thresholds {
    score: f64,
    iou: f64,
    most: usize,
}

/// Pairs of a box and a class that take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// The best pairs of each level.
    Pairs,
    /// All of the boxes of each level whose best class is best.
    Anchors,
    All,
}

/// Of each level, as published.
const CANDIDATES: usize = 1000;
/// Pairs that are compared.
const MOST: usize = 1 << 18;

/// The thresholds of mmdetection's configurations of these heads.
fn published(model: &Model) -> Option<Thresholds> {
    let Definition::Dense(network) = &model.definition else { return None };
    match network.head {
        Head::Ssdlite => Some(Thresholds { score: 0.02, iou: 0.45, most: 200 }),
        Head::RetinaNet => Some(Thresholds { score: 0.05, iou: 0.5, most: 100 }),
        _ => None,
    }
}

/// How a file gives its boxes, and by which thresholds.
#[derive(Debug, Clone)]
pub struct Suppression {
    roles: Vec<Role>,
    own: Thresholds,
    published: Thresholds,
    /// How many of a class its operator keeps.
    each: Option<usize>,
    /// How many boxes there may be at most: any of these.
    cuts: Vec<usize>,
}

/// The outputs among `names` that give boxes.
///
/// # Errors
/// Something that a box has is given by none of them, or by several.
pub fn outputs(names: &[&str], fact: impl Fn(&str) -> Option<Fact>) -> Result<Vec<String>, String> {
    let found: Vec<(&str, Role)> =
        names.iter().filter_map(|name| Some((*name, role(&fact(name)?)?))).collect();
    let count = |role: Role| found.iter().filter(|(_, found)| *found == role).count();
    let of_each = [
        [Role::Boxes, Role::Scored, Role::Whole].map(count).iter().sum(),
        [Role::Scores, Role::Scored, Role::Whole].map(count).iter().sum(),
        [Role::Labels, Role::Whole].map(count).iter().sum::<usize>(),
    ];
    if of_each != [1; 3] || count(Role::Count) > 1 {
        return Err(format!(
            "expected the boxes that are kept: [N, M, 4] or [M, 4], their scores and their classes as integers, or the \
             first two as [N, M, 5], or all as [N, M, 6], and perhaps how many there are, found {}",
            names.join(", ")
        ));
    }
    Ok(found.into_iter().map(|(name, _)| name.to_owned()).collect())
}

fn role(fact: &Fact) -> Option<Role> {
    let dims = fact.dims.as_deref().ok()?;
    let extent = |axis: usize| dims.get(axis).and_then(crate::sym::Expr::count);
    let last = dims.len().checked_sub(1).and_then(extent);
    match (dims.len(), last, fact.is_float()) {
        (0, _, false) | (1, Some(1), false) => Some(Role::Count),
        (2, Some(1), false) if extent(0) == Some(1) => Some(Role::Count),
        (2 | 3, Some(4), true) => Some(Role::Boxes),
        (2 | 3, Some(5), true) => Some(Role::Scored),
        (2 | 3, Some(6), true) => Some(Role::Whole),
        (1 | 2, _, float) | (3, Some(1), float) => Some(if float { Role::Scores } else { Role::Labels }),
        _ => None,
    }
}

impl Suppression {
    /// Of a detector whose `outputs` give boxes; `None` of any other model.
    #[must_use]
    pub fn of(
        inference: &Inference,
        model: &Model,
        outputs: &[String],
        fact: impl Fn(&str) -> Option<Fact>,
    ) -> Option<Self> {
        let published = published(model)?;
        let facts: Vec<Fact> = outputs.iter().map(|name| fact(name)).collect::<Option<_>>()?;
        let node = inference.nodes.iter().find(|node| node.node.op_type() == OPERATOR)?;
        let number = |node: &NodeFacts, operand: usize| -> Option<f64> {
            let fact = inference.values.get(node.node.input.get(operand)?.as_str())?;
            let whole = || Some(fact.elements.as_ref()?.first()?.number()? as f64);
            fact.reals.as_ref().and_then(|reals| reals.first()?.number()).or_else(whole)
        };
        let each = number(node, 2).map(|most| most as usize);
        // As many rows as there may be boxes, and what is taken of a list of the best.
        let rows = facts.iter().filter_map(|fact| {
            let dims = fact.dims.as_deref().ok()?;
            let flat = matches!(role(fact)?, Role::Scores | Role::Labels) && dims.len() < 3;
            dims.get(dims.len().checked_sub(if flat { 1 } else { 2 })?)?.count()
        });
        let behind = inference.nodes.iter().skip_while(|node| node.node.op_type() != OPERATOR);
        let tops = behind.filter(|node| node.node.op_type() == "TopK");
        let tops = tops.filter_map(|node| number(node, 1)).map(|k| k as usize);
        let rows: Vec<usize> = rows.map(|n| n as usize).collect();
        let unsaid = rows.is_empty().then_some(published.most);
        let cuts: Vec<usize> = rows.into_iter().chain(unsaid).chain(tops).chain(each).collect();
        let own = Thresholds {
            score: number(node, 4).unwrap_or(published.score),
            iou: number(node, 3).unwrap_or(published.iou),
            most: cuts.iter().copied().min().unwrap_or(published.most),
        };
        Some(Self { roles: facts.iter().filter_map(role).collect(), own, published, each, cuts })
    }

    /// Where the file's thresholds are not the published ones, which is nothing wrong.
    #[must_use]
    pub fn note(&self) -> Option<Finding> {
        let (own, published) = (&self.own, &self.published);
        let same = |a: f64, b: f64| (a - b).abs() < 1e-6;
        if same(own.score, published.score) && same(own.iou, published.iou) && own.most == published.most {
            return None;
        }
        let say = |Thresholds { score, iou, most }: &Thresholds| {
            format!("{most} boxes at most, of scores above {score:.4} and an IoU of {iou:.4} at most")
        };
        let message =
            format!("published are {}, found {}; the file is judged with its own", say(published), say(own));
        let (code, severity) = (THRESHOLDS, Severity::Note);
        Some(Finding { code, severity, place: "nms".to_owned(), message, file: None })
    }

    /// The boxes of each image, in the file's order.
    fn read(&self, answer: &[ArrayD<f32>], images: usize) -> Result<Vec<Vec<Detection>>, String> {
        let of =
            |role: Role| self.roles.iter().position(|found| *found == role).and_then(|at| answer.get(at));
        let (wide, width) = [(Role::Boxes, 4), (Role::Scored, 5), (Role::Whole, 6)]
            .into_iter()
            .find_map(|(role, width)| Some((of(role)?, width)))
            .ok_or("expected boxes, found none")?;
        let rows = wide.len() / width / images.max(1);
        let list = |role: Role| match of(role) {
            Some(list) if list.len() == rows * images => Ok(Some(list.iter().copied().collect::<Vec<f32>>())),
            Some(list) => Err(format!("expected scores and classes of {rows} boxes, found {}", list.len())),
            None => Ok(None),
        };
        let (scores, labels) = (list(Role::Scores)?, list(Role::Labels)?);
        let counts: Option<Vec<f32>> = of(Role::Count).map(|counts| counts.iter().copied().collect());
        let wide: Vec<f32> = wide.iter().copied().collect();
        let row = |at: usize| {
            let own = &wide[at * width..(at + 1) * width];
            let score = scores.as_ref().map_or_else(|| own[4], |scores| scores[at]);
            let label = labels.as_ref().map_or_else(|| own[5], |labels| labels[at]);
            Detection { given: [0, 1, 2, 3].map(|i| own[i].into()), score: score.into(), label: label as i64 }
        };
        let image = |image: usize| {
            let mut all: Vec<Detection> = (image * rows..(image + 1) * rows).map(row).collect();
            // Places that nothing takes are filled, behind all others.
            let filled = all.iter().rev().take_while(|d| d.score <= 0.0 || d.label < 0).count();
            all.truncate(rows - filled);
            let number = |d: &Detection| d.score.is_finite() && d.given.iter().all(|x| x.is_finite());
            match counts.as_ref().and_then(|counts| counts.get(image)) {
                _ if !all.iter().all(number) => Err("expected finite numbers, found others".to_owned()),
                Some(&count) if count as usize != all.len() => {
                    Err(format!("expected the number of boxes, {}, found {count}", all.len()))
                }
                _ => Ok(all),
            }
        };
        (0..images).map(image).collect()
    }
}

/// What a detector decodes of images: boxes [N, P, 4], scores [N, P, classes], and how many of P each level has.
#[must_use]
pub fn decoded(reference: &Reference, input: &Array4<f64>) -> Option<Vec<ArrayD<f64>>> {
    Raw::of(reference, input)?.decoded(None)
}

/// What the last layers give of images.
struct Raw<'a> {
    reference: &'a Reference,
    image: Map,
    maps: Vec<(Source, Map)>,
}

impl<'a> Raw<'a> {
    fn of(reference: &'a Reference, input: &Array4<f64>) -> Option<Self> {
        let values = reference.outputs_as("raw", input, None).ok()?;
        let maps = reference.sources("raw").ok()?.into_iter().zip(values.into_iter().map(|map| map.value));
        Some(Self { reference, image: input.clone().into_dyn(), maps: maps.collect() })
    }

    fn decoded(&self, mistake: Option<Mistake>) -> Option<Vec<Map>> {
        let take = |source: &Source| match source {
            Source::Image => Some(&self.image),
            Source::Part(_) => self.maps.iter().find(|(found, _)| found == source).map(|(_, map)| map),
        };
        let mut maps = Vec::new();
        let mut sizes = Array1::zeros(0);
        for source in self.reference.sources("decoded").ok()? {
            let Source::Part(at) = source else { return None };
            let part = &self.reference.parts()[at];
            let inputs: Vec<&Map> = part.takes().iter().map(take).collect::<Option<_>>()?;
            let mistake = mistake.filter(|mistake| part.can_make(*mistake));
            if part.takes().contains(&Source::Image) {
                let levels = inputs.iter().take(inputs.len() - 1);
                sizes = levels.map(|map| (map.len() / map.len_of(Axis(0)) / 4) as f64).collect();
            }
            maps.push(part.forward_with(&inputs, mistake));
        }
        maps.push(sizes.into_dyn());
        Some(maps)
    }

    /// Whether it is in one of the parts that decode, and in which.
    fn part(&self, mistake: Mistake) -> Option<String> {
        let sources = self.reference.sources("decoded").ok()?;
        let parts = sources.into_iter().filter_map(|source| match source {
            Source::Part(at) => self.reference.parts().get(at),
            Source::Image => None,
        });
        parts.into_iter().find(|part| part.can_make(mistake)).map(|part| part.name().to_owned())
    }
}

/// Boxes that are right, or why they are not, and the measure of the former.
pub type Judged = Result<(Difference, Agreement), Vec<Departure>>;

/// What is compared: where boxes are, how they are written, what scores they have.
struct Truth<'a> {
    corners: &'a ArrayD<f64>,
    given: &'a ArrayD<f64>,
    scores: &'a ArrayD<f64>,
    levels: &'a ArrayD<f64>,
}

impl Suppression {
    /// A file's answer beside what `truth`, [`decoded`], says that it should keep.
    ///
    /// # Errors
    /// The answer cannot be read.
    pub fn judge(
        &self,
        answer: &[ArrayD<f32>],
        truth: &[ArrayD<f64>],
        tolerance: &Tolerance,
    ) -> Result<Judged, String> {
        let [boxes, scores, levels] = truth else { return Err("expected what is decoded".to_owned()) };
        let truth = Truth { corners: boxes, given: boxes, scores, levels };
        let found = self.read(answer, boxes.len_of(Axis(0)))?;
        Ok(self.beside(&found, &truth, true, tolerance))
    }

    fn beside(
        &self,
        found: &[Vec<Detection>],
        truth: &Truth,
        by_class: bool,
        tolerance: &Tolerance,
    ) -> Judged {
        // Files that choose otherwise what takes part, or look at a threshold later, keep what theirs asks for.
        let mut rules = vec![(Entry::Pairs, self.own.score)];
        if self.own.score != self.published.score {
            rules.push((Entry::Pairs, self.published.score));
        }
        rules.extend([(Entry::All, self.own.score), (Entry::Anchors, self.own.score)]);
        let mut first = None;
        for (entry, score) in rules {
            match self.by_rule(found, truth, (entry, score, by_class), tolerance) {
                Some(Ok(judged)) => return Ok(judged),
                Some(Err(departures)) => drop(first.get_or_insert(departures)),
                None => {}
            }
        }
        Err(first.unwrap_or_default())
    }

    /// `None` where there is more to compare than can be.
    fn by_rule(
        &self,
        found: &[Vec<Detection>],
        truth: &Truth,
        (entry, score, by_class): (Entry, f64, bool),
        tolerance: &Tolerance,
    ) -> Option<Judged> {
        let peak = |values: &ArrayD<f64>| values.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        let peaks = (peak(truth.given), peak(truth.scores));
        // What f32 loses on the way is allowed, whatever is demanded.
        let bound = tolerance.bound.max(FLOAT32_DEEP.bound);
        let slack =
            Slack { given: bound * peaks.0, corners: bound * peak(truth.corners), score: bound * peaks.1 };
        let rule = Rule { score, iou: self.own.iou, cuts: self.cuts.clone(), each: self.each, by_class };
        let (mut sum, mut largest) = (None, (0.0_f64, 0.0_f64));
        let mut squares = (0.0_f64, 0.0_f64);
        for (image, found) in found.iter().enumerate() {
            let candidates = candidates(truth, image, entry, score, &slack)?;
            let own = match kept(found, &candidates, &rule, &slack) {
                Ok(own) => own,
                Err(departures) => return Some(Err(departures)),
            };
            for (detection, &at) in found.iter().zip(&own.matched) {
                let right = &candidates[at];
                let pairs =
                    detection.given.iter().zip(&right.given).map(|(a, b)| ((a - b) / peaks.0, b / peaks.0));
                let score = ((detection.score - right.score) / peaks.1, right.score / peaks.1);
                for (error, value) in pairs.chain([score]) {
                    squares = (squares.0 + error * error, squares.1 + value * value);
                    largest =
                        (largest.0.max(error.abs()), largest.1.max(error.abs() / value.abs().max(1e-2)));
                }
            }
            sum = Some(sum.map_or(own.agreement, |sum: Agreement| Agreement {
                boxes: sum.boxes + own.agreement.boxes,
                least_iou: sum.least_iou.min(own.agreement.least_iou),
                scores: sum.scores.max(own.agreement.scores),
                ties: sum.ties + own.agreement.ties,
            }));
        }
        let agreement = sum?;
        let elements = 5 * agreement.boxes;
        // In shares of the largest corner and of the largest score.
        let difference = Difference {
            elements,
            max_abs: largest.0,
            max_relative: largest.1,
            rms: (squares.0 / (elements.max(1)) as f64).sqrt(),
            peak: 1.0,
            cosine: 1.0 - 0.5 * squares.0 / squares.1.max(f64::MIN_POSITIVE),
            sqnr_db: if squares.0 > 0.0 { 10.0 * (squares.1 / squares.0).log10() } else { f64::INFINITY },
        };
        Some(Ok((difference, agreement)))
    }

    /// What is wrong with boxes where the last layers are right: the part, the cause, and the boxes that show it.
    #[must_use]
    pub fn explain(
        &self,
        answer: &[ArrayD<f32>],
        reference: &Reference,
        input: &Array4<f64>,
        tolerance: &Tolerance,
    ) -> Option<(String, &'static str, String)> {
        let raw = Raw::of(reference, input)?;
        let right = raw.decoded(None)?;
        let [corners, scores, levels] = &right[..] else { return None };
        let found = match self.read(answer, corners.len_of(Axis(0))) {
            Ok(found) => found,
            Err(reason) => return Some(("nms".to_owned(), cause::SUPPRESSION, reason)),
        };
        let truth = Truth { corners, given: corners, scores, levels };
        let Err(departures) = self.beside(&found, &truth, true, tolerance) else { return None };
        let what = describe(&departures);
        if departures.iter().all(|departure| departure.kind == Kind::OutOfOrder) {
            return Some(("nms".to_owned(), cause::BOX_ORDER, what));
        }
        if self.beside(&found, &truth, false, tolerance).is_ok() {
            return Some(("nms".to_owned(), cause::CLASS_AGNOSTIC, what));
        }
        let mut shifted = found.clone();
        shifted.iter_mut().flatten().for_each(|detection| detection.label -= 1);
        if self.beside(&shifted, &truth, true, tolerance).is_ok() {
            return Some(("nms".to_owned(), cause::LABELS_FROM_ONE, what));
        }
        for (cause, mistake) in CAUSES.iter().flat_map(|c| c.tries.iter().map(move |&m| (c, m))) {
            let Some((part, wrong)) = raw.part(mistake).zip(raw.decoded(Some(mistake))) else { continue };
            let [given, scores, levels] = &wrong[..] else { continue };
            let corners = if mistake.is_of_writing() { corners } else { given };
            let truth = Truth { corners, given, scores, levels };
            if self.beside(&found, &truth, true, tolerance).is_ok_and(|(d, _)| d.elements > 0) {
                return Some((part, cause.name, what));
            }
        }
        Some(("nms".to_owned(), cause::SUPPRESSION, what))
    }
}

/// The pairs of a box and a class of an image that take part, or may. `None` where they are too many.
fn candidates(
    truth: &Truth,
    image: usize,
    entry: Entry,
    threshold: f64,
    slack: &Slack,
) -> Option<Vec<Candidate>> {
    let of = |map: &ArrayD<f64>| -> Option<Array2<f64>> {
        map.index_axis(Axis(0), image).to_owned().into_dimensionality().ok()
    };
    let (corners, given, scores) = (of(truth.corners)?, of(truth.given)?, of(truth.scores)?);
    let four = |rows: &Array2<f64>, at: usize| -> Corners { [0, 1, 2, 3].map(|i| rows[[at, i]]) };
    let above = threshold - slack.score;
    let mut all = Vec::new();
    let mut start = 0;
    for &size in truth.levels {
        let anchors = start..start + size as usize;
        start = anchors.end;
        let (last, next) = entrance(scores.slice(s![anchors.clone(), ..]), entry, above);
        for anchor in anchors {
            let (row, corners) = (scores.row(anchor), four(&corners, anchor));
            let best = best(row);
            // Boxes beyond the image's border have no width or no height left. As published they are not kept; whoever
            // keeps one drops no other for it.
            let solid = (0..2).all(|axis| corners[axis + 2] - corners[axis] > 2.0 * slack.corners);
            for (label, &score) in row.iter().enumerate() {
                let enters = if entry == Entry::Anchors { best } else { score };
                if score <= above || enters < last - 2.0 * slack.score {
                    continue;
                }
                let certain = solid && enters > next + 2.0 * slack.score;
                let (given, label) = (four(&given, anchor), label as i64);
                all.push(Candidate { corners, given, score, label, certain });
            }
        }
        if all.len() > MOST {
            return None;
        }
    }
    Some(all)
}

fn best(row: ArrayView1<f64>) -> f64 {
    row.fold(f64::NEG_INFINITY, |best, x| best.max(*x))
}

/// The last score of a level that takes part, and the first that does not.
fn entrance(scores: ArrayView2<f64>, entry: Entry, above: f64) -> (f64, f64) {
    let everything = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let mut all: Vec<f64> = match entry {
        Entry::All => return everything,
        Entry::Pairs => scores.iter().copied().filter(|x| *x > above).collect(),
        Entry::Anchors => scores.rows().into_iter().map(best).collect(),
    };
    if all.len() <= CANDIDATES {
        return everything;
    }
    let (_, last, others) = all.select_nth_unstable_by(CANDIDATES - 1, |a, b| b.total_cmp(a));
    (*last, others.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}
