//! Counts of a file: parameters, multiply-adds, FLOPs, bytes; by node and in total.
//!
//! Weights are never read: a file's headers and its graph tell all of it.

mod account;
mod explain;
mod group;
mod scope;
mod sizes;
mod storage;

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use emo_proto::file::OnnxFile;
use emo_proto::tensor_proto::DataType;
use emo_proto::{ModelProto, ValueInfoProto};
use serde::Serialize;

use crate::cost::{Cost, Work};
use crate::fact::Fact;
use crate::finding::{Finding, Severity};
use crate::infer::{Bindings, Inference, NodeFacts, infer, infer_file};
use crate::memory::{self, Peak};
use crate::recent::Recent;
use crate::sym::Expr;

pub use crate::infer::inputs;
pub use crate::sym::estimate;
pub use account::{Account, Entry};
pub use explain::{Difference, Explanation, Rule, explain};
pub use group::{By, Group, groups};
pub use scope::{block, scope};
pub use sizes::{Sizes, open_names};
pub use storage::{Storage, Stored, storage};

/// The code of a node that could not be counted.
pub const UNCOUNTED: &str = "uncounted";

/// What a part of a file holds and does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Learnable parameters: elements of float constants, told by how they are used and made.
    pub params: Expr,
    #[serde(flatten)]
    pub cost: Cost,
}

/// A node and what is to be said of its counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    pub node: String,
    pub operator: String,
    pub reason: String,
}

/// An input or output of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    pub name: String,
    /// The element type as ONNX spells it, in lower case.
    pub dtype: String,
    /// `None` where not even the number of axes is known.
    pub shape: Option<Vec<Expr>>,
}

/// What is counted of one node.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it is: its name, behind the bodies and functions that it lies in.
    pub node: Box<str>,
    what: Arc<What>,
}

/// The same of several nodes.
#[derive(Debug, PartialEq)]
pub struct What {
    /// The operator, behind its domain where that is not ONNX's own: `com.microsoft.Gelu`.
    pub operator: Arc<str>,
    /// The module path, dotted; empty where the file does not tell it.
    pub scope: Box<str>,
    pub counts: Counts,
    /// Elements written.
    pub activations: Expr,
    pub work: Arc<Work>,
}

impl Deref for Part {
    type Target = What;

    fn deref(&self) -> &What {
        &self.what
    }
}

/// The counts of a file.
#[derive(Debug, Clone, Serialize)]
pub struct Audit {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// Versions of operator sets by domain, ONNX's own called `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    pub ir_version: i64,
    /// By block of EMO, in network order: `stage0.0`, …, `norm`, `head`; empty for other models.
    pub blocks: Vec<(String, Counts)>,
    pub totals: Counts,
    /// Where this is not empty the totals are lower bounds.
    pub uncounted: Vec<Remark>,
    /// What was decided so that a node could be counted, for its reader to know.
    pub assumptions: Vec<Remark>,
    /// Elements of float initializers, running statistics and all.
    pub float_initializers: Expr,
    /// Where that sum and the parameters part.
    pub account: Account,
    pub nodes: usize,
    pub highest_rank: usize,
    /// A value of this rank.
    pub highest_rank_at: Option<String>,
    pub stored: Storage,
    /// Elements that nodes write, but for reshapes and constants.
    pub activations: Expr,
    pub peak_memory: Peak,
    /// Bytes that nodes read and write, every operand and weight from memory each time.
    pub traffic: Expr,
    /// FLOPs a byte of traffic, where both are numbers.
    pub intensity: Option<f64>,
    /// Nodes by operator, the most frequent first.
    pub operators: Vec<(String, usize)>,
    /// Values that nodes write, by rank.
    pub ranks: BTreeMap<usize, usize>,
    /// Values of unknown shape; where there are some, `activations` and `traffic` are lower bounds.
    pub unknown_shapes: usize,
    #[serde(skip)]
    pub parts: Vec<Part>,
}

/// Counts `model` with the named dimensions that `bindings` fixes.
#[must_use]
pub fn audit(model: &ModelProto, bindings: &Bindings) -> Audit {
    tally(model, &infer(model, bindings))
}

/// The same for a file: shapes that it keeps in external data are read where they are there.
#[must_use]
pub fn audit_file(file: &OnnxFile, bindings: &Bindings) -> Audit {
    tally(&file.model, &infer_file(file, bindings))
}

/// The same of a walk that is done.
#[must_use]
#[expect(clippy::redundant_closure_for_method_calls, reason = "the method itself is of one lifetime only")]
pub fn tally(model: &ModelProto, inference: &Inference) -> Audit {
    let peak_memory = memory::peak(model, inference);
    let parts = parts(inference);
    let mut totals = Counts::default();
    parts.iter().for_each(|part| totals.add(&part.counts));
    let written = || inference.nodes.iter().flat_map(NodeFacts::written).filter(|o| o.source.is_none());
    let mut ranks = BTreeMap::new();
    written().filter_map(Fact::rank).for_each(|rank| *ranks.entry(rank).or_default() += 1);
    let traffic: Expr = inference.nodes.iter().map(|n| moved(n, inference)).sum();
    let intensity = match (totals.cost.flops.count(), traffic.count()) {
        (Some(flops), Some(bytes)) if bytes > 0 => Some(flops as f64 / bytes as f64),
        _ => None,
    };
    let graph = model.graph.as_ref();
    Audit {
        inputs: graph.map_or(Vec::new(), |graph| inputs(graph).map(|v| port(v, inference)).collect()),
        outputs: graph.map_or(Vec::new(), |graph| graph.output.iter().map(|v| port(v, inference)).collect()),
        opsets: opsets(model),
        ir_version: model.ir_version(),
        blocks: group::blocks(&parts),
        totals,
        uncounted: remarks(inference, |n| n.problem()),
        assumptions: remarks(inference, |n| n.note()),
        float_initializers: account::float_initializers(model),
        account: account::account(model, inference),
        nodes: inference.nodes.len(),
        highest_rank: inference.highest_rank().map_or(0, |(rank, _)| rank),
        highest_rank_at: inference.highest_rank().map(|(_, value)| value.to_owned()),
        stored: storage(model),
        activations: parts.iter().map(|part| part.activations.clone()).sum(),
        peak_memory,
        traffic,
        intensity,
        operators: histogram(&parts),
        ranks,
        unknown_shapes: written().filter(|o| !o.count().is_known()).count(),
        parts,
    }
}

/// The version of each domain; of several imports the highest binds.
fn opsets(model: &ModelProto) -> BTreeMap<String, i64> {
    let mut opsets = BTreeMap::new();
    for set in &model.opset_import {
        let version = opsets.entry(domain(set.domain()).to_owned()).or_insert(set.version());
        *version = set.version().max(*version);
    }
    opsets
}

fn port(value: &ValueInfoProto, inference: &Inference) -> Port {
    let fact = inference.values.get(value.name());
    let dtype = fact.map_or(DataType::Undefined, |fact| fact.dtype).as_str_name().to_lowercase();
    let shape = fact.and_then(|fact| fact.dims.as_ref().ok().cloned());
    Port { name: value.name().to_owned(), dtype, shape }
}

fn domain(domain: &str) -> &str {
    if domain.is_empty() { "ai.onnx" } else { domain }
}

/// The parts of all nodes; what is said of many alike is kept once.
fn parts(inference: &Inference) -> Vec<Part> {
    let mut parts = Vec::with_capacity(inference.nodes.len());
    let mut recent = Recent::default();
    let mut operators: HashMap<(&str, &str), Arc<str>> = HashMap::new();
    for n in &inference.nodes {
        let (domain, name) = (domain(n.node.domain()), n.node.op_type());
        let operator = operators.entry((domain, name)).or_insert_with(|| match domain {
            "ai.onnx" => name.into(),
            domain => format!("{domain}.{name}").into(),
        });
        let what = recent.shared(what(n, operator.clone(), inference));
        parts.push(Part { node: n.place().into(), what });
    }
    parts
}

fn what(n: &NodeFacts, operator: Arc<str>, inference: &Inference) -> What {
    let weights = || n.weights().iter().filter_map(|&index| inference.constants.get(index));
    let written = n.written().filter(|o| o.source.is_none() && !memory::is_view(n.node));
    let activations: Expr = written.map(|o| known(&o.count())).sum();
    let scope = scope(n.node, weights().map(|constant| constant.name.as_str()));
    let Cost { macs, flops, fvcore, mmcv } = &*n.cost;
    let counts = Counts {
        params: known(&weights().map(|constant| constant.parameters.clone()).sum()),
        cost: Cost { macs: known(macs), flops: known(flops), fvcore: known(fvcore), mmcv: known(mmcv) },
    };
    What {
        operator,
        scope: scope.into(),
        counts,
        activations: known(&(&activations * &n.multiplicity)),
        work: n.work.clone(),
    }
}

/// What is known of a count: all of it, or nothing. What is not known is reported beside it.
fn known(count: &Expr) -> Expr {
    if count.is_known() { count.clone() } else { 0.into() }
}

/// The bytes that a node reads and writes; none where constants decide what it writes.
fn moved(n: &NodeFacts, inference: &Inference) -> Expr {
    if memory::is_view(n.node) || n.outputs.iter().all(|o| o.source.is_some()) {
        return 0.into();
    }
    let read = n.node.input.iter().enumerate().filter_map(|(operand, name)| match n.scope {
        0 => inference.read_at(n, operand, &inference.values).and_then(|place| inference.values.at(place)),
        _ => meant(inference, n, name),
    });
    let bytes: Expr = read.chain(n.written()).map(|fact| known(&memory::bytes(fact))).sum();
    known(&(&bytes * &n.multiplicity))
}

/// The value that a node means: a body sees what is around it, a function what it is given.
fn meant<'a>(inference: &'a Inference, n: &NodeFacts, name: &str) -> Option<&'a Fact> {
    let mut scope = n.scope;
    while let Some(body) = inference.body(scope) {
        if let Some(fact) = body.values.get(name) {
            return Some(fact);
        }
        if body.call.is_some() {
            return None;
        }
        scope = body.around;
    }
    inference.values.get(name)
}

fn histogram(parts: &[Part]) -> Vec<(String, usize)> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    parts.iter().for_each(|part| *count.entry(&part.operator).or_default() += 1);
    let mut sorted: Vec<_> = count.into_iter().map(|(operator, n)| (operator.to_owned(), n)).collect();
    sorted.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    sorted
}

fn remarks(inference: &Inference, of: impl for<'n> Fn(&'n NodeFacts<'_>) -> Option<&'n str>) -> Vec<Remark> {
    let found = inference.nodes.iter().filter_map(|n| Some((n, of(n)?.to_owned())));
    found
        .map(|(n, reason)| Remark { node: n.place(), operator: n.node.op_type().to_owned(), reason })
        .collect()
}

impl Audit {
    /// Whether the totals leave something out.
    #[must_use]
    pub fn is_lower_bound(&self) -> bool {
        !self.uncounted.is_empty()
    }

    /// A finding for every node that could not be counted, and a note where something was assumed.
    #[must_use]
    pub fn findings(&self, file: &str) -> Vec<Finding> {
        let finding = |code, severity, remark: &Remark, message| Finding {
            code,
            severity,
            place: format!("node \"{}\" ({})", remark.node, remark.operator),
            message,
            file: Some(file.to_owned()),
        };
        let uncounted = self.uncounted.iter().map(|remark| {
            let message = format!("expected a count, found none: {}", remark.reason);
            finding(UNCOUNTED, Severity::Open, remark, message)
        });
        let assumed = self
            .assumptions
            .iter()
            .map(|remark| finding("assumed", Severity::Note, remark, remark.reason.clone()));
        uncounted.chain(assumed).collect()
    }

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

    /// Every count with its name: the parameters, then a cost for each convention.
    #[must_use]
    pub fn figures(&self) -> [(&'static str, &Expr); 5] {
        let Cost { macs, flops, fvcore, mmcv } = &self.cost;
        [("params", &self.params), ("macs", macs), ("flops", flops), ("fvcore", fvcore), ("mmcv", mmcv)]
    }
}
