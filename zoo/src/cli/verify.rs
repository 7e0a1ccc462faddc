//! `emo verify FILE…`: whether ONNX files are EMO and compute it, whoever wrote them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use emo_exporter::models::Model;
use emo_exporter::target::Output;
use emo_exporter::weights::Spec;
use emo_proto::file::{OnnxFile, open, settled};
use emo_verifier::audit::Sizes;
use emo_verifier::compare::Tolerance;
use emo_verifier::data::{self, Ports};
use emo_verifier::report::{Cell, Report, Subject, Table};
use emo_verifier::runtime::Runtime;
use emo_verifier::verify::probes::{Probe, Probed};
use emo_verifier::verify::{Request, Verdict as Found, cause, verify};
use serde_json::{Value, json};

use super::files::{each_read, expand};
use super::formats::{Format, of_files};
use super::runtime::RuntimeArgs;
use super::sizes::{SizeArgs, Unused};
use super::{Outcome, Said, names};

mod against;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// ONNX files, or patterns of files: 'models/**/*.onnx'
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The model that the files should be, of emo list or a TOML file [default: the published one that each is]
    #[arg(long, value_parser = names::model(), conflicts_with = "against")]
    model: Option<Model>,
    /// The weights that the files should hold; without, the function alone is judged
    #[arg(long, value_name = "PATH|formula:SEED", conflicts_with = "against")]
    weights: Option<Spec>,
    /// Another file, taken for the truth: any two models are compared, EMO or not
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// What an error may be [default: that of the file's own type]
    #[arg(long, value_name = "NAME", value_parser = names::tolerance())]
    tolerance: Option<&'static Tolerance>,
    /// How many test inputs to run on, from a table of noise, constants, an impulse, a ramp, a batch
    /// [default: 8, fewer where a model is large]
    #[arg(long = "test-inputs", alias = "probes", value_name = "N", value_parser = probes)]
    probes: Option<usize>,
    /// Recorded inputs and outputs: a folder of test_data_set_0, …, or a .npz or .npy file
    #[arg(long, value_name = "DIR|FILE")]
    data: Vec<PathBuf>,
    /// A picture, scaled and cropped to the input's size, as ImageNet's are
    #[arg(long, value_name = "FILE", conflicts_with = "against")]
    image: Vec<PathBuf>,
    /// Write the inputs and the right outputs into a new folder, as test_data_set_0, …
    #[arg(long, value_name = "DIR", conflicts_with = "against")]
    save_data: Option<PathBuf>,
    /// Write the smallest piece of the file that is wrong into a new ONNX file, and what it takes and should give
    /// into a folder beside it: FILE without .onnx and with _data
    #[arg(long, value_name = "FILE", requires = "against")]
    save_node: Option<PathBuf>,
    #[command(flatten)]
    sizes: SizeArgs,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  emo verify third-party.onnx
      is it EMO, does it compute EMO, if not, why
  emo verify third-party.onnx --weights net.pth
      and are these its weights
  emo verify a.onnx --against b.onnx --save-node piece.onnx
      any two models";

/// All are kept in memory.
fn probes(text: &str) -> Result<usize, String> {
    const MOST: usize = 1000;
    text.parse().ok().filter(|&n: &usize| n <= MOST).ok_or_else(|| format!("expected {MOST} at most"))
}

/// A file and what there is to say of it.
struct Row {
    subject: Subject,
    document: Value,
    verdict: Outcome,
    unused: Option<Unused>,
}

pub fn run(args: &Args) -> Said {
    let files = expand(&args.files)?;
    for (option, given) in
        [("--save-data", args.save_data.is_some()), ("--save-node", args.save_node.is_some())]
    {
        if given && files.len() > 1 {
            return Err(anyhow!("{option}: expected one file to judge, found {}", files.len()));
        }
    }
    let sizes = args.sizes.sizes()?;
    let truth =
        args.against.as_deref().map(|path| Ok::<_, anyhow::Error>((name(path), open(path)?))).transpose()?;
    let truth = truth.as_ref();
    // A request that no file can be served with is refused before any is read.
    let runtime = || args.runtime.open(None);
    drop(runtime()?);
    let rows = each_read(&files, |path, file| {
        let runtime = runtime()?;
        match truth {
            Some((name, truth)) => against::row(path, &file, (name, truth), args, &sizes, &*runtime),
            None => row(path, &file, args, &sizes, &*runtime),
        }
    })?;
    Unused::check(rows.iter().flatten().filter_map(|row| row.unused.as_ref()))?;
    let verdict =
        Outcome::worst(rows.iter().map(|row| row.as_ref().map_or(Outcome::Unreadable, |row| row.verdict)));
    let (subjects, documents): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .map(|row| match row {
            Ok(row) => (row.subject, row.document),
            Err(unreadable) => (unreadable.subject(), unreadable.document("emo.verify/1")),
        })
        .unzip();
    let text = args.format.write(&Report { command: "verify", subjects }, || of_files(documents))?;
    Ok((text, verdict))
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn row(
    path: &Path,
    file: &OnnxFile,
    args: &Args,
    sizes: &Sizes,
    runtime: &dyn Runtime,
) -> anyhow::Result<Row> {
    let name = name(path);
    let request = Request {
        model: args.model.clone(),
        weights: args.weights.clone(),
        tolerance: args.tolerance,
        probes: args.probes,
        own: own(file, args)?,
        pictures: args.image.clone(),
        keep: args.save_data.is_some(),
        dims: sizes.bindings(&file.model).with_context(|| name.clone())?,
    };
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let mut found = verify(file, Some(folder), &request, runtime).with_context(|| name.clone())?;
    found.findings.iter_mut().for_each(|finding| finding.file = Some(name.clone()));
    if let Some(folder) = &args.save_data {
        settled()?;
        data::write(folder, &found.sets(&file.model), &Ports::of(&file.model))?;
    }
    let mut document = json!({ "schema": "emo.verify/1", "file": name });
    if let (Value::Object(fields), Value::Object(document)) = (json!(found), &mut document) {
        document.extend(fields);
    }
    Ok(Row {
        subject: subject(name.clone(), &found),
        document,
        verdict: found.verdict,
        unused: Some(Unused::of(sizes, &name, &file.model)),
    })
}

/// The recorded sets as inputs with the logits that belong to them.
fn own(file: &OnnxFile, args: &Args) -> anyhow::Result<Vec<Probe>> {
    let ports = Ports::of(&file.model);
    let mut probes = Vec::new();
    for path in &args.data {
        for set in data::read(path, &ports)? {
            let recorded = set.outputs.into_iter().next().flatten();
            let input = set.inputs.into_iter().next();
            let input = input.ok_or_else(|| anyhow!("{}: expected an input, found none", path.display()))?;
            probes.push(Probe { name: set.name, input, recorded });
        }
    }
    Ok(probes)
}

/// `1.2e-6`, or a dash.
fn small(x: Option<f64>) -> Cell {
    Cell::Text(x.map_or("–".to_owned(), |x| format!("{x:.1e}")))
}

fn subject(name: String, found: &Found) -> Subject {
    Subject {
        name,
        headline: headline(found),
        facts: facts(found),
        tables: vec![probe_table(found), block_table(found), tensor_table(found)],
        findings: found.findings.clone(),
    }
}

/// The verdict, then what it is of.
fn headline(found: &Found) -> String {
    let word = found.verdict.name();
    let model = match (found.model.as_deref(), found.cause) {
        (Some(model), _) => model,
        (None, Some(cause::UNRUNNABLE)) => "it cannot be run",
        (None, _) => "no known model",
    };
    let size = found.size.map_or(String::new(), |(h, w)| format!(" at {h} × {w}"));
    let accuracy = match (found.max_relative, found.tolerance, found.bound) {
        (Some(error), Some(name), Some(bound)) => {
            let explained = error > bound && found.probes.iter().all(|probe| probe.holds);
            let relation = if error <= bound || explained { "within" } else { "beyond" };
            let more = if explained { " and what means over a flat map explain" } else { "" };
            let what = if found.output.is_some() { "value of its output" } else { "logit" };
            format!(
                ", largest error {error:.1e} of the largest {what}, {relation} {bound:.0e} ({name}){more}"
            )
        }
        _ => String::new(),
    };
    let cause = found.cause.map_or(String::new(), |cause| format!(" {cause}"));
    let block = found.first_divergence.as_ref().map_or(String::new(), |block| format!(" in {block}"));
    format!("{word}{cause}{block}: {model}{size}{accuracy}")
}

fn facts(found: &Found) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(reason) = &found.reason {
        facts.push(("reason", reason.clone()));
    }
    if let (Some(form), Some(dtype), Some(opset)) = (found.form, found.dtype, found.opset) {
        let is_merged = found.weights.as_ref().is_some_and(|weights| !weights.merged.is_empty());
        let merged = if is_merged { ", merged" } else { "" };
        facts.push(("form", format!("{}{merged}, {dtype}, opset {opset}", form.describe())));
    }
    if let (Some((h, w)), Some(classes)) = (found.size, found.classes) {
        let batch = found.batch.map_or("batch".to_owned(), |n| n.to_string());
        let input = match found.bytes {
            true => format!("bytes of images of {h} × {w}, batch of {batch}"),
            false => format!("[{batch}, 3, {h}, {w}]"),
        };
        facts.push(match found.output {
            Some(output) => ("interface", format!("{input} → {output}, {classes} classes")),
            None => ("interface", format!("{input} → [{batch}, {classes}]")),
        });
    }
    if let Some(claim) = &found.claim {
        let figure = |n: Option<i64>| n.map_or("?".to_owned(), |n| n.to_string());
        let word = match (claim.holds, &claim.reason) {
            (true, None) => "hold",
            (true, Some(_)) => "are the model's own",
            (false, _) => "do not hold",
        };
        let counts = format!("{} parameters, {} FLOPs (fvcore)", figure(claim.params), figure(claim.fvcore));
        let folded = claim.account.len();
        let reason = claim.reason.as_ref().map_or(String::new(), |reason| format!("; {reason}"));
        facts.push(("counts", format!("{counts}, {folded} of them explained: they {word}{reason}")));
    }
    if let Some(weights) = &found.weights {
        facts.push(("weights", weights.against.clone().unwrap_or_else(|| "the file's own".to_owned())));
        facts.extend(weights.open.iter().map(|open| ("open", open.clone())));
    }
    facts.extend(boxes(found).map(|boxes| ("boxes", boxes)));
    facts.extend(labels(found).map(|labels| ("labels", labels)));
    facts.push(("runtime", found.runtime.to_owned()));
    for probe in found.probes.iter().filter(|probe| probe.allowance > 0.0) {
        let (name, allowance) = (&probe.name, probe.allowance);
        facts.push((
            "allowed",
            format!("{name}: {allowance:.1e} more, since thousands of roundings go the same way"),
        ));
    }
    facts
}

/// What the boxes of all inputs have in common with those that they should be.
fn boxes(found: &Found) -> Option<String> {
    let all = || found.probes.iter().filter_map(|probe| probe.boxes);
    let least = all().map(|boxes| boxes.least_iou).reduce(f64::min)?;
    let scores = all().map(|boxes| boxes.scores).fold(0.0, f64::max);
    let (boxes, ties) = all().fold((0, 0), |(boxes, ties), own| (boxes + own.boxes, ties + own.ties));
    let ties = match ties {
        0 => String::new(),
        n => format!("; {n} were ties, which may go either way"),
    };
    Some(format!("{boxes}, least IoU {least:.7}, scores within {scores:.0e}{ties}"))
}

/// The share of pixels whose label is the reference's.
fn labels(found: &Found) -> Option<String> {
    if found.output != Some(Output::Labels.name()) {
        return None;
    }
    let (agree, all) =
        found.probes.iter().fold((0, 0), |(agree, all), probe| (agree + probe.top1.0, all + probe.top1.1));
    let share = 100.0 * agree as f64 / all.max(1) as f64;
    let free = match all - agree {
        n if n > 0 && found.probes.iter().all(|probe| probe.holds) => {
            format!("; the two largest logits of {n} others are one within the tolerance")
        }
        _ => String::new(),
    };
    Some(format!("{share:.4} % of {all} pixels agree{free}"))
}

fn probe_table(found: &Found) -> Table {
    let agreeing = |(n, of): (usize, usize)| match of {
        0 => Cell::from("-"),
        _ => Cell::Text(format!("{n}/{of}")),
    };
    let row = |probe: &Probed| {
        let d = probe.difference.as_ref();
        vec![
            Cell::from(probe.name.as_str()),
            small(d.map(|d| d.max_abs)),
            small(d.map(emo_verifier::compare::Difference::relative)),
            small(d.map(|d| d.max_relative)),
            small(d.map(|d| d.rms)),
            Cell::Text(d.map_or("–".to_owned(), |d| format!("{:.9}", d.cosine))),
            Cell::Text(d.map_or("–".to_owned(), |d| format!("{:.0} dB", d.sqnr_db))),
            agreeing(probe.top1),
            agreeing(probe.top5),
            Cell::from(if probe.holds { "holds" } else { "fails" }),
        ]
    };
    Table {
        title: "inputs".to_owned(),
        note: String::new(),
        header: vec![
            "input",
            "max abs",
            "of largest",
            "max relative",
            "RMS",
            "cosine",
            "SQNR",
            "top-1",
            "top-5",
            "",
        ],
        rows: found.probes.iter().map(row).collect(),
    }
}

fn block_table(found: &Found) -> Table {
    let row = |block: &emo_verifier::verify::BlockVerdict| {
        let verdict = if block.holds { "right" } else { "wrong" };
        vec![
            Cell::from(block.block.as_str()),
            small(Some(block.passed_on)),
            small(block.alone),
            Cell::from(verdict),
            Cell::from(block.cause.unwrap_or("")),
        ]
    };
    Table {
        title: "blocks".to_owned(),
        note: String::new(),
        header: vec!["block", "passed on", "alone", "", "cause"],
        rows: found.blocks.iter().map(row).collect(),
    }
}

fn tensor_table(found: &Found) -> Table {
    let differing = found.weights.iter().flat_map(|weights| &weights.differing);
    let row = |tensor: &emo_verifier::verify::TensorDifference| {
        vec![
            Cell::from(tensor.tensor.as_str()),
            small(Some(tensor.largest)),
            Cell::from(tensor.cause),
            Cell::from(tensor.what.as_str()),
        ]
    };
    Table {
        title: "weights that are not the checkpoint's".to_owned(),
        note: String::new(),
        header: vec!["tensor", "largest", "cause", ""],
        rows: differing.map(row).collect(),
    }
}
