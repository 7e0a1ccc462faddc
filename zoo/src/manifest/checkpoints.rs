//! Checkpoints in a folder, matched to models by what they hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use emo_exporter::models::{DENSE, MODELS, Model};
use emo_exporter::weights::{Spec, Weights, fits};
use emo_proto::{Error, Result};

use super::entry::Provenance;
use super::recipe::Recipe;

/// Folders below the one that is searched.
const DEPTH: usize = 8;

/// A model's checkpoints, by the model's name, in the order of their paths.
#[derive(Debug, Default)]
pub struct Checkpoints {
    by_model: BTreeMap<String, Vec<(PathBuf, Weights)>>,
    /// How many files are no model's.
    pub others: usize,
}

impl Checkpoints {
    /// Reads every checkpoint in `folder` and below that one of `models` takes.
    ///
    /// # Errors
    /// The folder or a checkpoint cannot be read.
    pub fn find(folder: &Path, models: &[Model]) -> Result<Self> {
        let mut files = Vec::new();
        walk(folder, DEPTH, &mut files).map_err(|error| Error::new(error).at(folder.display()))?;
        files.sort_unstable();
        let mut found = Self::default();
        for path in files {
            let fitting = |model: &&Model| fits(&path, &model.parameters());
            match models.iter().find(fitting) {
                Some(model) => {
                    let weights = Weights::load(&Spec::File(path.clone()), &model.parameters())?;
                    found.by_model.entry(model.name.to_string()).or_default().push((path, weights));
                }
                None if MODELS.iter().chain(&*DENSE).any(|model| fitting(&model)) => {}
                None => found.others += 1,
            }
        }
        Ok(found)
    }

    /// The models that there are checkpoints of.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.by_model.keys().map(String::as_str)
    }

    /// The model's one checkpoint; copies of it count as one.
    ///
    /// # Errors
    /// There is none, or there are different ones.
    pub fn of(&self, model: &str) -> Result<&Weights> {
        let all = self.by_model.get(model).map_or(&[][..], Vec::as_slice);
        let [(first, weights), rest @ ..] = all else {
            return Err(Error::new("expected a checkpoint of the model, found none").at(model));
        };
        match rest.iter().find(|(_, other)| other.origin() != weights.origin()) {
            None => Ok(weights),
            Some((second, _)) => {
                let (first, second) = (first.display(), second.display());
                Err(Error::new(format!("expected one checkpoint, found {first} and {second}")).at(model))
            }
        }
    }

    /// Where the checkpoint with that digest is, whatever model's it is.
    #[must_use]
    pub fn path(&self, weights: &Provenance) -> Option<PathBuf> {
        let mut all = self.by_model.values().flatten();
        all.find(|(_, own)| Provenance::from(own.origin()) == *weights).map(|(path, _)| path.clone())
    }

    /// The weights that a recipe asks for: a formula's, or those of the checkpoint with its digest.
    #[must_use]
    pub fn supply(&self, recipe: &Recipe) -> Option<Weights> {
        recipe.formula().or_else(|| {
            let of_model = self.by_model.get(&*recipe.model.name)?;
            let wanted =
                |(_, weights): &&(PathBuf, Weights)| Provenance::from(weights.origin()) == recipe.weights;
            of_model.iter().find(wanted).map(|(_, weights)| weights.clone())
        })
    }
}

/// Files, through links; folders not through links, which may lead in a circle.
fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                walk(&path, depth - 1, files)?;
            }
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
