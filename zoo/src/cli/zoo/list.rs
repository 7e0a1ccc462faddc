//! `emo zoo list DIR`: what is released.

use std::path::PathBuf;

use emo_verifier::report::thousands;
use serde_json::json;

use super::super::output::{Format, json as to_json};
use super::super::table::table;
use super::super::{Outcome, Said};
use super::{chosen, claim, error, manifest, weights};
use crate::manifest::Entry;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder of the releases, or a manifest
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Models to list, where '*' stands for anything [default: all]
    #[arg(long, value_delimiter = ',', value_name = "A,'B-*'")]
    models: Vec<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  emo zoo list releases                        what is released
  emo zoo list releases --models 'ssdlite-*'   some of it";

pub fn run(args: &Args) -> Said {
    let manifest = manifest(&args.folder)?;
    let models = chosen(&manifest, &args.models)?;
    let asked = |entry: &&Entry| models.as_ref().is_none_or(|models| models.contains(&&*entry.model));
    let data = match args.format {
        Format::Json => {
            let entries: Vec<_> = manifest
                .entries()
                .filter(asked)
                .map(|e| {
                    json!({ "model": e.model, "model_path": e.model_path, "task": e.task,
                            "profile": e.profile,
                            "opset_version": e.opset_version, "dtype": e.dtype, "weights": e.weights,
                            "parameters": e.parameters, "fvcore": e.costs.fvcore,
                            "claim": e.claim.as_ref().map(|c| c.holds),
                            "of_largest": e.numerics.as_ref().map(|n| n.of_largest),
                            "model_bytes": e.metadata.model_bytes, "model_sha": e.metadata.model_sha })
                })
                .collect();
            to_json(&json!({ "schema": "emo.zoo.list/1", "entries": entries }))?
        }
        Format::Text => {
            let header = ["file", "params", "FLOPs (fvcore)", "claim", "error", "weights", "bytes", "sha256"];
            let figure = |n: Option<u64>| n.map_or("-".to_owned(), thousands);
            let rows = manifest.entries().filter(asked).map(|entry| {
                vec![
                    entry.model_path.clone(),
                    figure(entry.parameters),
                    figure(entry.costs.fvcore),
                    claim(entry).to_owned(),
                    error(entry),
                    weights(entry),
                    thousands(entry.metadata.model_bytes),
                    entry.metadata.model_sha.chars().take(12).collect(),
                ]
            });
            table(&header, rows)
        }
    };
    // A long manifest takes a while to fall apart, and the process ends soon.
    std::mem::forget(manifest);
    Ok((data, Outcome::Pass))
}
