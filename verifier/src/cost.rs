//! What a node costs, under named conventions.
//!
//! A [`Work`] says what a node does; a convention is a row that says what that counts.

use serde::Serialize;

use crate::sym::Expr;

/// What a node does.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Work {
    /// Nothing that a convention counts: activations, softmax, sums, movement.
    #[default]
    Free,
    /// Multiply-adds of a convolution, additions of its bias.
    Conv { macs: Expr, bias: Expr },
    /// A matrix product with a weight, and its bias.
    Linear { macs: Expr, bias: Expr },
    /// A product of two matrices.
    MatMul { macs: Expr },
    /// Normalisation by statistics of the training set.
    BatchNorm { elements: Expr },
    /// Normalisation by statistics of the input itself.
    LayerNorm { elements: Expr },
    /// The mean of each map, of so many elements in all.
    GlobalMean { inputs: Expr },
}

/// A way to count.
#[derive(Debug)]
pub struct Convention {
    pub name: &'static str,
    pub source: &'static str,
    pub count: fn(&Work) -> Expr,
}

/// Multiply-adds of convolutions and matrix products.
pub const MACS: Convention = Convention {
    name: "macs",
    source: "one for each multiply-add of a convolution or a matrix product",
    count: |work| match work {
        Work::Conv { macs, .. } | Work::Linear { macs, .. } | Work::MatMul { macs } => macs.clone(),
        Work::Free | Work::BatchNorm { .. } | Work::LayerNorm { .. } | Work::GlobalMean { .. } => 0.into(),
    },
};

/// What the paper calls FLOPs.
pub const FVCORE: Convention = Convention {
    name: "fvcore",
    source: "facebookresearch/fvcore, fvcore/nn/flop_count.py and jit_handles.py: a multiply-add is one, \
             batch norm 2 and layer norm 5 an element, adaptive pooling 1, activations and softmax nothing",
    count: |work| match work {
        Work::BatchNorm { elements } => elements * 2,
        Work::LayerNorm { elements } => elements * 5,
        Work::GlobalMean { inputs } => inputs.clone(),
        Work::Conv { .. } | Work::Linear { .. } | Work::MatMul { .. } | Work::Free => (MACS.count)(work),
    },
};

/// Counts under every convention.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Cost {
    pub macs: Expr,
    pub fvcore: Expr,
}

impl Cost {
    #[must_use]
    pub fn of(work: &Work) -> Self {
        Self { macs: (MACS.count)(work), fvcore: (FVCORE.count)(work) }
    }
}

impl std::ops::AddAssign<&Cost> for Cost {
    fn add_assign(&mut self, other: &Cost) {
        self.macs = &self.macs + &other.macs;
        self.fvcore = &self.fvcore + &other.fvcore;
    }
}
