//! A folder with a manifest and the files that it names.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use emo_proto::file::{OnnxFile, lockable, read, sweep, write_atomic};
use emo_proto::tensor::External;
use emo_proto::{Error, Result};

use super::{Manifest, guard};

/// The manifest's name in its folder.
pub const MANIFEST: &str = "manifest.json";
/// The file that a build locks; it stays, since a lock on a file that is gone excludes nobody.
pub const LOCK: &str = ".emo-zoo.lock";
/// The name of a model's card.
pub const CARD: &str = "README.md";

/// A folder of releases.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// Held while a store is written to; let go when dropped, or when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A link at `place`, which is called `name`, would let others decide what is read and written.
fn no_link(place: &Path, name: &str) -> Result<()> {
    match fs::symlink_metadata(place).is_ok_and(|metadata| metadata.is_symlink()) {
        true => Err(Error::new("expected a file in the folder, found a link").at(name)),
        false => Ok(()),
    }
}

impl Store {
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The manifest of the folder.
    ///
    /// # Errors
    /// There is none, it is unsound, or one of its files is a link.
    pub fn manifest(&self) -> Result<Manifest> {
        let path = self.folder.join(MANIFEST);
        if !path.exists() {
            let why = format!("expected a folder with a {MANIFEST}, found none; emo zoo build makes it");
            return Err(Error::new(why).at(self.folder.display()));
        }
        no_link(&path, MANIFEST)?;
        let manifest = Manifest::read(&path)?;
        let mut folders = HashSet::new();
        for entry in manifest.entries() {
            self.allowed(&entry.model_path, &entry.model, folders.insert(&entry.model))?;
        }
        Ok(manifest)
    }

    /// The manifest, or an empty one where there is none yet.
    ///
    /// # Errors
    /// Those of [`Store::manifest`].
    pub fn manifest_or_new(&self) -> Result<Manifest> {
        match self.folder.join(MANIFEST).exists() {
            true => self.manifest(),
            false => Ok(Manifest::default()),
        }
    }

    /// Where the file of an entry is, or would be: in the folder, and behind no link.
    fn place(&self, path: &str, model: &str) -> Result<PathBuf> {
        self.allowed(path, model, true)?;
        Ok(self.folder.join(path))
    }

    /// Whether an entry may have this path: in the folder, and behind no link. Asking for the model's own folder once
    /// is enough where entries are many.
    fn allowed(&self, path: &str, model: &str, folder: bool) -> Result<()> {
        guard::path(path, model).map_err(|error| error.at(path))?;
        if folder {
            no_link(&self.folder.join(model), path)?;
        }
        no_link(&self.folder.join(path), path)
    }

    /// A copy of the file of an entry, so that its digest and what is judged are of the same bytes; `None` where
    /// there is none.
    ///
    /// # Errors
    /// It cannot be read, or is a link.
    pub fn bytes(&self, path: &str, model: &str) -> Result<Option<emo_proto::Bytes>> {
        let place = self.place(path, model)?;
        match place.exists() {
            true => read(&place, guard::LARGEST_FILE).map(Some),
            false => Ok(None),
        }
    }

    /// Whether the file of an entry is there.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.folder.join(path).exists()
    }

    /// Writes a file whole or not at all; its folder is made if need be.
    ///
    /// # Errors
    /// The disk refuses, or a link is in the way.
    pub fn write(&self, path: &str, model: &str, bytes: &[u8]) -> Result<()> {
        let place = self.place(path, model)?;
        self.folder_of(model)?;
        write_atomic(&place, bytes)
    }

    /// The folder of a model's files, made if need be.
    fn folder_of(&self, model: &str) -> Result<PathBuf> {
        let folder = self.folder.join(model);
        fs::create_dir_all(&folder).map_err(|error| Error::new(error).at(folder.display()))?;
        Ok(folder)
    }

    /// Writes the manifest whole or not at all. What it names must be there already.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        write_atomic(&self.folder.join(MANIFEST), manifest.text().as_bytes())
    }

    /// Writes a model's card beside its files.
    ///
    /// # Errors
    /// The disk refuses, or a link is in the way.
    pub fn write_card(&self, model: &str, text: &str) -> Result<PathBuf> {
        self.place(&format!("{model}/card.onnx"), model)?;
        let path = self.folder_of(model)?.join(CARD);
        write_atomic(&path, text.as_bytes())?;
        Ok(path)
    }

    /// Makes the folder if need be, locks it, and clears away what an interrupted build left half written.
    ///
    /// # Errors
    /// Somebody else holds the lock, or the folder cannot be written to.
    pub fn lock(&self) -> Result<Lock> {
        let at = |error: std::io::Error| Error::new(error).at(self.folder.display());
        fs::create_dir_all(&self.folder).map_err(at)?;
        let path = self.folder.join(LOCK);
        no_link(&path, LOCK)?;
        let file = lockable(&path).map_err(|error| Error::new(error).at(path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = "expected to be alone, found another emo at work in this folder; try again when it has ended";
                return Err(Error::new(why).at(self.folder.display()));
            }
            Err(TryLockError::Error(error)) => return Err(at(error)),
        }
        // Where this project writes: the folder and those of its models.
        sweep(&self.folder);
        for entry in fs::read_dir(&self.folder).map_err(at)? {
            let entry = entry.map_err(at)?;
            if entry.file_type().map_err(at)?.is_dir() {
                sweep(&entry.path());
            }
        }
        Ok(Lock { _file: file })
    }

    /// What is in the folder and named nowhere: neither an entry's file, the manifest, a card, nor the lock.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn strays(&self, manifest: &Manifest) -> Result<Vec<String>> {
        let cards: HashSet<String> =
            manifest.models().into_iter().map(|model| format!("{model}/{CARD}")).collect();
        let known = |path: &String| {
            matches!(path.as_str(), MANIFEST | LOCK | CARD)
                || cards.contains(path)
                || manifest.get(path).is_some()
        };
        Ok(self.walk()?.into_iter().filter(|path| !known(path)).collect())
    }

    /// Every file and link in the folder and below, from the folder, sorted; links are not followed.
    fn walk(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let at = |error: std::io::Error| Error::new(error).at(self.folder.join(&folder).display());
            for entry in fs::read_dir(self.folder.join(&folder)).map_err(at)? {
                let entry = entry.map_err(at)?;
                let path = folder.join(entry.file_name());
                match entry.file_type().map_err(at)?.is_dir() {
                    true => folders.push(path),
                    false => found.push(path.to_string_lossy().replace('\\', "/")),
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// A file of the store, judged by its bytes alone: nothing beside it belongs to it.
///
/// # Errors
/// The bytes are no ONNX model.
pub fn decode(bytes: emo_proto::Bytes) -> Result<OnnxFile> {
    OnnxFile::from_bytes(bytes, External::none())
}
