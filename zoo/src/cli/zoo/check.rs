//! `emo zoo check DIR`: holds every file to what the manifest says of it.

use std::path::PathBuf;

use emo_verifier::finding::Severity;
use emo_verifier::report::{Report, Subject};
use serde_json::json;

use super::super::formats::Format;
use super::super::progress::Bars;
use super::super::{Outcome, Said};
use super::chosen;
use crate::manifest::Store;
use crate::manifest::check::{Scope, check};
use crate::manifest::checkpoints::Checkpoints;
use crate::manifest::recipe::models;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder of the releases
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Models whose files to check, where '*' stands for anything [default: all]
    #[arg(long, value_delimiter = ',', value_name = "A,'B-*'")]
    models: Vec<String>,
    /// Write every file again and compare the bytes, and run it or not; a folder without files holds the manifest alone
    #[arg(long, value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "run")]
    rebuild: Option<Rebuild>,
    /// The checkpoints of trained weights, for --rebuild
    #[arg(long, value_name = "DIR", requires = "rebuild")]
    weights_dir: Option<PathBuf>,
    /// Files judged side by side [default: the number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Rebuild {
    /// The file, and what it shows in a run beside the reference
    Run,
    /// The file
    Bytes,
}

const EXAMPLES: &str = "\
Examples:
  emo zoo check releases
      files against what is recorded of them
  emo zoo check releases --rebuild --models 'emo-*'
      some of them against bytes and runs made anew
  emo zoo check releases --rebuild=bytes
      all of them against bytes alone: in a minute";

pub fn run(args: &Args) -> Said {
    super::on_threads(args.jobs, || judge(args))
}

fn judge(args: &Args) -> Said {
    let store = Store::new(&args.folder);
    let manifest = store.manifest()?;
    let checkpoints = match &args.weights_dir {
        Some(folder) => Checkpoints::find(folder, &models(&manifest))?,
        None => Checkpoints::default(),
    };
    let models = chosen(&manifest, &args.models)?;
    let scope = Scope {
        models: models.as_deref(),
        checkpoints: args.rebuild.is_some().then_some(&checkpoints),
        run: args.rebuild == Some(Rebuild::Run),
    };
    let bars = Bars::new(scope.work(&manifest));
    let findings = check(&store, &manifest, scope, &bars);
    drop(bars);
    let findings = findings?;

    let entries = scope.entries(&manifest).len();
    let failing = |severity| {
        let mut files: Vec<_> =
            findings.iter().filter(|f| f.severity == severity).filter_map(|f| f.file.as_deref()).collect();
        files.dedup();
        files.len()
    };
    let (failed, open) = (failing(Severity::Error), failing(Severity::Open));
    let outcome = Outcome::of(&findings);
    let word = outcome.name();
    let again = match args.rebuild {
        Some(Rebuild::Run) => ", written and run again",
        Some(Rebuild::Bytes) => ", written again",
        None => "",
    };
    let headline = match (failed, open) {
        (0, 0) => format!("{word}: {entries} entries hold{again}"),
        (0, open) => format!("{word}: {open} of {entries} entries cannot be written again"),
        (failed, _) => format!("{word}: {failed} files of {entries} entries differ from the manifest"),
    };
    let name = args.folder.display().to_string();
    let mut subjects = vec![Subject { name, headline, ..Subject::default() }];
    // A subject a file, so that no file hides behind another one's finding.
    for of_file in findings.chunk_by(|a, b| a.file == b.file) {
        let mut codes: Vec<_> = of_file.iter().map(|finding| finding.code).collect();
        codes.dedup();
        let name = of_file[0].file.clone().unwrap_or_default();
        let findings = of_file.to_vec();
        subjects.push(Subject { name, headline: codes.join(", "), findings, ..Subject::default() });
    }
    let report = Report { command: "zoo check", subjects };
    let document = || {
        let finding = |f: &emo_verifier::finding::Finding| {
            json!({ "model_path": f.file, "code": f.code, "field": f.place, "severity": f.severity,
                    "message": f.message })
        };
        let findings: Vec<_> = findings.iter().map(finding).collect();
        json!({ "schema": "emo.zoo.check/1", "verdict": word, "entries": entries, "rebuilt": args.rebuild.is_some(),
                "run": scope.run,
                "findings": findings })
    };
    Ok((args.format.write(&report, document)?, outcome))
}
