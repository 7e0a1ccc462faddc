//! What input shapes decide, and what is left of a graph then.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::{GraphProto, TensorProto, ValueInfoProto};
use half::{bf16, f16};

use super::captured;
use super::value::Value;
use crate::fact::Fact;
use crate::infer::Inference;
use crate::run::failure::Failure;

/// The values of the main graph whose elements are numbers.
pub(super) fn known(inference: &Inference) -> HashMap<String, Tensor> {
    let tensor = |(name, fact): (&str, &Fact)| Some((name.to_owned(), constant(fact)?));
    inference.values.iter().filter_map(tensor).collect()
}

/// Type and shape of every value of the main graph.
pub(super) fn values(inference: &Inference) -> HashMap<String, Value> {
    let value = |fact: &Fact| Value { dtype: fact.dtype, dims: dims(fact) };
    inference.values.iter().map(|(name, fact)| (name.to_owned(), value(fact))).collect()
}

fn dims(fact: &Fact) -> Option<Vec<usize>> {
    fact.dims.as_ref().ok()?.iter().map(|dim| usize::try_from(dim.number()?).ok()).collect()
}

fn constant(fact: &Fact) -> Option<Tensor> {
    if !fact.is_tensor() {
        return None;
    }
    let bytes: Bytes = match (&fact.elements, &fact.reals) {
        (Some(elements), _) => {
            let bytes = elements.iter().map(|e| integer(fact.dtype, e.number()?));
            bytes.collect::<Option<Vec<_>>>()?.concat().into()
        }
        (None, Some(reals)) => {
            let bytes = reals.iter().map(|r| float(fact.dtype, r.number()?));
            bytes.collect::<Option<Vec<_>>>()?.concat().into()
        }
        (None, None) => return None,
    };
    Tensor::new(fact.dtype, dims(fact)?, bytes).ok()
}

/// An element as a tensor of this type holds it, if it can.
fn integer(dtype: DataType, n: i64) -> Option<Vec<u8>> {
    Some(match dtype {
        DataType::Bool | DataType::Uint8 => u8::try_from(n).ok()?.to_le_bytes().to_vec(),
        DataType::Int8 => i8::try_from(n).ok()?.to_le_bytes().to_vec(),
        DataType::Int16 => i16::try_from(n).ok()?.to_le_bytes().to_vec(),
        DataType::Int32 => i32::try_from(n).ok()?.to_le_bytes().to_vec(),
        DataType::Int64 => n.to_le_bytes().to_vec(),
        DataType::Uint16 => u16::try_from(n).ok()?.to_le_bytes().to_vec(),
        DataType::Uint32 => u32::try_from(n).ok()?.to_le_bytes().to_vec(),
        DataType::Uint64 => u64::try_from(n).ok()?.to_le_bytes().to_vec(),
        _ => return None,
    })
}

/// The same for floats; an element is rounded to its type already.
fn float(dtype: DataType, x: f64) -> Option<Vec<u8>> {
    Some(match dtype {
        DataType::Float16 => f16::from_f64(x).to_le_bytes().to_vec(),
        DataType::Bfloat16 => bf16::from_f64(x).to_le_bytes().to_vec(),
        DataType::Float => (x as f32).to_le_bytes().to_vec(),
        DataType::Double => x.to_le_bytes().to_vec(),
        _ => return None,
    })
}

/// The part of a graph that something depends on.
#[derive(Debug)]
pub(super) struct Needed<'g> {
    /// For each node, whether it is in it.
    pub nodes: Vec<bool>,
    /// Constants that it reads, in the order in which it comes to them.
    pub constants: Vec<&'g str>,
    /// What its nodes write.
    pub written: HashSet<&'g str>,
}

/// The part of `graph` that computes `outputs` from `inputs`, where `known` are constants.
pub(super) fn needed<'g>(
    graph: &'g GraphProto,
    known: &HashMap<String, Tensor>,
    inputs: &'g [String],
    outputs: &'g [String],
) -> Result<Needed<'g>, Failure> {
    let mut writers: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            writers.entry(output).or_insert(i);
        }
    }
    let sparse = graph.sparse_initializer.iter().filter_map(|s| Some(s.values.as_ref()?.name()));
    let constant: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).chain(sparse).collect();
    let declared: HashSet<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
    let mut fed: HashSet<&str> = HashSet::new();
    for name in inputs.iter().map(String::as_str) {
        if constant.contains(name) || known.contains_key(name) {
            return Err(Failure::wrong("a constant of the graph cannot be fed").at(name));
        }
        if !declared.contains(name) && !writers.contains_key(name) {
            return Err(Failure::wrong(format!("the graph has no value {name}")));
        }
        if !fed.insert(name) {
            return Err(Failure::wrong("expected each input once, found it twice").at(name));
        }
    }
    let mut asked: HashSet<&str> = HashSet::new();
    for name in outputs.iter().map(String::as_str) {
        if !writers.contains_key(name) && !constant.contains(name) && !declared.contains(name) {
            return Err(Failure::wrong(format!("the graph has no value {name}")));
        }
        if !asked.insert(name) {
            return Err(Failure::wrong("expected each output once, found it twice").at(name));
        }
    }

    let mut nodes = vec![false; graph.node.len()];
    let (mut seen, mut constants) = (HashSet::new(), Vec::new());
    let mut open: Vec<&str> = outputs.iter().rev().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        if !seen.insert(name) || fed.contains(name) {
            continue;
        }
        if known.contains_key(name) || constant.contains(name) {
            constants.push(name);
        } else if let Some(&writer) = writers.get(name) {
            if !std::mem::replace(&mut nodes[writer], true) {
                let node = &graph.node[writer];
                let at = open.len();
                open.extend(node.input.iter().map(String::as_str).filter(|name| !name.is_empty()));
                captured(node, &mut open);
                open[at..].reverse();
            }
        } else if declared.contains(name) {
            return Err(Failure::wrong(format!("the outputs depend on {name}, which is not fed")));
        } else {
            return Err(Failure::wrong(format!(
                "no input, initializer or node gives the value {name}, which a node reads"
            )));
        }
    }
    let kept = graph.node.iter().zip(&nodes).filter(|(_, kept)| **kept);
    let written: HashSet<&str> = kept.flat_map(|(node, _)| &node.output).map(String::as_str).collect();
    if let Some(name) = inputs.iter().find(|name| written.contains(name.as_str())) {
        return Err(Failure::wrong("another output of its node is needed, so it cannot be fed").at(name));
    }
    // A kept node may write, beside what is needed, what is known.
    constants.retain(|name| !written.contains(name));
    Ok(Needed { nodes, constants, written })
}
