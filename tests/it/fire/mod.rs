//! The command under fire: files that change, resources that are taken away, names that are weapons.
#![cfg(unix)]

mod changed;
mod denied;
mod names;
mod special;

use std::path::Path;
use std::process::{Command, Output};

use emo_zoo::cli::commands;
use tempfile::TempDir;

use crate::command::{EMO, emo};

/// Rounds of what depends on the moment: many with `EMO_THOROUGH=1`.
fn rounds(few: usize, many: usize) -> usize {
    if std::env::var("EMO_THOROUGH").is_ok_and(|v| v == "1") { many } else { few }
}

/// Every subcommand with arguments that it takes, `subject.onnx` among the files where it takes any.
const REQUESTS: [&[&str]; 18] = [
    &["list"],
    &["show", "emo-1m"],
    &["export", "emo-1m", "--out", "made.onnx"],
    &["verify", "subject.onnx"],
    &["audit", "subject.onnx"],
    &["check", "subject.onnx"],
    &["lint", "subject.onnx", "--target", "coreml"],
    &["targets"],
    &["diff", "other.onnx", "subject.onnx"],
    &["dump", "subject.onnx"],
    &["bench", "subject.onnx", "--rounds", "3"],
    &["zoo", "build", "--models", "emo-1m", "--targets", "tract", "--opsets", "17", "--out", "built"],
    &["zoo", "check", "zoo"],
    &["zoo", "list", "zoo"],
    &["zoo", "show", "zoo", "emo-1m"],
    &["zoo", "diff", "zoo", "zoo"],
    &["zoo", "add", "added", "subject.onnx"],
    &["zoo", "card", "zoo", "emo-1m"],
];

/// What the parser knows is what is tested: a new subcommand needs a row.
#[test]
fn every_subcommand_is_under_fire() {
    let names = |command: &clap::Command| {
        command.get_subcommands().map(|c| c.get_name().to_owned()).collect::<Vec<_>>()
    };
    let all = commands();
    let mut known = Vec::new();
    for command in all.get_subcommands() {
        match names(command) {
            inner if inner.is_empty() => known.push(vec![command.get_name().to_owned()]),
            inner => known.extend(inner.into_iter().map(|name| vec![command.get_name().to_owned(), name])),
        }
    }
    let tested: Vec<Vec<String>> = REQUESTS
        .iter()
        .map(|request| request.iter().take(if request[0] == "zoo" { 2 } else { 1 }))
        .map(|words| words.map(|word| (*word).to_owned()).collect())
        .collect();
    assert_eq!(tested, known);
}

/// A folder with what the requests name.
fn ground() -> TempDir {
    let folder = crate::zoo::built();
    let file = |path: &str| folder.path().join(path);
    std::fs::copy(file("zoo/emo-1m/emo-1m_portable_opset17_formula-0.onnx"), file("subject.onnx")).unwrap();
    std::fs::copy(file("zoo/emo-1m/emo-1m_tract_opset17_formula-0.onnx"), file("other.onnx")).unwrap();
    folder
}

/// Runs `emo` after what a shell takes from it: `ulimit -n 4`, or with redirections: `exec >&-`.
fn deprived(folder: &Path, taken: &str, variables: &[(&str, &str)], request: &[&str]) -> Output {
    let script = format!("{taken}\nexec \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash", EMO]).args(request).current_dir(folder);
    command.env_remove("RUST_BACKTRACE").envs(variables.iter().copied()).output().unwrap()
}

/// An exit code of ours with something said: no panic, no signal, no silence.
fn orderly(output: &Output, what: &str) -> i32 {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
    let code = output.status.code();
    assert!(code.is_some_and(|code| code <= 3), "{what}: {:?}: {stderr}", output.status);
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    assert!(!stdout.is_empty() || !stderr.is_empty(), "{what}: silence, {:?}", output.status);
    code.unwrap()
}
