//! Integers in units of a scale: ONNX's own operators.

use emo_proto::tensor_proto::DataType;

use super::Why;
use super::call::Call;
use super::conv::conv;
use super::elementwise::one;
use super::linear::matmul;
use super::round::range;
use super::table::{Row, moves, rounds};
use super::value::{Value, axis, zip};

pub(super) const ROWS: &[Row] = &[
    quantises("QuantizeLinear", &[], quantize),
    Row { weights: &[0], ..rounds("DequantizeLinear", dequantize) },
    quantises("DynamicQuantizeLinear", &[], dynamic),
    quantises("QLinearConv", &[3], |c| one(linear_conv(c, |x| Ok(x.clone()), Ok)?)),
    quantises("QLinearMatMul", &[0, 3], |c| {
        let (a, b) = (matrix(c, 0, false)?, matrix(c, 3, true)?);
        one(stored(c, &matmul(&a, &b)?, 6, 7)?)
    }),
    Row {
        weights: &[0, 1],
        ..moves("ConvInteger", |c| {
            let (x, w) =
                (centred(c.operand(0)?, c.maybe(2), None)?, centred(c.operand(1)?, c.maybe(3), Some(0))?);
            one(conv(c, &x, &w, None)?.with_type(DataType::Int32))
        })
    },
    Row {
        weights: &[0, 1],
        ..moves("MatMulInteger", |c| one(integer_product(c, 2)?.with_type(DataType::Int32)))
    },
];

pub(super) const fn quantises(
    name: &'static str,
    weights: &'static [usize],
    function: super::table::Function,
) -> Row {
    Row { quantises: true, weights, ..rounds(name, function) }
}

/// A list of values an index of `axis` as a tensor that broadcasts over `rank` axes; of one element, a scalar.
pub(super) fn seen_on(list: &Value, rank: usize, axis: usize) -> Result<Value, Why> {
    if list.len() == 1 {
        return list.reshaped(Vec::new());
    }
    if axis >= rank || list.rank() > 1 {
        // With as many axes as the tensor it lies beside it already.
        return Ok(list.clone());
    }
    let mut dims = vec![list.len()];
    dims.extend(std::iter::repeat_n(1, rank - axis - 1));
    list.reshaped(dims)
}

/// `x − zero`, one zero point for all or one an index of `axis`.
pub(super) fn centred(x: &Value, zero: Option<&Value>, axis: Option<usize>) -> Result<Value, Why> {
    match zero {
        Some(zero) => zip(x, &seen_on(zero, x.rank(), axis.unwrap_or(0))?, |x, z| x - z),
        None => Ok(x.clone()),
    }
}

/// What an operand means that is followed by its scale and zero point.
pub(super) fn real(call: &Call, index: usize, axis: Option<usize>) -> Result<Value, Why> {
    let x = centred(call.operand(index)?, call.maybe(index + 2), axis)?;
    let scale = call.operand(index + 1)?;
    let y = zip(&x, &seen_on(scale, x.rank(), axis.unwrap_or(0))?, |x, s| x * s)?;
    Ok(y.with_type(scale.dtype))
}

/// The same of a factor of a product, whose scales are a row's or a column's.
fn matrix(call: &Call, index: usize, right: bool) -> Result<Value, Why> {
    let rank = call.operand(index)?.rank();
    real(call, index, Some(rank.saturating_sub(if right { 1 } else { 2 })))
}

/// A real value as the file stores it, by the scale and zero point that these operands are.
pub(super) fn stored(call: &Call, y: &Value, scale: usize, zero: usize) -> Result<Value, Why> {
    let scale = call.operand(scale)?.number()?;
    let (zero, dtype) = match call.maybe(zero) {
        Some(zero) => (zero.number()?, zero.dtype),
        None => (0.0, DataType::Uint8),
    };
    Ok(y.map(|y| call.quantised(y / scale, zero, dtype)).with_type(dtype))
}

/// A convolution whose image is turned on its way in, and on its way out.
pub(super) fn linear_conv(
    call: &Call,
    before: impl FnOnce(&Value) -> Result<Value, Why>,
    after: impl FnOnce(Value) -> Result<Value, Why>,
) -> Result<Value, Why> {
    let (x, w) = (before(&real(call, 0, None)?)?, real(call, 3, Some(0))?);
    let y = conv(call, &x, &w, None)?;
    let y = match call.maybe(8) {
        // Its unit is that of the products.
        Some(bias) => {
            let scale = zip(call.operand(4)?, call.operand(1)?, |w, x| w * x)?;
            let bias = zip(&bias.reshaped(vec![bias.len()])?, &scale, |b, s| b * s)?;
            zip(&y, &seen_on(&bias, y.rank(), 1)?, |y, b| y + b)?
        }
        None => y,
    };
    stored(call, &after(y)?, 6, 7)
}

/// A product of integers, whose zero points are operands from `zeros` on.
pub(super) fn integer_product(call: &Call, zeros: usize) -> Result<Value, Why> {
    let (a, b) = (call.operand(0)?, call.operand(1)?);
    let rank = a.rank();
    // A zero point a row of the left factor, a column of the right one.
    let left = centred(a, call.maybe(zeros), Some(rank.saturating_sub(2)))?;
    let right = centred(b, call.maybe(zeros + 1), Some(b.rank().saturating_sub(1)))?;
    matmul(&left, &right)
}

/// Scales as they lie beside `x`: one for all, one an index of the axis, or one a block along it.
fn beside(call: &Call, x: &Value, scale: &Value) -> Result<Value, Why> {
    let rank = x.rank();
    if scale.len() == 1 {
        return scale.reshaped(Vec::new());
    }
    let at = axis(call.int("axis", 1), rank)?;
    let block = usize::try_from(call.int("block_size", 0)).map_err(|e| e.to_string())?;
    if scale.rank() < 2 && block == 0 {
        return seen_on(scale, rank, at);
    }
    if scale.rank() != rank || block == 0 {
        return Err(format!("expected scales in blocks of {:?}, found {:?}", x.dims, scale.dims));
    }
    let places = Value::list((0..x.dims[at] as i64).map(|i| i / block as i64));
    super::index::gather(scale, &places, at)
}

pub(super) fn quantize(call: &Call) -> Result<Vec<Value>, Why> {
    let (x, scale) = (call.operand(0)?, call.operand(1)?);
    let asked = call.dtype_of("output_dtype")?.filter(|dtype| *dtype != DataType::Undefined);
    let dtype = call.maybe(2).map(|zero| zero.dtype).or(asked).unwrap_or(DataType::Uint8);
    let y = zip(x, &beside(call, x, scale)?, |x, s| x / s)?;
    let y = match call.maybe(2) {
        Some(zero) => zip(&y, &beside(call, x, zero)?, |y, zero| call.quantised(y, zero, dtype))?,
        None => y.map(|y| call.quantised(y, 0.0, dtype)),
    };
    one(y.with_type(dtype))
}

pub(super) fn dequantize(call: &Call) -> Result<Vec<Value>, Why> {
    let (x, scale) = (call.operand(0)?, call.operand(1)?);
    let asked = call.dtype_of("output_dtype")?.filter(|dtype| *dtype != DataType::Undefined);
    let x = match call.maybe(2) {
        Some(zero) => zip(x, &beside(call, x, zero)?, |x, z| x - z)?,
        None => x.clone(),
    };
    one(zip(&x, &beside(call, &x, scale)?, |x, s| x * s)?.with_type(asked.unwrap_or(scale.dtype)))
}

/// To UINT8 by the range of the tensor itself, which always has zero in it.
fn dynamic(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let (quantised, scale, zero) = by_own_range(call, x);
    Ok(vec![quantised, Value::scalar(DataType::Float, scale), Value::scalar(DataType::Uint8, zero)])
}

pub(super) fn by_own_range(call: &Call, x: &Value) -> (Value, f64, f64) {
    let (_, most) = range(DataType::Uint8).unwrap_or((0.0, 255.0));
    let low = x.data.iter().copied().fold(0.0, f64::min);
    let high = x.data.iter().copied().fold(0.0, f64::max);
    let scale = if high > low { (high - low) / most } else { 1.0 };
    let scale = call.stored(scale, DataType::Float);
    let zero = (-low / scale).clamp(0.0, most).round_ties_even();
    let y = x.map(|x| call.quantised(x / scale, zero, DataType::Uint8));
    (y.with_type(DataType::Uint8), scale, zero)
}
