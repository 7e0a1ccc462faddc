//! Pointwise convolutions over maps that lie side by side, map by map.

use super::edit::folded;
use crate::graph::{Dim, FoldedConv, Graph, Node, Shape, Source, Value};
use crate::op::{Binary, Op};
use crate::rewrite::{Kind, Rewrite};

/// One of the maps that lie side by side.
struct Joined {
    /// As it lies there.
    map: Value,
    /// What it was made of by nodes that do the same to every channel, the first of which is `first`.
    source: Value,
    first: Option<usize>,
    channels: usize,
}

/// Takes every pointwise convolution over maps side by side apart into one a map, whose results are added. A part stands
/// before what resizes its map: resizing is linear and the same for all channels, so the two may change places. At least
/// one map is not resized: its part has the bias. Others become no wider, so that resizing costs the same.
pub(crate) fn before_resizes(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        match joined(graph, index) {
            Some((concat, maps)) => take_apart(graph, index, concat, &maps),
            None => index += 1,
        }
    }
}

fn extent(graph: &Graph, value: Value, axis: usize) -> usize {
    graph.shape(value).0[axis].at_batch_one()
}

/// The maps that the pointwise convolution `conv` reads, and the node that lays them side by side.
fn joined(graph: &Graph, conv: usize) -> Option<(usize, Vec<Joined>)> {
    let node = &graph.nodes[conv];
    let Op::Conv { stride: 1, pad: 0, group: 1, .. } = node.op else { return None };
    let weight = node.inputs[1];
    let pointwise = graph.shape(weight).0[2..] == [Dim::Fixed(1); 2] && folded(graph, conv).inner.is_none();
    let concat = graph.writer(node.inputs[0]).filter(|_| pointwise && alone(graph, node.inputs[0]))?;
    let Op::Concat { axis: 1 } = graph.nodes[concat].op else { return None };
    let maps: Vec<Joined> = graph.nodes[concat].inputs.iter().map(|&map| source(graph, map)).collect();
    let out = extent(graph, weight, 0);
    let mut resized = maps.iter().filter(|map| map.first.is_some()).peekable();
    let fits = resized.peek().is_some() && resized.all(|map| map.channels == out);
    (fits && maps.iter().any(|map| map.first.is_none())).then_some((concat, maps))
}

/// Whether one node reads the value and nobody else.
fn alone(graph: &Graph, value: Value) -> bool {
    graph.readers(value).count() == 1 && !graph.outputs.contains(&value)
}

fn source(graph: &Graph, map: Value) -> Joined {
    let (mut source, mut first) = (map, None);
    while let Some(index) = graph.writer(source).filter(|_| alone(graph, source)) {
        let node = &graph.nodes[index];
        let mut computed = node.inputs.iter().filter(|&&v| graph.value(v).constant.is_none());
        // A product of two computed maps mixes what lies in them.
        source = match (&node.op, computed.next(), computed.next()) {
            (Op::Resize { .. } | Op::MatMul, Some(&x), None) => x,
            _ => break,
        };
        first = Some(index);
    }
    Joined { map, source, first, channels: extent(graph, map, 1) }
}

fn take_apart(graph: &mut Graph, conv: usize, concat: usize, maps: &[Joined]) {
    let whole = graph.nodes[conv].clone();
    let form = folded(graph, conv);
    let (y, out) = (whole.outputs[0], extent(graph, whole.inputs[1], 0));
    let pixels = |graph: &Graph, v: Value| graph.shape(v).elements().map_or(0, Dim::at_batch_one) as i64;
    let (mut before, mut unmoved): (Vec<(usize, Node)>, Vec<Node>) = (Vec::new(), Vec::new());
    let (mut terms, mut macs, mut column) = (Vec::new(), 0, 0);
    for (i, map) in maps.iter().enumerate() {
        let name = format!("{}.{i}", whole.name);
        let columns = column..column + map.channels;
        column = columns.end;
        let part = Source::FoldedWeight(FoldedConv { columns: Some(columns), ..form.clone() });
        let shape = Shape::from([out, map.channels, 1, 1]);
        let weight = graph.add_constant(format!("{name}.weight"), shape, part);
        let mut shape = graph.shape(map.source).clone();
        shape.0[1] = out.into();
        let result = graph.add_value(name.clone(), shape);
        let (op, part) = (whole.op.clone(), whole.part);
        let mut node = Node { name, op, inputs: vec![map.source, weight], outputs: vec![result], part };
        match map.first {
            Some(first) => {
                let operands = graph.nodes[first].inputs.iter_mut();
                operands.filter(|v| **v == map.source).for_each(|v| *v = result);
                macs += (pixels(graph, map.map) - pixels(graph, result)) * map.channels as i64;
                terms.push(map.map);
                before.push((first, node));
            }
            None => {
                if unmoved.is_empty() {
                    node.inputs.extend(whole.inputs.get(2));
                }
                unmoved.push(node);
            }
        }
    }
    // What is not resized is added last: runtimes make a convolution, a sum and an activation one.
    terms.extend(unmoved.iter().map(|node| node.outputs[0]));
    let sums = sums(graph, &whole, &terms, y);
    graph.nodes.splice(conv..=conv, unmoved.into_iter().chain(sums));
    graph.nodes.remove(concat);
    before.sort_by_key(|(first, _)| std::cmp::Reverse(*first));
    for (first, node) in before {
        graph.nodes.insert(first, node);
    }
    let free = Rewrite::free(Kind::Split, whole.name.clone(), whole.name);
    graph.rewrites.push(Rewrite { macs, fvcore: macs, ..free });
}

/// The sum of `terms` as `y`, one after the other.
fn sums(graph: &mut Graph, whole: &Node, terms: &[Value], y: Value) -> Vec<Node> {
    let Some((&first, rest)) = terms.split_first() else { return Vec::new() };
    let (mut sum, mut nodes) = (first, Vec::with_capacity(rest.len()));
    for (i, &term) in rest.iter().enumerate() {
        let name = format!("{}.sum.{i}", whole.name);
        let shape = graph.shape(y).clone();
        let result = if i + 1 == rest.len() { y } else { graph.add_value(name.clone(), shape) };
        let (op, part) = (Op::Binary(Binary::Add), whole.part);
        nodes.push(Node { name, op, inputs: vec![term, sum], outputs: vec![result], part });
        sum = result;
    }
    nodes
}
