//! `emo show MODEL`: the core configuration and the counts block by block.

use std::fmt::Write as _;

use emo_exporter::models::emo::{Act, Norm, Request, Variant, WINDOW};
use emo_exporter::profile::Profile;
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
    model: &'static Variant,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &Args) -> Outcome {
    let variant = args.model;
    let profile = Profile::named("reference").expect("the profile that folds nothing is always there");
    let export = emo_exporter::export(&Request::new(variant, profile), &Spec::Formula(0))?;
    let file = OnnxFile::from_bytes(export.bytes.into(), External::none())?;
    let audit = audit(&file.model, &Bindings::new());
    let text = match args.format {
        Format::Text => text(variant, &audit),
        Format::Json => to_json(&fields(variant, &audit))?,
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
    }
}

fn text(variant: &Variant, audit: &Audit) -> String {
    let mut text = format!("{}, a stem of {} channels and four stages\n\n", variant.title, variant.stem);
    let header = ["stage", "depth", "channels", "expansion", "kernel", "norm", "activation", "attention"];
    let rows = variant.stages.iter().enumerate().map(|(i, s)| {
        let heads = s.dim / s.head_dim;
        let attention = if s.attention {
            format!("{heads} heads of {}, window {WINDOW}", s.head_dim)
        } else {
            "-".to_owned()
        };
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

fn fields(variant: &Variant, audit: &Audit) -> serde_json::Value {
    let stages: Vec<_> = variant
        .stages
        .iter()
        .map(|s| {
            json!({ "depth": s.depth, "channels": s.dim, "expansion": s.expansion, "head_dim": s.head_dim,
                    "kernel": s.kernel, "norm": norm(s.norm), "activation": act(s.act), "attention": s.attention })
        })
        .collect();
    json!({ "schema": "emo.show/1", "model": variant.name, "stem": variant.stem, "stages": stages, "counts": audit })
}
