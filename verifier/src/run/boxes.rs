//! Boxes compared as boxes, and the outcome of their suppression.
//!
//! Which boxes greedy suppression keeps is known without doing it: each is above the threshold, none overlaps a better
//! one that is kept, and whatever is left out overlaps a better one that is kept, or is worse than all of as many as may
//! be kept. What is held to these rules may decide a tie either way, and all that follows from it is right.

use std::collections::HashMap;
use std::fmt;

use ndarray::ArrayD;
use serde::Serialize;

/// Left, top, right, bottom.
pub type Corners = [f64; 4];

/// What boxes are beside those that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Boxes compared.
    pub boxes: usize,
    /// Least intersection over union of a box and its own, of those that have an area.
    pub least_iou: f64,
    /// Largest difference of scores.
    pub scores: f64,
    /// Decisions that are the other way round within the tolerance: which box is kept, and which comes first.
    pub ties: usize,
}

/// The area that two boxes share, and that of both together.
fn shared(a: &Corners, b: &Corners) -> (f64, f64) {
    let side = |axis: usize| (a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let area = |c: &Corners| (c[2] - c[0]).max(0.0) * (c[3] - c[1]).max(0.0);
    let both = side(0) * side(1);
    (both, area(a) + area(b) - both)
}

/// Intersection over union; 0 of boxes without area.
#[must_use]
pub fn iou(a: &Corners, b: &Corners) -> f64 {
    let (both, union) = shared(a, b);
    if union > 0.0 { both / union } else { 0.0 }
}

/// By how much the same changes when every edge moves by `edge`: to first order, what the areas gain and lose.
fn iou_slack(a: &Corners, b: &Corners, edge: f64) -> f64 {
    let (both, union) = shared(a, b);
    if union <= 0.0 {
        return 0.0;
    }
    let girth = |c: &Corners| (c[2] - c[0]) + (c[3] - c[1]);
    let gained = 2.0 * edge * girth(a).min(girth(b));
    let lost = 2.0 * edge * (girth(a) + girth(b)) + gained;
    (gained + lost * both / union) / union
}

/// Boxes [N, P, 4] and scores beside those that they should be, one by one.
#[must_use]
pub fn one_by_one(found: [&ArrayD<f32>; 2], right: [&ArrayD<f64>; 2]) -> Option<Agreement> {
    let [boxes, scores] = [0, 1].map(|i| found[i].iter().zip(right[i]).map(|(&a, &b)| (f64::from(a), b)));
    if (0..2).any(|i| found[i].len() != right[i].len()) {
        return None;
    }
    let boxes: Vec<(f64, f64)> = boxes.collect();
    let overlaps = boxes.chunks_exact(4).filter_map(|edges| {
        let (a, b) = ([0, 1, 2, 3].map(|i| edges[i].0), [0, 1, 2, 3].map(|i| edges[i].1));
        (iou(&b, &b) > 0.0).then(|| iou(&a, &b))
    });
    let least_iou = overlaps.fold(1.0, f64::min);
    let scores = scores.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    Some(Agreement { boxes: boxes.len() / 4, least_iou, scores, ties: 0 })
}

/// A box and a class that may be kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub corners: Corners,
    /// The four numbers by which a file gives it, its corners in most files.
    pub given: [f64; 4],
    pub score: f64,
    pub label: i64,
    /// Whether it surely takes part: not where a tie decides that.
    pub certain: bool,
}

/// A box that a file gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    pub given: [f64; 4],
    pub score: f64,
    pub label: i64,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Boxes have scores above this.
    pub score: f64,
    /// A box is dropped that shares more of its union with a better one.
    pub iou: f64,
    /// How many may be kept at most, of an image; any of these.
    pub cuts: Vec<usize>,
    /// How many of a class.
    pub each: Option<usize>,
    /// Whether a box of another class is no rival.
    pub by_class: bool,
}

/// How far numbers may be off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slack {
    /// Of the numbers of [`Candidate::given`].
    pub given: f64,
    /// Of corners.
    pub corners: f64,
    pub score: f64,
}

/// Where boxes are not what suppression keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Departure {
    pub kind: Kind,
    pub what: String,
}

/// From the one that tells most to the one that may follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    WrongClass,
    Misplaced,
    Extra,
    Missing,
    OutOfOrder,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::WrongClass => "of the wrong class",
            Self::Misplaced => "misplaced",
            Self::Extra => "extra",
            Self::Missing => "missing",
            Self::OutOfOrder => "out of order",
        }
    }
}

/// `2 boxes are missing, 1 extra: …`, with what the first is.
#[must_use]
pub fn describe(departures: &[Departure]) -> String {
    let kinds = [Kind::WrongClass, Kind::Misplaced, Kind::Extra, Kind::Missing, Kind::OutOfOrder];
    let of = |kind: Kind| departures.iter().filter(move |departure| departure.kind == kind);
    let counts: Vec<String> = kinds
        .into_iter()
        .filter(|kind| of(*kind).next().is_some())
        .map(|kind| format!("{} {}", of(kind).count(), kind.name()))
        .collect();
    let first = kinds.into_iter().find_map(|kind| of(kind).next());
    format!("of the boxes {}: {}", counts.join(", "), first.map_or("", |first| first.what.as_str()))
}

/// Which boxes were found, each with the candidate that it is, and what is decided by them.
pub struct Kept {
    pub agreement: Agreement,
    /// The number of the candidate of each.
    pub matched: Vec<usize>,
}

/// Holds the boxes that were found, the best first, to what suppression keeps of the candidates.
///
/// # Errors
/// They are others: each that is.
pub fn kept(
    found: &[Detection],
    candidates: &[Candidate],
    rule: &Rule,
    slack: &Slack,
) -> Result<Kept, Vec<Departure>> {
    let judge = Judge { candidates, rule, slack };
    let mut departures = Vec::new();
    let places = judge.places(found);
    for (detection, place) in found.iter().zip(&places) {
        if place.is_none() {
            departures.push(judge.unknown(detection));
        }
    }
    let matched: Vec<usize> = places.iter().copied().flatten().collect();
    let mut ties = judge.order(&matched, &mut departures);
    ties += judge.rivals(&matched, &mut departures);
    ties += judge.missing(&matched, found.len(), &mut departures);
    if !departures.is_empty() {
        departures.sort_by_key(|departure| departure.kind);
        return Err(departures);
    }
    let pairs = || found.iter().zip(matched.iter().map(|&at| &candidates[at]));
    let given =
        |(a, b): (&Detection, &Candidate)| (iou(&b.given, &b.given) > 0.0).then(|| iou(&a.given, &b.given));
    let agreement = Agreement {
        boxes: found.len(),
        least_iou: pairs().filter_map(given).fold(1.0, f64::min),
        scores: pairs().map(|(a, b)| (a.score - b.score).abs()).fold(0.0, f64::max),
        ties,
    };
    Ok(Kept { agreement, matched })
}

struct Judge<'a> {
    candidates: &'a [Candidate],
    rule: &'a Rule,
    slack: &'a Slack,
}

impl Judge<'_> {
    /// The nearest candidate of each detection that is within the slack and no other's.
    fn places(&self, found: &[Detection]) -> Vec<Option<usize>> {
        let mut of_label: HashMap<i64, Vec<usize>> = HashMap::new();
        for (at, candidate) in self.candidates.iter().enumerate() {
            of_label.entry(candidate.label).or_default().push(at);
        }
        let mut taken = vec![false; self.candidates.len()];
        let nearest = |detection: &Detection| {
            let all = of_label.get(&detection.label).into_iter().flatten().copied();
            let near = all.filter(|&at| !taken[at]).filter_map(|at| {
                let far = self.distance(detection, &self.candidates[at]);
                (far <= 1.0).then_some((at, far))
            });
            let place = near.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(at, _)| at);
            if let Some(at) = place {
                taken[at] = true;
            }
            place
        };
        found.iter().map(nearest).collect()
    }

    /// In units of the slack.
    fn distance(&self, a: &Detection, b: &Candidate) -> f64 {
        let edges = a.given.iter().zip(&b.given).map(|(a, b)| (a - b).abs()).fold(0.0, largest);
        largest(edges / self.slack.given, (a.score - b.score).abs() / self.slack.score)
    }

    /// What a detection is that is none of the candidates.
    fn unknown(&self, found: &Detection) -> Departure {
        let scored = |c: &&Candidate| (c.score - found.score).abs() <= self.slack.score;
        let relabelled =
            self.candidates.iter().find(|c| self.distance(found, c) <= 1.0 && c.label != found.label);
        if let Some(candidate) = relabelled {
            let what = format!("{} is given as of class {}", Shown(candidate), found.label);
            return Departure { kind: Kind::WrongClass, what };
        }
        if self.candidates.iter().any(|c| c.label == found.label && self.distance(found, c) <= 1.0) {
            let what = format!("{} of class {} is there twice", given(&found.given), found.label);
            return Departure { kind: Kind::Extra, what };
        }
        let own = self.candidates.iter().filter(|c| c.label == found.label).filter(scored);
        let overlap = |c: &Candidate| iou(&c.given, &found.given);
        match own.max_by(|a, b| overlap(a).total_cmp(&overlap(b))) {
            Some(candidate) => {
                let (own, overlap) = (Shown(candidate), overlap(candidate));
                let what = format!("expected {own}, found {}, an IoU of {overlap:.6}", given(&found.given));
                Departure { kind: Kind::Misplaced, what }
            }
            None => {
                let Detection { score, label, .. } = found;
                let what = format!("{} of class {label} and score {score:.6} is none", given(&found.given));
                Departure { kind: Kind::Extra, what }
            }
        }
    }

    /// Holds them to the order of their scores; how many are in another one within the slack.
    fn order(&self, matched: &[usize], departures: &mut Vec<Departure>) -> usize {
        let (mut least, mut ties) = (f64::INFINITY, 0);
        for candidate in matched.iter().map(|&at| &self.candidates[at]) {
            if candidate.score > least + 2.0 * self.slack.score {
                let what = format!("{} stands behind one of score {least:.6}", Shown(candidate));
                departures.push(Departure { kind: Kind::OutOfOrder, what });
            }
            ties += usize::from(candidate.score > least);
            least = least.min(candidate.score);
        }
        ties
    }

    fn are_rivals(&self, a: &Candidate, b: &Candidate) -> bool {
        !self.rule.by_class || a.label == b.label
    }

    /// Holds them to their threshold, and to what they may share; how many are beyond it within the slack.
    fn rivals(&self, matched: &[usize], departures: &mut Vec<Departure>) -> usize {
        let (rule, mut ties) = (self.rule, 0);
        for (behind, &at) in matched.iter().enumerate() {
            let candidate = &self.candidates[at];
            let better = matched[..behind].iter().map(|&at| &self.candidates[at]);
            let over = better.filter(|better| self.are_rivals(better, candidate)).find_map(|better| {
                let share = iou(&better.corners, &candidate.corners);
                let slack = iou_slack(&better.corners, &candidate.corners, self.slack.corners);
                (share > rule.iou).then_some((better, share, share > rule.iou + slack))
            });
            if let Some((better, share, true)) = over {
                let what = format!(
                    "{} has an IoU of {share:.4} with {}, more than {}",
                    Shown(candidate),
                    Shown(better),
                    rule.iou
                );
                departures.push(Departure { kind: Kind::Extra, what });
            }
            if candidate.score <= rule.score - self.slack.score {
                let what = format!("{} is not above {}", Shown(candidate), rule.score);
                departures.push(Departure { kind: Kind::Extra, what });
            }
            ties += usize::from(over.is_some() || candidate.score <= rule.score);
        }
        ties
    }

    /// Holds what was left out to a reason; how many have one within the slack alone.
    fn missing(&self, matched: &[usize], found: usize, departures: &mut Vec<Departure>) -> usize {
        let (rule, slack) = (self.rule, self.slack);
        let worst = |label: Option<i64>| {
            let own = matched.iter().map(|&at| &self.candidates[at]);
            let own = own.filter(|c| label.is_none_or(|label| label == c.label)).map(|c| c.score);
            own.fold((0, f64::INFINITY), |(n, least), score| (n + 1, least.min(score)))
        };
        let full = rule.cuts.contains(&found).then(|| worst(None).1);
        let mut classes: HashMap<i64, Option<f64>> = HashMap::new();
        let (mut is_kept, mut ties) = (vec![false; self.candidates.len()], 0);
        matched.iter().for_each(|&at| is_kept[at] = true);
        for (candidate, _) in self.candidates.iter().zip(&is_kept).filter(|(_, kept)| !**kept) {
            let of_class = *classes.entry(candidate.label).or_insert_with(|| {
                let (n, least) = worst(Some(candidate.label));
                rule.each.filter(|each| n >= *each).map(|_| least)
            });
            // Why it is left out: surely, or within the slack.
            let mut sure = candidate.score <= rule.score;
            let mut may = !candidate.certain || candidate.score <= rule.score + slack.score;
            for least in [full, of_class].into_iter().flatten() {
                sure |= candidate.score <= least;
                may |= candidate.score <= least + 2.0 * slack.score;
            }
            let rivals = matched.iter().map(|&at| &self.candidates[at]);
            for rival in rivals.filter(|rival| self.are_rivals(rival, candidate)) {
                if sure || rival.score < candidate.score - 2.0 * slack.score {
                    continue;
                }
                let share = iou(&rival.corners, &candidate.corners);
                let near = iou_slack(&rival.corners, &candidate.corners, slack.corners);
                sure |= share > rule.iou && rival.score >= candidate.score;
                may |= share > rule.iou - near;
            }
            if !sure && !may {
                departures.push(Departure { kind: Kind::Missing, what: Shown(candidate).to_string() });
            }
            ties += usize::from(!sure && may && candidate.certain);
        }
        ties
    }
}

/// The larger of two, not a number where one is none.
fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn given(numbers: &[f64; 4]) -> String {
    let numbers: Vec<String> = numbers.iter().map(|x| format!("{x:.2}")).collect();
    format!("[{}]", numbers.join(", "))
}

/// A candidate as reports name it.
struct Shown<'a>(&'a Candidate);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Candidate { given: numbers, score, label, .. } = self.0;
        write!(f, "{} of class {label} and score {score:.6}", given(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLACK: Slack = Slack { given: 1e-3, corners: 1e-3, score: 1e-4 };

    fn rule(cut: usize) -> Rule {
        Rule { score: 0.1, iou: 0.5, cuts: vec![cut], each: None, by_class: true }
    }

    fn candidate(corners: Corners, score: f64, label: i64) -> Candidate {
        Candidate { corners, given: corners, score, label, certain: true }
    }

    fn found(candidates: &[Candidate], kept: &[usize]) -> Vec<Detection> {
        let one = |&at: &usize| {
            let Candidate { given, score, label, .. } = candidates[at];
            Detection { given, score, label }
        };
        kept.iter().map(one).collect()
    }

    /// Suppression as it is done: the best first, against all that are kept.
    fn greedy(candidates: &[Candidate], rule: &Rule) -> Vec<usize> {
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by(|&a, &b| candidates[b].score.total_cmp(&candidates[a].score));
        let mut kept: Vec<usize> = Vec::new();
        for at in order {
            let own = &candidates[at];
            let rival = |&other: &usize| {
                let other = &candidates[other];
                (!rule.by_class || other.label == own.label) && iou(&other.corners, &own.corners) > rule.iou
            };
            if own.score > rule.score && !kept.iter().any(rival) {
                kept.push(at);
            }
        }
        kept.truncate(rule.cuts[0]);
        kept
    }

    /// Numbers from 0 to 1, one after the other.
    fn draws(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    fn drawn(seed: u64, number: usize) -> Vec<Candidate> {
        let mut draw = draws(seed);
        let mut one = || {
            let [x, y, w, h] = [40.0 * draw(), 40.0 * draw(), 10.0 + 20.0 * draw(), 10.0 + 20.0 * draw()];
            candidate([x, y, x + w, y + h], draw(), (3.0 * draw()) as i64)
        };
        (0..number).map(|_| one()).collect()
    }

    #[test]
    fn what_suppression_keeps_is_right_and_all_else_is_told() {
        let slack = Slack { given: 1e-9, corners: 1e-9, score: 1e-9 };
        for seed in 0..20 {
            for (cut, by_class) in [(100, true), (8, true), (100, false)] {
                let (candidates, rule) = (drawn(seed, 60), Rule { by_class, ..rule(cut) });
                let right = greedy(&candidates, &rule);
                let judge =
                    |kept: &[usize]| self::kept(&found(&candidates, kept), &candidates, &rule, &slack);
                let agreement = judge(&right).ok().map(|kept| kept.agreement);
                let all = Agreement { boxes: right.len(), least_iou: 1.0, scores: 0.0, ties: 0 };
                assert_eq!(agreement, Some(all), "{seed}");
                for at in 0..right.len() {
                    let mut fewer = right.clone();
                    fewer.remove(at);
                    let departures = judge(&fewer).err().unwrap();
                    assert!(departures.iter().any(|d| d.kind == Kind::Missing), "{seed}: {departures:?}");
                }
                if let Some(more) = (0..candidates.len()).rfind(|at| !right.contains(at)) {
                    let mut extra = right.clone();
                    extra.push(more);
                    extra.sort_by(|&a, &b| candidates[b].score.total_cmp(&candidates[a].score));
                    let rules = |kept: &[usize]| Rule { cuts: vec![kept.len()], ..rule.clone() };
                    let judged = kept(&found(&candidates, &extra), &candidates, &rules(&extra), &slack);
                    // More room alone lets in the next one.
                    let next = greedy(&candidates, &rules(&extra)) == extra;
                    assert_eq!(judged.is_ok(), next, "{seed}");
                }
            }
        }
    }

    #[test]
    fn each_departure_has_its_kind() {
        let candidates = [
            candidate([0.0, 0.0, 10.0, 10.0], 0.9, 0),
            candidate([0.0, 0.0, 10.0, 8.0], 0.8, 0),
            candidate([20.0, 0.0, 30.0, 10.0], 0.7, 1),
        ];
        let kinds = |edit: fn(&mut Vec<Detection>)| {
            let mut boxes = found(&candidates, &[0, 2]);
            edit(&mut boxes);
            let judged = kept(&boxes, &candidates, &rule(100), &SLACK);
            judged.err().map(|departures| departures[0].kind)
        };
        assert_eq!(kinds(|_| ()), None);
        assert_eq!(kinds(|boxes| boxes[1].label = 0), Some(Kind::WrongClass));
        assert_eq!(kinds(|boxes| boxes[1].given[0] += 1.0), Some(Kind::Misplaced));
        assert_eq!(kinds(|boxes| boxes[1].score = 0.5), Some(Kind::Extra));
        assert_eq!(kinds(|boxes| boxes.truncate(1)), Some(Kind::Missing));
        assert_eq!(kinds(|boxes| boxes.reverse()), Some(Kind::OutOfOrder));
        assert_eq!(kinds(|boxes| boxes.push(boxes[0])), Some(Kind::Extra));
        let both = kept(&found(&candidates, &[0, 1, 2]), &candidates, &rule(100), &SLACK);
        assert_eq!(both.err().map(|departures| departures[0].kind), Some(Kind::Extra));
    }

    /// Where a decision is within the slack either is right, and so is what follows from it.
    #[test]
    fn ties_go_either_way() {
        // The second shares half of its union with the first, to the last digits; the third overlaps the second alone.
        let candidates = [
            candidate([0.0, 0.0, 10.0, 10.0], 0.9, 0),
            candidate([0.0, 0.0, 10.0, 20.0], 0.8, 0),
            candidate([0.0, 8.0, 10.0, 20.0], 0.7, 0),
            candidate([50.0, 0.0, 60.0, 10.0], 0.700_01, 1),
            candidate([80.0, 0.0, 90.0, 10.0], 0.1, 2),
        ];
        let judge = |kept: &[usize]| {
            let boxes = found(&candidates, kept);
            self::kept(&boxes, &candidates, &rule(100), &SLACK).ok().map(|kept| kept.agreement.ties)
        };
        assert_eq!(judge(&[0, 1, 3]), Some(0));
        assert_eq!(judge(&[0, 3, 2]), Some(1));
        assert_eq!(judge(&[0, 2, 3]), Some(2));
        assert_eq!(judge(&[0, 1, 3, 4]), Some(1));
        assert_eq!(judge(&[0, 3]), None);
        assert_eq!(judge(&[0, 1, 3, 2]), None);
    }
}
