//! Export, audit, lint, verify, record: what is asked for and not there yet.
//!
//! A file is written before the manifest that names it, each of them whole or not at all, and the manifest
//! after every file: whatever ends a build, what it recorded is there, and the next one goes on behind it.
//! So an interruption needs no handling, whether it is Ctrl-C, a full disk or a power cut.

use std::sync::Mutex;

use emo_exporter::export_with;
use emo_exporter::models::Model;
use emo_exporter::profile::{Opset, Profile};
use emo_proto::{Error, Result};
use emo_verifier::check::check;
use emo_verifier::finding::Severity;
use rayon::prelude::*;

use super::checkpoints::Checkpoints;
use super::entry::{Entry, Provenance};
use super::evidence::{Evidence, Watch, during, key, shelf};
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

/// Every profile in every opset that is asked for and that it takes; `None` asks for all.
///
/// # Errors
/// A profile or an opset that is asked for would give no file.
pub fn recipes(
    models: &[(Model, Provenance)],
    profiles: &[&'static Profile],
    opsets: Option<&[&'static Opset]>,
) -> Result<Vec<Recipe>> {
    let mut recipes = Vec::new();
    for profile in profiles {
        let taken: Vec<&'static Opset> = profile
            .opsets
            .versions
            .iter()
            .filter_map(|version| Opset::version(*version))
            .filter(|opset| opsets.is_none_or(|asked| asked.contains(opset)))
            .collect();
        if taken.is_empty() {
            let versions: Vec<_> = profile.opsets.versions.iter().map(ToString::to_string).collect();
            let (name, versions) = (profile.name, versions.join(" or "));
            return Err(Error::new(format!("expected opset {versions}, found none of them")).at(name));
        }
        let of = |(model, weights): &(Model, Provenance)| {
            taken
                .iter()
                .map(|opset| Recipe::new(model.clone(), profile, opset, weights.clone()))
                .collect::<Vec<_>>()
        };
        recipes.extend(models.iter().flat_map(of));
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
}

impl<'a> Plan<'a> {
    /// Looks at what is there: an entry of the same recipe whose file has its digest is kept.
    ///
    /// # Errors
    /// The store's manifest or a file of it cannot be read.
    pub fn new(store: &'a Store, recipes: Vec<Recipe>) -> Result<Self> {
        let manifest = store.manifest_or_new()?;
        let unchanged = |recipe: &Recipe| {
            let Some(entry) = manifest.get(&recipe.path()).filter(|entry| recipe.is_of(entry)) else {
                return Ok(false);
            };
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
        Ok(Self { store, manifest, todo, kept })
    }

    /// Pieces of work that [`Plan::run`] shows: files, and a run of the reference for each model.
    #[must_use]
    pub fn work(&self) -> usize {
        let mut keys: Vec<_> = self.todo.iter().map(key).collect();
        keys.dedup();
        self.todo.len() + keys.len()
    }

    /// Makes what is not there, side by side.
    ///
    /// # Errors
    /// The disk refuses, or weights cannot be read; what was recorded before stays.
    pub fn run(self, checkpoints: &Checkpoints, watch: &dyn Watch) -> Result<Built> {
        let Self { store, manifest, todo, kept } = self;
        let shelf = shelf(&todo.iter().collect::<Vec<_>>(), checkpoints, watch)?;
        let built = Mutex::new((manifest, Built { kept, ..Built::default() }));
        todo.par_iter().try_for_each(|recipe| {
            let path = recipe.path();
            during(watch, &path, || -> Result<()> {
                let lacking = || Error::new("expected the weights of the model, found none").at(&path);
                let evidence = shelf.get(&key(recipe)).ok_or_else(lacking)?;
                let made = make(recipe, evidence).map_err(|error| error.at(&path))?;
                let mut built = built.lock().map_err(|_| Error::new("another file's work has failed"))?;
                let (manifest, built) = &mut *built;
                if made.against.is_empty() {
                    record(store, manifest, made)?;
                    built.written.push(path.clone());
                } else {
                    built.refused.push((path.clone(), made.against));
                }
                Ok(())
            })
        })?;
        let (_, mut built) = built.into_inner().map_err(|_| Error::new("a file's work has failed"))?;
        built.written.sort_unstable();
        built.refused.sort_unstable();
        Ok(built)
    }
}

/// A file that is not written yet.
#[derive(Debug)]
pub struct Made {
    pub entry: Entry,
    pub bytes: emo_proto::Bytes,
    /// What does not hold; empty where it may be released.
    pub against: Vec<String>,
}

/// Writes the bytes and gathers the evidence on them.
///
/// # Errors
/// The profile does not take the request, or the engine not the file.
pub fn make(recipe: &Recipe, evidence: &Evidence) -> Result<Made> {
    let export = export_with(&recipe.model, &recipe.target, evidence.weights.clone())?;
    let file = decode(export.bytes.into())?;
    let (mut entry, mut against) = written(&file, recipe.weights.clone())?;
    let unsound = check(&file, None).into_iter().filter(|finding| finding.severity == Severity::Error);
    against
        .extend(unsound.map(|finding| format!("{}: {}: {}", finding.code, finding.place, finding.message)));
    let numerics = evidence.numerics(&file)?;
    against.extend(numerics.contradiction());
    entry.numerics = Some(numerics);
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
