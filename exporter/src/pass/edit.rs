//! What the passes do to a graph.

use crate::graph::{Affine, FoldedConv, Graph, Source, Value};

/// What is folded into the convolution `conv` so far.
pub(super) fn folded(graph: &Graph, conv: usize) -> FoldedConv {
    let inputs = &graph.nodes[conv].inputs;
    match &graph.value(inputs[1]).constant {
        Some(Source::FoldedWeight(folded)) => folded.clone(),
        _ => FoldedConv {
            weight: graph.value(inputs[1]).name.clone(),
            bias: inputs.get(2).map(|&b| graph.value(b).name.clone()),
            ..FoldedConv::default()
        },
    }
}

/// Gives the convolution `conv` the weight and the bias of `folded`.
pub(super) fn resource(graph: &mut Graph, conv: usize, folded: &FoldedConv) {
    let inputs = graph.nodes[conv].inputs.clone();
    graph.values[inputs[1].0].constant = Some(Source::FoldedWeight(folded.clone()));
    if let Some(bias) = inputs.get(2) {
        graph.values[bias.0].constant = Some(Source::FoldedBias(folded.clone()));
    }
}

/// Notes `norm` in the convolution's weight and bias; returns how many bias elements are new.
pub(super) fn fold_into(graph: &mut Graph, conv: usize, norm: &Affine, before: bool) -> usize {
    let weight = graph.nodes[conv].inputs[1];
    let mut folded = folded(graph, conv);
    *(if before { &mut folded.before } else { &mut folded.after }) = Some(norm.clone());
    resource(graph, conv, &folded);
    if graph.nodes[conv].inputs.len() > 2 {
        return 0;
    }
    let out = graph.shape(weight).0[0];
    let name = format!("{}.bias", graph.nodes[conv].name);
    let bias = graph.add_constant(name, [out].into(), Source::FoldedBias(folded));
    graph.nodes[conv].inputs.push(bias);
    out.at_batch_one()
}

/// Takes a node out and lets what read `output` read `input`.
pub(super) fn remove(graph: &mut Graph, index: usize, input: Value, output: Value) {
    graph.nodes.remove(index);
    let operands = graph.nodes.iter_mut().flat_map(|n| &mut n.inputs).chain(&mut graph.outputs);
    operands.filter(|v| **v == output).for_each(|v| *v = input);
}
