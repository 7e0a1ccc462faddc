//! Files of `torch.save`: the zip format, and the one before PyTorch 1.6.
//!
//! The only file that names `pytorch_reader`, which interprets a pickle's tensors and
//! plain data and calls nothing.

use std::collections::BTreeSet;
use std::io::{self, Cursor, Read};
use std::path::Path;

use emo_proto::Bytes;
use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};
use pytorch_reader::{DType, MAX_PICKLE_SIZE, PickleError, PytorchError, PytorchReader};
use zip::ZipArchive;
use zip::result::ZipResult;

use super::callables;
use super::listing::{Entry, Listing, not_float};
use super::mismatch::Shown;

const ZIP: &[u8] = b"PK";

/// Whether a file opens as a zip archive or a pickle does.
pub(super) fn is(file: &[u8]) -> bool {
    // Protocols from 2 open with their number; before, with a tuple, dictionary, list,
    // callable or, in PyTorch's own format, the long integer that is its magic number.
    let pickle = match file {
        [0x80, protocol, ..] => *protocol <= 5,
        [b'(' | b'}' | b']' | b'c', ..] => true,
        _ => file.starts_with(b"L119547037146038801333356"),
    };
    pickle || file.starts_with(ZIP)
}

/// Every tensor of the file at `path`, whose content `file` is, by its path through the
/// checkpoint's dictionaries: `net_E.head.bias`.
///
/// Nothing is read of a tensor but its place, until its entry is.
pub(super) fn list(path: &Path, file: &Bytes) -> Result<Listing> {
    refuse_code(file)?;
    let tensors = PytorchReader::new(path).map_err(|error| {
        let advice = if truncated(&error) { "; it may be truncated, fetch it again" } else { "" };
        Error::new(format!(
            "expected a checkpoint of torch.save, found a damaged or foreign one: {error}{advice}"
        ))
    })?;
    Ok(tensors.into_tensors().into_iter().map(|(name, tensor)| (name, entry(tensor))).collect())
}

fn entry(mut tensor: pytorch_reader::Tensor) -> Entry {
    // Whoever reads the entry puts its name before an error.
    tensor.name.clear();
    let shape = tensor.shape().to_vec();
    let read = move || {
        let dtype = float(tensor.dtype())?;
        let bytes = tensor.read().map_err(Error::new)?;
        Tensor::new(dtype, tensor.shape().to_vec(), little_endian(bytes, tensor.dtype()).into())?.into_f32()
    };
    Entry { shape, read: Box::new(read) }
}

/// The reader gives elements in the machine's byte order, a tensor takes little-endian ones.
fn little_endian(mut bytes: Vec<u8>, dtype: DType) -> Vec<u8> {
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
    }
    bytes
}

fn float(dtype: DType) -> Result<DataType> {
    match dtype {
        DType::F16 => Ok(DataType::Float16),
        DType::BF16 => Ok(DataType::Bfloat16),
        DType::F32 => Ok(DataType::Float),
        DType::F64 => Ok(DataType::Double),
        DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool => Err(not_float(dtype)),
    }
}

/// Whether the file ends before what it announces.
fn truncated(error: &PytorchError) -> bool {
    match error {
        PytorchError::Io(error) | PytorchError::Pickle(PickleError::Io(error)) => {
            error.kind() == io::ErrorKind::UnexpectedEof
        }
        PytorchError::Zip(_) => true,
        _ => false,
    }
}

/// An error that names every callable of the file's pickles that is neither a tensor's nor
/// plain data's.
fn refuse_code(file: &Bytes) -> Result<()> {
    let names = if file.starts_with(ZIP) {
        // What is no archive is the reader's to tell.
        archived_pickles(file)
            .unwrap_or_default()
            .iter()
            .flat_map(|pickle| callables::foreign(pickle))
            .collect()
    } else {
        callables::foreign(file)
    };
    refuse(&names)
}

fn refuse(names: &BTreeSet<String>) -> Result<()> {
    /// Callables that are named; the rest is counted.
    const NAMED: usize = 5;

    if names.is_empty() {
        return Ok(());
    }
    let mut named =
        names.iter().take(NAMED).map(|name| Shown(name).to_string()).collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        named += &format!(" and {} more", names.len() - NAMED);
    }
    Err(Error::new(format!(
        "expected tensors and plain data, found a pickle that carries code, which Python would import and call: \
         {named}; nothing of it was run; ask for the tensors alone, torch.save(model.state_dict(), …)"
    )))
}

/// The archive's `data.pkl`, wherever its folder is.
fn archived_pickles(file: &Bytes) -> ZipResult<Vec<Vec<u8>>> {
    let mut archive = ZipArchive::new(Cursor::new(file))?;
    let names = archive.file_names().map(|name| name.map(String::from)).collect::<ZipResult<Vec<_>>>()?;
    let mut pickles = Vec::new();
    for name in names.iter().filter(|name| name.ends_with("data.pkl")) {
        let mut pickle = Vec::new();
        archive.by_name(name)?.take(MAX_PICKLE_SIZE).read_to_end(&mut pickle)?;
        pickles.push(pickle);
    }
    Ok(pickles)
}
