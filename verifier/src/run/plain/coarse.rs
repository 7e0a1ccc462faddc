//! What rounds more coarsely than f32.

use std::collections::HashSet;

use emo_proto::GraphProto;
use emo_proto::tensor_proto::DataType;
use emo_proto::text::label;

use super::{Concrete, captured};
use crate::eval::{find, is_coarse, range};

/// The nodes behind an input of the graph that round more coarsely than f32, and the types that they round to.
pub(crate) fn coarse(model: &Concrete, graph: &GraphProto) -> Vec<(String, DataType)> {
    let mut reached: HashSet<&str> = graph.input.iter().map(emo_proto::ValueInfoProto::name).collect();
    let mut found = Vec::new();
    for node in &graph.node {
        let mut reads: Vec<&str> = node.input.iter().map(String::as_str).collect();
        captured(node, &mut reads);
        if !reads.iter().any(|name| reached.contains(name)) {
            continue;
        }
        reached.extend(node.output.iter().map(String::as_str).filter(|name| !name.is_empty()));
        if node
            .input
            .first()
            .is_some_and(|name| graph.input.iter().any(|p| p.name() == name) && !model.has(name))
        {
            // It makes an input of the file out of f32, which is no node of the file.
            continue;
        }
        let row = find(node.domain(), node.op_type());
        let (moves, quantises) = row.map_or((false, false), |row| (row.moves, row.quantises));
        let rounds = |dtype: &DataType| quantises && range(*dtype).is_some() || !moves && is_coarse(*dtype);
        let dtype = node.output.iter().map(|name| model.dtype(name)).find(rounds);
        found.extend(dtype.map(|dtype| (label(node), dtype)));
    }
    found
}
