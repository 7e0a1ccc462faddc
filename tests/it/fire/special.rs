//! Pipes and devices where a file is expected: refused at once, whoever names them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::ground;
use crate::command::EMO;

/// Requests that name a file called `it`.
const REQUESTS: [&[&str]; 21] = [
    &["export", "emo-1m", "--weights", "it"],
    &["export", "emo-1m", "--out", "it"],
    &["verify", "it"],
    &["verify", "subject.onnx", "--weights", "it"],
    &["verify", "subject.onnx", "--against", "it"],
    &["verify", "subject.onnx", "--image", "it"],
    &["verify", "subject.onnx", "--data", "it"],
    &["audit", "it"],
    &["audit", "subject.onnx", "--budget", "it"],
    &["audit", "subject.onnx", "--write-budget", "it"],
    &["audit", "subject.onnx", "--plot", "it"],
    &["check", "it"],
    &["lint", "it", "--target", "coreml"],
    &["diff", "it", "subject.onnx"],
    &["dump", "it"],
    &["bench", "it"],
    &["zoo", "add", "zoo", "it"],
    &["zoo", "add", "zoo", "other.onnx", "--weights", "it"],
    &["zoo", "diff", "it", "zoo"],
    &["zoo", "check", "it"],
    &["zoo", "list", "it"],
];

/// Exit code and words of a request that ends soon.
fn soon(folder: &Path, request: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(EMO)
        .args(request)
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{request:?} waits");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn pipes_and_devices_are_refused() {
    for kind in ["pipe", "device"] {
        let folder = ground();
        let it = folder.path().join("it");
        match kind {
            "pipe" => pipe(&it),
            _ => std::os::unix::fs::symlink("/dev/zero", &it).unwrap(),
        }
        for request in REQUESTS {
            let (code, said) = soon(folder.path(), request);
            assert_eq!(code, Some(2), "{request:?} of a {kind}: {said}");
            assert!(said.contains("it"), "{request:?} of a {kind}: {said}");
        }
    }
    // By its ending, a file is what NumPy or a camera wrote.
    for name in ["it.npy", "it.npz", "it.png", "it.jpg"] {
        let folder = ground();
        pipe(&folder.path().join(name));
        let (code, said) = soon(folder.path(), &["verify", "subject.onnx", "--data", name]);
        assert_eq!(code, Some(2), "{name}: {said}");
        assert!(said.contains("expected a regular file, found a device or a pipe"), "{name}: {said}");
    }
}

/// Inside a folder of releases: its lock, its manifest, its files.
#[test]
fn a_zoo_of_pipes_stops_nobody() {
    for (name, request) in [
        (".emo-zoo.lock", &["zoo", "build", "--out", "zoo", "--models", "emo-1m"][..]),
        (".emo-zoo.lock", &["zoo", "add", "zoo", "other.onnx"]),
        ("manifest.json", &["zoo", "list", "zoo"]),
        ("manifest.json", &["zoo", "build", "--out", "zoo", "--models", "emo-1m"]),
        ("emo-1m/emo-1m_tract_opset17_formula-0.onnx", &["zoo", "check", "zoo"]),
    ] {
        let folder = ground();
        let place = folder.path().join("zoo").join(name);
        let _ = fs::remove_file(&place);
        pipe(&place);
        let (code, said) = soon(folder.path(), request);
        assert_eq!(code, Some(2), "{request:?}, {name}: {said}");
        assert!(said.contains("expected a regular file, found a device or a pipe"), "{request:?}: {said}");
    }
}
