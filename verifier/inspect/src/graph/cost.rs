//! What a node costs, under named conventions.
//!
//! A [`Work`] says what a node does; a [`Convention`] is a row that says what that counts,
//! and how. [`CONVENTIONS`] has them all:
//!
//! ```
//! use emo_inspect::cost::{CONVENTIONS, Work};
//!
//! let norm = Work::BatchNorm { elements: 100.into() };
//! let counts = CONVENTIONS.map(|convention| {
//!     let counted = (convention.rule)(&norm);
//!     format!("{}: {}, {}", convention.name, counted.count, counted.how)
//! });
//! assert_eq!(counts[2], "fvcore: 200, 2 an element");
//! ```

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::sym::Expr;

/// What a node does.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Work {
    /// Nothing that a convention counts: sums, softmax, sigmoids, movement, decisions.
    #[default]
    Free,
    /// Multiply-adds of a convolution, additions of its bias.
    Conv { macs: Expr, bias: Expr },
    /// The same of a transposed convolution over `axes` spatial axes.
    Deconv { macs: Expr, bias: Expr, axes: usize },
    /// Multiply-adds of a convolution at learnt offsets.
    DeformConv { macs: Expr },
    /// A matrix product with a weight, and its bias.
    Linear { macs: Expr, bias: Expr },
    /// A product of two matrices that are no weights.
    MatMul { macs: Expr },
    /// Both products of a fused attention: scores and weighted values.
    Attention { macs: Expr },
    /// The matrix products of recurrent cells, over all steps and directions.
    Recurrent { macs: Expr },
    /// Normalisation by statistics of the training set.
    BatchNorm { elements: Expr },
    /// Normalisation by statistics of the input itself: layer, group, instance, batch in training.
    LayerNorm { elements: Expr },
    /// `ReLU`, `ReLU6`, `LeakyReLU`, `PReLU` or `ELU`.
    Rectifier { elements: Expr },
    /// Pooling of this many input elements.
    Pool { kind: Pool, inputs: Expr, axes: usize },
    /// Resizing to this many output elements.
    Resize { kind: Interpolation, outputs: Expr, axes: usize },
    /// Reading an image at given places, this many output elements.
    GridSample { outputs: Expr },
    /// Several of these in one operator, as optimisers write them.
    Several(Vec<Work>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// A window that slides, of maxima, means or norms.
    Window,
    /// The mean of all positions.
    GlobalMean,
    /// The maximum or norm of all positions.
    Global,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    Nearest,
    Linear,
    Cubic,
}

/// A count, and the rule that gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    pub count: Expr,
    /// `2 an element`; of several works the rules of each.
    pub how: Cow<'static, str>,
}

/// A way to count.
#[derive(Debug)]
pub struct Convention {
    pub name: &'static str,
    pub source: &'static str,
    pub rule: fn(&Work) -> Counted,
}

/// Every convention, in the order of [`Cost`]'s fields.
pub const CONVENTIONS: [&Convention; 4] = [&MACS, &FLOPS, &FVCORE, &MMCV];

/// Multiply-adds.
pub const MACS: Convention = Convention {
    name: "macs",
    source: "one for each multiply-add of a convolution, a matrix product, an attention or a recurrent cell",
    rule: |work| match work {
        Work::Conv { macs, .. }
        | Work::Deconv { macs, .. }
        | Work::DeformConv { macs }
        | Work::Linear { macs, .. }
        | Work::MatMul { macs }
        | Work::Attention { macs }
        | Work::Recurrent { macs } => counted(macs.clone(), "1 a multiply-add"),
        Work::Several(parts) => sum(&MACS, parts),
        Work::Free
        | Work::BatchNorm { .. }
        | Work::LayerNorm { .. }
        | Work::Rectifier { .. }
        | Work::Pool { .. }
        | Work::Resize { .. }
        | Work::GridSample { .. } => nothing("no multiply-adds of weights or matrices"),
    },
};

/// Floating-point operations of the multiply-adds.
pub const FLOPS: Convention = Convention {
    name: "flops",
    source: "two for each multiply-add: the multiplication and the addition",
    rule: |work| match work {
        Work::Several(parts) => sum(&FLOPS, parts),
        _ => match (MACS.rule)(work) {
            Counted { count, how } if count.is(0) => Counted { count, how },
            Counted { count, .. } => counted(count * 2, "2 a multiply-add"),
        },
    },
};

/// What the paper calls FLOPs.
pub const FVCORE: Convention = Convention {
    name: "fvcore",
    source: "facebookresearch/fvcore 0.1.5: fvcore/nn/flop_count.py, jit_handles.py",
    rule: |work| match work {
        Work::Conv { macs, .. }
        | Work::Deconv { macs, .. }
        | Work::Linear { macs, .. }
        | Work::MatMul { macs } => counted(macs.clone(), "1 a multiply-add, its bias nothing"),
        Work::BatchNorm { elements } => counted(elements * 2, "2 an element"),
        Work::LayerNorm { elements } => counted(elements * 5, "5 an element"),
        Work::Pool { kind: Pool::GlobalMean, inputs, axes: 2 } => {
            counted(inputs.clone(), "1 an input element (adaptive_avg_pool2d)")
        }
        Work::Resize { kind: Interpolation::Nearest, outputs, axes: 2 } => {
            counted(outputs.clone(), "1 an output element (upsample_nearest2d)")
        }
        Work::Resize { kind: Interpolation::Linear, outputs, axes: 2 } => {
            counted(outputs * 4, "4 an output element (upsample_bilinear2d)")
        }
        Work::GridSample { outputs } => counted(outputs * 4, "4 an output element (grid_sampler)"),
        Work::Several(parts) => sum(&FVCORE, parts),
        Work::DeformConv { .. } | Work::Attention { .. } | Work::Recurrent { .. } => {
            nothing("no handler for the fused operator")
        }
        Work::Free | Work::Rectifier { .. } | Work::Pool { .. } | Work::Resize { .. } => {
            nothing("no handler")
        }
    },
};

/// What the published dense tables call FLOPs.
pub const MMCV: Convention = Convention {
    name: "mmcv",
    source: "open-mmlab/mmcv 1.6: mmcv/cnn/utils/flops_counter.py, which sees modules and no functions",
    rule: |work| match work {
        Work::Conv { macs, bias } | Work::Deconv { macs, bias, axes: 2 } => {
            counted(macs + bias, "1 a multiply-add, 1 an addition of the bias")
        }
        Work::Linear { macs, .. } => counted(macs.clone(), "1 a multiply-add, its bias nothing"),
        Work::BatchNorm { elements } | Work::LayerNorm { elements } => counted(elements * 2, "2 an element"),
        Work::Rectifier { elements } => counted(elements.clone(), "1 an element"),
        Work::Pool { inputs, .. } => counted(inputs.clone(), "1 an input element"),
        Work::Resize { .. } => nothing("a function there (F.interpolate), which is not seen"),
        Work::MatMul { .. } => nothing("a function there (torch.matmul), which is not seen"),
        Work::Several(parts) => sum(&MMCV, parts),
        Work::Deconv { .. } => nothing("no hook for other than two spatial axes"),
        Work::Free
        | Work::DeformConv { .. }
        | Work::Attention { .. }
        | Work::Recurrent { .. }
        | Work::GridSample { .. } => nothing("no hook"),
    },
};

fn counted(count: Expr, how: &'static str) -> Counted {
    Counted { count, how: how.into() }
}

fn nothing(how: &'static str) -> Counted {
    counted(0.into(), how)
}

/// A tool that cannot see inside a fused operator sees the parts before the fusion.
fn sum(convention: &Convention, parts: &[Work]) -> Counted {
    let parts: Vec<Counted> = parts.iter().map(convention.rule).collect();
    let how = parts.iter().map(|part| part.how.as_ref()).collect::<Vec<_>>().join("; ");
    Counted { count: parts.into_iter().map(|part| part.count).sum(), how: how.into() }
}

impl Work {
    /// What the work is called in reports.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Work::Free => "other",
            Work::Conv { .. } => "convolution",
            Work::Deconv { .. } => "transposed convolution",
            Work::DeformConv { .. } => "deformable convolution",
            Work::Linear { .. } => "linear",
            Work::MatMul { .. } => "matrix product",
            Work::Attention { .. } => "fused attention",
            Work::Recurrent { .. } => "recurrent cell",
            Work::BatchNorm { .. } => "batch norm",
            Work::LayerNorm { .. } => "layer norm",
            Work::Rectifier { .. } => "rectifier",
            Work::Pool { kind: Pool::Window, .. } => "pooling",
            Work::Pool { kind: Pool::GlobalMean, .. } => "global mean",
            Work::Pool { kind: Pool::Global, .. } => "global pooling",
            Work::Resize { kind: Interpolation::Nearest, .. } => "nearest resize",
            Work::Resize { kind: Interpolation::Linear, .. } => "linear resize",
            Work::Resize { kind: Interpolation::Cubic, .. } => "cubic resize",
            Work::GridSample { .. } => "grid sample",
            Work::Several(_) => "fused",
        }
    }

    /// One of each kind but [`Work::Several`], of one multiply-add or element: the rows of
    /// a table of conventions.
    #[must_use]
    pub fn each() -> Vec<Work> {
        let one = || Expr::Number(1);
        let pools = [Pool::Window, Pool::GlobalMean, Pool::Global];
        let resizes = [Interpolation::Nearest, Interpolation::Linear, Interpolation::Cubic];
        let mut works = vec![
            Work::Conv { macs: one(), bias: one() },
            Work::Deconv { macs: one(), bias: one(), axes: 2 },
            Work::DeformConv { macs: one() },
            Work::Linear { macs: one(), bias: one() },
            Work::MatMul { macs: one() },
            Work::Attention { macs: one() },
            Work::Recurrent { macs: one() },
            Work::BatchNorm { elements: one() },
            Work::LayerNorm { elements: one() },
            Work::Rectifier { elements: one() },
            Work::GridSample { outputs: one() },
        ];
        works.extend(pools.map(|kind| Work::Pool { kind, inputs: one(), axes: 2 }));
        works.extend(resizes.map(|kind| Work::Resize { kind, outputs: one(), axes: 2 }));
        works.push(Work::Free);
        works
    }

    /// Whether it multiplies: a convolution, a matrix product, an attention, a recurrent cell.
    #[must_use]
    pub fn multiplies(&self) -> bool {
        !(MACS.rule)(self).count.is(0)
    }
}

/// Counts under every convention.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Cost {
    pub macs: Expr,
    pub flops: Expr,
    pub fvcore: Expr,
    pub mmcv: Expr,
}

impl Cost {
    #[must_use]
    pub fn of(work: &Work) -> Self {
        let [macs, flops, fvcore, mmcv] = CONVENTIONS.map(|convention| (convention.rule)(work).count);
        Self { macs, flops, fvcore, mmcv }
    }

    /// The counts of this many times the same.
    #[must_use]
    pub fn times(&self, turns: &Expr) -> Self {
        let [macs, flops, fvcore, mmcv] =
            [&self.macs, &self.flops, &self.fvcore, &self.mmcv].map(|count| count * turns);
        Self { macs, flops, fvcore, mmcv }
    }

    /// The counts with their conventions.
    #[must_use]
    pub fn each(&self) -> [(&'static Convention, &Expr); 4] {
        let counts = [&self.macs, &self.flops, &self.fvcore, &self.mmcv];
        std::array::from_fn(|i| (CONVENTIONS[i], counts[i]))
    }

    /// Why a count cannot be said; empty when all can.
    #[must_use]
    pub fn reasons(&self) -> BTreeSet<Arc<str>> {
        self.each().iter().flat_map(|(_, count)| count.reasons()).collect()
    }
}

impl std::ops::AddAssign<&Cost> for Cost {
    fn add_assign(&mut self, other: &Cost) {
        for (sum, count) in [
            (&mut self.macs, &other.macs),
            (&mut self.flops, &other.flops),
            (&mut self.fvcore, &other.fvcore),
            (&mut self.mmcv, &other.mmcv),
        ] {
            *sum = &*sum + count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind of work, and what macs, flops, fvcore and mmcv make of it.
    #[test]
    fn conventions_count_as_their_sources_do() {
        let n = |n: i64| Expr::Number(n);
        let resize = |kind, axes| Work::Resize { kind, outputs: n(10), axes };
        let conv = || Work::Conv { macs: n(100), bias: n(10) };
        let cases = [
            (Work::Free, [0, 0, 0, 0]),
            (conv(), [100, 200, 100, 110]),
            (Work::Deconv { macs: n(100), bias: n(10), axes: 2 }, [100, 200, 100, 110]),
            (Work::Deconv { macs: n(100), bias: n(10), axes: 1 }, [100, 200, 100, 0]),
            (Work::DeformConv { macs: n(100) }, [100, 200, 0, 0]),
            (Work::Linear { macs: n(100), bias: n(10) }, [100, 200, 100, 100]),
            (Work::MatMul { macs: n(100) }, [100, 200, 100, 0]),
            (Work::Attention { macs: n(100) }, [100, 200, 0, 0]),
            (Work::Recurrent { macs: n(100) }, [100, 200, 0, 0]),
            (Work::BatchNorm { elements: n(10) }, [0, 0, 20, 20]),
            (Work::LayerNorm { elements: n(10) }, [0, 0, 50, 20]),
            (Work::Rectifier { elements: n(10) }, [0, 0, 0, 10]),
            (Work::Pool { kind: Pool::Window, inputs: n(10), axes: 2 }, [0, 0, 0, 10]),
            (Work::Pool { kind: Pool::GlobalMean, inputs: n(10), axes: 2 }, [0, 0, 10, 10]),
            (Work::Pool { kind: Pool::GlobalMean, inputs: n(10), axes: 1 }, [0, 0, 0, 10]),
            (Work::Pool { kind: Pool::Global, inputs: n(10), axes: 2 }, [0, 0, 0, 10]),
            (resize(Interpolation::Nearest, 2), [0, 0, 10, 0]),
            (resize(Interpolation::Linear, 2), [0, 0, 40, 0]),
            (resize(Interpolation::Linear, 3), [0, 0, 0, 0]),
            (resize(Interpolation::Cubic, 2), [0, 0, 0, 0]),
            (Work::GridSample { outputs: n(10) }, [0, 0, 40, 0]),
            (Work::Several(vec![conv(), Work::Rectifier { elements: n(10) }]), [100, 200, 100, 120]),
        ];
        for (work, [macs, flops, fvcore, mmcv]) in cases {
            let expected = Cost { macs: n(macs), flops: n(flops), fvcore: n(fvcore), mmcv: n(mmcv) };
            assert_eq!(Cost::of(&work), expected, "{work:?}");
        }
    }

    #[test]
    fn every_kind_is_explained() {
        let kinds: BTreeSet<_> = Work::each().iter().map(Work::kind).collect();
        assert_eq!(kinds.len(), Work::each().len());
        for (work, convention) in Work::each().iter().flat_map(|work| CONVENTIONS.map(|c| (work, c))) {
            assert!(!(convention.rule)(work).how.is_empty(), "{} of {work:?}", convention.name);
        }
    }
}
