//! The elements of values that constants alone decide.

use std::collections::HashMap;

use emo_proto::file::OnnxFile;
use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, NodeProto, Result, TensorProto};

use crate::compare::{BFLOAT16, FLOAT16, FLOAT32, INT8, Tolerance};

/// The constants of a file's main graph, read when asked for.
#[derive(Debug)]
pub struct Constants<'a> {
    file: &'a OnnxFile,
    initializers: HashMap<&'a str, &'a TensorProto>,
    writers: HashMap<&'a str, &'a NodeProto>,
}

/// What a constant's elements were rounded to.
#[derive(Debug, Clone, PartialEq)]
pub enum Grain {
    Float32,
    Float16,
    Bfloat16,
    /// Whole multiples of a scale: one for all, or one for each row.
    Steps(Vec<f64>),
}

impl Grain {
    fn of(dtype: i32) -> Self {
        match DataType::try_from(dtype) {
            Ok(DataType::Float16) => Self::Float16,
            Ok(DataType::Bfloat16) => Self::Bfloat16,
            _ => Self::Float32,
        }
    }

    /// The tolerance of that type.
    #[must_use]
    pub fn tolerance(&self) -> &'static Tolerance {
        match self {
            Self::Float32 => &FLOAT32,
            Self::Float16 => &FLOAT16,
            Self::Bfloat16 => &BFLOAT16,
            Self::Steps(_) => &INT8,
        }
    }

    /// How far an element of each of `rows` rows may be from what was rounded, whatever its size.
    #[must_use]
    pub fn half_steps(&self, rows: usize) -> Vec<f64> {
        /// The scale is itself a rounded number.
        const HALF: f64 = 0.501;
        match self {
            Self::Float32 | Self::Bfloat16 => vec![0.0; rows],
            // Half of what separates numbers below the normal ones, and as much again.
            Self::Float16 => vec![f64::from(-24).exp2(); rows],
            Self::Steps(scales) if scales.len() == rows => scales.iter().map(|s| HALF * s.abs()).collect(),
            Self::Steps(scales) => vec![HALF * scales.first().map_or(0.0, |s| s.abs()); rows],
        }
    }
}

/// Operators behind a constant, at most: each as often as something on the way reads it.
const MOST_STEPS: usize = 64;

impl<'a> Constants<'a> {
    #[must_use]
    pub fn new(file: &'a OnnxFile) -> Self {
        let graph = file.model.graph.as_ref();
        let initializers = graph.iter().flat_map(|g| &g.initializer).map(|i| (i.name(), i));
        let nodes = graph.iter().flat_map(|g| &g.node);
        let writers = nodes.flat_map(|node| node.output.iter().map(move |name| (name.as_str(), node)));
        Self { file, initializers: initializers.collect(), writers: writers.collect() }
    }

    /// The tensor that a name stands for.
    ///
    /// # Errors
    /// An input decides it, an operator on its way is not followed, or its data is absent.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        self.follow(name, &mut { MOST_STEPS }).map_err(|e| e.at(name))
    }

    /// The one element of a constant that has one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        // Cheap for what is no constant: nothing of a larger one is read.
        let tensor = self.tensor(name).ok().filter(|t| t.len() == 1)?;
        tensor.f64s().ok()?.first().copied()
    }

    /// What the elements of a constant were rounded to when the file was written.
    #[must_use]
    pub fn grain(&self, name: &str) -> Grain {
        let (mut name, mut steps) = (name, MOST_STEPS);
        loop {
            if let Some(initializer) = self.initializers.get(name) {
                return Grain::of(initializer.data_type());
            }
            let Some(node) = self.writers.get(name).filter(|_| steps > 0) else { return Grain::Float32 };
            steps -= 1;
            let operand = |index: usize| node.input.get(index).map(String::as_str);
            let next = match node.op_type() {
                "Constant" => {
                    let tensor = node.attribute.first().and_then(|a| a.t.as_ref());
                    return tensor.map_or(Grain::Float32, |tensor| Grain::of(tensor.data_type()));
                }
                "DequantizeLinear" => {
                    let scale = operand(1).and_then(|scale| self.tensor(scale).ok());
                    return scale.and_then(|s| s.f64s().ok()).map_or(Grain::Float32, Grain::Steps);
                }
                // The factor of a bias's scale is a number.
                "Mul" => operand(0).filter(|name| self.number(name).is_none()).or(operand(1)),
                _ => operand(0),
            };
            let Some(next) = next else { return Grain::Float32 };
            name = next;
        }
    }

    fn follow(&self, name: &str, steps: &mut usize) -> Result<Tensor> {
        if let Some(initializer) = self.initializers.get(name) {
            return Tensor::decode(initializer, &self.file.external);
        }
        let Some(node) = self.writers.get(name) else {
            return Err(Error::new("expected a constant, found a value that an input decides"));
        };
        *steps = steps.checked_sub(1).ok_or_else(|| {
            Error::new(format!("expected a constant behind at most {MOST_STEPS} operators, found more"))
        })?;
        let mut operand = |index: usize| match node.input.get(index) {
            Some(name) => self.follow(name, steps),
            None => Err(Error::new(format!("operand {index} of {} is missing", node.op_type()))),
        };
        match node.op_type() {
            "Constant" => match node.attribute.first() {
                Some(a) if a.t.is_some() => {
                    Tensor::decode(a.t.as_ref().expect("just seen"), &self.file.external)
                }
                Some(a) if a.name() == "value_float" => Tensor::from_f32(Vec::new(), vec![a.f()]),
                Some(a) if a.name() == "value_floats" => {
                    Tensor::from_f32(vec![a.floats.len()], a.floats.clone())
                }
                _ => Err(Error::new("expected a constant of numbers")),
            },
            "Identity" => operand(0),
            // Floats stay what they are worth; the reader takes them as f32 anyway.
            "Cast" | "CastLike" => operand(0)?.into_f32(),
            "Transpose" => {
                let tensor = operand(0)?;
                let perm = node.attribute.iter().find(|a| a.name() == "perm").map(|a| a.ints.as_slice());
                transpose(&tensor, perm)
            }
            // Elements keep their order; readers know the layout that they want by the count.
            "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {
                let tensor = operand(0)?;
                let dims = tensor.dims.iter().copied().filter(|&d| d != 1).collect();
                Tensor::new(tensor.dtype, dims, tensor.bytes().clone())
            }
            "Mul" => product(&operand(0)?, &operand(1)?),
            "QuantizeLinear" => quantize(&operand(0)?, &operand(1)?, operand(2).ok().as_ref()),
            "DequantizeLinear" => {
                dequantize(&operand(0)?, &operand(1)?, operand(2).ok().as_ref(), axis(node))
            }
            other => Err(Error::new(format!("a weight computed by {other} is not followed"))),
        }
    }
}

fn axis(node: &NodeProto) -> i64 {
    node.attribute.iter().find(|a| a.name() == "axis").map_or(1, emo_proto::AttributeProto::i)
}

/// Axes in another order; reversed without `perm`.
fn transpose(tensor: &Tensor, perm: Option<&[i64]>) -> Result<Tensor> {
    let rank = tensor.dims.len();
    let perm: Vec<usize> = match perm {
        Some(perm) => perm.iter().map(|&p| usize::try_from(p).unwrap_or(usize::MAX)).collect(),
        None => (0..rank).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..rank) {
        return Err(Error::new(format!("expected a permutation of {rank} axes, found {perm:?}")));
    }
    let values = ndarray::ArrayD::from_shape_vec(tensor.dims.clone(), tensor.f32s()?).map_err(Error::new)?;
    let moved = values.permuted_axes(perm);
    Tensor::from_f32(moved.shape().to_vec(), moved.iter().copied().collect())
}

/// Element by element, where one of the two has one.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (one, many) = if a.len() == 1 { (a, b) } else { (b, a) };
    let [factor] = one.f64s()?[..] else {
        return Err(Error::new(format!("expected a number, found {} and {}", a.len(), b.len())));
    };
    let values = many.f64s()?.into_iter().map(|x| (x * factor) as f32).collect();
    Tensor::from_f32(many.dims.clone(), values)
}

/// `x / scale + zero`, rounded to even and bounded by the zero point's type, with one scale for all.
fn quantize(x: &Tensor, scale: &Tensor, zero: Option<&Tensor>) -> Result<Tensor> {
    let (values, scales) = (x.f64s()?, scale.f64s()?);
    let [scale] = scales[..] else {
        return Err(Error::new(format!("expected one scale for a constant, found {}", scales.len())));
    };
    let (low, high) = match zero.map_or(DataType::Uint8, |zero| zero.dtype) {
        DataType::Uint8 => (0.0, 255.0),
        DataType::Int8 => (-128.0, 127.0),
        other => return Err(Error::new(format!("expected 8-bit integers, found {}", other.as_str_name()))),
    };
    let zero = zero.map_or(Ok(0), |zero| zero.i64s().map(|z| z.first().copied().unwrap_or(0)))?;
    let q = |x: &f64| ((x / scale).round_ties_even() + zero as f64).clamp(low, high) as i64;
    Tensor::from_i64(x.dims.clone(), &values.iter().map(q).collect::<Vec<_>>())
}

/// `(q − zero) · scale`, one scale for all or one an index of `axis`.
fn dequantize(q: &Tensor, scale: &Tensor, zero: Option<&Tensor>, axis: i64) -> Result<Tensor> {
    let (values, scales) = (q.i64s()?, scale.f64s()?);
    let zeros = zero.map_or(Ok(vec![0; scales.len()]), Tensor::i64s)?;
    let rank = q.dims.len() as i64;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap_or(usize::MAX);
    let inner: usize = q.dims.iter().skip(axis.saturating_add(1)).product();
    let along = q.dims.get(axis).copied().unwrap_or(1);
    if scales.len() != zeros.len() || (scales.len() != 1 && scales.len() != along) {
        return Err(Error::new(format!("expected one scale, or {along}, found {}", scales.len())));
    }
    let at = |i: usize| if scales.len() == 1 { 0 } else { i / inner.max(1) % along };
    let real =
        |(i, &v): (usize, &i64)| ((i128::from(v) - i128::from(zeros[at(i)])) as f64 * scales[at(i)]) as f32;
    Tensor::from_f32(q.dims.clone(), values.iter().enumerate().map(real).collect())
}
