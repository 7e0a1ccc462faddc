//! How much of a file's own rounding an evaluation does.

use std::collections::HashSet;
use std::sync::Arc;

use emo_proto::tensor_proto::DataType;
use half::{bf16, f16};

use super::value::Value;

/// How much of the file's own rounding an evaluation does.
#[derive(Debug, Clone, Copy)]
pub enum Rounding<'a> {
    /// Real arithmetic: no float is rounded, whatever its declared type; QuantizeLinear and its kin give the real
    /// number in integer units, neither rounded nor saturated, so that DequantizeLinear gives back what went in.
    Exact,
    /// As the file says: each node's output is rounded to its type, where what is too large becomes infinite, and
    /// QuantizeLinear rounds half to even and saturates. Sums inside an operator are in f64.
    Written,
    /// As `Exact`, with an error, independent and uniform, at each place where `Written` rounds.
    Noise(&'a Noise),
}

/// What a noisy evaluation disturbs: half a unit in the last place of a value's type, half a scale where a value
/// is quantised.
#[derive(Debug, Clone, Default)]
pub struct Noise {
    pub seed: u64,
    /// Initializers and constants whose stored values are taken for what they are.
    pub spared: HashSet<String>,
    /// Whether operators are disturbed; otherwise constants alone are.
    pub arithmetic: bool,
    /// Whether f32 rounds, too, and sums in it, or coarser types alone.
    pub singles: bool,
    /// Whether what is quantised stays within its integers' range; otherwise ranges are as wide as the values.
    pub saturates: bool,
}

/// A binary float format: bits of its significand with the hidden one, exponent of its least normal number, and
/// its largest number.
#[derive(Debug, Clone, Copy)]
struct Format {
    bits: i32,
    least: i32,
    most: f64,
    /// Whether what is too large becomes infinite; otherwise it saturates.
    infinite: bool,
}

/// Formats that values are rounded to; the others hold what is computed here.
fn format(dtype: DataType) -> Option<Format> {
    let format = |bits, least, most, infinite| Some(Format { bits, least, most, infinite });
    match dtype {
        DataType::Float => format(24, -126, f32::MAX.into(), true),
        DataType::Float16 => format(11, -14, 65_504.0, true),
        DataType::Bfloat16 => format(8, -126, bf16::MAX.to_f64(), true),
        DataType::Float8e4m3fn => format(4, -6, 448.0, false),
        DataType::Float8e4m3fnuz => format(4, -7, 240.0, false),
        DataType::Float8e5m2 => format(3, -14, 57_344.0, false),
        DataType::Float8e5m2fnuz => format(3, -15, 57_344.0, false),
        DataType::Float4e2m1 => format(2, 0, 6.0, false),
        _ => None,
    }
}

/// Whether values of this type are rounded more coarsely than f32.
pub(crate) fn is_coarse(dtype: DataType) -> bool {
    format(dtype).is_some_and(|format| format.bits < 24)
}

/// `x` as a tensor of this type holds it.
pub(super) fn rounded(x: f64, dtype: DataType) -> f64 {
    match dtype {
        DataType::Float => f64::from(x as f32),
        DataType::Float16 => f16::from_f64(x).to_f64(),
        DataType::Bfloat16 => bf16::from_f64(x).to_f64(),
        other => format(other).map_or(x, |format| format.nearest(x)),
    }
}

impl Format {
    fn nearest(self, x: f64) -> f64 {
        if !x.is_finite() {
            return if x.is_nan() || self.infinite { x } else { self.most.copysign(x) };
        }
        let unit = 2.0 * self.half_unit(x);
        let near = (x / unit).round_ties_even() * unit;
        if near.abs() <= self.most {
            near
        } else if self.infinite {
            f64::INFINITY.copysign(x)
        } else {
            self.most.copysign(x)
        }
    }

    /// Half a unit in the last place of `x`; of what is infinite or no number, nothing.
    fn half_unit(self, x: f64) -> f64 {
        if !x.is_finite() {
            return 0.0;
        }
        let exponent = if x == 0.0 { self.least } else { libm::ilogb(x).max(self.least) };
        f64::from(exponent - self.bits).exp2()
    }
}

/// The integers that a type holds.
pub(crate) fn range(dtype: DataType) -> Option<(f64, f64)> {
    let bits = |n: i32| f64::from(n).exp2();
    Some(match dtype {
        DataType::Bool => (0.0, 1.0),
        DataType::Uint2 => (0.0, 3.0),
        DataType::Uint4 => (0.0, 15.0),
        DataType::Uint8 => (0.0, 255.0),
        DataType::Uint16 => (0.0, 65_535.0),
        DataType::Uint32 => (0.0, bits(32) - 1.0),
        DataType::Uint64 => (0.0, bits(64)),
        DataType::Int2 => (-2.0, 1.0),
        DataType::Int4 => (-8.0, 7.0),
        DataType::Int8 => (-128.0, 127.0),
        DataType::Int16 => (-32_768.0, 32_767.0),
        DataType::Int32 => (-bits(31), bits(31) - 1.0),
        DataType::Int64 => (-bits(63), bits(63)),
        _ => return None,
    })
}

/// Whether a number has four binary digits at most, as the 2 of a square or the ½ of a GELU: it was not rounded.
fn is_short(x: f64) -> bool {
    x == 0.0 || (x / f64::from(libm::ilogb(x)).exp2() * 8.0).fract() == 0.0
}

/// The rounding of one node, or of one constant.
#[derive(Debug, Clone)]
pub(crate) struct Step<'a> {
    rounding: Rounding<'a>,
    random: u64,
}

impl<'a> Step<'a> {
    /// The rounding of what is written as `name`.
    pub fn of(rounding: Rounding<'a>, name: &str) -> Self {
        let seed = if let Rounding::Noise(noise) = rounding { noise.seed } else { 0 };
        // FNV-1a: a name has its own numbers, whatever else is in the graph.
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let random = name.bytes().chain(seed.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, hash);
        Self { rounding, random }
    }

    /// A number from −1 to 1 for the value `x`. Rounding is a function of what is rounded, so that equal values, as the
    /// pixels of a flat picture, get equal errors.
    fn uniform(&self, x: f64) -> f64 {
        // SplitMix64, over what is left of the value where the last bits of its sums differ.
        let mut z = self.random ^ u64::from((x as f32).to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / f64::from(52).exp2() - 1.0
    }

    /// A real number of integer units, beside its zero point, as a tensor of this type stores it.
    pub fn quantised(&self, units: f64, zero: f64, dtype: DataType) -> f64 {
        let Some((least, most)) = range(dtype) else { return self.stored(units + zero, dtype) };
        match self.rounding {
            // Half to even before the zero point is added, which may be odd.
            Rounding::Written => (units.round_ties_even() + zero).clamp(least, most),
            Rounding::Noise(noise) if noise.arithmetic => {
                let noisy = units + zero + self.uniform(units) / 2.0;
                if noise.saturates { noisy.clamp(least, most) } else { noisy }
            }
            Rounding::Exact | Rounding::Noise(_) => units + zero,
        }
    }

    /// An element as a tensor of this type stores it.
    pub fn stored(&self, x: f64, dtype: DataType) -> f64 {
        match self.rounding {
            Rounding::Exact => x,
            Rounding::Written => rounded(x, dtype),
            Rounding::Noise(noise) if !noise.arithmetic => x,
            Rounding::Noise(noise) => match format(dtype) {
                Some(format) if noise.singles || format.bits < 24 => {
                    x + self.uniform(x) * format.half_unit(x)
                }
                _ => x,
            },
        }
    }

    /// What a node computed, as the file stores it; `terms` are those of its longest sum.
    pub fn store(&self, value: &mut Value, terms: usize) {
        if format(value.dtype).is_none() || matches!(self.rounding, Rounding::Exact) {
            return;
        }
        let summed = match self.rounding {
            Rounding::Noise(noise) if noise.arithmetic && noise.singles && terms > 1 => {
                let square: f64 = value.data.iter().filter(|x| x.is_finite()).map(|x| x * x).sum();
                let rms = (square / value.len().max(1) as f64).sqrt();
                f64::from(-24).exp2() * (terms as f64).sqrt() * rms
            }
            _ => 0.0,
        };
        let dtype = value.dtype;
        for x in Arc::make_mut(&mut value.data) {
            let sum = if summed > 0.0 { *x + summed * self.uniform(*x) } else { *x };
            *x = self.stored(sum, dtype);
        }
    }

    /// A constant of the file; `weight` where it holds integers that are a weight in units of a scale.
    pub fn constant(&self, value: &mut Value, name: &str, weight: bool) {
        let Rounding::Noise(noise) = self.rounding else { return };
        if noise.spared.contains(name) {
            return;
        }
        match format(value.dtype) {
            Some(format) if noise.singles || format.bits < 24 => {
                for x in Arc::make_mut(&mut value.data).iter_mut().filter(|x| !is_short(**x)) {
                    *x += self.uniform(*x) * format.half_unit(*x);
                }
            }
            None if weight => {
                Arc::make_mut(&mut value.data).iter_mut().for_each(|x| *x += self.uniform(*x) / 2.0);
            }
            _ => {}
        }
    }
}
