//! A file in an engine beside the reference, input by input.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use emo_exporter::target::Output;
use emo_exporter::weights::{Origin, formula};
use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result};
use ndarray::{Array4, ArrayD, Axis, IxDyn};
use serde::Serialize;

use super::Request;
use super::detections::{Suppression, decoded};
use super::port::Port;
use crate::boxes::{self, Agreement};
use crate::compare::{Difference, Tolerance, compare, top};
use crate::data::image;
use crate::probe::{OWN_NOISE, PROBES as TABLE, probes as table};
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
    /// The output that is furthest off, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<String>,
    /// Images, or a segmenter's pixels, whose largest logit agrees, of how many; none of 0 for other outputs.
    pub top1: (usize, usize),
    /// The same of the five largest.
    pub top5: (usize, usize),
    /// Of a detector's boxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Agreement>,
    pub holds: bool,
    /// What may be added to the tolerance's bound, since means over a flat map explain it; 0 where nothing need be.
    pub allowance: f64,
    /// Whether the truth is a recorded one and not the reference's.
    pub recorded: bool,
    /// Why there is no measure.
    pub reason: Option<String>,
    /// What the file should give, where the bench keeps it.
    #[serde(skip)]
    pub truth: Vec<ArrayD<f64>>,
    /// What it was run on.
    #[serde(skip)]
    pub input: ArrayD<f32>,
}

/// A file's ports and what it is held to.
#[derive(Clone)]
pub struct Bench<'a> {
    pub file: &'a OnnxFile,
    pub port: &'a Port,
    /// In the order in which the reference has them.
    pub outputs: Vec<String>,
    /// What they are.
    pub gives: Output,
    /// How boxes are given, and which are kept, where some are.
    pub suppression: Option<&'a Suppression>,
    pub runtime: &'a dyn Runtime,
    pub tolerance: &'a Tolerance,
    /// Whether rows keep what the file should give: that of a segmenter is large.
    pub keep: bool,
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
    /// Of a file whose outputs are those of the model, in its order.
    ///
    /// # Errors
    /// It has no output.
    pub fn new(
        file: &'a OnnxFile,
        port: &'a Port,
        gives: Output,
        runtime: &'a dyn Runtime,
        tolerance: &'a Tolerance,
    ) -> Result<Self, Error> {
        let outputs = file.model.graph.iter().flat_map(|graph| &graph.output);
        let outputs: Vec<String> = outputs.map(|output| output.name().to_owned()).collect();
        match outputs.is_empty() {
            true => Err(Error::new("expected an output, found none")),
            false => {
                Ok(Self { file, port, outputs, gives, suppression: None, runtime, tolerance, keep: false })
            }
        }
    }

    /// The file on every probe, beside the reference; the two run side by side, the reference one input ahead.
    ///
    /// # Errors
    /// The engine does not take the file.
    pub fn run(&self, reference: &Reference, probes: &[Probe]) -> Result<Vec<Probed>, Failure> {
        let (port, gives) = (self.port, self.gives);
        let truth = move |probe: &Probe| {
            let input = port.image.map(&probe.input)?;
            Some((values(reference, gives, &input)?, input))
        };
        thread::scope(|scope| {
            let (send, truths) = mpsc::sync_channel(0);
            let refer = move || {
                // Nobody waits once the engine has failed.
                let _ = probes.iter().map_while(truth).try_for_each(|row| send.send(row));
            };
            let aside = thread::Builder::new().spawn_scoped(scope, refer).is_ok();
            let mut rows = Vec::with_capacity(probes.len());
            self.each(&probes.iter().collect::<Vec<_>>(), |probe, answer| {
                let row = if aside { truths.recv().ok() } else { truth(probe) };
                if let Some((truth, input)) = row {
                    let explain = |truth: &[f64]| reference.single_sums(&input, truth);
                    rows.extend(self.rows(probe, &answer, &truth, explain));
                }
            })?;
            Ok(rows)
        })
    }

    /// Shows what the engine makes of each probe; inputs of one shape share a plan.
    ///
    /// # Errors
    /// The engine does not take the file.
    pub fn each(
        &self,
        probes: &[&Probe],
        mut show: impl FnMut(&Probe, Vec<ArrayD<f32>>),
    ) -> Result<(), Failure> {
        for run in probes.chunk_by(|a, b| a.input.shape() == b.input.shape()) {
            let shape = run[0].input.shape().to_vec();
            let input = &self.port.name;
            let concrete = Concrete::new(self.file, &[(input.clone(), shape)])?;
            let mut session = self.runtime.ready(&concrete, std::slice::from_ref(input), &self.outputs)?;
            drop(concrete);
            for probe in run {
                show(probe, session.run(std::slice::from_ref(&probe.input))?);
            }
        }
        Ok(())
    }

    /// An answer beside the reference's outputs, and beside recorded logits where there are any. `explain` gives
    /// [`Reference::single_sums`] for a classifier's logits.
    pub fn rows(
        &self,
        probe: &Probe,
        answer: &[ArrayD<f32>],
        truth: &[ArrayD<f64>],
        explain: impl FnOnce(&[f64]) -> f64,
    ) -> Vec<Probed> {
        let mut own = self.judge(probe.name.clone(), probe, answer, truth);
        let allowance = match (own.difference, truth) {
            (Some(d), [logits]) if logits.ndim() == 2 => {
                allowance(d.relative(), self.tolerance, || explain(&elements(logits)))
            }
            _ => 0.0,
        };
        own.allow(allowance, self.tolerance);
        let recorded = probe.recorded.as_ref().and_then(|recorded| {
            let mut row = Probed { recorded: true, ..self.judge_recorded(probe, answer, truth, recorded)? };
            row.allow(allowance, self.tolerance);
            Some(row)
        });
        if self.keep {
            own.truth = self.right(truth);
        }
        std::iter::once(own).chain(recorded).collect()
    }

    /// The file's first output beside what somebody recorded of it; boxes that are kept may be others that are right too.
    fn judge_recorded(
        &self,
        probe: &Probe,
        answer: &[ArrayD<f32>],
        truth: &[ArrayD<f64>],
        recorded: &ArrayD<f32>,
    ) -> Option<Probed> {
        let name = format!("{}, recorded", probe.name);
        let recorded = recorded.mapv(f64::from);
        if let (Output::Labels, [found], [logits]) = (self.gives, answer, truth) {
            return Some(self.judge_labels(name, probe, found, (logits, &recorded)));
        }
        let first = self.file.model.graph.iter().flat_map(|graph| &graph.output).next()?;
        let at = self.outputs.iter().position(|output| output == first.name())?;
        let one = Bench { outputs: vec![self.outputs[at].clone()], ..self.clone() };
        (self.gives != Output::Nms).then(|| one.judge(name, probe, &answer[at..=at], &[recorded]))
    }

    /// What the outputs should be, where that is one thing: which of equal boxes is kept is nothing that is right.
    fn right(&self, truth: &[ArrayD<f64>]) -> Vec<ArrayD<f64>> {
        match (self.gives, truth) {
            (Output::Nms, _) => Vec::new(),
            (Output::Labels, [logits]) => vec![labels(logits)],
            _ => truth.to_vec(),
        }
    }

    /// The output that is furthest off stands for all, each measured by its own largest value.
    fn judge(&self, name: String, probe: &Probe, answer: &[ArrayD<f32>], truth: &[ArrayD<f64>]) -> Probed {
        if let (Output::Labels, [found], [logits]) = (self.gives, answer, truth) {
            return self.judge_labels(name, probe, found, (logits, &labels(logits)));
        }
        let (measured, boxes) = match (self.gives, self.suppression, answer, truth) {
            (Output::Nms, Some(suppression), ..) => {
                let judged = suppression.judge(answer, truth, self.tolerance);
                let judged = judged.and_then(|judged| judged.map_err(|wrong| boxes::describe(&wrong)));
                match judged.map_err(Error::new) {
                    Ok((difference, boxes)) => (Ok((0, difference)), Some(boxes)),
                    Err(reason) => (Err(reason), None),
                }
            }
            (Output::Decoded, _, [corners, scores], [right, right_scores]) => {
                let boxes = boxes::one_by_one([corners, scores], [right, right_scores]);
                (measure(answer, truth, &self.outputs), boxes)
            }
            _ => (measure(answer, truth, &self.outputs), None),
        };
        let difference = measured.as_ref().ok().map(|(_, difference)| *difference);
        let several = truth.len() > 1 && self.gives != Output::Nms;
        let worst = measured.as_ref().ok().filter(|_| several).map(|(at, _)| self.outputs[*at].clone());
        let agreeing = |k| match (answer, truth) {
            ([answer], [truth]) if matches!(truth.ndim(), 2 | 4) && answer.len() == truth.len() => {
                top(k, answer, truth)
            }
            _ => (0, 0),
        };
        Probed {
            name,
            shape: probe.input.shape().to_vec(),
            difference,
            worst,
            top1: agreeing(1),
            top5: agreeing(5),
            boxes,
            holds: difference.is_some_and(|d| self.tolerance.admits(&d)),
            reason: measured.err().map(|e| e.to_string()),
            allowance: 0.0,
            recorded: false,
            truth: Vec::new(),
            input: probe.input.clone(),
        }
    }

    /// Each pixel's label by its logit, beside the right one's: where the two are as large, the label is free.
    fn judge_labels(
        &self,
        name: String,
        probe: &Probe,
        found: &ArrayD<f32>,
        (logits, right): (&ArrayD<f64>, &ArrayD<f64>),
    ) -> Probed {
        let pixels = Bench { gives: Output::Logits, ..self.clone() };
        let both =
            labelled(found, logits).and_then(|own| Ok((own, labelled(&right.mapv(|x| x as f32), logits)?)));
        match both {
            Ok((own, largest)) => {
                let agreeing = found.iter().zip(right).filter(|(a, b)| f64::from(**a) == **b).count();
                let row = pixels.judge(name, probe, &[own.mapv(|x| x as f32)], &[largest]);
                Probed { top1: (agreeing, found.len()), top5: (0, 0), ..row }
            }
            Err(reason) => Probed { reason: Some(reason), ..pixels.judge(name, probe, &[], &[]) },
        }
    }
}

/// The class of the largest logit of each pixel, of equal ones the first: [N, H, W].
fn labels(logits: &ArrayD<f64>) -> ArrayD<f64> {
    logits.map_axis(Axis(1), |lane| {
        let largest = |best: (usize, f64), (class, &logit): (usize, &f64)| match logit > best.1 {
            true => (class, logit),
            false => best,
        };
        lane.iter().enumerate().fold((0, f64::NEG_INFINITY), largest).0 as f64
    })
}

/// The reference's outputs, as they are given; labels are held to the logits that they are of, and boxes that are kept
/// to all that are decoded. `None` where the model
/// gives no such thing.
pub fn values(reference: &Reference, gives: Output, input: &Array4<f64>) -> Option<Vec<ArrayD<f64>>> {
    if gives == Output::Nms {
        return decoded(reference, input);
    }
    let form = if gives == Output::Labels { Output::Logits } else { gives };
    let outputs = reference.outputs_as(form.name(), input, None).ok()?;
    Some(outputs.into_iter().map(|output| output.value).collect())
}

/// The first of what a model's files give.
pub fn first_of(reference: &Reference) -> Output {
    reference.forms().next().and_then(Output::named).unwrap_or(Output::Logits)
}

/// The logit of each pixel's label.
///
/// # Errors
/// They are of another number of pixels, or one is of no class.
fn labelled(labels: &ArrayD<f32>, logits: &ArrayD<f64>) -> Result<ArrayD<f64>, String> {
    let classes = logits.len_of(Axis(1));
    let pixels = logits.len() / classes;
    if labels.len() != pixels {
        return Err(format!("expected labels of {pixels} pixels, found {}", labels.len()));
    }
    if let Some(bad) = labels.iter().find(|x| x.fract() != 0.0 || !(0.0..classes as f32).contains(*x)) {
        return Err(format!("expected labels from 0 to {}, found {bad}", classes - 1));
    }
    let own = logits.lanes(Axis(1)).into_iter().zip(labels).map(|(lane, &label)| lane[label as usize]);
    ArrayD::from_shape_vec(IxDyn(&[pixels]), own.collect()).map_err(|error| error.to_string())
}

/// The output that is furthest off as a share of its largest value, and by how much.
fn measure(answer: &[ArrayD<f32>], truth: &[ArrayD<f64>], names: &[String]) -> Result<(usize, Difference)> {
    if answer.len() != truth.len() {
        return Err(Error::new(format!("expected {} outputs, found {}", truth.len(), answer.len())));
    }
    let several = truth.len() > 1;
    let mut worst: Option<(usize, Difference)> = None;
    for (at, (found, right)) in answer.iter().zip(truth).enumerate() {
        let found: Vec<f32> = found.iter().copied().collect();
        let measured = compare(&found, &elements(right));
        let difference = measured.map_err(|error| if several { error.at(&names[at]) } else { error })?;
        if worst.is_none_or(|(_, worst)| difference.relative() > worst.relative()) {
            worst = Some((at, difference));
        }
    }
    worst.ok_or_else(|| Error::new("expected outputs to compare, found none"))
}

fn elements(value: &ArrayD<f64>) -> Cow<'_, [f64]> {
    value.as_slice().map_or_else(|| value.iter().copied().collect(), Cow::Borrowed)
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
pub fn probes_of(
    request: &Request,
    count: usize,
    port: &Port,
    file: &Origin,
    mild: bool,
) -> Result<Vec<Probe>> {
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
    let harsh = |probe: &Probe| TABLE.iter().any(|row| row.name == probe.name && !row.mild);
    let table = probes(count + if mild { TABLE.len() } else { 0 }, port.batch, port.size);
    let table = table.into_iter().filter(|probe| !(mild && harsh(probe))).take(count);
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

/// Inputs to run a file on, where nobody says how many.
pub const PROBES: usize = 8;

/// Multiply-adds of all test inputs together where nobody says how many there are: some seconds of the reference's.
const AFFORDED: i64 = 40_000_000_000;
/// Of a model of any size: the first noise, and the file's own.
pub const FEWEST: usize = 2;

/// How many test inputs a file of so many multiply-adds is run on.
#[must_use]
pub fn affordable(macs: Option<i64>) -> usize {
    let macs = macs.unwrap_or(0).max(1);
    usize::try_from(AFFORDED / macs).unwrap_or(PROBES).clamp(FEWEST, PROBES)
}
