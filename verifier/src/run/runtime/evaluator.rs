//! A graph, ready to be evaluated.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::text::label;
use emo_proto::{Error, GraphProto, ModelProto, NodeProto};
use ndarray::ArrayD;

use super::expect_inputs;
use crate::eval::{Call, MOST_ELEMENTS, Rounding, Step, Value, Why, find, finish, limited};
use crate::infer::order;
use crate::ops::{Arguments, Ctx};
use crate::run::failure::Failure;
use crate::run::plain::{Concrete, Cut, Form, captured, coarse};
use crate::run::quiet::guarded;

/// As failures and reports name it.
pub(super) const NAME: &str = "f64";

/// Bodies within bodies, at most.
const MOST_DEPTH: usize = 32;
/// Nodes of bodies that a run comes by, at most: loops within loops multiply.
const MOST_STEPS: usize = 1 << 18;
/// Elements of their outputs that count as one node more.
const STEP: usize = 1 << 12;

/// A part of a graph, ready to be evaluated.
#[derive(Debug)]
pub struct Evaluator {
    model: ModelProto,
    inputs: Vec<(String, Vec<usize>)>,
    coarse: Option<(String, &'static str)>,
    /// Constants whose integers are weights in units of a scale.
    weights: HashSet<String>,
    /// Values that say what a node does: noise leaves them alone.
    settings: HashSet<String>,
    /// Elements of a tensor.
    most: usize,
}

impl Evaluator {
    /// Readies the part of `model` that computes `outputs` from `inputs`, each any values of its graph; without
    /// names the graph's own.
    ///
    /// # Errors
    ///
    /// [`Failure::Wrong`] where a name is none of the graph's or `outputs` need more than `inputs`,
    /// [`Failure::Lacking`] with the first operator that has no row.
    pub fn new(model: &Concrete, inputs: &[String], outputs: &[String]) -> Result<Self, Failure> {
        let Cut { model: mut cut, inputs, .. } = model.cut(inputs, outputs, Form::Typed)?;
        if let Some(graph) = &mut cut.graph {
            if let Some(lacking) = lacking(graph) {
                return Err(lacking);
            }
            if let Some(sorted) = order(&graph.node) {
                graph.node = sorted.into_iter().cloned().collect();
            }
        }
        let graph = cut.graph.as_ref();
        let weights = graph.map(weights).unwrap_or_default();
        let settings = graph.map(settings).unwrap_or_default();
        let coarse = graph.and_then(|graph| coarse(model, graph).into_iter().next());
        let coarse = coarse.map(|(label, dtype)| (label, dtype.as_str_name()));
        Ok(Self { model: cut, inputs, coarse, weights, settings, most: MOST_ELEMENTS })
    }

    /// The same, where no tensor may have more than `elements`.
    #[must_use]
    pub fn at_most(self, elements: usize) -> Self {
        Self { most: elements, ..self }
    }

    /// The outputs for `inputs`, each side in the order given to [`Evaluator::new`].
    ///
    /// # Errors
    ///
    /// [`Failure::Wrong`] where the inputs have other shapes than were prepared for, [`Failure::Refused`] where a
    /// node cannot be evaluated (the message names it).
    pub fn run(&self, inputs: &[ArrayD<f32>], rounding: Rounding) -> Result<Vec<ArrayD<f64>>, Failure> {
        expect_inputs(inputs, &self.inputs)?;
        let refused = |why: Why| Failure::Refused { runtime: NAME, why: Error::new(why) };
        // Rows check what they are given; should one of them miss something, it is this file's failure alone.
        let outputs = || guarded(|| self.outputs(inputs, rounding));
        limited(self.most, outputs).and_then(|outputs| outputs).map_err(refused)
    }

    fn outputs(&self, inputs: &[ArrayD<f32>], rounding: Rounding) -> Result<Vec<ArrayD<f64>>, Why> {
        let Some(graph) = &self.model.graph else { return Err("expected a graph, found none".to_owned()) };
        let run = Run { evaluator: self, rounding, external: External::none(), left: Cell::new(MOST_STEPS) };
        let mut given = HashMap::new();
        for (port, input) in graph.input.iter().zip(inputs) {
            let data = input.iter().map(|&x| x.into()).collect();
            let value = Value::new(DataType::Float, input.shape().to_vec(), data)?;
            given.insert(port.name().to_owned(), value);
        }
        let scope = Scope { values: RefCell::new(given), graph, outer: None };
        let outputs = run.graph(graph, &scope, 0)?;
        let array = |value: Value| {
            ArrayD::from_shape_vec(value.dims, value.data.to_vec()).map_err(|error| error.to_string())
        };
        outputs.into_iter().map(array).collect()
    }

    /// The first node on the path that rounds more coarsely than f32, by its label, and the name of the type that
    /// it rounds to; `None` where all is f32 or wider.
    #[must_use]
    pub fn coarse(&self) -> Option<(String, &'static str)> {
        self.coarse.clone()
    }
}

/// The first node, bodies included, that has no row.
fn lacking(graph: &GraphProto) -> Option<Failure> {
    graph.node.iter().find_map(|node| {
        if find(node.domain(), node.op_type()).is_none() {
            let operator = match node.domain() {
                "" | "ai.onnx" => node.op_type().to_owned(),
                domain => format!("{domain}.{}", node.op_type()),
            };
            return Some(Failure::Lacking { runtime: NAME, operator, node: label(node) });
        }
        let bodies = node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs));
        bodies.into_iter().find_map(lacking)
    })
}

/// The constants that reach an operand of quantised weights through nodes that only move.
fn weights(graph: &GraphProto) -> HashSet<String> {
    let mut found: HashSet<String> = HashSet::new();
    for node in graph.node.iter().rev() {
        let Some(row) = find(node.domain(), node.op_type()) else { continue };
        let direct = row.weights.iter().filter_map(|&i| node.input.get(i));
        let passed = row.moves && node.output.iter().any(|output| found.contains(output));
        let passed = node.input.first().filter(|_| passed);
        let names: Vec<String> = direct.chain(passed).cloned().collect();
        found.extend(names);
    }
    found
}

/// Operands that are no data: an exponent, of which a negative number has no power but whole ones; extents.
const SETTINGS: &[(&str, &[usize])] =
    &[("OneHot", &[1]), ("Pow", &[1]), ("Range", &[0, 1, 2]), ("Resize", &[1, 2]), ("Upsample", &[1])];

/// Such operands, and all that they are made of.
fn settings(graph: &GraphProto) -> HashSet<String> {
    let mut found: HashSet<String> = HashSet::new();
    for node in graph.node.iter().rev() {
        let row = SETTINGS.iter().find(|(operator, _)| *operator == node.op_type());
        let direct = row.iter().flat_map(|(_, operands)| operands.iter()).filter_map(|&i| node.input.get(i));
        let made = node.output.iter().any(|output| found.contains(output));
        let names: Vec<String> = direct.chain(node.input.iter().filter(|_| made)).cloned().collect();
        found.extend(names);
    }
    found
}

/// The values of a graph, and of those around it.
struct Scope<'a> {
    values: RefCell<HashMap<String, Value>>,
    graph: &'a GraphProto,
    outer: Option<&'a Scope<'a>>,
}

struct Run<'a> {
    evaluator: &'a Evaluator,
    rounding: Rounding<'a>,
    external: External,
    /// Nodes of bodies that may still come.
    left: Cell<usize>,
}

impl Run<'_> {
    /// The outputs of a graph whose inputs are in `scope`.
    fn graph(&self, graph: &GraphProto, scope: &Scope, depth: usize) -> Result<Vec<Value>, Why> {
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (i, node) in graph.node.iter().enumerate() {
            let mut reads: Vec<&str> = node.input.iter().map(String::as_str).collect();
            captured(node, &mut reads);
            last.extend(reads.into_iter().map(|name| (name, i)));
        }
        let end = graph.node.len();
        last.extend(graph.output.iter().map(|output| (output.name(), end)));
        let constants: HashMap<&str, &emo_proto::TensorProto> =
            graph.initializer.iter().map(|t| (t.name(), t)).collect();
        for (i, node) in graph.node.iter().enumerate() {
            let outputs =
                self.node(node, &constants, scope, depth).map_err(|why| format!("{}: {why}", label(node)))?;
            if depth > 0 {
                self.walk(outputs.iter().map(Value::len).sum::<usize>() / STEP)?;
            }
            let mut values = scope.values.borrow_mut();
            for (name, value) in node.output.iter().zip(outputs) {
                if last.contains_key(name.as_str()) {
                    values.insert(name.clone(), value);
                }
            }
            // What nobody reads any more makes room.
            for name in node.input.iter().filter(|name| last.get(name.as_str()) == Some(&i)) {
                values.remove(name.as_str());
            }
        }
        graph.output.iter().map(|output| self.read(output.name(), &constants, scope)).collect()
    }

    fn read(
        &self,
        name: &str,
        constants: &HashMap<&str, &emo_proto::TensorProto>,
        scope: &Scope,
    ) -> Result<Value, Why> {
        if let Some(value) = scope.values.borrow().get(name) {
            return Ok(value.clone());
        }
        if let Some(tensor) = constants.get(name) {
            return self.constant(name, tensor);
        }
        let mut around = scope.outer;
        while let Some(scope) = around {
            if let Some(value) = scope.values.borrow().get(name) {
                return Ok(value.clone());
            }
            if let Some(tensor) = scope.graph.initializer.iter().find(|t| t.name() == name) {
                return self.constant(name, tensor);
            }
            around = scope.outer;
        }
        Err(format!("expected the value {name}, found none"))
    }

    fn constant(&self, name: &str, tensor: &emo_proto::TensorProto) -> Result<Value, Why> {
        let tensor = Tensor::decode(tensor, &self.external).map_err(|error| error.to_string())?;
        let mut value = Value::of(&tensor)?;
        let weight = self.evaluator.weights.contains(name);
        self.step(name).constant(&mut value, name, weight);
        Ok(value)
    }

    /// The rounding of what is written as `name`.
    fn step(&self, name: &str) -> Step<'_> {
        match self.rounding {
            Rounding::Noise(_) if self.evaluator.settings.contains(name) => Step::of(Rounding::Exact, name),
            rounding => Step::of(rounding, name),
        }
    }

    fn node(
        &self,
        node: &NodeProto,
        constants: &HashMap<&str, &emo_proto::TensorProto>,
        scope: &Scope,
        depth: usize,
    ) -> Result<Vec<Value>, Why> {
        let row = find(node.domain(), node.op_type()).ok_or("it has no row")?;
        let read = |name: &String| match name.as_str() {
            "" => Ok(None),
            name => self.read(name, constants, scope).map(Some),
        };
        let operands = node.input.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let arguments = Arguments::new();
        let opset = self.opset(node.domain());
        let attributes = Ctx::of_attributes(node, opset, &arguments, &self.external);
        let name = node.output.first().map_or("", String::as_str);
        let bodies = |body: &str, inputs: &[Value]| self.body(node, body, inputs, scope, depth);
        let call = Call {
            attributes,
            operands,
            step: RefCell::new(self.step(name)),
            terms: Cell::new(0),
            moved: Cell::new(false),
            bodies: &bodies,
        };
        let mut outputs = (row.function)(&call)?;
        if row.name == "Constant" {
            let weight = self.evaluator.weights.contains(name);
            outputs.iter_mut().for_each(|value| call.step.borrow().constant(value, name, weight));
        }
        finish(row, &call, &mut outputs);
        Ok(outputs)
    }

    /// The outputs of a body that the node holds as an attribute.
    fn body(
        &self,
        node: &NodeProto,
        name: &str,
        inputs: &[Value],
        scope: &Scope,
        depth: usize,
    ) -> Result<Vec<Value>, Why> {
        if depth >= MOST_DEPTH {
            return Err(format!("expected at most {MOST_DEPTH} bodies within bodies"));
        }
        let attribute = node.attribute.iter().find(|a| a.name() == name);
        let body =
            attribute.and_then(|a| a.g.as_ref()).ok_or_else(|| format!("expected a graph as {name}"))?;
        self.walk(1 + body.node.len())?;
        let values =
            body.input.iter().map(|input| input.name().to_owned()).zip(inputs.iter().cloned()).collect();
        let scope = Scope { values: RefCell::new(values), graph: body, outer: Some(scope) };
        self.graph(body, &scope, depth + 1)
    }

    /// Takes so many steps of those that are left.
    fn walk(&self, steps: usize) -> Result<(), Why> {
        let left = self.left.get().checked_sub(steps);
        self.left.set(left.ok_or_else(|| format!("expected at most {MOST_STEPS} nodes in rounds of loops"))?);
        Ok(())
    }

    fn opset(&self, domain: &str) -> i64 {
        let name = |domain: &str| if domain == "ai.onnx" { String::new() } else { domain.to_owned() };
        let sets = self.evaluator.model.opset_import.iter().filter(|set| name(set.domain()) == name(domain));
        sets.map(emo_proto::OperatorSetIdProto::version).max().unwrap_or(1)
    }
}
