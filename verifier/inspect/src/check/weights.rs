//! What the numbers of weights look like. Payloads are read once, a tensor at a time.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;

use emo_proto::TensorProto;
use emo_proto::file::pieces;
use emo_proto::tensor::{DataType, Tensor};

use super::{Check, Findings, Severity, Subject};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "nan-weights",
        severity: Severity::Warning,
        what: "no weight is NaN",
        run: |s, f| {
            for weight in s.weights().iter().filter(|weight| weight.nan > 0) {
                let (nan, count) = (weight.nan, weight.count);
                f.add(
                    weight.place.clone(),
                    format!("expected numbers, found {nan} NaN of {count}; train or convert again"),
                );
            }
        },
    },
    Check {
        code: "infinite-weights",
        severity: Severity::Warning,
        what: "no weight is infinite; a lone number may be, as masks need it",
        run: |s, f| {
            for weight in s.weights().iter().filter(|weight| weight.infinite > 0 && weight.count > 1) {
                let (infinite, count) = (weight.infinite, weight.count);
                f.add(
                    weight.place.clone(),
                    format!("expected finite numbers, found {infinite} infinite of {count}"),
                );
            }
        },
    },
    Check {
        code: "denormal-weights",
        severity: Severity::Warning,
        what: "few weights are denormal: they are slow on many processors, and zero on others",
        run: |s, f| {
            for weight in s.weights().iter().filter(|w| w.denormal * FLOOD > w.count && w.denormal >= FLOOD) {
                let (denormal, count) = (weight.denormal, weight.count);
                f.add(
                    weight.place.clone(),
                    format!(
                        "expected normal numbers, found {denormal} denormal of {count}; flush them to zero"
                    ),
                );
            }
        },
    },
    Check {
        code: "float64",
        severity: Severity::Warning,
        what: "a model that takes no doubles holds none",
        run: float64,
    },
    Check {
        code: "duplicate-weights",
        severity: Severity::Warning,
        what: "no two initializers hold the same numbers",
        run: duplicates,
    },
];

/// One in so many is a flood.
const FLOOD: usize = 16;
/// Smaller payloads repeat by chance, and cost nothing.
const LEAST_DUPLICATE: usize = 1024;

/// Elements from which several threads are worth their start.
const LEAST_SHARED: u64 = 1 << 24;
/// Bytes at the start, in the middle and at the end that differ where tensors do, but for made ones.
const SAMPLE: usize = 1 << 12;
/// Tensors of one sample that a further one is compared with.
const MOST_ALIKE: usize = 4;

/// A tensor of floats and what is odd about its numbers.
#[derive(Debug)]
pub(super) struct Weight {
    place: String,
    dtype: DataType,
    count: usize,
    nan: usize,
    infinite: usize,
    denormal: usize,
}

impl Weight {
    /// Every float tensor that can be read, side by side: there may be tens of gigabytes of them.
    pub(super) fn all(s: &Subject) -> Vec<Self> {
        let floats = |tensor: &TensorProto| {
            DataType::try_from(tensor.data_type()).is_ok_and(|dtype| layout(dtype).is_some())
        };
        let tensors: Vec<_> = s.tensors().filter(|(_, tensor)| floats(tensor)).collect();
        let read = |(place, tensor): &(String, &TensorProto)| {
            Some(Self::of(place.clone(), &Tensor::decode(tensor, s.external).ok()?))
        };
        let work = tensors.iter().map(|(_, tensor)| elements(tensor)).sum::<u64>();
        if work < LEAST_SHARED {
            return tensors.iter().filter_map(read).collect();
        }
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let help = || {
            while let Some((index, tensor)) =
                Some(next.fetch_add(1, Relaxed)).and_then(|i| Some((i, tensors.get(i)?)))
            {
                if let Some(weight) = read(tensor) {
                    found.lock().unwrap_or_else(PoisonError::into_inner).push((index, weight));
                }
            }
        };
        thread::scope(|scope| {
            // Where no thread can be started this one does it all.
            for _ in 1..thread::available_parallelism().map_or(1, NonZero::get) {
                drop(thread::Builder::new().spawn_scoped(scope, help));
            }
            help();
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_unstable_by_key(|(index, _)| *index);
        found.into_iter().map(|(_, weight)| weight).collect()
    }

    fn of(place: String, decoded: &Tensor) -> Self {
        let (dtype, count) = (decoded.dtype, decoded.len());
        let mut weight = Self { place, dtype, count, nan: 0, infinite: 0, denormal: 0 };
        let bytes = decoded.bytes();
        match layout(dtype) {
            Some(Layout::Bits8) => weight.look_up(bytes),
            Some(Layout::Bits16(exponent)) => weight.scan(bytes, u16::from_le_bytes, exponent),
            Some(Layout::Bits32) => weight.scan(bytes, u32::from_le_bytes, 0x7f80_0000),
            Some(Layout::Bits64) => weight.scan(bytes, u64::from_le_bytes, 0x7ff0 << 48),
            None => {}
        }
        weight
    }

    /// Counts by a table of what each code is worth.
    fn look_up(&mut self, bytes: &[u8]) {
        let codes: Vec<u8> = (0..=u8::MAX).collect();
        let worth = Tensor::new(self.dtype, vec![codes.len()], codes.into()).and_then(|all| all.f64s());
        let Ok(worth) = worth else { return };
        for piece in pieces(bytes) {
            self.nan += piece.iter().filter(|code| worth[usize::from(**code)].is_nan()).count();
            self.infinite += piece.iter().filter(|code| worth[usize::from(**code)].is_infinite()).count();
        }
    }

    /// Counts by the bits: the highest exponent is no number, the lowest is denormal or zero.
    fn scan<const N: usize, T>(&mut self, bytes: &[u8], read: fn([u8; N]) -> T, exponent: T)
    where
        T: Copy + PartialEq + Default + std::ops::BitAnd<Output = T> + std::ops::Not<Output = T>,
        T: std::ops::Shl<u32, Output = T> + std::ops::Shr<u32, Output = T>,
    {
        let zero = T::default();
        let magnitude = (!zero << 1) >> 1;
        for piece in pieces(bytes) {
            for &element in piece.as_chunks::<N>().0 {
                let bits = read(element) & magnitude;
                let (high, low) = (bits & exponent, bits & !exponent);
                self.nan += usize::from(high == exponent && low != zero);
                self.infinite += usize::from(high == exponent && low == zero);
                self.denormal += usize::from(high == zero && low != zero);
            }
        }
    }
}

/// What the shape says; 0 where it is none.
fn elements(tensor: &TensorProto) -> u64 {
    tensor.dims.iter().try_fold(1, |n: u64, &dim| n.checked_mul(u64::try_from(dim).ok()?)).unwrap_or(0)
}

/// How the floats of a type lie, and for 16 bits where the exponent is.
enum Layout {
    Bits8,
    Bits16(u16),
    Bits32,
    Bits64,
}

fn layout(dtype: DataType) -> Option<Layout> {
    use DataType::{Float8e4m3fn, Float8e4m3fnuz, Float8e5m2, Float8e5m2fnuz, Float8e8m0};
    Some(match dtype {
        Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz | Float8e8m0 => Layout::Bits8,
        DataType::Float16 => Layout::Bits16(0x7c00),
        DataType::Bfloat16 => Layout::Bits16(0x7f80),
        DataType::Float => Layout::Bits32,
        DataType::Double => Layout::Bits64,
        _ => return None,
    })
}

fn float64(s: &Subject, f: &mut Findings) {
    let double = Some(i32::from(DataType::Double));
    let takes = s.model.graph.iter().flat_map(|graph| &graph.input).any(|input| {
        let Some(emo_proto::type_proto::Value::TensorType(t)) =
            input.r#type.as_ref().and_then(|t| t.value.as_ref())
        else {
            return false;
        };
        t.elem_type == double
    });
    if takes {
        return;
    }
    for weight in s.weights().iter().filter(|weight| weight.dtype == DataType::Double && weight.count > 0) {
        let count = weight.count;
        f.add(
            weight.place.clone(),
            format!("expected FLOAT or less, found {count} doubles; convert them to FLOAT"),
        );
    }
    for (scope, _, index, node) in s.nodes().filter(|(.., node)| node.op_type() == "Cast") {
        if node.attribute.iter().any(|a| a.name() == "to" && a.i() == i64::from(i32::from(DataType::Double)))
        {
            f.add(scope.place(index), "expected no doubles, found a cast to DOUBLE; cast to FLOAT");
        }
    }
}

/// Same type, shape and bytes. Only of what has the type and shape of another is a sample hashed, and only
/// what has its hash is compared.
fn duplicates(s: &Subject, f: &mut Findings) {
    let mut alike: HashMap<_, Vec<_>> = HashMap::new();
    for (scope, graph) in s.graphs() {
        for tensor in &graph.initializer {
            alike.entry((tensor.data_type(), tensor.dims.as_slice())).or_default().push((scope, tensor));
        }
    }
    let mut found = Vec::new();
    for group in alike.into_values().filter(|group| group.len() > 1) {
        // Tensors of one sample that differ; made ones may be many, and each is compared with few.
        let mut first: HashMap<u64, Vec<&TensorProto>> = HashMap::new();
        for (scope, tensor) in group {
            let Some(held) = bytes(s, tensor) else { continue };
            let others = first.entry(sample(&held)).or_default();
            match others
                .iter()
                .find(|other| bytes(s, other).is_some_and(|other| pieces(&other).eq(pieces(&held))))
            {
                Some(twin) => {
                    found.push((scope.value("initializer", tensor.name()), twin.name(), held.len()));
                }
                None if others.len() < MOST_ALIKE => others.push(tensor),
                None => {}
            }
        }
    }
    found.sort_unstable();
    for (place, twin, size) in found {
        f.add(
            place,
            format!("expected numbers of its own, found the {size} bytes of {twin:?}; share one initializer"),
        );
    }
}

fn sample(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let middle = bytes.len().saturating_sub(SAMPLE) / 2;
    for start in [0, middle, bytes.len().saturating_sub(SAMPLE)] {
        hasher.write(&bytes[start..(start + SAMPLE).min(bytes.len())]);
    }
    hasher.finish()
}

fn bytes(s: &Subject, tensor: &TensorProto) -> Option<emo_proto::Bytes> {
    let decoded = Tensor::decode(tensor, s.external).ok()?;
    (decoded.bytes().len() >= LEAST_DUPLICATE).then(|| decoded.bytes().clone())
}
