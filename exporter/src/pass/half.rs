//! A graph in float16: weights and computation, but for what keeps float32.
//!
//! Inputs and outputs keep their types. A Cast stands only where a value goes from one type to
//! the other, once however many nodes read it. `LayerNormalization` computes its statistics in
//! float32 by its own definition (`stash_type`), so it needs none.

use std::collections::HashMap;

use emo_proto::tensor_proto::DataType;

use crate::graph::{Graph, Node, Part, Value, ValueInfo};
use crate::op::Op;

/// The largest float16.
pub const LARGEST: f32 = 65504.0;
/// The smallest float16 of full precision; below it digits are lost, and below 2⁻²⁵ all of them.
pub const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;

/// The values of a graph that are float16, by name: what a report of ranges has to look at. A
/// float32 file of the same request calls them the same.
pub fn tensors(graph: &Graph) -> impl Iterator<Item = &ValueInfo> {
    graph.values.iter().filter(|v| v.dtype == DataType::Float16)
}

/// Lowers `graph` to float16, but for the nodes of the parts `kept`.
pub(crate) fn lower(graph: &mut Graph, kept: &[Part]) {
    let mut lowering = Lowering { made: HashMap::new(), nodes: Vec::with_capacity(graph.nodes.len()) };
    for mut node in std::mem::take(&mut graph.nodes) {
        let dtype = match node.op {
            // From bytes to numbers, and what follows is lowered where it is read.
            Op::Cast { .. } => {
                lowering.nodes.push(node);
                continue;
            }
            _ if kept.contains(&node.part) || node.part == Part::Boxes => DataType::Float,
            _ => DataType::Float16,
        };
        for operand in &mut node.inputs {
            if matches!(graph.value(*operand).dtype, DataType::Float | DataType::Float16) {
                *operand = lowering.of_type(graph, *operand, dtype);
            }
        }
        for output in &node.outputs {
            let value = &mut graph.values[output.0];
            if value.dtype == DataType::Float {
                value.dtype = dtype;
            }
        }
        lowering.nodes.push(node);
    }
    for output in graph.outputs.clone() {
        if graph.value(output).dtype != DataType::Float16 {
            continue;
        }
        // The name belongs to what leaves the graph.
        let name = graph.value(output).name.clone();
        graph.values[output.0].name = format!("{name}.half");
        let cast = lowering.of_type(graph, output, DataType::Float);
        graph.values[cast.0].name = name;
        graph.outputs.iter_mut().filter(|o| **o == output).for_each(|o| *o = cast);
    }
    graph.nodes = lowering.nodes;
}

struct Lowering {
    /// What a value is in another type.
    made: HashMap<(Value, DataType), Value>,
    nodes: Vec<Node>,
}

impl Lowering {
    /// The value in that type: itself, a constant of it, or a cast.
    fn of_type(&mut self, graph: &mut Graph, value: Value, dtype: DataType) -> Value {
        let info = graph.value(value).clone();
        if info.dtype == dtype {
            return value;
        }
        if let Some(&made) = self.made.get(&(value, dtype)) {
            return made;
        }
        let suffix = if dtype == DataType::Float16 { "half" } else { "float" };
        let name = match info.constant {
            // A parameter is called what it is published as, in whatever type.
            Some(_) if !matches!(info.constant, Some(crate::graph::Source::Numbers(_))) => info.name.clone(),
            _ => format!("{}.{suffix}", info.name),
        };
        graph.values.push(ValueInfo { name: name.clone(), dtype, ..info.clone() });
        let made = Value(graph.values.len() - 1);
        self.made.insert((value, dtype), made);
        if info.constant.is_none() {
            let (op, part) = (Op::Cast { to: dtype }, Part::Other);
            self.nodes.push(Node { name, op, inputs: vec![value], outputs: vec![made], part });
        }
        made
    }
}
