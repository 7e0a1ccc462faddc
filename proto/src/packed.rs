//! Elements of 8 bits or less: how they are packed and what their codes are worth.

use crate::tensor_proto::DataType;

/// A small float: sign, exponent, mantissa, from the highest bit down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    exponent: u32,
    mantissa: u32,
    bias: i32,
    special: Special,
}

/// Which codes are no finite number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    /// None.
    Finite,
    /// The highest exponent: infinity with mantissa 0, NaN otherwise.
    Ieee,
    /// The highest exponent and mantissa alone: NaN.
    Highest,
    /// What would be negative zero: NaN.
    NegativeZero,
    /// No sign, no zero: powers of two; the highest code is NaN.
    Power,
}

/// The format of a float type of 8 bits or less (OCP MX and 8-bit float specifications, and the
/// FNUZ variants as the ONNX documentation defines them).
pub(crate) fn floats(dtype: DataType) -> Option<Format> {
    use Special::{Finite, Highest, Ieee, NegativeZero, Power};
    let (exponent, mantissa, bias, special) = match dtype {
        DataType::Float4e2m1 => (2, 1, 1, Finite),
        DataType::Float6e2m3 => (2, 3, 1, Finite),
        DataType::Float6e3m2 => (3, 2, 3, Finite),
        DataType::Float8e4m3fn => (4, 3, 7, Highest),
        DataType::Float8e4m3fnuz => (4, 3, 8, NegativeZero),
        DataType::Float8e5m2 => (5, 2, 15, Ieee),
        DataType::Float8e5m2fnuz => (5, 2, 16, NegativeZero),
        DataType::Float8e8m0 => (8, 0, 127, Power),
        _ => return None,
    };
    Some(Format { exponent, mantissa, bias, special })
}

impl Format {
    /// What a code is worth, exactly.
    pub(crate) fn decode(self, code: u8) -> f64 {
        let Self { exponent, mantissa, bias, special } = self;
        let field = |from: u32, width: u32| (u32::from(code) >> from) & ((1 << width) - 1);
        let (e, m) = (field(mantissa, exponent), field(0, mantissa));
        if special == Special::Power {
            return if code == u8::MAX { f64::NAN } else { power_of_two(e as i32 - bias) };
        }
        let negative = field(exponent + mantissa, 1) == 1;
        let (top_e, top_m) = (e == (1 << exponent) - 1, m == (1 << mantissa) - 1);
        let magnitude = match special {
            Special::Ieee if top_e && m == 0 => f64::INFINITY,
            Special::Ieee if top_e => f64::NAN,
            Special::Highest if top_e && top_m => f64::NAN,
            Special::NegativeZero if negative && e == 0 && m == 0 => f64::NAN,
            // Without a hidden bit below the lowest exponent.
            _ if e == 0 => f64::from(m) * power_of_two(1 - bias - mantissa as i32),
            _ => f64::from((1 << mantissa) + m) * power_of_two(e as i32 - bias - mantissa as i32),
        };
        if negative { -magnitude } else { magnitude }
    }
}

/// `2^exponent`, which is well within the normal numbers.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// The lowest `width` bits as a number in two's complement.
pub(crate) fn signed(code: u8, width: u32) -> i64 {
    let code = i64::from(code);
    code - ((code >> (width - 1)) << width)
}

/// `count` codes of `width` bits each (8 at most), the first in the lowest bits.
pub(crate) fn codes(bytes: &[u8], width: usize, count: usize) -> impl Iterator<Item = u8> {
    let byte = |index: usize| u16::from(bytes.get(index).copied().unwrap_or(0));
    (0..count).map(move |i| {
        let at = i * width;
        let word = byte(at / 8) | byte(at / 8 + 1) << 8;
        ((word >> (at % 8)) & ((1 << width) - 1)) as u8
    })
}

/// The size of an element in bits, as `raw_data` packs it; `None` where it has no fixed one.
pub fn bits(dtype: DataType) -> Option<usize> {
    use DataType::*;
    Some(match dtype {
        Undefined | String => return None,
        Uint2 | Int2 => 2,
        Uint4 | Int4 | Float4e2m1 => 4,
        Float6e2m3 | Float6e3m2 => 6,
        Bool | Uint8 | Int8 => 8,
        Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz | Float8e8m0 => 8,
        Uint16 | Int16 | Float16 | Bfloat16 => 16,
        Uint32 | Int32 | Float => 32,
        Uint64 | Int64 | Double | Complex64 => 64,
        Complex128 => 128,
    })
}
