//! Norms go into the convolutions beside them, linear neighbours become one.

use super::edit::{fold_into, folded, remove, resource};
use crate::graph::{Affine, Dim, Graph, Value};
use crate::op::{Binary, Op};
use crate::rewrite::{Kind, Rewrite};

/// Folds every batch norm that has a convolution to go into.
///
/// Forward, where all that reads the norm are pointwise convolutions (a padded kernel would
/// see zeros where the norm's shift should be); backward otherwise, where a convolution
/// feeds the norm and nothing else.
pub(crate) fn batch_norms(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        let node = &graph.nodes[index];
        let Op::BatchNormalization { epsilon } = node.op else {
            index += 1;
            continue;
        };
        let (x, y) = (node.inputs[0], node.outputs[0]);
        let norm = Affine::BatchNorm { name: node.name.clone(), epsilon };
        let forward: Vec<usize> = graph.readers(y).collect();
        let backward = graph.writer(x).filter(|&w| matches!(graph.nodes[w].op, Op::Conv { .. }));
        let pointwise =
            |&i: &usize| matches!(graph.nodes[i].op, Op::Conv { pad: 0, group: 1, stride: 1, .. });
        let is_output = |v: Value| graph.outputs.contains(&v);
        let (targets, before) = if !forward.is_empty() && forward.iter().all(pointwise) && !is_output(y) {
            (forward, true)
        } else if let Some(conv) = backward.filter(|_| graph.readers(x).count() == 1 && !is_output(x)) {
            (vec![conv], false)
        } else {
            index += 1;
            continue;
        };
        let biases = targets.iter().map(|&conv| fold_into(graph, conv, &norm, before)).sum::<usize>();
        let elements = graph.shape(x).elements().map_or(0, Dim::at_batch_one) as i64;
        let channels = graph.shape(graph.nodes[index].inputs[1]).elements().map_or(0, Dim::at_batch_one);
        graph.rewrites.push(Rewrite {
            kind: Kind::Norm,
            what: graph.nodes[index].name.clone(),
            into: targets.iter().map(|&i| graph.nodes[i].name.as_str()).collect::<Vec<_>>().join(", "),
            parameters: 2 * channels as i64 - biases as i64,
            macs: 0,
            fvcore: 2 * elements,
        });
        remove(graph, index, x, y);
    }
}

/// Folds every product of a convolution, which nothing else reads, with a parameter per channel.
pub(crate) fn layer_scales(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        let Some(conv) = scaled(graph, index) else {
            index += 1;
            continue;
        };
        let (x, scale, y) =
            (graph.nodes[index].inputs[0], graph.nodes[index].inputs[1], graph.nodes[index].outputs[0]);
        let name = graph.value(scale).name.clone();
        let mut folded = folded(graph, conv);
        folded.after = Some(Affine::Scale { name: name.clone() });
        resource(graph, conv, &folded);
        let parameters = graph.shape(scale).elements().map_or(0, Dim::at_batch_one) as i64;
        let free = Rewrite::free(Kind::LayerScale, name, graph.nodes[conv].name.clone());
        graph.rewrites.push(Rewrite { parameters, ..free });
        remove(graph, index, x, y);
    }
}

/// The convolution that the node `index` does nothing but scale, channel by channel.
fn scaled(graph: &Graph, index: usize) -> Option<usize> {
    let node = &graph.nodes[index];
    let (Op::Binary(Binary::Mul), &[x, scale]) = (&node.op, node.inputs.as_slice()) else { return None };
    let conv = graph.writer(x).filter(|&w| matches!(graph.nodes[w].op, Op::Conv { .. }))?;
    let channels = graph.shape(x).0[1];
    let fits = graph.value(scale).is_parameter()
        && graph.shape(scale).0 == [Dim::Fixed(1), channels, Dim::Fixed(1), Dim::Fixed(1)];
    let alone = graph.readers(x).count() == 1 && !graph.outputs.contains(&x);
    (fits && alone && folded(graph, conv).after.is_none()).then_some(conv)
}

/// Makes one of each pair of pointwise convolutions that nothing stands between, where the first
/// has no bias, no other reader, and the one costs less than the two.
pub(crate) fn merge_neighbours(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        let Some(second) = neighbour(graph, index) else {
            index += 1;
            continue;
        };
        let [inner, outer] = [index, second].map(|node| graph.nodes[node].inputs[1]);
        let extent = |v: Value, axis: usize| graph.shape(v).0[axis].at_batch_one() as i64;
        let (input, middle, out) = (extent(inner, 1), extent(inner, 0), extent(outer, 0));
        let parameters = middle * input + out * middle - out * input;
        let (x, y) = (graph.nodes[index].inputs[0], graph.nodes[index].outputs[0]);
        let pixels = graph.shape(y).elements().map_or(0, Dim::at_batch_one) as i64 / middle.max(1);
        let macs = parameters * pixels;
        let mut folded = folded(graph, second);
        folded.inner = Some(graph.value(inner).name.clone());
        graph.values[outer.0].shape.0[1] = graph.shape(inner).0[1];
        resource(graph, second, &folded);
        let [what, into] = [index, second].map(|node| graph.nodes[node].name.clone());
        graph.rewrites.push(Rewrite { kind: Kind::Merge, what, into, parameters, macs, fvcore: macs });
        remove(graph, index, x, y);
    }
}

/// The convolution that alone reads the convolution `index`, if they can be one.
fn neighbour(graph: &Graph, index: usize) -> Option<usize> {
    let pointwise = |i: usize| matches!(graph.nodes[i].op, Op::Conv { pad: 0, group: 1, stride: 1, .. });
    let node = &graph.nodes[index];
    let untouched = |v: &Value| graph.value(*v).is_parameter();
    let kernel = |i: usize| graph.shape(graph.nodes[i].inputs[1]).0[2..] == [Dim::Fixed(1); 2];
    let y = *node.outputs.first()?;
    let mut readers = graph.readers(y);
    let second = readers.next().filter(|_| readers.next().is_none() && !graph.outputs.contains(&y))?;
    let fits = pointwise(index) && pointwise(second) && kernel(index) && kernel(second);
    let plain = node.inputs.len() == 2 && node.inputs[1..].iter().all(untouched);
    let extent = |node: usize, axis: usize| graph.shape(graph.nodes[node].inputs[1]).0[axis].at_batch_one();
    let cheaper = || {
        let (input, middle, out) = (extent(index, 1), extent(index, 0), extent(second, 0));
        out * input < middle * (input + out)
    };
    (fits && plain && cheaper()).then_some(second)
}
