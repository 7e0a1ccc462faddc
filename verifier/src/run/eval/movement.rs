//! Elements in other places, none changed.

use emo_proto::tensor_proto::DataType;

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::table::{Row, moves};
use super::value::{Value, around, axes, axis, broadcast, count, extents, rows, strides, zeros};

pub(super) const ROWS: &[Row] = &[
    moves("Identity", |c| one(c.operand(0)?.clone())),
    moves("Dropout", |c| {
        let x = c.operand(0)?;
        if c.maybe(2).is_some_and(|training| training.data.first() == Some(&1.0)) {
            return Err("expected inference, found training_mode".to_owned());
        }
        Ok(vec![x.clone(), x.map(|_| 1.0).with_type(DataType::Bool)])
    }),
    moves("Reshape", reshape),
    moves("Flatten", |c| {
        let x = c.operand(0)?;
        // The axis may be the rank itself.
        let at = c.int("axis", 1);
        let at = if at == x.rank() as i64 { x.rank() } else { axis(at, x.rank())? };
        one(x.reshaped(vec![x.dims[..at].iter().product(), x.dims[at..].iter().product()])?)
    }),
    moves("Squeeze", squeeze),
    moves("Unsqueeze", unsqueeze),
    moves("Transpose", |c| {
        let x = c.operand(0)?;
        let perm = match c.ints("perm") {
            Some(perm) => extents(perm)?,
            None => (0..x.rank()).rev().collect(),
        };
        one(x.transposed(&perm)?)
    }),
    moves("Concat", |c| {
        let parts: Vec<&Value> = c.operands.iter().flatten().collect();
        let rank = parts.first().ok_or("expected one part at least")?.rank();
        one(concat(&parts, c.axis_of("axis", 1, rank)?)?)
    }),
    moves("Split", split),
    moves("Slice", slice),
    moves("Pad", pad),
    moves("Expand", |c| {
        let x = c.operand(0)?;
        let asked = extents(&c.operand(1)?.integers())?;
        one(x.expanded(&broadcast(&[&x.dims, &asked])?)?)
    }),
    moves("Tile", tile),
    moves("DepthToSpace", depth_to_space),
    moves("SpaceToDepth", |c| {
        let x = c.operand(0)?;
        let (n, ch, h, w) = image(x)?;
        let b = block(c)?;
        let perm = if c.text("mode") == Some("CRD") { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
        let parts = x.reshaped(vec![n, ch, h / b, b, w / b, b])?.transposed(&perm)?;
        one(parts.reshaped(vec![n, ch * b * b, h / b, w / b])?)
    }),
    moves("ReverseSequence", reverse_sequence),
];

fn reshape(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let asked = call.list("shape", 1).ok_or("expected a shape")?;
    let keep_zero = call.flag("allowzero", false);
    let mut dims = Vec::new();
    let mut free = None;
    for (i, &n) in asked.iter().enumerate() {
        match n {
            0 if !keep_zero => {
                dims.push(*x.dims.get(i).ok_or("expected 0 to stand for an extent of the input")?);
            }
            -1 if free.is_none() => {
                free = Some(i);
                dims.push(1);
            }
            n => dims.extend(extents(&[n])?),
        }
    }
    if let Some(i) = free {
        let others = count(&dims)?;
        dims[i] = x.len().checked_div(others).unwrap_or(0);
    }
    one(x.reshaped(dims)?)
}

fn squeeze(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let axes = match call.list("axes", 1) {
        Some(list) => axes(&list, x.rank())?,
        None => (0..x.rank()).filter(|&i| x.dims[i] == 1).collect(),
    };
    let kept = x.dims.iter().enumerate().filter(|(i, _)| !axes.contains(i));
    one(x.reshaped(kept.map(|(_, &dim)| dim).collect())?)
}

fn unsqueeze(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let list = call.list("axes", 1).ok_or("expected axes")?;
    let rank = x.rank() + list.len();
    let axes = axes(&list, rank)?;
    let mut own = x.dims.iter();
    let dims = (0..rank).map(|i| if axes.contains(&i) { 1 } else { own.next().copied().unwrap_or(1) });
    one(x.reshaped(dims.collect())?)
}

/// Parts behind each other along an axis.
pub(super) fn concat(parts: &[&Value], axis: usize) -> Result<Value, Why> {
    let first = parts.first().ok_or("expected one part at least")?;
    let mut dims = first.dims.clone();
    dims[axis] = 0;
    for part in parts {
        let differs = |(i, &dim): (usize, &usize)| i != axis && dims.get(i) != Some(&dim);
        if part.rank() != first.rank() || part.dims.iter().enumerate().any(differs) {
            return Err(format!("expected parts of one shape but for axis {axis}, found {:?}", part.dims));
        }
        dims[axis] += part.dims[axis];
    }
    let outer: usize = dims[..axis].iter().product();
    let mut data = Vec::with_capacity(count(&dims)?);
    for o in 0..outer {
        for part in parts {
            let run: usize = part.dims[axis..].iter().product();
            data.extend_from_slice(&part.data[o * run..(o + 1) * run]);
        }
    }
    Value::new(first.dtype, dims, data)
}

/// The elements `start..end` of an axis.
pub(super) fn part(x: &Value, axis: usize, start: usize, end: usize) -> Result<Value, Why> {
    if start > end || end > x.dims[axis] {
        return Err(format!("expected a part of axis {axis} of {:?}, found {start} to {end}", x.dims));
    }
    let mut dims = x.dims.clone();
    dims[axis] = end - start;
    let own = strides(&x.dims);
    x.strided(dims, &own, start * own[axis] as usize)
}

fn split(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let axis = call.axis_of("axis", 0, x.rank())?;
    let side = x.dims[axis];
    let lengths = match call.list("split", 1) {
        Some(lengths) => extents(&lengths)?,
        None => {
            let parts = call.wanted().max(1);
            if call.int("num_outputs", parts as i64) != parts as i64 {
                return Err(format!("expected as many outputs as num_outputs says, found {parts}"));
            }
            let each = side.div_ceil(parts);
            (0..parts).map(|i| each.min(side.saturating_sub(i * each))).collect()
        }
    };
    let mut start = 0;
    let mut outputs = Vec::new();
    for length in lengths {
        outputs.push(part(x, axis, start, start.saturating_add(length))?);
        start += length;
    }
    if start != side {
        return Err(format!("expected parts of {side} elements, found {start}"));
    }
    Ok(outputs)
}

fn slice(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let starts = call.list("starts", 1).ok_or("expected starts")?;
    let ends = call.list("ends", 2).ok_or("expected ends")?;
    let named = call.list("axes", 3).unwrap_or_else(|| (0..starts.len() as i64).collect());
    let axes = axes(&named, x.rank())?;
    let steps = call.maybe(4).map_or_else(|| vec![1; starts.len()], Value::integers);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err("expected as many ends, axes and steps as starts".to_owned());
    }
    let (mut dims, mut steps_at) = (x.dims.clone(), strides(&x.dims));
    let own = steps_at.clone();
    let mut origin = 0_isize;
    for (i, &a) in axes.iter().enumerate() {
        let side = x.dims[a] as i64;
        let from_end = |n: i64| if n < 0 { n.saturating_add(side) } else { n };
        let step = steps[i];
        let (start, end) = match step {
            0 => return Err("expected steps other than 0".to_owned()),
            1.. => (from_end(starts[i]).clamp(0, side), from_end(ends[i]).clamp(0, side)),
            _ => (from_end(starts[i]).clamp(-1, side - 1), from_end(ends[i]).clamp(-1, side - 1)),
        };
        let span = if step > 0 { end - start } else { start - end };
        dims[a] = if span > 0 { (span as u64).div_ceil(step.unsigned_abs()) as usize } else { 0 };
        let step = isize::try_from(step).ok().and_then(|step| step.checked_mul(own[a]));
        // A step beyond the end is taken from nowhere: there is one element.
        steps_at[a] = if dims[a] > 1 { step.ok_or("expected smaller steps")? } else { own[a] };
        origin += if dims[a] > 0 { start as isize * own[a] } else { 0 };
    }
    one(x.strided(dims, &steps_at, usize::try_from(origin).map_err(|e| e.to_string())?)?)
}

fn pad(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let name = if call.opset < 2 { "paddings" } else { "pads" };
    let pads = call.list(name, 1).ok_or("expected pads")?;
    let axes = match call.maybe(3) {
        Some(list) => axes(&list.integers(), x.rank())?,
        None => (0..x.rank()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("expected {} pads, found {}", 2 * axes.len(), pads.len()));
    }
    let fill = match call.maybe(2) {
        Some(value) if value.len() == 1 => value.number()?,
        _ => call.real("value", 0.0),
    };
    let mode = call.text("mode").unwrap_or("constant").to_owned();
    let mut y = x.clone();
    for (i, &axis) in axes.iter().enumerate() {
        y = padded(&y, axis, (pads[i], pads[i + axes.len()]), &mode, fill)?;
    }
    one(y)
}

/// One axis, longer or shorter at both ends.
fn padded(x: &Value, axis: usize, (begin, end): (i64, i64), mode: &str, fill: f64) -> Result<Value, Why> {
    let side = x.dims[axis] as i64;
    let length = side.checked_add(begin).and_then(|n| n.checked_add(end));
    let length = length.ok_or("expected smaller pads")?.max(0);
    let from = |i: i64| -> Result<Option<usize>, Why> {
        let at = i.saturating_sub(begin);
        let at = match mode {
            "constant" => Some(at).filter(|at| (0..side).contains(at)),
            _ if side == 0 => return Err("expected elements to pad with, found none".to_owned()),
            "edge" => Some(at.clamp(0, side - 1)),
            "wrap" => Some(at.rem_euclid(side)),
            "reflect" if side == 1 => Some(0),
            "reflect" => {
                let at = at.rem_euclid(2 * (side - 1));
                Some(at.min(2 * (side - 1) - at))
            }
            other => return Err(format!("expected a mode of Pad, found {other}")),
        };
        Ok(at.map(|at| at as usize))
    };
    let mut dims = x.dims.clone();
    dims[axis] = usize::try_from(length).map_err(|e| e.to_string())?;
    let mut data = Vec::with_capacity(count(&dims)?);
    let (outer, side, inner) = around(&x.dims, axis);
    let places = (0..length).map(from).collect::<Result<Vec<_>, _>>()?;
    for o in 0..outer {
        for place in &places {
            match place {
                Some(at) => {
                    data.extend_from_slice(&x.data[(o * side + at) * inner..(o * side + at + 1) * inner]);
                }
                None => data.extend(std::iter::repeat_n(fill, inner)),
            }
        }
    }
    Value::new(x.dtype, dims, data)
}

fn tile(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let repeats = extents(&call.operand(1)?.integers())?;
    if repeats.len() != x.rank() {
        return Err(format!("expected {} repeats, found {}", x.rank(), repeats.len()));
    }
    let mut y = x.clone();
    for (axis, &repeat) in repeats.iter().enumerate() {
        let (outer, side, inner) = around(&y.dims, axis);
        let mut dims = y.dims.clone();
        dims[axis] = side.checked_mul(repeat).ok_or("expected fewer repeats")?;
        let mut data = Vec::with_capacity(count(&dims)?);
        for o in 0..outer {
            for _ in 0..repeat {
                data.extend_from_slice(&y.data[o * side * inner..(o + 1) * side * inner]);
            }
        }
        y = Value::new(y.dtype, dims, data)?;
    }
    one(y)
}

fn image(x: &Value) -> Result<(usize, usize, usize, usize), Why> {
    let [n, c, h, w] = x.dims[..] else { return Err(format!("expected [N, C, H, W], found {:?}", x.dims)) };
    Ok((n, c, h, w))
}

/// Side of a block, at most: its square is no more than a tensor holds.
const MOST_BLOCK: usize = 1 << 13;

fn block(call: &Call) -> Result<usize, Why> {
    usize::try_from(call.int("blocksize", 0))
        .ok()
        .filter(|b| (1..=MOST_BLOCK).contains(b))
        .ok_or_else(|| format!("expected a blocksize from 1 to {MOST_BLOCK}"))
}

fn depth_to_space(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let (n, c, h, w) = image(x)?;
    let b = block(call)?;
    let each = c / (b * b);
    let parts = match call.text("mode") {
        Some("CRD") => x.reshaped(vec![n, each, b, b, h, w])?.transposed(&[0, 1, 4, 2, 5, 3])?,
        _ => x.reshaped(vec![n, b, b, each, h, w])?.transposed(&[0, 3, 4, 1, 5, 2])?,
    };
    one(parts.reshaped(vec![n, each, h * b, w * b])?)
}

fn reverse_sequence(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let lengths = extents(&call.operand(1)?.integers())?;
    let (time, batch) = (call.axis_of("time_axis", 0, x.rank())?, call.axis_of("batch_axis", 1, x.rank())?);
    if time == batch || lengths.len() != x.dims[batch] || lengths.iter().any(|&l| l > x.dims[time]) {
        return Err(format!("expected lengths of {:?}, found {lengths:?}", x.dims));
    }
    let own = strides(&x.dims);
    let mut data = zeros(&x.dims)?;
    let mut at = 0;
    rows(&x.dims, [&own], |[from], [step], n| {
        for i in 0..n as isize {
            let from = from + i * step;
            let index = |axis: usize| (from / own[axis]) as usize % x.dims[axis];
            let (t, length) = (index(time), lengths[index(batch)]);
            let other = if t < length { length - 1 - t } else { t };
            data[at] = x.data[(from + (other as isize - t as isize) * own[time]) as usize];
            at += 1;
        }
    });
    one(Value::new(x.dtype, x.dims.clone(), data)?)
}
