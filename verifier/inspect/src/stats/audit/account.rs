//! Why the parameters are not the sum of the float initializers, to the digit.

use std::collections::{BTreeMap, HashMap};

use emo_proto::ModelProto;
use serde::Serialize;

use crate::fact::Fact;
use crate::infer::{Constant, Inference, NodeFacts};
use crate::ops::Ctx;
use crate::sym::Expr;

/// Tensors of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub what: &'static str,
    pub tensors: usize,
    pub elements: Expr,
}

/// The float initializers, less what is no parameter, and what is one beside them: the parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Account {
    /// Elements of float initializers of the main graph.
    pub float_initializers: Expr,
    pub left_out: Vec<Entry>,
    pub added: Vec<Entry>,
    pub parameters: Expr,
    /// Where the module that a file was made from may have more: tensors that several layers read, which
    /// count once, and biases that a folded norm may have left.
    pub notes: Vec<Entry>,
}

/// What several nodes read as a weight.
const SHARED: &str = "more if each reader of a shared tensor had its own";
/// A norm has a scale and a shift; folded into a convolution it leaves a bias.
const FOLDED: &str = "more if each bias of a convolution is a folded norm's";

/// Exporters write the biases of positions out, an element for each pair of a window's places.
const POSITIONS: &str = "less if each bias of attention scores is a table of relative positions written out";
/// What is the same for every input may be written out for each of a batch.
const BATCH: &str = "less if each tensor that is joined to a batch is one row written out";
/// A norm whose figures are frozen is a product and a sum.
const FROZEN: &str = "less if each product and sum after a convolution is a frozen norm";
/// A table and its transpose are two tensors where an exporter made one of the other.
const TIED: &str = "less if a table that ids look up and a product of its extents are one";

/// Tables and products that are compared with each other.
const MOST_TABLES: usize = 1 << 10;

#[derive(Default)]
struct Tally(BTreeMap<&'static str, (usize, Expr)>);

impl Tally {
    fn add(&mut self, what: &'static str, elements: &Expr) {
        let (tensors, sum) = self.0.entry(what).or_default();
        (*tensors, *sum) = (*tensors + 1, &*sum + elements);
    }

    fn entries(self) -> Vec<Entry> {
        let entry = |(what, (tensors, elements))| Entry { what, tensors, elements };
        self.0.into_iter().map(entry).collect()
    }
}

/// Elements of float initializers, running statistics and all.
pub(super) fn float_initializers(model: &ModelProto) -> Expr {
    let initializers = model.graph.iter().flat_map(|g| &g.initializer);
    initializers.map(Ctx::tensor).filter(Fact::is_float).map(|fact| fact.count()).sum()
}

pub(super) fn account(model: &ModelProto, inference: &Inference) -> Account {
    let initializers = model.graph.as_ref().map_or(0, |graph| graph.initializer.len());
    let (mut left_out, mut added, mut notes) = (Tally::default(), Tally::default(), Tally::default());
    for (index, constant) in inference.constants.iter().enumerate() {
        let counted = index < initializers && constant.fact.is_float();
        match (counted, constant.is_weight) {
            (true, false) => left_out.add(constant.kind(), &constant.fact.count()),
            (false, true) => added.add(constant.kind(), &constant.parameters),
            _ => {}
        }
        if constant.is_weight && constant.readers > 1 {
            notes.add(SHARED, &(&constant.parameters * (constant.readers as i64 - 1)));
        }
    }
    positions(inference, &mut notes);
    tied(inference, &mut notes);
    joined(inference, &mut notes);
    frozen(inference, &mut notes);
    let norm = |op: &str| matches!(op, "BatchNormalization" | "InstanceNormalization" | "GroupNormalization");
    if !inference.nodes.iter().any(|facts| norm(facts.node.op_type())) {
        folded(inference, &mut notes);
    }
    let weights = inference.constants.iter().filter(|constant| constant.is_weight);
    Account {
        float_initializers: float_initializers(model),
        left_out: left_out.entries(),
        added: added.entries(),
        parameters: weights.map(|constant| constant.parameters.clone()).sum(),
        notes: notes.entries(),
    }
}

/// What biases `[heads, N, N]` of windows of `w × w` places have beyond tables of `(2w - 1)²` each.
fn positions(inference: &Inference, notes: &mut Tally) {
    for constant in inference.constants.iter().filter(|c| c.is_weight && c.is_bias_of_scores) {
        let dims = constant.fact.dims.as_deref().unwrap_or_default();
        let [.., heads, n, m] = dims else { continue };
        let Some((heads, n)) = heads.number().zip(n.number().filter(|_| n == m)) else { continue };
        // A class token has three places of its own: to it, from it, to itself.
        let side = |n: i64| (1..=1 << 12).find(|w| w * w == n);
        let table = side(n).map(|w| (2 * w - 1).pow(2)).or(side(n - 1).map(|w| (2 * w - 1).pow(2) + 3));
        if let Some(table) = table.filter(|table| *table < n.saturating_mul(n)) {
            notes.add(POSITIONS, &(Expr::Number(heads) * (n * n - table)));
        }
    }
}

/// What a `Concat` joins to data of more than one input.
fn joined(inference: &Inference, notes: &mut Tally) {
    for facts in inference.nodes.iter().filter(|facts| facts.node.op_type() == "Concat") {
        let batch = |fact: &Fact| fact.dims.as_ref().ok().and_then(|dims| dims.first()?.number());
        let Some(all) = facts.written().next().and_then(batch).filter(|all| *all > 1) else { continue };
        for &at in facts.weights() {
            let constant = &inference.constants[at];
            if batch(&constant.fact) == Some(all)
                && let Some(row) = constant.parameters.exact_div(&Expr::Number(all))
            {
                notes.add(BATCH, &(&constant.parameters - &row));
            }
        }
    }
}

/// Convolution, product, sum, each factor and summand a number a channel.
fn frozen(inference: &Inference, notes: &mut Tally) {
    if !inference.nodes.iter().any(|facts| facts.node.op_type() == "Conv") {
        return;
    }
    let writers: HashMap<(usize, &str), &NodeFacts> = inference
        .nodes
        .iter()
        .flat_map(|facts| facts.node.output.iter().map(move |name| ((facts.scope, name.as_str()), facts)))
        .collect();
    let reads = |facts: &NodeFacts, operator: &str| {
        facts
            .node
            .input
            .iter()
            .filter_map(|name| writers.get(&(facts.scope, name.as_str())).copied())
            .find(|before| before.node.op_type() == operator)
    };
    let channels = |facts: &NodeFacts| -> Vec<usize> {
        let wide = |dims: &[Expr]| dims.iter().filter(|dim| !dim.is(1)).count() <= 1;
        let plain = |at: &&usize| inference.constants[**at].fact.dims.as_deref().is_ok_and(wide);
        facts.weights().iter().filter(plain).copied().collect()
    };
    for sum in inference.nodes.iter().filter(|facts| facts.node.op_type() == "Add") {
        let Some(product) = reads(sum, "Mul").filter(|product| reads(product, "Conv").is_some()) else {
            continue;
        };
        let (scale, shift) = (channels(product), channels(sum));
        if !scale.is_empty() && !shift.is_empty() {
            let all = scale.iter().chain(&shift).map(|&at| &inference.constants[at].parameters);
            all.for_each(|parameters| notes.add(FROZEN, parameters));
        }
    }
}

/// Tables of ids whose transposes are weights, too.
fn tied(inference: &Inference, notes: &mut Tally) {
    let read = |operators: &[&str]| -> Vec<(usize, &[Expr])> {
        let nodes = inference.nodes.iter().filter(|facts| operators.contains(&facts.node.op_type()));
        let weights = nodes.flat_map(NodeFacts::weights);
        weights
            .filter_map(|&at| Some((at, inference.constants[at].fact.dims.as_deref().ok()?)))
            .filter(|(_, dims)| dims.len() == 2)
            .take(MOST_TABLES)
            .collect()
    };
    let products = read(&["MatMul", "Gemm"]);
    for (table, dims) in read(&["Gather"]) {
        let twin = |(_, other): &&(usize, &[Expr])| *other == dims || other.iter().rev().eq(dims);
        if products.iter().find(twin).is_some_and(|(at, _)| *at != table) {
            notes.add(TIED, &inference.constants[table].parameters);
        }
    }
}

/// The biases of convolutions.
fn folded(inference: &Inference, notes: &mut Tally) {
    for facts in &inference.nodes {
        if facts.node.op_type() != "Conv" || facts.node.input.get(2).is_none_or(String::is_empty) {
            continue;
        }
        let channels = |constant: &&Constant| constant.fact.rank() == Some(1);
        let bias = facts.weights().iter().filter_map(|&at| inference.constants.get(at)).find(channels);
        if let Some(bias) = bias {
            notes.add(FOLDED, &bias.parameters);
        }
    }
}

impl Account {
    /// Whether the parameters are the float initializers, each and no other.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.left_out.is_empty() && self.added.is_empty()
    }
}
