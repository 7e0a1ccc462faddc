//! Safetensors files: f32 tensors stay in the mapped file, uncopied.

use std::collections::BTreeMap;

use emo_proto::Bytes;
use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};
use safetensors::{Dtype, SafeTensors};

use super::entry::{Entry, Listing};

/// Whether a file opens as the format does: the length of a JSON header, then the header.
pub(super) fn is(file: &[u8]) -> bool {
    /// The longest header that the format allows.
    const MAX_HEADER: u64 = 100_000_000;

    let header = file.first_chunk().map(|length| u64::from_le_bytes(*length));
    header.is_some_and(|length| length <= MAX_HEADER) && file.get(8) == Some(&b'{')
}

/// Bytes of a header, which is read into ten times as many; the models' have a hundredth.
const LONGEST_HEADER: u64 = 1 << 22;

/// Every tensor of the file.
pub(super) fn list(file: &Bytes) -> Result<Listing> {
    let header = file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if header > LONGEST_HEADER {
        return Err(Error::new(format!(
            "expected a safetensors file whose header has {LONGEST_HEADER} bytes at most, found {header}: it is no \
             checkpoint of these models"
        )));
    }
    let tensors = SafeTensors::deserialize(file).map_err(|error| {
        Error::new(format!("damaged safetensors file: {error}; it may be truncated, fetch it again"))
    })?;
    let entry = |view: &safetensors::tensor::TensorView<'_>| {
        let (dtype, shape, data) = (view.dtype(), view.shape().to_vec(), file.slice_ref(view.data()));
        let dims = shape.clone();
        let read = move || Tensor::new(float(dtype)?, dims.clone(), data.clone())?.into_f32();
        Entry { shape, read: Box::new(read) }
    };
    Ok(tensors.iter().map(|(name, view)| (name.to_owned(), entry(&view))).collect::<BTreeMap<_, _>>())
}

fn float(dtype: Dtype) -> Result<DataType> {
    match dtype {
        Dtype::F16 => Ok(DataType::Float16),
        Dtype::BF16 => Ok(DataType::Bfloat16),
        Dtype::F32 => Ok(DataType::Float),
        Dtype::F64 => Ok(DataType::Double),
        other => Err(super::entry::not_float(other)),
    }
}
