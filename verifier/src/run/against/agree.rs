//! Whether two files give the same, and whether what they give tells anything.

use std::collections::{HashMap, HashSet};

use emo_proto::file::OnnxFile;
use emo_proto::{Error, GraphProto, ValueInfoProto};
use ndarray::ArrayD;

use super::matching::unmasked;
use super::{OutputVerdict, Pair, Run};
use crate::compare::{Difference, compare};
use crate::run::plain::captured;

/// An output of a run in the judged file and in the other.
pub fn judge(
    run: &Run,
    pair: &Pair,
    found: &ArrayD<f32>,
    expected: &ArrayD<f32>,
    bound: f64,
) -> OutputVerdict {
    let mut verdict = OutputVerdict {
        probe: run.name.clone(),
        output: pair.own.to_owned(),
        against: pair.other.to_owned(),
        shape: found.shape().to_vec(),
        difference: None,
        holds: false,
        decides: true,
        reason: None,
    };
    if found.shape() != expected.shape() {
        let (expected, found) = (expected.shape(), found.shape());
        verdict.reason = Some(format!("expected shape {expected:?}, found {found:?}"));
    } else if found.is_empty() {
        // What has no element has none that differs, and shows nothing of the inputs.
        (verdict.holds, verdict.reason) = (true, Some("it is empty in both files".to_owned()));
    } else if let Some(value) = same_and_not_finite(found, expected) {
        let reason = format!("{value} at the same places in both files, which decides nothing");
        (verdict.holds, verdict.decides, verdict.reason) = (true, false, Some(reason));
    } else {
        match difference(found, expected) {
            Ok(difference) => {
                let beside = beside_masks(found, expected);
                verdict.holds =
                    difference.relative() <= bound && beside.is_none_or(|d| d.relative() <= bound);
                verdict.difference = beside.or(Some(difference));
            }
            Err(error) => verdict.reason = Some(error.to_string()),
        }
    }
    verdict
}

/// How far one array is from another of its shape.
fn difference(found: &ArrayD<f32>, expected: &ArrayD<f32>) -> Result<Difference, Error> {
    let elements: Vec<f32> = found.iter().copied().collect();
    let truth: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
    compare(&elements, &truth)
}

/// How far the elements are that no mask has filled, where a mask has filled others in both.
fn beside_masks(found: &ArrayD<f32>, expected: &ArrayD<f32>) -> Option<Difference> {
    let largest = unmasked(expected.iter().map(|&x| f64::from(x)))?;
    unmasked(found.iter().map(|&x| f64::from(x)))?;
    let rest = found.iter().zip(expected).filter(|(_, t)| f64::from(t.abs()) <= largest);
    let (found, truth): (Vec<f32>, Vec<f64>) = rest.map(|(&a, &b)| (a, f64::from(b))).unzip();
    compare(&found, &truth).ok()
}

/// The first element that is not finite, where such elements are at the same places on both sides and alike.
fn same_and_not_finite(found: &ArrayD<f32>, expected: &ArrayD<f32>) -> Option<f32> {
    let alike = |a: f32, b: f32| a.is_finite() && b.is_finite() || a.is_nan() && b.is_nan() || a == b;
    let first = found.iter().copied().find(|x| !x.is_finite())?;
    found.iter().zip(expected).all(|(&a, &b)| alike(a, b)).then_some(first)
}

/// The largest change between two answers of the same output, as a share of the largest value of both.
pub fn change(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f64 {
    if a.shape() != b.shape() {
        return f64::INFINITY;
    }
    let largest =
        |values: &mut dyn Iterator<Item = f64>| values.filter(|x| x.is_finite()).fold(0.0, f64::max);
    let peak = largest(&mut a.iter().chain(b).map(|&x| f64::from(x).abs()));
    let moved = largest(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a - b).abs()));
    if moved == 0.0 { 0.0 } else { moved / peak }
}

/// What the outputs of a file are computed from, without what only its shape is asked of.
pub fn behind(graph: &GraphProto) -> HashSet<&str> {
    let writers: HashMap<&str, usize> = graph
        .node
        .iter()
        .enumerate()
        .flat_map(|(i, node)| node.output.iter().map(move |name| (name.as_str(), i)))
        .collect();
    let mut open: Vec<&str> = graph.output.iter().map(ValueInfoProto::name).collect();
    let mut behind: HashSet<&str> = open.iter().copied().collect();
    while let Some(name) = open.pop() {
        let Some(node) = writers.get(name).map(|&i| &graph.node[i]) else { continue };
        if matches!(node.op_type(), "Shape" | "Size") {
            continue;
        }
        let mut names: Vec<&str> = node.input.iter().map(String::as_str).collect();
        captured(node, &mut names);
        open.extend(names.into_iter().filter(|name| behind.insert(name)));
    }
    behind
}

/// Which of `inputs` reach which outputs of a file by their elements, not by their shape alone.
pub fn reaches<'a>(file: &'a OnnxFile, inputs: &[&'a str]) -> Vec<HashSet<&'a str>> {
    inputs
        .iter()
        .map(|input| file.model.graph.as_ref().map_or_else(HashSet::new, |g| from(g, input)))
        .collect()
}

/// Everything that the elements of `value` decide.
fn from<'a>(graph: &'a GraphProto, value: &'a str) -> HashSet<&'a str> {
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        if matches!(node.op_type(), "Shape" | "Size") {
            continue;
        }
        let mut names: Vec<&str> = node.input.iter().map(String::as_str).collect();
        captured(node, &mut names);
        names.into_iter().for_each(|name| readers.entry(name).or_default().push(i));
    }
    let (mut reached, mut open) = (HashSet::from([value]), vec![value]);
    while let Some(name) = open.pop() {
        let outputs = readers.get(name).into_iter().flatten().flat_map(|&i| &graph.node[i].output);
        for output in outputs.filter(|output| !output.is_empty()) {
            if reached.insert(output) {
                open.push(output);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(found: &[f32], expected: &[f32]) -> OutputVerdict {
        let array = |values: &[f32]| ArrayD::from_shape_vec(vec![values.len()], values.to_vec()).unwrap();
        let run = Run { name: "noise-0".to_owned(), inputs: Vec::new(), changed: None };
        judge(&run, &Pair { own: "y", other: "z" }, &array(found), &array(expected), 1e-6)
    }

    #[test]
    fn what_is_not_a_number_decides_nothing_where_both_have_it() {
        const NAN: f32 = f32::NAN;
        const INF: f32 = f32::INFINITY;
        // (found, expected, holds, decides)
        let rows: [(&[f32], &[f32], bool, bool); 9] = [
            (&[1.0, 2.0], &[1.0, 2.0], true, true),
            (&[1.0, 2.0], &[1.0, 2.1], false, true),
            (&[], &[], true, true),
            (&[], &[1.0], false, true),
            (&[NAN, 1.0], &[NAN, 1.0], true, false),
            (&[INF, 1.0], &[INF, 1.0], true, false),
            (&[NAN, 1.0], &[1.0, NAN], false, true),
            (&[INF, 1.0], &[-INF, 1.0], false, true),
            (&[1.0, 1.0], &[NAN, 1.0], false, true),
        ];
        for (found, expected, holds, decides) in rows {
            let verdict = judged(found, expected);
            assert_eq!((verdict.holds, verdict.decides), (holds, decides), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn what_a_mask_fills_in_hides_no_error() {
        assert!(judged(&[0.5, 0.25, -1e9], &[0.5, 0.25, -1e9]).holds);
        let verdict = judged(&[0.5, 0.3, -1e9], &[0.5, 0.25, -1e9]);
        assert!(!verdict.holds && verdict.difference.unwrap().peak == 0.5);
    }

    #[test]
    fn changes_are_shares_of_the_largest_value() {
        let array = |values: &[f32]| ArrayD::from_shape_vec(vec![values.len()], values.to_vec()).unwrap();
        assert_eq!(change(&array(&[0.0, 0.0]), &array(&[0.0, 0.0])), 0.0);
        assert_eq!(change(&array(&[4.0, -1.0]), &array(&[4.0, 1.0])), 0.5);
        assert_eq!(change(&array(&[4.0]), &array(&[4.0, 1.0])), f64::INFINITY);
    }
}
