//! The order in which nodes run.

use std::collections::VecDeque;

use emo_proto::NodeProto;

use crate::hash::{HashMap, HashSet};

/// The nodes so that each comes after those whose outputs it reads, otherwise as they are in the
/// file. Nodes of a cycle, and what hangs on them, come last.
///
/// `None` where the file has them in such an order already, as it must.
pub fn order(nodes: &[NodeProto]) -> Option<Vec<&NodeProto>> {
    if is_sorted(nodes) {
        return None;
    }
    let mut writers: HashMap<&str, usize> = HashMap::default();
    for (i, node) in nodes.iter().enumerate() {
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            writers.entry(output).or_insert(i);
        }
    }
    let mut readers = vec![Vec::new(); nodes.len()];
    let mut waits = vec![0_usize; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        for writer in node.input.iter().filter_map(|name| writers.get(name.as_str())) {
            readers[*writer].push(i);
            waits[i] += 1;
        }
    }
    let mut ready: VecDeque<usize> = (0..nodes.len()).filter(|&i| waits[i] == 0).collect();
    let mut sorted = Vec::with_capacity(nodes.len());
    while let Some(i) = ready.pop_front() {
        sorted.push(&nodes[i]);
        for &reader in &readers[i] {
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.push_back(reader);
            }
        }
    }
    sorted.extend((0..nodes.len()).filter(|&i| waits[i] > 0).map(|i| &nodes[i]));
    Some(sorted)
}

/// Whether no node reads what a later one writes. What nobody writes disturbs no order.
fn is_sorted(nodes: &[NodeProto]) -> bool {
    let mut written: HashSet<&str> = HashSet::default();
    written.reserve(nodes.len());
    let mut missing: HashSet<&str> = HashSet::default();
    for node in nodes {
        for input in &node.input {
            if !written.contains(input.as_str()) {
                missing.insert(input);
            }
        }
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if !missing.is_empty() && missing.contains(output.as_str()) {
                return false;
            }
            written.insert(output);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, input: &[&str], output: &[&str]) -> NodeProto {
        let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        NodeProto {
            name: Some(name.to_owned()),
            input: strings(input),
            output: strings(output),
            ..Default::default()
        }
    }

    #[test]
    fn writers_come_before_readers_and_cycles_last() {
        let nodes = [
            node("c", &["b"], &["c"]),
            node("x", &["y"], &["x"]),
            node("y", &["x"], &["y"]),
            node("b", &["a", "outer"], &["b"]),
        ];
        let names = |nodes: Vec<&NodeProto>| nodes.iter().map(|n| n.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(order(&nodes).map(names).unwrap(), ["b", "c", "x", "y"]);
        assert!(order(&nodes[3..]).is_none());
    }
}
