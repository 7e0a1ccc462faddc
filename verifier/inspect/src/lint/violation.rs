//! A rule that is broken, or that cannot be decided.

use emo_exporter::profile::{NodeFacts, Rule, instead};
use serde::{Serialize, Serializer};

use super::Lint;
use crate::finding::{Finding, Severity};
use crate::infer;

/// What kind of rule; stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    Opset,
    IrVersion,
    FreeShape,
    Batch,
    Type,
    Rank,
    Operator,
    Condition,
    Undecided,
}

/// Every code with what it stands for.
pub const CODES: [(Code, &str); 9] = [
    (Code::Opset, "the file is written in a newer opset than the profile"),
    (Code::IrVersion, "the file's format is newer than the profile's opset needs"),
    (Code::FreeShape, "a shape is free, and the profile takes fixed ones alone"),
    (Code::Batch, "an input has more images than the profile takes"),
    (Code::Type, "a value has an element type that the profile does not take"),
    (Code::Rank, "a value has more axes than the profile allows"),
    (Code::Operator, "the runtime has no such operator"),
    (Code::Condition, "the runtime has the operator, but not in this form"),
    (Code::Undecided, "what a rule asks for is not known before the graph runs"),
];

impl Code {
    /// `lint-rank`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Code::Opset => "lint-opset",
            Code::IrVersion => "lint-ir-version",
            Code::FreeShape => "lint-free-shape",
            Code::Batch => "lint-batch",
            Code::Type => "lint-dtype",
            Code::Rank => "lint-rank",
            Code::Operator => "lint-operator",
            Code::Condition => "lint-condition",
            Code::Undecided => "lint-undecided",
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A rule of a row that a file breaks, or that cannot be decided ([`Code::Undecided`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub code: Code,
    /// What is called so: the node with its path, the input; empty for the file as a whole.
    pub name: String,
    /// The node's operator; empty for what is no node.
    pub operator: String,
    /// What the row asks: `rank 4 at most`.
    pub rule: String,
    /// What the file has: `rank 6`.
    pub found: String,
    /// Who says so.
    pub source: &'static str,
    /// What to emit instead; `None` where nothing is known.
    pub instead: Option<String>,
}

/// How windows, and most else that is written with five axes and more, are moved with four.
const FOUR_AXES: &str = "four axes: those that stay neighbours are one, [B·C·h, n, w, n] by (1, 3, 0, 2)";

impl Violation {
    /// A violation of the file as a whole, to be filled in.
    pub(super) fn of_file(code: Code, source: &'static str) -> Self {
        let empty = String::new;
        let (name, operator, rule, found) = (empty(), empty(), empty(), empty());
        Self { code, name, operator, rule, found, source, instead: None }
    }

    /// A violation at a node, to be filled in.
    pub(super) fn of_node(facts: &infer::NodeFacts, code: Code, source: &'static str) -> Self {
        let operator = facts.node.op_type().to_owned();
        Self { name: facts.place(), operator, ..Self::of_file(code, source) }
    }

    pub(super) fn of_rule(facts: &infer::NodeFacts, node: &NodeFacts, rule: Rule) -> Self {
        let domain = match node.domain {
            "" | "ai.onnx" => String::new(),
            domain => format!("{domain}."),
        };
        let op = format!("{domain}{}", node.op);
        match rule {
            Rule::Operator { source } => Self {
                rule: "an operator of its list".to_owned(),
                found: op,
                instead: instead(node.op).map(ToOwned::to_owned),
                ..Self::of_node(facts, Code::Operator, source)
            },
            Rule::Condition { condition, source } => Self {
                rule: format!("{op} with {condition}"),
                found: condition.found(node),
                instead: Some(condition.instead()),
                ..Self::of_node(facts, Code::Condition, source)
            },
            Rule::Rank(highest) => Self {
                rule: format!("rank {} at most", highest.rank),
                found: match node.values().map(|v| v.shape.as_ref().map(Vec::len)).max() {
                    Some(Some(rank)) => format!("{op} of rank {rank}"),
                    _ => format!("{op} of unknown rank"),
                },
                instead: Some(FOUR_AXES.to_owned()),
                ..Self::of_node(facts, Code::Rank, highest.source)
            },
        }
    }

    /// Where in the file: `node "conv" (Conv)`, `input "images"`; empty for the file as a whole.
    #[must_use]
    pub fn place(&self) -> String {
        match (self.name.as_str(), self.operator.as_str()) {
            ("", "") => String::new(),
            (name, "") => format!("input {name:?}"),
            (name, operator) => format!("node {name:?} ({operator})"),
        }
    }

    /// Whether the rule cannot be decided.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.code == Code::Undecided
    }

    /// The finding of a profile's lint.
    #[must_use]
    pub fn finding(&self, profile: &str) -> Finding {
        let Self { rule, found, source, .. } = self;
        let advice = match (&self.instead, self.is_open()) {
            (_, true) => "; give the open sizes".to_owned(),
            (Some(instead), false) => format!("; emit {instead}"),
            (None, false) => format!("; the target {profile} lists what it takes"),
        };
        let verb = if self.is_open() { "it cannot be told from" } else { "found" };
        Finding {
            code: self.code.name(),
            severity: if self.is_open() { Severity::Open } else { Severity::Error },
            place: self.place(),
            message: format!("{profile} takes {rule} ({source}), {verb} {found}{advice}"),
            file: None,
        }
    }
}

/// Violations of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    /// The first of them.
    pub first: &'a Violation,
    pub count: usize,
}

impl Lint {
    /// Violations by rule and by what was found, the most frequent of each rule first.
    #[must_use]
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group> = Vec::new();
        let mut index = std::collections::HashMap::new();
        for violation in &self.violations {
            let key = (violation.code, &violation.rule, &violation.found, &violation.operator);
            let at = *index.entry(key).or_insert(groups.len());
            match groups.get_mut(at) {
                Some(group) => group.count += 1,
                None => groups.push(Group { first: violation, count: 1 }),
            }
        }
        groups.sort_by_key(|group| (group.first.code, std::cmp::Reverse(group.count)));
        groups
    }
}
