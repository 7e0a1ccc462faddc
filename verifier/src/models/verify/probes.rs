//! A file in an engine beside the reference, input by input.

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use emo_exporter::weights::{Origin, formula};
use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result};
use ndarray::{Array4, ArrayD, IxDyn};
use serde::Serialize;

use super::Request;
use super::port::Port;
use crate::compare::{Difference, Tolerance, compare, top, top1};
use crate::data::image;
use crate::probe::{OWN_NOISE, PROBES, probes as table};
use crate::reference::Reference;
use crate::runtime::{Concrete, Failure, Runtime};

/// An input that a file is run on.
#[derive(Debug, Clone)]
pub struct Probe {
    /// As reports name it: `formula 0`, `ramp`.
    pub name: String,
    /// As the file takes it: [N, 3, H, W], or the bytes of images.
    pub input: ArrayD<f32>,
    /// The logits that somebody recorded for it, which the file is held to as well.
    pub recorded: Option<ArrayD<f32>>,
}

/// An engine's answer beside the reference's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probed {
    pub name: String,
    /// Of the input, `[N, 3, H, W]` or `[N, H, W, 3]`.
    pub shape: Vec<usize>,
    /// `None` where the engine's answer has no measure: it is of another size, or not finite.
    #[serde(flatten)]
    pub difference: Option<Difference>,
    /// Images whose largest logit agrees, of how many.
    pub top1: (usize, usize),
    /// The same of the five largest.
    pub top5: (usize, usize),
    pub holds: bool,
    /// What may be added to the tolerance's bound, since means over a flat map explain it; 0 where nothing need be.
    pub allowance: f64,
    /// Whether the truth is a recorded one and not the reference's.
    pub recorded: bool,
    /// Why there is no measure.
    pub reason: Option<String>,
    /// The logits that the file should give, row-major.
    #[serde(skip)]
    pub truth: Vec<f64>,
    /// What it was run on.
    #[serde(skip)]
    pub input: ArrayD<f32>,
}

/// A file's ports and what it is held to.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    pub file: &'a OnnxFile,
    pub port: &'a Port,
    pub output: &'a str,
    pub classes: usize,
    pub runtime: &'a dyn Runtime,
    pub tolerance: &'a Tolerance,
}

/// Errors from here on are no rounding.
const MOST_EXPLAINED: f64 = 1e-3;

/// What is added to a tolerance for an error that it does not admit and that may be rounding: what `explain` gives,
/// [`Reference::single_sums`], which is asked for then alone.
fn allowance(error: f64, tolerance: &Tolerance, explain: impl FnOnce() -> f64) -> f64 {
    if (tolerance.bound..MOST_EXPLAINED).contains(&error) { explain() } else { 0.0 }
}

impl Probed {
    /// Whether the error is within a tolerance and what is allowed beside it.
    #[must_use]
    pub fn within(&self, tolerance: &Tolerance) -> bool {
        self.difference.is_some_and(|d| d.relative() <= tolerance.bound + self.allowance)
    }

    /// The error as a share of the largest logit, less what is allowed beside the tolerance; infinite where there is no
    /// measure.
    #[must_use]
    pub fn unexplained(&self) -> f64 {
        self.difference.map_or(f64::INFINITY, |d| (d.relative() - self.allowance).max(0.0))
    }

    fn allow(&mut self, allowance: f64, tolerance: &Tolerance) {
        if !self.within(tolerance) {
            self.allowance = allowance;
            self.holds = self.within(tolerance);
        }
    }
}

impl<'a> Bench<'a> {
    /// Of a file whose first output is the logits.
    ///
    /// # Errors
    /// It has no output.
    pub fn new(
        file: &'a OnnxFile,
        port: &'a Port,
        classes: usize,
        runtime: &'a dyn Runtime,
        tolerance: &'a Tolerance,
    ) -> Result<Self, Error> {
        let output = file.model.graph.iter().flat_map(|graph| &graph.output).next();
        let output = output.ok_or_else(|| Error::new("expected an output, found none"))?.name();
        Ok(Self { file, port, output, classes, runtime, tolerance })
    }

    /// The file on every probe, beside the reference; the two run side by side.
    ///
    /// # Errors
    /// The engine does not take the file.
    pub fn run(&self, reference: &Reference, probes: &[Probe]) -> Result<Vec<Probed>, Failure> {
        let port = self.port;
        thread::scope(|scope| {
            let (send, truths) = mpsc::sync_channel::<(Array4<f64>, Vec<f64>)>(probes.len());
            let refer = move || {
                for probe in probes {
                    let Some(input) = port.image.map(&probe.input) else { return };
                    let truth = reference.logits(&input, None);
                    // Nobody waits once the engine has failed.
                    if send.send((input, truth)).is_err() {
                        return;
                    }
                }
            };
            // The channel holds all answers, so that they can be made first where no thread can be had.
            if thread::Builder::new().spawn_scoped(scope, refer.clone()).is_err() {
                refer();
            }
            drop(refer); // with its end of the channel
            let answers = self.answers(&probes.iter().collect::<Vec<_>>())?;
            let judged = probes.iter().zip(answers).zip(truths);
            let rows = judged.flat_map(|((probe, answer), (input, truth))| {
                let explain = |truth: &[f64]| reference.single_sums(&input, truth);
                self.rows(probe, &answer, truth, explain)
            });
            Ok(rows.collect())
        })
    }

    /// What the engine makes of each probe; inputs of one shape share a plan.
    ///
    /// # Errors
    /// The engine does not take the file.
    pub fn answers(&self, probes: &[&Probe]) -> Result<Vec<Vec<f32>>, Failure> {
        let mut answers = Vec::with_capacity(probes.len());
        for run in probes.chunk_by(|a, b| a.input.shape() == b.input.shape()) {
            let shape = run[0].input.shape().to_vec();
            let input = &self.port.name;
            let concrete = Concrete::new(self.file, &[(input.clone(), shape)])?;
            let mut session =
                self.runtime.ready(&concrete, std::slice::from_ref(input), &[self.output.to_owned()])?;
            drop(concrete);
            for probe in run {
                let outputs = session.run(std::slice::from_ref(&probe.input))?;
                answers.push(outputs.into_iter().flatten().collect());
            }
        }
        Ok(answers)
    }

    /// An answer beside the reference's logits, and beside recorded ones where there are any. `explain` gives
    /// [`Reference::single_sums`] for these logits.
    pub fn rows(
        &self,
        probe: &Probe,
        answer: &[f32],
        truth: Vec<f64>,
        explain: impl FnOnce(&[f64]) -> f64,
    ) -> Vec<Probed> {
        let mut own = self.judge(probe.name.clone(), probe, answer, truth);
        let allowance =
            own.difference.map_or(0.0, |d| allowance(d.relative(), self.tolerance, || explain(&own.truth)));
        own.allow(allowance, self.tolerance);
        let recorded = probe.recorded.as_ref().map(|logits| {
            let name = format!("{}, recorded", probe.name);
            let logits = logits.iter().map(|&x| f64::from(x)).collect();
            let mut row = Probed { recorded: true, ..self.judge(name, probe, answer, logits) };
            row.allow(allowance, self.tolerance);
            row
        });
        std::iter::once(own).chain(recorded).collect()
    }

    fn judge(&self, name: String, probe: &Probe, answer: &[f32], truth: Vec<f64>) -> Probed {
        let measured = compare(answer, &truth);
        let difference = measured.as_ref().ok().copied();
        Probed {
            name,
            shape: probe.input.shape().to_vec(),
            difference,
            top1: top1(answer, &truth, self.classes),
            top5: top(5, answer, &truth, self.classes),
            holds: difference.is_some_and(|d| self.tolerance.admits(&d)),
            reason: measured.err().map(|e| e.to_string()),
            allowance: 0.0,
            recorded: false,
            truth,
            input: probe.input.clone(),
        }
    }
}

/// `count` probes, `[N, 3, H, W]`, for images of `size`: the table's, then more noise. `batch` is how many images a run takes;
/// where it is free, the table's own.
#[must_use]
pub fn probes(count: usize, batch: Option<usize>, size: (usize, usize)) -> Vec<Probe> {
    /// The table's seeds are smaller.
    const SEEDS: u64 = 16;
    let shape = [batch.unwrap_or(1), 3, size.0, size.1];
    let probe = |name: String, shape: [usize; 4], elements: Vec<f32>| Probe {
        name,
        input: ArrayD::from_shape_vec(IxDyn(&shape), elements).expect("a probe fills its shape"),
        recorded: None,
    };
    let noise = (SEEDS..).map(|seed| probe(format!("noise-{seed}"), shape, formula::input(&shape, seed)));
    let table = table(shape, batch.is_none())
        .map(|(row, shape)| probe(row.name.to_owned(), shape, (row.fill)(&shape)));
    table.chain(noise).take(count).collect()
}

/// The caller's inputs, then the table's; of a file whose integers have ranges, `mild` ones alone.
///
/// # Errors
/// An input of the caller's has another shape than the file takes, or a picture cannot be read.
pub fn probes_of(request: &Request, port: &Port, file: &Origin, mild: bool) -> Result<Vec<Probe>> {
    for probe in &request.own {
        let shape = probe.input.shape();
        let fits = port.image.extents(shape).is_some_and(|[n, c, h, w]| {
            (*c, (*h, *w)) == (3, port.size) && port.batch.is_none_or(|batch| batch == *n)
        });
        if let Some(bad) = probe.input.iter().find(|x| !x.is_finite()) {
            return Err(Error::new(format!("expected finite numbers, found {bad}")).at(&probe.name));
        }
        if !fits {
            let (height, width) = port.size;
            let mut expected = [const { String::new() }; 4];
            let batch = port.batch.map_or("N".to_owned(), |n| n.to_string());
            let extents = [batch, "3".to_owned(), height.to_string(), width.to_string()];
            for (axis, extent) in port.image.axes.into_iter().zip(extents) {
                expected[axis] = extent;
            }
            let expected = expected.join(", ");
            return Err(
                Error::new(format!("expected an input [{expected}], found {shape:?}")).at(&probe.name)
            );
        }
    }
    let picture = |path: &PathBuf| {
        let one = image(path, port.size)?;
        // The same picture in every place of a batch.
        let shape: Vec<usize> =
            std::iter::once(port.batch.unwrap_or(1)).chain(one.shape()[1..].iter().copied()).collect();
        let input = one.broadcast(IxDyn(&shape)).map(|view| view.to_owned());
        let input = input.ok_or_else(|| Error::new("expected a picture").at(path.display()))?;
        Ok(Probe { name: path.display().to_string(), input: port.image.feed(input), recorded: None })
    };
    let pictures = request.pictures.iter().map(picture).collect::<Result<Vec<_>>>()?;
    let harsh = |probe: &Probe| PROBES.iter().any(|row| row.name == probe.name && !row.mild);
    let table = probes(request.probes + if mild { PROBES.len() } else { 0 }, port.batch, port.size);
    let table = table.into_iter().filter(|probe| !(mild && harsh(probe))).take(request.probes);
    let table = table.map(|probe| own_noise(probe, file));
    let table = table.map(|probe| Probe { input: port.image.feed(probe.input), ..probe });
    Ok(request.own.iter().cloned().chain(pictures).chain(table).collect())
}

/// The second noise, drawn by the digest of the file itself: whoever writes a file to be right on the test inputs alone
/// would have to know them before it is written.
fn own_noise(probe: Probe, file: &Origin) -> Probe {
    let Origin::File { sha256, .. } = file else { return probe };
    match sha256.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
        Some(seed) if probe.name == "noise-1" => {
            let elements = formula::input(probe.input.shape(), seed);
            let drawn = ArrayD::from_shape_vec(probe.input.raw_dim(), elements);
            Probe { name: OWN_NOISE.to_owned(), input: drawn.unwrap_or(probe.input), ..probe }
        }
        _ => probe,
    }
}
