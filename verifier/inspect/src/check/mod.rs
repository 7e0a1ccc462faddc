//! Structural checks of any ONNX file: one table, a stable code each.
//!
//! Every check sees the whole file and reports all that it finds, each with its place. The
//! table holds what `onnx.checker` refuses with its full check, as errors, and what its users
//! miss, as warnings and notes. Payloads of weights are read once, where they lie.

mod attributes;
mod bodies;
mod functions;
mod graph;
mod model;
mod operators;
mod privacy;
mod subject;
mod tensors;
mod types;
mod weights;

use std::path::Path;

use emo_proto::file::OnnxFile;

pub use crate::finding::{Finding, Severity};
pub use subject::Subject;

/// A row of the table.
#[derive(Debug)]
pub struct Check {
    /// Stable and kebab-case: what users allow, deny and search for.
    pub code: &'static str,
    pub severity: Severity,
    /// What holds for a file that passes, or what is wrong with one that does not: one sentence.
    pub what: &'static str,
    pub run: fn(&Subject, &mut Findings),
}

/// What a node's operator is cannot be told, so neither can whether the node is legal.
pub const UNDECIDED: &str = "unjudged-operator";

const FAMILIES: [&[Check]; 10] = [
    model::CHECKS,
    graph::CHECKS,
    operators::CHECKS,
    attributes::CHECKS,
    bodies::CHECKS,
    functions::CHECKS,
    tensors::CHECKS,
    types::CHECKS,
    weights::CHECKS,
    privacy::CHECKS,
];

/// Every check, by family.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    FAMILIES.into_iter().flatten()
}

/// A file may break one rule a million times; so many findings of a code say enough.
const MOST_FINDINGS: usize = 1000;

/// Where a check puts what it finds.
#[derive(Debug)]
pub struct Findings {
    check: &'static Check,
    list: Vec<Finding>,
    of_check: usize,
}

impl Findings {
    /// `place` is a node, value or tensor, empty for the file; `message` says what was expected,
    /// what was found and what to do next.
    pub fn add(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.of_check += 1;
        if self.of_check <= MOST_FINDINGS {
            self.push(place.into(), message.into());
        }
    }

    /// Whether more findings of this check would be counted alone: then their words need no care.
    fn is_full(&self) -> bool {
        self.of_check >= MOST_FINDINGS
    }

    fn push(&mut self, place: String, message: String) {
        let Check { code, severity, .. } = *self.check;
        self.list.push(Finding { code, severity, place, message, file: None });
    }

    fn run(&mut self, check: &'static Check, subject: &Subject) {
        (self.check, self.of_check) = (check, 0);
        (check.run)(subject, self);
        if let Some(more) = self.of_check.checked_sub(MOST_FINDINGS).filter(|more| *more > 0) {
            self.push(String::new(), format!("{more} more findings of this code are left out"));
        }
    }
}

/// Runs every check over `file`; `folder` is where it lies and its external data with it.
///
/// Errors come first, then warnings, then notes, each in the table's order and the file's.
#[must_use]
pub fn check(file: &OnnxFile, folder: Option<&Path>) -> Vec<Finding> {
    run(checks(), file, folder)
}

/// The same without the checks that read the elements of weights: no gigabyte is touched.
#[must_use]
pub fn structure(file: &OnnxFile, folder: Option<&Path>) -> Vec<Finding> {
    let reads = |check: &&Check| weights::CHECKS.iter().any(|other| other.code == check.code);
    run(checks().filter(|check| !reads(check)), file, folder)
}

/// The checks that [`structure`] leaves out.
#[must_use]
pub fn weights(file: &OnnxFile, folder: Option<&Path>) -> Vec<Finding> {
    run(weights::CHECKS.iter(), file, folder)
}

fn run(checks: impl Iterator<Item = &'static Check>, file: &OnnxFile, folder: Option<&Path>) -> Vec<Finding> {
    let subject = Subject::new(file, folder);
    let mut findings = Findings { check: &model::CHECKS[0], list: Vec::new(), of_check: 0 };
    for check in checks {
        findings.run(check, &subject);
    }
    findings.list.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings.list
}

/// Letters of a name that may be a slip of another: comparing takes its length times the other's.
const LONGEST_SLIP: usize = 100;

/// What a nearest known name may be: for a message.
fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known = known.filter(|_| name.len() <= LONGEST_SLIP);
    let near = known.map(|k| (strsim::jaro_winkler(name, k), k)).filter(|(score, _)| *score > 0.85);
    near.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))
        .map_or_else(String::new, |(_, k)| format!("; is it {k}?"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use emo_proto::tensor::External;
    use emo_proto::{GraphProto, Message as _, ModelProto, NodeProto};

    use super::*;

    /// Nodes of an operator that nobody knows, each of which breaks several rules.
    fn broken(nodes: usize) -> Vec<Finding> {
        let node = |i: usize| NodeProto {
            op_type: Some("Unheard".into()),
            input: vec![format!("nothing{i}")],
            output: vec![format!("v{i}")],
            ..Default::default()
        };
        let graph = GraphProto { node: (0..nodes).map(node).collect(), ..Default::default() };
        let model = ModelProto { graph: Some(graph), ..Default::default() };
        check(&OnnxFile::from_bytes(model.encode_to_vec().into(), External::none()).unwrap(), None)
    }

    #[test]
    fn findings_of_a_code_are_listed_up_to_a_number_and_counted_beyond() {
        let codes = |findings: &[Finding]| {
            let mut codes: HashMap<&str, usize> = HashMap::new();
            findings.iter().for_each(|finding| *codes.entry(finding.code).or_default() += 1);
            codes
        };
        let more = "7 more findings of this code are left out";
        let (whole, cut) = (broken(MOST_FINDINGS), broken(MOST_FINDINGS + 7));
        assert!(!whole.iter().any(|finding| finding.message.contains("left out")));
        let full: Vec<&str> =
            codes(&whole).into_iter().filter(|(_, n)| *n == MOST_FINDINGS).map(|(code, _)| code).collect();
        assert!(full.len() > 1, "several rules are broken by every node: {:?}", codes(&whole));
        for code in full {
            let of_code: Vec<&Finding> = cut.iter().filter(|finding| finding.code == code).collect();
            assert_eq!(of_code.len(), MOST_FINDINGS + 1, "{code}");
            let last = of_code.last().unwrap();
            assert_eq!((last.place.as_str(), last.message.as_str()), ("", more), "{code}");
        }
    }
}
