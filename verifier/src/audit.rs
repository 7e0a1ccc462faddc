//! Counts of a file: parameters, multiply-adds, FLOPs, by node, by block, in total.

use std::collections::BTreeMap;

use emo_proto::ModelProto;
use serde::Serialize;

use crate::cost::Cost;
use crate::infer::{Bindings, Inference, infer};
use crate::sym::Expr;

/// What a part of a file holds and does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Learnable parameters: elements of float constants that a weight operand reads.
    pub params: Expr,
    #[serde(flatten)]
    pub cost: Cost,
}

/// A node that could not be counted, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uncounted {
    pub node: String,
    pub operator: String,
    pub reason: String,
}

/// The counts of a file.
#[derive(Debug, Clone, Serialize)]
pub struct Audit {
    /// By block, in network order: `stage0.0`, …, `norm`, `head`.
    pub blocks: Vec<(String, Counts)>,
    pub totals: Counts,
    /// Where this is not empty the totals are lower bounds.
    pub uncounted: Vec<Uncounted>,
    /// Elements of float initializers, running statistics and all.
    pub float_initializers: Expr,
    pub nodes: usize,
    pub highest_rank: usize,
}

/// Counts `model` with the named dimensions that `bindings` fixes.
#[must_use]
pub fn audit(model: &ModelProto, bindings: &Bindings) -> Audit {
    let inference = infer(model, bindings);
    let mut blocks: Vec<(String, Counts)> = Vec::new();
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    let mut totals = Counts::default();
    for node in &inference.nodes {
        let params = node.weights.iter().map(|&leaf| inference.constants[leaf].fact.count()).sum();
        let counts = Counts { params, cost: node.cost.clone() };
        totals.add(&counts);
        if counts != Counts::default() {
            let block = block_of(node.node.name());
            let at = *index.entry(block).or_insert_with(|| {
                blocks.push((block.to_owned(), Counts::default()));
                blocks.len() - 1
            });
            blocks[at].1.add(&counts);
        }
    }
    Audit {
        blocks,
        totals,
        uncounted: uncounted(&inference),
        float_initializers: float_initializers(model),
        nodes: inference.nodes.len(),
        highest_rank: inference.highest_rank().map_or(0, |(rank, _)| rank),
    }
}

fn uncounted(inference: &Inference) -> Vec<Uncounted> {
    let found = inference.nodes.iter().filter_map(|n| Some((n, n.problem.clone()?)));
    found
        .map(|(n, reason)| Uncounted {
            node: n.node.name().to_owned(),
            operator: n.node.op_type().to_owned(),
            reason,
        })
        .collect()
}

fn float_initializers(model: &ModelProto) -> Expr {
    let initializers = model.graph.iter().flat_map(|g| &g.initializer);
    initializers
        .map(crate::ops::Ctx::tensor)
        .filter(super::fact::Fact::is_float)
        .map(|fact| fact.count())
        .sum()
}

/// The block that a module path lies in: `stage3.1` for `stage3.1.v.conv`, `head` for `head`.
fn block_of(path: &str) -> &str {
    let depth = if path.starts_with("stage") { 2 } else { 1 };
    path.match_indices('.').nth(depth - 1).map_or(path, |(end, _)| &path[..end])
}

impl Audit {
    /// Sums over the blocks of each stage, and `norm` and `head` as they are.
    #[must_use]
    pub fn stages(&self) -> Vec<(String, Counts)> {
        let mut stages: Vec<(String, Counts)> = Vec::new();
        for (block, counts) in &self.blocks {
            let stage = block.split('.').next().unwrap_or(block);
            match stages.last_mut().filter(|(name, _)| name == stage) {
                Some((_, sum)) => sum.add(counts),
                None => stages.push((stage.to_owned(), counts.clone())),
            }
        }
        stages
    }
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.params = &self.params + &other.params;
        self.cost += &other.cost;
    }
}
