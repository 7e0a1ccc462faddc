//! Tensor payloads in files beside the model.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::{Error, Result, StringStringEntryProto, file};

/// The folder that a model's external data may live in.
///
/// A file is memory-mapped when a tensor first asks for it, once. A location that is absolute,
/// climbs with `..` or leaves the folder through a symbolic link is refused.
#[derive(Debug, Clone)]
pub struct External {
    folder: Option<PathBuf>,
    files: Arc<Mutex<BTreeMap<PathBuf, Bytes>>>,
}

impl External {
    /// No folder: a tensor that keeps its data outside is an error.
    pub fn none() -> Self {
        Self { folder: None, files: Arc::default() }
    }

    /// Files in `dir` and below.
    pub fn folder(dir: &Path) -> Self {
        Self { folder: Some(dir.to_owned()), files: Arc::default() }
    }

    /// The `need` bytes that a tensor's `external_data` entries tell of; not copied.
    ///
    /// An absent `offset` is 0, an absent `length` is `need`; `checksum` is not checked.
    pub(crate) fn read(&self, entries: &[StringStringEntryProto], need: usize) -> Result<Bytes> {
        let location =
            find(entries, "location")?.ok_or_else(|| Error::new("external data has no location"))?;
        let at = |error: Error| error.at(format!("external data {location:?}"));
        let offset = number(entries, "offset").map_err(at)?.unwrap_or(0);
        let length = number(entries, "length").map_err(at)?.unwrap_or(need);
        if length != need {
            return Err(at(Error::new(format!("its length is {length} bytes where the shape needs {need}"))));
        }
        let bytes = self.open(location).map_err(at)?;
        let end = offset.checked_add(length).filter(|end| *end <= bytes.len()).ok_or_else(|| {
            let size = bytes.len();
            at(Error::new(format!(
                "expected {length} bytes at offset {offset}, found a file of {size} bytes"
            )))
        })?;
        Ok(bytes.slice(offset..end))
    }

    /// The whole file at `location`, mapped at most once.
    fn open(&self, location: &str) -> Result<Bytes> {
        let folder = self.folder.as_ref().ok_or_else(|| {
            Error::new("the model was read without a folder; open it as a file, its data beside it")
        })?;
        let below =
            Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !below || location.is_empty() {
            return Err(Error::new("the location must be a relative path without `..`"));
        }
        let root = folder.canonicalize().map_err(Error::new)?;
        let path = root.join(location).canonicalize().map_err(Error::new)?;
        if !path.starts_with(&root) {
            let why = "the location leaves the model's folder through a symbolic link; copy the file there";
            return Err(Error::new(why));
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = files.get(&path) {
            return Ok(bytes.clone());
        }
        let bytes = file::map(&path)?;
        files.insert(path, bytes.clone());
        Ok(bytes)
    }
}

/// The value of `key`, which may be given once.
fn find<'a>(entries: &'a [StringStringEntryProto], key: &str) -> Result<Option<&'a str>> {
    let mut values = entries.iter().filter(|entry| entry.key() == key).map(StringStringEntryProto::value);
    let value = values.next();
    if values.next().is_some() {
        return Err(Error::new(format!("external data gives its {key} twice")));
    }
    Ok(value)
}

fn number(entries: &[StringStringEntryProto], key: &str) -> Result<Option<usize>> {
    let parse = |text: &str| {
        text.parse().map_err(|_| Error::new(format!("expected a number of bytes as {key}, found {text:?}")))
    };
    find(entries, key)?.map(parse).transpose()
}
