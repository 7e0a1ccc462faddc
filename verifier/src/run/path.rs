//! The way of the data through a graph.

use std::collections::HashSet;

use emo_proto::{NodeProto, ValueInfoProto};

use crate::audit;
use crate::infer::{Inference, NodeFacts};
use crate::run::plain::captured;

/// The values that a graph's inputs decide and that decide its outputs.
#[derive(Debug)]
pub struct DataPath<'a> {
    values: HashSet<&'a str>,
}

impl<'a> DataPath<'a> {
    /// From the input of the graph called `input` to the value `output`.
    #[must_use]
    pub fn new(inference: &'a Inference<'a>, input: &'a str, output: &'a str) -> Self {
        Self::from_to(inference, HashSet::from([input]), HashSet::from([output]))
    }

    /// From all inputs of the graph to all its outputs.
    #[must_use]
    pub fn whole(inference: &'a Inference<'a>) -> Self {
        let Some(graph) = inference.graph() else { return Self { values: HashSet::new() } };
        let inputs = audit::inputs(graph).map(ValueInfoProto::name).collect();
        Self::from_to(inference, inputs, graph.output.iter().map(ValueInfoProto::name).collect())
    }

    /// The same of several each.
    #[must_use]
    pub fn between(inference: &'a Inference<'a>, inputs: &'a [String], outputs: &'a [String]) -> Self {
        let names = |names: &'a [String]| names.iter().map(String::as_str).collect();
        Self::from_to(inference, names(inputs), names(outputs))
    }

    fn from_to(
        inference: &'a Inference<'a>,
        mut decided: HashSet<&'a str>,
        mut needed: HashSet<&'a str>,
    ) -> Self {
        let main = || inference.nodes.iter().filter(|node| node.path.is_empty());
        for node in main() {
            // An extent is no element, and what is known before the graph runs is not decided by it.
            if !matches!(node.node.op_type(), "Shape" | "Size")
                && reads(node.node).into_iter().any(|name| decided.contains(name))
            {
                let known = |name: &str| inference.values.get(name).is_some_and(|f| f.elements.is_some());
                let outputs = node.node.output.iter().map(String::as_str);
                decided.extend(outputs.filter(|name| !name.is_empty() && !known(name)));
            }
        }
        let nodes: Vec<&NodeFacts> = main().collect();
        for node in nodes.into_iter().rev() {
            if node.node.output.iter().any(|name| needed.contains(name.as_str())) {
                needed.extend(reads(node.node));
            }
        }
        needed.retain(|name| decided.contains(name));
        Self { values: needed }
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values.contains(name)
    }

    /// The nodes on the way, with their index.
    pub fn nodes<'n>(
        &'n self,
        inference: &'n Inference<'a>,
    ) -> impl Iterator<Item = (usize, &'n NodeFacts<'a>)> {
        let on =
            |node: &NodeFacts| node.path.is_empty() && node.node.output.iter().any(|name| self.has(name));
        inference.nodes.iter().enumerate().filter(move |(_, node)| on(node))
    }
}

/// What a node reads, its bodies' reads from around them among it.
fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names = node.input.iter().map(String::as_str).collect();
    captured(node, &mut names);
    names
}
