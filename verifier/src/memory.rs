//! The memory that activations need while a graph runs.
//!
//! A value lives from the node that writes it to the last that reads it; the graph's inputs
//! live from the start to their last reader, its outputs to the end. What constants alone
//! decide is no activation. Reshapes share their operand's memory, nothing else is done in
//! place, nothing is fused, and a kernel's own scratch memory is not in it. A node with a body
//! takes what its dearest body takes, besides its own outputs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use emo_proto::tensor::bits;
use emo_proto::tensor_proto::DataType;
use emo_proto::{ModelProto, NodeProto, ValueInfoProto};
use serde::Serialize;

use crate::audit::{estimate, inputs};
use crate::fact::Fact;
use crate::infer::{Body, Inference, NodeFacts};
use crate::sym::Expr;

/// Operators that give the same elements another shape.
const VIEWS: [&str; 5] = ["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"];

/// An order in which a graph can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// As the file has the nodes.
    File,
    /// Of the nodes that can run, always the one that frees most.
    Greedy,
}

impl Order {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Order::File => "file",
            Order::Greedy => "greedy",
        }
    }
}

/// The most memory that activations take at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// `None` where a shape, and so its size, is unknown.
    pub bytes: Option<Expr>,
    /// The better of the orders tried.
    pub order: Order,
    /// The node during which the peak is met.
    pub at: String,
    /// Why there are no bytes.
    pub reason: Option<String>,
}

impl Peak {
    fn unknown(reason: String) -> Self {
        Peak { bytes: None, order: Order::File, at: String::new(), reason: Some(reason) }
    }
}

/// The bytes that a value takes, unknown with its shape.
#[must_use]
pub fn bytes(fact: &Fact) -> Expr {
    match bits(fact.dtype) {
        Some(bits) if bits % 8 == 0 => &fact.count() * (bits / 8) as i64,
        Some(bits) => (&fact.count() * bits as i64).ceil_div(&8.into()),
        None if fact.dims.is_err() => fact.count(),
        None if fact.dtype == DataType::String => Expr::unknown("strings have no fixed size"),
        None => Expr::unknown("an element type is unknown"),
    }
}

/// Whether the node gives the same elements another shape.
#[must_use]
pub fn is_view(node: &NodeProto) -> bool {
    matches!(node.domain(), "" | "ai.onnx") && VIEWS.contains(&node.op_type())
}

/// The peak over the order of the file and a greedy one, whichever is lower.
#[must_use]
pub fn peak(model: &ModelProto, inference: &Inference) -> Peak {
    let Some(graph) = &model.graph else { return Peak::unknown("there is no graph".to_owned()) };
    let mut nodes: HashMap<&str, Vec<&NodeFacts>> = HashMap::new();
    for facts in &inference.nodes {
        nodes.entry(&facts.path).or_default().push(facts);
    }
    let bodies = inference.bodies.iter().map(|body| (&*body.path, body)).collect();
    let given: Vec<&str> = inputs(graph).map(ValueInfoProto::name).collect();
    let kept: Vec<&str> = graph.output.iter().map(ValueInfoProto::name).collect();
    Memory { model, nodes, bodies }.peak("", &inference.values, &given, &kept)
}

/// The graph and its bodies, by path.
struct Memory<'a> {
    model: &'a ModelProto,
    nodes: HashMap<&'a str, Vec<&'a NodeFacts<'a>>>,
    bodies: HashMap<&'a str, &'a Body<'a>>,
}

impl Memory<'_> {
    /// The peak of the nodes at `path`: `given` are there from the start, `kept` to the end.
    fn peak(&self, path: &str, values: &HashMap<&str, Fact>, given: &[&str], kept: &[&str]) -> Peak {
        let nodes = self.nodes.get(path).map(Vec::as_slice).unwrap_or_default();
        let plan = Plan::of(nodes, values, given, kept, &|facts| self.scratch(facts));
        let sizes = plan.sizes.iter().chain(plan.steps.iter().map(|step| &step.scratch));
        if let Some(reason) = sizes.flat_map(Expr::reasons).next() {
            return Peak::unknown(reason.to_string());
        }
        let greedy = plan.greedy();
        if greedy.len() < plan.steps.len() {
            return Peak::unknown("nodes read each other's outputs in a circle".to_owned());
        }
        let (mut best, mut at) = plan.peak(&greedy);
        let mut order = Order::Greedy;
        if plan.is_sorted() {
            let file: Vec<usize> = (0..plan.steps.len()).collect();
            let (bytes, step) = plan.peak(&file);
            if !is_larger(&bytes, &best) {
                (best, at, order) = (bytes, step, Order::File);
            }
        }
        let at = nodes.get(at).map_or_else(String::new, |facts| facts.place());
        Peak { bytes: Some(best), order, at, reason: None }
    }

    /// What the dearest body of a node takes while it runs.
    fn scratch(&self, facts: &NodeFacts) -> Expr {
        let node = facts.node;
        let mut most = Expr::Number(0);
        let mut enter = |path: String, kept: Vec<&str>| {
            let Some(body) = self.bodies.get(path.as_str()) else { return };
            let runs = |facts: &&NodeFacts| !facts.multiplicity.is(0);
            if !self.nodes.get(path.as_str()).is_some_and(|nodes| nodes.iter().any(runs)) {
                return;
            }
            let peak = self.peak(&path, &body.values, &[], &kept);
            let taken = peak.bytes.unwrap_or_else(|| Expr::unknown(&peak.reason.unwrap_or_default()));
            most = most.larger(&taken);
        };
        for attribute in &node.attribute {
            if let Some(graph) = &attribute.g {
                let kept = graph.output.iter().map(ValueInfoProto::name).collect();
                enter(format!("{}/{}/", facts.place(), attribute.name()), kept);
            }
        }
        let called =
            self.model.functions.iter().find(|f| f.name() == node.op_type() && f.domain() == node.domain());
        if let Some(function) = called {
            enter(format!("{}/", facts.place()), function.output.iter().map(String::as_str).collect());
        }
        most
    }
}

/// Formulas are compared where every dimension is of a typical size.
fn is_larger(a: &Expr, b: &Expr) -> bool {
    match (a.number(), b.number()) {
        (Some(a), Some(b)) => a > b,
        _ => estimate(a) > estimate(b),
    }
}

/// What a node reads and writes, each once.
#[derive(Debug, Default)]
struct Step {
    reads: Vec<usize>,
    writes: Vec<usize>,
    /// The steps that must have run.
    after: Vec<usize>,
    /// Bytes that its bodies take.
    scratch: Expr,
}

/// Nodes as steps over buffers.
#[derive(Debug, Default)]
struct Plan {
    steps: Vec<Step>,
    sizes: Vec<Expr>,
    /// Buffers that are there from the start.
    given: Vec<usize>,
    /// How many steps read a buffer; one more if it is kept.
    readers: Vec<usize>,
}

impl Plan {
    fn of(
        nodes: &[&NodeFacts],
        values: &HashMap<&str, Fact>,
        given: &[&str],
        kept: &[&str],
        scratch: &dyn Fn(&NodeFacts) -> Expr,
    ) -> Self {
        let mut plan = Plan::default();
        let mut buffers: HashMap<&str, usize> = HashMap::new();
        let mut writers: HashMap<&str, usize> = HashMap::new();
        for &name in given {
            let buffer = plan.buffer(name, values);
            plan.given.push(buffer);
            buffers.insert(name, buffer);
        }
        for (i, facts) in nodes.iter().enumerate() {
            let viewed = facts.node.input.first().filter(|_| is_view(facts.node));
            let shared = viewed.and_then(|name| buffers.get(name.as_str())).copied();
            for output in facts.node.output.iter().filter(|name| !name.is_empty()) {
                let buffer = shared.unwrap_or_else(|| plan.buffer(output, values));
                buffers.insert(output, buffer);
                writers.insert(output, i);
            }
        }
        plan.readers = vec![0; plan.sizes.len()];
        for (i, facts) in nodes.iter().enumerate() {
            let mut step = Step { scratch: scratch(facts), ..Step::default() };
            for name in reads(facts.node) {
                step.reads.extend(buffers.get(name));
                step.after.extend(writers.get(name).filter(|&&writer| writer != i));
            }
            step.writes.extend(facts.node.output.iter().filter_map(|name| buffers.get(name.as_str())));
            for list in [&mut step.reads, &mut step.writes, &mut step.after] {
                list.sort_unstable();
                list.dedup();
            }
            step.writes.retain(|buffer| step.reads.binary_search(buffer).is_err());
            step.reads.iter().for_each(|&buffer| plan.readers[buffer] += 1);
            plan.steps.push(step);
        }
        kept.iter().filter_map(|name| buffers.get(name)).for_each(|&buffer| plan.readers[buffer] += 1);
        plan
    }

    fn buffer(&mut self, name: &str, values: &HashMap<&str, Fact>) -> usize {
        self.sizes.push(match values.get(name) {
            Some(fact) if fact.source.is_some() => 0.into(),
            Some(fact) => bytes(fact),
            None => Expr::unknown(&format!("{name} is not reached")),
        });
        self.sizes.len() - 1
    }

    fn is_sorted(&self) -> bool {
        self.steps.iter().enumerate().all(|(i, step)| step.after.iter().all(|&before| before < i))
    }

    /// The peak of an order, and the step at which it is met.
    fn peak(&self, order: &[usize]) -> (Expr, usize) {
        let mut left = self.readers.clone();
        let mut live: Expr = self.given.iter().map(|&buffer| self.sizes[buffer].clone()).sum();
        let (mut peak, mut at) = (live.clone(), order.first().copied().unwrap_or(0));
        for &i in order {
            let step = &self.steps[i];
            for &buffer in &step.writes {
                live = &live + &self.sizes[buffer];
            }
            let with_bodies = &live + &step.scratch;
            if is_larger(&with_bodies, &peak) {
                (peak, at) = (with_bodies, i);
            }
            for &buffer in &step.reads {
                left[buffer] -= 1;
            }
            let touched = step.reads.iter().chain(&step.writes);
            for &buffer in touched.filter(|&&buffer| left[buffer] == 0) {
                live = &live - &self.sizes[buffer];
            }
        }
        (peak, at)
    }

    /// An order that runs, of the nodes that can, the one whose end leaves the least memory;
    /// shorter than the graph where nodes wait for each other.
    fn greedy(&self) -> Vec<usize> {
        let sizes: Vec<i64> = self.sizes.iter().map(estimate).collect();
        let mut left = self.readers.clone();
        let mut waits: Vec<usize> = self.steps.iter().map(|step| step.after.len()).collect();
        let mut next: Vec<Vec<usize>> = vec![Vec::new(); self.steps.len()];
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.sizes.len()];
        for (i, step) in self.steps.iter().enumerate() {
            step.after.iter().for_each(|&before| next[before].push(i));
            step.reads.iter().for_each(|&buffer| readers[buffer].push(i));
        }
        let gain = |i: usize, left: &[usize]| {
            let step = &self.steps[i];
            let freed = step.reads.iter().filter(|&&buffer| left[buffer] == 1).map(|&b| sizes[b]);
            let kept = step.writes.iter().filter(|&&buffer| left[buffer] > 0).map(|&b| sizes[b]);
            freed.fold(0_i64, i64::saturating_add).saturating_sub(kept.fold(0, i64::saturating_add))
        };
        let ready = (0..self.steps.len()).filter(|&i| waits[i] == 0);
        let mut heap: BinaryHeap<(i64, Reverse<usize>)> =
            ready.map(|i| (gain(i, &left), Reverse(i))).collect();
        let mut done = vec![false; self.steps.len()];
        let mut order = Vec::with_capacity(self.steps.len());
        while let Some((_, Reverse(i))) = heap.pop() {
            // A step is there again with a better key when it becomes the last reader of a buffer.
            if std::mem::replace(&mut done[i], true) {
                continue;
            }
            order.push(i);
            for &after in &next[i] {
                waits[after] -= 1;
                if waits[after] == 0 {
                    heap.push((gain(after, &left), Reverse(after)));
                }
            }
            for &buffer in &self.steps[i].reads {
                left[buffer] -= 1;
                if left[buffer] == 1 {
                    let last = readers[buffer].iter().copied().find(|&reader| !done[reader]);
                    heap.extend(last.filter(|&r| waits[r] == 0).map(|r| (gain(r, &left), Reverse(r))));
                }
            }
        }
        order
    }
}

/// The values that a node reads, those that its bodies take from around them among them.
fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).collect();
    for attribute in &node.attribute {
        for body in attribute.g.iter().chain(&attribute.graphs) {
            names.extend(body.node.iter().flat_map(reads));
            names.extend(body.output.iter().map(ValueInfoProto::name));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use emo_proto::tensor_shape_proto::{Dimension, dimension::Value};
    use emo_proto::{GraphProto, OperatorSetIdProto, TensorShapeProto, TypeProto, type_proto};

    use super::*;
    use crate::infer::{Bindings, infer};

    fn node(op: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: Some(op.into()),
            name: Some(output.into()),
            input: input.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            ..Default::default()
        }
    }

    /// `[batch, 1]` of FLOAT.
    fn input(name: &str) -> ValueInfoProto {
        let dims = [Value::DimParam("batch".into()), Value::DimValue(1)];
        let dim = dims.map(|value| Dimension { value: Some(value), ..Default::default() }).into();
        let tensor = type_proto::Tensor {
            elem_type: Some(DataType::Float.into()),
            shape: Some(TensorShapeProto { dim }),
        };
        let value = Some(type_proto::Value::TensorType(tensor));
        let r#type = Some(TypeProto { value, ..Default::default() });
        ValueInfoProto { name: Some(name.into()), r#type, ..Default::default() }
    }

    /// `a` and `b` each blow `x` up to five times its size, and are added up to their own shape
    /// again. Run in turn, only one is large at a time: 20 of `a`, 4 of `x` and of `c`.
    #[test]
    fn the_better_order_is_found() {
        let wide = ["x"; 5];
        let mut concat = [node("Concat", &wide, "a"), node("Concat", &wide, "b")];
        for node in &mut concat {
            let axis =
                emo_proto::AttributeProto { name: Some("axis".into()), i: Some(1), ..Default::default() };
            node.attribute.push(axis);
        }
        let [a, b] = concat;
        let mean = |from: &str, to: &str| {
            let mut mean = node("ReduceMean", &[from], to);
            let axes =
                emo_proto::AttributeProto { name: Some("axes".into()), ints: vec![1], ..Default::default() };
            mean.attribute.push(axes);
            mean
        };
        let sum = node("Add", &["c", "d"], "y");
        let graph = GraphProto {
            input: vec![input("x")],
            output: vec![ValueInfoProto { name: Some("y".into()), ..Default::default() }],
            node: vec![a, b, node("Identity", &["a"], "a2"), mean("a2", "c"), mean("b", "d"), sum],
            ..Default::default()
        };
        let opset = OperatorSetIdProto { version: Some(13), ..Default::default() };
        let model = ModelProto { graph: Some(graph), opset_import: vec![opset], ..Default::default() };
        for (dims, expected) in
            [(Bindings::from([("batch".to_owned(), 3)]), "84"), (Bindings::new(), "28·batch")]
        {
            let peak = peak(&model, &infer(&model, &dims));
            assert_eq!(peak.bytes.map(|bytes| bytes.to_string()).as_deref(), Some(expected));
            assert_eq!((peak.order, peak.at.as_str()), (Order::Greedy, "c"));
        }
    }
}
