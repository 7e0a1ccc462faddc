//! Tensor payloads in files beside the model.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::tensor::{DataType, byte_len};
use crate::tensor_proto::DataLocation;
use crate::{
    Error, FunctionProto, GraphProto, ModelProto, NodeProto, Result, StringStringEntryProto, TensorProto,
    file,
};

/// Times its size that tensors may ask for of a file, and bytes beyond: those that overlap cost what they promise.
const MOST_TIMES: u64 = 16;
const SLACK: u64 = 1 << 26;

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

    /// Holds the tensors of a model to bytes in proportion to the files that they lie in: few bytes may be a
    /// thousand tensors.
    pub(crate) fn bound(&self, model: &ModelProto) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
        each_tensor(model, &mut |tensor| {
            if tensor.data_location() != DataLocation::External {
                return;
            }
            // What is wrong with an entry is said where the tensor is read.
            let entries = &tensor.external_data;
            let length = number(entries, "length").ok().flatten().or_else(|| size(tensor));
            if let (Ok(Some(location)), Some(length)) = (find(entries, "location"), length) {
                let sum = asked.entry(location).or_default();
                *sum = sum.saturating_add(length as u64);
            }
        });
        for (location, bytes) in asked {
            let file =
                folder.join(location).metadata().ok().filter(|file| file.is_file() && is_below(location));
            let Some(file) = file else { continue };
            if bytes > file.len().saturating_mul(MOST_TIMES).saturating_add(SLACK) {
                let error = format!(
                    "expected tensors that hold {MOST_TIMES} times the file at most, found {bytes} bytes of tensors \
                     in a file of {}",
                    file.len()
                );
                return Err(Error::new(error).at(format!("external data {location:?}")));
            }
        }
        Ok(())
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
        if !is_below(location) {
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

/// Whether the location is relative and does not climb.
fn is_below(location: &str) -> bool {
    let mut parts = Path::new(location).components();
    !location.is_empty() && parts.all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

/// The bytes that a tensor's shape needs.
fn size(tensor: &TensorProto) -> Option<usize> {
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    byte_len(DataType::try_from(tensor.data_type()).ok()?, &dims?).ok()
}

/// Every tensor of a model: of its graphs, functions and nodes.
fn each_tensor<'a>(model: &'a ModelProto, see: &mut dyn FnMut(&'a TensorProto)) {
    fn graph<'a>(graph: &'a GraphProto, see: &mut dyn FnMut(&'a TensorProto)) {
        graph.initializer.iter().for_each(&mut *see);
        let sparse = graph.sparse_initializer.iter().flat_map(|sparse| [&sparse.values, &sparse.indices]);
        sparse.flatten().for_each(&mut *see);
        nodes(&graph.node, see);
    }
    fn nodes<'a>(nodes: &'a [NodeProto], see: &mut dyn FnMut(&'a TensorProto)) {
        for attribute in nodes.iter().flat_map(|node| &node.attribute) {
            attribute.t.as_deref().into_iter().chain(&attribute.tensors).for_each(&mut *see);
            attribute.g.as_deref().into_iter().chain(&attribute.graphs).for_each(|body| graph(body, see));
        }
    }
    model.graph.iter().for_each(|main| graph(main, see));
    model.functions.iter().for_each(|FunctionProto { node, .. }| nodes(node, see));
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
