//! A model out of its bytes, in lists that have no more room than they need.
//!
//! A list that grows as it is read is up to twice as large as what it holds, and four times where it holds one
//! item; in a graph of a million nodes that is most of the memory. Here the fields are counted first.

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, merge_loop};
use prost::{DecodeError, Message};

use crate::wire::{bounded, count, delimited};
use crate::{Error, GraphProto, ModelProto, NodeProto, Operator, Result};

/// The number of a model's graph, and of a graph's nodes.
const GRAPH: u32 = 7;
const NODE: u32 = 1;

/// Decodes a model; raw data of its tensors shares memory with `bytes`.
///
/// # Errors
/// They are no model, nest deeper than protobuf's limit of 100 messages, or are mostly empty messages.
pub(crate) fn model(bytes: Bytes) -> Result<ModelProto> {
    bounded(&bytes)?;
    let mut model = ModelProto::default();
    decode(&mut model, bytes).map_err(Error::new)?;
    Ok(model)
}

fn decode(model: &mut ModelProto, mut bytes: Bytes) -> Result<(), DecodeError> {
    while bytes.has_remaining() {
        let (tag, wire) = decode_key(&mut bytes)?;
        match delimited(&bytes).filter(|_| tag == GRAPH && wire == WireType::LengthDelimited) {
            Some(held) => {
                let graph = model.graph.get_or_insert_default();
                reserve(graph, held);
                let mut operators = Vec::new();
                merge_loop(graph, &mut bytes, DecodeContext::default(), |graph, bytes, context| {
                    field(graph, bytes, context, &mut operators)
                })?;
            }
            None => model.merge_field(tag, wire, &mut bytes, DecodeContext::default())?,
        }
    }
    Ok(())
}

fn reserve(graph: &mut GraphProto, held: &[u8]) {
    let [nodes, initializers, inputs, outputs, values] = count(held, [NODE, 5, 11, 12, 13]);
    graph.node.reserve_exact(nodes);
    graph.initializer.reserve_exact(initializers);
    graph.input.reserve_exact(inputs);
    graph.output.reserve_exact(outputs);
    graph.value_info.reserve_exact(values);
}

/// The next field of a graph.
fn field(
    graph: &mut GraphProto,
    bytes: &mut Bytes,
    context: DecodeContext,
    operators: &mut Vec<Operator>,
) -> Result<(), DecodeError> {
    let (tag, wire) = decode_key(bytes)?;
    let Some(held) = delimited(bytes).filter(|_| tag == NODE && wire == WireType::LengthDelimited) else {
        return graph.merge_field(tag, wire, bytes, context);
    };
    let mut node = NodeProto::default();
    let [inputs, outputs, attributes] = count(held, [1, 2, 5]);
    node.input.reserve_exact(inputs);
    node.output.reserve_exact(outputs);
    node.attribute.reserve_exact(attributes);
    merge_loop(&mut node, bytes, context, |node, bytes, context| {
        let (tag, wire) = decode_key(bytes)?;
        node.merge_field(tag, wire, bytes, context)
    })?;
    if let Some(operator) = &mut node.op_type {
        operator.shared(operators);
    }
    graph.node.push(node);
    Ok(())
}
