//! Several files in one call: patterns, and work on them side by side.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use emo_proto::file::{OnnxFile, open, settled, write_atomic};
use emo_verifier::finding::{Finding, Severity, UNREADABLE};
use emo_verifier::report::Subject;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::progress::Bars;
use super::several::Several;

/// The files that `patterns` name, in their order. A pattern that the shell did not expand,
/// with `*`, `?` or `**`, stands for the files that it matches, sorted.
pub fn expand(patterns: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for pattern in patterns {
        let text = pattern.to_string_lossy();
        // A file may be called like a pattern.
        if pattern.exists() || !text.contains(['*', '?', '[']) {
            files.push(pattern.clone());
            continue;
        }
        let matches = glob::glob(&text).with_context(|| format!("{text}: expected a pattern of files"))?;
        let before = files.len();
        for path in matches {
            files.extend(Some(path?).filter(|path| path.is_file()));
        }
        if files.len() == before {
            return Err(anyhow!("{text}: expected a pattern that matches files, found none"));
        }
    }
    Ok(files)
}

/// Does `work` on every file, side by side, and returns the results in the order of the files.
/// Where several take long, stderr shows how far it is.
///
/// # Errors
/// What every file that failed has to say.
pub fn each<T: Send>(
    files: &[PathBuf],
    work: impl Fn(&Path) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let results: Vec<anyhow::Result<T>> = match files {
        [file] => vec![work(file)],
        _ => {
            let bars = Bars::new(files.len());
            files.par_iter().map(|file| bars.during(&file.display().to_string(), || work(file))).collect()
        }
    };
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => done.push(value),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    if failed.is_empty() { Ok(done) } else { Err(Several(failed).into()) }
}

/// Opens every file and does `work` on it as [`each`] does. One of several that cannot be read takes nothing from
/// the others.
///
/// # Errors
/// Those of [`each`]; the only file cannot be read.
pub fn each_read<T: Send>(
    files: &[PathBuf],
    work: impl Fn(&Path, OnnxFile) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<Result<T, Unreadable>>> {
    each(files, |path| match open(path) {
        Ok(file) => work(path, file).map(Ok),
        Err(error) if files.len() > 1 => Ok(Err(Unreadable::new(path, &error))),
        Err(error) => Err(error.into()),
    })
}

/// A file that is no ONNX model.
#[derive(Debug)]
pub struct Unreadable(Finding);

impl Unreadable {
    pub fn new(path: &Path, error: &emo_proto::Error) -> Self {
        let (name, why) = (path.display().to_string(), error.to_string());
        let message = why.trim_start_matches(&format!("{name}: ")).to_owned();
        let (code, severity, place) = (UNREADABLE, Severity::Error, String::new());
        Self(Finding { code, severity, place, message, file: Some(name) })
    }

    fn name(&self) -> String {
        self.0.file.clone().unwrap_or_default()
    }

    pub fn subject(&self) -> Subject {
        let findings = vec![self.0.clone()];
        Subject { name: self.name(), headline: UNREADABLE.to_owned(), findings, ..Subject::default() }
    }

    /// Its place in the documents of a command, which `schema` names.
    pub fn document(&self, schema: &str) -> Value {
        json!({ "schema": schema, "file": self.name(), "verdict": UNREADABLE, "findings": [self.0] })
    }
}

impl From<Unreadable> for Finding {
    fn from(Unreadable(finding): Unreadable) -> Self {
        finding
    }
}

/// Writes a file on the strength of others, if those are still what they were.
///
/// # Errors
/// They are not, or the disk refuses.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    settled()?;
    Ok(write_atomic(path, bytes)?)
}

/// What is read stays: no file of `written`, each behind the flag that names it, is one of `read` or another of
/// `written`, whatever it is called by.
///
/// # Errors
/// One is.
pub fn apart(written: &[(&str, &Path)], read: &[&Path]) -> anyhow::Result<()> {
    for (i, (flag, path)) in written.iter().enumerate() {
        let place = place(path);
        let others = written.iter().take(i).map(|(_, other)| (*other, "written too"));
        let all = read.iter().map(|path| (*path, "read")).chain(others);
        if let Some((_, what)) = all.into_iter().find(|(other, _)| self::place(other) == place) {
            let path = path.display();
            return Err(anyhow!("{flag} {path}: expected a file of its own, found one that is {what}"));
        }
    }
    Ok(())
}

/// Where a file is or would be, links followed.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let would_be = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(would_be).unwrap_or_else(|| path.to_owned())
}
