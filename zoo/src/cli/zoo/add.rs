//! `emo zoo add DIR FILE`: takes in a file that others wrote, with what the judge found.

use std::path::PathBuf;

use emo_exporter::models::Model;
use emo_exporter::weights::Spec;
use emo_proto::plain::plain;
use serde_json::json;

use super::super::output::{Format, json as to_json};
use super::super::progress::Progress;
use super::super::{Outcome, Said, names};
use crate::manifest::Store;
use crate::manifest::add::{Added, Statement, add};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder of the releases
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// An ONNX file, weights inside
    file: PathBuf,
    /// The model that it is said to be, by name or as a TOML file of a network of one's own [default: the published
    /// one that it is]
    #[arg(long, value_name = "MODEL|FILE.toml", value_parser = names::model())]
    claim: Option<Model>,
    /// The weights that it is said to hold; without, its function alone is judged
    #[arg(long, value_name = "PATH|formula:SEED")]
    weights: Option<Spec>,
    /// Its licence, as its authors state it
    #[arg(long, value_name = "TEXT")]
    license: Option<String>,
    /// Where it came from
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  emo zoo add releases third-party.onnx --claim emo-1m --license MIT
      a file that others wrote
  emo zoo add releases third-party.onnx --claim my.toml
      one of a network of one's own";

pub fn run(args: &Args) -> Said {
    let store = Store::new(&args.folder);
    let _lock = store.lock()?;
    let statement = Statement {
        claim: args.claim.clone(),
        weights: args.weights.clone(),
        license: args.license.clone(),
        source: args.source.clone(),
    };
    let progress = Progress::new();
    progress.step("judging");
    let added = add(&store, &args.file, &statement)?;
    drop(progress);
    let (word, path, reason, verdict) = match added {
        Added::Taken(entry) => ("added", entry.model_path, None, Outcome::Pass),
        Added::Known(path) => ("unchanged", path, None, Outcome::Pass),
        Added::Refused(reason) => ("refused", args.file.display().to_string(), Some(reason), Outcome::Fail),
        Added::Undecided(reason) => {
            ("undecided", args.file.display().to_string(), Some(reason), Outcome::Undecided)
        }
    };
    let data = match args.format {
        Format::Json => to_json(
            &json!({ "schema": "emo.zoo.add/1", "outcome": word, "model_path": path, "reason": reason }),
        )?,
        Format::Text => match reason {
            Some(reason) => format!("{word}  {}\n{}\n", plain(&path), plain(&reason)),
            None => format!("{word}  {}\n", plain(&path)),
        },
    };
    Ok((data, verdict))
}
