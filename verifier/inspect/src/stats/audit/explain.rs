//! Why conventions differ: operator by operator, the rule that each applies.

use std::collections::HashMap;

use serde::Serialize;

use super::Audit;
use crate::cost::{CONVENTIONS, Convention, Cost};
use crate::sym::Expr;

/// Nodes of one operator that every convention treats alike.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub operator: String,
    /// What the nodes do: `convolution`, `batch norm`.
    pub work: &'static str,
    pub nodes: usize,
    #[serde(flatten)]
    pub cost: Cost,
    /// What each convention counts of it, in the order of [`CONVENTIONS`].
    pub rules: Vec<Rule>,
}

/// What a convention counts of some work.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Rule {
    pub convention: &'static str,
    /// `2 an element`.
    pub how: String,
}

/// What a convention counts of some nodes beyond their multiply-adds.
#[derive(Debug, Clone)]
pub struct Difference<'a> {
    pub convention: &'static Convention,
    pub of: &'a Explanation,
    pub count: &'a Expr,
    /// The count less the multiply-adds.
    pub beyond: Expr,
    pub how: &'a str,
}

/// The nodes that at least one convention counts, those of one operator and rule together, in
/// the order of their first nodes.
#[must_use]
pub fn explain(audit: &Audit) -> Vec<Explanation> {
    let mut explanations: Vec<Explanation> = Vec::new();
    let mut index: HashMap<(&str, Vec<Rule>), usize> = HashMap::new();
    for part in audit.parts.iter().filter(|part| part.counts.cost != Cost::default()) {
        let rules: Vec<Rule> = CONVENTIONS
            .iter()
            .map(|c| Rule { convention: c.name, how: (c.rule)(&part.work).how.into_owned() })
            .collect();
        let at = *index.entry((&part.operator, rules.clone())).or_insert_with(|| {
            let (operator, work) = (part.operator.to_string(), part.work.kind());
            explanations.push(Explanation { operator, work, nodes: 0, cost: Cost::default(), rules });
            explanations.len() - 1
        });
        explanations[at].nodes += 1;
        explanations[at].cost += &part.counts.cost;
    }
    explanations
}

impl Explanation {
    /// Every convention's count beside the multiply-adds.
    pub fn differences(&self) -> impl Iterator<Item = Difference<'_>> {
        self.cost.each().into_iter().zip(&self.rules).map(|((convention, count), rule)| Difference {
            convention,
            of: self,
            count,
            beyond: count - &self.cost.macs,
            how: &rule.how,
        })
    }
}
