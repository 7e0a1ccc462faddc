//! What a file has: its picture, and the nodes that are a layer.

use std::sync::Arc;

use crate::audit;
use crate::image::Image;
use crate::infer::Inference;
use crate::sym::Expr;

use super::layers::{Part, Shape};

/// A linear layer of a file: one node, several where queries and keys are apart or every map is read by its own, none
/// where it is one with the next.
#[derive(Debug, Clone)]
pub struct Found {
    pub parts: Vec<Part>,
    /// Of all parts together.
    pub shape: Shape,
}

impl Found {
    #[must_use]
    pub fn has_bias(&self) -> bool {
        let biased = |part: &Part| part.bias.is_some();
        match self.is_apart() {
            true => self.parts.iter().any(biased),
            false => !self.is_merged() && self.parts.iter().all(biased),
        }
    }

    /// Whether its parts read a map each, and their sum is the layer.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.parts.iter().any(|part| part.column > 0)
    }

    /// Whether the next layer is the product of both.
    #[must_use]
    pub fn is_merged(&self) -> bool {
        self.parts.is_empty()
    }
}

/// The image input of a file.
#[derive(Debug, Clone)]
pub struct Input {
    /// The name of a free batch.
    pub batch: Option<Arc<str>>,
    /// Images where the batch is fixed, 1 where it is free.
    pub images: usize,
    /// Height and width, in pixels.
    pub size: (usize, usize),
}

impl Input {
    /// The file's only image input, whose height and width are known.
    #[must_use]
    pub fn of(inference: &Inference) -> Option<Self> {
        let input = audit::inputs(inference.graph()?).next()?;
        let fact = inference.values.get(input.name())?;
        let [n, _, height, width] = Image::of(fact)?.extents(fact.dims.as_deref().ok()?)?;
        let side = |extent: &Expr| extent.count().map(|n| n as usize);
        let size = (side(height)?, side(width)?);
        Some(Self { batch: n.symbols().into_iter().next(), images: side(n).unwrap_or(1), size })
    }
}

/// The number that a formula is where `batch` is one.
#[must_use]
pub fn at_batch_one(expr: &Expr, batch: Option<&str>) -> Option<u64> {
    expr.with(&|name| (Some(name) == batch).then_some(1)).count()
}
