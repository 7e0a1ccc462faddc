//! `emo check FILE…`: whether ONNX files are well formed, and what is odd about them.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ValueEnum;
use emo_proto::file::{OnnxFile, open};
use emo_verifier::check::{check, checks};
use emo_verifier::finding::{Finding, Severity};
use emo_verifier::report::{Report, Subject, counted};
use serde_json::{Value, json};

use super::files::{Unreadable, each, expand};
use super::formats::{Format, of_files};
use super::{Outcome, Said};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// ONNX files, or patterns of files: 'models/**/*.onnx'
    #[arg(required_unless_present = "list", value_name = "FILE")]
    files: Vec<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Codes to leave out
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    allow: Vec<String>,
    /// What makes exit code 1 besides errors
    #[arg(long, value_enum)]
    deny: Vec<Deny>,
    /// List every code with what it stands for
    #[arg(long, conflicts_with = "files")]
    list: bool,
}

const EXAMPLES: &str = "\
Examples:
  emo check model.onnx
      every structural finding
  emo check --list
      what is looked for, by code
  emo check *.onnx --deny warnings --format sarif
      for code scanning";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Deny {
    /// What is legal and most likely a mistake
    Warnings,
}

/// A file and what was found in it.
struct Checked {
    name: String,
    findings: Vec<Finding>,
}

pub fn run(args: &Args) -> Said {
    if args.list {
        return Ok((list(), Outcome::Pass));
    }
    args.allow.iter().try_for_each(|code| known(code))?;
    let files = expand(&args.files)?;
    let checked = each(&files, |file| Ok(judge(file, args)))?;
    let report = Report { command: "check", subjects: checked.iter().map(Checked::subject).collect() };
    let text = args.format.write(&report, || of_files(checked.iter().map(Checked::document).collect()))?;
    Ok((text, Outcome::worst(checked.iter().map(Checked::outcome))))
}

fn judge(path: &Path, args: &Args) -> Checked {
    let name = path.display().to_string();
    let mut findings = match open(path) {
        Ok(file) => {
            let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            let findings = check(&file, Some(folder));
            // A large graph takes a while to fall apart, and the process ends soon.
            let OnnxFile { model, .. } = file;
            std::mem::forget(model);
            findings
        }
        Err(error) => vec![Unreadable::new(path, &error).into()],
    };
    findings.retain(|finding| !args.allow.iter().any(|code| code == finding.code));
    findings.iter_mut().for_each(|finding| finding.file = Some(name.clone()));
    if args.deny.contains(&Deny::Warnings) {
        // What is denied is an error, in every format.
        let warnings = findings.iter_mut().filter(|finding| finding.severity == Severity::Warning);
        warnings.for_each(|finding| finding.severity = Severity::Error);
    }
    Checked { name, findings }
}

/// A code that no check has would be left out for nothing.
fn known(code: &str) -> anyhow::Result<()> {
    if checks().any(|check| check.code == code) {
        return Ok(());
    }
    Err(anyhow!("--allow: expected a code that a check has, found {code}; emo check --list has all"))
}

/// The table of checks, for people.
fn list() -> String {
    let mut rows: Vec<_> = checks().collect();
    rows.sort_by_key(|check| std::cmp::Reverse(check.severity));
    let code = rows.iter().map(|check| check.code.len()).max().unwrap_or(0);
    rows.iter().map(|c| format!("{:7}  {:code$}  {}\n", c.severity.name(), c.code, c.what)).collect()
}

impl Checked {
    fn subject(&self) -> Subject {
        Subject {
            name: self.name.clone(),
            headline: self.headline(),
            findings: self.findings.clone(),
            ..Subject::default()
        }
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    fn headline(&self) -> String {
        let counted = [Severity::Error, Severity::Open, Severity::Warning, Severity::Note].map(|severity| {
            let n = self.count(severity);
            (n > 0).then(|| counted(n, severity.name()))
        });
        let counted: Vec<_> = counted.into_iter().flatten().collect();
        if counted.is_empty() { "nothing found".to_owned() } else { counted.join(", ") }
    }

    fn document(&self) -> Value {
        json!({
            "schema": "emo.check/1",
            "file": self.name,
            "verdict": self.outcome().name(),
            "errors": self.count(Severity::Error),
            "open": self.count(Severity::Open),
            "warnings": self.count(Severity::Warning),
            "notes": self.count(Severity::Note),
            "findings": self.findings,
        })
    }

    fn outcome(&self) -> Outcome {
        Outcome::of(&self.findings)
    }
}
