//! The block from which on a file leaves the reference, and why.
//!
//! Blocks are compared twice: along the file's own path, where an error is passed on, and each alone from the
//! reference's input, where it is not. Where a block's end is no value of the graph, because a layer of it is one
//! with the next block's, the two are compared as one.

use emo_exporter::models::Task;
use ndarray::{Array4, ArrayD};

use super::beside::{BlockVerdict, Divergence, distance, slice};
use super::blocks::{Boundary, Layout, boundaries};
use super::cause::{self, Explained, explain};
use super::heads::{Heads, Truths};
use crate::reference::{Block, Map, Mistake};
use crate::runtime::Failure;

/// What the reference makes of a block's input.
struct Step<'a> {
    block: &'a Block,
    input: Map,
    output: Map,
}

impl Divergence<'_> {
    /// Every block beside the reference's, for the input `fed` of the graph, which is `input` [N, 3, H, W] of the
    /// reference.
    ///
    /// # Errors
    /// The engine does not take the graph with the blocks' outputs.
    pub fn blocks(&self, fed: &ArrayD<f32>, input: &Array4<f64>) -> Result<Vec<BlockVerdict>, Failure> {
        let mut boundaries = boundaries(self.inference, self.recognition);
        let steps = self.steps(input);
        let image = input.clone().into_dyn();
        let dense = self.recognition.model.task() != Task::Classify;
        let truths = dense.then(|| {
            let truths = Truths::new(self, &image, steps.iter().map(|step| &step.output).collect());
            truths.settle(self, &mut boundaries);
            truths
        });
        let names: Vec<String> =
            boundaries.iter().map(|b| b.value.clone()).chain(self.ports.1.iter().cloned()).collect();
        // A block may end with an output.
        let mut asked = names.clone();
        asked.sort();
        asked.dedup();
        let mut session = self.runtime.ready(self.model, &[self.ports.0.to_owned()], &asked)?;
        let given = session.run(std::slice::from_ref(fed))?;
        drop(session);
        let value = |name| asked.binary_search(name).ok().and_then(|at| given.get(at)).cloned();
        let values: Vec<ArrayD<f32>> = names.iter().filter_map(value).collect();

        let mut verdicts = Vec::new();
        // Whether every block so far is right along the path.
        let mut unbroken = true;
        let mut start = Start::Input(fed);
        // Where the run of blocks begins that ends with the next boundary.
        let mut first = 0;
        for last in 0..steps.len() {
            let Some(at) = boundaries.iter().position(|b| b.block == steps[last].block.name()) else {
                continue;
            };
            let run = Run { steps: &steps[first..=last], next: steps.get(last + 1).map(|step| step.block) };
            verdicts.extend(self.block(run, &boundaries[at], start, &values[at], &mut unbroken));
            (start, first) = (Start::At(&boundaries[at]), last + 1);
        }
        if let Some(truths) = truths {
            let heads = Heads { fed, truths, boundaries: &boundaries, values: &values };
            verdicts
                .extend(heads.verdicts(self, verdicts.iter().all(|verdict: &BlockVerdict| verdict.holds)));
            return Ok(verdicts);
        }
        let from = match start {
            Start::At(boundary) if first == steps.len() => Some(boundary),
            Start::At(_) | Start::Input(_) => None,
        };
        verdicts.extend(self.head(&steps, from, &values[boundaries.len()..], unbroken));
        Ok(verdicts)
    }

    fn steps(&self, input: &Array4<f64>) -> Vec<Step<'_>> {
        let mut map = input.clone().into_dyn();
        let step = |block| {
            let output = Block::forward(block, &[&map]);
            let input = std::mem::replace(&mut map, output.clone());
            Step { block, input, output }
        };
        self.reference.blocks().iter().map(step).collect()
    }

    fn block(
        &self,
        run: Run,
        boundary: &Boundary,
        start: Start,
        value: &ArrayD<f32>,
        unbroken: &mut bool,
    ) -> Option<BlockVerdict> {
        let (begin, end) = (run.steps.first()?, run.steps.last()?);
        // Behind a norm that was folded backwards, the reference's output goes through it too.
        let next = run.next.filter(|_| boundary.normed);
        let finish = |map: Map| next.map_or_else(|| map.clone(), |next| next.normed(&map));
        let truth = finish(end.output.clone());
        let shape = truth.shape();
        let layout = Layout::of(self.model, &boundary.value, shape)?;
        let passed_on =
            layout.read(value, shape).map_or(f64::INFINITY, |found| distance(&found, slice(&truth)));

        let fed = match start {
            _ if *unbroken && passed_on <= self.tolerance.bound => None,
            Start::Input(fed) => Some((self.ports.0.to_owned(), fed.clone())),
            Start::At(before) => {
                let map = if before.normed { begin.block.normed(&begin.input) } else { begin.input.clone() };
                let layout = Layout::of(self.model, &before.value, map.shape());
                layout.map(|layout| (before.value.clone(), layout.write(&map)))
            }
        };
        *unbroken &= passed_on <= self.tolerance.bound;
        let to = std::slice::from_ref(&boundary.value);
        let alone = fed.and_then(|(name, map)| self.run(&[name], &[map], to)?.pop());
        let alone = alone.and_then(|value| layout.read(&value, shape));
        let own = alone.as_ref().map(|found| distance(found, slice(&truth)));
        let mut verdict = self.verdict(boundary.block.clone(), boundary.value.clone(), passed_on, own, None);
        if !verdict.holds {
            // Of a run the first block, if no mistake in one of them explains it.
            let unknown = alone.is_some().then_some(cause::UNKNOWN);
            let explained = alone.zip(own).and_then(|(found, difference)| {
                let of = |at: usize| {
                    let outcome =
                        |mistake| run.forward_with(at, mistake).map(|map| finish(map).into_iter().collect());
                    explain(&found, difference, self.tolerance, outcome).map(|explained| (at, explained))
                };
                let all = (0..run.steps.len()).filter_map(of);
                all.min_by(|(_, a), (_, b)| a.remains.total_cmp(&b.remains))
            });
            verdict.block = run.steps[explained.map_or(0, |(at, _)| at)].block.name().to_owned();
            verdict.cause = explained.map(|(_, Explained { cause, .. })| cause).or(unknown);
        }
        Some(verdict)
    }

    fn head(
        &self,
        steps: &[Step],
        from: Option<&Boundary>,
        answer: &[ArrayD<f32>],
        unbroken: bool,
    ) -> Option<BlockVerdict> {
        let last = steps.last()?;
        let image = &steps.first()?.input;
        let known: Vec<_> = steps.iter().map(|step| &step.output).enumerate().collect();
        let form = self.form;
        let head = |mistake| -> Vec<f64> {
            let outputs = self.reference.outputs_from(form, image, &known, mistake);
            outputs.into_iter().flatten().flat_map(|output| output.value).collect()
        };
        let truth = head(None);
        let passed_on = distance(&elements(answer), &truth);
        let broken = !(unbroken && passed_on <= self.tolerance.bound);
        let fed = from.filter(|_| broken).and_then(|before| {
            let layout = Layout::of(self.model, &before.value, last.output.shape())?;
            Some((before.value.clone(), layout.write(&last.output)))
        });
        let alone = fed.and_then(|(name, map)| self.run(&[name], &[map], self.ports.1));
        let (own, cause) = match alone.as_deref().map(elements) {
            Some(found) => {
                let difference = distance(&found, &truth);
                let head_with = |mistake| self.reference.head_can_make(mistake).then(|| head(Some(mistake)));
                (Some(difference), self.cause(&found, difference, head_with))
            }
            None => (None, None),
        };
        Some(self.verdict("head".to_owned(), self.ports.1.join(", "), passed_on, own, cause))
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
}

/// Where a block's input comes from.
#[derive(Debug, Clone, Copy)]
enum Start<'a> {
    /// The graph's input.
    Input(&'a ArrayD<f32>),
    /// The end of the block before.
    At(&'a Boundary),
}

/// Blocks that are compared as one, and what follows.
#[derive(Clone, Copy)]
struct Run<'a> {
    steps: &'a [Step<'a>],
    next: Option<&'a Block>,
}

impl Run<'_> {
    /// The output of the last with a mistake in the block `at`, if it can be made there.
    fn forward_with(self, at: usize, mistake: Mistake) -> Option<Map> {
        let step = &self.steps[at];
        let made =
            step.block.can_make(mistake).then(|| step.block.forward_with(&[&step.input], Some(mistake)))?;
        Some(self.steps[at + 1..].iter().fold(made, |map, step| step.block.forward(&[&map])))
    }
}

fn elements(values: &[ArrayD<f32>]) -> Vec<f32> {
    values.iter().flatten().copied().collect()
}
