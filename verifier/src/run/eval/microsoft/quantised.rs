//! Integers in units of a scale: operators of the QOperator format, and of dynamic quantisation.

use emo_proto::tensor_proto::DataType;

use super::fused::{channels_first, channels_last};
use crate::eval::Why;
use crate::eval::call::Call;
use crate::eval::elementwise::{one, sigmoid};
use crate::eval::linear::{gemm, matmul};
use crate::eval::movement::concat;
use crate::eval::pool::{average, global_mean};
use crate::eval::quantised::{
    by_own_range, dequantize, integer_product, linear_conv, quantises, quantize, real, seen_on, stored,
};
use crate::eval::reduce::over;
use crate::eval::table::{Row, rounds};
use crate::eval::value::{Value, axis, broadcast, zip};

pub(in crate::run::eval) const ROWS: &[Row] = &[
    quantises("QuantizeLinear", &[], quantize),
    Row { weights: &[0], ..rounds("DequantizeLinear", dequantize) },
    quantises("QLinearConv", &[3], |c| {
        let last = c.flag("channels_last", false);
        one(linear_conv(
            c,
            |x| if last { channels_first(x) } else { Ok(x.clone()) },
            |y| {
                if last { channels_last(&y) } else { Ok(y) }
            },
        )?)
    }),
    quantises("QLinearAdd", &[0, 3], |c| both(c, |a, b| a + b)),
    quantises("QLinearMul", &[0, 3], |c| both(c, |a, b| a * b)),
    quantises("QLinearSigmoid", &[], |c| alone(c, |x| Ok(x.map(sigmoid)))),
    quantises("QLinearLeakyRelu", &[], |c| {
        let alpha = c.real("alpha", 0.01);
        alone(c, |x| Ok(x.map(|x| if x < 0.0 { alpha * x } else { x })))
    }),
    quantises("QLinearSoftmax", &[], |c| alone(c, |x| softmax(c, x))),
    quantises("QLinearGlobalAveragePool", &[], |c| pooled(c, global_mean)),
    quantises("QLinearAveragePool", &[], |c| pooled(c, average)),
    quantises("QLinearReduceMean", &[], |c| {
        alone(c, |x| {
            let given = c.ints("axes").unwrap_or_default();
            let axes = match given {
                [] => (0..x.rank()).collect(),
                given => given.iter().map(|&a| axis(a, x.rank())).collect::<Result<Vec<_>, _>>()?,
            };
            over(c, x, &axes, c.flag("keepdims", true), 0.0, |s, x| s + x, |s, n| s / n)
        })
    }),
    quantises("QLinearConcat", &[], |c| {
        let parts =
            (2..c.operands.len()).step_by(3).map(|i| real(c, i, None)).collect::<Result<Vec<_>, _>>()?;
        let rank = parts.first().ok_or("expected one part at least")?.rank();
        let whole = concat(&parts.iter().collect::<Vec<_>>(), c.axis_of("axis", 0, rank)?)?;
        one(stored(c, &whole, 0, 1)?)
    }),
    quantises("QLinearWhere", &[], |c| {
        let (condition, yes, no) = (c.operand(0)?, real(c, 1, None)?, real(c, 4, None)?);
        let dims = broadcast(&[&condition.dims, &yes.dims, &no.dims])?;
        let (condition, no) = (condition.expanded(&dims)?, no.expanded(&dims)?);
        let yes = yes.expanded(&dims)?;
        let pairs = yes.data.iter().zip(no.data.iter());
        let chosen = condition.data.iter().zip(pairs).map(|(&c, (&y, &n))| if c != 0.0 { y } else { n });
        one(stored(c, &Value::new(yes.dtype, dims, chosen.collect())?, 7, 8)?)
    }),
    quantises("QGemm", &[0, 3], q_gemm),
    Row {
        weights: &[0, 1],
        ..rounds("MatMulIntegerToFloat", |c| {
            let scale = zip(&seen_on(c.operand(2)?, 2, 0)?, &seen_on(c.operand(3)?, 1, 0)?, |a, b| a * b)?;
            one(scaled(c, &integer_product(c, 4)?, &scale, c.maybe(6))?.with_type(c.operand(3)?.dtype))
        })
    },
    Row {
        // Rounds its input within.
        weights: &[1],
        ..rounds("DynamicQuantizeMatMul", |c| {
            let (a, scale, zero) = by_own_range(c, c.operand(0)?);
            let (a, b) = (a.map(|x| x - zero), c.operand(1)?);
            let b = match c.maybe(3) {
                Some(zero) => zip(b, &seen_on(zero, 1, 0)?, |b, z| b - z)?,
                None => b.clone(),
            };
            let scale = seen_on(c.operand(2)?, 1, 0)?.map(|b| b * scale);
            c.sums(b.dims[0]);
            one(scaled(c, &matmul(&a, &b)?, &scale, c.maybe(4))?.with_type(c.operand(0)?.dtype))
        })
    },
    rounds("MatMulNBits", bits),
];

/// A function of one tensor.
fn alone(call: &Call, f: impl FnOnce(&Value) -> Result<Value, Why>) -> Result<Vec<Value>, Why> {
    one(stored(call, &f(&real(call, 0, None)?)?, 3, 4)?)
}

fn both(call: &Call, f: impl Fn(f64, f64) -> f64) -> Result<Vec<Value>, Why> {
    one(stored(call, &zip(&real(call, 0, None)?, &real(call, 3, None)?, f)?, 6, 7)?)
}

/// Its attribute says by which operator set the axis is meant.
fn softmax(call: &Call, x: &Value) -> Result<Value, Why> {
    let old = call.int("opset", 13) < 13;
    let first = call.axis_of("axis", -1, x.rank())?;
    let extents = if old {
        (x.dims[..first].iter().product(), x.dims[first..].iter().product(), 1)
    } else {
        crate::eval::value::around(&x.dims, first)
    };
    call.sums(extents.1);
    let mut y = x.clone();
    let data = std::sync::Arc::make_mut(&mut y.data);
    crate::eval::normalise::soften(data.as_mut_slice(), extents, false);
    Ok(y)
}

fn pooled(call: &Call, pool: impl Fn(&Call, &Value) -> Result<Value, Why>) -> Result<Vec<Value>, Why> {
    alone(call, |x| match call.flag("channels_last", false) {
        true => channels_last(&pool(call, &channels_first(x)?)?),
        false => pool(call, x),
    })
}

/// Without a scale of its output it is FLOAT.
fn q_gemm(call: &Call) -> Result<Vec<Value>, Why> {
    let a = real(call, 0, None)?;
    // The weights' scales are a column's of what they are turned to.
    let b = real(call, 3, Some(if call.flag("transB", false) { 0 } else { 1 }))?;
    let product = gemm(call, &a, &b)?;
    let y = match call.maybe(6) {
        Some(bias) => {
            let alpha = call.real("alpha", 1.0) * call.operand(1)?.number()?;
            let scale = seen_on(call.operand(4)?, 1, 0)?;
            let bias = zip(bias, &scale, |b, s| b * s * alpha)?;
            zip(&product, &bias, |x, b| x + b)?
        }
        None => product,
    };
    match call.maybe(7) {
        Some(_) => one(stored(call, &y, 7, 8)?),
        None => one(y.with_type(DataType::Float)),
    }
}

fn scaled(call: &Call, y: &Value, scale: &Value, bias: Option<&Value>) -> Result<Value, Why> {
    call.sums(call.operand(1)?.dims.first().copied().unwrap_or(1));
    let y = zip(y, scale, |y, s| y * s)?;
    match bias {
        Some(bias) => zip(&y, bias, |y, b| y + b),
        None => Ok(y),
    }
}

/// A product with a matrix `[N, K]` that is packed in blocks along K, a scale each.
fn bits(call: &Call) -> Result<Vec<Value>, Why> {
    let extent = |name, default| usize::try_from(call.int(name, default)).map_err(|e| e.to_string());
    let (k, n, bits, block) =
        (extent("K", 0)?, extent("N", 0)?, extent("bits", 4)?, extent("block_size", 0)?);
    if call.maybe(4).is_some() {
        return Err("expected blocks in their order, found g_idx".to_owned());
    }
    if !matches!(bits, 2 | 4 | 8) || block == 0 {
        return Err(format!("expected blocks of 2, 4 or 8 bits, found {bits} and block_size {block}"));
    }
    let blocks = k.div_ceil(block);
    let (packed, scales) = (call.operand(1)?, call.operand(2)?);
    let each = 8 / bits;
    let code = |bytes: &Value, at: usize| {
        let byte = bytes.data.get(at / each).copied().unwrap_or(0.0) as u8;
        f64::from((byte >> (at % each * bits)) & (0xff_u8 >> (8 - bits)))
    };
    if packed.len() * each < n * blocks * block || scales.len() != n * blocks {
        return Err(format!("expected {n} × {blocks} blocks, found {:?}", packed.dims));
    }
    let half = f64::from(bits as u32 - 1).exp2();
    // Zero points are packed as the weights are, a row of bytes a column; or they are floats.
    let row = blocks.div_ceil(each) * each;
    let zero = |column: usize, b: usize| match call.maybe(3) {
        Some(zeros) if zeros.dtype == DataType::Uint8 => code(zeros, column * row + b),
        Some(zeros) => zeros.data.get(column * blocks + b).copied().unwrap_or(half),
        None => half,
    };
    let weight = |i: usize| {
        let (column, at) = (i / k, i % k);
        let b = at / block;
        (code(packed, (column * blocks + b) * block + at % block) - zero(column, b))
            * scales.data[column * blocks + b]
    };
    crate::eval::value::count(&[n, k])?;
    let weights = Value::new(scales.dtype, vec![n, k], (0..n * k).map(weight).collect())?;
    call.sums(k);
    let y = matmul(call.operand(0)?, &weights.transposed(&[1, 0])?)?;
    one(match call.maybe(5) {
        Some(bias) => zip(&y, bias, |y, b| y + b)?,
        None => y,
    })
}
