//! Races our profiles against other toolchains' EMO-1M in tract.
//!
//! `cargo bench -p emo-tests --bench tract_race [-- [MODEL] [FILE.onnx]…]`, files such as
//! `tests/bench/race/forms.rs` writes. One thread, float32, batch 1, untrained weights on all
//! sides, every file readied as the verifier readies any: its shape arithmetic computed, its
//! batch made concrete. In a race every file runs once in turn, so that a busy machine slows
//! all alike; ratios are to the fastest of the others' files, to `reference` where there are
//! none. Printed are the median over the races of the ratio of medians, its spread, and the
//! ratio of the shortest runs of all.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use emo_exporter::models::{MODELS, Model};
use emo_exporter::profile::Profile;
use emo_exporter::target::Target;
use emo_exporter::weights::{Spec, formula};
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_tests::{RIGHT_THIRD_PARTY, fixture};
use emo_verifier::compare::{FLOAT32, compare};
use emo_verifier::runtime::{Runtime, Session, Tract};
use ndarray::ArrayD;

const PROFILES: [&str; 4] = ["reference", "portable", "ort-cpu", "tract"];
const SIDE: usize = 224;
const RACES: usize = 5;
const ROUNDS: usize = 30;

struct Racer {
    name: String,
    /// Whether another toolchain wrote it.
    strange: bool,
    session: Box<dyn Session>,
    ready_ms: f64,
    /// Milliseconds of each run, a list a race.
    races: Vec<Vec<f64>>,
}

impl Racer {
    fn new(name: &str, strange: bool, file: &OnnxFile) -> Self {
        let shapes = [("input".to_owned(), vec![1, 3, SIDE, SIDE])];
        let start = Instant::now();
        let session = Tract.prepare(file, &shapes, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
        let ready_ms = start.elapsed().as_secs_f64() * 1e3;
        Self { name: name.to_owned(), strange, session, ready_ms, races: Vec::new() }
    }

    fn written(path: &Path, strange: bool) -> Self {
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let file = emo_proto::file::open(path).unwrap_or_else(|e| panic!("{e}"));
        Self::new(&name, strange, &file)
    }

    fn exported(model: &Model, profile: &str) -> Self {
        let profile = Profile::named(profile).expect("a profile");
        let export = emo_exporter::export(model, &Target::new(profile), &Spec::Formula(0));
        let bytes = export.unwrap_or_else(|e| panic!("{e}")).bytes;
        let file = OnnxFile::from_bytes(bytes.into(), External::none()).expect("a file of ours");
        Self::new(profile.name, false, &file)
    }

    fn run(&mut self, image: &[ArrayD<f32>]) -> (f64, Vec<f32>) {
        let start = Instant::now();
        let logits = self.session.run(image).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        (start.elapsed().as_secs_f64() * 1e3, logits[0].iter().copied().collect())
    }

    fn medians(&self) -> Vec<f64> {
        self.races.iter().cloned().map(median).collect()
    }

    fn shortest(&self) -> f64 {
        self.races.iter().flatten().copied().fold(f64::INFINITY, f64::min)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The files of the command line, or the profiles; for EMO-1M the others' float32 files too.
fn racers(model: &Model, files: &[PathBuf]) -> Vec<Racer> {
    let mut racers: Vec<Racer> = PROFILES.iter().map(|profile| Racer::exported(model, profile)).collect();
    racers.extend(files.iter().map(|path| Racer::written(path, false)));
    if model.name == "emo-1m" {
        let files = RIGHT_THIRD_PARTY.iter().filter(|name| !name.ends_with("fp16"));
        let paths = files.map(|name| fixture(&format!("third_party/{name}.onnx")));
        racers.extend(paths.map(|path| Racer::written(&path, true)));
    }
    racers
}

fn main() {
    // Cargo passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let named = arguments.first().and_then(|name| Model::named(name));
    let files: Vec<PathBuf> = arguments[usize::from(named.is_some())..].iter().map(PathBuf::from).collect();
    let model = named.unwrap_or(&MODELS[0]);
    let mut racers = racers(model, &files);

    let shape = [1, 3, SIDE, SIDE];
    let image = ArrayD::from_shape_vec(shape.to_vec(), formula::input(&shape, 0)).expect("the shape fits");
    let image = [image];
    let truth: Vec<f64> = racers[0].run(&image).1.into_iter().map(f64::from).collect();
    for racer in &mut racers {
        let difference = compare(&racer.run(&image).1, &truth).expect("as many logits");
        assert!(FLOAT32.admits(&difference), "{}: {difference:?}", racer.name);
    }
    for _ in 0..RACES {
        racers.iter_mut().for_each(|racer| racer.races.push(Vec::new()));
        for _ in 0..ROUNDS {
            for racer in &mut racers {
                let (ms, _) = racer.run(&image);
                racer.races.last_mut().expect("pushed above").push(ms);
            }
        }
    }
    print(model, &racers);
}

fn print(model: &Model, racers: &[Racer]) {
    let strange = racers.iter().any(|racer| racer.strange);
    let field =
        || racers.iter().filter(|racer| if strange { racer.strange } else { racer.name == PROFILES[0] });
    let fastest = |race: usize| field().map(|racer| racer.medians()[race]).fold(f64::INFINITY, f64::min);
    let shortest = field().map(Racer::shortest).fold(f64::INFINITY, f64::min);
    let to = if strange { "fastest other" } else { PROFILES[0] };
    println!("tract, {}, one thread, {RACES} races of {ROUNDS} rounds, ratios to {to}\n", model.title);
    println!("{:32} {:>8} {:>8} {:>12} {:>8} {:>9}", "file", "ms", "ratio", "spread", "by min", "ready ms");
    for racer in racers {
        let mut ratios: Vec<f64> =
            racer.medians().iter().enumerate().map(|(race, ms)| fastest(race) / ms).collect();
        ratios.sort_by(f64::total_cmp);
        let spread = format!("{:.2}–{:.2}", ratios[0], ratios[RACES - 1]);
        println!(
            "{:32} {:>8.2} {:>8.2} {spread:>12} {:>8.2} {:>9.0}",
            racer.name,
            median(racer.medians()),
            ratios[RACES / 2],
            shortest / racer.shortest(),
            racer.ready_ms,
        );
    }
}
