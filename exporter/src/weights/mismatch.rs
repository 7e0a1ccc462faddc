//! What a file holds against what a model takes: every difference at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use emo_proto::Error;

use super::Parameter;

/// Differences of one kind that are spelled out, more than any of our models has tensors; a
/// other file's rest is counted.
const LISTED: usize = 500;
/// Bounds on what is compared in search of a nearest name: names come from third parties.
const NEAREST_CANDIDATES: usize = 4096;
const NEAREST_PAIRS: usize = 1 << 14;
const NEAREST_LENGTH: usize = 200;
/// Similarity (1 is equal) from which a name counts as a likely misspelling.
const NEAREST_SIMILARITY: f64 = 0.6;

/// What published models call the layer whose rows are classes.
const HEADS: [&str; 3] = ["head.", "classifier.", "decode_head.conv_seg."];

/// An error that lists all missing, unexpected and misshapen tensors, if there are any.
///
/// `found` maps a file's tensors to their shapes.
pub(super) fn compare(expected: &[Parameter], found: &BTreeMap<&str, &[usize]>) -> Result<(), Error> {
    let known: BTreeSet<&str> = expected.iter().map(|parameter| parameter.name.as_str()).collect();
    let missing: Vec<_> = expected.iter().filter(|p| !found.contains_key(p.name.as_str())).collect();
    let unexpected: Vec<&str> = found.keys().copied().filter(|name| !known.contains(name)).collect();
    let misshapen: Vec<Misshapen<'_>> = expected
        .iter()
        .filter_map(|expected| Some(Misshapen { expected, found: found.get(expected.name.as_str())? }))
        .filter(|pair| pair.expected.shape != pair.found)
        .collect();
    if missing.is_empty() && unexpected.is_empty() && misshapen.is_empty() {
        return Ok(());
    }

    let mut text = format!(
        "expected the {} tensors of the model, found {}: {} missing, {} unexpected, {} misshapen",
        expected.len(),
        found.len(),
        missing.len(),
        unexpected.len(),
        misshapen.len()
    );
    list(&mut text, "missing", &missing, |parameter| {
        let most = (NEAREST_PAIRS / missing.len()).min(NEAREST_CANDIDATES);
        let nearest = nearest(&parameter.name, around(&parameter.name, &unexpected, most))
            .map_or(String::new(), |name| format!(" (nearest: {})", Shown(name)));
        format!("{}{nearest}", parameter.name)
    });
    list(&mut text, "unexpected", &unexpected, |name| Shown(name).to_string());
    list(&mut text, "misshapen", &misshapen, |Misshapen { expected, found }| {
        format!("{}: expected {:?}, found {found:?}", expected.name, expected.shape)
    });
    if let (true, true, Some(classes)) = (missing.is_empty(), unexpected.is_empty(), classes(&misshapen)) {
        let _ = write!(text, "\n  only the head differs, it has {classes} classes: ask for as many");
    }
    Err(Error::new(text))
}

struct Misshapen<'a> {
    expected: &'a Parameter,
    found: &'a [usize],
}

/// The number of classes that explains all differences: that of a head which differs in
/// nothing else.
fn classes(misshapen: &[Misshapen<'_>]) -> Option<usize> {
    let (&classes, _) = misshapen.first()?.found.split_first()?;
    misshapen
        .iter()
        .all(|Misshapen { expected, found }| {
            HEADS.iter().any(|head| expected.name.starts_with(head))
                && found.first() == Some(&classes)
                && found.get(1..) == expected.shape.get(1..)
        })
        .then_some(classes)
}

fn list<T>(text: &mut String, kind: &str, items: &[T], line: impl Fn(&T) -> String) {
    for item in items.iter().take(LISTED) {
        let _ = write!(text, "\n  {kind}: {}", line(item));
    }
    if items.len() > LISTED {
        let _ = write!(text, "\n  {kind}: and {} more", items.len() - LISTED);
    }
}

/// So many names before and after the place that `name` would have among `sorted` ones.
fn around<'a, 'n>(name: &str, sorted: &'a [&'n str], most: usize) -> &'a [&'n str] {
    let place = sorted.partition_point(|other| *other < name);
    let start = place.saturating_sub(most / 2).min(sorted.len().saturating_sub(most));
    &sorted[start..(start + most).min(sorted.len())]
}

/// The candidate nearest to `name`, if it is near at all.
fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .filter(|candidate| candidate.len() <= NEAREST_LENGTH)
        .map(|candidate| (strsim::normalized_levenshtein(name, candidate), *candidate))
        .filter(|(similarity, _)| *similarity >= NEAREST_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// A name out of a file, of bounded length and without control characters.
pub(super) struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(NEAREST_LENGTH) {
            write!(f, "{}", character.escape_debug())?;
        }
        f.write_str(if characters.next().is_some() { "…" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str, shape: &[usize]) -> Parameter {
        Parameter { name: name.to_owned(), shape: shape.to_vec() }
    }

    fn difference(expected: &[Parameter], found: &[(&str, &[usize])]) -> String {
        compare(expected, &found.iter().copied().collect()).map_or_else(|e| e.to_string(), |()| String::new())
    }

    #[test]
    fn all_differences_are_in_one_error() {
        let expected = [
            parameter("stage3.4.qk.conv.weight", &[160, 80, 1, 1]),
            parameter("norm.norm.bias", &[168]),
            parameter("head.bias", &[1000]),
        ];
        let found: [(&str, &[usize]); 4] = [
            ("stage3.4.qk.conv.weigth", &[160, 80, 1, 1]),
            ("norm.norm.bias", &[200]),
            ("head.bias", &[1000]),
            ("esc\u{1b}[2J", &[]),
        ];
        assert_eq!(
            difference(&expected, &found),
            "expected the 3 tensors of the model, found 4: 1 missing, 2 unexpected, 1 misshapen\
             \n  missing: stage3.4.qk.conv.weight (nearest: stage3.4.qk.conv.weigth)\
             \n  unexpected: esc\\u{1b}[2J\
             \n  unexpected: stage3.4.qk.conv.weigth\
             \n  misshapen: norm.norm.bias: expected [168], found [200]"
        );
        assert_eq!(difference(&expected[2..], &found[2..3]), "");
    }

    #[test]
    fn long_lists_are_counted() {
        let expected: Vec<_> = (0..LISTED + 7).map(|i| parameter(&format!("{i}.weight"), &[1])).collect();
        let error = difference(&expected, &[]);
        assert!(error.contains("507 missing") && error.ends_with("missing: and 7 more"), "{error}");
        assert_eq!(error.lines().count(), LISTED + 2);
    }

    #[test]
    fn another_number_of_classes_is_recognised() {
        let expected = [
            parameter("norm.bias", &[168]),
            parameter("head.weight", &[1000, 168]),
            parameter("head.bias", &[1000]),
        ];
        let with = |norm: &[usize], weight: &[usize], bias: &[usize]| {
            difference(&expected, &[("norm.bias", norm), ("head.weight", weight), ("head.bias", bias)])
        };
        assert!(with(&[168], &[10, 168], &[10]).ends_with("it has 10 classes: ask for as many"));
        let timm = difference(&[parameter("classifier.bias", &[1000])], &[("classifier.bias", &[10])]);
        assert!(timm.ends_with("it has 10 classes: ask for as many"), "{timm}");
        for other in
            [with(&[168], &[10, 200], &[10]), with(&[200], &[10, 168], &[10]), with(&[168], &[10, 168], &[9])]
        {
            assert!(other.contains("misshapen") && !other.contains("ask for"), "{other}");
        }
    }
}
