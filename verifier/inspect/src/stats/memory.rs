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

use crate::fact::Fact;
use crate::infer::{Body, Inference, Values, inputs};
use crate::sym::{Expr, estimate};

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
    let mut nodes: HashMap<usize, Vec<u32>> = HashMap::new();
    for (index, facts) in inference.nodes.iter().enumerate() {
        nodes.entry(facts.scope).or_default().push(index as u32);
    }
    let mut bodies: HashMap<usize, Vec<&Body>> = HashMap::new();
    for body in &inference.bodies {
        bodies.entry(body.holder).or_default().push(body);
    }
    let given: Vec<&str> = inputs(graph).map(ValueInfoProto::name).collect();
    let kept: Vec<&str> = graph.output.iter().map(ValueInfoProto::name).collect();
    Memory { inference, nodes, bodies }.peak(0, &inference.values, &given, &kept)
}

/// The graph and its bodies. Names do not tell them apart: a file may give one to many nodes.
struct Memory<'a> {
    inference: &'a Inference<'a>,
    /// By scope, their indices.
    nodes: HashMap<usize, Vec<u32>>,
    /// By the index of the node that holds them.
    bodies: HashMap<usize, Vec<&'a Body<'a>>>,
}

impl Memory<'_> {
    /// The peak of the nodes of a scope: `given` are there from the start, `kept` to the end.
    fn peak(&self, scope: usize, values: &Values, given: &[&str], kept: &[&str]) -> Peak {
        let nodes = self.nodes.get(&scope).map(Vec::as_slice).unwrap_or_default();
        let plan = Plan::of(nodes, self.inference, values, [given, kept], &|index| self.scratch(index));
        let sizes = plan.sizes.iter().chain(plan.scratch.values());
        if let Some(reason) = sizes.flat_map(Expr::reasons).next() {
            return Peak::unknown(reason.to_string());
        }
        let greedy = plan.greedy();
        if greedy.len() < plan.steps() {
            return Peak::unknown("nodes read each other's outputs in a circle".to_owned());
        }
        let (mut best, mut at) = plan.peak(greedy.iter().map(|&i| i as usize));
        let mut order = Order::Greedy;
        if plan.is_sorted() {
            let (bytes, step) = plan.peak(0..plan.steps());
            if !is_larger(&bytes, &best) {
                (best, at, order) = (bytes, step, Order::File);
            }
        }
        let at =
            nodes.get(at).map_or_else(String::new, |&index| self.inference.nodes[index as usize].place());
        Peak { bytes: Some(best), order, at, reason: None }
    }

    /// What the dearest body of a node takes while it runs.
    fn scratch(&self, holder: usize) -> Expr {
        let mut most = Expr::Number(0);
        for body in self.bodies.get(&holder).into_iter().flatten() {
            let runs = |&index: &u32| !self.inference.nodes[index as usize].multiplicity.is(0);
            if !self.nodes.get(&body.scope).is_some_and(|nodes| nodes.iter().any(runs)) {
                continue;
            }
            let kept: Vec<&str> = match (&body.call, body.graph) {
                (Some((function, _)), _) => function.output.iter().map(String::as_str).collect(),
                (None, graph) => graph.iter().flat_map(|g| &g.output).map(ValueInfoProto::name).collect(),
            };
            let peak = self.peak(body.scope, &body.values, &[], &kept);
            let taken = peak.bytes.unwrap_or_else(|| Expr::unknown(&peak.reason.unwrap_or_default()));
            most = most.larger(&taken);
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

/// Lists of small numbers, one after the other: a graph of a million nodes has several millions of them.
#[derive(Debug, Default)]
struct Lists {
    ends: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    fn push(&mut self, list: &[u32]) {
        self.items.extend(list);
        self.ends.push(self.items.len() as u32);
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn of(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.items[start as usize..self.ends[index] as usize]
    }

    /// The lists of those that have each of `items` numbers in theirs.
    fn turned(&self, items: usize) -> Self {
        let mut ends = vec![0_u32; items];
        self.items.iter().for_each(|&item| ends[item as usize] += 1);
        let mut end = 0;
        for count in &mut ends {
            end += std::mem::replace(count, end);
        }
        // Each end is a start until all of its list is there.
        let mut turned = vec![0; self.items.len()];
        for index in 0..self.len() {
            for &item in self.of(index) {
                turned[ends[item as usize] as usize] = index as u32;
                ends[item as usize] += 1;
            }
        }
        Self { ends, items: turned }
    }
}

/// Nodes as steps over buffers.
#[derive(Debug, Default)]
struct Plan {
    /// The buffers that a step reads, and those that it alone writes.
    reads: Lists,
    writes: Lists,
    /// The steps that must have run.
    after: Lists,
    /// Bytes that the bodies of a step take, where it has some.
    scratch: HashMap<usize, Expr>,
    /// Bytes of each buffer.
    sizes: Vec<Expr>,
    /// Buffers that are there from the start.
    given: Vec<u32>,
    /// How many steps read a buffer; one more if it is kept.
    readers: Vec<u32>,
}

/// No buffer, no step.
const NONE: u32 = u32::MAX;

impl Plan {
    fn of(
        nodes: &[u32],
        inference: &Inference,
        values: &Values,
        [given, kept]: [&[&str]; 2],
        scratch: &dyn Fn(usize) -> Expr,
    ) -> Self {
        let mut plan = Plan::default();
        // By the place of a value.
        let (mut buffers, mut writers) = (vec![NONE; values.len()], vec![NONE; values.len()]);
        for &name in given {
            let place = values.position(name);
            let buffer = plan.buffer(name, place.and_then(|at| values.at(at)));
            plan.given.push(buffer);
            place.into_iter().for_each(|at| buffers[at] = buffer);
        }
        let steps = || nodes.iter().map(|&index| &inference.nodes[index as usize]).enumerate();
        for (i, facts) in steps() {
            let viewed = !facts.node.input.is_empty() && is_view(facts.node);
            let viewed = viewed.then(|| inference.read_at(facts, 0, values)).flatten().map(|at| buffers[at]);
            for (index, output) in facts.node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let shared = viewed.filter(|&buffer| buffer != NONE);
                let place = inference.written_at(facts, index, values);
                let buffer =
                    shared.unwrap_or_else(|| plan.buffer(output, place.and_then(|at| values.at(at))));
                let Some(at) = place else { continue };
                (buffers[at], writers[at]) = (buffer, i as u32);
            }
        }
        plan.readers = vec![0; plan.sizes.len()];
        let (mut reads, mut writes, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for (i, facts) in steps() {
            [&mut reads, &mut writes, &mut after].into_iter().for_each(Vec::clear);
            let mut read = |place: Option<usize>| {
                let Some(at) = place else { return };
                reads.extend(Some(buffers[at]).filter(|&buffer| buffer != NONE));
                after.extend(Some(writers[at]).filter(|&writer| writer != NONE && writer != i as u32));
            };
            (0..facts.node.input.len()).for_each(|at| read(inference.read_at(facts, at, values)));
            each_read_inside(facts.node, &mut |name| read(values.position(name)));
            let outputs = 0..facts.node.output.len();
            let written = outputs.filter_map(|index| inference.written_at(facts, index, values));
            writes.extend(written.map(|at| buffers[at]).filter(|&buffer| buffer != NONE));
            for list in [&mut reads, &mut writes, &mut after] {
                list.sort_unstable();
                list.dedup();
            }
            writes.retain(|buffer| reads.binary_search(buffer).is_err());
            reads.iter().for_each(|&buffer| plan.readers[buffer as usize] += 1);
            plan.reads.push(&reads);
            plan.writes.push(&writes);
            plan.after.push(&after);
            let scratch = scratch(nodes[i] as usize);
            if !scratch.is(0) {
                plan.scratch.insert(i, scratch);
            }
        }
        let kept = kept.iter().filter_map(|name| values.position(name)).map(|at| buffers[at]);
        kept.filter(|&buffer| buffer != NONE).for_each(|buffer| plan.readers[buffer as usize] += 1);
        plan
    }

    fn buffer(&mut self, name: &str, fact: Option<&Fact>) -> u32 {
        self.sizes.push(match fact {
            Some(fact) if fact.source.is_some() => 0.into(),
            Some(fact) => bytes(fact),
            None => Expr::unknown(&format!("{name} is not reached")),
        });
        self.sizes.len() as u32 - 1
    }

    fn steps(&self) -> usize {
        self.reads.len()
    }

    fn is_sorted(&self) -> bool {
        (0..self.steps()).all(|i| self.after.of(i).iter().all(|&before| (before as usize) < i))
    }

    /// The peak of an order, and the step at which it is met.
    fn peak(&self, order: impl Iterator<Item = usize>) -> (Expr, usize) {
        let mut left = self.readers.clone();
        let mut live: Expr = self.given.iter().map(|&buffer| self.sizes[buffer as usize].clone()).sum();
        let mut met: Option<(Expr, usize)> = None;
        for i in order {
            let (mut peak, mut at) = met.unwrap_or_else(|| (live.clone(), i));
            for &buffer in self.writes.of(i) {
                live = &live + &self.sizes[buffer as usize];
            }
            let with_bodies = self.scratch.get(&i).map_or_else(|| live.clone(), |scratch| &live + scratch);
            if is_larger(&with_bodies, &peak) {
                (peak, at) = (with_bodies, i);
            }
            met = Some((peak, at));
            for &buffer in self.reads.of(i) {
                left[buffer as usize] -= 1;
            }
            for &buffer in self.reads.of(i).iter().chain(self.writes.of(i)) {
                if left[buffer as usize] == 0 {
                    live = &live - &self.sizes[buffer as usize];
                }
            }
        }
        met.unwrap_or((live, 0))
    }

    /// An order that runs, of the nodes that can, the one whose end leaves the least memory;
    /// shorter than the graph where nodes wait for each other.
    fn greedy(&self) -> Vec<u32> {
        let sizes: Vec<i64> = self.sizes.iter().map(estimate).collect();
        let mut left = self.readers.clone();
        let mut waits: Vec<u32> = (0..self.steps()).map(|i| self.after.of(i).len() as u32).collect();
        let (next, readers) = (self.after.turned(self.steps()), self.reads.turned(self.sizes.len()));
        let gain = |i: u32, left: &[u32]| {
            let freed = self.reads.of(i as usize).iter().filter(|&&buffer| left[buffer as usize] == 1);
            let kept = self.writes.of(i as usize).iter().filter(|&&buffer| left[buffer as usize] > 0);
            let [freed, kept] = [
                freed.fold(0, |sum, &b| i64::saturating_add(sum, sizes[b as usize])),
                kept.fold(0, |sum, &b| i64::saturating_add(sum, sizes[b as usize])),
            ];
            freed.saturating_sub(kept)
        };
        let ready = (0..self.steps() as u32).filter(|&i| waits[i as usize] == 0);
        let mut heap: BinaryHeap<(i64, Reverse<u32>)> = ready.map(|i| (gain(i, &left), Reverse(i))).collect();
        let mut done = vec![false; self.steps()];
        let mut order = Vec::with_capacity(self.steps());
        while let Some((_, Reverse(i))) = heap.pop() {
            // A step is there again with a better key when it becomes the last reader of a buffer.
            if std::mem::replace(&mut done[i as usize], true) {
                continue;
            }
            order.push(i);
            for &after in next.of(i as usize) {
                waits[after as usize] -= 1;
                if waits[after as usize] == 0 {
                    heap.push((gain(after, &left), Reverse(after)));
                }
            }
            for &buffer in self.reads.of(i as usize) {
                left[buffer as usize] -= 1;
                if left[buffer as usize] == 1 {
                    let last =
                        readers.of(buffer as usize).iter().copied().find(|&reader| !done[reader as usize]);
                    let last = last.filter(|&reader| waits[reader as usize] == 0);
                    heap.extend(last.map(|reader| (gain(reader, &left), Reverse(reader))));
                }
            }
        }
        order
    }
}

/// The values that the bodies of a node read, those that they take from around them among them.
fn each_read_inside<'a>(node: &'a NodeProto, see: &mut dyn FnMut(&'a str)) {
    for attribute in &node.attribute {
        for body in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
            for node in &body.node {
                node.input.iter().for_each(|name| see(name));
                each_read_inside(node, see);
            }
            body.output.iter().for_each(|output| see(output.name()));
        }
    }
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
