//! A file in an engine beside the reference, part by part: what both sides of a comparison are, and how it ends.

use ndarray::ArrayD;
use serde::Serialize;

use crate::compare::{Tolerance, compare};
use crate::infer::Inference;
use crate::models::recognise::Recognition;
use crate::reference::{Map, Reference};
use crate::runtime::{Concrete, Runtime};

/// A block of a file beside the reference's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlockVerdict {
    /// `stage3.1`; `head` is what follows the last block.
    pub block: String,
    /// The value that is its output in the file.
    pub value: String,
    /// Largest error along the file's own path, as a share of the largest value.
    pub passed_on: f64,
    /// The same from the reference's input; `None` where nothing was wrong before and is not now, or where the
    /// graph cannot be cut.
    pub alone: Option<f64>,
    /// Whether it is right on its own, or, where that is not known, along the path.
    pub holds: bool,
    /// The known mistake that gives the file's values.
    pub cause: Option<&'static str>,
}

/// A file in an engine and the reference, on one input.
pub struct Divergence<'a> {
    pub inference: &'a Inference<'a>,
    pub recognition: &'a Recognition,
    pub reference: &'a Reference,
    pub model: &'a Concrete<'a>,
    pub runtime: &'a dyn Runtime,
    pub tolerance: &'a Tolerance,
    /// The graph's input and outputs.
    pub ports: (&'a str, &'a [String]),
    /// What the outputs are, as the reference calls it.
    pub form: &'static str,
}

impl Divergence<'_> {
    /// Values of the graph from others; `None` where the graph cannot be cut there.
    pub fn run(&self, from: &[String], maps: &[ArrayD<f32>], to: &[String]) -> Option<Vec<ArrayD<f32>>> {
        let mut session = self.runtime.ready(self.model, from, to).ok()?;
        session.run(maps).ok()
    }

    pub fn verdict(
        &self,
        block: String,
        value: String,
        passed_on: f64,
        alone: Option<f64>,
        cause: Option<&'static str>,
    ) -> BlockVerdict {
        BlockVerdict {
            block,
            value,
            passed_on,
            alone,
            holds: alone.unwrap_or(passed_on) <= self.tolerance.bound,
            cause,
        }
    }
}

/// The largest error as a share of the largest value; what has no measure is infinitely far.
pub fn distance(found: &[f32], truth: &[f64]) -> f64 {
    compare(found, truth).map_or(f64::INFINITY, |difference| difference.relative())
}

pub fn slice(map: &Map) -> &[f64] {
    map.as_slice().expect("blocks give maps in standard layout")
}
