//! Files: opened without copying weights, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;
use prost::Message;

use crate::{Error, ModelProto, Result, tensor::External};

/// What the first bytes of a file that is no ONNX model say about it.
const LOOKALIKES: [(&[u8], &str); 6] = [
    (b"PK\x03\x04", "it starts like a zip archive, as torch.save writes"),
    (b"\x80", "it starts like a pickle, as torch.save wrote before PyTorch 1.6"),
    (b"version https://git-lfs", "it is a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (b"\x89HDF\r\n", "it starts like an HDF5 file"),
    (b"<", "it starts like a web page"),
    (b"{", "it starts like JSON"),
];

/// What a file of ONNX Runtime's own format is told.
const ORT: &str = "it is in ONNX Runtime's own format (.ort, a FlatBuffer), which only ONNX Runtime reads: give the \
                   ONNX file that it was converted from";

/// A model as it was read: decoded, with the bytes that it was decoded from and the folder beside it.
#[derive(Debug)]
pub struct OnnxFile {
    /// The decoded message; the raw data of its tensors share memory with `bytes`.
    pub model: ModelProto,
    /// The whole file.
    pub bytes: Bytes,
    /// Where its tensors may keep external data.
    pub external: External,
}

impl OnnxFile {
    /// Decodes a model that is in memory already; `external` is where its tensors may keep their data.
    ///
    /// # Errors
    /// When the bytes are no ONNX model: empty, cut short, of another format, nested deeper than
    /// protobuf's limit of 100 messages, or without a graph.
    pub fn from_bytes(bytes: Bytes, external: External) -> Result<Self> {
        let not_onnx = |why: String| Error::new(format!("not an ONNX model: {why}"));
        if bytes.is_empty() {
            return Err(not_onnx("it is empty".to_owned()));
        }
        let lookalike = || {
            // A FlatBuffer has its name behind the offset of its root.
            if bytes.get(4..8) == Some(b"ORTM") {
                return Some(ORT.to_owned());
            }
            LOOKALIKES.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, what)| (*what).to_owned())
        };
        let model = ModelProto::decode(bytes.clone())
            .map_err(|cause| not_onnx(lookalike().unwrap_or_else(|| cause.to_string())))?;
        if model.graph.is_none() {
            return Err(not_onnx(lookalike().unwrap_or_else(|| "it holds no graph".to_owned())));
        }
        Ok(Self { model, bytes, external })
    }
}

/// Opens the model at `path`: memory-mapped, its weights not copied.
///
/// External data may live in the model's folder and below.
///
/// # Errors
/// Those of [`map`] and [`OnnxFile::from_bytes`], with the path in front.
pub fn open(path: &Path) -> Result<OnnxFile> {
    let external = External::folder(folder(path));
    OnnxFile::from_bytes(map(path)?, external).map_err(|error| error.at(path.display()))
}

/// The bytes of the file at `path`, memory-mapped: pages are read when they are touched.
///
/// The file must not be changed in place while the bytes are alive. [`write_atomic`] replaces a
/// file and is safe.
///
/// # Errors
/// When there is no regular file at `path` or it cannot be read; names the path.
pub fn map(path: &Path) -> Result<Bytes> {
    map_io(path).map_err(|cause| Error::new(cause).at(path.display()))
}

fn map_io(path: &Path) -> io::Result<Bytes> {
    // Asked before opening: opening a pipe would wait for a writer.
    let metadata = fs::metadata(path)?;
    require_file(&metadata)?;
    if metadata.len() == 0 {
        return Ok(Bytes::new()); // some systems refuse an empty mapping
    }
    let file = File::open(path)?;
    #[expect(unsafe_code, reason = "a read-only mapping; that nobody changes the file is documented")]
    let mapping = unsafe { Mmap::map(&file)? };
    Ok(Bytes::from_owner(mapping))
}

/// Bytes that one call writes.
const PIECE: usize = 1 << 16;

/// Writes `bytes` to `path` so that an interruption leaves the old file or the new one.
///
/// They go to a temporary file beside the target, to the disk, then under the target's name. On
/// failure nothing is left behind. A symbolic link keeps pointing to the file that is replaced.
///
/// # Errors
/// When the folder does not exist or is none, when something other than a regular file has the
/// name, or when the disk refuses; names the path.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_io(path, bytes).map_err(|cause| Error::new(format!("cannot write: {cause}")).at(path.display()))
}

fn write_io(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(io::Error::other("the path names no file"));
    }
    // Through links, lest `/dev/stdout` or a shared model's link be replaced.
    let target = match fs::canonicalize(path) {
        Ok(target) => {
            require_file(&fs::metadata(&target)?)?;
            target
        }
        Err(_) => path.to_owned(), // there is none yet; what else is wrong shows below
    };
    let folder = folder(&target);
    if !fs::metadata(folder).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(io::Error::other(format!("there is no folder {}; create it first", folder.display())));
    }

    let mut options = tempfile::Builder::new();
    options.prefix(".emo-").suffix(".part");
    // As for any new file; the user's umask narrows it.
    #[cfg(unix)]
    options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // The random name of the temporary file is kept out of every message.
    let mut temporary = options.tempfile_in(folder).map_err(|cause| io::Error::from(cause.kind()))?;
    // In pieces: Linux caches what one call writes in units of its size, and maps such a unit whole
    // for a reader that wants a few bytes of it. An audit reads no weights.
    for piece in bytes.chunks(PIECE) {
        temporary.as_file_mut().write_all(piece)?;
    }
    temporary.as_file().sync_all()?;
    temporary.persist(&target).map_err(|failure| failure.error)?;
    Ok(())
}

fn require_file(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let found = if metadata.is_dir() { "a folder" } else { "a device or a pipe" };
    Err(io::Error::other(format!("expected a regular file, found {found}")))
}

/// The folder that holds `path`.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != PathBuf::new()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        assert_eq!(folder(Path::new("model.onnx")), Path::new("."));
        assert_eq!(folder(Path::new("zoo/model.onnx")), Path::new("zoo"));
    }
}
