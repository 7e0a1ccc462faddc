//! `emo zoo show DIR MODEL`: everything that is recorded of a model's files.

use std::fmt::Write as _;
use std::path::PathBuf;

use emo_verifier::report::{counted, thousands};
use serde_json::json;

use super::super::output::{Format, json as to_json};
use super::super::{Outcome, Said};
use super::manifest;
use crate::manifest::Entry;
use crate::manifest::entry::{Account, Classes, Extent, Port, Preprocessing, Provenance};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder of the releases, or a manifest
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A model, where '*' stands for anything, or the path of one of its files
    model: String,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  emo zoo show releases emo-1m  all that is recorded of a model";

pub fn run(args: &Args) -> Said {
    let manifest = manifest(&args.folder)?;
    let entries = manifest.of(&args.model)?;
    let data = match args.format {
        Format::Json => to_json(&json!({ "schema": "emo.zoo.show/1", "entries": entries }))?,
        Format::Text => entries.into_iter().map(text).collect::<Vec<_>>().join("\n"),
    };
    Ok((data, Outcome::Pass))
}

fn text(entry: &Entry) -> String {
    let mut text = format!("{}\n", entry.model_path);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    let ports = |ports: &[Port]| ports.iter().map(port).collect::<Vec<_>>().join(", ");
    let metadata = &entry.metadata;
    line("sha256", metadata.model_sha.clone());
    line("bytes", thousands(metadata.model_bytes));
    let (profile, opset) = (entry.profile.as_deref().unwrap_or("-"), entry.opset_version);
    let windows = entry.window.map_or(String::new(), |side| format!(", windows of {side}"));
    line("form", format!("target {profile}, opset {opset}, {}{windows}", entry.dtype));
    line(
        "interface",
        format!("{} → {}", ports(&metadata.io_ports.inputs), ports(&metadata.io_ports.outputs)),
    );
    for (name, meaning) in
        metadata.io_ports.outputs.iter().filter_map(|p| Some((&p.name, p.meaning.as_ref()?)))
    {
        line("", format!("{name}: {meaning}"));
    }
    for (name, words) in model(entry) {
        line(name, words);
    }
    let figure = |n: Option<u64>| n.map_or("not countable".to_owned(), thousands);
    line("parameters", figure(entry.parameters));
    let costs = &entry.costs;
    for (name, cost) in
        [("macs", costs.macs), ("flops", costs.flops), ("fvcore", costs.fvcore), ("mmcv", costs.mmcv)]
    {
        line(name, figure(cost));
    }
    if let Some(claim) = &entry.claim {
        let word = if claim.holds { "holds" } else { "fails" };
        line("claim", format!("{}: {word}", claim.model));
        line("", format!("parameters {}", account(&claim.parameters)));
        line("", format!("fvcore {}", account(&claim.fvcore)));
    }
    if let Some(n) = &entry.numerics {
        let word = if n.holds { "holds" } else { "fails" };
        let (of_largest, bound) = (n.of_largest, n.bound);
        line(
            "numerics",
            format!(
                "{word}: {}, error below {of_largest:.1e} of the largest logit, bound {bound:.0e} ({})",
                n.runtime, n.tolerance
            ),
        );
        line("probes", n.probes.join(", "));
    }
    for (profile, lint) in &entry.lint {
        let partitions = counted(lint.partitions, "partition");
        let what = format!("{profile}: {} violations, {partitions}", lint.violations);
        line("lint", what);
    }
    line("weights", weights(&entry.weights));
    line("licence", entry.license.clone());
    for (name, link) in [("paper", &entry.paper), ("source", &entry.source), ("command", &entry.command)] {
        if let Some(link) = link {
            line(name, link.clone());
        }
    }
    line("tool", entry.tool.clone());
    text
}

/// What an entry tells of its model beside the file.
fn model(entry: &Entry) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    lines.extend(entry.task.iter().map(|task| ("task", task.clone())));
    if let Some(Preprocessing { channels, fit, multiple, mean, deviation }) = &entry.preprocessing {
        let sides = format!("{channels}, {fit}, sides of multiples of {multiple}");
        lines.push(("picture", format!("{sides}, mean {mean:?}, deviation {deviation:?}")));
    }
    if let Some(Classes { count, names, in_file }) = &entry.classes {
        let names = names.as_deref().unwrap_or("without names");
        let place = if *in_file { ", in the file" } else { "" };
        lines.push(("classes", format!("{count}: {names}{place}")));
    }
    if let Some(p) = &entry.published {
        let ([height, width], exactly) = (p.input, p.exact_flops.map_or("-".to_owned(), thousands));
        let params = format!("{} parameters ({})", p.parameters, thousands(p.exact_parameters));
        let flops = format!("{} FLOPs at {height} × {width} by {} ({exactly})", p.flops, p.convention);
        lines.push(("published", format!("{params}, {flops}, {:.1} {}", p.accuracy, p.metric)));
        lines.extend(p.notes.iter().map(|note| ("", note.clone())));
    }
    lines
}

fn port(port: &Port) -> String {
    let extent = |extent: &Extent| match extent {
        Extent::Size(n) => n.to_string(),
        Extent::Name(name) => name.clone(),
    };
    let shape = port.shape.as_ref().map(|shape| shape.iter().map(extent).collect::<Vec<_>>().join(", "));
    format!("{} {} [{}]", port.name, port.r#type, shape.unwrap_or("?".to_owned()))
}

fn account(account: &Account) -> String {
    let [file, folded, model] =
        [i128::from(account.file), account.folded.into(), account.model.into()].map(thousands);
    let published = account.published.as_ref().map_or(String::new(), |p| format!(", published as {p}"));
    format!("{file} in the file, {folded} folded, {model} together{published}")
}

fn weights(weights: &Provenance) -> String {
    match (weights, weights.origin()) {
        (_, Some(origin)) => origin.to_string(),
        (Provenance::Named { source }, None) => format!("{source}: its own"),
        (Provenance::Checkpoint(checkpoint), None) => checkpoint.sha256.clone(),
    }
}
