//! A file's nodes as a runtime sees them that folds constants and writes functions out.

use std::collections::{HashMap, HashSet};

use emo_exporter::profile::{Attribute, NodeFacts, Operand};
use emo_proto::AttributeProto;
use emo_proto::attribute_proto::AttributeType;
use emo_proto::tensor_proto::DataType;

use crate::fact::Fact;
use crate::infer::{self, Body, Inference, Values};
use crate::sym::Expr;

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
    /// Values that are there once the file is loaded, beside those of constants.
    known: HashSet<(usize, &'a str)>,
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
            known: HashSet::new(),
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
            self.alias((body.around, operand), (body.scope, parameter));
        }
    }

    /// A call's results are what its function returns.
    fn leave(&mut self, body: &'a Body<'a>) {
        let Some((function, _)) = &body.call else { return };
        let results = &self.inference.nodes[body.holder].node.output;
        for (result, returned) in results.iter().zip(&function.output) {
            self.alias((body.scope, returned), (body.around, result));
        }
    }

    /// Gives a value another name.
    fn alias(&mut self, (scope, from): (usize, &'a str), to: (usize, &'a str)) {
        if let Some(step) = self.maker(scope, from) {
            self.made.insert(to, step);
        }
        if self.is_known(scope, from) {
            self.known.insert(to);
        }
    }

    fn node(&mut self, index: usize) {
        let facts = &self.inference.nodes[index];
        if self.folds(facts) {
            self.known.extend(facts.node.output.iter().map(|name| (facts.scope, name.as_str())));
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

    /// The scope in which a name of `scope` has its meaning, and what is known of the value.
    fn home(&self, scope: usize, name: &str) -> Option<(usize, &'a Fact)> {
        self.around(scope).find_map(|scope| Some((scope, self.values(scope).get(name)?)))
    }

    fn maker(&self, scope: usize, name: &'a str) -> Option<usize> {
        let (home, _) = self.home(scope, name)?;
        self.made.get(&(home, name)).copied()
    }

    /// Whether a value is there once the file is loaded.
    fn is_known(&self, scope: usize, name: &'a str) -> bool {
        let home = self.home(scope, name);
        home.is_some_and(|(home, fact)| fact.source.is_some() || self.known.contains(&(home, name)))
    }

    /// Whether runtimes compute the node when they load the file: from constants alone, or the shape
    /// of a value, all of whose extents are fixed. What is only in part known they leave.
    fn folds(&self, facts: &'a infer::NodeFacts<'a>) -> bool {
        let node = facts.node;
        if facts.outputs.is_empty() || node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty()) {
            return false;
        }
        if facts.outputs.iter().all(|fact| fact.source.is_some()) {
            return true;
        }
        let operands: Vec<&String> = node.input.iter().filter(|name| !name.is_empty()).collect();
        match node.op_type() {
            "Shape" | "Size" => {
                let elements = facts.outputs[0].elements.as_deref();
                elements.is_some_and(|elements| elements.iter().all(|e| e.number().is_some()))
            }
            op if op.starts_with("Random") || matches!(op, "Bernoulli" | "Multinomial") => false,
            _ => !operands.is_empty() && operands.iter().all(|name| self.is_known(facts.scope, name)),
        }
    }

    fn values(&self, scope: usize) -> &'a Values<'a> {
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
        // What a function does not know is an optional parameter that its caller leaves out.
        let outermost = self.around(facts.scope).last().and_then(|scope| self.bodies.get(&scope));
        let unknown = if outermost.is_some() { None } else { Some(Operand::default()) };
        let operand = |name: &'a String| match self.home(facts.scope, name) {
            _ if name.is_empty() => None,
            None => unknown.clone(),
            Some((_, fact)) => Some(Operand { constant: self.is_known(facts.scope, name), ..of_fact(fact) }),
        };
        let mut operands: Vec<Option<Operand>> = node.input.iter().map(operand).collect();
        let attributes = node.attribute.iter().map(|a| (a.name(), self.argument(facts.scope, a)));
        let attributes: Vec<(&str, &AttributeProto)> =
            attributes.filter_map(|(name, a)| Some((name, a?))).collect();
        let mut results: Vec<Operand> = facts.written().map(of_fact).collect();
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

fn of_fact(fact: &Fact) -> Operand {
    Operand {
        dtype: Some(fact.dtype).filter(|&dtype| dtype != DataType::Undefined),
        shape: fact.dims.as_ref().ok().map(|dims| dims.iter().map(Expr::count).collect()),
        constant: false,
        integers: fact.elements.as_ref().and_then(|e| e.iter().map(Expr::number).collect()),
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
