//! Mistakes that a file's structure shows, even where its numbers drown them.

use crate::finding::{Finding, Severity};
use crate::infer::{Inference, NodeFacts};
use crate::recognise::Recognition;
use crate::recover::Recovered;

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
        recovered.epsilons.iter().map(|(norm, epsilon)| wrong_epsilon(norm, *epsilon)).collect();
    let mut last = 0;
    for (node, &depth) in inference.nodes.iter().zip(&recognition.depths) {
        let layer = depth.checked_sub(1).and_then(|i| recognition.layers.get(i)).map(|(layer, _)| layer);
        let Some(block) = layer.and_then(|layer| layer.name.strip_suffix(".v.conv")) else { continue };
        if depth != last && is_tanh(node) {
            last = depth;
            seen.push(tanh_gelu(block, node));
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

fn wrong_epsilon(norm: &str, epsilon: f64) -> Seen {
    let block = block_of(norm);
    let message = format!("expected ε = 1e-6 as published, found {epsilon:.1e}; export with the published ε");
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

/// The block that a module lies in: `stage1.1` of `stage1.1.norm`, `head` of what follows the last one.
#[must_use]
pub fn block_of(module: &str) -> String {
    let mut parts = module.split('.');
    match (parts.next(), parts.next()) {
        (Some(stage), Some(index)) if stage.starts_with("stage") => format!("{stage}.{index}"),
        _ => "head".to_owned(),
    }
}
