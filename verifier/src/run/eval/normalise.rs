//! Norms and softmax.

use std::sync::Arc;

use emo_proto::tensor_proto::DataType;

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::table::{Row, moves, rounds};
use super::value::{Value, around, axes, zip};

pub(super) const ROWS: &[Row] = &[
    rounds("BatchNormalization", batch),
    rounds("InstanceNormalization", |c| {
        let x = c.operand(0)?;
        let channels = x.dims.get(1).copied().unwrap_or(0);
        one(grouped(c, x, channels, c.operand(1)?, c.operand(2)?)?)
    }),
    rounds("GroupNormalization", |c| {
        let groups = usize::try_from(c.int("num_groups", 0)).unwrap_or(0);
        one(grouped(c, c.operand(0)?, groups, c.operand(1)?, c.operand(2)?)?)
    }),
    rounds("LayerNormalization", layer),
    rounds("SimplifiedLayerNormalization", root_mean_square),
    rounds("RMSNormalization", root_mean_square),
    rounds("LpNormalization", power),
    rounds("LRN", local_response),
    rounds("MeanVarianceNormalization", mean_variance),
    rounds("Softmax", |c| one(softmax(c, c.operand(0)?, false)?)),
    rounds("LogSoftmax", |c| one(softmax(c, c.operand(0)?, true)?)),
    moves("Hardmax", hardmax),
];

/// A value a channel, seen beside `[N, C, …]`.
fn by_channel(value: &Value, x: &Value) -> Result<Value, Why> {
    let mut dims = vec![value.len()];
    dims.extend(std::iter::repeat_n(1, x.rank().saturating_sub(2)));
    value.reshaped(dims)
}

fn batch(call: &Call) -> Result<Vec<Value>, Why> {
    if call.flag("training_mode", false) {
        return Err("expected statistics that are given, found training_mode".to_owned());
    }
    let (x, epsilon) = (call.operand(0)?, call.real("epsilon", 1e-5));
    let part = |index| by_channel(call.operand(index)?, x);
    let scale = zip(&part(1)?, &part(4)?, |scale, var| scale / (var + epsilon).sqrt())?;
    let centred = zip(x, &part(3)?, |x, mean| x - mean)?;
    one(zip(&zip(&centred, &scale, |x, s| x * s)?, &part(2)?, |x, b| x + b)?)
}

/// Each run of `size` elements by its mean and variance; gives them, too.
pub(super) fn standardised(x: &Value, size: usize, epsilon: f64) -> (Value, Vec<f64>, Vec<f64>) {
    let mut y = x.clone();
    let (mut means, mut inverses) = (Vec::new(), Vec::new());
    for part in Arc::make_mut(&mut y.data).chunks_exact_mut(size.max(1)) {
        let mean = part.iter().sum::<f64>() / size as f64;
        let variance = part.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / size as f64;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        part.iter_mut().for_each(|x| *x = (*x - mean) * inverse);
        means.push(mean);
        inverses.push(inverse);
    }
    (y, means, inverses)
}

pub(super) fn grouped(
    call: &Call,
    x: &Value,
    groups: usize,
    scale: &Value,
    bias: &Value,
) -> Result<Value, Why> {
    let [n, c, ..] = x.dims[..] else { return Err(format!("expected [N, C, …], found {:?}", x.dims)) };
    if !(1..=c).contains(&groups) || c % groups != 0 {
        return Err(format!("expected groups of {c} channels, found {groups}"));
    }
    let size = x.len() / (n * groups).max(1);
    call.sums(size);
    let (y, ..) = standardised(x, size, call.real("epsilon", 1e-5));
    // Until opset 20 there was one scale a group.
    let wide = |v: &Value| match v.len() {
        len if len == c => by_channel(v, x),
        len if len == groups => {
            let each = c / groups;
            by_channel(&Value::new(v.dtype, vec![c], (0..c).map(|i| v.data[i / each]).collect())?, x)
        }
        len => Err(format!("expected a value a channel, {c}, found {len}")),
    };
    zip(&zip(&y, &wide(scale)?, |x, s| x * s)?, &wide(bias)?, |x, b| x + b)
}

/// The axes from the attribute's on, as one: their first, their elements.
fn tail(call: &Call, x: &Value) -> Result<(usize, usize), Why> {
    let first = call.axis_of("axis", -1, x.rank())?;
    let size = x.dims[first..].iter().product();
    call.sums(size);
    Ok((first, size))
}

fn layer(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let (first, size) = tail(call, x)?;
    let (y, means, inverses) = standardised(x, size, call.real("epsilon", 1e-5));
    let mut y = zip(&y, call.operand(1)?, |x, s| x * s)?;
    if let Some(bias) = call.maybe(2) {
        y = zip(&y, bias, |x, b| x + b)?;
    }
    let dims: Vec<usize> = x.dims.iter().enumerate().map(|(i, &d)| if i < first { d } else { 1 }).collect();
    let mean = Value::new(DataType::Float, dims.clone(), means)?;
    Ok(vec![y, mean, Value::new(DataType::Float, dims, inverses)?])
}

/// By the root of the mean of squares.
pub(super) fn by_root_mean_square(x: &Value, size: usize, epsilon: f64) -> (Value, Vec<f64>) {
    let mut y = x.clone();
    let mut inverses = Vec::new();
    for part in Arc::make_mut(&mut y.data).chunks_exact_mut(size.max(1)) {
        let inverse = 1.0 / (part.iter().map(|x| x * x).sum::<f64>() / size as f64 + epsilon).sqrt();
        part.iter_mut().for_each(|x| *x *= inverse);
        inverses.push(inverse);
    }
    (y, inverses)
}

fn root_mean_square(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let (first, size) = tail(call, x)?;
    let (y, inverses) = by_root_mean_square(x, size, call.real("epsilon", 1e-5));
    let dims = x.dims.iter().enumerate().map(|(i, &d)| if i < first { d } else { 1 }).collect();
    Ok(vec![zip(&y, call.operand(1)?, |x, s| x * s)?, Value::new(DataType::Float, dims, inverses)?])
}

/// Sums of `term` along axes, seen beside `x`.
fn sums(call: &Call, x: &Value, axes: &[usize], term: impl Fn(f64) -> f64) -> Result<Value, Why> {
    super::reduce::over(call, x, axes, true, 0.0, |s, x| s + term(x), |s, _| s)
}

fn power(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let axes = [call.axis_of("axis", -1, x.rank())?];
    let norm = match call.int("p", 2) {
        1 => sums(call, x, &axes, f64::abs)?,
        2 => sums(call, x, &axes, |x| x * x)?.map(f64::sqrt),
        p => return Err(format!("expected p of 1 or 2, found {p}")),
    };
    one(zip(x, &norm, |x, n| if n == 0.0 { 0.0 } else { x / n })?)
}

fn local_response(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let size =
        usize::try_from(call.int("size", 0)).ok().filter(|&n| n > 0).ok_or("expected a size above 0")?;
    let (alpha, beta, bias) = (call.real("alpha", 1e-4), call.real("beta", 0.75), call.real("bias", 1.0));
    if x.rank() < 2 {
        return Err(format!("expected [N, C, …], found {:?}", x.dims));
    }
    let (_, c, inner) = around(&x.dims, 1);
    call.sums(size);
    let y = x.data.iter().enumerate().map(|(at, &value)| {
        let (i, start) = (at / inner % c, at / (inner * c) * c);
        let (low, high) = (i.saturating_sub((size - 1) / 2), (i + size / 2).min(c - 1));
        let squares = (low..=high).map(|j| x.data[(start + j) * inner + at % inner]);
        let square: f64 = squares.map(|x| x * x).sum();
        value / (bias + alpha / size as f64 * square).powf(beta)
    });
    one(Value::new(x.dtype, x.dims.clone(), y.collect())?)
}

fn mean_variance(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let axes = axes(call.ints("axes").unwrap_or(&[0, 2, 3]), x.rank())?;
    let count: usize = axes.iter().map(|&i| x.dims[i]).product();
    let mean = sums(call, x, &axes, |x| x)?.map(|s| s / count as f64);
    let centred = zip(x, &mean, |x, m| x - m)?;
    let deviation = sums(call, &centred, &axes, |x| x * x)?.map(|s| (s / count as f64).sqrt());
    one(zip(&centred, &deviation, |x, d| x / (d + 1e-9))?)
}

/// Until opset 13 all axes from the attribute's on are one; since then it is one axis.
pub(super) fn softmax(call: &Call, x: &Value, logarithm: bool) -> Result<Value, Why> {
    let old = call.opset < 13 && matches!(call.node.domain(), "" | "ai.onnx");
    let rank = x.rank();
    let first = call.axis_of("axis", if old { 1 } else { -1 }, rank.max(1))?;
    let (outer, length, inner) = match (rank, old) {
        (0, _) => (1, 1, 1),
        (_, true) => (x.dims[..first].iter().product(), x.dims[first..].iter().product(), 1),
        (_, false) => around(&x.dims, first),
    };
    call.sums(length);
    let mut y = x.clone();
    soften(Arc::make_mut(&mut y.data).as_mut_slice(), (outer, length, inner), logarithm);
    Ok(y)
}

pub(super) fn soften(y: &mut [f64], (outer, length, inner): (usize, usize, usize), logarithm: bool) {
    for o in 0..outer {
        for i in 0..inner {
            let at = |k: usize| (o * length + k) * inner + i;
            let most = (0..length).map(|k| y[at(k)]).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..length).map(|k| (y[at(k)] - most).exp()).sum();
            for k in 0..length {
                let x = y[at(k)] - most;
                y[at(k)] = if logarithm { x - sum.ln() } else { x.exp() / sum };
            }
        }
    }
}

fn hardmax(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let old = call.opset < 13;
    let first = call.axis_of("axis", if old { 1 } else { -1 }, x.rank())?;
    let dims = if old {
        vec![x.dims[..first].iter().product(), x.dims[first..].iter().product(), 1]
    } else {
        let (outer, length, inner) = around(&x.dims, first);
        vec![outer, length, inner]
    };
    let mut y = x.map(|_| 0.0);
    let data = Arc::make_mut(&mut y.data);
    for o in 0..dims[0] {
        for i in 0..dims[2] {
            let at = |k: usize| (o * dims[1] + k) * dims[2] + i;
            let best =
                (1..dims[1]).fold(0, |best, k| if x.data[at(k)] > x.data[at(best)] { k } else { best });
            if dims[1] > 0 {
                data[at(best)] = 1.0;
            }
        }
    }
    one(y)
}
