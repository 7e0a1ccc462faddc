//! `emo list`: models with their published figures.

use emo_exporter::models::{MODELS, Model};
use emo_verifier::models::figures::published;
use emo_verifier::report::thousands;

use serde_json::{Value, json};

use super::output::{Format, json as to_json};
use super::table::table;
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
            to_json(&json!({ "schema": "emo.list/1", "models": models }))?
        }
        Format::Text => {
            let header = ["model", "params", "exactly", "FLOPs", "exactly (fvcore)", "top-1"];
            table(&header, MODELS.iter().map(row))
        }
    };
    Ok((text, Outcome::Pass))
}

/// What is published of a model; where it is not EMO's authors' own, its name and title alone.
fn fields(model: &Model) -> Value {
    let mut fields = published(&model.name).map_or_else(|| json!({ "model": model.name }), |p| json!(p));
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
