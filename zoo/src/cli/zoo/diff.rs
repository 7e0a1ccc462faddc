//! `emo zoo diff OLD NEW`: what changed from one manifest to another.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::output::{Format, json as to_json};
use super::super::{Outcome, Said};
use super::manifest;
use crate::manifest::difference::{Changes, changes, known};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A folder of releases, or a manifest
    old: PathBuf,
    /// The same, later
    new: PathBuf,
    /// Changes that make exit code 1: added, removed, changed; or of changed entries file, interface, counts,
    /// claim, numerics, lint, weights, recipe, words
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    fail_on: Vec<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  emo zoo diff old new --fail-on file,counts
                          what changed from one release to the next";

pub fn run(args: &Args) -> Said {
    args.fail_on.iter().try_for_each(|name| known(name))?;
    let changes = changes(&manifest(&args.old)?, &manifest(&args.new)?);
    let data = match args.format {
        Format::Json => {
            let Changes { added, removed, changed } = &changes;
            to_json(
                &json!({ "schema": "emo.zoo.diff/1", "added": added, "removed": removed, "changed": changed }),
            )?
        }
        Format::Text => text(&changes),
    };
    let fails = args.fail_on.iter().any(|kind| changes.has(kind));
    Ok((data, if fails { Outcome::Fail } else { Outcome::Pass }))
}

fn text(changes: &Changes) -> String {
    if changes.is_empty() {
        return "no difference\n".to_owned();
    }
    let mut text = String::new();
    for path in &changes.added {
        let _ = writeln!(text, "added    {path}");
    }
    for path in &changes.removed {
        let _ = writeln!(text, "removed  {path}");
    }
    for (path, differences) in &changes.changed {
        let _ = writeln!(text, "changed  {path}");
        for d in differences {
            let _ = writeln!(text, "         {}: {}: {} → {}", d.kind, d.field, side(&d.old), side(&d.new));
        }
    }
    text
}

fn side(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
