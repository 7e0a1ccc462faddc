//! `emo export MODEL`: writes a model, verified before it gets its name.

use std::path::{Path, PathBuf};

use anyhow::bail;
use emo_exporter::Export;
use emo_exporter::models::{MODELS, Model};
use emo_exporter::pass::half;
use emo_exporter::profile::{Opset, Profile};
use emo_exporter::target::{Batch, Output as ModelOutput, Suppression, Target};
use emo_exporter::weights::{self, Spec};
use emo_proto::file::OnnxFile;
use emo_proto::plain::plain;
use emo_proto::tensor::External;
use emo_proto::tensor_proto::DataType;
use emo_verifier::finding::{Finding, Severity};
use emo_verifier::identity::Identity;
use emo_verifier::models::recover::recover_as;
use emo_verifier::range::{Range, ranges};
use emo_verifier::runtime::Tract;
use emo_verifier::verify;
use emo_verifier::written::{count, findings, numerics, probe};
use serde_json::json;

use super::files::{apart, write};
use super::output::{Format, KEPT, Report, json as to_json, untrained};
use super::progress::Progress;
use super::{Outcome, Said, names};
use crate::manifest::facts::sha256;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A model of emo list, or a TOML file that describes a network of one's own
    #[arg(value_name = "MODEL|FILE.toml", value_parser = names::model())]
    model: Model,
    /// A checkpoint (.pth, .pt, .safetensors), anybody's ONNX file of the model, or formula:SEED
    /// for untrained weights
    #[arg(long, value_name = "PATH|formula:SEED", default_value = "formula:0")]
    weights: Spec,
    /// What the file is written for; emo targets tells more of each
    #[arg(long, alias = "profile", value_name = "NAME", default_value = "portable", value_parser = names::target())]
    target: &'static Profile,
    /// Operator set [default: the target's]
    #[arg(long, value_name = "N", value_parser = names::opset())]
    opset: Option<&'static Opset>,
    /// Of weights and computation; input and output are float32 either way
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
    /// Take images of bytes, [N, H, W, 3] RGB, and normalise them in the file
    #[arg(long)]
    image_input: bool,
    /// Height and width of the input: 224, or 256x320 [default: the published ones]
    #[arg(long, value_parser = size, value_name = "N|HxW")]
    size: Option<(usize, usize)>,
    /// Images a run: a number, or dynamic
    #[arg(long, value_parser = batch, default_value = "1", value_name = "N|dynamic")]
    batch: Batch,
    /// Width of the classifier [default: the model's]
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Side of the attention windows, in tokens, where the model has windows [default: the published one]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// What a detector, a segmenter or a backbone gives [default: the model's first of these]
    #[arg(long, value_name = "NAME", value_parser = names::output())]
    output: Option<ModelOutput>,
    /// With --output nms: boxes have scores above this [default: the published threshold]
    #[arg(long, value_name = "SHARE")]
    score_threshold: Option<f32>,
    /// With --output nms: boxes of a class share no more than this of their union with a better one
    /// [default: the published threshold]
    #[arg(long, value_name = "SHARE")]
    iou_threshold: Option<f32>,
    /// With --output nms: how many boxes there are at most [default: the published number]
    #[arg(long, value_name = "N")]
    max_detections: Option<usize>,
    /// The stages whose maps a backbone gives, 0 being the stem [default: 1,2,3,4]
    #[arg(long, value_name = "N[,N]", value_delimiter = ',')]
    stages: Vec<usize>,
    /// The file to write [default: MODEL.onnx]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write without running the file
    #[arg(long)]
    no_verify: bool,
}

const EXAMPLES: &str = "\
Examples:
  emo export emo-1m
      emo-1m.onnx, untrained weights, for any runtime
  emo export emo-1m --target coreml --weights net.pth
      trained, as CoreML runs it best
  emo export deeplabv3-emo-1m --output labels
      a segmenter that gives the class of every pixel
  emo export my.toml --size 256x320 --batch dynamic
      a network of one's own";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Dtype {
    #[default]
    F32,
    F16,
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let side = |s: &str| s.parse::<usize>().map_err(|_| format!("expected 224 or 256x320, found {text}"));
    match text.split_once('x') {
        Some((height, width)) => Ok((side(height)?, side(width)?)),
        None => side(text).map(|s| (s, s)),
    }
}

fn batch(text: &str) -> Result<Batch, String> {
    match text {
        "dynamic" => Ok(Batch::Dynamic),
        _ => {
            text.parse().map(Batch::Fixed).map_err(|_| format!("expected a number or dynamic, found {text}"))
        }
    }
}

impl Args {
    fn order(&self) -> Target {
        Target {
            profile: self.target,
            opset: self.opset.unwrap_or_else(|| self.target.default_opset()),
            size: self.size.unwrap_or_else(|| self.model.published_size()),
            batch: self.batch,
            dtype: match self.dtype {
                Dtype::F32 => DataType::Float,
                Dtype::F16 => DataType::Float16,
            },
            image_input: self.image_input,
            output: self.output,
            suppression: Suppression {
                score_threshold: self.score_threshold,
                iou_threshold: self.iou_threshold,
                most: self.max_detections,
            },
        }
    }
}

impl Args {
    fn model(&self) -> anyhow::Result<Model> {
        let thresholds = [
            ("--score-threshold", self.score_threshold.is_some()),
            ("--iou-threshold", self.iou_threshold.is_some()),
            ("--max-detections", self.max_detections.is_some()),
        ];
        if let Some((flag, _)) =
            thresholds.iter().find(|(_, given)| *given && self.output != Some(ModelOutput::Nms))
        {
            bail!("{flag}: expected --output nms with it, which alone keeps some boxes and drops others");
        }
        let model = self.model.with_classes(self.classes.unwrap_or(self.model.classes));
        let model = if self.stages.is_empty() { model } else { model.with_maps(&self.stages)? };
        Ok(match self.window {
            Some(side) => model.windowed(side)?,
            None => model,
        })
    }
}

pub fn run(args: &Args) -> Said {
    let progress = Progress::new();
    let (model, target) = (args.model()?, args.order());
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.onnx", model.name)));
    if out.is_dir() {
        bail!("{}: expected a file to write, found a folder", out.display());
    }
    if let Spec::File(weights) = &args.weights {
        apart(&[("--out", &out)], &[weights])?;
    }
    progress.step("exporting");
    let mut export = match onnx(&args.weights) {
        Some((path, file)) => recover_as(&file, &model)
            .map_err(|error| error.at(path.display()))
            .and_then(|weights| emo_exporter::export_with(&model, &target, weights))?,
        None => emo_exporter::export(&model, &target, &args.weights)
            .map_err(|error| with_hint(error.into(), &args.weights, &model))?,
    };
    let origin = export.weights.origin().clone();
    let file = OnnxFile::from_bytes(std::mem::take(&mut export.bytes).into(), External::none())?;

    progress.step("counting");
    let identity = Identity::read(&file.model)?;
    let (audit, claim) = count(&file.model, &identity);
    let mut findings = findings(&file.model, &identity, &audit, &claim);
    progress.step("running in tract and in the reference");
    // Which boxes are kept is decided by comparisons, in which an error of any size may show: what they are decided
    // from is held to the tolerance, and the file itself to what suppression may keep of them.
    let decoded = (target.output == Some(ModelOutput::Nms) && !args.no_verify)
        .then(|| decoded(&model, &target, &export))
        .transpose()?;
    let run = || match &decoded {
        Some((file, identity)) => numerics(file, identity, &export.weights, &Tract),
        None => numerics(&file, &identity, &export.weights, &Tract),
    };
    let numerics = (!args.no_verify).then(run).transpose()?;
    if decoded.is_some() {
        findings.extend(kept(&file)?);
    }
    let half = target.dtype == DataType::Float16 && !args.no_verify;
    let ranges = half.then(|| float16_ranges(&target, &export, &identity)).transpose()?;
    let report = Report {
        identity: &identity,
        audit: &audit,
        claim: &claim,
        numerics: numerics.as_ref(),
        ranges: ranges.as_deref(),
        findings: &findings,
    };
    let verdict = report.verdict();
    if verdict == Outcome::Pass {
        progress.step("writing");
        write(&out, &file.bytes)?;
    }
    drop(progress);

    let sha256 = sha256(&file.bytes);
    let written = (verdict == Outcome::Pass).then(|| out.display().to_string());
    let data = match args.format {
        Format::Json => {
            let mut fields = report.fields();
            fields["schema"] = json!("emo.export/1");
            fields["file"] = json!({ "path": written, "bytes": file.bytes.len(), "sha256": sha256 });
            to_json(&fields)?
        }
        Format::Text => {
            let subject = written.unwrap_or_else(|| format!("{} not written", out.display()));
            let mut text = report.text(&plain(&subject));
            text += &format!("{} bytes, sha256 {sha256}\n", file.bytes.len());
            if let Some(note) = untrained(&origin) {
                text += &format!("{note}\n");
            }
            text
        }
    };
    Ok((data, verdict))
}

/// The same file before boxes are suppressed.
fn decoded(model: &Model, target: &Target, export: &Export) -> anyhow::Result<(OnnxFile, Identity)> {
    let target = Target { output: Some(ModelOutput::Decoded), ..*target };
    let whole = emo_exporter::export_with(model, &target, export.weights.clone())?;
    let file = OnnxFile::from_bytes(whole.bytes.into(), External::none())?;
    let identity = Identity::read(&file.model)?;
    Ok((file, identity))
}

/// Why the boxes that the file keeps are not those that the reference keeps, or why that stays open.
fn kept(file: &OnnxFile) -> anyhow::Result<Option<Finding>> {
    let request = verify::Request { probes: Some(1), ..Default::default() };
    let verdict = verify::verify(file, None, &request, &Tract)?;
    let reason = verdict.reason.unwrap_or_else(|| "the boxes that are kept are others".to_owned());
    let (severity, message) = match verdict.verdict {
        Outcome::Pass => return Ok(None),
        // What decides them holds: without a box that is kept nothing more is to be seen.
        Outcome::Undecided => (Severity::Note, format!("which boxes are kept was not judged: {reason}")),
        Outcome::Fail | Outcome::Unreadable => (Severity::Error, reason),
    };
    Ok(Some(Finding { code: KEPT, severity, place: String::new(), message, file: None }))
}

/// What the tensors that are float16 in the file hold, taken from the same model in float32.
fn float16_ranges(target: &Target, export: &Export, identity: &Identity) -> anyhow::Result<Vec<Range>> {
    let whole = Target { dtype: DataType::Float, ..*target };
    let whole = emo_exporter::export_with(&identity.model, &whole, export.weights.clone())?;
    let names = half::tensors(&export.graph).map(|value| value.name.as_str()).collect();
    let file = OnnxFile::from_bytes(whole.bytes.into(), External::none())?;
    Ok(ranges(&file, &names, probe(identity)?.input, &Tract)?)
}

/// The weights as an ONNX file, if they are one.
fn onnx(spec: &Spec) -> Option<(&Path, OnnxFile)> {
    let Spec::File(path) = spec else { return None };
    Some((path, emo_proto::file::open(path).ok()?))
}

/// Says which other model the weights fit, if they fit one.
fn with_hint(error: anyhow::Error, spec: &Spec, model: &Model) -> anyhow::Error {
    let Spec::File(path) = spec else { return error };
    let others = MODELS.iter().filter(|other| other.name != model.name);
    match others
        .into_iter()
        .find(|other| weights::fits(path, &other.with_classes(model.classes).parameters()))
    {
        Some(other) => error.context(format!("these are weights of {}, not of {}", other.name, model.name)),
        None => error,
    }
}
