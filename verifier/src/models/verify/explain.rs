//! What no published layer explains.
//!
//! Test inputs reach what they reach: a comparison with a pixel that no test input has, or a branch, changes nothing
//! of what they show. EMO neither compares nor branches, so every operator on the way from the picture to the logits
//! must be one that the published network asks for between two of its linear layers: the network is written down as
//! *steps* (an activation, a norm, a shortcut), each step may be spelled in the ways of a table, and what the file
//! has there must be exactly one spelling of each. Movement of elements, sums with constants and products by them
//! are maps that any input shows, and are free.

use std::collections::{BTreeMap, HashSet};

use emo_exporter::target::Output;
use emo_proto::tensor_proto::DataType;
use emo_proto::{ModelProto, ValueInfoProto};

use crate::finding::{Finding, Severity};
use crate::infer::{Bindings, Inference, NodeFacts, infer};
use crate::models::layers::{Place, linear};
use crate::models::plan::{Plan, Step};
use crate::models::recognise::{Input, Recognition};

use crate::path::DataPath;

/// The code of what is found here.
pub const UNEXPLAINED: &str = "unexplained-operator";

/// The code of an output that is not the logits.
pub const UNJUDGED: &str = "unjudged-output";

/// An operator that is not affine in the picture, by what it does: an operator's name, with a 2 where it takes two
/// computed values.
type Token = &'static str;

/// Every way to write a step, as the tokens that it consists of.
fn spellings(step: Step) -> &'static [&'static [Token]] {
    match step {
        Step::Silu => &[&["Sigmoid", "Mul2"], &["QuickGelu"], &["Swish"], &["Exp", "Div2"]],
        Step::Gelu => &[
            &["Gelu"],
            &["Erf", "Mul2"],
            // Abramowitz and Stegun's series in t = 1/(1 + p·|x|).
            &["Abs", "Reciprocal", "Mul2", "Mul2", "Mul2", "Mul2", "Mul2", "Mul2", "Square", "Exp", "Add2"],
        ],
        Step::Gate => &[&["Sigmoid", "Mul2"]],
        Step::Softmax => &[&["Softmax"], &["ReduceMax", "Sub2", "Exp", "Div2"]],
        Step::Product => &[&["MatMul2"]],
        Step::Sum => &[&["Add2"]],
        Step::Relu => &[&["Relu"], &["Max"]],
        Step::Sigmoid => &[&["Sigmoid"]],
        Step::Relu6 => &[&["Clip"], &["Max", "Min"], &["Relu", "Min"]],
        Step::LayerNorm => &[
            &["LayerNormalization"],
            &["Sub2", "Square", "Sqrt", "Div2"],
            &["Sub2", "Square", "Sqrt", "Reciprocal", "Mul2"],
            &["Sub2", "Sub2", "Square", "Sqrt", "Div2"],
        ],
    }
}

/// An operator that is not affine in the picture.
struct Found {
    token: Token,
    place: String,
    operator: String,
}

/// What lies on the way from `input` to `output` and is in no published layer of the recognised network, nor in what
/// makes `gives` of its outputs: first where boxes are kept of what the last layers give, which any file does in its own
/// way, by comparisons, so that it is a remark there; then all else, which keeps a verdict open.
#[must_use]
pub fn unexplained(
    inference: &Inference,
    recognition: &Recognition,
    path: &DataPath,
    gives: Output,
) -> (Vec<Finding>, Vec<Finding>) {
    // Boxes are bounded as the sides of the image ask.
    let size = Input::of(inference).map_or_else(|| recognition.model.published_size(), |input| input.size);
    let made = making(recognition, gives, size);
    let parts: HashSet<usize> =
        recognition.found.iter().flat_map(|found| found.parts.iter().map(|part| part.node)).collect();
    let mut by_place: BTreeMap<&Place, Vec<Found>> = BTreeMap::new();
    for (index, node) in path.nodes(inference) {
        if parts.contains(&index) {
            continue;
        }
        let found = tokens(path, inference, node).into_iter().map(|token| {
            let operator = node.node.op_type().to_owned();
            Found { token, place: node.place(), operator }
        });
        by_place.entry(&recognition.places[index]).or_default().extend(found);
    }
    let last: HashSet<usize> =
        recognition.plan.outputs.iter().flat_map(|place| place.iter().copied()).collect();
    let (mut remarks, mut findings) = (Vec::new(), Vec::new());
    for (place, found) in by_place {
        let decides = gives == Output::Nms && !place.is_empty() && place.iter().all(|at| last.contains(at));
        let expected = recognition.plan.segments.get(place).map_or(&[][..], |segment| &segment.steps);
        let tokens: Vec<Token> = found.iter().map(|found| found.token).collect();
        let mut left = left_over(expected, &tokens);
        take_away(&mut left, made.get(place).map_or(&[], Vec::as_slice));
        // The parts of a layer that is taken apart are summed.
        let apart = |&layer: &usize| Some(&recognition.found[layer]).filter(|found| found.is_apart());
        let parts = place.first().and_then(apart).map_or(1, |found| found.parts.len());
        take_away(&mut left, &vec!["Add2"; parts - 1]);
        for token in left {
            let of_kind: Vec<&Found> = found.iter().filter(|found| found.token == token).collect();
            let Some(last) = of_kind.last() else { continue };
            let layers = place.iter().map(|&layer| recognition.plan.layers[layer].name.as_str());
            let after = match &layers.collect::<Vec<_>>()[..] {
                [] => "before the first layer".to_owned(),
                layers => format!("behind {}", layers.join(" and ")),
            };
            let (list, severity) =
                if decides { (&mut remarks, Severity::Note) } else { (&mut findings, Severity::Open) };
            list.push(Finding {
                code: UNEXPLAINED,
                severity,
                place: last.place.clone(),
                message: format!(
                    "expected what the published network does {after}, found {} {} there, one more than it explains; \
                     test inputs may not reach what it does",
                    of_kind.len(),
                    last.operator
                ),
                file: None,
            });
        }
    }
    // One is told, of however many there are.
    remarks.truncate(1);
    (remarks, findings)
}

/// What our own graph does, place by place, to give what the model does not give by itself: boxes, labels. How it is
/// made is no part of the published network, and another writer's way is told as what it is.
fn making(recognition: &Recognition, gives: Output, size: (usize, usize)) -> BTreeMap<Place, Vec<Token>> {
    let model = &recognition.model;
    if model.output_forms().first() == Some(&gives) {
        return BTreeMap::new();
    }
    let of = |output: Output| -> Option<BTreeMap<Place, Vec<Token>>> {
        let (file, places) = Plan::graph(model, output, size).ok()?;
        let inference = infer(&file, &Bindings::new());
        let path = DataPath::whole(&inference);
        let mut tokens_at: BTreeMap<Place, Vec<Token>> = BTreeMap::new();
        for (index, node) in path.nodes(&inference) {
            if linear(&inference, index).is_none() {
                let found = tokens(&path, &inference, node);
                tokens_at.entry(places[index].clone()).or_default().extend(found);
            }
        }
        Some(tokens_at)
    };
    let (Some(mut made), Some(plain)) = (of(gives), of(model.output_forms()[0])) else {
        return BTreeMap::new();
    };
    for (place, tokens) in plain {
        if let Some(made) = made.get_mut(&place) {
            take_away(made, &tokens);
        }
    }
    made
}

/// Takes each of `tokens` out of `left` once.
fn take_away(left: &mut Vec<Token>, tokens: &[Token]) {
    for token in tokens {
        if let Some(at) = left.iter().position(|left| left == token) {
            left.swap_remove(at);
        }
    }
}

/// Outputs beside the judged one, of which a verdict says nothing.
#[must_use]
pub fn unjudged(model: &ModelProto, judged: &[String]) -> Vec<Finding> {
    let outputs = model.graph.iter().flat_map(|graph| &graph.output).map(ValueInfoProto::name);
    let finding = |name: &str| Finding {
        code: UNJUDGED,
        severity: Severity::Open,
        place: format!("output {name:?}"),
        message: format!(
            "expected the model's outputs alone, found an output beside {}, of which nothing is known",
            judged.join(", ")
        ),
        file: None,
    };
    outputs.filter(|name| !judged.iter().any(|judged| judged == name)).map(finding).collect()
}

/// What is left of `tokens` when each step has taken one of its spellings: with the choice that leaves least.
fn left_over(steps: &[Step], tokens: &[Token]) -> Vec<Token> {
    let Some((step, rest)) = steps.split_first() else { return tokens.to_vec() };
    let spelled = spellings(*step).iter().filter_map(|spelling| {
        let mut left = tokens.to_vec();
        for token in *spelling {
            left.swap_remove(left.iter().position(|t| t == token)?);
        }
        Some(left_over(rest, &left))
    });
    // A step that is not there is for the numbers to judge.
    spelled.min_by_key(Vec::len).unwrap_or_else(|| left_over(rest, tokens))
}

/// What a node does that is not affine in the picture.
fn tokens(path: &DataPath, inference: &Inference, node: &NodeFacts) -> Vec<Token> {
    let inputs: Vec<&str> = node.node.input.iter().map(String::as_str).collect();
    let computed: Vec<&str> = inputs.iter().copied().filter(|name| path.has(name)).collect();
    let several = computed.len() > 1;
    let number = |index: usize| {
        let fact = inference.values.get(inputs.get(index).copied()?)?;
        fact.reals.as_ref()?.first()?.number()
    };
    let attribute = |name: &str| node.node.attribute.iter().find(|a| a.name() == name);
    let bound = |index: usize, name: &str| number(index).or_else(|| attribute(name)?.f.map(f64::from));
    match node.node.op_type() {
        "Identity"
        | "Dropout"
        | "Reshape"
        | "Flatten"
        | "Transpose"
        | "Squeeze"
        | "Unsqueeze"
        | "Concat"
        | "Split"
        | "Pad"
        | "SpaceToDepth"
        | "DepthToSpace"
        | "Neg"
        | "ReduceMean"
        | "ReduceSum"
        | "GlobalAveragePool"
        | "AveragePool"
        | "QuantizeLinear"
        | "DequantizeLinear"
        | "DynamicQuantizeLinear"
        | "BatchNormalization" => Vec::new(),
        // Of data by constant places, or to constant sizes, each by its own weights.
        "Slice" | "Gather" | "Expand" | "Tile" | "Resize" | "Upsample" if !several && path.has(inputs[0]) => {
            Vec::new()
        }
        "Cast" | "CastLike" => {
            let to = node.outputs.first().map_or(DataType::Undefined, |fact| fact.dtype);
            let floats = [
                DataType::Float,
                DataType::Float16,
                DataType::Bfloat16,
                DataType::Double,
                DataType::Undefined,
            ];
            // What was a picture of bytes becomes floats; floats that become integers are compared.
            if floats.contains(&to) { Vec::new() } else { vec!["Cast to integers"] }
        }
        "Add" | "Sum" if several => vec!["Add2"; computed.len() - 1],
        "Sub" if several => vec!["Sub2"],
        "Mul" if several && computed[0] == computed[1] => vec!["Square"],
        "Mul" if several => vec!["Mul2"],
        "Div" if several => vec!["Div2"],
        "Div" if path.has(inputs[1]) => vec!["Reciprocal"],
        "Add" | "Sub" | "Mul" | "Div" => Vec::new(),
        "Pow" if number(1) == Some(2.0) => vec!["Square"],
        "Pow" if number(1) == Some(0.5) => vec!["Sqrt"],
        "MatMul" | "Gemm" if several => vec!["MatMul2"],
        // By constants that nobody learnt: a resize, means over a grid.
        "MatMul" => Vec::new(),
        // No test input need reach another bound than ReLU6's.
        "Clip" if bound(1, "min") == Some(0.0) && bound(2, "max") == Some(6.0) => vec!["Clip"],
        "Max" if [number(0), number(1)].contains(&Some(0.0)) => vec!["Max"],
        "Min" if [number(0), number(1)].contains(&Some(6.0)) => vec!["Min"],
        "Clip" => vec!["Clip to other bounds"],
        "ArgMax" => vec!["ArgMax"],
        "Relu" => vec!["Relu"],
        "Sigmoid" => vec!["Sigmoid"],
        "Softmax" => vec!["Softmax"],
        "Erf" => vec!["Erf"],
        "Exp" => vec!["Exp"],
        "Abs" => vec!["Abs"],
        "Sqrt" => vec!["Sqrt"],
        "Reciprocal" => vec!["Reciprocal"],
        "ReduceMax" => vec!["ReduceMax"],
        "Gelu" | "BiasGelu" => vec!["Gelu"],
        "Swish" => vec!["Swish"],
        // x·σ(1·x), where it says so.
        "QuickGelu" if attribute("alpha").and_then(|a| a.f) == Some(1.0) => vec!["QuickGelu"],
        "LayerNormalization" => vec!["LayerNormalization"],
        "SkipLayerNormalization" => vec!["Add2", "LayerNormalization"],
        _ => vec!["another operator"],
    }
}
