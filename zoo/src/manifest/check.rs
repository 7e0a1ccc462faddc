//! A manifest held to the files beside it.

use std::collections::BTreeMap;

use emo_exporter::export_with;
use emo_exporter::models::Model;
use emo_exporter::weights::Spec;
use emo_proto::{Bytes, Error, Result};
use emo_verifier::finding::{Finding, Severity};
use rayon::prelude::*;

use super::add::measured;
use super::checkpoints::Checkpoints;
use super::difference::differences;
use super::entry::{Entry, Numerics, Provenance};
use super::evidence::{Evidence, Watch, during, key};
use super::facts::{sha256, third_party, written};
use super::recipe::{Recipe, model};
use super::{Manifest, Store, decode};

/// The code of an entry whose file is gone.
pub const MISSING: &str = "missing";
/// The code of a file that no entry names.
pub const STRAY: &str = "stray";
/// The code of a file that contradicts itself.
pub const UNSOUND: &str = "unsound";
/// The code of a file that is not written again byte for byte.
pub const REBUILD: &str = "rebuild";
/// The code of an entry that cannot be rebuilt for want of its checkpoint: it stays undecided.
pub const NO_CHECKPOINT: &str = "no-checkpoint";

/// Bytes of a side of a difference that are shown.
const SHOWN: usize = 160;

/// What is checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope<'a> {
    /// The models whose entries are; all where it is not said.
    pub models: Option<&'a [&'a str]>,
    /// Every file is written again, with these weights where they are no formula's.
    pub checkpoints: Option<&'a Checkpoints>,
    /// And run.
    pub run: bool,
}

/// Entries by what a run of them shares, each with its recipe, where it has one that can be read.
type Groups<'a> = BTreeMap<Option<String>, Vec<(&'a Entry, Option<Recipe>)>>;

impl Scope<'_> {
    /// In the order of their paths.
    #[must_use]
    pub fn entries<'m>(&self, manifest: &'m Manifest) -> Vec<&'m Entry> {
        let asked = |entry: &&Entry| self.models.is_none_or(|models| models.contains(&&*entry.model));
        manifest.entries().filter(asked).collect()
    }

    fn groups<'m>(&self, manifest: &'m Manifest) -> Groups<'m> {
        let mut groups = Groups::new();
        for entry in self.entries(manifest) {
            let recipe = recipe(entry).filter(|_| self.checkpoints.is_some()).and_then(Result::ok);
            groups.entry(recipe.as_ref().map(key)).or_default().push((entry, recipe));
        }
        groups
    }

    /// Pieces of work that [`check`] shows: entries, and with a run the reference of each model.
    #[must_use]
    pub fn work(&self, manifest: &Manifest) -> usize {
        let references = self.groups(manifest).into_keys().flatten().filter(|_| self.run).count();
        self.entries(manifest).len() + references
    }
}

/// Everything that does not hold, entry by entry, then what nobody recorded.
///
/// Where every file is written again, a folder that has none of its files holds the manifest alone, and is judged by
/// what is written.
///
/// # Errors
/// A file cannot be read, or is a link.
pub fn check(store: &Store, manifest: &Manifest, scope: Scope, watch: &dyn Watch) -> Result<Vec<Finding>> {
    let alone = scope.checkpoints.is_some() && !manifest.entries().any(|entry| store.has(&entry.model_path));
    let mut findings = Vec::new();
    // Model by model: what the reference gives of a segmenter takes half a gigabyte.
    for entries in scope.groups(manifest).into_values() {
        let evidence = match (scope.checkpoints, entries.iter().find_map(|(_, recipe)| recipe.as_ref())) {
            (Some(checkpoints), Some(recipe)) => Evidence::of(recipe, checkpoints, scope.run, watch)?,
            _ => None,
        };
        let found = entries.par_iter().map(|(entry, _)| {
            during(watch, &entry.model_path, || of_entry(store, entry, evidence.as_ref(), scope, alone))
        });
        findings.extend(found.collect::<Result<Vec<_>>>()?.into_iter().flatten());
    }
    // In the manifest's order, which is that of paths.
    findings.sort_by(|a, b| a.file.cmp(&b.file));
    if !alone {
        let stray = |path: String| Finding {
            code: STRAY,
            severity: Severity::Error,
            place: String::new(),
            message: "expected what the manifest names alone, found another file".to_owned(),
            file: Some(path),
        };
        findings.extend(store.strays(manifest)?.into_iter().map(stray));
    }
    Ok(findings)
}

/// What does not hold of an entry; its file is the one that is written where there is the manifest alone.
fn of_entry(
    store: &Store,
    entry: &Entry,
    evidence: Option<&Evidence>,
    scope: Scope,
    alone: bool,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let rebuilt = scope.checkpoints.and_then(|_| rebuild(entry, evidence, &mut findings));
    let bytes = store.bytes(&entry.model_path, &entry.model)?;
    let Some(bytes) = bytes.or_else(|| rebuilt.filter(|_| alone)) else {
        let advice = if scope.checkpoints.is_none() { "; it can be written again" } else { "" };
        let message = format!("expected the file, found none{advice}");
        findings.push(finding(entry, MISSING, "", message));
        return Ok(findings);
    };
    let theirs = scope.run && recipe(entry).is_none() && entry.numerics.is_some();
    if let Some(checkpoints) = scope.checkpoints.filter(|_| theirs) {
        findings.extend(judge_again(entry, &bytes, checkpoints));
    }
    judge(entry, bytes, &mut findings);
    Ok(findings)
}

fn finding(entry: &Entry, code: &'static str, place: &str, message: String) -> Finding {
    let severity = if code == NO_CHECKPOINT { Severity::Open } else { Severity::Error };
    Finding { code, severity, place: place.to_owned(), message, file: Some(entry.model_path.clone()) }
}

/// How an entry's file is written again; `None` for a third-party file.
fn recipe(entry: &Entry) -> Option<Result<Recipe>> {
    entry.command.as_ref().map(|_| Recipe::read(entry))
}

/// Holds an entry to the bytes of its file.
fn judge(entry: &Entry, bytes: Bytes, findings: &mut Vec<Finding>) {
    let told = decode(bytes.clone()).and_then(|file| told(entry, &file));
    let (told, against) = match told {
        Ok(told) => told,
        Err(error) => {
            let digest = sha256(&bytes);
            if digest != entry.metadata.model_sha {
                let message = expected(&entry.metadata.model_sha, &digest);
                findings.push(finding(entry, "file", "metadata.model_sha", message));
            }
            findings.push(finding(entry, UNSOUND, "", error.to_string()));
            return;
        }
    };
    for difference in differences(entry, &told) {
        let message = expected(&shown(&difference.old), &shown(&difference.new));
        findings.push(finding(entry, difference.kind, &difference.field, message));
    }
    findings.extend(against.into_iter().map(|message| finding(entry, UNSOUND, "", message)));
    if told.claim.as_ref().is_some_and(|claim| !claim.holds) {
        let message = "expected the published figures, found others".to_owned();
        findings.push(finding(entry, "claim", "claim.holds", message));
    }
    match (&entry.numerics, &told.claim) {
        (Some(numerics), _) => {
            let contradiction = numerics.contradiction();
            findings.extend(contradiction.map(|message| finding(entry, "numerics", "numerics", message)));
        }
        (None, Some(_)) => {
            let message = "expected a run beside the reference, found none".to_owned();
            findings.push(finding(entry, "numerics", "numerics", message));
        }
        (None, None) => {}
    }
}

/// The entry as the file tells it; what no byte tells is as recorded.
fn told(entry: &Entry, file: &emo_proto::file::OnnxFile) -> Result<(Entry, Vec<String>)> {
    let ours = entry.command.is_some() || entry.profile.is_some();
    let (mut told, against) = match ours {
        true => written(file, entry.weights.clone())?,
        false => {
            let model = model(entry).ok();
            let (told, against) = third_party(file, &entry.model, &entry.model_path, model.as_ref())?;
            let (license, source) = (entry.license.clone(), entry.source.clone());
            let (weights, tool) = (entry.weights.clone(), entry.tool.clone());
            (Entry { license, source, weights, tool, ..told }, against)
        }
    };
    told.numerics.clone_from(&entry.numerics);
    let older = Recipe::read(&told).map(|recipe| recipe.older_command()).ok();
    if told.command.is_some() && entry.command == older {
        told.command.clone_from(&entry.command);
    }
    Ok((told, against))
}

/// Writes the file again, holds it to the recorded digest and, where a run was asked for, runs it; the bytes, where they are the recorded.
fn rebuild(entry: &Entry, evidence: Option<&Evidence>, findings: &mut Vec<Finding>) -> Option<Bytes> {
    let recipe = match recipe(entry)? {
        Ok(recipe) => recipe,
        Err(error) => {
            findings.push(finding(entry, REBUILD, "", error.to_string()));
            return None;
        }
    };
    let Some(evidence) = evidence else {
        let message = "expected its checkpoint to write it again, found none; give its folder";
        findings.push(finding(entry, NO_CHECKPOINT, "weights", message.to_owned()));
        return None;
    };
    match again(entry, &recipe, evidence) {
        Ok((bytes, numerics)) => {
            findings.extend(numerics.iter().flat_map(|numerics| run(entry, numerics)));
            Some(bytes)
        }
        Err((code, error)) => {
            findings.push(finding(entry, code, "", error.to_string()));
            None
        }
    }
}

/// What a run made anew has against an entry.
fn run(entry: &Entry, measured: &Numerics) -> Vec<Finding> {
    let own = measured.contradiction().map(|why| finding(entry, "numerics", "", why));
    let refuted = entry.numerics.iter().flat_map(|recorded| recorded.refuted(measured));
    let differing = refuted.map(|(field, recorded, found)| {
        finding(entry, "numerics", field, format!("{} by a run of today", expected(&recorded, &found)))
    });
    own.into_iter().chain(differing).collect()
}

type Again = (Bytes, Option<Numerics>);

fn again(entry: &Entry, recipe: &Recipe, evidence: &Evidence) -> Result<Again, (&'static str, Error)> {
    let export = export_with(&recipe.model, &recipe.target, evidence.weights.clone())
        .map_err(|error| (REBUILD, error))?;
    let bytes = Bytes::from(export.bytes);
    let digest = sha256(&bytes);
    if digest != entry.metadata.model_sha {
        let message = format!("{}, written by this version", expected(&entry.metadata.model_sha, &digest));
        return Err((REBUILD, Error::new(message)));
    }
    let file = decode(bytes.clone()).map_err(|error| (REBUILD, error))?;
    let numerics = evidence.numerics(&file).map_err(|error| ("numerics", error))?;
    Ok((bytes, numerics))
}

/// Judges a third-party file anew, where it was held to the weights that it says.
fn judge_again(entry: &Entry, bytes: &Bytes, checkpoints: &Checkpoints) -> Vec<Finding> {
    let spec = match (&entry.weights, entry.weights.seed()) {
        (Provenance::Named { .. }, seed) => Ok(seed.map(Spec::Formula)),
        (Provenance::Checkpoint(_), _) => {
            checkpoints.path(&entry.weights).map(|path| Some(Spec::File(path))).ok_or(())
        }
    };
    let Ok(weights) = spec else {
        let message = "expected its checkpoint to judge it again, found none; give its folder";
        return vec![finding(entry, NO_CHECKPOINT, "weights", message.to_owned())];
    };
    let own = model(entry).ok().filter(Model::is_own);
    let measured = decode(bytes.clone()).and_then(|file| measured(&file, own, weights));
    match measured {
        Ok((numerics, None)) => run(entry, &numerics),
        Ok((_, Some(words))) => vec![finding(entry, "numerics", "numerics.holds", words)],
        Err(error) => vec![finding(entry, "numerics", "", error.to_string())],
    }
}

fn expected(recorded: &str, found: &str) -> String {
    format!("expected {recorded}, as recorded, found {found}")
}

fn shown(value: &serde_json::Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
