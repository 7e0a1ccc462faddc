//! The block from which on a file leaves the reference, and why.
//!
//! Blocks are compared twice: along the file's own path, where an error is passed on, and each alone from the
//! reference's input, where it is not.

use ndarray::{Array4, ArrayD};
use serde::Serialize;

use super::blocks::{Boundary, Layout, boundaries};
use super::cause::{self, Explained, explain};
use crate::compare::{Tolerance, compare};
use crate::infer::Inference;
use crate::recognise::Recognition;
use crate::reference::{Block, Mistake, Reference};
use crate::runtime::{Concrete, Failure, Runtime};

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
    /// The graph's input and output.
    pub ports: (&'a str, &'a str),
}

/// What the reference makes of a block's input.
struct Step<'a> {
    block: &'a Block,
    input: Array4<f64>,
    output: Array4<f64>,
}

impl Divergence<'_> {
    /// Every block beside the reference's, for an input [N, 3, H, W].
    ///
    /// # Errors
    /// The engine does not take the graph with the blocks' outputs.
    pub fn blocks(&self, input: &Array4<f64>) -> Result<Vec<BlockVerdict>, Failure> {
        let boundaries = boundaries(self.inference, self.recognition);
        let steps = self.steps(input);
        let names: Vec<String> =
            boundaries.iter().map(|b| b.value.clone()).chain([self.ports.1.to_owned()]).collect();
        let mut session = self.runtime.ready(self.model, &[self.ports.0.to_owned()], &names)?;
        let values = session.run(&[input.mapv(|x| x as f32).into_dyn()])?;
        drop(session);

        let mut verdicts = Vec::new();
        // Whether every block so far is right along the path.
        let mut unbroken = true;
        let mut from: Option<&Boundary> = None;
        for step in &steps {
            let Some(at) = boundaries.iter().position(|b| b.block == step.block.name()) else {
                from = None;
                continue;
            };
            let boundary = &boundaries[at];
            let start = match from {
                Some(before) => Start::At(before),
                None if step.block.name() == steps[0].block.name() => Start::Input,
                None => Start::Unknown,
            };
            verdicts.extend(self.block(&steps, step, boundary, start, &values[at], &mut unbroken));
            from = Some(boundary);
        }
        verdicts.extend(self.head(&steps, from, values.last(), unbroken));
        Ok(verdicts)
    }

    fn steps(&self, input: &Array4<f64>) -> Vec<Step<'_>> {
        let mut map = input.clone();
        let step = |block| {
            let output = Block::forward(block, &map);
            let input = std::mem::replace(&mut map, output.clone());
            Step { block, input, output }
        };
        self.reference.blocks().iter().map(step).collect()
    }

    fn block(
        &self,
        steps: &[Step],
        step: &Step,
        boundary: &Boundary,
        start: Start,
        value: &ArrayD<f32>,
        unbroken: &mut bool,
    ) -> Option<BlockVerdict> {
        let index = steps.iter().position(|s| s.block.name() == step.block.name()).unwrap_or(0);
        // Behind a norm that was folded backwards, the reference's output goes through it too.
        let next = steps.get(index + 1).map(|s| s.block).filter(|_| boundary.normed);
        let finish = |map: Array4<f64>| next.map_or_else(|| map.clone(), |next| next.normed(&map));
        let truth = finish(step.output.clone());
        let shape: [usize; 4] = truth.dim().into();
        let layout = Layout::of(self.model, &boundary.value, shape)?;
        let passed_on =
            layout.read(value, shape).map_or(f64::INFINITY, |found| distance(&found, slice(&truth)));

        let fed = match start {
            _ if *unbroken && passed_on <= self.tolerance.bound => None,
            Start::Input => Some((self.ports.0.to_owned(), step.input.mapv(|x| x as f32).into_dyn())),
            Start::At(before) => {
                let map = if before.normed { step.block.normed(&step.input) } else { step.input.clone() };
                let layout = Layout::of(self.model, &before.value, map.dim().into());
                layout.map(|layout| (before.value.clone(), layout.write(&map)))
            }
            Start::Unknown => None,
        };
        *unbroken &= passed_on <= self.tolerance.bound;
        let alone = fed.and_then(|(name, map)| self.run(&name, map, &boundary.value));
        let alone = alone.and_then(|value| layout.read(&value, shape));
        let (own, cause) = match &alone {
            Some(found) => {
                let difference = distance(found, slice(&truth));
                let outcome = |mistake: Mistake| {
                    let made = step.block.can_make(mistake);
                    made.then(|| {
                        finish(step.block.forward_with(&step.input, Some(mistake))).into_iter().collect()
                    })
                };
                (Some(difference), self.cause(found, difference, outcome))
            }
            None => (None, None),
        };
        Some(self.verdict(boundary.block.clone(), boundary.value.clone(), passed_on, own, cause))
    }

    fn head(
        &self,
        steps: &[Step],
        from: Option<&Boundary>,
        logits: Option<&ArrayD<f32>>,
        unbroken: bool,
    ) -> Option<BlockVerdict> {
        let (last, logits) = (steps.last()?, logits?);
        let head = |mistake| -> Vec<f64> {
            self.reference.head_with(last.output.clone(), mistake).into_iter().collect()
        };
        let truth = head(None);
        let passed_on = distance(&elements(logits), &truth);
        let broken = !(unbroken && passed_on <= self.tolerance.bound);
        let fed = from.filter(|_| broken).and_then(|before| {
            let layout = Layout::of(self.model, &before.value, last.output.dim().into())?;
            Some((before.value.clone(), layout.write(&last.output)))
        });
        let alone = fed.and_then(|(name, map)| self.run(&name, map, self.ports.1));
        let (own, cause) = match alone.as_ref().map(elements) {
            Some(found) => {
                let difference = distance(&found, &truth);
                let head_with = |mistake| matches!(mistake, Mistake::Epsilon(_)).then(|| head(Some(mistake)));
                (Some(difference), self.cause(&found, difference, head_with))
            }
            None => (None, None),
        };
        Some(self.verdict("head".to_owned(), self.ports.1.to_owned(), passed_on, own, cause))
    }

    /// One value of the graph from another; `None` where the graph cannot be cut there.
    fn run(&self, from: &str, map: ArrayD<f32>, to: &str) -> Option<ArrayD<f32>> {
        let mut session = self.runtime.ready(self.model, &[from.to_owned()], &[to.to_owned()]).ok()?;
        session.run(&[map]).ok()?.pop()
    }

    fn cause(
        &self,
        found: &[f32],
        difference: f64,
        outcome: impl Fn(Mistake) -> Option<Vec<f64>>,
    ) -> Option<&'static str> {
        if difference <= self.tolerance.bound {
            return None;
        }
        let explained = explain(found, difference, self.tolerance, outcome);
        Some(explained.map_or(cause::UNKNOWN, |Explained { cause, .. }| cause))
    }

    fn verdict(
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

/// Where a block's input comes from.
#[derive(Debug, Clone, Copy)]
enum Start<'a> {
    /// The graph's input.
    Input,
    /// The end of the block before.
    At(&'a Boundary),
    Unknown,
}

fn elements(value: &ArrayD<f32>) -> Vec<f32> {
    value.iter().copied().collect()
}

/// The largest error as a share of the largest value; what has no measure is infinitely far.
fn distance(found: &[f32], truth: &[f64]) -> f64 {
    compare(found, truth).map_or(f64::INFINITY, |difference| difference.relative())
}

fn slice(map: &Array4<f64>) -> &[f64] {
    map.as_slice().expect("blocks give maps in standard layout")
}
