//! Functions and decided branches, written out in the main graph.

use std::borrow::Cow;
use std::collections::HashMap;

use emo_proto::file::OnnxFile;
use emo_proto::text::label;
use emo_proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};

use super::widen;
use crate::infer::Inference;
use crate::run::failure::Failure;

/// Nodes that functions may come to, beyond which a file is held to be a trap.
const MOST_NODES: usize = 1 << 17;
/// Calls within calls, beyond which a function is held to call itself.
const MOST_CALLS: usize = 32;

/// A text that no name of the model starts with: names behind it are new.
pub(super) fn mark(model: &ModelProto) -> String {
    model.graph.as_ref().map_or_else(|| "~".to_owned(), crate::lower::mark)
}

/// The model with its functions written out at each call. A function of other operator sets than the model's
/// stays.
pub(super) fn functions<'a>(file: &'a OnnxFile, mark: &str) -> Result<Cow<'a, ModelProto>, Failure> {
    if file.model.functions.is_empty() {
        return Ok(Cow::Borrowed(&file.model));
    }
    let mut model = owned(file, &file.model)?;
    let functions = std::mem::take(&mut model.functions);
    let mut inliner = Inliner { functions: HashMap::new(), mark, calls: 0, nodes: 0 };
    for function in &functions {
        if agrees(&function.opset_import, &mut model.opset_import) {
            inliner.functions.insert(key(function.domain(), function.name(), function.overload()), function);
        }
    }
    if let Some(graph) = &mut model.graph {
        inliner.graph(graph, 0)?;
    }
    let stays =
        |f: &&FunctionProto| !inliner.functions.contains_key(&key(f.domain(), f.name(), f.overload()));
    model.functions = functions.iter().filter(stays).cloned().collect();
    Ok(Cow::Owned(model))
}

/// The model as our own, with its external data inside.
fn owned(file: &OnnxFile, model: &ModelProto) -> Result<ModelProto, Failure> {
    let mut model = model.clone();
    if let Some(graph) = &mut model.graph {
        widen::tensors(graph, &file.external, false)?;
    }
    Ok(model)
}

fn key<'k>(domain: &'k str, name: &'k str, overload: &'k str) -> (&'k str, &'k str, &'k str) {
    (if domain == "ai.onnx" { "" } else { domain }, name, overload)
}

/// Whether nodes of these operator sets mean the same in the model, which gets those that it has not.
fn agrees(sets: &[OperatorSetIdProto], model: &mut Vec<OperatorSetIdProto>) -> bool {
    let found = |set: &OperatorSetIdProto, model: &[OperatorSetIdProto]| {
        model.iter().find(|own| own.domain() == set.domain()).map(OperatorSetIdProto::version)
    };
    if sets.iter().any(|set| found(set, model).is_some_and(|version| version != set.version())) {
        return false;
    }
    for set in sets {
        if found(set, model).is_none() {
            model.push(set.clone());
        }
    }
    true
}

struct Inliner<'f> {
    functions: HashMap<(&'f str, &'f str, &'f str), &'f FunctionProto>,
    mark: &'f str,
    calls: usize,
    nodes: usize,
}

impl Inliner<'_> {
    fn graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<(), Failure> {
        let nodes = std::mem::take(&mut graph.node);
        self.write(nodes, depth, &mut graph.node)
    }

    fn write(
        &mut self,
        nodes: Vec<NodeProto>,
        depth: usize,
        out: &mut Vec<NodeProto>,
    ) -> Result<(), Failure> {
        for mut node in nodes {
            match self.functions.get(&key(node.domain(), node.op_type(), node.overload())).copied() {
                Some(function) if depth < MOST_CALLS => {
                    let body = self.instance(function, &node);
                    self.write(body, depth + 1, out)?;
                }
                Some(function) => {
                    let message = format!("the function {} calls itself", function.name());
                    return Err(Failure::wrong(message));
                }
                None => {
                    for body in node
                        .attribute
                        .iter_mut()
                        .flat_map(|a| a.g.as_deref_mut().into_iter().chain(&mut a.graphs))
                    {
                        self.graph(body, depth)?;
                    }
                    self.nodes += 1;
                    if self.nodes > MOST_NODES {
                        let message = format!("its functions come to more than {MOST_NODES} nodes");
                        return Err(Failure::wrong(message));
                    }
                    out.push(node);
                }
            }
        }
        Ok(())
    }

    /// The nodes of a function for one call.
    fn instance(&mut self, function: &FunctionProto, call: &NodeProto) -> Vec<NodeProto> {
        self.calls += 1;
        let prefix = format!("{}call {}/", self.mark, self.calls);
        let mut names: HashMap<String, String> = HashMap::new();
        for (i, input) in function.input.iter().enumerate() {
            names.insert(input.clone(), call.input.get(i).cloned().unwrap_or_default());
        }
        let mut passed_on = Vec::new();
        for (output, name) in function.output.iter().zip(&call.output).filter(|(_, name)| !name.is_empty()) {
            match names.get(output) {
                Some(operand) => passed_on.push(identity(operand, name)),
                None => drop(names.insert(output.clone(), name.clone())),
            }
        }
        let mut rename = |name: &mut String| {
            if !name.is_empty() {
                *name = names.get(name).cloned().unwrap_or_else(|| format!("{prefix}{name}"));
            }
        };
        let mut nodes = function.node.clone();
        for node in &mut nodes {
            arguments(node, call, function);
            each_name(node, &mut rename);
            node.name = Some(format!("{}/{}", label(call), node.name()));
        }
        nodes.extend(passed_on);
        nodes
    }
}

/// Gives a function's node the attributes that the call, or else the function, has for it.
fn arguments(node: &mut NodeProto, call: &NodeProto, function: &FunctionProto) {
    node.attribute.retain_mut(|attribute| {
        let Some(argument) = attribute.ref_attr_name.take().filter(|name| !name.is_empty()) else {
            return true;
        };
        let given = call.attribute.iter().chain(&function.attribute_proto).find(|a| a.name() == argument);
        if let Some(given) = given {
            let name = attribute.name.take();
            *attribute = AttributeProto { name, ..given.clone() };
        }
        given.is_some()
    });
    let bodies = node.attribute.iter_mut().flat_map(|a| a.g.as_deref_mut().into_iter().chain(&mut a.graphs));
    bodies.flat_map(|body| &mut body.node).for_each(|node| arguments(node, call, function));
}

/// Every name of a value in the node and in its bodies.
fn each_name(node: &mut NodeProto, rename: &mut dyn FnMut(&mut String)) {
    node.input.iter_mut().chain(&mut node.output).for_each(&mut *rename);
    for body in node.attribute.iter_mut().flat_map(|a| a.g.as_deref_mut().into_iter().chain(&mut a.graphs)) {
        each_name_of(body, rename);
    }
}

fn each_name_of(graph: &mut GraphProto, rename: &mut dyn FnMut(&mut String)) {
    let declared = graph.input.iter_mut().chain(&mut graph.output).filter_map(|v| v.name.as_mut());
    let sparse = graph.sparse_initializer.iter_mut().filter_map(|s| s.values.as_mut());
    let constants = graph.initializer.iter_mut().chain(sparse).filter_map(|t| t.name.as_mut());
    declared.chain(constants).for_each(&mut *rename);
    graph.node.iter_mut().for_each(|node| each_name(node, rename));
}

fn identity(from: &str, to: &str) -> NodeProto {
    NodeProto {
        op_type: Some("Identity".into()),
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        ..NodeProto::default()
    }
}

/// The conditions of the main graph's If nodes that the input shapes decide, by the node's first output.
pub(super) fn decided(inference: &Inference) -> HashMap<String, bool> {
    let condition = |facts: &crate::infer::NodeFacts| {
        let node = facts.node;
        if node.op_type() != "If" || !matches!(node.domain(), "" | "ai.onnx") || !facts.path.is_empty() {
            return None;
        }
        let taken =
            inference.values.get(node.input.first()?.as_str())?.elements.as_deref()?.first()?.number()?;
        Some((node.output.first()?.clone(), taken != 0))
    };
    inference.nodes.iter().filter_map(condition).collect()
}

/// `model` with the taken branch in place of each If of `taken`.
pub(super) fn branches(
    file: &OnnxFile,
    model: &ModelProto,
    taken: &HashMap<String, bool>,
    mark: &str,
) -> Result<ModelProto, Failure> {
    let mut model = owned(file, model)?;
    let Some(graph) = &mut model.graph else { return Ok(model) };
    for node in std::mem::take(&mut graph.node) {
        let condition = node.output.first().and_then(|output| taken.get(output));
        let Some(&condition) = condition.filter(|_| node.op_type() == "If") else {
            graph.node.push(node);
            continue;
        };
        let name = if condition { "then_branch" } else { "else_branch" };
        let place = label(&node).to_string();
        let Some(mut body) =
            node.attribute.into_iter().find(|a| a.name() == name).and_then(|a| a.g).map(|g| *g)
        else {
            return Err(Failure::wrong(format!("expected a graph as {name}, found none")).at(place));
        };
        // An output's name is in the file once, so this prefix is the node's alone.
        let prefix = format!("{mark}if {}/", node.output.first().map_or("", String::as_str));
        let own: HashMap<String, String> =
            defined(&body).map(|n| (n.to_owned(), format!("{prefix}{n}"))).collect();
        each_name_of(&mut body, &mut |name| {
            if let Some(new) = own.get(name) {
                name.clone_from(new);
            }
        });
        graph.node.append(&mut body.node);
        graph.initializer.append(&mut body.initializer);
        graph.sparse_initializer.append(&mut body.sparse_initializer);
        let outputs = body.output.iter().map(ValueInfoProto::name).zip(&node.output);
        graph.node.extend(outputs.filter(|(_, to)| !to.is_empty()).map(|(from, to)| identity(from, to)));
    }
    Ok(model)
}

/// The names that a graph without inputs gives a value to.
fn defined(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref());
    let constants = graph.initializer.iter().chain(sparse).map(TensorProto::name);
    let written = graph.node.iter().flat_map(|n| &n.output).map(String::as_str);
    constants.chain(written).filter(|name| !name.is_empty())
}
