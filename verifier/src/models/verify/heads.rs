//! The parts of a neck and a head that a file gives wrong, each of which may take several maps.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use super::beside::{BlockVerdict, Divergence, distance, slice};
use super::blocks::{Boundary, Layout};
use super::cause::{self, CAUSES, explain};
use crate::reference::{Block, Map, Source};

/// What the reference gives for an image: its blocks, in order, and the parts behind them that outputs need.
pub struct Truths<'a> {
    image: &'a Map,
    blocks: Vec<&'a Map>,
    parts: Vec<Option<Map>>,
}

/// What the file and the reference give for one input.
pub struct Heads<'a> {
    /// The image as the file takes it.
    pub fed: &'a ArrayD<f32>,
    pub truths: Truths<'a>,
    pub boundaries: &'a [Boundary],
    /// What the file gives there, and behind these its outputs.
    pub values: &'a [ArrayD<f32>],
}

/// Where a part's output is in the file.
struct Found<'a> {
    value: &'a str,
    given: &'a ArrayD<f32>,
}

impl Heads<'_> {
    /// Each part behind the blocks whose end is a value of the file, beside the reference's; the outputs of the form among
    /// them.
    /// `before` is whether every block of the backbone holds.
    pub fn verdicts(&self, of: &Divergence, before: bool) -> Vec<BlockVerdict> {
        let (parts, known) = (of.reference.parts(), self.truths.blocks.len());
        let outputs = of.reference.sources(of.form).unwrap_or_default();
        let truth = |source: &Source| self.truths.of(source);
        let found = |source: Source| {
            let Source::Part(at) = source else { return Some(Found { value: of.ports.0, given: self.fed }) };
            let outside = self.values.len() - of.ports.1.len();
            let output = outputs.iter().position(|output| *output == source);
            if let Some((output, value)) = output.and_then(|at| Some((at, of.ports.1.get(at)?))) {
                return Some(Found { value, given: self.values.get(outside + output)? });
            }
            let ends = |b: &Boundary| b.block == parts[at].name() && !b.normed;
            let boundary = self.boundaries.iter().position(ends)?;
            Some(Found { value: &self.boundaries[boundary].value, given: &self.values[boundary] })
        };
        let mut verdicts = Vec::new();
        for (at, part) in parts.iter().enumerate().skip(known) {
            let source = Source::Part(at);
            let (Some(right), Some(Found { value, given })) = (truth(&source), found(source)) else {
                continue;
            };
            let Some(layout) = Layout::of(of.model, value, right.shape()) else {
                let inputs: Option<Vec<&Map>> = part.takes().iter().map(truth).collect();
                verdicts.extend(inputs.and_then(|inputs| of_another_shape(of, part, value, given, &inputs)));
                continue;
            };
            let error = |value: &ArrayD<f32>| {
                layout
                    .read(value, right.shape())
                    .map_or(f64::INFINITY, |found| distance(&found, slice(right)))
            };
            let passed_on = error(given);
            let inputs: Option<Vec<&Map>> = part.takes().iter().map(truth).collect();
            let alone = inputs.as_ref().filter(|_| passed_on > of.tolerance.bound).and_then(|inputs| {
                let feed = part.takes().iter().zip(inputs).map(|(source, map)| match source {
                    Source::Image => Some((of.ports.0.to_owned(), self.fed.clone())),
                    Source::Part(_) => {
                        let name = found(*source)?.value;
                        Some((name.to_owned(), Layout::of(of.model, name, map.shape())?.write(map)))
                    }
                });
                // One map may be taken twice.
                let feed: BTreeMap<String, _> = feed.collect::<Option<_>>()?;
                let (names, maps): (Vec<String>, Vec<_>) = feed.into_iter().unzip();
                of.run(&names, &maps, &[value.to_owned()])?.pop()
            });
            // Where all before it holds along the path, the part got what is right.
            let unbroken = before && verdicts.iter().all(|verdict: &BlockVerdict| verdict.holds);
            let wrong = unbroken && passed_on > of.tolerance.bound;
            let alone = alone.or_else(|| wrong.then(|| given.clone()));
            let own = alone.as_ref().map(error);
            let explained =
                alone.as_ref().zip(own).filter(|(_, own)| *own > of.tolerance.bound).map(|(alone, own)| {
                    let read = layout.read(alone, right.shape()).unwrap_or_default();
                    let outcome = |mistake| {
                        let made = part
                            .can_make(mistake)
                            .then(|| part.forward_with(inputs.as_deref()?, Some(mistake)).into());
                        made.flatten().map(|map: Map| map.into_iter().collect())
                    };
                    explain(&read, own, of.tolerance, outcome)
                        .map_or(cause::UNKNOWN, |explained| explained.cause)
                });
            verdicts.push(of.verdict(part.name().to_owned(), value.to_owned(), passed_on, own, explained));
        }
        verdicts
    }
}

/// A part that a mistake gives another shape, which is the file's.
fn of_another_shape(
    of: &Divergence,
    part: &Block,
    value: &str,
    given: &ArrayD<f32>,
    inputs: &[&Map],
) -> Option<BlockVerdict> {
    let tries = CAUSES.iter().flat_map(|cause| cause.tries.iter().map(move |mistake| (cause.name, *mistake)));
    let made = tries.filter(|(_, mistake)| part.can_make(*mistake)).find_map(|(cause, mistake)| {
        let made = part.forward_with(inputs, Some(mistake));
        let found = Layout::of(of.model, value, made.shape())?.read(given, made.shape())?;
        (distance(&found, slice(&made)) <= of.tolerance.bound).then_some(cause)
    })?;
    let far = f64::INFINITY;
    Some(of.verdict(part.name().to_owned(), value.to_owned(), far, Some(far), Some(made)))
}

impl<'a> Truths<'a> {
    pub fn new(of: &Divergence, image: &'a Map, blocks: Vec<&'a Map>) -> Self {
        let (parts, known) = (of.reference.parts(), blocks.len());
        let mut needed = vec![false; parts.len()];
        let mut open = of.reference.sources(of.form).unwrap_or_default();
        while let Some(source) = open.pop() {
            if let Source::Part(at) = source
                && at >= known
                && !std::mem::replace(&mut needed[at], true)
            {
                open.extend_from_slice(parts[at].takes());
            }
        }
        let mut truths = Self { image, blocks, parts: Vec::new() };
        for (at, part) in parts.iter().enumerate().skip(known) {
            let inputs: Option<Vec<&Map>> = part.takes().iter().map(|source| truths.of(source)).collect();
            let made = inputs.filter(|_| needed[at]).map(|inputs| part.forward(&inputs));
            truths.parts.push(made);
        }
        truths
    }

    fn of(&self, source: &Source) -> Option<&Map> {
        match *source {
            Source::Image => Some(self.image),
            Source::Part(at) if at < self.blocks.len() => self.blocks.get(at).copied(),
            Source::Part(at) => self.parts.get(at - self.blocks.len())?.as_ref(),
        }
    }

    /// Puts the ends of parts where the file has the reference's maps: a part may end with a resize, and what takes
    /// several maps with their sum.
    pub fn settle(&self, of: &Divergence, boundaries: &mut [Boundary]) {
        for (at, part) in of.reference.parts().iter().enumerate().skip(self.blocks.len()) {
            let Some(right) = self.of(&Source::Part(at)) else { continue };
            // A part may be several numbered layers, of which the last ends it.
            let within = format!("{}.", part.name());
            let last = |b: &&mut Boundary| b.block == part.name() || b.block.starts_with(&within);
            if let Some(boundary) = boundaries.iter_mut().rfind(last) {
                boundary.block = part.name().to_owned();
                let sum = boundary.sum.clone().filter(|_| part.takes().len() > 1);
                let mut ends = sum.into_iter().chain([boundary.value.clone()]).chain(boundary.moved.clone());
                if let Some(end) = ends.find(|end| Layout::of(of.model, end, right.shape()).is_some()) {
                    boundary.value = end;
                }
            }
        }
    }
}
