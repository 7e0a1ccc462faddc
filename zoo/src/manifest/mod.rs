//! Releases: a folder of ONNX files and the manifest that says, of each, on what evidence it was released.
//!
//! Every figure of an [`Entry`] can be recomputed from the file beside it ([`facts`], [`check`]), and every
//! file that this project wrote can be written again byte for byte ([`recipe`]). Files come in by [`build`]
//! or, if others wrote them, by [`add`]; [`difference`] says what changed between two manifests, [`card`]
//! writes a model's README.
//!
//! ```no_run
//! use emo_zoo::manifest::Store;
//!
//! let manifest = Store::new("zoo").manifest()?;
//! for entry in manifest.of("emo-1m")? {
//!     let holds = entry.numerics.as_ref().is_some_and(|numerics| numerics.holds);
//!     assert!(holds, "{} computes something else", entry.model_path);
//! }
//! # Ok::<(), emo_proto::Error>(())
//! ```

mod about;
#[cfg(feature = "engines")]
pub mod add;
#[cfg(feature = "engines")]
pub mod build;
pub mod card;
#[cfg(feature = "engines")]
pub mod check;
#[cfg(feature = "engines")]
pub mod checkpoints;
pub mod difference;
pub mod entry;
#[cfg(feature = "engines")]
pub mod estimate;
#[cfg(feature = "engines")]
pub mod evidence;
#[cfg(feature = "engines")]
pub mod facts;
mod guard;
#[cfg(feature = "engines")]
pub mod lint;
#[cfg(feature = "engines")]
pub mod recipe;
mod store;

use std::collections::BTreeMap;
use std::path::Path;

use emo_proto::{Result, file};

use crate::pattern::matching;

pub use entry::Entry;
pub use store::{CARD, LOCK, Lock, MANIFEST, Store, decode};

/// What is released, by path.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Manifest {
    entries: BTreeMap<String, Entry>,
}

impl Manifest {
    /// Reads the text of a manifest.
    ///
    /// # Errors
    /// It is no manifest of this version, or one that no build writes: a path that leaves the folder, an absurd
    /// size, an entry twice. The entry's name comes first.
    pub fn parse(text: &str) -> Result<Self> {
        let entries = guard::entries(text)?;
        Ok(Self { entries: entries.into_iter().map(|e| (e.model_path.clone(), e)).collect() })
    }

    /// Reads the manifest at `path`.
    ///
    /// # Errors
    /// Those of [`Manifest::parse`], or the file cannot be read; names the path.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&file::text(path, guard::LARGEST_MANIFEST)?).map_err(|error| error.at(path.display()))
    }

    /// The manifest's text: entries in the order of their paths, fields in that of their names.
    ///
    /// # Panics
    /// Never: an entry has a JSON form.
    #[must_use]
    pub fn text(&self) -> String {
        let mut value =
            serde_json::to_value(self.entries().collect::<Vec<_>>()).expect("entries are plain data");
        // Whatever order this build of serde_json keeps.
        value.sort_all_objects();
        serde_json::to_string_pretty(&value).expect("a value has a text") + "\n"
    }

    /// In the order of their paths.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of the file at `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Puts an entry in the place of the one with its path, and gives that one back.
    pub fn insert(&mut self, entry: Entry) -> Option<Entry> {
        self.entries.insert(entry.model_path.clone(), entry)
    }

    pub fn remove(&mut self, path: &str) -> Option<Entry> {
        self.entries.remove(path)
    }

    /// The entries of a model, of all whose names match a pattern (`ssdlite-*`), or the one at a path.
    ///
    /// # Errors
    /// There is none: the models that there are.
    pub fn of<'a>(&'a self, name: &str) -> Result<Vec<&'a Entry>> {
        if let Some(entry) = self.get(name) {
            return Ok(vec![entry]);
        }
        let models = self.matching(name)?;
        Ok(self.entries().filter(|entry| models.contains(&&*entry.model)).collect())
    }

    /// The models whose names match a name or a pattern.
    ///
    /// # Errors
    /// There is none: the models that there are.
    pub fn matching<'a>(&'a self, name: &str) -> Result<Vec<&'a str>> {
        matching(name, &self.models(), "a model of the manifest")
    }

    /// The models' names, sorted.
    #[must_use]
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<_> = self.entries().map(|entry| entry.model.as_str()).collect();
        models.sort_unstable();
        models.dedup();
        models
    }
}
