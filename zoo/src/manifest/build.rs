//! Export, audit, lint, verify, record: what is asked for and not there yet.
//!
//! A file is written before the manifest that names it, each of them whole or not at all, and the manifest
//! after every file: whatever ends a build, what it recorded is there, and the next one goes on behind it.
//! So an interruption needs no handling, whether it is Ctrl-C, a full disk or a power cut.

use std::collections::BTreeMap;
use std::sync::Mutex;

use emo_exporter::export_with;
use emo_exporter::models::{DENSE, Definition, MODELS, Model, Task};
use emo_exporter::profile::{Opset, PROFILES, Profile};
use emo_proto::{Error, Result};
use emo_verifier::check::check;
use emo_verifier::finding::Severity;
use rayon::prelude::*;

use super::checkpoints::Checkpoints;
use super::entry::{Entry, Numerics, Provenance, TOOL};
use super::evidence::{Evidence, Watch, during, key};
use super::facts::{sha256, written};
use super::guard::admit;
use super::recipe::Recipe;
use super::{Manifest, Store, decode};

/// How a build ended; paths of files, sorted.
#[derive(Debug, Default)]
pub struct Built {
    pub written: Vec<String>,
    /// What was there already.
    pub kept: Vec<String>,
    /// What did not hold, and why; such a file is not written.
    pub refused: Vec<(String, Vec<String>)>,
}

/// The models of the project's own release: the first family's classifiers, and whatever stands on its kind of
/// backbones.
#[must_use]
pub fn released() -> Vec<Model> {
    let own = |model: &&Model| matches!(model.definition, Definition::Emo(_) | Definition::Dense(_));
    MODELS.iter().chain(&*DENSE).filter(own).cloned().collect()
}

/// Targets that a detector, a segmenter or a backbone is written for, each in its own opset, where nobody says which; a
/// classifier is written for all, in every opset that they take.
const DENSE_TARGETS: [&str; 4] = ["portable", "coreml", "qnn", "ort-cpu"];

/// Every target in every opset that is asked for and that it takes; `None` asks for those that the model's kind has.
///
/// # Errors
/// A target or an opset that is asked for would give no file.
pub fn recipes(
    models: &[(Model, Provenance)],
    targets: Option<&[&'static Profile]>,
    opsets: Option<&[&'static Opset]>,
) -> Result<Vec<Recipe>> {
    let mut recipes = Vec::new();
    for (model, weights) in models {
        let dense = model.task() != Task::Classify;
        let usual = |profile: &&Profile| !dense || DENSE_TARGETS.contains(&profile.name);
        let targets: Vec<&'static Profile> =
            targets.map_or_else(|| PROFILES.iter().filter(usual).collect(), <[_]>::to_vec);
        for profile in targets {
            let all = profile.opsets.versions.iter().filter_map(|version| Opset::version(*version));
            let taken: Vec<&'static Opset> = match opsets {
                Some(asked) => all.filter(|opset| asked.contains(opset)).collect(),
                None if dense => vec![profile.default_opset()],
                None => all.collect(),
            };
            if taken.is_empty() {
                let versions: Vec<_> = profile.opsets.versions.iter().map(ToString::to_string).collect();
                let (name, versions) = (profile.name, versions.join(" or "));
                return Err(Error::new(format!("expected opset {versions}, found none of them")).at(name));
            }
            let of = |opset| Recipe::new(model.clone(), profile, opset, weights.clone());
            recipes.extend(taken.into_iter().map(of));
        }
    }
    recipes.sort_by_key(Recipe::path);
    Ok(recipes)
}

/// A build that knows what is there.
#[derive(Debug)]
pub struct Plan<'a> {
    store: &'a Store,
    manifest: Manifest,
    todo: Vec<Recipe>,
    kept: Vec<String>,
    /// Whether the files are stored, or the manifest alone.
    files: bool,
}

impl<'a> Plan<'a> {
    /// Looks at what is there: an entry of the same recipe whose file has its digest is kept. Where no `files` are
    /// stored, all are made anew.
    ///
    /// # Errors
    /// The store's manifest or a file of it cannot be read.
    pub fn new(store: &'a Store, recipes: Vec<Recipe>, files: bool) -> Result<Self> {
        let manifest = store.manifest_or_new()?;
        let unchanged = |recipe: &Recipe| {
            let entry = manifest.get(&recipe.path()).filter(|entry| files && recipe.is_of(entry));
            let Some(entry) = entry else { return Ok(false) };
            let bytes = store.bytes(&entry.model_path, &entry.model)?;
            Ok(bytes.is_some_and(|bytes| {
                bytes.len() as u64 == entry.metadata.model_bytes && sha256(&bytes) == entry.metadata.model_sha
            }))
        };
        let unchanged: Vec<bool> = recipes.par_iter().map(unchanged).collect::<Result<_>>()?;
        let (mut todo, mut kept) = (Vec::new(), Vec::new());
        for (recipe, unchanged) in recipes.into_iter().zip(unchanged) {
            match unchanged {
                true => kept.push(recipe.path()),
                false => todo.push(recipe),
            }
        }
        Ok(Self { store, manifest, todo, kept, files })
    }

    /// What there is to do, model by model.
    pub(super) fn groups(&self) -> Vec<Vec<&Recipe>> {
        groups(&self.todo)
    }

    /// Paths of what is there already.
    #[must_use]
    pub fn kept(&self) -> &[String] {
        &self.kept
    }

    /// Pieces of work that [`Plan::run`] shows: files, and a run of the reference for each model.
    #[must_use]
    pub fn work(&self) -> usize {
        self.todo.len() + self.groups().len()
    }

    /// Makes what is not there, side by side.
    ///
    /// # Errors
    /// The disk refuses, or weights cannot be read; what was recorded before stays.
    pub fn run(self, checkpoints: &Checkpoints, watch: &dyn Watch) -> Result<Built> {
        let Self { store, manifest, todo, kept, files } = self;
        let recorded = manifest.clone();
        let built = Mutex::new((manifest, Built { kept, ..Built::default() }));
        // Model by model: what the reference gives of a segmenter takes half a gigabyte.
        for group in &groups(&todo) {
            let Some(first) = group.first() else { continue };
            let lacking = || Error::new("expected the weights of the model, found none").at(first.path());
            let weights = Evidence::of(first, checkpoints, false, watch)?.ok_or_else(lacking)?;
            let runs = group.par_iter().map(|recipe| known_run(recipe, &recorded, &weights));
            let runs: Vec<Option<Numerics>> = runs.collect::<Result<_>>()?;
            let evidence = match runs.iter().all(Option::is_some) {
                true => weights,
                false => Evidence::of(first, checkpoints, true, watch)?.ok_or_else(lacking)?,
            };
            group.par_iter().zip(runs).try_for_each(|(recipe, run)| {
                let path = recipe.path();
                during(watch, &path, || -> Result<()> {
                    let made = make(recipe, &evidence, run).map_err(|error| error.at(&path))?;
                    let mut built = built.lock().map_err(|_| Error::new("another file's work has failed"))?;
                    let (manifest, built) = &mut *built;
                    if !made.against.is_empty() {
                        built.refused.push((path.clone(), made.against));
                        return Ok(());
                    }
                    match files {
                        true => record(store, manifest, made)?,
                        false => drop(manifest.insert(made.entry)),
                    }
                    built.written.push(path.clone());
                    Ok(())
                })
            })?;
            if !files {
                let built = built.lock().map_err(|_| Error::new("a file's work has failed"))?;
                store.write_manifest(&built.0)?;
            }
        }
        let (_, mut built) = built.into_inner().map_err(|_| Error::new("a file's work has failed"))?;
        built.written.sort_unstable();
        built.refused.sort_unstable();
        Ok(built)
    }
}

/// What is recorded of a run of the bytes that the recipe gives: the same bytes would show the same again.
fn known_run(recipe: &Recipe, recorded: &Manifest, weights: &Evidence) -> Result<Option<Numerics>> {
    let Some(entry) = recorded.get(&recipe.path()).filter(|entry| entry.tool == TOOL) else {
        return Ok(None);
    };
    let Some(run) = &entry.numerics else { return Ok(None) };
    let export = export_with(&recipe.model, &recipe.target, weights.weights.clone())
        .map_err(|error| error.at(&entry.model_path))?;
    Ok((sha256(&export.bytes) == entry.metadata.model_sha).then(|| run.clone()))
}

/// Recipes by what they share: their model and its weights.
fn groups(recipes: &[Recipe]) -> Vec<Vec<&Recipe>> {
    let mut groups: BTreeMap<String, Vec<&Recipe>> = BTreeMap::new();
    for recipe in recipes {
        groups.entry(key(recipe)).or_default().push(recipe);
    }
    groups.into_values().collect()
}

/// A file that is not written yet.
#[derive(Debug)]
pub struct Made {
    pub entry: Entry,
    pub bytes: emo_proto::Bytes,
    /// What does not hold; empty where it may be released.
    pub against: Vec<String>,
}

/// Writes the bytes and gathers the evidence on them, but for a `run` that is known.
///
/// # Errors
/// The profile does not take the request, or the engine not the file.
pub fn make(recipe: &Recipe, evidence: &Evidence, run: Option<Numerics>) -> Result<Made> {
    let export = export_with(&recipe.model, &recipe.target, evidence.weights.clone())?;
    let file = decode(export.bytes.into())?;
    let (mut entry, mut against) = written(&file, recipe.weights.clone())?;
    let unsound = check(&file, None).into_iter().filter(|finding| finding.severity == Severity::Error);
    against
        .extend(unsound.map(|finding| format!("{}: {}: {}", finding.code, finding.place, finding.message)));
    entry.numerics = run.map_or_else(|| evidence.numerics(&file), |run| Ok(Some(run)))?;
    against.extend(entry.numerics.iter().filter_map(Numerics::contradiction));
    Ok(Made { entry, bytes: file.bytes, against })
}

/// Writes a file, then the manifest that names it. While a file is replaced, no manifest names either.
///
/// # Errors
/// The disk refuses, or the entry would not be read again; manifest and file are those from before.
pub fn record(store: &Store, manifest: &mut Manifest, made: Made) -> Result<()> {
    let Made { entry, bytes, .. } = made;
    admit(&entry)?;
    let before = manifest.remove(&entry.model_path);
    if before.is_some() {
        store.write_manifest(manifest)?;
    }
    if let Err(error) = store.write(&entry.model_path, &entry.model, &bytes) {
        if let Some(before) = before {
            manifest.insert(before);
            store.write_manifest(manifest)?;
        }
        return Err(error);
    }
    manifest.insert(entry);
    store.write_manifest(manifest)
}
