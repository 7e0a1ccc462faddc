//! `emo list`: models with their published figures.

use emo_exporter::models::{DENSE, MODELS, Model, Task};
use emo_verifier::models::figures::{dense, published};
use emo_verifier::report::thousands;

use serde_json::{Value, json};

use super::output::{Format, json as to_json};
use super::table::{table, wrapped};
use super::{Outcome, Said};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  emo list                the published models and their figures
  emo list --format json  the same for a program";

pub fn run(args: &Args) -> Said {
    let text = match args.format {
        Format::Json => {
            let models: Vec<Value> = MODELS.iter().map(fields).collect();
            let dense: Vec<Value> = DENSE.iter().map(dense_fields).collect();
            to_json(&json!({ "schema": "emo.list/1", "models": models, "dense": dense }))?
        }
        Format::Text => {
            let header = ["model", "params", "exactly", "FLOPs", "exactly (fvcore)", "top-1"];
            let classifiers = table(&header, MODELS.iter().map(row));
            let header = ["model", "params", "exactly", "FLOPs", "by", "input", "accuracy"];
            let dense = table(&header, DENSE.iter().filter_map(dense_row));
            let alone = DENSE.iter().filter(|model| model.task() == Task::Features);
            let alone: Vec<&str> = alone.map(|model| &*model.name).collect();
            let alone = format!("Backbones alone: {}.", alone.join(", "));
            let alone = wrapped(&alone.split(' ').collect::<Vec<_>>(), 80).join("\n");
            format!("{classifiers}\n{dense}\n{alone}\n\n{NOTES}")
        }
    };
    Ok((text, Outcome::Pass))
}

const NOTES: &str = "\
Accuracies are published ones, per cent: top-1 on ImageNet-1K, AP of boxes on
COCO, mIoU on ADE20K. FLOPs are as mmcv's or fvcore's counter has them; the
exact figures are in the JSON. The exact parameters are those of the file:
where the printed ones are more, they have the auxiliary head, which training
alone has. Where FLOPs are a mean over pictures, no single size gives them.
Mask R-CNN is not written: its regions are known only when the file runs.
";

/// What is published of a model; where it is not EMO's authors' own, its name and title alone.
fn fields(model: &Model) -> Value {
    let mut fields = published(&model.name).map_or_else(|| json!({ "model": model.name }), |p| json!(p));
    fields["title"] = json!(model.title);
    fields
}

fn dense_fields(model: &Model) -> Value {
    let published = dense::published(&model.name);
    let mut fields = published.map_or_else(|| json!({ "model": model.name }), |p| json!(p));
    fields["title"] = json!(model.title);
    fields
}

fn row(model: &Model) -> Vec<String> {
    let mut row = vec![model.name.to_string()];
    match published(&model.name) {
        Some(p) => row.extend([
            p.params.to_owned(),
            thousands(p.exact_params),
            p.flops.to_owned(),
            thousands(p.exact_fvcore),
            format!("{:.1}", p.top1),
        ]),
        None => row.extend([const { "-" }; 5].map(str::to_owned)),
    }
    row
}

fn dense_row(model: &Model) -> Option<Vec<String>> {
    let p = dense::published(&model.name)?;
    Some(vec![
        model.name.to_string(),
        p.params.to_owned(),
        thousands(p.exact_params),
        p.flops.to_owned(),
        p.counter.name().to_owned(),
        format!("{}x{}", p.size.0, p.size.1),
        format!("{:.1} {}", p.accuracy, p.metric.name()),
    ])
}
