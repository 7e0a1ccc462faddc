//! `emo list`: models with their published figures.

use emo_exporter::models::MODELS;
use emo_verifier::models::figures::published;
use emo_verifier::report::thousands;

use super::output::{Format, json};
use super::table::table;
use super::{Outcome, Verdict};

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

pub fn run(args: &Args) -> Outcome {
    let models: Vec<_> = MODELS.iter().filter_map(|model| published(&model.name)).collect();
    let text = match args.format {
        Format::Json => json(&serde_json::json!({ "schema": "emo.list/1", "models": models }))?,
        Format::Text => {
            let header = ["model", "params", "exactly", "FLOPs", "exactly (fvcore)", "top-1"];
            let row = |p: &&emo_verifier::models::figures::Published| {
                vec![
                    p.model.to_owned(),
                    p.params.to_owned(),
                    thousands(p.exact_params),
                    p.flops.to_owned(),
                    thousands(p.exact_fvcore),
                    format!("{:.1}", p.top1),
                ]
            };
            table(&header, models.iter().map(row))
        }
    };
    Ok((text, Verdict::Holds))
}
