//! `emo zoo card DIR MODEL`: a model's README, as Hugging Face shows it.

use std::path::PathBuf;

use emo_proto::plain::plain;

use super::super::{Outcome, Said};
use crate::manifest::Store;
use crate::manifest::card::card;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder of the releases; a card is written as DIR/MODEL/README.md
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A model of the manifest, where '*' stands for anything
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    model: Option<String>,
    /// Every model of the manifest
    #[arg(long)]
    all: bool,
}

const EXAMPLES: &str = "\
Examples:
  emo zoo card releases --all  a README.md beside the files of each model";

pub fn run(args: &Args) -> Said {
    let store = Store::new(&args.folder);
    // Before the lock, which would make a folder that is not there.
    let manifest = store.manifest()?;
    let models = match &args.model {
        Some(model) => manifest.matching(model)?,
        None => manifest.models(),
    };
    let _lock = store.lock()?;
    let mut text = String::new();
    for model in models {
        let entries = manifest.of(model)?;
        let path = store.write_card(model, &card(model, &entries))?;
        text += &format!("{}\n", plain(&path.display().to_string()));
    }
    Ok((text, Outcome::Pass))
}
