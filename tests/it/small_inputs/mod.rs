//! Small files that would take much memory or time: whoever refuses one, or counts it, does so in little.

mod files;
mod models;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::command::EMO;
use files::*;

/// Address space that a command gets, in units of 1024 bytes: the program itself takes a third of it.
const MEMORY: u32 = 300_000;
const SOON: Duration = Duration::from_secs(20);
/// Bytes that a report has at most, whatever names are in it.
const LONGEST_REPORT: usize = 8 << 20;

/// A request, how it may end, and what it says.
type Row<'a> = (&'a [&'a str], &'a [i32], &'a str);

const AGAINST: [&str; 4] = ["verify", "identity.onnx", "--against", "identity.onnx"];
const CORE_ML: [&str; 2] = ["--profile", "coreml"];

/// What is done with a model, but for running it.
const READERS: [&[&str]; 6] =
    [&["audit"], &["check"], &["dump"], &["diff", "."], &["lint", CORE_ML[0], CORE_ML[1]], &["verify"]];

/// Runs the request in `folder` with little memory: it ends soon, with one of the codes, and says `words`.
fn holds(folder: &TempDir, (arguments, codes, words): Row) {
    let start = Instant::now();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\""), EMO]).args(arguments);
    // A thread's own heap is address space that nobody fills.
    shell.current_dir(folder.path()).env("MALLOC_ARENA_MAX", "1").env("RAYON_NUM_THREADS", "2");
    let output = shell.output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let code = output.status.code();
    assert!(code.is_some_and(|code| codes.contains(&code)), "{arguments:?}: {:?}: {stderr}", output.status);
    assert!(start.elapsed() < SOON, "{arguments:?} took {:?}", start.elapsed());
    let longest = if arguments[0] == "dump" { usize::MAX } else { LONGEST_REPORT };
    assert!(stdout.len() + stderr.len() <= longest, "{arguments:?}: {} bytes", stdout.len());
    assert!(stdout.contains(words) || stderr.contains(words), "{arguments:?}: {stdout}{stderr}");
}

/// Every reader on each of the files.
fn read(folder: &TempDir, files: &[&str], codes: &[i32]) {
    for file in files {
        for reader in READERS {
            let mut arguments = reader.to_vec();
            arguments.insert(1, file);
            // Both sides of a difference.
            arguments.iter_mut().filter(|word| **word == ".").for_each(|word| *word = file);
            holds(folder, (&arguments, codes, ""));
        }
    }
}

fn folder(files: Vec<(&str, Vec<u8>)>) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

#[cfg(target_os = "linux")]
#[test]
fn models_that_come_to_much_take_little() {
    let folder = folder(vec![
        ("doubling20.onnx", doubling(20)),
        ("doubling60.onnx", doubling(60)),
        ("giants.onnx", giants()),
        ("nodes.onnx", empties(&field(1, b""))),
        ("tensors.onnx", empties(&field(5, b""))),
        ("attributes.onnx", field(7, &field(1, &field(5, b"").repeat(4_000_000)))),
        ("overlapping.onnx", models::overlapping()),
        ("megabyte.bin", vec![0; 1 << 20]),
        ("branching.onnx", models::branching()),
        ("axes.onnx", models::axes()),
        ("overflowing.onnx", models::overflowing()),
        ("calls.onnx", models::calls()),
        ("parts.onnx", models::parts()),
        ("long.onnx", models::long()),
    ]);
    read(&folder, &["doubling20.onnx", "doubling60.onnx", "giants.onnx"], &[0, 1, 2, 3]);
    read(&folder, &["branching.onnx", "axes.onnx", "overflowing.onnx"], &[0, 1, 3]);
    read(&folder, &["parts.onnx", "long.onnx"], &[0, 1, 3]);
    for command in ["audit", "check", "verify"] {
        holds(&folder, (&[command, "calls.onnx"], &[0, 1, 3], ""));
    }
    read(&folder, &["nodes.onnx", "tensors.onnx", "attributes.onnx", "overlapping.onnx"], &[2]);
    holds(&folder, (&["audit", "long.onnx", "--by", "node"], &[3], "nn…nn"));
    holds(&folder, (&["check", "overlapping.onnx"], &[2], "419430400 bytes of tensors in a file of 1048576"));
}

#[cfg(target_os = "linux")]
#[test]
fn graphs_that_are_too_large_are_not_run() {
    let large = models::unrunnable();
    let names: Vec<&str> = large.iter().map(|(name, _)| *name).collect();
    let folder = folder(large);
    for name in names {
        for runtime in ["tract", "f64"] {
            let arguments = ["verify", name, "--against", name, "--runtime", runtime];
            holds(&folder, (&arguments, &[2, 3], "too large to run here"));
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn archives_pickles_and_pictures_take_little() {
    let folder = folder(vec![
        ("identity.onnx", identity()),
        ("pickle.pth", pickle()),
        ("packed.pth", archive("archive/data.pkl", &pickle())),
        ("names.safetensors", names(40_000)),
        ("many.safetensors", names(300_000)),
        ("profile.png", profiled()),
        ("zeros.npz", zeros()),
        ("bytes.npy", codes()),
        ("zoo/manifest.json", objects()),
    ]);
    for (file, words) in [
        ("pickle.pth", ""),
        ("packed.pth", ""),
        // Lines of their own.
        ("names.safetensors", "40000 unexpected, 0 misshapen\n  missing: stage0"),
        ("many.safetensors", "a safetensors file whose header has 4194304 bytes at most"),
    ] {
        holds(&folder, (&["export", "emo-1m", "--weights", file], &[2], words));
    }
    for (file, code, words) in [
        ("profile.png", 0, "pass"),
        ("zeros.npz", 2, ""),
        ("bytes.npy", 2, "x: expected FLOAT [1, 3, 32, 32], found [1, 3, 2000, 2000]"),
    ] {
        holds(&folder, (&[&AGAINST[..], &["--data", file]].concat(), &[code], words));
    }
    for command in ["check", "list"] {
        holds(&folder, (&["zoo", command, "zoo"], &[2], "mostly empty values"));
    }
}
