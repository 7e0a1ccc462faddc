//! Tensors as little-endian elements, wherever a file keeps their payload.

use bytes::Bytes;
use half::{bf16, f16};

pub use crate::external::External;
pub use crate::packed::bits;
use crate::tensor_proto::DataLocation;
pub use crate::tensor_proto::DataType;
use crate::{Error, Result, TensorProto, packed, typed};

/// A dense tensor: little-endian elements in row-major order, shared, never copied by a clone.
///
/// Types below 8 bits are packed as in the schema's `raw_data`. The length in bytes always agrees
/// with the element type and the dimensions that the tensor was made with.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// The element type; never `UNDEFINED` or `STRING`.
    pub dtype: DataType,
    /// The shape; empty for a scalar.
    pub dims: Vec<usize>,
    bytes: Bytes,
}

impl Tensor {
    /// A tensor of elements that are in memory already.
    ///
    /// # Errors
    /// When `bytes` has another length than `dtype` and `dims` need, when that length is no number
    /// of bytes on this machine, or when elements of `dtype` have no fixed size.
    pub fn new(dtype: DataType, dims: Vec<usize>, bytes: Bytes) -> Result<Self> {
        let need = byte_len(dtype, &dims)?;
        if bytes.len() != need {
            let (name, found) = (dtype.as_str_name(), bytes.len());
            return Err(Error::new(format!("expected {need} bytes for {name} {dims:?}, found {found}")));
        }
        Ok(Self { dtype, dims, bytes })
    }

    /// A FLOAT tensor; the values are not copied on little-endian machines.
    ///
    /// # Errors
    /// When `dims` needs another number of values.
    pub fn from_f32(dims: Vec<usize>, values: Vec<f32>) -> Result<Self> {
        #[cfg(target_endian = "little")]
        let bytes = {
            struct Floats(Vec<f32>);
            impl AsRef<[u8]> for Floats {
                fn as_ref(&self) -> &[u8] {
                    bytemuck::cast_slice(&self.0)
                }
            }
            Bytes::from_owner(Floats(values))
        };
        #[cfg(not(target_endian = "little"))]
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Self::new(DataType::Float, dims, bytes)
    }

    /// An INT64 tensor.
    ///
    /// # Errors
    /// When `dims` needs another number of values.
    pub fn from_i64(dims: Vec<usize>, values: &[i64]) -> Result<Self> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(DataType::Int64, dims, bytes)
    }

    /// The tensor that a message tells of. Raw and external data are shared, typed fields copied.
    ///
    /// # Errors
    /// When the message contradicts the schema (no or several payloads, a payload of another type
    /// or length, a negative dimension), keeps strings or a segment, or its external data cannot be
    /// read from `external`; names the tensor.
    pub fn decode(proto: &TensorProto, external: &External) -> Result<Self> {
        decode(proto, external).map_err(|error| error.at(format!("tensor {:?}", proto.name())))
    }

    /// The message that holds this tensor as raw data, shared.
    pub fn encode(&self, name: &str) -> TensorProto {
        TensorProto {
            name: Some(name.to_owned()),
            dims: self.dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(self.dtype.into()),
            raw_data: Some(self.bytes.clone()),
            ..TensorProto::default()
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, little-endian, row-major.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The elements of a float tensor (4 to 64 bits), exactly.
    ///
    /// # Errors
    /// When the element type is another.
    pub fn f64s(&self) -> Result<Vec<f64>> {
        Ok(match self.dtype {
            DataType::Float16 => self.read(|b| f16::from_le_bytes(b).to_f64()),
            DataType::Bfloat16 => self.read(|b| bf16::from_le_bytes(b).to_f64()),
            DataType::Float => self.read(|b| f32::from_le_bytes(b).into()),
            DataType::Double => self.read(f64::from_le_bytes),
            other => match packed::floats(other) {
                Some(format) => self.codes().map(|code| format.decode(code)).collect(),
                None => return Err(mismatch("a float type", other)),
            },
        })
    }

    /// The elements of a float tensor (4 to 64 bits); doubles are rounded to nearest, ties to even.
    ///
    /// # Errors
    /// When the element type is another.
    pub fn f32s(&self) -> Result<Vec<f32>> {
        Ok(match self.dtype {
            DataType::Float16 => self.read(|b| f16::from_le_bytes(b).to_f32()),
            DataType::Bfloat16 => self.read(|b| bf16::from_le_bytes(b).to_f32()),
            DataType::Float => self.read(f32::from_le_bytes),
            DataType::Double => self.read(|b| f64::from_le_bytes(b) as f32),
            // Every value of 8 bits or less is a float, exactly.
            _ => self.f64s()?.into_iter().map(|value| value as f32).collect(),
        })
    }

    /// The elements of an integer tensor (2 to 64 bits, signed or not) or of BOOL, as 0 and 1.
    ///
    /// # Errors
    /// When the element type is another, or a UINT64 element exceeds `i64::MAX`.
    pub fn i64s(&self) -> Result<Vec<i64>> {
        Ok(match self.dtype {
            DataType::Bool => self.read(|[b]| (b != 0).into()),
            DataType::Int8 => self.read(|b| i8::from_le_bytes(b).into()),
            DataType::Int16 => self.read(|b| i16::from_le_bytes(b).into()),
            DataType::Int32 => self.read(|b| i32::from_le_bytes(b).into()),
            DataType::Int64 => self.read(i64::from_le_bytes),
            DataType::Uint8 => self.read(|b| u8::from_le_bytes(b).into()),
            DataType::Uint16 => self.read(|b| u16::from_le_bytes(b).into()),
            DataType::Uint32 => self.read(|b| u32::from_le_bytes(b).into()),
            DataType::Uint64 => {
                let signed = |value| {
                    let fail = |_| Error::new(format!("expected at most {}, found {value}", i64::MAX));
                    i64::try_from(value).map_err(fail)
                };
                return self.read(u64::from_le_bytes).into_iter().map(signed).collect();
            }
            DataType::Uint2 | DataType::Uint4 => self.codes().map(i64::from).collect(),
            DataType::Int2 => self.codes().map(|code| packed::signed(code, 2)).collect(),
            DataType::Int4 => self.codes().map(|code| packed::signed(code, 4)).collect(),
            other => return Err(mismatch("an integer type or BOOL", other)),
        })
    }

    /// A float tensor as FLOAT; free when it already is.
    ///
    /// # Errors
    /// When the element type is no float type.
    pub fn into_f32(self) -> Result<Self> {
        if self.dtype == DataType::Float {
            return Ok(self);
        }
        let values = self.f32s()?;
        Self::from_f32(self.dims, values)
    }

    /// The bits of elements of 8 bits or less.
    fn codes(&self) -> impl Iterator<Item = u8> {
        packed::codes(&self.bytes, bits(self.dtype).unwrap_or(8), self.len())
    }

    /// Elements of `N` bytes each. A payload has no alignment, hence no casts.
    fn read<const N: usize, T>(&self, element: impl Fn([u8; N]) -> T) -> Vec<T> {
        self.bytes.as_chunks::<N>().0.iter().map(|&bytes| element(bytes)).collect()
    }
}

fn decode(proto: &TensorProto, external: &External) -> Result<Tensor> {
    let code = proto.data_type();
    let dtype = DataType::try_from(code).map_err(|_| {
        Error::new(format!("expected an element type of the ONNX schema, found number {code}"))
    })?;
    let size = |&dim: &i64| {
        usize::try_from(dim)
            .map_err(|_| Error::new(format!("expected a dimension of 0 or more, found {dim}")))
    };
    let dims = proto.dims.iter().map(size).collect::<Result<Vec<_>>>()?;
    let need = byte_len(dtype, &dims)?;
    if proto.segment.is_some() {
        return Err(Error::new(
            "expected a whole tensor, found a segment of one; save the model with whole tensors",
        ));
    }

    let raw = proto.raw_data.as_ref().filter(|raw| !raw.is_empty());
    let typed = typed::field(proto)?;
    let place = proto.data_location.unwrap_or(DataLocation::Default.into());
    let outside = DataLocation::try_from(place).map_err(|_| {
        Error::new(format!("expected a data location of the ONNX schema, found number {place}"))
    })? == DataLocation::External;
    let bytes = match (raw, typed, outside) {
        (None, None, true) => external.read(&proto.external_data, need)?,
        (Some(raw), None, false) => raw.clone(),
        (None, Some(field), false) => typed::bytes(proto, field, dtype)?,
        (None, None, false) => Bytes::new(),
        (Some(_), Some(field), _) => return Err(typed::two_payloads("raw_data", field.name())),
        (Some(_), None, true) => return Err(typed::two_payloads("raw_data", "external data")),
        (None, Some(field), true) => return Err(typed::two_payloads(field.name(), "external data")),
    };
    Tensor::new(dtype, dims, bytes)
}

/// The bytes that a tensor takes; types below 8 bits are packed.
pub(crate) fn byte_len(dtype: DataType, dims: &[usize]) -> Result<usize> {
    let bits = bits(dtype).ok_or_else(|| {
        Error::new(format!("expected elements of a fixed size, found {}", dtype.as_str_name()))
    })?;
    // Zeros count as ones, so that no product of a tensor's dimensions can overflow, in any order.
    let bound = dims.iter().try_fold(bits, |product, &dim| product.checked_mul(dim.max(1)));
    if bound.is_none_or(|bits| i64::try_from(bits).is_err()) {
        return Err(Error::new(format!("expected a tensor that fits in memory, found dimensions {dims:?}")));
    }
    Ok((dims.iter().product::<usize>() * bits).div_ceil(8))
}

fn mismatch(expected: &str, found: DataType) -> Error {
    Error::new(format!("expected elements of {expected}, found {}", found.as_str_name()))
}
