//! One element out for one, or for several that broadcast.

use emo_proto::tensor_proto::DataType;

use super::Why;
use super::call::Call;
use super::round::range;
use super::table::{Row, moves, rounds};
use super::value::{Value, broadcast, zip};

pub(super) const ROWS: &[Row] = &[
    rounds("Acos", |c| unary(c, f64::acos)),
    rounds("Acosh", |c| unary(c, f64::acosh)),
    rounds("Asin", |c| unary(c, f64::asin)),
    rounds("Asinh", |c| unary(c, f64::asinh)),
    rounds("Atan", |c| unary(c, f64::atan)),
    rounds("Atanh", |c| unary(c, f64::atanh)),
    rounds("Celu", |c| {
        let alpha = c.real("alpha", 1.0);
        unary(c, |x| x.max(0.0) + (alpha * ((x / alpha).exp() - 1.0)).min(0.0))
    }),
    rounds("Cos", |c| unary(c, f64::cos)),
    rounds("Cosh", |c| unary(c, f64::cosh)),
    rounds("Elu", |c| {
        let alpha = c.real("alpha", 1.0);
        unary(c, |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
    }),
    rounds("Erf", |c| unary(c, libm::erf)),
    rounds("Exp", |c| unary(c, f64::exp)),
    rounds("Gelu", |c| match c.text("approximate") {
        Some("tanh") => unary(c, gelu_tanh),
        _ => unary(c, gelu),
    }),
    rounds("HardSigmoid", |c| {
        let (alpha, beta) = (c.real("alpha", 0.2), c.real("beta", 0.5));
        unary(c, |x| (alpha * x + beta).clamp(0.0, 1.0))
    }),
    rounds("HardSwish", |c| unary(c, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0))),
    rounds("LeakyRelu", |c| {
        let alpha = c.real("alpha", 0.01);
        unary(c, |x| if x < 0.0 { alpha * x } else { x })
    }),
    rounds("Log", |c| unary(c, f64::ln)),
    rounds("Mish", |c| unary(c, |x| x * softplus(x).tanh())),
    rounds("Reciprocal", |c| unary(c, f64::recip)),
    rounds("Selu", |c| {
        let (alpha, gamma) =
            (c.real("alpha", 1.673_263_192_176_818_8), c.real("gamma", 1.050_701_022_148_132_3));
        unary(c, |x| gamma * if x > 0.0 { x } else { alpha * x.exp_m1() })
    }),
    rounds("Shrink", |c| {
        let (bias, lambd) = (c.real("bias", 0.0), c.real("lambd", 0.5));
        unary(c, |x| {
            if x < -lambd {
                x + bias
            } else if x > lambd {
                x - bias
            } else {
                0.0
            }
        })
    }),
    rounds("Sigmoid", |c| unary(c, sigmoid)),
    rounds("Sin", |c| unary(c, f64::sin)),
    rounds("Sinh", |c| unary(c, f64::sinh)),
    rounds("Softplus", |c| unary(c, softplus)),
    rounds("Softsign", |c| unary(c, |x| x / (1.0 + x.abs()))),
    rounds("Sqrt", |c| unary(c, f64::sqrt)),
    rounds("Swish", |c| {
        let alpha = c.real("alpha", 1.0);
        unary(c, |x| x * sigmoid(alpha * x))
    }),
    rounds("Tan", |c| unary(c, f64::tan)),
    rounds("Tanh", |c| unary(c, f64::tanh)),
    rounds("PRelu", |c| {
        one(zip(c.operand(0)?, c.operand(1)?, |x, slope| if x < 0.0 { slope * x } else { x })?)
    }),
    rounds("Add", |c| arithmetic(c, |a, b| a + b)),
    rounds("Sub", |c| arithmetic(c, |a, b| a - b)),
    rounds("Mul", |c| arithmetic(c, |a, b| a * b)),
    rounds("Div", |c| match is_integer(c.operand(0)?.dtype) {
        true => arithmetic(c, |a, b| (a / b).trunc()),
        false => arithmetic(c, |a, b| a / b),
    }),
    rounds("Pow", |c| match is_integer(c.operand(0)?.dtype) {
        true => arithmetic(c, |a, b| a.powf(b).trunc()),
        false => arithmetic(c, f64::powf),
    }),
    rounds("Mod", |c| match c.flag("fmod", false) {
        true => arithmetic(c, |a, b| a % b),
        // The result has the divisor's sign, as in Python.
        false => arithmetic(c, |a, b| {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }),
    }),
    rounds("Sum", |c| {
        c.sums(c.operands.len());
        fold(c, |a, b| a + b)
    }),
    rounds("Mean", |c| {
        let parts = c.operands.len() as f64;
        c.sums(c.operands.len());
        one(fold(c, |a, b| a + b)?.remove(0).map(|x| x / parts))
    }),
    moves("Max", |c| fold(c, largest)),
    moves("Min", |c| fold(c, smallest)),
    moves("Abs", |c| unary(c, f64::abs)),
    moves("Ceil", |c| unary(c, f64::ceil)),
    moves("Floor", |c| unary(c, f64::floor)),
    moves("Neg", |c| unary(c, |x| -x)),
    moves("Relu", |c| unary(c, |x| if x < 0.0 { 0.0 } else { x })),
    moves("Round", |c| unary(c, f64::round_ties_even)),
    moves("Sign", |c| unary(c, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() })),
    moves("ThresholdedRelu", |c| {
        let alpha = c.real("alpha", 1.0);
        unary(c, |x| if x > alpha { x } else { 0.0 })
    }),
    moves("Clip", clip),
    moves("Where", select),
    rounds("Cast", |c| cast(c, c.dtype_of("to")?.ok_or("expected the attribute to")?)),
    rounds("CastLike", |c| cast(c, c.operand(1)?.dtype)),
    moves("Not", |c| truth(c, |x| x == 0.0)),
    moves("IsNaN", |c| truth(c, f64::is_nan)),
    moves("IsInf", |c| {
        let (up, down) = (c.flag("detect_positive", true), c.flag("detect_negative", true));
        truth(c, |x| x.is_infinite() && if x > 0.0 { up } else { down })
    }),
    moves("And", |c| compare(c, |a, b| a != 0.0 && b != 0.0)),
    moves("Or", |c| compare(c, |a, b| a != 0.0 || b != 0.0)),
    moves("Xor", |c| compare(c, |a, b| (a != 0.0) != (b != 0.0))),
    moves("Equal", |c| compare(c, |a, b| a == b)),
    moves("Greater", |c| compare(c, |a, b| a > b)),
    moves("GreaterOrEqual", |c| compare(c, |a, b| a >= b)),
    moves("Less", |c| compare(c, |a, b| a < b)),
    moves("LessOrEqual", |c| compare(c, |a, b| a <= b)),
    moves("BitwiseAnd", |c| arithmetic(c, |a, b| (a as i64 & b as i64) as f64)),
    moves("BitwiseNot", |c| {
        let unsigned = range(c.operand(0)?.dtype).filter(|(least, _)| *least == 0.0);
        unary(c, |x| unsigned.map_or(-x - 1.0, |(_, most)| most - x))
    }),
    moves("BitwiseOr", |c| arithmetic(c, |a, b| (a as i64 | b as i64) as f64)),
    moves("BitwiseXor", |c| arithmetic(c, |a, b| (a as i64 ^ b as i64) as f64)),
];

/// The only output.
pub(super) fn one(value: Value) -> Result<Vec<Value>, Why> {
    Ok(vec![value])
}

pub(super) fn unary(call: &Call, f: impl Fn(f64) -> f64) -> Result<Vec<Value>, Why> {
    one(call.operand(0)?.map(f))
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

pub(super) fn gelu(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

pub(super) fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

pub(super) fn is_integer(dtype: DataType) -> bool {
    range(dtype).is_some()
}

fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn smallest(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

fn arithmetic(call: &Call, f: impl Fn(f64, f64) -> f64) -> Result<Vec<Value>, Why> {
    one(zip(call.operand(0)?, call.operand(1)?, f)?)
}

fn fold(call: &Call, f: impl Fn(f64, f64) -> f64) -> Result<Vec<Value>, Why> {
    let mut all = call.operand(0)?.clone();
    for index in 1..call.operands.len() {
        all = zip(&all, call.operand(index)?, &f)?;
    }
    one(all)
}

fn truth(call: &Call, f: impl Fn(f64) -> bool) -> Result<Vec<Value>, Why> {
    one(call.operand(0)?.map(|x| f(x).into()).with_type(DataType::Bool))
}

fn compare(call: &Call, f: impl Fn(f64, f64) -> bool) -> Result<Vec<Value>, Why> {
    one(zip(call.operand(0)?, call.operand(1)?, |a, b| f(a, b).into())?.with_type(DataType::Bool))
}

fn clip(call: &Call) -> Result<Vec<Value>, Why> {
    let bound = |name, index| match call.maybe(index) {
        Some(value) => value.number().map(Some),
        None => Ok(call.float(name).map(f64::from)),
    };
    let least = bound("min", 1)?.unwrap_or(f64::NEG_INFINITY);
    let most = bound("max", 2)?.unwrap_or(f64::INFINITY);
    unary(call, |x| smallest(largest(x, least), most))
}

fn select(call: &Call) -> Result<Vec<Value>, Why> {
    let (condition, yes, no) = (call.operand(0)?, call.operand(1)?, call.operand(2)?);
    let dims = broadcast(&[&condition.dims, &yes.dims, &no.dims])?;
    let (condition, yes, no) = (condition.expanded(&dims)?, yes.expanded(&dims)?, no.expanded(&dims)?);
    let pairs = yes.data.iter().zip(no.data.iter());
    let data = condition.data.iter().zip(pairs).map(|(&c, (&y, &n))| if c != 0.0 { y } else { n });
    one(Value::new(yes.dtype, dims, data.collect())?)
}

/// To an integer it cuts off what is behind the point, in every evaluation; what does not fit wraps, as engines
/// have it.
pub(super) fn cast(call: &Call, to: DataType) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let wraps = |x: f64, bits: u32| -> f64 {
        let whole = (x as i128).rem_euclid(1 << bits);
        whole as f64
    };
    let cast = match to {
        DataType::Bool => x.map(|x| f64::from(x != 0.0)),
        DataType::String | DataType::Complex64 | DataType::Complex128 | DataType::Undefined => {
            return Err(format!("expected real numbers, found {}", to.as_str_name()));
        }
        // Units of a scale that an exact evaluation has not rounded stay what they are.
        _ if is_integer(to) && is_integer(x.dtype) => match range(to) {
            Some((least, most)) => x.map(|x| {
                if x < least || x > most {
                    let bits = (most - least + 1.0).log2() as u32;
                    let low = wraps(x, bits);
                    if low > most { low - (most - least + 1.0) } else { low }
                } else {
                    x
                }
            }),
            None => x.clone(),
        },
        _ if is_integer(to) => x.map(|x| {
            let (least, most) = range(to).unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
            if x.is_nan() { 0.0 } else { x.trunc().clamp(least, most) }
        }),
        _ => x.clone(),
    };
    let bits = |dtype| emo_proto::tensor::bits(dtype).unwrap_or(64);
    // What a wider type takes over needs no rounding.
    call.moved.set(!is_integer(x.dtype) && bits(to) > bits(x.dtype) || to == x.dtype);
    one(cast.with_type(to))
}
