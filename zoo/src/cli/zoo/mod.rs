//! `emo zoo`: releases with their evidence, a file a subcommand.

mod add;
mod build;
mod card;
mod check;
mod diff;
mod list;
mod show;

use std::path::Path;

use clap::Subcommand;

use super::Said;
use super::progress::Bars;
use crate::manifest::evidence::Watch;
use crate::manifest::{Manifest, Store};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Export, audit, lint, verify and record models; what is there already is kept
    Build(build::Args),
    /// Hold every file to what the manifest says of it
    Check(check::Args),
    /// What is released, in a table
    List(list::Args),
    /// Everything that is recorded of a model's files
    Show(show::Args),
    /// What changed from one manifest to another
    Diff(diff::Args),
    /// Take in a file that others wrote, with what the judge found
    Add(add::Args),
    /// Write a Hugging Face model card
    Card(card::Args),
}

pub fn run(args: &Args) -> Said {
    match &args.command {
        Command::Build(args) => build::run(args),
        Command::Check(args) => check::run(args),
        Command::List(args) => list::run(args),
        Command::Show(args) => show::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Add(args) => add::run(args),
        Command::Card(args) => card::run(args),
    }
}

impl Watch for Bars {
    fn during(&self, what: &str, work: &mut dyn FnMut()) {
        Bars::during(self, what, work);
    }
}

/// Works on threads: as many as asked for, or one a processor; where so many cannot be had, on those that there
/// are. More than a few a processor would only wait.
fn on_threads(asked: Option<u16>, work: impl FnOnce() -> Said + Send) -> Said {
    const A_PROCESSOR: usize = 4;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = asked.map_or(processors, |n| usize::from(n).min(A_PROCESSOR * processors));
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}

/// The manifest in a folder, or in a file of its own.
fn manifest(path: &Path) -> anyhow::Result<Manifest> {
    Ok(if path.is_file() { Manifest::read(path)? } else { Store::new(path).manifest()? })
}

/// The models of a manifest that names and patterns mean; `None` where nobody says which.
fn chosen<'a>(manifest: &'a Manifest, asked: &[String]) -> anyhow::Result<Option<Vec<&'a str>>> {
    let found: Vec<Vec<&str>> =
        asked.iter().map(|name| manifest.matching(name)).collect::<emo_proto::Result<_>>()?;
    Ok((!asked.is_empty()).then(|| found.concat()))
}

/// The worst of the recorded errors, as a share of the largest logit.
fn error(entry: &crate::manifest::Entry) -> String {
    entry.numerics.as_ref().map_or("-".to_owned(), |numerics| format!("{:.1e}", numerics.of_largest))
}

/// Whether the published figures hold, in a word.
fn claim(entry: &crate::manifest::Entry) -> &'static str {
    match &entry.claim {
        Some(claim) if claim.holds => "holds",
        Some(_) => "fails",
        None => "-",
    }
}

/// Untrained weights by their formula, others by their digest's first digits.
fn weights(entry: &crate::manifest::Entry) -> String {
    use crate::manifest::entry::Provenance;
    match &entry.weights {
        Provenance::Named { source } => source.clone(),
        Provenance::Checkpoint(checkpoint) if checkpoint.official => "official".to_owned(),
        Provenance::Checkpoint(checkpoint) => checkpoint.sha256.chars().take(12).collect(),
    }
}
