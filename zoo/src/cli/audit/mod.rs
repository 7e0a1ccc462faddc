//! `emo audit FILE…`: exact counts of any ONNX file, or why there are none.

mod view;

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use emo_exporter::models::Model;
use emo_proto::file::OnnxFile;
use emo_verifier::audit::{Audit, By, Sizes, groups, tally};
use emo_verifier::budget::{self, Budget};
use emo_verifier::finding::{Finding, Severity};
use emo_verifier::infer::infer_file;
use emo_verifier::models::claim::{self, Claim};
use emo_verifier::plot::plot;
use emo_verifier::report::Report;
use emo_verifier::sym::Expr;

use super::files::{Unreadable, apart, each_read, expand, write};
use super::formats::{Format, of_files};
use super::sizes::{SizeArgs, Unused};
use super::{Outcome, Said, names};
use view::View;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// ONNX files, or patterns of files: 'models/**/*.onnx'
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    sizes: SizeArgs,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// What the counts are gathered by
    #[arg(long, value_enum, default_value_t)]
    by: Grouping,
    /// Parts of a module path that --by scope tells apart
    #[arg(long, value_name = "N", default_value_t = 2)]
    depth: usize,
    /// Operator by operator, why the conventions differ
    #[arg(long)]
    explain: bool,
    /// Limits that the file must keep, as TOML or JSON; exit code 1 where it does not
    #[arg(long, value_name = "FILE")]
    budget: Option<PathBuf>,
    /// Write the file's own figures as a budget, with 5 % of head-room
    #[arg(long, value_name = "FILE")]
    write_budget: Option<PathBuf>,
    /// Compare with a model of emo list or of a TOML file, and its published figures, folded norms accounted for; exit code 1 where it does not hold
    #[arg(long, value_name = "MODEL", value_parser = names::model())]
    claim: Option<Model>,
    /// Accept lower bounds where something cannot be counted, instead of exit code 3
    #[arg(long)]
    allow_unknown: bool,
    /// Draw cost and parameters along the depth of the network
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  emo audit model.onnx --by scope --depth 1
      counts by module
  emo audit model.onnx --claim emo-1m
      against the published figures
  emo audit model.onnx --write-budget budget.toml
      limits for what comes later
  emo audit *.onnx --budget budget.toml --format junit
      hold files to them";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Grouping {
    /// By operator
    #[default]
    Op,
    /// By node
    Node,
    /// By module path, from the names that exporters give
    Scope,
    /// By block of EMO
    Block,
}

/// A file and what is known of it.
struct Audited {
    name: String,
    audit: Audit,
    claim: Option<Claim>,
    /// Bytes, those beside the file included.
    size: Expr,
    findings: Vec<Finding>,
    unused: Unused,
}

pub fn run(args: &Args) -> Said {
    let sizes = args.sizes.sizes()?;
    let budget = args.budget.as_deref().map(Budget::open).transpose()?;
    let files = expand(&args.files)?;
    let written = [("--write-budget", &args.write_budget), ("--plot", &args.plot)];
    let written: Vec<(&str, &Path)> =
        written.into_iter().filter_map(|(flag, path)| Some((flag, path.as_deref()?))).collect();
    if let Some((flag, _)) = written.first().filter(|_| files.len() != 1) {
        bail!("{flag} takes the figures of one file, found {}", files.len());
    }
    let read: Vec<&Path> = files.iter().chain(&args.budget).map(PathBuf::as_path).collect();
    apart(&written, &read)?;
    let audited = each_read(&files, |path, file| judge(path, file, &sizes, budget.as_ref(), args))?;
    let readable = || audited.iter().flatten();
    Unused::check(readable().map(|file| &file.unused))?;
    for file in readable() {
        if let Some(path) = &args.write_budget {
            write(path, budget::write(&file.audit, &file.name, &file.size).as_bytes())?;
        }
        if let Some(path) = &args.plot {
            let title = Path::new(&file.name).file_name().unwrap_or_default().to_string_lossy();
            write(path, plot(&file.audit, &title).as_bytes())?;
        }
    }
    let view = View { by: args.by(), explain: args.explain, whole: args.format == Format::Csv };
    let subject = |file: &Result<Audited, Unreadable>| match file {
        Ok(file) => view.subject(file),
        Err(unreadable) => unreadable.subject(),
    };
    let document = |file: &Result<Audited, Unreadable>| match file {
        Ok(file) => view.document(file),
        Err(unreadable) => unreadable.document("emo.audit/1"),
    };
    let subjects = audited.iter().map(subject).collect();
    let report = Report { command: "audit", subjects };
    let text = args.format.write(&report, || of_files(audited.iter().map(document).collect()))?;
    let outcomes = audited.iter().map(|file| file.as_ref().map_or(Outcome::Unreadable, Audited::outcome));
    Ok((text, Outcome::worst(outcomes)))
}

/// Counts a file and holds it against what was asked.
fn judge(
    path: &Path,
    file: OnnxFile,
    sizes: &Sizes,
    budget: Option<&Budget>,
    args: &Args,
) -> anyhow::Result<Audited> {
    let name = path.display().to_string();
    let bindings = sizes.bindings(&file.model).with_context(|| name.clone())?;
    let inference = infer_file(&file, &bindings);
    let audit = tally(&file.model, &inference);
    if args.by == Grouping::Block && groups(&audit, By::Block).is_empty() {
        bail!("{name}: expected the blocks of EMO (stage0, stage1, …), found none; use --by scope");
    }
    let size = &Expr::from(file.bytes.len()) + &audit.stored.external_bytes;
    let mut findings = audit.findings(&name);
    if let Some(budget) = budget {
        findings.extend(budget::violations(budget, &audit, &name, &size));
    }
    if args.allow_unknown {
        let open = findings.iter_mut().filter(|finding| finding.severity == Severity::Open);
        open.for_each(|finding| finding.severity = Severity::Warning);
    } else if audit.is_lower_bound() {
        findings.push(advice(&audit, &name));
    }
    findings.extend(absent_data(path, &audit, &name));
    let claim = args.claim.as_ref().map(|model| claim::check(&inference, model));
    findings.extend(claim.as_ref().and_then(|claim| refuted(claim, &audit, &name)));
    drop(inference);
    let unused = Unused::of(sizes, &name, &file.model);
    // A large graph takes a while to fall apart, and the process ends soon.
    let OnnxFile { model, .. } = file;
    std::mem::forget(model);
    Ok(Audited { name, audit, claim, size, findings, unused })
}

/// What to do about nodes that could not be counted.
fn advice(audit: &Audit, file: &str) -> Finding {
    Finding {
        code: "lower-bound",
        severity: Severity::Note,
        place: String::new(),
        message: format!(
            "{} of {} nodes could not be counted: every total is at least what it says; give open sizes with \
             --dim or --input, or accept lower bounds with --allow-unknown",
            audit.uncounted.len(),
            audit.nodes
        ),
        file: Some(file.to_owned()),
    }
}

/// Why a claim does not hold, or cannot be told where nodes are uncounted; a remark where it holds.
fn refuted(claim: &Claim, audit: &Audit, file: &str) -> Option<Finding> {
    let reason = claim.reason.as_ref()?;
    let (code, severity) = match (claim.holds, audit.is_lower_bound()) {
        (true, _) => ("claim", Severity::Note),
        (false, true) => (UNDECIDED_CLAIM, Severity::Open),
        (false, false) => ("claim", Severity::Error),
    };
    let message = if claim.holds {
        reason.clone()
    } else {
        format!("it is not {} by its counts: {reason}", claim.model)
    };
    Some(Finding { code, severity, place: claim.model.clone(), message, file: Some(file.to_owned()) })
}

/// A note for each file of weights that is not there, which takes nothing from the counts.
fn absent_data(path: &Path, audit: &Audit, file: &str) -> Vec<Finding> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let within = |location: &str| {
        Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
    };
    let finding = |location: &String| {
        let (severity, message) = match within(location) {
            false => (Severity::Warning, "its place is outside the model's folder: it is never read"),
            true if folder.join(location).is_file() => return None,
            true => (Severity::Note, "the file is not there; no count needs it"),
        };
        let (place, message) = (format!("external data {location:?}"), message.to_owned());
        Some(Finding { code: "external-data", severity, place, message, file: Some(file.to_owned()) })
    };
    audit.stored.external.iter().filter_map(finding).collect()
}

/// A claim on a file whose counts are lower bounds.
const UNDECIDED_CLAIM: &str = "claim-undecided";

impl Audited {
    fn outcome(&self) -> Outcome {
        Outcome::of(&self.findings)
    }
}

impl Args {
    fn by(&self) -> By {
        match self.by {
            Grouping::Op => By::Op,
            Grouping::Node => By::Node,
            Grouping::Scope => By::Scope { depth: self.depth },
            Grouping::Block => By::Block,
        }
    }
}
