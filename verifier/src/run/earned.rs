//! The tolerance that a file's own arithmetic earns.
//!
//! What a file may be off by follows from what it rounds, place by place, and from nothing that it declares: at every
//! place on the way from its inputs to its outputs where a value is rounded, an evaluation in f64 adds an error of up
//! to half a step, and what comes out is compared with what comes out without (Monte Carlo arithmetic: D. S. Parker,
//! "Monte Carlo Arithmetic: exploiting randomness in floating-point arithmetic", 1997). A file that is coarse in one
//! place is so allowed that place's share, and one that is coarse where nothing reads it nothing.

use std::collections::HashSet;

use emo_proto::{ModelProto, TensorProto};
use ndarray::ArrayD;

use crate::compare::compare;
use crate::eval::{Noise, Rounding};
use crate::runtime::{Evaluator, Failure};

/// How many times the largest deviation of the draws may be the file's own: its roundings are one draw more, and those
/// of neighbouring values may go the same way where random ones do not.
const MARGIN: f64 = 3.0;

/// Beyond this share of the largest output, what a file's rounding explains is no agreement.
pub const MOST_EARNED: f64 = 0.5;

/// What an evaluation disturbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbed {
    /// Every rounding, constants' as well.
    All,
    /// Every rounding but those of tensors of constants, which are taken for what they are: weights.
    Arithmetic,
    /// Lone constants alone, as an ε or the √2 of a GELU.
    Numbers,
    /// Every rounding, that of f32 too: of a network of any depth.
    Singles,
    /// Every rounding, and what lies beyond the range of its integers is cut off: what was calibrated on other inputs
    /// than these does so, and it is no rounding.
    Saturated,
}

/// A run's inputs, and its outputs where nothing is rounded.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    pub inputs: &'a [ArrayD<f32>],
    pub exact: Vec<ArrayD<f64>>,
}

/// How far rounding may move each output of a part of a graph, as a share of its largest value, over all
/// `runs`.
///
/// # Errors
/// The graph cannot be evaluated.
pub fn earned(
    evaluator: &Evaluator,
    model: &ModelProto,
    runs: &[Run],
    disturbed: Disturbed,
) -> Result<Vec<f64>, Failure> {
    let spared = match disturbed {
        Disturbed::All | Disturbed::Singles | Disturbed::Saturated => HashSet::new(),
        Disturbed::Arithmetic | Disturbed::Numbers => tensors(model),
    };
    let mut noise = Noise {
        seed: 0,
        spared,
        arithmetic: disturbed != Disturbed::Numbers,
        singles: disturbed == Disturbed::Singles,
        saturates: disturbed == Disturbed::Saturated,
    };
    let mut shares: Vec<f64> = Vec::new();
    for (seed, Run { inputs, exact }) in (1..).zip(runs) {
        noise.seed = seed;
        let moved = evaluator.run(inputs, Rounding::Noise(&noise))?;
        shares.resize(moved.len(), 0.0);
        for ((share, moved), exact) in shares.iter_mut().zip(&moved).zip(exact) {
            let (moved, exact): (Vec<f64>, Vec<f64>) =
                (moved.iter().copied().collect(), exact.iter().copied().collect());
            let deviation = compare(&moved, &exact).map_or(f64::INFINITY, |d| d.relative());
            *share = share.max(MARGIN * deviation);
        }
    }
    Ok(shares)
}

/// The constants of more than one element.
fn tensors(model: &ModelProto) -> HashSet<String> {
    let is_tensor = |tensor: &TensorProto| tensor.dims.iter().product::<i64>() > 1;
    let graph = || model.graph.iter();
    let initializers = graph().flat_map(|g| &g.initializer).filter(|t| is_tensor(t));
    let nodes = graph().flat_map(|g| &g.node).filter(|node| {
        let tensor = node.attribute.first().and_then(|a| a.t.as_deref());
        node.op_type() == "Constant" && tensor.is_some_and(is_tensor)
    });
    let named = initializers.map(|tensor| tensor.name().to_owned());
    named.chain(nodes.filter_map(|node| node.output.first().cloned())).collect()
}
