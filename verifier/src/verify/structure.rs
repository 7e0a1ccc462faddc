//! Mistakes that a file's structure shows, even where its numbers drown them.

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
            seen.push(tanh_gelu(&block_of(&recognition.plan.layers[layer].name), node));
        }
    }
    seen.sort_by_key(|a| natural(&a.block));
    seen
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
    let block = block_of(norm);
    let site = recognition.plan.sites.iter().find(|site| site.name == norm);
    let published = site.map_or(0.0, |site| site.epsilon);
    let message = format!(
        "expected ε = {published:.0e} as published, found {epsilon:.1e}; export with the published ε"
    );
    Seen { block, cause: cause::NORM_EPSILON, finding: error(cause::NORM_EPSILON, norm.to_owned(), message) }
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

/// The block that a module lies in, up to the last of its numbers: `stage1.1` of `stage1.1.norm`, `blocks.3` of
/// `blocks.3.attn.qkv`; what has no number is the head, but for what stands before the first block.
#[must_use]
pub fn block_of(module: &str) -> String {
    let mut parts = module.split('.');
    let name = parts.next().unwrap_or_default();
    let numbers: Vec<&str> = parts.take_while(|part| part.bytes().all(|b| b.is_ascii_digit())).collect();
    match numbers.is_empty() {
        true if BEFORE.contains(&name) => name.to_owned(),
        true => "head".to_owned(),
        false => format!("{name}.{}", numbers.join(".")),
    }
}

/// Modules without a number that stand before the first block.
const BEFORE: [&str; 3] = ["conv_stem", "bn1", "patch_embed"];
