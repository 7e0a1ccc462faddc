//! `emo verify FILE --weights W`: structure, counts and numerics of a file that emo wrote.

use std::path::PathBuf;

use anyhow::Context as _;
use emo_exporter::weights::{Spec, Weights};
use emo_verifier::identity::Identity;
use emo_verifier::runtime::Tract;
use emo_verifier::verify::{count, findings, numerics};
use serde_json::json;

use super::Outcome;
use super::output::{Format, Report, json as to_json};
use super::progress::Progress;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to judge
    file: PathBuf,
    /// The weights that it should hold
    #[arg(long, value_name = "PATH|formula:SEED")]
    weights: Spec,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &Args) -> Outcome {
    let progress = Progress::new();
    progress.step("reading");
    let name = args.file.display().to_string();
    let file = emo_proto::file::open(&args.file)?;
    let identity = Identity::read(&file.model).with_context(|| name.clone())?;
    let weights = Weights::load(&args.weights, &identity.variant.parameters(identity.classes))?;
    progress.step("counting");
    let (audit, claim) = count(&file.model, &identity);
    let findings = findings(&file.model, &identity, &audit, &claim);
    progress.step("running in tract and in the reference");
    let numerics = numerics(&file.bytes, &identity, &weights, &Tract).with_context(|| name.clone())?;
    drop(progress);

    let report = Report {
        identity: &identity,
        audit: &audit,
        claim: &claim,
        numerics: Some(&numerics),
        findings: &findings,
    };
    let data = match args.format {
        Format::Text => report.text(&name),
        Format::Json => {
            let mut fields = report.fields();
            fields["schema"] = json!("emo.verify/1");
            fields["file"] = json!(name);
            to_json(&fields)?
        }
    };
    Ok((data, report.verdict()))
}
