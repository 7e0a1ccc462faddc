//! `emo bench FILE…`: how fast an engine runs files, in turn, beside the first of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use emo_exporter::weights::formula;
use emo_proto::file::{OnnxFile, open};
use emo_verifier::audit::Sizes;
use emo_verifier::data::Ports;
use emo_verifier::fact::Fact;
use emo_verifier::infer::infer;
use emo_verifier::report::counted;
use emo_verifier::runtime::{Runtime, Session};
use emo_verifier::sym::Expr;
use ndarray::ArrayD;
use serde_json::{Value, json};

use super::files::expand;
use super::output::{Format, json as to_json};
use super::progress::Progress;
use super::runtime::RuntimeArgs;
use super::sizes::{SizeArgs, Unused};
use super::table::table;
use super::{Outcome, Said};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// ONNX files, or patterns of files; ratios are to the first
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Threads within an operator; tract takes one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Rounds in which every file runs once
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    sizes: SizeArgs,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Run one file once and print the peak of this process's memory in bytes
    #[arg(long, hide = true)]
    alone: bool,
}

const EXAMPLES: &str = "\
Examples:
  emo bench a.onnx b.onnx
      how fast b runs beside a
  emo bench a.onnx b.onnx --runtime ort --threads 2
      in ONNX Runtime";

/// Runs of each file before the first that counts: caches fill, buffers are laid out.
const WARM_UP: u32 = 3;
/// Times that a file is made ready; the least counts.
const LOADS: u32 = 3;

/// A file that is ready to run.
struct Entrant {
    name: String,
    nodes: usize,
    session: Box<dyn Session>,
    shapes: Vec<(String, Vec<usize>)>,
    inputs: Vec<ArrayD<f32>>,
    /// From the file's name to a session.
    load: Duration,
    runs: Vec<Duration>,
    /// `None` where the system does not tell.
    peak: Option<u64>,
    unused: Unused,
}

pub fn run(args: &Args) -> Said {
    let files = expand(&args.files)?;
    let sizes = args.sizes.sizes()?;
    let runtime = args.runtime.open(Some(args.threads.into()))?;
    if args.alone {
        let [file] = files.as_slice() else { bail!("--alone: expected one file, found {}", files.len()) };
        let mut entrant = Entrant::ready(file, &sizes, &*runtime)?;
        entrant.run()?;
        return Ok((
            format!("{}\n", peak().map_or_else(String::new, |bytes| bytes.to_string())),
            Outcome::Pass,
        ));
    }
    let progress = Progress::new();
    let mut entrants = Vec::with_capacity(files.len());
    for file in &files {
        progress.step(&format!("loading {}", file.display()));
        let mut entrant = Entrant::ready(file, &sizes, &*runtime)?;
        for _ in 1..LOADS {
            entrant.load = entrant.load.min(Entrant::ready(file, &sizes, &*runtime)?.load);
        }
        entrant.peak = alone(file, args);
        entrants.push(entrant);
    }
    Unused::check(entrants.iter().map(|entrant| &entrant.unused))?;
    for round in 0..WARM_UP + args.rounds {
        progress.step(&format!("round {} of {}", (round + 1).saturating_sub(WARM_UP), args.rounds));
        for entrant in &mut entrants {
            let start = Instant::now();
            entrant.run()?;
            if round >= WARM_UP {
                entrant.runs.push(start.elapsed());
            }
        }
    }
    drop(progress);
    let measured: Vec<Measured> =
        entrants.iter().map(|entrant| Measured::of(entrant, &entrants[0])).collect();
    let text = match args.format {
        Format::Json => to_json(&document(&measured, args, runtime.name()))?,
        Format::Text => text(&measured, args, runtime.name()),
    };
    Ok((text, Outcome::Pass))
}

impl Entrant {
    fn ready(path: &Path, sizes: &Sizes, runtime: &dyn Runtime) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let start = Instant::now();
        let file = open(path)?;
        let shapes = shapes(&file, sizes).with_context(|| name.clone())?;
        let session = runtime.prepare(&file, &shapes, &[]).with_context(|| name.clone())?;
        let load = start.elapsed();
        let array = |(_, shape): &(String, Vec<usize>)| {
            ArrayD::from_shape_vec(shape.clone(), formula::input(shape, 0))
                .context("the formula fills the shape")
        };
        Ok(Self {
            nodes: file.model.graph.as_ref().map_or(0, |graph| graph.node.len()),
            session,
            inputs: shapes.iter().map(array).collect::<anyhow::Result<_>>()?,
            shapes,
            load,
            runs: Vec::new(),
            peak: None,
            unused: Unused::of(sizes, &name, &file.model),
            name,
        })
    }

    /// `input [1, 3, 224, 224]`.
    fn shapes(&self) -> String {
        let shapes = self.shapes.iter().map(|(name, shape)| format!("{name} {shape:?}"));
        shapes.collect::<Vec<_>>().join(", ")
    }

    fn run(&mut self) -> anyhow::Result<()> {
        self.session.run(&self.inputs).with_context(|| self.name.clone())?;
        Ok(())
    }
}

/// The shape of every input; a first axis that neither the file nor the user fixes, the images of a run, is 1. Any
/// other would make the times those of a size that nobody chose.
fn shapes(file: &OnnxFile, sizes: &Sizes) -> anyhow::Result<Vec<(String, Vec<usize>)>> {
    let inference = infer(&file.model, &sizes.bindings(&file.model)?);
    let inputs = Ports::of(&file.model).inputs;
    inputs
        .into_iter()
        .map(|input| {
            let name = input.name.as_str();
            let dims = inference.values.get(name).and_then(|fact| fact.dims.as_ref().ok());
            let dims = dims.with_context(|| {
                format!(
                    "{name}: expected an input of known rank; give its shape by --input {name}=1,3,224,224"
                )
            })?;
            let size = |(axis, dim): (usize, &Expr)| match dim.count() {
                Some(n) => usize::try_from(n).ok(),
                None => (axis == 0).then_some(1),
            };
            let sizes: Vec<Option<usize>> = dims.iter().enumerate().map(size).collect();
            let Some(shape) = sizes.iter().copied().collect() else {
                let extents: Vec<_> = sizes.iter().map(|n| n.unwrap_or(320).to_string()).collect();
                bail!(
                    "{name}: expected sizes of all axes but the first, found {}; give --input {name}={}",
                    inference.values.get(name).map_or_else(String::new, Fact::describe),
                    extents.join(",")
                );
            };
            Ok((name.to_owned(), shape))
        })
        .collect()
}

/// The peak of a process of its own that runs the file once: here it would be everybody's.
fn alone(file: &Path, args: &Args) -> Option<u64> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(["bench", "--alone", "--threads", &args.threads.to_string()]).args(args.runtime.arguments());
    args.sizes.arguments().for_each(|argument| {
        command.arg(argument);
    });
    let output = command.arg("--").arg(file).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Most memory that this process has held, in bytes, where the system tells it as Linux does.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What a file's runs say.
struct Measured<'a> {
    entrant: &'a Entrant,
    median: f64,
    /// How many times as fast as the first: the median over rounds, and their quartiles.
    ratio: [f64; 3],
}

impl<'a> Measured<'a> {
    fn of(entrant: &'a Entrant, first: &Entrant) -> Self {
        let seconds = |run: &Duration| run.as_secs_f64();
        let rounds = first.runs.iter().zip(&entrant.runs);
        let ratios = quartiles(rounds.map(|(first, own)| seconds(first) / seconds(own)).collect());
        let [low, median, high] = ratios;
        Self {
            entrant,
            median: quartiles(entrant.runs.iter().map(seconds).collect())[1],
            ratio: [median, low, high],
        }
    }
}

/// The lower quartile, the median and the upper quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3]
        .map(|quarter| values.get((values.len() * quarter / 4).min(values.len() - 1)).copied().unwrap_or(0.0))
}

fn text(measured: &[Measured], args: &Args, runtime: &str) -> String {
    let header = ["", "nodes", "load ms", "run ms", "× first", "quartiles", "peak MB"];
    let rows = measured.iter().map(|Measured { entrant, median, ratio: [ratio, low, high] }| {
        vec![
            entrant.name.clone(),
            entrant.nodes.to_string(),
            format!("{:.1}", entrant.load.as_secs_f64() * 1e3),
            format!("{:.2}", median * 1e3),
            format!("{ratio:.2}"),
            format!("{low:.2}–{high:.2}"),
            entrant.peak.map_or("?".to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1e6)),
        ]
    });
    let (rounds, threads) = (args.rounds, counted(args.threads.into(), "thread"));
    let mut shapes: Vec<String> = measured.iter().map(|file| file.entrant.shapes()).collect();
    shapes.dedup();
    let shapes = shapes.join("; ");
    format!(
        "{runtime}, {threads}, {shapes}, median of {rounds} rounds in turn; × first is how many times as fast\n\n{}",
        table(&header, rows)
    )
}

fn document(measured: &[Measured], args: &Args, runtime: &str) -> Value {
    let port = |(name, shape): &(String, Vec<usize>)| json!({ "name": name, "shape": shape });
    let file = |Measured { entrant, median, ratio: [ratio, low, high] }: &Measured| {
        json!({
            "file": entrant.name,
            "nodes": entrant.nodes,
            "inputs": entrant.shapes.iter().map(port).collect::<Vec<_>>(),
            "load_ms": entrant.load.as_secs_f64() * 1e3,
            "run_ms": median * 1e3,
            "ratio": ratio,
            "ratio_quartiles": [low, high],
            "peak_bytes": entrant.peak,
        })
    };
    json!({
        "schema": "emo.bench/1",
        "runtime": runtime,
        "threads": args.threads,
        "rounds": args.rounds,
        "files": measured.iter().map(file).collect::<Vec<_>>(),
    })
}
