//! `emo show MODEL`: the core configuration and the counts block by block.

use std::fmt::Write as _;

use emo_exporter::layer::{Act, Norm};
use emo_exporter::models::mmb::Attention;
use emo_exporter::models::{Definition, Model};
use emo_exporter::profile::Profile;
use emo_exporter::target::Target;
use emo_exporter::weights::Spec;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_verifier::audit::{Audit, audit};
use emo_verifier::infer::Bindings;
use serde_json::json;

use super::output::{Format, count_row, json as to_json};
use super::table::table;
use super::{Outcome, Verdict, names};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// emo-1m, emo-2m, emo-5m or emo-6m
    #[arg(value_parser = names::model)]
    model: Model,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &Args) -> Outcome {
    let model = &args.model;
    let profile = Profile::named("reference").expect("the profile that folds nothing is always there");
    let export = emo_exporter::export(model, &Target::new(profile), &Spec::Formula(0))?;
    let file = OnnxFile::from_bytes(export.bytes.into(), External::none())?;
    let audit = audit(&file.model, &Bindings::new());
    let text = match args.format {
        Format::Text => text(model, &audit),
        Format::Json => to_json(&fields(model, &audit))?,
    };
    Ok((text, Verdict::Holds))
}

const fn norm(norm: Norm) -> &'static str {
    match norm {
        Norm::Batch => "batch norm",
        Norm::Layer => "layer norm",
    }
}

const fn act(act: Act) -> &'static str {
    match act {
        Act::Silu => "SiLU",
        Act::Gelu => "GELU",
        Act::Relu6 => "ReLU6",
    }
}

fn text(model: &Model, audit: &Audit) -> String {
    let Definition::Emo(network) = &model.definition else { unimplemented!("another family") };
    let mut text = format!("{}, a stem of {} channels and four stages\n\n", model.title, network.stem);
    let header = ["stage", "depth", "channels", "expansion", "kernel", "norm", "activation", "attention"];
    let rows = network.stages.iter().enumerate().map(|(i, s)| {
        let attention = s.attention.map_or_else(
            || "-".to_owned(),
            |Attention { head_dim, window }| {
                let window = window.map_or("the whole map".to_owned(), |side| format!("window {side}"));
                format!("{} heads of {head_dim}, {window}", s.dim / head_dim)
            },
        );
        let first = 2.0 * s.expansion;
        vec![
            (i + 1).to_string(),
            s.depth.to_string(),
            s.dim.to_string(),
            format!("{first} then {}", s.expansion),
            s.kernel.to_string(),
            norm(s.norm).to_owned(),
            act(s.act).to_owned(),
            attention,
        ]
    });
    text += &table(&header, rows);
    let _ = writeln!(text, "\n224 × 224, 1000 classes, counted from the file of the reference profile:\n");
    let mut rows: Vec<_> = audit.blocks.iter().map(|(name, counts)| count_row(name, counts)).collect();
    rows.push(count_row("total", &audit.totals));
    text + &table(&["block", "params", "MACs", "FLOPs (fvcore)"], rows)
}

fn fields(model: &Model, audit: &Audit) -> serde_json::Value {
    let Definition::Emo(network) = &model.definition else { unimplemented!("another family") };
    let stages: Vec<_> = network
        .stages
        .iter()
        .map(|s| {
            json!({ "depth": s.depth, "channels": s.dim, "expansion": s.expansion, "head_dim": s.attention.map(|a| a.head_dim),
                    "kernel": s.kernel, "norm": norm(s.norm), "activation": act(s.act), "attention": s.attention.is_some() })
        })
        .collect();
    json!({ "schema": "emo.show/1", "model": model.name, "stem": network.stem, "stages": stages, "counts": audit })
}
