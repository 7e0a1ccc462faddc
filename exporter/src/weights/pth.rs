//! Files of `torch.save`: the zip format, and the one before PyTorch 1.6.
//!
//! The only file that names `pytorch_reader`, which interprets a pickle's tensors and
//! plain data and calls nothing.

use std::io::{self, Cursor, Read};
use std::path::Path;

use emo_proto::Bytes;
use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};
use pytorch_reader::{DType, PickleError, PytorchError, PytorchReader};
use zip::ZipArchive;
use zip::result::ZipResult;

use super::callables;
use super::entry::{Entry, Listing, not_float};
use super::mismatch::Shown;

const ZIP: &[u8] = b"PK";
/// Bytes of an archive's pickle, which tells where tensors are: some 150 for each.
const LONGEST_PICKLE: u64 = 1 << 24;

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
    let tensors = PytorchReader::new(path).map_err(|error| damaged(&error))?.into_tensors();
    Ok(tensors.into_iter().map(|(name, tensor)| (name, entry(tensor))).collect())
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

fn damaged(error: &PytorchError) -> Error {
    let truncated = match error {
        PytorchError::Io(cause) | PytorchError::Pickle(PickleError::Io(cause)) => {
            cause.kind() == io::ErrorKind::UnexpectedEof
        }
        PytorchError::Zip(_) => true,
        _ => false,
    };
    let advice = if truncated { "; it may be truncated, fetch it again" } else { "" };
    Error::new(format!(
        "expected a checkpoint of torch.save, found a damaged or foreign one: {error}{advice}"
    ))
}

/// An error that names every callable of the file's pickles that is neither a tensor's nor
/// plain data's.
fn refuse_code(file: &Bytes) -> Result<()> {
    /// Callables that are named; the rest is counted.
    const LISTED: usize = 5;

    let callables = if file.starts_with(ZIP) {
        let pickle = archived_pickle(file).map_err(|error| damaged(&error))?;
        callables::foreign(&pickle).filter(|_| pickle.len() as u64 <= LONGEST_PICKLE)
    } else {
        callables::foreign(file)
    };
    let callables = callables.ok_or_else(|| {
        Error::new(
            "expected a pickle of some hundred tensors, found one that is far longer: save the weights alone",
        )
    })?;
    if callables.is_empty() {
        return Ok(());
    }
    let mut list: Vec<String> = callables.iter().take(LISTED).map(|name| Shown(name).to_string()).collect();
    if callables.len() > LISTED {
        list.push(format!("and {} more", callables.len() - LISTED));
    }
    Err(Error::new(format!(
        "expected tensors and plain data, found a pickle that carries code, which Python would import and call: \
         {}; nothing of it was run; ask for the tensors alone, torch.save(model.state_dict(), …)",
        list.join(", ")
    )))
}

/// The archive's `data.pkl`, empty if there is none; of several the reader's choice, which
/// stands in the folder of the shortest name.
fn archived_pickle(file: &Bytes) -> Result<Vec<u8>, PytorchError> {
    let mut archive = ZipArchive::new(Cursor::new(file))?;
    let names = archive.file_names().collect::<ZipResult<Vec<_>>>()?;
    let folders = names.iter().filter_map(|name| name.strip_suffix("data.pkl"));
    let folder = folders.filter(|folder| folder.is_empty() || folder.ends_with('/')).min_by_key(|f| f.len());
    let mut pickle = Vec::new();
    if let Some(name) = folder.map(|folder| format!("{folder}data.pkl")) {
        archive.by_name(&name)?.take(LONGEST_PICKLE + 1).read_to_end(&mut pickle)?;
    }
    Ok(pickle)
}
