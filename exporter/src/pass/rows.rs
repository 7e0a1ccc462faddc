//! Expansions as products over rows of channels.

use std::collections::HashSet;

use super::edit::{folded, resource};
use crate::graph::{Dim, Graph, Node, Shape, Value};
use crate::op::Op;

/// Narrowest map over whose rows processors run a depthwise convolution eight pixels at a time.
const NARROW: usize = 8;

/// Writes the expansion of a block as a product over rows of channels, where the depthwise
/// convolution behind it strides or its map is narrow: a runtime that moves transposes to where
/// they vanish then has the channels last in that convolution, and steps from channel to channel
/// where stepping from pixel to pixel would be slow.
pub(crate) fn expansions_as_rows(graph: &mut Graph) {
    let narrow = |x: Value| graph.shape(x).map().is_some_and(|[.., width]| width.at_batch_one() < NARROW);
    let slow = |node: &&Node| match node.op {
        Op::Conv { stride, group, .. } => group > 1 && (stride > 1 || narrow(node.inputs[0])),
        _ => false,
    };
    let depthwise = graph.nodes.iter().filter(slow);
    // Several depthwise convolutions may read one expansion.
    let mut expansions: Vec<Value> = depthwise.filter_map(|node| expansion(graph, node.inputs[0])).collect();
    let mut seen = HashSet::new();
    expansions.retain(|&value| seen.insert(value));
    for value in expansions {
        if let Some(index) = graph.writer(value) {
            as_rows(graph, index);
        }
    }
}

/// The output of the biased pointwise convolution that `x` is an activation of.
fn expansion(graph: &Graph, mut x: Value) -> Option<Value> {
    loop {
        let node = &graph.nodes[graph.writer(x)?];
        match node.op {
            Op::Unary(_) | Op::Clip => x = node.inputs[0],
            // Of an activation's spelling: one operand is computed from the other, or is a number.
            Op::Binary(_) => x = *node.inputs.iter().find(|&&v| graph.value(v).constant.is_none())?,
            Op::Conv { stride: 1, pad: 0, group: 1, .. } if node.inputs.len() == 3 => return Some(x),
            _ => return None,
        }
    }
}

/// The biased pointwise convolution `index` as Transpose, Reshape, Gemm, Reshape, Transpose.
fn as_rows(graph: &mut Graph, index: usize) {
    let folded = folded(graph, index);
    resource(graph, index, &folded);
    let Node { name, inputs, outputs, part, .. } = graph.nodes[index].clone();
    let (x, y) = (graph.shape(inputs[0]).0.clone(), graph.shape(outputs[0]).0.clone());
    graph.values[inputs[1].0].shape.0.truncate(2);
    let pixels = x[0].by(x[2].at_batch_one() * x[3].at_batch_one());
    let mut value = |step: &str, shape: Vec<Dim>| graph.add_value(format!("{name}.{step}"), Shape(shape));
    let last = value("channels_last", vec![x[0], x[2], x[3], x[1]]);
    let rows = value("rows", vec![pixels, x[1]]);
    let product = value("product", vec![pixels, y[1]]);
    let map = value("map", vec![y[0], y[2], y[3], y[1]]);
    let operands = vec![rows, inputs[1], inputs[2]];
    let steps = [
        ("channels_last", Op::Transpose { perm: vec![0, 2, 3, 1] }, vec![inputs[0]], last),
        ("rows", Op::Reshape, vec![last], rows),
        ("", Op::Gemm, operands, product),
        ("map", Op::Reshape, vec![product], map),
        ("channels_first", Op::Transpose { perm: vec![0, 3, 1, 2] }, vec![map], outputs[0]),
    ];
    let nodes = steps.into_iter().map(|(step, op, inputs, output)| {
        let name = if step.is_empty() { name.clone() } else { format!("{name}.{step}") };
        Node { name, op, inputs, outputs: vec![output], part }
    });
    graph.nodes.splice(index..=index, nodes);
}
