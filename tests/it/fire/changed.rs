//! Files that others change while a command reads them: what is said is true of one state of the file, or it is an
//! error.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use emo_proto::file;
use emo_zoo::manifest::facts::sha256;
use serde_json::Value;
use tempfile::TempDir;

use super::{REQUESTS, emo, ground, orderly, rounds};
use crate::command::EMO;

/// What is done to a file.
type Change = (&'static str, fn(&Path));

/// All of them in place but the last two.
const CHANGES: [Change; 6] = [
    ("cut to nothing", |path| set_length(path, 0)),
    ("cut in half", |path| set_length(path, fs::metadata(path).unwrap().len() / 2)),
    ("grown", |path| {
        File::options().append(true).open(path).unwrap().write_all(&[0; 4096]).unwrap();
    }),
    ("written over", |path| {
        let half = fs::metadata(path).unwrap().len() / 2;
        File::options().write(true).open(path).unwrap().write_all_at(&[0x55; 4096], half).unwrap();
    }),
    ("replaced", |path| {
        let other = path.with_extension("new");
        fs::copy(path.with_file_name("other.onnx"), &other).unwrap();
        fs::rename(other, path).unwrap();
    }),
    ("deleted", |path| fs::remove_file(path).unwrap()),
];

fn set_length(path: &Path, bytes: u64) {
    File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

/// Runs a request, and changes the file that it reads after a while.
fn disturbed(folder: &Path, request: &[&str], wait: Duration, change: fn(&Path)) -> Output {
    let mut command = Command::new(EMO);
    command.args(request).current_dir(folder).env_remove("RUST_BACKTRACE");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(wait);
    change(&folder.join("subject.onnx"));
    child.wait_with_output().unwrap()
}

/// The state of a request's folder is as it was before.
fn restore(folder: &Path, whole: &[u8]) {
    let path = folder.join("subject.onnx");
    let _ = fs::remove_file(&path);
    fs::write(path, whole).unwrap();
    for made in ["added", "built"] {
        let _ = fs::remove_dir_all(folder.join(made));
    }
}

#[test]
fn a_file_that_changes_is_one_state_or_an_error() {
    let folder = ground();
    let folder = folder.path();
    let whole = fs::read(folder.join("subject.onnx")).unwrap();
    let rounds = rounds(3, 100);
    let reading = REQUESTS.into_iter().filter(|request| request.contains(&"subject.onnx"));
    for request in reading {
        restore(folder, &whole);
        let begin = Instant::now();
        let before = disturbed(folder, request, Duration::ZERO, |_| {});
        let takes = begin.elapsed();
        for (what, change) in CHANGES {
            restore(folder, &whole);
            change(&folder.join("subject.onnx"));
            let after = disturbed(folder, request, Duration::ZERO, |_| {});
            for round in 0..rounds {
                restore(folder, &whole);
                // A file that has just been written is waited for.
                let wait = takes.mul_f64((round as f64 + 0.5) / rounds as f64);
                let output = disturbed(folder, request, wait, change);
                let what = format!("{request:?}, {what} after {wait:?} of {takes:?}");
                let code = orderly(&output, &what);
                let said = String::from_utf8_lossy(&output.stderr);
                let state = |known: &Output| known.status == output.status && known.stdout == output.stdout;
                if code == 2 {
                    assert!(
                        said.contains("subject.onnx: ") || state(&before) || state(&after),
                        "{what}: {said}"
                    );
                } else if request[0] != "bench" {
                    assert!(state(&before) || state(&after), "{what}: {said}");
                }
            }
        }
    }
}

/// The page of a map that is gone, without a race: this test runs itself, and the second one loses the page.
#[test]
fn a_page_that_is_gone_is_an_error() {
    const PLACE: &str = "EMO_LOSES_A_PAGE_OF";
    if let Some(path) = std::env::var_os(PLACE) {
        let path = PathBuf::from(path);
        let map = file::map(&path).unwrap();
        set_length(&path, 1);
        let sum: u64 = map.iter().map(|byte| u64::from(*byte)).sum();
        panic!("expected no byte behind the end, found a sum of {sum}");
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a\x1bb.onnx");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    let name = "fire::changed::a_page_that_is_gone_is_an_error";
    let mut own = Command::new(std::env::current_exe().unwrap());
    let output = own.args([name, "--exact", "--nocapture"]).env(PLACE, &path).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("a\\u{1b}b.onnx: expected a file that nobody writes to"), "{stderr}");
}

/// Whatever was done to a map, who asks is told; who copies has what was there, or an error.
#[test]
fn a_map_tells_that_its_file_changed() {
    for (what, change) in CHANGES {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("subject.onnx");
        fs::write(&path, vec![7; 1 << 16]).unwrap();
        fs::write(path.with_file_name("other.onnx"), vec![8; 1 << 16]).unwrap();
        let source = file::Source::open(&path).unwrap();
        let copy = file::read(&path, 1 << 20).unwrap();
        source.settled().unwrap();
        assert_eq!(source.read(3..5).unwrap(), [7, 7][..]);
        change(&path);
        assert!(copy.iter().all(|byte| *byte == 7), "{what}");
        let error = source.settled().unwrap_err().to_string();
        assert!(error.contains("subject.onnx: expected a file that nobody writes to"), "{what}: {error}");
    }
}

/// What is judged is what is stored: a right file and a wrong one of the same length take turns in place, and
/// whatever was taken in is right.
#[test]
fn what_is_added_is_what_was_judged() {
    let folder = ground();
    let path = folder.path().join("subject.onnx");
    let right = fs::read(&path).unwrap();
    // Other weights than those that it is said to hold.
    let other = ["export", "emo-1m", "--weights", "formula:1", "--no-verify", "--out", "wrong.onnx"];
    assert_eq!(emo(&folder, &other).0, 0);
    let wrong = fs::read(folder.path().join("wrong.onnx")).unwrap();
    assert_eq!(wrong.len(), right.len());
    assert_eq!(emo(&folder, &["zoo", "add", "other", "wrong.onnx", "--weights", "formula:0"]).0, 1);
    let done = AtomicBool::new(false);
    let mut taken = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&path).unwrap();
            while !done.load(Ordering::Relaxed) {
                for bytes in [&wrong, &right] {
                    file.write_all_at(bytes, 0).unwrap();
                    thread::sleep(Duration::from_millis(40));
                }
            }
        });
        let rounds = rounds(6, 100);
        // The right one is there for as long as the wrong one.
        for round in 0.. {
            if round >= rounds && taken > 0 {
                break;
            }
            assert!(round < 10 * rounds, "expected a file that is taken in, found none");
            let request = ["zoo", "add", "store", "subject.onnx", "--weights", "formula:0"];
            let (code, ..) = emo(&folder, &request);
            let store = folder.path().join("store");
            if code == 0 {
                taken += 1;
                let entry = stored(&store);
                let bytes = fs::read(store.join(entry["model_path"].as_str().unwrap())).unwrap();
                assert_eq!(entry["metadata"]["model_sha"], sha256(&bytes));
                assert!(bytes == right, "a file was judged, and another one stored");
                assert_eq!(emo(&folder, &["zoo", "check", "store"]).0, 0);
            }
            let _ = fs::remove_dir_all(store);
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn stored(store: &Path) -> Value {
    let mut text = String::new();
    File::open(store.join("manifest.json")).unwrap().read_to_string(&mut text).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// An export that is killed at any moment leaves the old file or the new one, and nothing else.
#[test]
fn a_killed_export_leaves_one_file() {
    let folder = TempDir::new().unwrap();
    let export = |seed: &str| {
        let mut command = Command::new(EMO);
        command.args(["export", "emo-1m", "--no-verify", "--weights", seed, "--out", "made.onnx"]);
        command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let path = folder.path().join("made.onnx");
    let mut states = Vec::new();
    let mut takes = Duration::ZERO;
    for seed in ["formula:0", "formula:1"] {
        let begin = Instant::now();
        assert!(export(seed).status().unwrap().success());
        takes = begin.elapsed();
        states.push(fs::read(&path).unwrap());
    }
    for turn in 0..rounds(20, 200) {
        let mut child = export(["formula:0", "formula:1"][turn % 2]).spawn().unwrap();
        thread::sleep(takes.mul_f64(0.5 + (turn % 20) as f64 / 30.0));
        child.kill().unwrap();
        child.wait().unwrap();
        let there: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(there, ["made.onnx"], "killed in turn {turn}");
        assert!(states.contains(&fs::read(&path).unwrap()));
    }
}
