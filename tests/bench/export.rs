//! How long `emo export emo-5m` takes and how much memory, as whole processes.
//!
//! `cargo bench -p emo-tests` writes the checkpoints itself; every command runs several
//! times in turn, medians are printed, and each time also as a ratio to copying the
//! checkpoint, which is the least that any exporter does.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use emo_exporter::models::Model;
use emo_exporter::weights::formula;
use emo_tests::safetensors;
use emo_tests::torch_save::{Checkpoint, Dtype};
use wait4::Wait4 as _;

const EMO: &str = env!("CARGO_BIN_EXE_emo-under-test");
const WRITE: &str = "--write-checkpoints";
const ROUNDS: usize = 9;

struct Case {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    checkpoint: &'static str,
}

const CASES: [Case; 6] = [
    Case {
        name: "copy",
        program: "cp",
        arguments: &["emo.safetensors", "copy"],
        checkpoint: "emo.safetensors",
    },
    emo(
        "safetensors",
        "emo.safetensors",
        &["export", "emo-5m", "--no-verify", "--weights", "emo.safetensors"],
    ),
    emo("pth", "emo.pth", &["export", "emo-5m", "--no-verify", "--weights", "emo.pth"]),
    emo("legacy pth", "legacy.pth", &["export", "emo-5m", "--no-verify", "--weights", "legacy.pth"]),
    emo("safetensors, verified", "emo.safetensors", &["export", "emo-5m", "--weights", "emo.safetensors"]),
    emo("pth, verified", "emo.pth", &["export", "emo-5m", "--weights", "emo.pth"]),
];

const fn emo(name: &'static str, checkpoint: &'static str, arguments: &'static [&'static str]) -> Case {
    Case { name, program: EMO, arguments, checkpoint }
}

/// Wall time in milliseconds and peak resident memory in bytes.
fn measure(case: &Case, folder: &Path) -> (f64, u64) {
    let start = Instant::now();
    let mut command = Command::new(case.program);
    command.args(case.arguments).current_dir(folder).stdout(Stdio::null());
    let used = command.spawn().and_then(|mut child| child.wait4()).expect(case.name);
    assert!(used.status.success(), "{} failed", case.name);
    (start.elapsed().as_secs_f64() * 1e3, used.rusage.maxrss)
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    values[values.len() / 2]
}

fn write_checkpoints(folder: &Path) {
    let parameters = Model::named("emo-5m").expect("a model").parameters();
    let tensors =
        || parameters.iter().map(|p| (p.name.as_str(), &p.shape[..], formula::tensor(&p.name, &p.shape, 0)));
    let checkpoint = Checkpoint::state_dict(Dtype::F32, tensors());
    for (name, bytes) in [
        ("emo.safetensors", safetensors::write(Dtype::F32, tensors())),
        ("emo.pth", checkpoint.zip()),
        ("legacy.pth", checkpoint.legacy()),
    ] {
        std::fs::write(folder.join(name), bytes).expect("a file");
    }
}

fn main() {
    let mut arguments = std::env::args().skip_while(|a| a != WRITE).skip(1);
    if let Some(folder) = arguments.next() {
        return write_checkpoints(folder.as_ref());
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    // In a process of its own: the kernel counts a parent's peak memory as its children's.
    let itself = std::env::current_exe().expect("the path of this program");
    let written = Command::new(itself).arg(WRITE).arg(folder.path()).status().expect("this program runs");
    assert!(written.success(), "no checkpoints");

    let mut runs: Vec<Vec<(f64, u64)>> = vec![Vec::new(); CASES.len()];
    for _ in 0..ROUNDS {
        for (case, runs) in CASES.iter().zip(&mut runs) {
            runs.push(measure(case, folder.path()));
        }
    }
    let times: Vec<f64> = runs.iter().map(|runs| median(runs.iter().map(|r| r.0).collect())).collect();
    println!("emo export emo-5m, whole process, median of {ROUNDS} rounds in turn\n");
    println!("{:24} {:>9} {:>9} {:>10} {:>10}", "from", "ms", "× copy", "MB", "× file");
    for ((case, runs), time) in CASES.iter().zip(&runs).zip(&times) {
        let memory = median(runs.iter().map(|r| r.1).collect());
        let size = std::fs::metadata(folder.path().join(case.checkpoint)).expect("a file").len();
        let (mb, share) = (memory as f64 / 1e6, memory as f64 / size as f64);
        println!("{:24} {time:>9.1} {:>9.1} {mb:>10.1} {share:>10.2}", case.name, time / times[0]);
    }
}
