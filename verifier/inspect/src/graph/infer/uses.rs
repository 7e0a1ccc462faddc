//! What the nodes around a constant show of it.

use std::collections::HashMap;

use emo_proto::NodeProto;

use super::Inference;
use super::reasons::{DECODING, GROUPS, INPUT, MASK, QUANTISATION, ROTATION, SCALE};
use crate::fact::Fact;
use crate::sym::Expr;

/// Who writes and who reads each value, by scope and name.
pub(super) struct Uses<'f> {
    writers: HashMap<(usize, &'f str), (usize, usize)>,
    readers: HashMap<(usize, &'f str), Vec<usize>>,
    /// The last node of the main graph that has weights.
    last_layer: usize,
}

/// Operators at which the nodes around tell something.
pub(super) const SHOWN: [&str; 8] =
    ["InstanceNormalization", "Gather", "GatherND", "Add", "Where", "Mul", "Div", "Sub"];
/// Operators that hand elements on in another shape.
const SHAPES: [&str; 9] =
    ["Reshape", "Transpose", "Unsqueeze", "Squeeze", "Cast", "Identity", "Flatten", "Expand", "Slice"];
/// Shapes, masks and lone numbers that a chain of this many nodes leads through.
const FAR: usize = 6;
/// Channels of an image.
const CHANNELS: u64 = 4;

impl<'f> Uses<'f> {
    pub(super) fn of(found: &'f Inference) -> Self {
        let mut uses = Self { writers: HashMap::new(), readers: HashMap::new(), last_layer: 0 };
        for (index, facts) in found.nodes.iter().enumerate() {
            for (at, name) in facts.node.output.iter().enumerate() {
                uses.writers.insert((facts.scope, name), (index, at));
            }
            for name in facts.node.input.iter().filter(|name| !name.is_empty()) {
                uses.readers.entry((facts.scope, name)).or_default().push(index);
            }
            if matches!(facts.node.op_type(), "Conv" | "Gemm" | "MatMul" | "ConvTranspose" | "LSTM" | "GRU") {
                uses.last_layer = index;
            }
        }
        uses
    }

    fn writer(
        &self,
        found: &'f Inference,
        scope: usize,
        name: &str,
    ) -> Option<(&'f NodeProto, usize, usize)> {
        let (index, at) = *self.writers.get(&(scope, name))?;
        Some((found.nodes[index].node, index, at))
    }

    fn readers(&self, found: &'f Inference, index: usize) -> impl Iterator<Item = usize> {
        let facts = &found.nodes[index];
        let lists =
            facts.node.output.iter().filter_map(|name| self.readers.get(&(facts.scope, name.as_str())));
        lists.flatten().copied()
    }

    /// The first nodes behind one that are of none of the operators `through`.
    fn behind(&self, found: &'f Inference, index: usize, through: &[&str]) -> Vec<usize> {
        let (mut open, mut ends) = (vec![(index, 0)], Vec::new());
        while let Some((at, far)) = open.pop() {
            for reader in self.readers(found, at) {
                match through.contains(&found.nodes[reader].node.op_type()) {
                    true if far < FAR => open.push((reader, far + 1)),
                    _ => ends.push(reader),
                }
            }
            if ends.len() > 64 {
                break;
            }
        }
        ends
    }

    /// What a constant is that node `index` reads as `operand`, where the nodes around show that it is
    /// no parameter.
    pub(super) fn shows(
        &self,
        found: &'f Inference,
        index: usize,
        operand: usize,
        fact: &Fact,
    ) -> Option<&'static str> {
        let facts = &found.nodes[index];
        let read = facts.node.input.get(operand)?;
        match facts.node.op_type() {
            "InstanceNormalization" => self.is_for_groups(found, index).then_some(GROUPS),
            "Gather" | "GatherND" => {
                let ends = self.behind(found, index, &SHAPES);
                let rotate = !ends.is_empty() && ends.iter().all(|&end| self.rotates(found, end));
                rotate.then_some(ROTATION)
            }
            "Add" | "Where" if self.masks(found, index, read, fact) => Some(MASK),
            "Mul" | "Div" if self.quantises(found, index, operand) => Some(QUANTISATION),
            "Mul" | "Div" if fact.count().is(1) && self.scales(found, index) => Some(SCALE),
            "Mul" if self.rotates(found, index) => Some(ROTATION),
            "Add" | "Mul" | "Sub" | "Div" if self.is_input(found, index, operand, fact) => Some(INPUT),
            "Add" | "Mul" | "Sub" | "Div" if index > self.last_layer && spread(fact) > 1 => Some(DECODING),
            _ => None,
        }
    }

    /// A norm of rank 3 between two reshapes whose own weights come after: an exporter's spelling of a
    /// norm over groups.
    fn is_for_groups(&self, found: &'f Inference, index: usize) -> bool {
        let facts = &found.nodes[index];
        let from = facts.node.input.first().and_then(|name| self.writer(found, facts.scope, name));
        let mut ends = self.readers(found, index).peekable();
        from.is_some_and(|(node, ..)| node.op_type() == "Reshape")
            && ends.peek().is_some()
            && ends.all(|end| found.nodes[end].node.op_type() == "Reshape")
    }

    /// Whether a sum goes to a softmax, and what is added is the same for every head or every query.
    fn masks(&self, found: &'f Inference, index: usize, read: &str, fact: &Fact) -> bool {
        if !self.biases(found, index) {
            return false;
        }
        let scope = found.nodes[index].scope;
        // The value as it is added, where a node has given it axes.
        let added = self
            .writers
            .get(&(scope, read))
            .and_then(|&(at, out)| found.nodes[at].outputs.get(out).map(AsRef::as_ref));
        let Ok(dims) = &added.unwrap_or(fact).dims else { return false };
        let sum = facts_of(found, index);
        // The axes of heads and of queries, from the end.
        [3, 2].into_iter().any(|from_end| {
            let of = |dims: &[Expr]| dims.len().checked_sub(from_end).and_then(|at| dims.get(at).cloned());
            let (own, all) = (of(dims), sum.and_then(of));
            own.is_none_or(|own| own.is(1)) && all.is_none_or(|all| !all.is(1))
        })
    }

    /// Whether node `index` adds to the products of queries and keys that a softmax takes.
    pub(super) fn biases(&self, found: &'f Inference, index: usize) -> bool {
        if !self.is_score(found, index) {
            return false;
        }
        let ends = self.behind(found, index, &["Reshape", "Add", "Cast", "Where"]);
        !ends.is_empty() && ends.into_iter().all(|end| found.nodes[end].node.op_type() == "Softmax")
    }

    /// Whether the other factor is a scale that the input's range decides.
    fn quantises(&self, found: &'f Inference, index: usize, operand: usize) -> bool {
        let facts = &found.nodes[index];
        let other = facts.node.input.get(1 - operand.min(1));
        let from = other.and_then(|name| self.writer(found, facts.scope, name));
        from.is_some_and(|(node, _, at)| node.op_type() == "DynamicQuantizeLinear" && at == 1)
    }

    /// Whether a value is a product of two activations, scaled, shifted and reshaped.
    fn is_score(&self, found: &'f Inference, index: usize) -> bool {
        let mut at = index;
        for _ in 0..FAR {
            let facts = &found.nodes[at];
            let mut before = facts.node.input.iter().filter_map(|name| self.writer(found, facts.scope, name));
            let plain = matches!(facts.node.op_type(), "Add" | "Mul" | "Div" | "Where");
            match facts.node.op_type() {
                "MatMul" | "Einsum" => return self.is_product(found, at),
                _ if plain || SHAPES.contains(&facts.node.op_type()) => {
                    let data = |&(_, at, out): &(&NodeProto, usize, usize)| {
                        found.nodes[at].outputs.get(out).is_some_and(|fact| fact.source.is_none())
                    };
                    match before.find(data) {
                        Some((_, index, _)) => at = index,
                        None => return false,
                    }
                }
                _ => return false,
            }
        }
        false
    }

    /// Whether no constant is a factor.
    fn is_product(&self, found: &'f Inference, at: usize) -> bool {
        let facts = &found.nodes[at];
        let values = found.body(facts.scope).map_or(&found.values, |body| &body.values);
        let constant = |name: &String| values.get(name.as_str()).is_some_and(|fact| fact.source.is_some());
        matches!(facts.node.op_type(), "MatMul" | "Einsum") && !facts.node.input.iter().any(constant)
    }

    /// Whether it stands beside a product of two activations.
    fn scales(&self, found: &'f Inference, index: usize) -> bool {
        let product = |at: usize| self.is_product(found, at);
        let facts = &found.nodes[index];
        let before = facts.node.input.iter().filter_map(|name| self.writer(found, facts.scope, name));
        let mut before = before.map(|(_, at, _)| at);
        before.any(product) || self.behind(found, index, &SHAPES).into_iter().any(product)
    }

    /// Whether a product is one of two that are added, each of data and a table of more than one axis.
    fn rotates(&self, found: &'f Inference, index: usize) -> bool {
        let table = |at: usize| {
            let facts = &found.nodes[at];
            facts.node.op_type() == "Mul" && facts.outputs.first().is_some_and(|fact| spread(fact) > 1)
        };
        if !table(index) {
            return false;
        }
        let mut readers = self.readers(found, index).peekable();
        readers.peek().is_some()
            && readers.all(|sum| {
                let facts = &found.nodes[sum];
                let writers =
                    facts.node.input.iter().filter_map(|name| self.writer(found, facts.scope, name));
                let factors: Vec<usize> = writers.map(|(_, at, _)| at).collect();
                matches!(facts.node.op_type(), "Add" | "Sub")
                    && factors.len() == 2
                    && factors.iter().all(|&at| table(at) && self.has_table(found, at))
            })
    }

    /// Whether a factor of a product has more than one axis, and constants or a gather make it.
    fn has_table(&self, found: &'f Inference, index: usize) -> bool {
        let facts = &found.nodes[index];
        let values = found.body(facts.scope).map_or(&found.values, |body| &body.values);
        facts.node.input.iter().any(|name| {
            let mut name = name.as_str();
            for _ in 0..FAR {
                match values.get(name) {
                    Some(fact) if fact.source.is_some() => return spread(fact) > 1,
                    _ => {}
                }
                match self.writer(found, facts.scope, name) {
                    Some((node, ..)) if node.op_type() == "Gather" => return true,
                    Some((node, ..)) if SHAPES.contains(&node.op_type()) => name = &node.input[0],
                    _ => return false,
                }
            }
            false
        })
    }

    /// Whether a few numbers meet the graph's input, which other such numbers alone have changed.
    fn is_input(&self, found: &'f Inference, index: usize, operand: usize, fact: &Fact) -> bool {
        let few = |fact: &Fact| fact.count().count().is_some_and(|n| n <= CHANNELS);
        let facts = &found.nodes[index];
        if facts.scope != 0 || !few(fact) || fact.count().is(1) {
            return false;
        }
        let Some(mut name) = facts.node.input.get(1 - operand.min(1)) else { return false };
        for _ in 0..FAR {
            let Some((node, ..)) = self.writer(found, 0, name) else {
                return found.values.get(name.as_str()).is_some_and(|fact| fact.source.is_none());
            };
            let plain = matches!(node.op_type(), "Add" | "Mul" | "Sub" | "Div");
            let data = |name: &&String| found.values.get(name.as_str()).is_some_and(|f| f.source.is_none());
            match node.input.iter().find(data) {
                Some(before) if plain || SHAPES.contains(&node.op_type()) => name = before,
                _ => return false,
            }
        }
        false
    }
}

/// The extents of a node's first output.
fn facts_of<'f>(found: &'f Inference, index: usize) -> Option<&'f [Expr]> {
    found.nodes[index].outputs.first()?.dims.as_deref().ok()
}

/// How many axes hold more than one element.
fn spread(fact: &Fact) -> usize {
    fact.dims.as_ref().map_or(0, |dims| dims.iter().filter(|dim| !dim.is(1)).count())
}
