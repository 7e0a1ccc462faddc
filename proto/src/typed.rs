//! The typed payload fields of a [`TensorProto`].

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::packed::bits;
use crate::tensor_proto::DataType;
use crate::{Error, Result, TensorProto};

/// The fields that hold elements of some types, each in its own encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Float,
    Int32,
    String,
    Int64,
    Double,
    Uint64,
}

impl Field {
    /// The field that the schema asks of an element type.
    fn of(dtype: DataType) -> Option<Self> {
        use DataType::*;
        Some(match dtype {
            Undefined => return None,
            String => Self::String,
            Float | Complex64 => Self::Float,
            Double | Complex128 => Self::Double,
            Int64 => Self::Int64,
            Uint32 | Uint64 => Self::Uint64,
            Bool | Uint2 | Uint4 | Uint8 | Uint16 | Int2 | Int4 | Int8 | Int16 | Int32 => Self::Int32,
            Float4e2m1 | Float6e2m3 | Float6e3m2 | Float16 | Bfloat16 => Self::Int32,
            Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz | Float8e8m0 => Self::Int32,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Float => "float_data",
            Self::Int32 => "int32_data",
            Self::String => "string_data",
            Self::Int64 => "int64_data",
            Self::Double => "double_data",
            Self::Uint64 => "uint64_data",
        }
    }
}

/// The typed field that holds something, of which there may be one.
pub(crate) fn field(proto: &TensorProto) -> Result<Option<Field>> {
    let fields = [
        (Field::Float, proto.float_data.len()),
        (Field::Int32, proto.int32_data.len()),
        (Field::String, proto.string_data.len()),
        (Field::Int64, proto.int64_data.len()),
        (Field::Double, proto.double_data.len()),
        (Field::Uint64, proto.uint64_data.len()),
    ];
    let mut filled = fields.into_iter().filter(|(_, len)| *len > 0).map(|(field, _)| field);
    let first = filled.next();
    if let (Some(first), Some(second)) = (first, filled.next()) {
        return Err(two_payloads(first.name(), second.name()));
    }
    Ok(first)
}

/// The elements in `field` as raw data would have them.
pub(crate) fn bytes(proto: &TensorProto, field: Field, dtype: DataType) -> Result<Bytes> {
    let expected = Field::of(dtype);
    if expected != Some(field) {
        let expected = expected.map_or("none", Field::name);
        let (found, dtype) = (field.name(), dtype.as_str_name());
        return Err(Error::new(format!(
            "expected the payload of {dtype} in {expected}, found it in {found}"
        )));
    }
    Ok(match field {
        Field::Float => proto.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Field::Double => proto.double_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Field::Int64 => proto.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Field::Uint64 => narrow(&proto.uint64_data, dtype)?,
        Field::Int32 => narrow(&proto.int32_data, dtype)?,
        Field::String => return Err(Error::new("expected elements of a fixed size, found STRING")),
    })
}

/// Integers of a wider field, each in the bytes of its own type.
fn narrow<T: Copy + Into<i128>>(values: &[T], dtype: DataType) -> Result<Bytes> {
    let range = range(dtype);
    let width = bits(dtype).unwrap_or(0).div_ceil(8);
    let mut bytes = Vec::with_capacity(values.len() * width);
    for value in values {
        let value: i128 = (*value).into();
        if !range.contains(&value) {
            let (dtype, start, end) = (dtype.as_str_name(), range.start(), range.end());
            return Err(Error::new(format!("expected {dtype} stored as {start} to {end}, found {value}")));
        }
        bytes.extend_from_slice(&value.to_le_bytes()[..width]);
    }
    Ok(if bits(dtype) == Some(6) { pack_6_bits(&bytes) } else { bytes.into() })
}

/// What a wider field may hold for an element: its value, the bits of a float, or a byte of packed elements.
fn range(dtype: DataType) -> RangeInclusive<i128> {
    use DataType::*;
    match dtype {
        Bool => 0..=1,
        Int8 => i8::MIN.into()..=i8::MAX.into(),
        Int16 => i16::MIN.into()..=i16::MAX.into(),
        Int32 => i32::MIN.into()..=i32::MAX.into(),
        Float6e2m3 | Float6e3m2 => 0..=63,
        other => 0..=(1 << bits(other).unwrap_or(0).clamp(8, 64)) - 1,
    }
}

/// Four elements in three bytes, the first in the lowest bits.
fn pack_6_bits(elements: &[u8]) -> Bytes {
    let pack = |group: &[u8]| {
        let word = group.iter().rev().fold(0_u32, |word, &element| word << 6 | u32::from(element));
        word.to_le_bytes().into_iter().take((6 * group.len()).div_ceil(8))
    };
    elements.chunks(4).flat_map(pack).collect()
}

pub(crate) fn two_payloads(first: &str, second: &str) -> Error {
    Error::new(format!("expected one payload, found both {first} and {second}"))
}
