//! Inputs that a graph can take: what an input holds is seen from what reads it.

use std::collections::{HashMap, HashSet};

use emo_exporter::weights::formula;
use emo_proto::file::OnnxFile;
use emo_proto::tensor_proto::DataType;
use emo_proto::{GraphProto, NodeProto};
use ndarray::{ArrayD, IxDyn};

use crate::infer::{Bindings, Inference, declared, infer_file};

/// What an input may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Variance 1, as what is normalised has.
    Noise,
    /// 0 or 1.
    Mask,
    /// Integers from the first to the second.
    Integers(i64, i64),
}

/// Integers that nothing bounds: sizes, counts, steps.
const SMALL: Kind = Kind::Integers(1, 4);

/// Operators whose first operand goes on as it is, in another place, shape or type.
const MOVES: [&str; 13] = [
    "Cast",
    "Identity",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Transpose",
    "Expand",
    "Slice",
    "Tile",
    "Concat",
    "Split",
    "Pad",
];

/// Operators that ask whether an element is true: the operand's position, where not any.
const ASKS: [(&str, Option<usize>); 6] =
    [("Where", Some(0)), ("Not", None), ("And", None), ("Or", None), ("Xor", None), ("If", Some(0))];

/// What each input of the file may hold, in its order.
pub fn kinds(file: &OnnxFile, names: &[&str]) -> Vec<Kind> {
    let inference = infer_file(file, &Bindings::new());
    let graph = file.model.graph.as_ref();
    let readers = graph.map(readers).unwrap_or_default();
    let own = graph.map(|graph| graph.input.as_slice()).unwrap_or_default();
    let kind = |name: &&str| {
        let input = own.iter().find(|input| input.name() == *name)?;
        let fact = declared(input, &Bindings::new());
        Some(match fact.dtype {
            DataType::Bool => Kind::Mask,
            DataType::Uint8 => Kind::Integers(0, 255),
            DataType::Int8 => Kind::Integers(-128, 127),
            _ if !fact.is_integer() => Kind::Noise,
            _ => used(name, &readers, &inference),
        })
    };
    names.iter().map(|name| kind(name).unwrap_or(Kind::Noise)).collect()
}

/// What both files take.
pub fn common(a: Kind, b: Kind) -> Kind {
    match (a, b) {
        (Kind::Integers(low, high), Kind::Integers(l, h)) if low.max(l) <= high.min(h) => {
            Kind::Integers(low.max(l), high.min(h))
        }
        (Kind::Mask, _) | (_, Kind::Mask) => Kind::Mask,
        (a, _) => a,
    }
}

type Readers<'a> = HashMap<&'a str, Vec<&'a NodeProto>>;

fn readers(graph: &GraphProto) -> Readers<'_> {
    let mut readers: Readers = HashMap::new();
    for node in &graph.node {
        for name in &node.input {
            readers.entry(name).or_default().push(node);
        }
    }
    readers
}

/// The use of the integers called `name`: a place in a table bounds them, whatever else reads them.
fn used(name: &str, readers: &Readers, inference: &Inference) -> Kind {
    let (mut open, mut seen) = (vec![name], HashSet::new());
    let (mut rows, mut mask): (Option<i64>, bool) = (None, false);
    while let Some(name) = open.pop() {
        if !seen.insert(name) {
            continue;
        }
        for node in readers.get(name).into_iter().flatten() {
            let operator = node.op_type();
            let at = |position: usize| node.input.get(position).is_some_and(|input| input == name);
            let asks =
                |&(asking, position): &(&str, Option<usize>)| asking == operator && position.is_none_or(at);
            mask |= ASKS.iter().any(asks) || scales(node, inference);
            if let Some(bound) = bound(node, inference).filter(|_| at(1) || operator == "OneHot") {
                rows = Some(rows.map_or(bound, |rows| rows.min(bound)));
            }
            if MOVES.contains(&operator) && (at(0) || operator == "Concat") {
                mask |= operator == "Cast" && to_bool(node);
                open.extend(node.output.iter().map(String::as_str));
            }
        }
    }
    match (rows, mask) {
        (Some(rows), _) => Kind::Integers(0, (rows - 1).max(0)),
        (None, true) => Kind::Mask,
        (None, false) => SMALL,
    }
}

/// How many rows the table has that a node takes its places in.
fn bound(node: &NodeProto, inference: &Inference) -> Option<i64> {
    let axis = node.attribute.iter().find(|a| a.name() == "axis").and_then(|a| a.i).unwrap_or(0);
    let data = inference.values.get(node.input.first()?.as_str())?;
    match node.op_type() {
        "Gather" | "GatherElements" => {
            let dims = data.dims.as_ref().ok()?;
            let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
            dims.get(usize::try_from(axis).ok()?)?.number()
        }
        "GatherND" => data.dims.as_ref().ok()?.first()?.number(),
        "OneHot" => inference.values.get(node.input.get(1)?.as_str())?.elements.as_ref()?.first()?.number(),
        _ => None,
    }
}

fn to_bool(node: &NodeProto) -> bool {
    node.attribute.iter().any(|a| a.name() == "to" && a.i == Some(DataType::Bool as i64))
}

/// `1 − mask`, or `mask · −10000`: how masks become what is added to scores.
fn scales(node: &NodeProto, inference: &Inference) -> bool {
    /// Added to a score, it leaves nothing.
    const NOTHING: f64 = -1e3;
    let constant = |name: &String| {
        let fact = inference.values.get(name.as_str())?;
        let element = |e: &std::sync::Arc<[crate::sym::Expr]>| Some(e.first()?.number()? as f64);
        let real = fact.reals.as_ref().and_then(|reals| reals.first()?.number());
        real.or_else(|| fact.elements.as_ref().and_then(element))
    };
    match node.op_type() {
        "Sub" => node.input.first().and_then(constant) == Some(1.0),
        "Mul" => node.input.iter().filter_map(constant).any(|x| x <= NOTHING),
        _ => false,
    }
}

/// An input of the kind: draw `seed`.
pub fn fill(kind: Kind, shape: &[usize], seed: u64) -> ArrayD<f32> {
    let noise = formula::input(shape, seed);
    let across = shape.last().copied().unwrap_or(1);
    let elements: Vec<f32> = match kind {
        Kind::Noise => noise,
        // Both ends of a row are what they are, so that no row is all 0 or all 1.
        Kind::Mask => (0..)
            .zip(&noise)
            .map(|(i, &x)| match i % across {
                0 => 1.0,
                last if last + 1 == across => 0.0,
                _ => f32::from(x > -0.5),
            })
            .collect(),
        Kind::Integers(low, high) => noise.iter().map(|&x| between(x, low, high)).collect(),
    };
    ArrayD::from_shape_vec(IxDyn(shape), elements).expect("as many elements as the shape holds")
}

/// The integer at a draw of ±√3.
fn between(x: f32, low: i64, high: i64) -> f32 {
    /// Beyond it, f32 has no integer of its own.
    const EXACT: i64 = 1 << 24;
    let (low, high) = (low.max(-EXACT), high.min(EXACT));
    let share = f64::from(x) / (2.0 * 3f64.sqrt()) + 0.5;
    let n = low as f64 + (share * (high - low + 1) as f64).floor();
    n.clamp(low as f64, high as f64) as f32
}
