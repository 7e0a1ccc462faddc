//! `emo verify FILE --against OTHER`: a file beside another, whatever they compute.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use emo_proto::Message as _;
use emo_proto::file::{OnnxFile, write_atomic};
use emo_verifier::against::{Against, Extent, Origin, OutputVerdict, Request, Run, Saved, against};
use emo_verifier::audit::{Sizes, open_names};
use emo_verifier::compare::Difference;
use emo_verifier::data::{self, Port, Ports};
use emo_verifier::finding::Outcome;
use emo_verifier::report::{Cell, Subject, Table};
use emo_verifier::runtime::Runtime;
use emo_verifier::verify::PROBES;
use serde_json::{Value, json};

use super::{Args, Row, name, small};
use crate::cli::sizes::Unused;

pub fn row(
    path: &Path,
    file: &OnnxFile,
    (other, truth): (&str, &OnnxFile),
    args: &Args,
    sizes: &Sizes,
    runtime: &dyn Runtime,
) -> anyhow::Result<Row> {
    let name = name(path);
    let ports = Ports::of(&file.model);
    let mut runs = Vec::new();
    for path in &args.data {
        let sets = data::read(path, &ports)?.into_iter();
        runs.extend(sets.map(|set| Run { name: set.name, inputs: set.inputs, changed: None }));
    }
    let dims = sizes.bindings(&file.model).with_context(|| name.clone())?;
    let other_dims = sizes.bindings(&truth.model).with_context(|| other.to_owned())?;
    let request = Request {
        file,
        truth: (other, truth),
        runs: &runs,
        probes: args.probes.unwrap_or(PROBES),
        dims: [&dims, &other_dims],
        tolerance: args.tolerance,
        runtime,
    };
    let found = against(&request)
        .map_err(|error| anyhow!("{error}{}", advice(file, truth)))
        .with_context(|| name.clone())?;
    if let Some((path, piece)) = args.save_node.as_deref().zip(found.piece.as_ref()) {
        save(path, piece)?;
    }
    let mut document = json!({ "schema": "emo.verify/1", "file": name });
    if let (Value::Object(fields), Value::Object(document)) = (json!(found), &mut document) {
        document.extend(fields);
    }
    let advice = if found.verdict == Outcome::Undecided { advice(file, truth) } else { String::new() };
    let mut subject = subject(name.clone(), &found, &advice);
    subject.findings.iter_mut().for_each(|finding| finding.file = Some(name.clone()));
    Ok(Row {
        subject,
        document,
        verdict: found.verdict,
        unused: Some(Unused::of(sizes, &name, &file.model).beside(sizes, &truth.model)),
    })
}

/// How sizes are given, if the files leave any open.
fn advice(file: &OnnxFile, truth: &OnnxFile) -> String {
    let ports = [file, truth].map(|file| Ports::of(&file.model).inputs);
    let is_open = |port: &Port| port.dims.is_empty() || port.dims.contains(&None);
    let open: BTreeSet<&str> =
        ports.iter().flatten().filter(|p| is_open(p)).map(|p| p.name.as_str()).collect();
    if open.is_empty() {
        return String::new();
    }
    let names = open_names(&file.model).into_iter().chain(open_names(&truth.model));
    let is_axis = |name: &str| {
        let mut inputs = ports.iter().flatten();
        inputs.any(|port| name == port.name || name.starts_with(&format!("{}.", port.name)))
    };
    let dims: BTreeSet<String> = names.filter(|name| !is_axis(name)).collect();
    let dims = dims.iter().map(|dim| format!("--dim {dim}=N"));
    let inputs = open.iter().map(|input| format!("--input {input}=SHAPE"));
    format!("; sizes are given by {}", dims.chain(inputs).collect::<Vec<_>>().join(" or "))
}

/// The piece, and its inputs and outputs in the folder beside it.
fn save(path: &Path, piece: &Saved) -> anyhow::Result<()> {
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    data::write(
        &path.with_file_name(format!("{stem}_data")),
        std::slice::from_ref(&piece.set),
        &piece.ports(),
    )?;
    Ok(write_atomic(path, &piece.model.encode_to_vec())?)
}

fn subject(name: String, found: &Against, advice: &str) -> Subject {
    let worst = found.outputs.iter().filter_map(|o| o.difference).map(|d| d.relative()).reduce(f64::max);
    let error =
        worst.map_or(String::new(), |worst| format!(", largest error {worst:.1e} of the largest value"));
    let word = found.verdict.name();
    let cause = found.cause.map_or(String::new(), |cause| format!(" {cause}"));
    let place = found.first_divergence.as_ref();
    let place = place.map_or(String::new(), |place| format!(" at {}", place.node.node));
    let headline = format!(
        "{word}{cause}{place}: against {}{error} ({}, {:.0e})",
        found.against, found.tolerance, found.bound
    );
    let row = |output: &OutputVerdict| {
        let d = output.difference.as_ref();
        let word = match (output.holds, output.decides) {
            (true, true) => "holds",
            (true, false) => "decides nothing",
            (false, _) => "fails",
        };
        vec![
            Cell::from(output.probe.as_str()),
            Cell::from(output.output.as_str()),
            Cell::from(output.against.as_str()),
            Cell::Text(format!("{:?}", output.shape)),
            small(d.map(|d| d.max_abs)),
            small(d.map(Difference::relative)),
            Cell::from(word),
        ]
    };
    let table = Table {
        title: "outputs".to_owned(),
        note: String::new(),
        header: vec!["input", "output", "against", "shape", "max abs", "of largest", ""],
        rows: found.outputs.iter().map(row).collect(),
    };
    Subject {
        name,
        headline,
        facts: facts(found, advice),
        tables: vec![table],
        findings: found.findings.clone(),
    }
}

fn facts(found: &Against, advice: &str) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(reason) = &found.reason {
        let advice = if found.extents.is_empty() { advice } else { "" };
        facts.push(("reason", format!("{reason}{advice}")));
    }
    facts.extend(found.open.iter().skip(1).map(|open| ("open", open.clone())));
    if let Some(place) = &found.first_divergence {
        facts.push(("first", place.describe()));
    }
    if !found.extents.is_empty() {
        let extent = |extent: &Extent| {
            let from = match extent.from {
                Origin::Given => "given",
                Origin::File => "as the other file has it",
                Origin::Chosen => "chosen",
            };
            format!("{} = {} ({from})", extent.dimension, extent.size)
        };
        facts.push(("sizes", found.extents.iter().map(extent).collect::<Vec<_>>().join(", ")));
    }
    let second = found.second.map_or(String::new(), |second| format!("; {second} finds them different too"));
    facts.push(("runtime", format!("{}{second}", found.runtime)));
    facts
}
