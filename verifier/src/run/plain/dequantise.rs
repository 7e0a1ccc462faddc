//! Quantised graphs as the float graphs that they stand for.

use std::collections::{HashMap, HashSet};

use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::text::label;
use emo_proto::{GraphProto, NodeProto, TensorProto};

use super::captured;
use super::value::cast;
use crate::eval::{Value, constant_node, range};

/// Operators that give a quantised tensor's elements other places: what they give has the same scale.
const MOVES: [&str; 13] = [
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// A quantised value that there is in floats, too.
struct Twin {
    name: String,
    scale: f64,
    zero: f64,
}

/// Takes QuantizeLinear out of `graph` where DequantizeLinear follows it with the same scale, be it behind nodes
/// that move: its bounds stay, its rounding does not. What constants alone decide is computed. Gives the labels of
/// the nodes that were taken out. `mark` starts no name of the file; `is_one` says of a value that it has one element.
pub(super) fn dequantise(
    graph: &mut GraphProto,
    external: &External,
    opset: i64,
    mark: &str,
    is_one: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let quantises = |node: &NodeProto| node.op_type() == "QuantizeLinear";
    let before: Vec<String> = graph.node.iter().filter(|node| quantises(node)).map(label).collect();
    if !graph.node.iter().any(|node| node.op_type() == "DequantizeLinear") {
        return Vec::new();
    }
    fold(graph, external, opset);
    let mut added = Vec::new();
    let twinned = twins(graph, external, mark, &mut added);
    graph.node = twinned;
    graph.initializer.append(&mut added);
    prune(graph);
    graph.node = std::mem::take(&mut graph.node)
        .into_iter()
        .flat_map(|node| written_out(node, mark, is_one))
        .collect();
    let after: HashSet<String> = graph.node.iter().filter(|node| quantises(node)).map(label).collect();
    before.into_iter().filter(|label| !after.contains(label)).collect()
}

/// Weights as floats: nodes that (de)quantise or move, all of whose operands are constants.
fn fold(graph: &mut GraphProto, external: &External, opset: i64) {
    let mut constants: HashMap<String, TensorProto> =
        graph.initializer.iter().map(|t| (t.name().to_owned(), t.clone())).collect();
    let mut made: Vec<TensorProto> = Vec::new();
    graph.node.retain(|node| {
        if node.op_type() == "Constant" {
            if let (Some(output), Some(tensor)) =
                (node.output.first(), node.attribute.iter().find_map(|a| a.t.as_deref()))
            {
                constants
                    .insert(output.clone(), TensorProto { name: Some(output.clone()), ..tensor.clone() });
            }
            return true;
        }
        let follows = matches!(node.op_type(), "QuantizeLinear" | "DequantizeLinear")
            || MOVES.contains(&node.op_type());
        if !follows || node.output.len() != 1 {
            return true;
        }
        let operands = node.input.iter().map(|name| match name.as_str() {
            "" => Some(None),
            name => Some(Some(Value::of(&Tensor::decode(constants.get(name)?, external).ok()?).ok()?)),
        });
        let Some(operands) = operands.collect::<Option<Vec<_>>>() else { return true };
        let value = constant_node(node, opset, operands, external);
        let Some(tensor) = value.as_ref().and_then(Value::tensor) else { return true };
        let tensor = tensor.encode(&node.output[0]);
        constants.insert(node.output[0].clone(), tensor.clone());
        made.push(tensor);
        false
    });
    graph.initializer.append(&mut made);
}

/// The nodes of `graph`, with those beside them that compute in floats; constants that they need are added.
fn twins(
    graph: &GraphProto,
    external: &External,
    mark: &str,
    added: &mut Vec<TensorProto>,
) -> Vec<NodeProto> {
    let mut constants: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|t| (t.name(), t)).collect();
    for node in graph.node.iter().filter(|node| node.op_type() == "Constant") {
        if let (Some(output), Some(tensor)) =
            (node.output.first(), node.attribute.iter().find_map(|a| a.t.as_deref()))
        {
            constants.insert(output, tensor);
        }
    }
    let number = |name: &str| {
        let tensor = Tensor::decode(constants.get(name)?, external).ok()?;
        Some((tensor.dtype, Value::of(&tensor).ok()?.number().ok()?))
    };
    let unit = |node: &NodeProto| {
        let (_, scale) = number(node.input.get(1)?)?;
        match node.input.get(2).map(String::as_str) {
            None | Some("") => Some((scale, 0.0, None)),
            Some(zero) => number(zero).map(|(dtype, zero)| (scale, zero, Some(dtype))),
        }
    };
    let mut twins: HashMap<String, Twin> = HashMap::new();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in &graph.node {
        let twin = |name: Option<&String>| name.and_then(|name| twins.get(name));
        let mut own: Option<Twin> = None;
        match node.op_type() {
            "QuantizeLinear" => {
                let typed = node.attribute.iter().any(|a| a.name() == "output_dtype");
                if let (Some((scale, zero, dtype)), false) = (unit(node), typed)
                    && let Some((least, most)) = range(dtype.unwrap_or(DataType::Uint8))
                {
                    let name = format!("{mark}real {}", node.output[0]);
                    let bound = |units: f64| ((units - zero) * scale) as f32;
                    let mut from = node.input[0].clone();
                    for (op, bound, to) in
                        [("Max", bound(least), format!("{name} low")), ("Min", bound(most), name.clone())]
                    {
                        let constant = format!("{to} bound");
                        added.extend(Tensor::from_f32(Vec::new(), vec![bound]).map(|t| t.encode(&constant)));
                        nodes.push(plain(op, vec![from, constant], to.clone()));
                        from = to;
                    }
                    own = Some(Twin { name, scale, zero });
                }
            }
            "DequantizeLinear" => {
                let found = twin(node.input.first()).zip(unit(node));
                if let Some((twin, _)) = found.filter(|(twin, (s, z, _))| (twin.scale, twin.zero) == (*s, *z))
                {
                    nodes.push(plain("Identity", vec![twin.name.clone()], node.output[0].clone()));
                    continue;
                }
            }
            op if MOVES.contains(&op) && node.output.len() == 1 => {
                let moved = if op == "Concat" { node.input.len() } else { 1 };
                let parts: Option<Vec<&Twin>> =
                    node.input[..moved].iter().map(|name| twins.get(name)).collect();
                if let Some([first, rest @ ..]) = parts.as_deref()
                    && rest.iter().all(|part| (part.scale, part.zero) == (first.scale, first.zero))
                {
                    let mut copy = node.clone();
                    copy.input[0].clone_from(&first.name);
                    rest.iter()
                        .zip(&mut copy.input[1..])
                        .for_each(|(part, name)| name.clone_from(&part.name));
                    copy.output[0] = format!("{mark}real {}", node.output[0]);
                    own = Some(Twin { name: copy.output[0].clone(), scale: first.scale, zero: first.zero });
                    nodes.push(copy);
                }
            }
            _ => {}
        }
        if let Some(own) = own {
            twins.insert(node.output[0].clone(), own);
        }
        nodes.push(node.clone());
    }
    nodes
}

/// A DequantizeLinear that is left, as the arithmetic that it is: between one and a QuantizeLinear tract takes every
/// node for a function of single elements, and makes a table of it.
fn written_out(node: NodeProto, mark: &str, is_one: &dyn Fn(&str) -> bool) -> Vec<NodeProto> {
    let ([x, scale, ..], true) = (&node.input[..], node.op_type() == "DequantizeLinear") else {
        return vec![node];
    };
    if !is_one(scale)
        || node.attribute.iter().any(|a| matches!(a.name(), "output_dtype" | "block_size") && a.i() != 0)
    {
        return vec![node];
    }
    let output = &node.output[0];
    let name = |part: &str| format!("{mark}{part} {output}");
    let mut nodes = vec![cast(x, &name("units"), DataType::Float)];
    let mut units = name("units");
    if let Some(zero) = node.input.get(2).filter(|zero| !zero.is_empty()) {
        nodes.push(cast(zero, &name("zero"), DataType::Float));
        nodes.push(plain("Sub", vec![units, name("zero")], name("centred")));
        units = name("centred");
    }
    nodes.push(plain("Mul", vec![units, scale.clone()], output.clone()));
    nodes
}

fn plain(op: &str, input: Vec<String>, output: String) -> NodeProto {
    NodeProto {
        name: Some(output.clone()),
        op_type: Some(op.into()),
        input,
        output: vec![output],
        ..NodeProto::default()
    }
}

/// Takes out nodes and constants that nothing reads.
fn prune(graph: &mut GraphProto) {
    let mut read: HashSet<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
    let mut kept: Vec<NodeProto> = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node).into_iter().rev() {
        if node.output.iter().any(|output| read.contains(output)) {
            let mut reads: Vec<&str> = node.input.iter().map(String::as_str).collect();
            captured(&node, &mut reads);
            read.extend(reads.into_iter().map(str::to_owned));
            kept.push(node);
        }
    }
    kept.reverse();
    graph.node = kept;
    graph.initializer.retain(|tensor| read.contains(tensor.name()));
}
