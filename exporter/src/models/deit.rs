//! DeiT: the Meta Mobile Block with F = attention, λ = 1, and with F = identity, λ = 4, in turn.
//!
//! Source: "Training data-efficient image transformers & distillation through attention" (ICML 2021, arXiv
//! 2012.12877), table 1; names as in the published weights of timm (`deit_tiny_patch16_224`).

use super::{CLASSES, Definition, Model};

#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Channels of a token.
    pub dim: usize,
    pub depth: usize,
    pub heads: usize,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// Height and width of the input: each place has its embedding.
    pub side: usize,
}

/// Expansion ratio λ of the feed-forwards.
pub const EXPANSION: usize = 4;

/// The published classifiers without a distillation token.
pub(super) fn published() -> [Model; 2] {
    [variant("deit-tiny", "DeiT-Ti", 192, 3), variant("deit-small", "DeiT-S", 384, 6)]
}

fn variant(name: &'static str, title: &'static str, dim: usize, heads: usize) -> Model {
    let network = Network { dim, depth: 12, heads, patch: 16, side: 224 };
    Model { name: name.into(), title: title.into(), classes: CLASSES, definition: Definition::Deit(network) }
}
