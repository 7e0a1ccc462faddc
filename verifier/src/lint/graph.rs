//! A file's nodes as a runtime sees them that folds constants and writes functions out.

use std::collections::HashMap;

use emo_exporter::profile::{Attribute, NodeFacts, Operand};
use emo_proto::AttributeProto;
use emo_proto::attribute_proto::AttributeType;
use emo_proto::tensor_proto::DataType;

use crate::fact::Fact;
use crate::infer::{self, Body, Inference};

/// A node that runs.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub facts: &'a infer::NodeFacts<'a>,
    /// What a row may ask of it.
    pub node: NodeFacts<'a>,
    /// The graph that it is part of: 0 is the main one, the others are bodies.
    pub graph: usize,
    /// The step that holds that graph; `None` in the main one.
    pub holder: Option<usize>,
    /// The steps of the same graph that it waits for.
    pub after: Vec<usize>,
}

/// The steps of a file, in an order in which they can run.
#[derive(Debug, Default)]
pub(super) struct Steps<'a> {
    pub list: Vec<Step<'a>>,
    /// Nodes that constants alone decide: runtimes compute them when they load the file.
    pub folded: usize,
}

struct Reader<'a> {
    inference: &'a Inference<'a>,
    /// By scope.
    bodies: HashMap<usize, &'a Body<'a>>,
    /// The step that makes a value of a scope.
    made: HashMap<(usize, &'a str), usize>,
    /// The step of a node.
    steps: HashMap<usize, usize>,
    found: Steps<'a>,
}

impl<'a> Steps<'a> {
    pub fn of(inference: &'a Inference<'a>) -> Self {
        let calls = inference.bodies.iter().filter(|body| body.call.is_some());
        let calls: HashMap<usize, &Body> = calls.map(|body| (body.holder, body)).collect();
        let mut reader = Reader {
            inference,
            bodies: inference.bodies.iter().map(|body| (body.scope, body)).collect(),
            made: HashMap::new(),
            steps: HashMap::new(),
            found: Steps::default(),
        };
        // Functions that are being read, the innermost last.
        let mut open: Vec<&Body> = Vec::new();
        for index in 0..inference.nodes.len() {
            while let Some(body) = open.pop_if(|body| body.nodes.end <= index) {
                reader.leave(body);
            }
            match calls.get(&index) {
                Some(body) => {
                    reader.enter(body);
                    open.push(body);
                }
                None => reader.node(index),
            }
        }
        reader.found
    }
}

impl<'a> Reader<'a> {
    /// A function's parameters are what it is called with.
    fn enter(&mut self, body: &'a Body<'a>) {
        let Some((function, _)) = &body.call else { return };
        let operands = &self.inference.nodes[body.holder].node.input;
        for (parameter, operand) in function.input.iter().zip(operands) {
            if let Some(step) = self.maker(body.around, operand) {
                self.made.insert((body.scope, parameter), step);
            }
        }
    }

    /// A call's results are what its function returns.
    fn leave(&mut self, body: &'a Body<'a>) {
        let Some((function, _)) = &body.call else { return };
        let results = &self.inference.nodes[body.holder].node.output;
        for (result, returned) in results.iter().zip(&function.output) {
            if let Some(step) = self.maker(body.scope, returned) {
                self.made.insert((body.around, result), step);
            }
        }
    }

    fn node(&mut self, index: usize) {
        let facts = &self.inference.nodes[index];
        if !facts.outputs.is_empty() && facts.outputs.iter().all(is_known) {
            self.found.folded += 1;
            return;
        }
        let graph = self.graph(facts.scope);
        let step = self.found.list.len();
        let holder = self.bodies.get(&graph).and_then(|body| self.steps.get(&body.holder)).copied();
        if graph != 0 && holder.is_none() {
            // What holds it is decided before the graph runs.
            self.found.folded += 1;
            return;
        }
        self.found.list.push(Step { facts, node: self.facts(facts), graph, holder, after: Vec::new() });
        self.steps.insert(index, step);
        for name in facts.node.input.iter().filter(|name| !name.is_empty()) {
            if let Some(maker) = self.maker(facts.scope, name) {
                self.wait(step, maker);
            }
        }
        for name in facts.node.output.iter().filter(|name| !name.is_empty()) {
            self.made.insert((facts.scope, name), step);
        }
    }

    /// What a body reads from around it is waited for by the node that holds the body.
    fn wait(&mut self, step: usize, maker: usize) {
        let graph = self.found.list[maker].graph;
        let mut step = step;
        while self.found.list[step].graph != graph {
            let Some(holder) = self.found.list[step].holder else { return };
            step = holder;
        }
        // A body that feeds its own holder would wait for itself.
        if maker < step {
            self.found.list[step].after.push(maker);
        }
    }

    /// The scopes in which a name of `scope` may have its meaning, the innermost first.
    fn around(&self, scope: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(scope), |scope| {
            self.bodies.get(scope).filter(|body| body.call.is_none()).map(|body| body.around)
        })
    }

    fn maker(&self, scope: usize, name: &'a str) -> Option<usize> {
        let home = self.around(scope).find(|&scope| self.values(scope).contains_key(name))?;
        self.made.get(&(home, name)).copied()
    }

    fn values(&self, scope: usize) -> &'a HashMap<&'a str, Fact> {
        self.bodies.get(&scope).map_or(&self.inference.values, |body| &body.values)
    }

    /// The graph that a scope is part of once functions are written out: that of the innermost
    /// body, by its scope.
    fn graph(&self, scope: usize) -> usize {
        let called =
            |scope: &usize| self.bodies.get(scope).filter(|body| body.call.is_some()).map(|body| body.around);
        std::iter::successors(Some(scope), called).last().unwrap_or(scope)
    }

    /// What a row may ask of a node.
    fn facts(&self, facts: &'a infer::NodeFacts<'a>) -> NodeFacts<'a> {
        let node = facts.node;
        let operand = |name: &'a String| {
            let mut scopes = self.around(facts.scope);
            let fact = scopes.find_map(|scope| self.values(scope).get(name.as_str()));
            (!name.is_empty()).then(|| fact.map_or_else(Operand::default, known))
        };
        let mut operands: Vec<Option<Operand>> = node.input.iter().map(operand).collect();
        // An optional parameter that the caller leaves out.
        if let Some((function, _)) = self.bodies.get(&facts.scope).and_then(|body| body.call.as_ref()) {
            for (operand, name) in operands.iter_mut().zip(&node.input) {
                let left_out =
                    function.input.contains(name) && !self.values(facts.scope).contains_key(name.as_str());
                operand.take_if(|_| left_out);
            }
        }
        let attributes = node.attribute.iter().map(|a| (a.name(), self.argument(facts.scope, a)));
        let attributes: Vec<(&str, &AttributeProto)> =
            attributes.filter_map(|(name, a)| Some((name, a?))).collect();
        let mut results: Vec<Operand> = facts.outputs.iter().map(known).collect();
        let perm = attributes.iter().find(|(name, _)| node.op_type() == "Transpose" && *name == "perm");
        if let Some((_, perm)) = perm {
            // A permutation tells the rank where nothing else does.
            for value in operands.iter_mut().flatten().chain(&mut results) {
                value.shape.get_or_insert_with(|| vec![None; perm.ints.len()]);
            }
        }
        NodeFacts {
            domain: node.domain(),
            op: node.op_type(),
            attributes: attributes.into_iter().map(|(name, a)| (name, attribute(a))).collect(),
            operands,
            results,
        }
    }

    /// The attribute, or the one that the function around was called with.
    fn argument(&self, scope: usize, attribute: &'a AttributeProto) -> Option<&'a AttributeProto> {
        let name = match attribute.ref_attr_name() {
            "" => return Some(attribute),
            name => name,
        };
        let mut around = std::iter::successors(Some(scope), |scope| Some(self.bodies.get(scope)?.around));
        let call = around.find_map(|scope| self.bodies.get(&scope)?.call.as_ref());
        call.and_then(|(_, arguments)| arguments.get(name).copied())
    }
}

/// Whether a value is there before the graph runs.
fn is_known(fact: &Fact) -> bool {
    let numbers = || fact.elements.as_deref().is_some_and(|e| e.iter().all(|e| e.number().is_some()));
    fact.source.is_some() || numbers()
}

fn known(fact: &Fact) -> Operand {
    Operand {
        dtype: Some(fact.dtype).filter(|&dtype| dtype != DataType::Undefined),
        shape: fact.dims.as_ref().ok().map(|dims| dims.iter().map(crate::sym::Expr::count).collect()),
        constant: is_known(fact),
        integers: fact.elements.as_ref().and_then(|e| e.iter().map(|e| e.number()).collect()),
    }
}

fn attribute(attribute: &AttributeProto) -> Attribute {
    match attribute.r#type() {
        AttributeType::Int => Attribute::Int(attribute.i()),
        AttributeType::Float => Attribute::Float(attribute.f()),
        AttributeType::String => Attribute::Text(String::from_utf8_lossy(attribute.s()).into_owned()),
        _ => Attribute::Other,
    }
}
