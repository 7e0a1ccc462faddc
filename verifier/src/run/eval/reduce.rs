//! Sums, means, extremes and orders along axes.

use emo_proto::tensor_proto::DataType;

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::table::{Row, moves, rounds};
use super::value::{self, Value, around, axis, rows, strides, zeros};

pub(super) const ROWS: &[Row] = &[
    rounds("ReduceSum", |c| reduce(c, 0.0, |s, x| s + x, |s, _| s)),
    rounds("ReduceMean", |c| reduce(c, 0.0, |s, x| s + x, |s, n| s / n)),
    rounds("ReduceSumSquare", |c| reduce(c, 0.0, |s, x| s + x * x, |s, _| s)),
    rounds("ReduceL1", |c| reduce(c, 0.0, |s, x| s + x.abs(), |s, _| s)),
    rounds("ReduceL2", |c| reduce(c, 0.0, |s, x| s + x * x, |s, _| s.sqrt())),
    rounds("ReduceLogSum", |c| reduce(c, 0.0, |s, x| s + x, |s, _| s.ln())),
    rounds("ReduceLogSumExp", log_sum_exp),
    rounds("ReduceProd", |c| reduce(c, 1.0, |s, x| s * x, |s, _| s)),
    moves("ReduceMax", |c| {
        let least = super::round::range(c.operand(0)?.dtype).map_or(f64::NEG_INFINITY, |(least, _)| least);
        reduce(c, least, |s, x| if s.is_nan() || s > x { s } else { x }, |s, _| s)
    }),
    moves("ReduceMin", |c| {
        let most = super::round::range(c.operand(0)?.dtype).map_or(f64::INFINITY, |(_, most)| most);
        reduce(c, most, |s, x| if s.is_nan() || s < x { s } else { x }, |s, _| s)
    }),
    moves("ArgMax", |c| extreme(c, |x, best| x > best)),
    moves("ArgMin", |c| extreme(c, |x, best| x < best)),
    rounds("CumSum", cumulative),
    moves("TopK", top),
];

/// The axes that a reduction takes, by attribute or operand.
fn axes(call: &Call, rank: usize) -> Result<Vec<usize>, Why> {
    let given = call.list("axes", 1).unwrap_or_default();
    if given.is_empty() {
        let none = call.flag("noop_with_empty_axes", false);
        return Ok(if none { Vec::new() } else { (0..rank).collect() });
    }
    value::axes(&given, rank)
}

fn reduce(
    call: &Call,
    start: f64,
    step: impl Fn(f64, f64) -> f64,
    finish: impl Fn(f64, f64) -> f64,
) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let axes = axes(call, x.rank())?;
    one(over(call, x, &axes, call.flag("keepdims", true), start, step, finish)?)
}

/// `x` with `axes` reduced; `finish` gets the number of elements, too.
pub(super) fn over(
    call: &Call,
    x: &Value,
    axes: &[usize],
    keep: bool,
    start: f64,
    step: impl Fn(f64, f64) -> f64,
    finish: impl Fn(f64, f64) -> f64,
) -> Result<Value, Why> {
    let kept: Vec<usize> = (0..x.rank()).map(|i| if axes.contains(&i) { 1 } else { x.dims[i] }).collect();
    let mut y = zeros(&kept)?;
    y.fill(start);
    let own = strides(&x.dims);
    let mut to = strides(&kept);
    axes.iter().for_each(|&i| to[i] = 0);
    rows(&x.dims, [&own, &to], |[from, at], [s, t], length| {
        let (from, at) = (from as usize, at as usize);
        for i in 0..length {
            let slot = &mut y[at + i * t as usize];
            *slot = step(*slot, x.data[from + i * s as usize]);
        }
    });
    let terms: usize = axes.iter().map(|&i| x.dims[i]).product();
    call.sums(terms);
    y.iter_mut().for_each(|y| *y = finish(*y, terms as f64));
    let all = x.dims.iter().enumerate();
    let cut = all.filter(|(i, _)| !axes.contains(i)).map(|(_, &dim)| dim).collect();
    // Integers have integer means.
    if super::elementwise::is_integer(x.dtype) {
        y.iter_mut().for_each(|y| *y = y.trunc());
    }
    Value::new(x.dtype, if keep { kept } else { cut }, y)
}

fn log_sum_exp(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let axes = axes(call, x.rank())?;
    let most = x.data.iter().copied().filter(|x| x.is_finite()).fold(f64::NEG_INFINITY, f64::max);
    let most = if most.is_finite() { most } else { 0.0 };
    let keep = call.flag("keepdims", true);
    one(over(call, x, &axes, keep, 0.0, |s, x| s + (x - most).exp(), |s, _| s.ln() + most)?)
}

fn extreme(call: &Call, better: impl Fn(f64, f64) -> bool) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let axis = call.axis_of("axis", 0, x.rank())?;
    let last = call.flag("select_last_index", false);
    let (outer, length, inner) = around(&x.dims, axis);
    if length == 0 {
        return Err(format!("expected elements along axis {axis}, found {:?}", x.dims));
    }
    let mut found = Vec::with_capacity(outer * inner);
    for o in 0..outer {
        for i in 0..inner {
            let at = |k: usize| x.data[(o * length + k) * inner + i];
            let pick = |best: usize, k: usize| {
                if better(at(k), at(best)) || last && at(k) == at(best) { k } else { best }
            };
            found.push((1..length).fold(0, pick) as f64);
        }
    }
    let mut dims = x.dims.clone();
    dims[axis] = 1;
    let kept = Value::new(DataType::Int64, dims, found)?;
    if call.flag("keepdims", true) {
        return one(kept);
    }
    let all = x.dims.iter().enumerate();
    one(kept.reshaped(all.filter(|(i, _)| *i != axis).map(|(_, &dim)| dim).collect())?)
}

fn cumulative(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let axis = axis(call.operand(1)?.number()? as i64, x.rank())?;
    let (exclusive, reverse) = (call.flag("exclusive", false), call.flag("reverse", false));
    let (outer, length, inner) = around(&x.dims, axis);
    call.sums(length);
    let mut y = zeros(&x.dims)?;
    for o in 0..outer {
        for i in 0..inner {
            let mut sum = 0.0;
            for k in 0..length {
                let k = if reverse { length - 1 - k } else { k };
                let at = (o * length + k) * inner + i;
                let before = sum;
                sum += x.data[at];
                y[at] = if exclusive { before } else { sum };
            }
        }
    }
    one(Value::new(x.dtype, x.dims.clone(), y)?)
}

fn top(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let axis = call.axis_of("axis", -1, x.rank())?;
    let k = match call.maybe(1) {
        Some(k) => k.number()? as i64,
        None => call.int("k", -1),
    };
    let (outer, length, inner) = around(&x.dims, axis);
    let k = usize::try_from(k).ok().filter(|&k| k <= length);
    let k = k.ok_or_else(|| format!("expected k of at most {length}"))?;
    let largest = call.flag("largest", true);
    let mut dims = x.dims.clone();
    dims[axis] = k;
    let (mut values, mut places) = (zeros(&dims)?, zeros(&dims)?);
    for o in 0..outer {
        for i in 0..inner {
            let at = |j: usize| x.data[(o * length + j) * inner + i];
            let mut order: Vec<usize> = (0..length).collect();
            // Stable: of equals the first comes first.
            order.sort_by(|&a, &b| if largest { at(b).total_cmp(&at(a)) } else { at(a).total_cmp(&at(b)) });
            for (j, &from) in order[..k].iter().enumerate() {
                values[(o * k + j) * inner + i] = at(from);
                places[(o * k + j) * inner + i] = from as f64;
            }
        }
    }
    Ok(vec![Value::new(x.dtype, dims.clone(), values)?, Value::new(DataType::Int64, dims, places)?])
}
