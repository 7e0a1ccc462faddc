//! `emo zoo build`: releases models with their evidence.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use emo_exporter::models::{Definition, MODELS, Model};
use emo_exporter::profile::{Opset, PROFILES, Profile};
use emo_proto::plain::plain;
use serde_json::json;

use super::super::output::{Format, json as to_json};
use super::super::progress::{Bars, Progress};
use super::super::{Outcome, Said, names};
use crate::manifest::Store;
use crate::manifest::build::{Built, Plan, recipes};
use crate::manifest::checkpoints::Checkpoints;
use crate::manifest::entry::Provenance;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Models by name, or TOML files of networks of one's own [default: every EMO, or those that --weights-dir has
    /// checkpoints of]
    #[arg(long, value_delimiter = ',', value_name = "A,FILE.toml", value_parser = names::model())]
    models: Vec<Model>,
    /// Targets to build them for [default: all]
    #[arg(long, alias = "profiles", value_delimiter = ',', value_name = "P,Q", value_parser = names::target())]
    targets: Vec<&'static Profile>,
    /// Operator sets to build them in [default: all that each target takes]
    #[arg(long, value_delimiter = ',', value_name = "N,M", value_parser = names::opset())]
    opsets: Vec<&'static Opset>,
    /// Side of the attention windows, in tokens [default: the published one]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// A folder with checkpoints, matched to models by what they hold; without it the weights are
    /// formula:0, untrained
    #[arg(long, value_name = "DIR")]
    weights_dir: Option<PathBuf>,
    /// The folder of the releases
    #[arg(long, value_name = "DIR", default_value = "zoo-out")]
    out: PathBuf,
    /// Files made side by side [default: the number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  emo zoo build --out releases
      every model for every target, untrained
  emo zoo build --models emo-1m,my.toml --targets coreml,qnn
      some of them
  emo zoo build --weights-dir resources --out releases
      with the authors' checkpoints";

pub fn run(args: &Args) -> Said {
    super::on_threads(args.jobs, || build(args))
}

fn build(args: &Args) -> Said {
    let progress = Progress::new();
    let store = Store::new(&args.out);
    let _lock = store.lock()?;
    progress.step("reading weights");
    let (checkpoints, mut models) = models(args)?;
    let targets: Vec<&Profile> =
        if args.targets.is_empty() { PROFILES.iter().collect() } else { args.targets.clone() };
    if let Some(side) = args.window {
        for (model, _) in &mut models {
            *model = model.windowed(side)?;
        }
    }
    let opsets = (!args.opsets.is_empty()).then_some(args.opsets.as_slice());
    progress.step("looking at what is there");
    let plan = Plan::new(&store, recipes(&models, &targets, opsets)?)?;
    drop(progress);
    let bars = Bars::new(plan.work());
    let built = plan.run(&checkpoints, &bars);
    drop(bars);
    report(args, &built?)
}

/// The models to build with where their weights come from, and their checkpoints.
fn models(args: &Args) -> anyhow::Result<(Checkpoints, Vec<(Model, Provenance)>)> {
    // Without a wish: the first family, which is the project's own; or whatever there are checkpoints of.
    let is_wanted =
        |model: &&Model| args.weights_dir.is_some() || matches!(model.definition, Definition::Emo(_));
    let asked: Vec<Model> = match args.models.is_empty() {
        true => MODELS.iter().filter(is_wanted).cloned().collect(),
        false => args.models.clone(),
    };
    for (i, model) in asked.iter().enumerate() {
        if asked[..i].iter().any(|other| other.name.eq_ignore_ascii_case(&model.name)) {
            return Err(anyhow!("--models: expected each model once, found two called {}", model.name));
        }
    }
    let Some(folder) = &args.weights_dir else {
        let formula = Provenance::Named { source: "formula:0".to_owned() };
        return Ok((
            Checkpoints::default(),
            asked.into_iter().map(|model| (model, formula.clone())).collect(),
        ));
    };
    let checkpoints = Checkpoints::find(folder, &asked)?;
    let names: Vec<_> = checkpoints.models().collect();
    if names.is_empty() && args.models.is_empty() {
        let (folder, others) = (folder.display(), checkpoints.others);
        return Err(anyhow!("{folder}: expected checkpoints of EMO, found none among {others} files"));
    }
    let with = asked.into_iter().filter(|model| !args.models.is_empty() || names.contains(&&*model.name));
    let models = with.map(|model| {
        let weights = Provenance::from(checkpoints.of(&model.name)?.origin());
        Ok((model, weights))
    });
    let models = models.collect::<emo_proto::Result<_>>().with_context(|| folder.display().to_string())?;
    Ok((checkpoints, models))
}

fn report(args: &Args, built: &Built) -> Said {
    let Built { written, kept, refused } = built;
    let verdict = if refused.is_empty() { Outcome::Pass } else { Outcome::Fail };
    let data = match args.format {
        Format::Json => {
            let refused: Vec<_> = refused
                .iter()
                .map(|(path, reasons)| json!({ "model_path": path, "reasons": reasons }))
                .collect();
            to_json(
                &json!({ "schema": "emo.zoo.build/1", "written": written, "kept": kept, "refused": refused }),
            )?
        }
        Format::Text => {
            let mut text = String::new();
            for path in written {
                let _ = writeln!(text, "written  {path}");
            }
            for (path, reasons) in refused {
                let _ = writeln!(text, "refused  {path}");
                for reason in reasons {
                    let _ = writeln!(text, "         {reason}");
                }
            }
            let (w, k, r) = (written.len(), kept.len(), refused.len());
            let folder = plain(&args.out.to_string_lossy()).into_owned();
            text + &format!("{folder}: {w} written and verified, {k} unchanged, {r} refused\n")
        }
    };
    Ok((data, verdict))
}
