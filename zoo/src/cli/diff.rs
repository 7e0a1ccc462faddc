//! `emo diff A B`: what changed from one file to another.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use emo_verifier::audit::{Audit, Sizes, audit_file};
use emo_verifier::diff::{self, Change, Kind, tables};
use emo_verifier::finding::{Finding, Severity};
use emo_verifier::report::{Report, Subject};
use serde_json::json;

use super::formats::Format;
use super::sizes::{SizeArgs, Unused};
use super::{Outcome, Said};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file as it was
    before: PathBuf,
    /// The file as it is
    after: PathBuf,
    /// Exit code 1 where one of these changed
    #[arg(long, value_parser = FailOn::parser(), value_delimiter = ',', value_name = "KINDS")]
    fail_on: Vec<FailOn>,
    #[command(flatten)]
    sizes: SizeArgs,
    /// Parts of a module path that are told apart
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: usize,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Accept lower bounds where something cannot be counted, instead of exit code 3
    #[arg(long)]
    allow_unknown: bool,
}

const EXAMPLES: &str = "\
Examples:
  emo diff before.onnx after.onnx
      what changed
  emo diff before.onnx after.onnx --format json
      the same for a program";

/// A kind of change, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FailOn(Option<Kind>);

impl FailOn {
    fn parser() -> impl TypedValueParser<Value = Self> {
        let kinds = Kind::ALL.map(Kind::name);
        PossibleValuesParser::new(["any"].into_iter().chain(kinds))
            .map(|name| Self(Kind::ALL.into_iter().find(|kind| kind.name() == name)))
    }

    fn covers(self, kind: Kind) -> bool {
        self.0.is_none_or(|only| only == kind)
    }
}

pub fn run(args: &Args) -> Said {
    let sizes = args.sizes.sizes()?;
    let (before, unused_before) = audit(&args.before, &sizes)?;
    let (after, unused_after) = audit(&args.after, &sizes)?;
    Unused::check([&unused_before, &unused_after])?;
    let changes = diff::diff(&before, &after, args.depth);
    let name = |path: &Path| path.display().to_string();
    let (from, to) = (name(&args.before), name(&args.after));

    let mut findings = Vec::new();
    let kinds: BTreeSet<Kind> = changes.iter().map(|change| change.kind).collect();
    for kind in kinds.into_iter().filter(|kind| args.fail_on.iter().any(|fail| fail.covers(*kind))) {
        let what: Vec<&str> = changes.iter().filter(|c| c.kind == kind).map(|c| c.what.as_str()).collect();
        findings.push(Finding {
            code: "changed",
            severity: Severity::Error,
            place: kind.name().to_owned(),
            message: format!("expected no change from {from}, found {}", what.join(", ")),
            file: Some(to.clone()),
        });
    }
    for (file, audit) in [(&from, &before), (&to, &after)] {
        let severity = if args.allow_unknown { Severity::Warning } else { Severity::Open };
        findings.extend(audit.findings(file).into_iter().map(|finding| Finding { severity, ..finding }));
    }
    let outcome = Outcome::of(&findings);
    let document = || {
        json!({
            "schema": "emo.diff/1",
            "before": from,
            "after": to,
            "verdict": outcome.name(),
            "changes": changes,
            "findings": findings,
        })
    };
    let subject = Subject {
        name: to.clone(),
        headline: headline(&changes, &from),
        facts: Vec::new(),
        tables: tables(&changes),
        findings: findings.clone(),
    };
    let report = Report { command: "diff", subjects: vec![subject] };
    Ok((args.format.write(&report, document)?, outcome))
}

fn audit(path: &Path, sizes: &Sizes) -> anyhow::Result<(Audit, Unused)> {
    let file = emo_proto::file::open(path)?;
    let name = path.display().to_string();
    let bindings = sizes.bindings(&file.model).with_context(|| name.clone())?;
    Ok((audit_file(&file, &bindings), Unused::of(sizes, &name, &file.model)))
}

fn headline(changes: &[Change], from: &str) -> String {
    match changes.len() {
        0 => format!("the same as {from} in all that is compared"),
        1 => format!("1 change from {from}"),
        n => format!("{n} changes from {from}"),
    }
}
