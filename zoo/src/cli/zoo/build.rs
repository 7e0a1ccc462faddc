//! `emo zoo build`: releases models with their evidence.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use emo_exporter::models::{DENSE, MODELS, Model};
use emo_exporter::profile::{Opset, Profile};
use emo_proto::plain::plain;
use emo_verifier::report::{counted, thousands};
use serde_json::json;

use super::super::names::Chosen;
use super::super::output::{Format, json as to_json};
use super::super::progress::{Bars, Progress};
use super::super::streams::remark;
use super::super::table::table;
use super::super::{Outcome, Said, names};
use crate::manifest::Store;
use crate::manifest::build::{Built, Plan, recipes, released};
use crate::manifest::checkpoints::Checkpoints;
use crate::manifest::entry::Provenance;
use crate::manifest::estimate::Estimate;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Models of emo list, where '*' stands for anything, or TOML files of networks of one's own [default: every EMO,
    /// detector, segmenter and backbone, or those that --weights-dir has checkpoints of]
    #[arg(long, value_delimiter = ',', value_name = "A,'B-*'", value_parser = names::several_models())]
    models: Vec<Chosen<Model>>,
    /// Targets to build them for, '*' for all [default: all; of models that are no classifiers portable, coreml, qnn
    /// and ort-cpu]
    #[arg(long, alias = "profiles", value_delimiter = ',', value_name = "P,Q", value_parser = names::several_targets())]
    targets: Vec<Chosen<&'static Profile>>,
    /// Operator sets to build them in [default: all that each target takes; of models that are no classifiers its own]
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
    /// Record every file in the manifest and store none; what ran before and has the same bytes does not run again
    #[arg(long)]
    manifest_only: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Files made side by side [default: the number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  emo zoo build --out releases
      the project's own release, untrained
  emo zoo build --models 'ssdlite-*,my.toml' --targets coreml,qnn
      some of it
  emo zoo build --models '*' --targets '*' --dry-run
      how much everything would be
  emo zoo build --weights-dir resources --out releases
      with the authors' checkpoints";

pub fn run(args: &Args) -> Said {
    super::on_threads(args.jobs, || build(args))
}

fn build(args: &Args) -> Said {
    let progress = Progress::new();
    let store = Store::new(&args.out);
    let _lock = if args.dry_run { None } else { Some(store.lock()?) };
    progress.step("reading weights");
    let (checkpoints, mut models) = models(args)?;
    if let Some(side) = args.window {
        for (model, _) in &mut models {
            *model = model.windowed(side)?;
        }
    }
    let targets = names::all(&args.targets);
    let targets = (!targets.is_empty()).then_some(targets.as_slice());
    let opsets = (!args.opsets.is_empty()).then_some(args.opsets.as_slice());
    progress.step("looking at what is there");
    let plan = Plan::new(&store, recipes(&models, targets, opsets)?, !args.manifest_only)?;
    let estimate = plan.estimate()?;
    drop(progress);
    if args.dry_run {
        return planned(args, &plan, &estimate);
    }
    if !estimate.files.is_empty() {
        remark(&outlook(args, &estimate));
    }
    let bars = Bars::new(plan.work());
    let built = plan.run(&checkpoints, &bars);
    drop(bars);
    report(args, &built?)
}

/// How much there is to do, in a line.
fn outlook(args: &Args, estimate: &Estimate) -> String {
    let threads = rayon::current_num_threads();
    let seconds = estimate.time.as_secs_f64() / threads as f64;
    let time = match seconds {
        ..90.0 => format!("{:.0} s", seconds.max(1.0)),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    };
    let (files, bytes) = (counted(estimate.files.len(), "file"), estimate.bytes() as f64 / 1e6);
    let size = if bytes < 1e3 { format!("{bytes:.0} MB") } else { format!("{:.1} GB", bytes / 1e3) };
    let processors = counted(threads, "processor");
    let folder = args.out.display();
    format!(
        "{folder}: {files} to write, about {size}; about {time} on {processors} of a server, by the models' work"
    )
}

/// What would be written.
fn planned(args: &Args, plan: &Plan, estimate: &Estimate) -> Said {
    let data = match args.format {
        Format::Json => {
            let files = estimate.files.iter();
            let files: Vec<_> =
                files.map(|(path, bytes)| json!({ "model_path": path, "about_bytes": bytes })).collect();
            to_json(&json!({ "schema": "emo.zoo.plan/1", "files": files, "kept": plan.kept(),
                             "about_bytes": estimate.bytes(), "about_seconds": estimate.time.as_secs() }))?
        }
        Format::Text => {
            let row = |(path, bytes): &(String, u64)| vec![path.clone(), thousands(*bytes)];
            let kept = plan.kept().len();
            let list = table(&["file", "about bytes"], estimate.files.iter().map(row));
            format!("{list}\n{}, {kept} unchanged; nothing was written\n", outlook(args, estimate))
        }
    };
    Ok((data, Outcome::Pass))
}

/// The models to build with where their weights come from, and their checkpoints.
fn models(args: &Args) -> anyhow::Result<(Checkpoints, Vec<(Model, Provenance)>)> {
    let mut asked: Vec<Model> = match (args.models.is_empty(), &args.weights_dir) {
        (true, None) => released(),
        // Whatever there are checkpoints of.
        (true, Some(_)) => MODELS.iter().chain(&*DENSE).cloned().collect(),
        (false, _) => names::all(&args.models),
    };
    // Two patterns may mean the same.
    let mut seen = HashSet::new();
    asked.retain(|model| model.is_own() || seen.insert(model.name.clone()));
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
