//! Mistakes that a file's structure shows, even where its numbers drown them.

use emo_proto::NodeProto;

use crate::finding::{Finding, Severity};
use crate::infer::{Inference, NodeFacts};
use crate::models::plan::Step;
use crate::models::recognise::Recognition;
use crate::models::recover::Recovered;

use super::cause;

/// A mistake and the block in which it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub block: String,
    /// One of [`cause::CAUSES`].
    pub cause: &'static str,
    pub finding: Finding,
}

/// Everything that is wrong by structure, in the order of the network.
#[must_use]
pub fn mistakes(inference: &Inference, recognition: &Recognition, recovered: &Recovered) -> Vec<Seen> {
    let mut seen: Vec<Seen> =
        recovered.epsilons.iter().map(|(norm, epsilon)| wrong_epsilon(recognition, norm, *epsilon)).collect();
    for (place, _) in recognition.plan.segments.iter().filter(|(_, s)| s.steps.contains(&Step::Gelu)) {
        let nodes = inference.nodes.iter().zip(&recognition.places);
        let tanh = nodes.filter(|(_, at)| *at == place).map(|(node, _)| node).find(|node| is_tanh(node));
        if let (Some(node), Some(&layer)) = (tanh, place.last()) {
            seen.push(tanh_gelu(&recognition.plan.block_of_layer(layer), node));
        }
    }
    for (place, _) in recognition.plan.segments.iter().filter(|(_, s)| s.steps.contains(&Step::Relu6)) {
        let here = || {
            let nodes = inference.nodes.iter().zip(&recognition.places);
            nodes.filter(|(_, at)| *at == place).map(|(node, _)| node)
        };
        let clips = |node: &NodeProto| node.op_type() == "Clip";
        let relu = here().find(|n| n.node.op_type() == "Relu" || clips(n.node) && !has_upper_bound(n.node));
        let bounded = here().any(|n| n.node.op_type() == "Min" || clips(n.node) && has_upper_bound(n.node));
        if let (Some(node), false, Some(&layer)) = (relu, bounded, place.last()) {
            seen.push(unbounded_relu(&recognition.plan.block_of_layer(layer), node));
        }
    }
    for (index, (layer, found)) in recognition.layers().enumerate() {
        if let Some(part) = found.parts.first()
            && layer.shape.dilation != found.shape.dilation
        {
            let block = recognition.plan.block_of_layer(index);
            let dilations = (layer.shape.dilation, found.shape.dilation);
            seen.push(wrong_dilation(block, &inference.nodes[part.node], dilations));
        }
    }
    seen.sort_by_key(|a| natural(&a.block));
    seen
}

/// Whether a Clip has one: an operand, and before opset 11 an attribute.
fn has_upper_bound(clip: &NodeProto) -> bool {
    clip.input.get(2).is_some_and(|name| !name.is_empty()) || clip.attribute.iter().any(|a| a.name() == "max")
}

/// Blocks in the order of the network: `stage1.0`, …, `stage4.2`, `head`.
fn natural(block: &str) -> (bool, Vec<usize>) {
    let numbers = block.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    (!block.starts_with("stage"), numbers)
}

fn error(code: &'static str, place: String, message: String) -> Finding {
    Finding { code, severity: Severity::Error, place, message, file: None }
}

fn wrong_epsilon(recognition: &Recognition, norm: &str, epsilon: f64) -> Seen {
    let plan = &recognition.plan;
    let site = plan.sites.iter().position(|site| site.name == norm);
    let block = site.map_or_else(String::new, |site| plan.block_of_site(site));
    let published = site.map_or(0.0, |site| plan.sites[site].epsilon);
    let message = format!(
        "expected ε = {published:.0e} as published, found {epsilon:.1e}; export with the published ε"
    );
    Seen { block, cause: cause::NORM_EPSILON, finding: error(cause::NORM_EPSILON, norm.to_owned(), message) }
}

fn wrong_dilation(block: String, node: &NodeFacts, (published, found): (usize, usize)) -> Seen {
    let message = format!("expected dilation {published} as published, found {found}");
    Seen { block, cause: cause::DILATION, finding: error(cause::DILATION, node.place(), message) }
}

fn is_tanh(node: &NodeFacts) -> bool {
    let approximate = || node.node.attribute.iter().any(|a| a.name() == "approximate" && a.s() == b"tanh");
    match node.node.op_type() {
        "Tanh" | "FastGelu" => true,
        "Gelu" => approximate(),
        _ => false,
    }
}

fn tanh_gelu(block: &str, node: &NodeFacts) -> Seen {
    let message =
        "expected GELU by erf as published, found its tanh approximation; export with approximate=\"none\""
            .to_owned();
    let finding = error(cause::TANH_GELU, node.place(), message);
    Seen { block: block.to_owned(), cause: cause::TANH_GELU, finding }
}

fn unbounded_relu(block: &str, node: &NodeFacts) -> Seen {
    let message = "expected ReLU6 as published, found ReLU without a bound; export with ReLU6".to_owned();
    Seen { block: block.to_owned(), cause: cause::RELU, finding: error(cause::RELU, node.place(), message) }
}
