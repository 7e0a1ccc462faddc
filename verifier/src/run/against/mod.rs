//! Any two files: whether one gives what the other gives.

mod agree;
mod earn;
mod extents;
mod feed;
mod matching;
mod piece;
mod place;
mod runs;

use emo_proto::file::OnnxFile;
use emo_proto::{Error, GraphProto, ModelProto, Result, ValueInfoProto};
use ndarray::ArrayD;
use serde::Serialize;

use crate::compare::{Difference, FLOAT32, Tolerance, coarser};
use crate::earned::MOST_EARNED;
use crate::finding::{Finding, Outcome, Severity, UNDECIDED};
use crate::infer::Bindings;
use crate::opinion;
use crate::probe::runnable;
use crate::runtime::{Concrete, Failure, Own, Runtime};
use crate::tolerance::stored_tolerance;

pub use extents::{Extent, Origin};
use extents::{Open, Sizes};
pub use piece::Saved;
pub use place::{Node, Place};
pub use runs::Run;
use runs::{Answers, Sessions};

/// The code of outputs that differ.
pub const OUTPUTS: &str = "outputs-differ";

/// An output of one file beside the other's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputVerdict {
    pub probe: String,
    /// As the judged file calls it.
    pub output: String,
    /// As the other file calls it.
    pub against: String,
    pub shape: Vec<usize>,
    #[serde(flatten)]
    pub difference: Option<Difference>,
    pub holds: bool,
    /// Whether it tells right from wrong: what is no number in both files does not.
    pub decides: bool,
    /// Why there is no measure.
    pub reason: Option<String>,
}

/// The verdict on a file against another, which is taken for the truth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    pub verdict: Outcome,
    pub against: String,
    pub tolerance: &'static str,
    pub bound: f64,
    /// Largest error of an element, over all outputs.
    pub max_abs: Option<f64>,
    pub cause: Option<&'static str>,
    pub reason: Option<String>,
    pub runtime: &'static str,
    /// Another engine, in which the files differ too.
    pub second: Option<&'static str>,
    /// What the files leave open, and what it was in the runs.
    pub extents: Vec<Extent>,
    /// What keeps the verdict from passing, a sentence each.
    pub open: Vec<String>,
    pub first_divergence: Option<Place>,
    pub outputs: Vec<OutputVerdict>,
    pub findings: Vec<Finding>,
    /// The smallest wrong piece of the judged file.
    #[serde(skip)]
    pub piece: Option<Saved>,
}

/// What is compared, and how.
pub struct Request<'a> {
    pub file: &'a OnnxFile,
    /// The file that is taken for the truth, and what it is called.
    pub truth: (&'a str, &'a OnnxFile),
    /// The caller's own inputs; without, noise.
    pub runs: &'a [Run],
    /// Draws of noise.
    pub probes: usize,
    /// Numbers for open dimensions of the one and of the other.
    pub dims: [&'a Bindings; 2],
    /// Without, that of the coarser file.
    pub tolerance: Option<&'static Tolerance>,
    pub runtime: &'a dyn Runtime,
}

/// A port and its counterpart in the other file.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    own: &'a str,
    other: &'a str,
}

/// Elements of the inputs of all runs, and of the outputs, which are there at once.
const MOST_KEPT: usize = 1 << 29;
/// What an array takes beside its elements.
const ARRAY: usize = 32;

/// Two files whose ports are paired.
struct Judge<'a> {
    request: &'a Request<'a>,
    inputs: Vec<Pair<'a>>,
    outputs: Vec<Pair<'a>>,
    tolerance: Tolerance,
}

/// Runs both files on the same inputs and compares what they give.
///
/// # Errors
/// The files do not take the same inputs, or have another number of outputs.
pub fn against(request: &Request) -> Result<Against> {
    let Request { file, truth: (name, truth), runtime, .. } = *request;
    let (own, other) = (names(extents::ports(file)), names(extents::ports(truth)));
    let inputs = paired(&own, &other, "inputs")?;
    let (own, other) = (outputs(file), outputs(truth));
    let outputs = paired(&own, &other, "outputs")?;
    let open = Open::of(&inputs, file, truth, request.dims)?;
    if request.runs.is_empty() && request.probes == 0 {
        return Err(Error::new("expected inputs to run the files on, found none"));
    }
    let named = |pairs: &[Pair], side: fn(&Pair) -> String| pairs.iter().map(side).collect::<Vec<_>>();
    let own = [named(&inputs, |p| p.own.to_owned()), named(&outputs, |p| p.own.to_owned())];
    let other = [named(&inputs, |p| p.other.to_owned()), named(&outputs, |p| p.other.to_owned())];
    let rounds =
        [earn::coarsest(file, &own, request.dims[0]), earn::coarsest(truth, &other, request.dims[1])];
    let rounds = coarser(rounds[0], rounds[1]);
    let coarse = rounds != &FLOAT32;
    let kind = request.tolerance.unwrap_or_else(|| coarser(rounds, coarser(stored(file), stored(truth))));
    let mut verdict = Against {
        verdict: Outcome::Pass,
        against: name.to_owned(),
        tolerance: kind.name,
        bound: kind.bound,
        max_abs: None,
        cause: None,
        reason: None,
        runtime: runtime.name(),
        second: None,
        extents: Vec::new(),
        open: Vec::new(),
        first_divergence: None,
        outputs: Vec::new(),
        findings: Vec::new(),
        piece: None,
    };
    let runtime = if coarse && !runtime.as_written() { &Own } else { runtime };
    verdict.runtime = runtime.name();
    let request = &Request { runtime, ..*request };
    let mut judge = Judge { request, inputs, outputs, tolerance: *kind };
    match judge.run(&open)? {
        Ok((sizes, runs, answers)) => {
            if request.tolerance.is_none() {
                let ports = [&judge.ports(0), &judge.ports(1)];
                judge.tolerance = earn::earned([file, truth], ports, &runs[0], kind);
                verdict.bound = judge.tolerance.bound;
            }
            verdict.extents = sizes.extents;
            judge.judge(&mut verdict, &runs, &answers)?;
        }
        Err(failure) => {
            (verdict.verdict, verdict.reason) = (Outcome::Undecided, Some(failure.to_string()));
        }
    }
    // The outcome is what the findings come to, in every format.
    if verdict.verdict == Outcome::Undecided && Outcome::of(&verdict.findings) == Outcome::Pass {
        let message = verdict.reason.clone().unwrap_or_default();
        let (code, severity, place) = (UNDECIDED, Severity::Open, String::new());
        verdict.findings.insert(0, Finding { code, severity, place, message, file: None });
    }
    Ok(verdict)
}

/// Runs of one shape or the caller's, and what both files give on each.
type Ran = (Sizes, Vec<Run>, Vec<Answers>);

impl<'a> Judge<'a> {
    /// Runs at the first sizes that both files take.
    fn run(&self, open: &Open) -> Result<Result<Ran, Failure>> {
        let recorded = self.request.runs;
        let candidates = match recorded.first() {
            None => open.candidates(),
            Some(run) => vec![open.given(&run.inputs.iter().map(|i| i.shape().to_vec()).collect::<Vec<_>>())],
        };
        let chosen = candidates.len() > 1;
        let mut first = None;
        for sizes in candidates {
            match self.fits(&sizes.shapes) {
                Ok(()) => {}
                Err(error) if !chosen => return Err(error),
                Err(error) => {
                    first.get_or_insert(Failure::Wrong(error));
                    continue;
                }
            }
            let runs = match recorded {
                [] => runs::noise(self.request, &self.inputs, &sizes.shapes),
                recorded => runs::around(recorded, &self.inputs),
            };
            match self.answers(&runs) {
                Ok(answers) => return Ok(Ok((sizes, runs, answers))),
                Err(Failure::Wrong(error)) if !chosen => return Err(error),
                Err(lacking @ Failure::Lacking { .. }) => return Ok(Err(lacking)),
                Err(failure) => drop(first.get_or_insert(failure)),
            }
        }
        let failure =
            first.unwrap_or_else(|| Failure::from(Error::new("expected sizes to run at, found none")));
        let names = open.names().join(", ");
        let place = format!("no sizes of {names} that were tried run in both files, the first");
        Ok(Err(if chosen { failure.at(place) } else { failure }))
    }

    /// Whether inputs of these shapes can be made, those of every run.
    fn fits(&self, shapes: &[Vec<usize>]) -> Result<()> {
        for (pair, shape) in self.inputs.iter().zip(shapes) {
            runnable(shape).map_err(|error| error.at(pair.own))?;
        }
        let once = shapes.iter().map(|shape| shape.iter().product::<usize>() + ARRAY).sum::<usize>();
        let runs = self.request.probes.max(self.request.runs.len()).saturating_add(shapes.len());
        match once.checked_mul(runs) {
            Some(n) if n <= MOST_KEPT => Ok(()),
            _ => Err(Error::new(format!(
                "{} inputs of {once} elements for {runs} runs are too large to run here; {MOST_KEPT} elements fit",
                shapes.len()
            ))),
        }
    }

    fn answers(&self, runs: &[Run]) -> Result<Vec<Answers>, Failure> {
        let Request { file, truth: (_, truth), runtime, .. } = *self.request;
        let mut own = Sessions::new(file, self.ports(0), runtime);
        let mut other = Sessions::new(truth, self.ports(1), runtime);
        let mut answers: Vec<Answers> = Vec::with_capacity(runs.len());
        for run in runs {
            let answer = [own.run(run)?, other.run(run)?];
            let once = answer.iter().flatten().map(ArrayD::len).sum::<usize>();
            if once.saturating_mul(runs.len()) > MOST_KEPT {
                let runs = runs.len();
                return Err(Failure::wrong(format!(
                    "outputs of {once} elements for {runs} runs are too large to run here; {MOST_KEPT} elements fit"
                )));
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// The names of inputs and outputs in the judged file, or in the other.
    fn ports(&self, side: usize) -> [Vec<String>; 2] {
        let name = |pair: &Pair| [pair.own, pair.other][side].to_owned();
        [self.inputs.iter().map(name).collect(), self.outputs.iter().map(name).collect()]
    }

    fn verdicts(&self, run: &Run, [own, other]: &Answers) -> Vec<OutputVerdict> {
        let each = self.outputs.iter().zip(own.iter().zip(other));
        each.map(|(pair, (a, b))| agree::judge(run, pair, a, b, self.tolerance.bound)).collect()
    }

    fn judge(&self, verdict: &mut Against, runs: &[Run], answers: &[Answers]) -> Result<()> {
        let judged: Vec<Vec<OutputVerdict>> =
            runs.iter().zip(answers).map(|(run, answers)| self.verdicts(run, answers)).collect();
        let error = |output: &OutputVerdict| output.difference.map_or(f64::INFINITY, |d| d.relative());
        let wrong = judged.iter().zip(runs).flat_map(|(outputs, run)| {
            outputs.iter().filter(|output| !output.holds).map(move |output| (run, output))
        });
        let wrong = wrong.max_by(|(_, a), (_, b)| error(a).total_cmp(&error(b)));
        let wrong = wrong.map(|(run, output)| (run, output.clone()));
        verdict.outputs = judged.into_iter().flatten().collect();
        verdict.max_abs =
            verdict.outputs.iter().filter_map(|o| o.difference).map(|d| d.max_abs).reduce(f64::max);
        match wrong {
            Some((run, output)) => self.failed(verdict, run, &output),
            None => {
                verdict.open = self.open(runs, answers, &verdict.outputs);
                if self.tolerance.bound > MOST_EARNED {
                    let (name, bound) = (self.tolerance.name, self.tolerance.bound);
                    verdict.open.push(format!(
                        "rounding ({name}) may move the outputs by {bound:.1e} of the largest value, too much to tell \
                         a right file from a wrong one"
                    ));
                }
                if let Some(first) = verdict.open.first() {
                    (verdict.verdict, verdict.reason) = (Outcome::Undecided, Some(first.clone()));
                }
            }
        }
        Ok(())
    }

    /// What the runs leave undecided though nothing differs.
    fn open(&self, runs: &[Run], answers: &[Answers], judged: &[OutputVerdict]) -> Vec<String> {
        let Request { file, truth: (_, truth), .. } = *self.request;
        let (own, other): (Vec<&str>, Vec<&str>) =
            self.inputs.iter().map(|pair| (pair.own, pair.other)).unzip();
        let (here, there) = (agree::reaches(file, &own), agree::reaches(truth, &other));
        let reached = |input: usize, output: &Pair| {
            here[input].contains(output.own) || there[input].contains(output.other)
        };
        let (Some(base), Some(first)) = (answers.first(), runs.first()) else { return Vec::new() };
        let shapes = |run: &Run| run.inputs.iter().map(|i| i.shape().to_vec()).collect::<Vec<_>>();
        let alike: Vec<(&Run, &Answers)> =
            runs.iter().zip(answers).skip(1).filter(|(run, _)| shapes(run) == shapes(first)).collect();
        let moved = |answers: &Answers, output: usize| {
            let of = |side: usize| agree::change(&base[side][output], &answers[side][output]);
            of(0).max(of(1))
        };
        let bound = self.tolerance.bound;
        let mut open = Vec::new();
        for (i, pair) in self.outputs.iter().enumerate() {
            let of: Vec<&OutputVerdict> = judged.iter().filter(|o| o.output == pair.own).collect();
            if of.iter().all(|o| !o.decides) {
                open.push(format!("the output {} is no finite number on any input, in both files", pair.own));
            } else if (0..own.len()).any(|input| reached(input, pair))
                && !alike.iter().any(|(_, answers)| moved(answers, i) > bound)
            {
                open.push(format!(
                    "the output {} does not move with the inputs by more than the tolerance, so that it tells \
                     nothing of what computes it",
                    pair.own
                ));
            }
        }
        for (i, name) in own.iter().enumerate() {
            let changed = alike.iter().filter(|(run, _)| run.changed == Some(i));
            let reaches: Vec<usize> =
                (0..self.outputs.len()).filter(|&o| reached(i, &self.outputs[o])).collect();
            let changed: Vec<_> = changed.collect();
            let tells =
                |(_, answers): &&&(&Run, &Answers)| reaches.iter().any(|&o| moved(answers, o) > bound);
            if !changed.is_empty() && !changed.iter().any(|changed| tells(&changed)) {
                open.push(format!(
                    "the input {name} alone moves no output by more than the tolerance, so that nothing is told of \
                     what reads it"
                ));
            }
        }
        open
    }

    fn failed(&self, verdict: &mut Against, run: &Run, wrong: &OutputVerdict) {
        let off = wrong.difference.map_or_else(
            || wrong.reason.clone().unwrap_or_default(),
            |d| format!("it is off by {:.1e}, {:.1e} of its largest value", d.max_abs, d.relative()),
        );
        let (name, runtime) = (self.request.truth.0, self.request.runtime);
        let message =
            format!("{} is not {} of {name} on {}: {off}", wrong.output, wrong.against, wrong.probe);
        let others = opinion::others(runtime.name());
        if let Some((other, holds)) =
            others.iter().find_map(|other| Some((other, self.holds_in(&**other, run)?)))
        {
            if holds {
                let blamed = self.blamed(&**other, run);
                verdict.verdict = Outcome::Undecided;
                verdict.reason = Some(format!(
                    "in {}, {message}; in {} the files agree there{blamed}; try another --runtime",
                    runtime.name(),
                    other.name()
                ));
                return;
            }
            verdict.second = Some(other.name());
        }
        let error = wrong.difference.map_or(1.0, |d| d.relative());
        let engines = std::iter::once(runtime).chain(others.iter().map(|other| &**other));
        let mut sides = engines.filter_map(|engine| self.sides(engine, run).ok());
        let found = sides.next().and_then(|[own, other]| {
            let ports: Vec<(&str, &str)> = self.inputs.iter().map(|pair| (pair.own, pair.other)).collect();
            let (place, piece) =
                place::first(&own, &other, &ports, (error, self.tolerance.bound), &run.name)?;
            let saved = piece::saved(self.request.file, &piece, [&own.arrays, &other.arrays], &own.fed());
            Some((place, saved))
        });
        let (place, saved) = found.unzip();
        verdict.verdict = Outcome::Fail;
        verdict.cause = Some(OUTPUTS);
        let at =
            place.as_ref().map_or(String::new(), |place| format!("; first wrong is {}", place.describe()));
        verdict.reason = Some(format!("{message}{at}"));
        let where_ = place.as_ref().map_or_else(|| wrong.output.clone(), |place| place.node.node.clone());
        verdict.findings.push(Finding {
            code: OUTPUTS,
            severity: Severity::Error,
            place: where_,
            message: format!("{message}{at}"),
            file: None,
        });
        (verdict.first_divergence, verdict.piece) = (place, saved.flatten());
    }

    /// Whether the files agree on `run` in another engine, if it takes both.
    fn holds_in(&self, engine: &dyn Runtime, run: &Run) -> Option<bool> {
        let answers = [self.outputs_in(engine, run, 0)?, self.outputs_in(engine, run, 1)?];
        Some(self.verdicts(run, &answers).iter().all(|output| output.holds))
    }

    fn outputs_in(&self, engine: &dyn Runtime, run: &Run, side: usize) -> Option<Vec<ArrayD<f32>>> {
        let file = [self.request.file, self.request.truth.1][side];
        let [inputs, outputs] = self.ports(side);
        let shapes = inputs.iter().cloned().zip(run.inputs.iter().map(|i| i.shape().to_vec()));
        let concrete = Concrete::new(file, &shapes.collect::<Vec<_>>()).ok()?;
        opinion::values(engine, &concrete, &inputs, &run.inputs, &outputs).ok()
    }

    /// Every value of both files.
    fn sides(&self, engine: &dyn Runtime, run: &Run) -> Result<[place::Side<'_>; 2], Failure> {
        let own: Vec<&str> = self.inputs.iter().map(|pair| pair.own).collect();
        let other: Vec<&str> = self.inputs.iter().map(|pair| pair.other).collect();
        let Request { file, truth: (_, truth), .. } = *self.request;
        Ok([
            place::Side::record(file, &own, &run.inputs, engine)?,
            place::Side::record(truth, &other, &run.inputs, engine)?,
        ])
    }

    /// Where the engine of the runs leaves the other, as the end of a sentence: in one of the files, the first node
    /// whose value it computes in another way.
    fn blamed(&self, other: &dyn Runtime, run: &Run) -> String {
        let engine = self.request.runtime;
        let (Ok(mine), Ok(theirs)) = (self.sides(engine, run), self.sides(other, run)) else {
            return String::new();
        };
        let files = ["the file".to_owned(), self.request.truth.0.to_owned()];
        let each = mine.iter().zip(&theirs).zip(files);
        let found = each.filter_map(|((mine, theirs), file)| {
            let node = mine.parts_from(theirs, self.tolerance.bound)?;
            Some(format!(", so that {} is wrong at {node} of {file}", engine.name()))
        });
        found.last().unwrap_or_default()
    }
}

/// Counterparts by name where every name is on both sides, by position else.
fn paired<'a>(own: &[&'a str], other: &[&'a str], what: &str) -> Result<Vec<Pair<'a>>> {
    if own.len() != other.len() {
        return Err(Error::new(format!(
            "expected {} {what} as the other file has, found {}",
            other.len(),
            own.len()
        )));
    }
    let by_name = own.iter().all(|name| other.contains(name));
    let counterpart =
        |(i, &own): (usize, &&'a str)| Pair { own, other: if by_name { own } else { other[i] } };
    Ok(own.iter().enumerate().map(counterpart).collect())
}

fn names(ports: Vec<&ValueInfoProto>) -> Vec<&str> {
    ports.into_iter().map(ValueInfoProto::name).collect()
}

fn outputs(file: &OnnxFile) -> Vec<&str> {
    file.model.graph.iter().flat_map(|g| &g.output).map(ValueInfoProto::name).collect()
}

/// The tolerance of the coarsest type among the weights that the outputs are computed from.
fn stored(file: &OnnxFile) -> &'static Tolerance {
    let read = |graph: &GraphProto| {
        let behind = agree::behind(graph);
        let initializer = graph.initializer.iter().filter(|t| behind.contains(t.name())).cloned().collect();
        GraphProto { initializer, ..GraphProto::default() }
    };
    let model = ModelProto { graph: file.model.graph.as_ref().map(read), ..ModelProto::default() };
    stored_tolerance(&model, &FLOAT32)
}
