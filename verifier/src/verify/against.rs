//! Any two files: whether one gives what the other gives.

use std::collections::BTreeMap;

use emo_exporter::weights::formula;
use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result, ValueInfoProto};
use ndarray::{ArrayD, IxDyn};
use serde::Serialize;

use super::form::stored_tolerance;
use super::{Outcome, cause};
use crate::audit::inputs;
use crate::compare::{Difference, FLOAT32, Tolerance, compare};
use crate::finding::{Finding, Severity};
use crate::infer::{Bindings, declared};
use crate::probe::runnable;
use crate::runtime::{Failure, Runtime};

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
    pub outputs: Vec<OutputVerdict>,
    pub findings: Vec<Finding>,
}

/// One run's inputs, in the order of the judged file.
#[derive(Debug, Clone)]
pub struct Run {
    pub name: String,
    pub inputs: Vec<ArrayD<f32>>,
}

/// A port and its counterpart in the other file.
struct Pair<'a> {
    own: &'a str,
    other: &'a str,
}

/// Runs `file` and `truth`, which is called `name`, on the same inputs: `runs`, or `probes` of noise. Dimensions
/// that are open and not among `dims` are 1; without a tolerance it is that of the coarser file.
///
/// # Errors
/// The files do not take the same inputs, or have another number of outputs.
pub fn against(
    file: &OnnxFile,
    (name, truth): (&str, &OnnxFile),
    runs: &[Run],
    probes: usize,
    dims: &Bindings,
    tolerance: Option<&'static Tolerance>,
    runtime: &dyn Runtime,
) -> Result<Against> {
    let stored = |file: &OnnxFile| stored_tolerance(&file.model, &FLOAT32);
    let coarser = |a: &'static Tolerance, b: &'static Tolerance| if a.bound < b.bound { b } else { a };
    let tolerance = tolerance.unwrap_or_else(|| coarser(stored(file), stored(truth)));
    let own = ports(file, dims)?;
    let other: BTreeMap<String, Vec<usize>> = ports(truth, dims)?.into_iter().collect();
    let own_names: Vec<&str> = own.iter().map(|(name, _)| name.as_str()).collect();
    let other_order = ports(truth, dims)?;
    let other_names: Vec<&str> = other_order.iter().map(|(name, _)| name.as_str()).collect();
    let inputs = paired(&own_names, &other_names, "inputs")?;
    let own_outputs = outputs(file);
    let other_outputs = outputs(truth);
    let outputs = paired(&own_outputs, &other_outputs, "outputs")?;

    own.iter().try_for_each(|(name, shape)| runnable(shape).map_err(|error| error.at(name)))?;
    let runs: Vec<Run> = match runs {
        [] => (0..probes as u64).map(|seed| noise(seed, &own)).collect(),
        runs => runs.to_vec(),
    };
    if runs.is_empty() {
        return Err(Error::new("expected inputs to run the files on, found none"));
    }
    let mut verdict = Against {
        verdict: Outcome::Pass,
        against: name.to_owned(),
        tolerance: tolerance.name,
        bound: tolerance.bound,
        max_abs: None,
        cause: None,
        reason: None,
        runtime: runtime.name(),
        outputs: Vec::new(),
        findings: Vec::new(),
    };
    // Extents that both declare must be the same; where one leaves them open, the other's hold.
    for (pair, (_, shape)) in inputs.iter().zip(&own) {
        let there = &other[pair.other];
        if shape.len() != there.len() {
            let message = format!("expected the shape of {}, {there:?}, found {shape:?}", pair.other);
            return Err(Error::new(message).at(pair.own));
        }
    }
    for run in &runs {
        match answers(file, truth, &inputs, &outputs, run, runtime) {
            Ok((found, expected)) => {
                for ((pair, found), expected) in outputs.iter().zip(found).zip(expected) {
                    verdict.outputs.push(judge(run, pair, &found, &expected, tolerance));
                }
            }
            Err(Failure::Wrong(error)) => return Err(error),
            Err(failure) => {
                (verdict.verdict, verdict.reason) = (Outcome::Undecided, Some(failure.to_string()));
                return Ok(verdict);
            }
        }
    }
    verdict.max_abs = verdict.outputs.iter().filter_map(|o| o.difference).map(|d| d.max_abs).reduce(f64::max);
    if let Some(wrong) = verdict.outputs.iter().find(|o| !o.holds) {
        verdict.verdict = Outcome::Fail;
        verdict.cause = Some(cause::OUTPUTS);
        let off = wrong.difference.map_or_else(
            || wrong.reason.clone().unwrap_or_default(),
            |d| format!("it is off by {:.1e}, {:.1e} of its largest value", d.max_abs, d.relative()),
        );
        let message =
            format!("{} is not {} of {name} on {}: {off}", wrong.output, wrong.against, wrong.probe);
        verdict.reason = Some(message.clone());
        let (code, place) = (cause::OUTPUTS, wrong.output.clone());
        verdict.findings.push(Finding { code, severity: Severity::Error, place, message, file: None });
    }
    Ok(verdict)
}

/// The answers of both files, their outputs in the order of `outputs`.
type Answers = (Vec<ArrayD<f32>>, Vec<ArrayD<f32>>);

fn answers(
    file: &OnnxFile,
    truth: &OnnxFile,
    inputs: &[Pair],
    outputs: &[Pair],
    run: &Run,
    runtime: &dyn Runtime,
) -> Result<Answers, Failure> {
    let ask = |file: &OnnxFile, port: for<'a> fn(&Pair<'a>) -> &'a str| {
        let shapes = inputs.iter().zip(&run.inputs).map(|(p, i)| (port(p).to_owned(), i.shape().to_vec()));
        let names: Vec<String> = outputs.iter().map(|p| port(p).to_owned()).collect();
        runtime.prepare(file, &shapes.collect::<Vec<_>>(), &names)?.run(&run.inputs)
    };
    Ok((ask(file, |pair| pair.own)?, ask(truth, |pair| pair.other)?))
}

fn judge(
    run: &Run,
    pair: &Pair,
    found: &ArrayD<f32>,
    expected: &ArrayD<f32>,
    tolerance: &Tolerance,
) -> OutputVerdict {
    let elements: Vec<f32> = found.iter().copied().collect();
    let truth: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
    let measured = match found.shape() == expected.shape() {
        true => compare(&elements, &truth),
        false => Err(Error::new(format!("expected shape {:?}, found {:?}", expected.shape(), found.shape()))),
    };
    let difference = measured.as_ref().ok().copied();
    OutputVerdict {
        probe: run.name.clone(),
        output: pair.own.to_owned(),
        against: pair.other.to_owned(),
        shape: found.shape().to_vec(),
        difference,
        holds: difference.is_some_and(|d| tolerance.admits(&d)),
        reason: measured.err().map(|error| error.to_string()),
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

fn outputs(file: &OnnxFile) -> Vec<&str> {
    file.model.graph.iter().flat_map(|g| &g.output).map(ValueInfoProto::name).collect()
}

/// The inputs of a file with their extents; open ones are 1.
fn ports(file: &OnnxFile, dims: &Bindings) -> Result<Vec<(String, Vec<usize>)>> {
    let port = |value: &ValueInfoProto| {
        let fact = declared(value, dims);
        let extents = fact.dims.map_err(|reason| Error::new(reason).at(value.name()))?;
        let extents = extents.iter().map(|e| e.count().map_or(1, |n| n as usize)).collect();
        Ok((value.name().to_owned(), extents))
    };
    file.model.graph.iter().flat_map(inputs).map(port).collect()
}

fn noise(seed: u64, ports: &[(String, Vec<usize>)]) -> Run {
    let inputs = (0..).zip(ports).map(|(i, (_, shape))| {
        // Each input draws its own.
        let elements = formula::input(shape, seed + 1000 * i);
        ArrayD::from_shape_vec(IxDyn(shape), elements).expect("the formula fills the shape")
    });
    Run { name: format!("noise-{seed}"), inputs: inputs.collect() }
}
