//! The verdict on any ONNX file: is it EMO, does it compute EMO, to what accuracy, and if not, from where on.
//!
//! Nothing that the file says of itself counts. Its layers are recognised by their shapes, its weights are
//! recovered from them, and its graph runs in an engine beside [`crate::reference`] with these weights
//! (*the function*), or with a checkpoint's (*function and weights*).

mod beside;
mod blocks;
pub mod cause;
pub mod detections;
mod divergence;
pub mod explain;
mod form;
mod heads;
mod judge;
pub(super) mod port;
pub mod probes;
mod rounding;
mod structure;
mod weights;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use emo_exporter::models::{MODELS, Model, Task};
use emo_exporter::target::Output;
use emo_exporter::weights::{self as checkpoint, Spec, Weights};
use emo_proto::file::OnnxFile;
use emo_proto::{Error, ModelProto, NodeProto, Result};
use serde::Serialize;

use crate::check;
use crate::compare::{FLOAT32, FLOAT32_DEEP, INT8, Tolerance, coarser};
use crate::data::Set;
pub use crate::finding::Outcome;
use crate::finding::{Finding, Severity, UNDECIDED};
use crate::infer::{Bindings, Inference, infer_file};
use crate::lower::lower;
use crate::models::claim::{self, Claim};
use crate::models::recognise::{Departure, Recognition, recognise, recognise_as};
use crate::models::recover::{Recovered, recover};
use crate::models::windows::other_window;
use crate::probe::{MOST_IMAGES, runnable};
use crate::runtime::{Own, Runtime};
use crate::tolerance::own_tolerance;

use crate::path::DataPath;
pub use beside::BlockVerdict;
use detections::Suppression;
pub use form::Form;
use judge::Judge;
use port::{Port, outputs};
use probes::{Bench, Probe, Probed, affordable, probes_of};
pub use probes::{FEWEST, PROBES};
pub use weights::TensorDifference;

/// What a file is held to.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The model that the file should be; `None` takes the published one that it is.
    pub model: Option<Model>,
    /// Where the weights should come from; `None` checks the function alone.
    pub weights: Option<Spec>,
    /// `None` takes that of the file's own type.
    pub tolerance: Option<&'static Tolerance>,
    /// Inputs to run the file on; [`PROBES`], or fewer for a large model, where it is not said.
    pub probes: Option<usize>,
    /// The caller's own inputs, which come first.
    pub own: Vec<Probe>,
    /// Pictures, which come next, scaled to the input's size.
    pub pictures: Vec<PathBuf>,
    /// Numbers for dimensions that the file leaves open.
    pub dims: Bindings,
    /// Whether the verdict keeps what the file should give, for [`Verdict::sets`].
    pub keep: bool,
}

/// What was found out of the file's weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightsVerdict {
    /// What they were held against; `None` where nothing was given.
    pub against: Option<String>,
    /// Tensors that are not the checkpoint's.
    pub differing: Vec<TensorDifference>,
    /// Norms that are part of the layers beside them.
    pub folded: Vec<String>,
    /// Layers whose attention scale is part of q, or missing.
    pub scales_in_q: Vec<String>,
    /// Layers that are one with the next.
    pub merged: Vec<String>,
    /// What remains open, a sentence each.
    pub open: Vec<String>,
}

/// The verdict on a file.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub verdict: Outcome,
    /// `emo-1m`; `None` where the file is no known model.
    pub model: Option<String>,
    /// The tolerance's name.
    pub tolerance: Option<&'static str>,
    /// What the tolerance bounds: the largest error as a share of the largest logit.
    pub bound: Option<f64>,
    /// Largest error of a logit over all inputs.
    pub max_abs: Option<f64>,
    /// The same as a share of the largest logit of its input.
    pub max_relative: Option<f64>,
    /// The first block that is wrong: `stage3.1`, or `head`.
    pub first_divergence: Option<String>,
    /// One of [`cause::CAUSES`].
    pub cause: Option<&'static str>,
    /// What is wrong, or why nothing can be said, in a sentence.
    pub reason: Option<String>,
    pub form: Option<Form>,
    pub opset: Option<i64>,
    /// The element type of its arithmetic, as the tolerance of that type is called.
    pub dtype: Option<&'static str>,
    /// Height and width of the input, in pixels.
    pub size: Option<(usize, usize)>,
    /// Whether it takes images of bytes, and normalises them.
    pub bytes: bool,
    /// `None` where it is free.
    pub batch: Option<usize>,
    pub classes: Option<usize>,
    /// What its outputs are, where it is no classifier: `raw`, `labels`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<&'static str>,
    pub runtime: &'static str,
    /// Where the file leaves the variant that it follows furthest.
    pub departure: Option<Departure>,
    pub claim: Option<Claim>,
    pub weights: Option<WeightsVerdict>,
    pub probes: Vec<Probed>,
    /// Every block beside the reference's, where the outputs differ.
    pub blocks: Vec<BlockVerdict>,
    pub findings: Vec<Finding>,
}

impl Verdict {
    fn new(runtime: &'static str, findings: Vec<Finding>) -> Self {
        Self {
            verdict: Outcome::Undecided,
            model: None,
            tolerance: None,
            bound: None,
            max_abs: None,
            max_relative: None,
            first_divergence: None,
            cause: None,
            reason: None,
            form: None,
            opset: None,
            dtype: None,
            size: None,
            bytes: false,
            batch: None,
            classes: None,
            output: None,
            runtime,
            departure: None,
            claim: None,
            weights: None,
            probes: Vec::new(),
            blocks: Vec::new(),
            findings,
        }
    }

    /// What was run, with what the file should give, where the request kept it: recorded data for others to hold it to.
    #[must_use]
    pub fn sets(&self, model: &ModelProto) -> Vec<Set> {
        let outputs = model.graph.as_ref().map_or(1, |graph| graph.output.len());
        let set = |probe: &Probed| {
            let truth = probe.truth.iter().map(|output| Some(output.mapv(|x| x as f32)));
            let recorded = truth.chain(std::iter::repeat(None)).take(outputs);
            Set { name: probe.name.clone(), inputs: vec![probe.input.clone()], outputs: recorded.collect() }
        };
        self.probes.iter().filter(|probe| !probe.recorded).map(set).collect()
    }

    /// Stays open with a reason, which is a finding too.
    fn undecided(mut self, reason: String) -> Self {
        let (code, severity, place, message) = (UNDECIDED, Severity::Open, String::new(), reason.clone());
        self.findings.insert(0, Finding { code, severity, place, message, file: None });
        (self.verdict, self.reason) = (Outcome::Undecided, Some(reason));
        self
    }

    /// Passes no more where something keeps it open, each a finding.
    fn unless_open(mut self, open: Vec<Finding>) -> Self {
        if self.verdict != Outcome::Fail {
            // What is wrong with the file's form or its weights has not kept it from computing what it should.
            let errors = self.findings.iter_mut().filter(|finding| finding.severity == Severity::Error);
            errors.for_each(|finding| finding.severity = Severity::Warning);
        }
        let Some(first) = open.first() else { return self };
        if self.verdict == Outcome::Pass {
            self.verdict = Outcome::Undecided;
            self.reason = Some(match first.place.as_str() {
                "" => first.message.clone(),
                place => format!("{place}: {}", first.message),
            });
        }
        self.findings.splice(0..0, open);
        self
    }

    /// Fails with a cause; the finding for reports comes with it unless there is one already.
    fn fail(mut self, cause: &'static str, block: Option<String>, reason: String) -> Self {
        self.verdict = Outcome::Fail;
        if !self.findings.iter().any(|f| f.severity == Severity::Error && f.code == cause) {
            let place = block.clone().unwrap_or_default();
            let finding = Finding {
                code: cause,
                severity: Severity::Error,
                place,
                message: reason.clone(),
                file: None,
            };
            self.findings.insert(0, finding);
        }
        (self.cause, self.first_divergence, self.reason) = (Some(cause), block, Some(reason));
        self
    }
}

/// Judges `file`, which lies in `folder`.
///
/// # Errors
/// The request is wrong: the weights cannot be read or are another model's, an input has another shape.
pub fn verify(
    file: &OnnxFile,
    folder: Option<&Path>,
    request: &Request,
    runtime: &dyn Runtime,
) -> Result<Verdict> {
    let mut findings = check::structure(file, folder);
    // An error of the file's form keeps no engine from running it: of what it computes it says nothing.
    let formal = findings.iter_mut().filter(|f| f.severity == Severity::Error && !stops(f.code));
    formal.for_each(|finding| finding.severity = Severity::Warning);
    let mut verdict = Verdict::new(runtime.name(), findings);
    if let Some(finding) = verdict.findings.iter().find(|f| f.severity == Severity::Error) {
        let (block, reason) = (finding.place.clone(), finding.message.clone());
        return Ok(verdict.fail(cause::UNRUNNABLE, None, format!("{block}: {reason}")));
    }
    let Some(mut port) = Port::of(&file.model, &request.dims) else {
        return Ok(not_image(verdict, file, &request.dims));
    };
    let lowered = lowered(file, &port.bindings);
    let (whole, file) = (file, lowered.as_ref().unwrap_or(file));
    let inference = infer_file(file, &port.bindings);
    let recognised = match &request.model {
        Some(model) => recognise_as(&inference, model),
        None => recognise(&inference),
    };
    let recognition = match recognised {
        Ok(recognition) => recognition,
        Err(departure) => return Ok(departed(verdict, departure, &inference)),
    };
    // A file that is no known model has perhaps gigabytes that nobody needs to read.
    verdict.findings.extend(check::weights(file, folder));
    verdict.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    verdict.model = Some(recognition.model.to_string());
    verdict.findings.extend(recognition.ties.iter().map(|other| tie(other, &recognition)));
    verdict.opset = file
        .model
        .opset_import
        .iter()
        .filter(|s| s.domain().is_empty())
        .map(emo_proto::OperatorSetIdProto::version)
        .max();
    (verdict.size, verdict.batch, verdict.classes) =
        (Some(port.size), port.batch, Some(recognition.model.classes));
    verdict.bytes = port.image.bytes;
    verdict.claim = Some(claim::of(&inference, &recognition));
    match (other_window(&recognition.model, request.model.as_ref()), &request.model) {
        (Some(reason), Some(_)) => return Ok(verdict.fail(cause::OTHER_WINDOW, None, reason)),
        (Some(reason), None) => verdict.findings.push(unpublished(reason)),
        (None, _) => {}
    }

    let recovered = match recover(file, &inference, &recognition) {
        Ok(recovered) => recovered,
        Err(error) => return Ok(verdict.undecided(format!("its weights cannot be read: {error}"))),
    };
    let (outputs, gives) = match outputs(file, &inference, &port, &recognition) {
        Ok(found) => found,
        Err(reason) => return Ok(verdict.undecided(reason)),
    };
    let fact = |name: &str| port::given(file, &inference, name);
    let suppression = match gives {
        Output::Nms => Suppression::of(&inference, &recognition.model, &outputs, fact),
        _ => None,
    };
    if suppression.is_some() {
        // Which boxes are whose image's, not every file says.
        port.batch = port.batch.or(Some(1));
    }
    verdict.findings.extend(suppression.as_ref().and_then(Suppression::note));
    verdict.output = (recognition.model.task() != Task::Classify).then(|| gives.name());
    let input = [port.name.clone()];
    let path = DataPath::between(&inference, &input, &outputs);
    let own = own_tolerance(&inference, &path);
    (verdict.form, verdict.dtype) = (Some(form::form(&inference, &path)), Some(own.name));
    let (behind, mut open) = explain::unexplained(&inference, &recognition, &path, gives);
    verdict.findings.extend(behind);
    open.extend(explain::unjudged(&file.model, &outputs));
    let seen = structure::mistakes(&inference, &recognition, &recovered);
    verdict.findings.splice(0..0, seen.iter().map(|seen| seen.finding.clone()));
    let expected = request.weights.as_ref().map(|spec| load(spec, &recognition)).transpose()?;
    let differing = match &expected {
        Some(expected) => weights::compare(&recognition, &recovered, expected)?,
        None => Vec::new(),
    };
    verdict.weights = Some(describe_weights(&recovered, expected.as_ref(), differing));

    let images = port.batch.unwrap_or(MOST_IMAGES);
    if let Err(error) = runnable(&[images, 3, port.size.0, port.size.1]) {
        return Ok(verdict.undecided(error.to_string()));
    }
    let count =
        request.probes.unwrap_or_else(|| affordable(verdict.claim.as_ref().and_then(|claim| claim.macs)));
    let probes = probes_of(request, count, &port, recovered.weights.origin(), own == &INT8)?;
    // With a checkpoint's weights, what the file's own were rounded to counts.
    let stored = recovered.stored.values().map(|stored| stored.tolerance).fold(own, coarser);
    let (rounds, own) = (own, if expected.is_some() { stored } else { own });
    if gives == Output::Nms && own != &FLOAT32 {
        let reason = "which boxes are kept is decided by numbers that are coarser than f32, and any may be; judge a file \
                      that gives boxes and scores before suppression";
        return Ok(verdict.undecided(reason.to_owned()));
    }
    let ports = (port.name.as_str(), outputs.as_slice());
    let plain = if recognition.model.task() == Task::Classify { &FLOAT32 } else { &FLOAT32_DEEP };
    let earned = match rounding::earned(file, ports, &probes, (own, plain), expected.is_some()) {
        Ok(earned) => earned,
        Err(failure) => return Ok(verdict.undecided(failure.to_string())),
    };
    open.extend(rounding::too_coarse(&earned));
    let tolerance = request.tolerance.copied().unwrap_or(earned.whole);
    (verdict.tolerance, verdict.bound) = (Some(tolerance.name), Some(tolerance.bound));
    // An engine that widens what the file rounds would show another file's outputs.
    let runtime = if rounds == &FLOAT32 || runtime.as_written() { runtime } else { &Own };
    verdict.runtime = runtime.name();
    let run = if runtime.as_written() { whole } else { file };
    let (outputs, keep) = (outputs.clone(), request.keep);
    let (suppression, tolerance) = (suppression.as_ref(), &tolerance);
    let bench = Bench { file: run, port: &port, outputs, gives, suppression, runtime, tolerance, keep };
    let (inference, recognition) = (&inference, &recognition);
    let judge = Judge { file, inference, recognition, bench, earned, seen: &seen };
    let verdict = judge.judge(verdict, &recovered, expected.as_ref(), &probes)?;
    Ok(verdict.unless_open(open))
}

/// The file with its fused and integer operators in plain ones; `None` where it has none.
fn lowered(file: &OnnxFile, bindings: &Bindings) -> Option<OnnxFile> {
    match lower(&file.model, bindings) {
        Cow::Borrowed(_) => None,
        Cow::Owned(model) => {
            Some(OnnxFile { model, bytes: file.bytes.clone(), external: file.external.clone() })
        }
    }
}

/// Whether an error of this code keeps engines from running the file; the others are of its form.
fn stops(code: &str) -> bool {
    const FORMAL: [&str; 9] = [
        // Engines sort for themselves; a cycle keeps them from it.
        "out-of-order",
        "graph-unnamed",
        "metadata-duplicate",
        "ir-version-missing",
        "initializer-no-input",
        "wrong-declaration",
        "wrong-default",
        "attribute-untyped",
        "unknown-attribute",
    ];
    !FORMAL.contains(&code)
}

fn load(spec: &Spec, recognition: &Recognition) -> Result<Weights> {
    let model = &recognition.model;
    Weights::load(spec, &model.parameters()).map_err(|error| {
        let Spec::File(path) = spec else { return error };
        let others = MODELS.iter().filter(|other| other.name != model.name);
        match others
            .into_iter()
            .find(|other| checkpoint::fits(path, &other.with_classes(model.classes).parameters()))
        {
            Some(other) => Error::new(format!(
                "expected weights of {}, which the file is, found those of {}",
                model.name, other.name
            ))
            .at(path.display()),
            None => error,
        }
    })
}

/// What the file is as well, by its layers.
fn tie(other: &str, recognition: &Recognition) -> Finding {
    Finding {
        code: TIE,
        severity: Severity::Note,
        place: String::new(),
        message: format!(
            "the file has the layers of {other} too; it is judged as {}",
            recognition.model.name
        ),
        file: None,
    }
}

/// A remark on a file that nobody said should be the published model.
fn unpublished(reason: String) -> Finding {
    Finding {
        code: cause::OTHER_WINDOW,
        severity: Severity::Note,
        place: String::new(),
        message: format!("{reason}; the file is judged with these"),
        file: None,
    }
}

/// The code of a file that could be several models.
pub const TIE: &str = "several-models";

fn departed(mut verdict: Verdict, departure: Departure, inference: &Inference) -> Verdict {
    let Departure { variant, matched, layers, reason } = &departure;
    let reason = format!("{matched} of {layers} layers are those of {variant}; then {reason}");
    let opaque = inference.nodes.iter().find(|node| is_opaque(node.node));
    if let Some(node) = opaque {
        let (place, operator) = (node.place(), format!("{}.{}", node.node.domain(), node.node.op_type()));
        verdict.departure = Some(departure);
        return verdict.undecided(format!(
            "{reason}; {place} is {operator}, which is not read here: have the file written without operators for one \
             runtime or processor alone"
        ));
    }
    verdict.departure = Some(departure);
    verdict.fail(cause::NOT_EMO, None, reason)
}

/// Whether a node's operator is one runtime's own, and may hold layers that recognition does not see.
fn is_opaque(node: &NodeProto) -> bool {
    const KNOWN: [&str; 5] = ["BiasGelu", "FastGelu", "Gelu", "QuickGelu", "SkipLayerNormalization"];
    !matches!(node.domain(), "" | "ai.onnx" | "ai.onnx.ml") && !KNOWN.contains(&node.op_type())
}

/// A file without an image input: not EMO, as its layers tell too.
fn not_image(verdict: Verdict, file: &OnnxFile, dims: &Bindings) -> Verdict {
    let inference = infer_file(file, dims);
    match recognise(&inference) {
        Err(departure) => departed(verdict, departure, &inference),
        Ok(_) => verdict.undecided(
            "expected one input, images [N, 3, H, W] or [N, H, W, 3], found another interface".to_owned(),
        ),
    }
}

fn describe_weights(
    recovered: &Recovered,
    expected: Option<&Weights>,
    differing: Vec<TensorDifference>,
) -> WeightsVerdict {
    let mut open = Vec::new();
    if expected.is_none() {
        open.push(
            "no weights were checked: any weights in this function pass; give --weights to check them"
                .to_owned(),
        );
        if !recovered.folded.is_empty() {
            open.push(format!(
                "{} norms are folded: their statistics and ε cannot be told from the weights that they are part of",
                recovered.folded.len()
            ));
        }
        if !recovered.halves_in_weights.is_empty() {
            open.push(format!(
                "{} halves of GELUs are part of the weights behind them or left out, which cannot be told apart",
                recovered.halves_in_weights.len()
            ));
        }
        if !recovered.scales_in_q.is_empty() {
            open.push(format!(
                "{} attention scales are part of q's weights or left out, which cannot be told apart",
                recovered.scales_in_q.len()
            ));
        }
        for (first, second) in &recovered.merged {
            open.push(format!(
                "{first} and {second} are one layer: their product is there, and what each of them is cannot be told"
            ));
        }
    }
    WeightsVerdict {
        against: expected.map(|weights| weights.origin().to_string()),
        differing,
        folded: recovered.folded.clone(),
        scales_in_q: recovered.scales_in_q.clone(),
        merged: recovered.merged.iter().map(|(first, _)| first.clone()).collect(),
        open,
    }
}
