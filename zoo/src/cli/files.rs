//! Several files in one call: patterns, and work on them side by side.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rayon::prelude::*;

use super::progress::Bars;

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
    if failed.is_empty() { Ok(done) } else { Err(anyhow!(failed.join("\nerror: "))) }
}
