//! Files: opened by a name from anybody, without copying weights; written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::map::{self, Stamp};
pub use crate::map::{pieces, settled};
pub use crate::write::{sweep, write_atomic};
use crate::{Error, ModelProto, Result, decode, tensor::External};
use bytes::Bytes;

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
    /// protobuf's limit of 100 messages, or without a graph; when its tensors hold the bytes of a file beside it
    /// over and over.
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
        let model = decode::model(bytes.clone())
            .map_err(|cause| not_onnx(lookalike().unwrap_or_else(|| cause.to_string())))?;
        if model.graph.is_none() {
            return Err(not_onnx(lookalike().unwrap_or_else(|| "it holds no graph".to_owned())));
        }
        external.bound(&model)?;
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
    let file = OnnxFile::from_bytes(map(path)?, external).map_err(|error| error.at(path.display()))?;
    map::release(&file.bytes); // the graph is decoded; weights are read when they are asked for
    Ok(file)
}

/// The bytes of the file at `path`, memory-mapped: pages are read when they are touched, so that a large file costs
/// no more memory than what is asked of it.
///
/// For what is judged and not kept: the file may change meanwhile. Where it is cut short, the process ends with an
/// error; whatever else is done to it, [`settled`] tells. [`write_atomic`] replaces a file and leaves the map as it is.
///
/// # Errors
/// When there is no regular file at `path` or it cannot be read; names the path.
pub fn map(path: &Path) -> Result<Bytes> {
    regular(path).and_then(|file| map::map(&file, path)).map_err(|cause| Error::new(cause).at(path.display()))
}

/// A copy of the file at `path`, which has `most` bytes at most.
///
/// For what is kept, or told by its digest: nobody changes the copy.
///
/// # Errors
/// When there is no regular file at `path`, when it is larger, cannot be read or changes meanwhile; names the path.
pub fn read(path: &Path, most: u64) -> Result<Bytes> {
    let source = Source::open(path)?;
    let bytes = source.whole(most)?;
    source.settled()?;
    Ok(bytes)
}

/// The text of the file at `path`, which has `most` bytes at most.
///
/// # Errors
/// Those of [`read`], and the file is no UTF-8.
pub fn text(path: &Path, most: u64) -> Result<String> {
    let bytes = read(path, most)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Error::new(format!("expected text in UTF-8, found {error}")).at(path.display()))?;
    Ok(text.to_owned())
}

/// A file that is read by pieces, for what is too large to be read whole.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: PathBuf,
    stamp: Stamp,
}

impl Source {
    /// # Errors
    /// When there is no regular file at `path`; names the path.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = regular(path).and_then(|file| Ok((Stamp::settling(&file)?, file)));
        let (stamp, file) = opened.map_err(|cause| Error::new(cause).at(path.display()))?;
        Ok(Self { file, path: path.to_owned(), stamp })
    }

    /// How many it had when it was opened.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.stamp.bytes()
    }

    /// A copy of the whole file, which has `most` bytes at most.
    ///
    /// # Errors
    /// It is larger; those of [`Source::read`].
    pub fn whole(&self, most: u64) -> Result<Bytes> {
        let found = self.bytes();
        if found > most {
            let why = format!("expected a file of {most} bytes at most, found {found}");
            return Err(Error::new(why).at(self.path.display()));
        }
        self.read(0..found)
    }

    /// A copy of a part of the file.
    ///
    /// # Errors
    /// It has no such part any more, memory does not hold it, or the disk fails; names the path.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let at = |error: Error| error.at(self.path.display());
        let length = range.end.saturating_sub(range.start);
        let mut bytes = Vec::new();
        let room = usize::try_from(length).ok().filter(|length| bytes.try_reserve_exact(*length).is_ok());
        room.ok_or_else(|| at(Error::new(format!("expected memory for {length} bytes, found too little"))))?;
        // From where nobody else reads: several threads may share the file.
        let mut reader = At { file: &self.file, offset: range.start }.take(length);
        reader.read_to_end(&mut bytes).map_err(|cause| at(Error::new(cause)))?;
        if bytes.len() as u64 != length {
            return Err(map::changed(&self.path));
        }
        Ok(bytes.into())
    }

    /// Whether the file holds what it held when it was opened, so that the parts that were read are of one content.
    ///
    /// # Errors
    /// It was written to, cut short, replaced or deleted.
    pub fn settled(&self) -> Result<()> {
        match self.stamp.is_of(&self.path) {
            true => Ok(()),
            false => Err(map::changed(&self.path)),
        }
    }
}

/// Reads a file from an offset of its own.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.offset)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(self.file, buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Opens the regular file at `path` for reading: a pipe would wait for a writer, a device may never end.
///
/// # Errors
/// There is none; the system's words.
pub fn regular(path: &Path) -> io::Result<File> {
    opened(path, File::options().read(true))
}

/// Opens the regular file at `path` for locking; it is made if need be.
///
/// # Errors
/// Something else has the name, or the folder refuses.
pub fn lockable(path: &Path) -> io::Result<File> {
    opened(path, File::options().create(true).truncate(false).write(true))
}

fn opened(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Before it is opened, for opening alone does something to some devices; and after, for what was opened.
    match fs::metadata(path) {
        Ok(metadata) => require_file(&metadata)?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause),
    }
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NONBLOCK);
    let file = options.open(path)?;
    require_file(&file.metadata()?)?;
    Ok(file)
}

pub(crate) fn require_file(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let found = if metadata.is_dir() { "a folder" } else { "a device or a pipe" };
    Err(io::Error::other(format!("expected a regular file, found {found}")))
}

/// The folder that holds `path`.
pub(crate) fn folder(path: &Path) -> &Path {
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
