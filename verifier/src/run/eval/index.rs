//! Elements taken and put by index, and tensors made of numbers.

use std::sync::Arc;

use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::table::{Row, moves};
use super::value::{Value, around, axis, count, extents, strides, zeros};

pub(super) const ROWS: &[Row] = &[
    moves("Constant", constant),
    moves("Shape", |c| {
        let dims = &c.operand(0)?.dims;
        let bound =
            |n: i64| (if n < 0 { n + dims.len() as i64 } else { n }).clamp(0, dims.len() as i64) as usize;
        let (start, end) = (bound(c.int("start", 0)), bound(c.int("end", dims.len() as i64)));
        one(Value::list(dims.get(start..end).unwrap_or_default().iter().map(|&d| d as i64)))
    }),
    moves("Size", |c| one(Value::scalar(DataType::Int64, c.operand(0)?.len() as f64))),
    moves("ConstantOfShape", |c| {
        let dims = extents(&c.operand(0)?.integers())?;
        let fill = match c.attribute("value").and_then(|a| a.t.as_ref()) {
            Some(tensor) => Value::of(&Tensor::decode(tensor, c.external).map_err(|e| e.to_string())?)?,
            None => Value::scalar(DataType::Float, 0.0),
        };
        let data = vec![fill.number()?; count(&dims)?];
        one(Value::new(fill.dtype, dims, data)?)
    }),
    moves("Range", |c| {
        let (start, limit) = (c.operand(0)?, c.operand(1)?.number()?);
        let (first, delta) = (start.number()?, c.operand(2)?.number()?);
        let n = ((limit - first) / delta).ceil().max(0.0);
        let n = count(&[n as usize])?;
        one(Value::new(start.dtype, vec![n], (0..n).map(|i| first + i as f64 * delta).collect())?)
    }),
    moves("EyeLike", |c| {
        let x = c.operand(0)?;
        let [rows, columns] = x.dims[..] else {
            return Err(format!("expected a matrix, found {:?}", x.dims));
        };
        let k = c.int("k", 0);
        let ones =
            (0..rows * columns).map(|i| (i % columns.max(1)) as i64 - (i / columns.max(1)) as i64 == k);
        let dtype = c.dtype_of("dtype")?.unwrap_or(x.dtype);
        one(Value::new(dtype, x.dims.clone(), ones.map(f64::from).collect())?)
    }),
    moves("Trilu", trilu),
    moves("NonZero", |c| {
        let x = c.operand(0)?;
        let found: Vec<usize> = (0..x.len()).filter(|&i| x.data[i] != 0.0).collect();
        let (own, rank) = (strides(&x.dims), x.rank());
        let index = |axis: usize, at: usize| (at / own[axis] as usize % x.dims[axis]) as f64;
        let data = (0..rank).flat_map(|axis| found.iter().map(move |&at| index(axis, at))).collect();
        one(Value::new(DataType::Int64, vec![rank, found.len()], data)?)
    }),
    moves("OneHot", one_hot),
    moves("Gather", |c| {
        let x = c.operand(0)?;
        one(gather(x, c.operand(1)?, c.axis_of("axis", 0, x.rank())?)?)
    }),
    moves("GatherElements", gather_elements),
    moves("GatherND", gather_nd),
    moves("ScatterElements", scatter_elements),
    moves("Scatter", scatter_elements),
    moves("ScatterND", scatter_nd),
    moves("Compress", compress),
];

fn constant(call: &Call) -> Result<Vec<Value>, Why> {
    if let Some(tensor) = call.attribute("value").and_then(|a| a.t.as_ref()) {
        let tensor = Tensor::decode(tensor, call.external).map_err(|e| e.to_string())?;
        return one(Value::of(&tensor)?);
    }
    if let Some(x) = call.float("value_float") {
        return one(Value::scalar(DataType::Float, x.into()));
    }
    if let Some(list) = call.floats("value_floats") {
        let data = list.iter().map(|&x| x.into()).collect();
        return one(Value::new(DataType::Float, vec![list.len()], data)?);
    }
    if let Some(i) = call.attribute("value_int").and_then(|a| a.i) {
        return one(Value::scalar(DataType::Int64, i as f64));
    }
    match call.ints("value_ints") {
        Some(list) => one(Value::list(list.iter().copied())),
        None => Err("expected a constant of numbers".to_owned()),
    }
}

fn trilu(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let k = call.maybe(1).map_or(Ok(0), |k| k.number().map(|k| k as i64))?;
    let [.., rows, columns] = x.dims[..] else {
        return Err(format!("expected matrices, found {:?}", x.dims));
    };
    let upper = call.flag("upper", true);
    let mut y = x.clone();
    for (i, y) in Arc::make_mut(&mut y.data).iter_mut().enumerate() {
        let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
        let kept = if upper { column - row >= k } else { column - row <= k };
        if !kept {
            *y = 0.0;
        }
    }
    one(y)
}

/// An index of an axis, from its end where negative.
fn at(index: f64, side: usize) -> Result<usize, Why> {
    axis(index as i64, side).map_err(|_| format!("expected an index below {side}, found {index}"))
}

fn one_hot(call: &Call) -> Result<Vec<Value>, Why> {
    let (indices, values) = (call.operand(0)?, call.operand(2)?);
    let depth = extents(&[call.operand(1)?.number()? as i64])?[0];
    let place = call.axis_of("axis", -1, indices.rank() + 1)?;
    let [off, on] = values.data[..] else { return Err("expected two values".to_owned()) };
    let mut dims = indices.dims.clone();
    dims.insert(place, depth);
    let mut y = zeros(&dims)?;
    y.fill(off);
    let (_, _, inner) = around(&dims, place);
    for (i, &index) in indices.data.iter().enumerate() {
        // Out of range nothing is on.
        if let Ok(index) = at(index, depth) {
            y[(i / inner * depth + index) * inner + i % inner] = on;
        }
    }
    one(Value::new(values.dtype, dims, y)?)
}

/// The entries of an axis that `indices` name.
pub(super) fn gather(x: &Value, indices: &Value, axis: usize) -> Result<Value, Why> {
    let (outer, side, inner) = around(&x.dims, axis);
    let places = indices.data.iter().map(|&i| at(i, side)).collect::<Result<Vec<_>, _>>()?;
    let mut dims = x.dims[..axis].to_vec();
    dims.extend(&indices.dims);
    dims.extend(&x.dims[axis + 1..]);
    let mut data = Vec::with_capacity(count(&dims)?);
    for o in 0..outer {
        for place in &places {
            let start = (o * side + place) * inner;
            data.extend_from_slice(&x.data[start..start + inner]);
        }
    }
    Value::new(x.dtype, dims, data)
}

/// Where in `dims` each element of `indices` points along `axis`, everything else being its own place.
fn places(indices: &Value, dims: &[usize], axis: usize) -> Result<Vec<usize>, Why> {
    let fits =
        indices.rank() == dims.len() && (0..dims.len()).all(|i| i == axis || indices.dims[i] <= dims[i]);
    if !fits {
        return Err(format!("expected indices inside {dims:?}, found {:?}", indices.dims));
    }
    let (own, to) = (strides(&indices.dims), strides(dims));
    let place = |(i, &index): (usize, &f64)| {
        let other = |k: usize| i / own[k] as usize % indices.dims[k] * to[k] as usize;
        let others: usize = (0..dims.len()).filter(|&k| k != axis).map(other).sum();
        Ok(others + at(index, dims[axis])? * to[axis] as usize)
    };
    indices.data.iter().enumerate().map(place).collect()
}

fn gather_elements(call: &Call) -> Result<Vec<Value>, Why> {
    let (x, indices) = (call.operand(0)?, call.operand(1)?);
    let axis = call.axis_of("axis", 0, x.rank())?;
    let data = places(indices, &x.dims, axis)?.into_iter().map(|i| x.data[i]).collect();
    one(Value::new(x.dtype, indices.dims.clone(), data)?)
}

/// What is put on what is there.
fn put(call: &Call) -> Result<fn(f64, f64) -> f64, Why> {
    Ok(match call.text("reduction").unwrap_or("none") {
        "none" | "" => |_, new| new,
        "add" => |old, new| old + new,
        "mul" => |old, new| old * new,
        "max" => f64::max,
        "min" => f64::min,
        other => return Err(format!("expected a reduction of a scatter, found {other}")),
    })
}

fn scatter_elements(call: &Call) -> Result<Vec<Value>, Why> {
    let (x, indices, updates) = (call.operand(0)?, call.operand(1)?, call.operand(2)?);
    let axis = call.axis_of("axis", 0, x.rank())?;
    if updates.dims != indices.dims {
        return Err(format!("expected updates of {:?}, found {:?}", indices.dims, updates.dims));
    }
    let (put, mut y) = (put(call)?, x.clone());
    let data = Arc::make_mut(&mut y.data);
    for (place, &update) in places(indices, &x.dims, axis)?.into_iter().zip(updates.data.iter()) {
        data[place] = put(data[place], update);
    }
    one(y)
}

/// The runs that tuples of indices name: where each starts, and how long all are.
fn runs(indices: &Value, dims: &[usize], batch: usize) -> Result<(Vec<usize>, usize), Why> {
    let misfit = || format!("expected tuples of indices of {dims:?}, found {:?}", indices.dims);
    let &depth = indices.dims.last().ok_or_else(misfit)?;
    if batch + depth > dims.len() || indices.dims.len() <= batch || indices.dims[..batch] != dims[..batch] {
        return Err(misfit());
    }
    let to = strides(dims);
    let batches: usize = dims[..batch].iter().product();
    let tuples = indices.dims[..indices.rank() - 1].iter().product::<usize>();
    let each = (tuples / batches.max(1)).max(1);
    let whole: usize = dims[batch..].iter().product();
    let start = |i: usize| {
        let tuple = &indices.data[i * depth..(i + 1) * depth];
        let step = |(k, &index): (usize, &f64)| Ok(at(index, dims[batch + k])? * to[batch + k] as usize);
        let inside = tuple.iter().enumerate().map(step).sum::<Result<usize, Why>>()?;
        Ok(i / each * whole + inside)
    };
    let starts = (0..tuples).map(start).collect::<Result<Vec<_>, Why>>()?;
    Ok((starts, dims[batch + depth..].iter().product()))
}

fn gather_nd(call: &Call) -> Result<Vec<Value>, Why> {
    let (x, indices) = (call.operand(0)?, call.operand(1)?);
    let batch = usize::try_from(call.int("batch_dims", 0)).map_err(|e| e.to_string())?;
    let (starts, length) = runs(indices, &x.dims, batch)?;
    let depth = indices.dims[indices.rank() - 1];
    let mut dims = indices.dims[..indices.rank() - 1].to_vec();
    dims.extend(&x.dims[batch + depth..]);
    let mut data = Vec::with_capacity(count(&dims)?);
    starts.iter().for_each(|&start| data.extend_from_slice(&x.data[start..start + length]));
    one(Value::new(x.dtype, dims, data)?)
}

fn scatter_nd(call: &Call) -> Result<Vec<Value>, Why> {
    let (x, indices, updates) = (call.operand(0)?, call.operand(1)?, call.operand(2)?);
    let (starts, length) = runs(indices, &x.dims, 0)?;
    if updates.len() != starts.len() * length {
        return Err(format!("expected {} updates, found {:?}", starts.len() * length, updates.dims));
    }
    let (put, mut y) = (put(call)?, x.clone());
    let data = Arc::make_mut(&mut y.data);
    for (i, start) in starts.into_iter().enumerate() {
        for k in 0..length {
            data[start + k] = put(data[start + k], updates.data[i * length + k]);
        }
    }
    one(y)
}

fn compress(call: &Call) -> Result<Vec<Value>, Why> {
    let (x, condition) = (call.operand(0)?, call.operand(1)?);
    let kept = condition.integers();
    let chosen = Value::list((0..kept.len() as i64).filter(|&i| kept[i as usize] != 0));
    match call.ints("axis").is_some() || call.attribute("axis").is_some() {
        true => one(gather(x, &chosen, call.axis_of("axis", 0, x.rank())?)?),
        false => one(gather(&x.reshaped(vec![x.len()])?, &chosen, 0)?),
    }
}
