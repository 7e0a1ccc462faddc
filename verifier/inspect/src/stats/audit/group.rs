//! Counts by operator, by node, by module, by block.

use std::collections::HashMap;

use serde::Serialize;

use super::scope::{ancestors, block, is_staged};
use super::{Audit, Counts, Part, estimate};
use crate::sym::Expr;

/// What counts are gathered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Operators, the most expensive first.
    Op,
    /// Nodes, as the file has them.
    Node,
    /// Module paths to this depth, each with all that lies below it.
    Scope { depth: usize },
    /// Blocks of EMO.
    Block,
}

impl By {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            By::Op => "op",
            By::Node => "node",
            By::Scope { .. } => "scope",
            By::Block => "block",
        }
    }
}

/// The counts of some nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Group {
    pub name: String,
    /// The operator that all of the nodes are of, if they are of one.
    pub operator: Option<String>,
    pub nodes: usize,
    #[serde(flatten)]
    pub counts: Counts,
    /// Elements written.
    pub activations: Expr,
}

/// What nodes without a module path are gathered under.
const ELSEWHERE: &str = "(elsewhere)";

/// The counts of `audit`, gathered. By block it is empty where the model has none of EMO's.
#[must_use]
pub fn groups(audit: &Audit, by: By) -> Vec<Group> {
    let parts = audit.parts.as_slice();
    match by {
        By::Op => {
            let mut groups = gather(parts, |part| vec![&*part.operator]);
            groups.sort_by_key(|g| {
                let cost = |e: &Expr| std::cmp::Reverse(estimate(e));
                let Counts { params, cost: all } = &g.counts;
                (cost(&all.fvcore), cost(params), std::cmp::Reverse(g.nodes), g.name.clone())
            });
            groups
        }
        By::Node => gather_each(parts),
        By::Scope { depth } => {
            let mut groups = gather(parts, |part| match &*part.scope {
                "" => vec![ELSEWHERE],
                scope => ancestors(scope, depth.max(1)).collect(),
            });
            in_tree_order(&mut groups);
            groups
        }
        By::Block if !is_emo(parts) => Vec::new(),
        By::Block => gather(parts, |part| vec![block_of(part)]),
    }
}

/// The counts by block, of EMO alone, and of the blocks alone that hold or cost something.
pub(super) fn blocks(parts: &[Part]) -> Vec<(String, Counts)> {
    if !is_emo(parts) {
        return Vec::new();
    }
    let counted = parts.iter().filter(|part| part.counts != Counts::default());
    gather(counted, |part| vec![block_of(part)]).into_iter().map(|g| (g.name, g.counts)).collect()
}

fn block_of(part: &Part) -> &str {
    if part.scope.is_empty() { ELSEWHERE } else { block(&part.scope) }
}

fn is_emo(parts: &[Part]) -> bool {
    parts.iter().any(|part| is_staged(&part.scope))
}

/// Groups in the order of their first nodes.
fn gather<'a>(
    parts: impl IntoIterator<Item = &'a Part>,
    keys: impl Fn(&'a Part) -> Vec<&'a str>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut index: HashMap<&str, usize> = HashMap::new();
    for part in parts {
        for key in keys(part) {
            let at = *index.entry(key).or_insert_with(|| {
                let operator = Some(part.operator.to_string());
                groups.push(Group { name: key.to_owned(), operator, ..Group::default() });
                groups.len() - 1
            });
            groups[at].add(part);
        }
    }
    groups
}

fn gather_each(parts: &[Part]) -> Vec<Group> {
    let group = |part: &Part| {
        let operator = Some(part.operator.to_string());
        let mut group = Group { name: part.node.to_string(), operator, ..Group::default() };
        group.add(part);
        group
    };
    parts.iter().map(group).collect()
}

/// Every module directly before what lies in it, modules in the order of their first nodes.
fn in_tree_order(groups: &mut [Group]) {
    let first: HashMap<String, usize> = groups.iter().enumerate().map(|(i, g)| (g.name.clone(), i)).collect();
    groups.sort_by_cached_key(|group| {
        ancestors(&group.name, usize::MAX).map(|path| first.get(path).copied()).collect::<Vec<_>>()
    });
}

impl Group {
    fn add(&mut self, part: &Part) {
        self.nodes += 1;
        self.counts.add(&part.counts);
        self.activations = &self.activations + &part.activations;
        if self.operator.as_deref() != Some(&part.operator) {
            self.operator = None;
        }
    }
}
