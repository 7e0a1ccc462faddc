//! Races our profiles against other toolchains' files in tract.
//!
//! `cargo bench -p emo-tests --bench tract_race [-- [MODEL] [FILE.onnx]…]`, files such as
//! `tests/bench/race/forms.rs` writes. One thread, float32, batch 1, untrained weights on all
//! sides, every file readied as the verifier readies any: its shape arithmetic computed, its
//! batch made concrete. In a race every file runs once in turn, so that a busy machine slows
//! all alike; it is timed by the processor's clock. The others' files of a detector or a segmenter are those that
//! `race.py --variant MODEL` writes. Ratios are to the fastest of the others' files, to `reference` where there are
//! none. Printed are the median over the races of the ratio of medians, its spread, and the
//! ratio of the shortest runs of all.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::path::{Path, PathBuf};

use cpu_time::ProcessTime;
use emo_exporter::models::{MODELS, Model, Task};
use emo_exporter::profile::Profile;
use emo_exporter::weights::{Spec, formula};
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_tests::{RIGHT_THIRD_PARTY, fixture};
use emo_verifier::compare::{FLOAT32, FLOAT32_DEEP, compare};
use emo_verifier::runtime::{Runtime, Session, Tract};
use ndarray::ArrayD;

const PROFILES: [&str; 4] = ["reference", "portable", "ort-cpu", "tract"];
const RACES: usize = 5;
/// Of classifiers, and of what takes ten times as long.
const ROUNDS: [usize; 2] = [30, 3];

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
    fn new(model: &Model, name: &str, strange: bool, file: &OnnxFile) -> Self {
        let shapes = [("input".to_owned(), shape(model).to_vec())];
        // All of them: none named is the first alone.
        let outputs = file.model.graph.iter().flat_map(|graph| &graph.output);
        let outputs: Vec<String> = outputs.map(|output| output.name().to_owned()).collect();
        let start = ProcessTime::now();
        let session = Tract.prepare(file, &shapes, &outputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        let ready_ms = start.elapsed().as_secs_f64() * 1e3;
        Self { name: name.to_owned(), strange, session, ready_ms, races: Vec::new() }
    }

    fn written(model: &Model, path: &Path, strange: bool) -> Self {
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let file = emo_proto::file::open(path).unwrap_or_else(|e| panic!("{e}"));
        Self::new(model, &name, strange, &file)
    }

    fn exported(model: &Model, profile: &str) -> Self {
        let profile = Profile::named(profile).expect("a profile");
        let export = emo_exporter::export(model, &model.target(profile), &Spec::Formula(0));
        let bytes = export.unwrap_or_else(|e| panic!("{e}")).bytes;
        let file = OnnxFile::from_bytes(bytes.into(), External::none()).expect("a file of ours");
        Self::new(model, profile.name, false, &file)
    }

    fn run(&mut self, image: &[ArrayD<f32>]) -> (f64, Vec<ArrayD<f32>>) {
        let start = ProcessTime::now();
        let outputs = self.session.run(image).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        (start.elapsed().as_secs_f64() * 1e3, outputs)
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

fn shape(model: &Model) -> [usize; 4] {
    let (height, width) = model.published_size();
    [1, 3, height, width]
}

fn is_dense(model: &Model) -> bool {
    model.task() != Task::Classify
}

/// Other toolchains' float32 files of EMO-1M, and of a dense model those that the other race has written.
fn others(model: &Model) -> Vec<PathBuf> {
    let files = RIGHT_THIRD_PARTY.iter().filter(|name| !name.ends_with("fp16"));
    match (&*model.name, is_dense(model)) {
        ("emo-1m", _) => files.map(|name| fixture(&format!("third_party/{name}.onnx"))).collect(),
        (_, false) => Vec::new(),
        (name, true) => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/race/peers").join(name);
            let why = format!("race.py --variant {name} writes {}", folder.display());
            let files = folder.read_dir().unwrap_or_else(|error| panic!("{error}: {why}"));
            let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
            files.sort();
            files
        }
    }
}

/// The profiles, the files of the command line, and the others'.
fn racers(model: &Model, files: &[PathBuf]) -> Vec<Racer> {
    let mut racers: Vec<Racer> = PROFILES.iter().map(|profile| Racer::exported(model, profile)).collect();
    racers.extend(files.iter().map(|path| Racer::written(model, path, false)));
    racers.extend(others(model).iter().map(|path| Racer::written(model, path, true)));
    racers
}

/// Every output of a racer is the first's.
fn agree(model: &Model, racer: &mut Racer, image: &[ArrayD<f32>], truths: &[ArrayD<f32>]) {
    let tolerance = if is_dense(model) { &FLOAT32_DEEP } else { &FLOAT32 };
    let (_, outputs) = racer.run(image);
    assert_eq!(outputs.len(), truths.len(), "{}", racer.name);
    for (output, truth) in outputs.iter().zip(truths) {
        assert_eq!(output.shape(), truth.shape(), "{}", racer.name);
        let [found, expected] = [output, truth].map(|values| values.iter().copied().collect::<Vec<f32>>());
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        let difference = compare(&found, &expected).expect("as many values");
        assert!(tolerance.admits(&difference), "{}: {difference:?}", racer.name);
    }
}

fn main() {
    // Cargo passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let named = arguments.first().and_then(|name| Model::named(name));
    let files: Vec<PathBuf> = arguments[usize::from(named.is_some())..].iter().map(PathBuf::from).collect();
    let model = named.unwrap_or(&MODELS[0]);
    let mut racers = racers(model, &files);

    let shape = shape(model);
    let image = ArrayD::from_shape_vec(shape.to_vec(), formula::input(&shape, 0)).expect("the shape fits");
    let image = [image];
    let (_, truths) = racers[0].run(&image);
    racers.iter_mut().for_each(|racer| agree(model, racer, &image, &truths));
    for _ in 0..RACES {
        racers.iter_mut().for_each(|racer| racer.races.push(Vec::new()));
        for _ in 0..ROUNDS[usize::from(is_dense(model))] {
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
    println!("tract, {}, one thread, {RACES} races, ratios to {to}\n", model.title);
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
