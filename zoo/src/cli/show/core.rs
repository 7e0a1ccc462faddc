//! What a model is made of, family by family: the columns of its table.

use emo_exporter::layer::{Act, Norm};
use emo_exporter::models::Model;
use emo_exporter::models::emo::Stage;
use emo_exporter::models::mmb::Attention;
use emo_verifier::report::counted;
use serde_json::{Value, json};

use super::super::table::table;

/// A title, and for families that are made of stages a row each.
pub fn text(model: &Model) -> String {
    let title = &model.title;
    let Some((stem, stages)) = model.stages() else { return format!("{title}\n") };
    let rows = stages.iter().enumerate().map(|(i, s)| {
        vec![
            (i + 1).to_string(),
            s.depth.to_string(),
            s.dim.to_string(),
            format!("{} then {}", 2.0 * s.expansion, s.expansion),
            s.kernel.to_string(),
            norm(s.norm).to_owned(),
            act(s.act).to_owned(),
            attention(s),
        ]
    });
    let header = ["stage", "depth", "channels", "expansion", "kernel", "norm", "activation", "attention"];
    let number = match stages.len() {
        4 => "four stages".to_owned(),
        n => counted(n, "stage"),
    };
    format!("{title}, a stem of {stem} channels and {number}\n\n{}", table(&header, rows))
}

/// The same as fields.
pub fn fields(model: &Model) -> Value {
    let Some((stem, stages)) = model.stages() else { return json!({}) };
    let stage = |s: &Stage| {
        json!({ "depth": s.depth, "channels": s.dim, "expansion": s.expansion, "head_dim": s.attention.map(|a| a.head_dim),
                "kernel": s.kernel, "norm": norm(s.norm), "activation": act(s.act), "attention": s.attention.is_some() })
    };
    json!({ "stem": stem, "stages": stages.iter().map(stage).collect::<Vec<_>>() })
}

/// That of the blocks after the first.
fn attention(stage: &Stage) -> String {
    match stage.attention.filter(|_| stage.depth > 1) {
        Some(Attention { head_dim, window }) => {
            let window = window.map_or("the whole map".to_owned(), |side| format!("window {side}"));
            format!("{} heads of {head_dim}, {window}", stage.dim / head_dim)
        }
        None => "-".to_owned(),
    }
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
        Act::Relu => "ReLU",
    }
}
