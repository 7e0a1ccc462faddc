//! Pools.

use emo_proto::tensor_proto::DataType;

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::table::{Row, moves, rounds};
use super::value::{Value, extents, zeros};
use super::window::Geometry;

pub(super) const ROWS: &[Row] = &[
    moves("MaxPool", |c| max(c, c.operand(0)?)),
    rounds("AveragePool", |c| one(average(c, c.operand(0)?)?)),
    rounds("LpPool", |c| {
        let p = c.int("p", 2) as f64;
        one(sums(c, c.operand(0)?, |x| x.abs().powf(p), |sum, _, _| sum.powf(1.0 / p))?)
    }),
    rounds("GlobalAveragePool", |c| one(global_mean(c, c.operand(0)?)?)),
    moves("GlobalMaxPool", |c| {
        one(planes(c.operand(0)?, |plane| plane.iter().copied().fold(f64::NAN, f64::max))?)
    }),
    rounds("GlobalLpPool", |c| {
        let p = c.int("p", 2) as f64;
        one(planes(c.operand(0)?, |x| x.iter().map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p))?)
    }),
];

fn geometry(call: &Call, x: &Value) -> Result<(Geometry, Vec<usize>), Why> {
    let sides = x.dims.get(2..).ok_or_else(|| format!("expected [N, C, …], found {:?}", x.dims))?;
    let kernel = extents(call.ints("kernel_shape").ok_or("expected a kernel_shape")?)?;
    let geometry = Geometry::of(call, sides, &kernel)?;
    let mut dims = x.dims[..2].to_vec();
    dims.extend(&geometry.output[3 - geometry.axes..]);
    Ok((geometry, dims))
}

/// Walks the windows: `visit` gets the plane, the position, the pixel of the plane.
fn each(geometry: &Geometry, planes: usize, mut visit: impl FnMut(usize, usize, usize)) {
    for plane in 0..planes {
        for tap in geometry.taps() {
            for line in 0..geometry.lines() {
                let Some((first, last, at)) = geometry.run(line, tap) else { continue };
                for (i, position) in (first..last).enumerate() {
                    visit(plane, line * geometry.output[2] + position, at + i * geometry.strides[2]);
                }
            }
        }
    }
}

pub(super) fn max(call: &Call, x: &Value) -> Result<Vec<Value>, Why> {
    let (geometry, dims) = geometry(call, x)?;
    let mut y = zeros(&dims)?;
    y.fill(f64::NEG_INFINITY);
    let mut places = zeros(if call.wanted() > 1 { &dims } else { &[] })?;
    let (pixels, positions) = (geometry.pixels(), geometry.positions());
    let by_column = call.flag("storage_order", false);
    each(&geometry, dims[0] * dims[1], |plane, position, pixel| {
        let (value, to) = (x.data[plane * pixels + pixel], plane * positions + position);
        if value > y[to] || value.is_nan() {
            y[to] = value;
            if call.wanted() > 1 {
                let [_, b, c] = geometry.input;
                let a = geometry.input[0];
                let (i, j, k) = (pixel / (b * c), pixel / c % b, pixel % c);
                let place = if by_column { (k * b + j) * a + i } else { pixel };
                places[to] = (plane * pixels + place) as f64;
            }
        }
    });
    let mut outputs = vec![Value::new(x.dtype, dims.clone(), y)?];
    if call.wanted() > 1 {
        outputs.push(Value::new(DataType::Int64, dims, places)?);
    }
    Ok(outputs)
}

/// Sums over the windows of `term`; `finish` gets the sum, the elements in it, and those with padding.
fn sums(
    call: &Call,
    x: &Value,
    term: impl Fn(f64) -> f64,
    finish: impl Fn(f64, f64, f64) -> f64,
) -> Result<Value, Why> {
    let (geometry, dims) = geometry(call, x)?;
    let mut y = zeros(&dims)?;
    let (pixels, positions) = (geometry.pixels(), geometry.positions());
    let mut inside = vec![0.0; positions];
    each(&geometry, 1, |_, position, _| inside[position] += 1.0);
    each(&geometry, dims[0] * dims[1], |plane, position, pixel| {
        y[plane * positions + position] += term(x.data[plane * pixels + pixel]);
    });
    call.sums(geometry.places());
    // Rounded up, a window may reach beyond the padding: that part of it is nowhere.
    let padded = |axis: usize, position: usize| {
        let all = geometry.input[axis] + geometry.begins[axis] + geometry.ends[axis];
        let taps = 0..geometry.kernel[axis];
        taps.filter(|tap| position * geometry.strides[axis] + tap * geometry.dilations[axis] < all).count()
    };
    let [_, b, c] = geometry.output;
    let padded: Vec<f64> = (0..positions)
        .map(|at| (padded(0, at / (b * c)) * padded(1, at / c % b) * padded(2, at % c)) as f64)
        .collect();
    for (i, y) in y.iter_mut().enumerate() {
        *y = finish(*y, inside[i % positions], padded[i % positions]);
    }
    Value::new(x.dtype, dims, y)
}

pub(super) fn average(call: &Call, x: &Value) -> Result<Value, Why> {
    let with_padding = call.flag("count_include_pad", false);
    sums(call, x, |x| x, |sum, inside, padded| sum / if with_padding { padded } else { inside })
}

pub(super) fn global_mean(call: &Call, x: &Value) -> Result<Value, Why> {
    call.sums(x.dims.iter().skip(2).product());
    planes(x, |plane| plane.iter().sum::<f64>() / plane.len() as f64)
}

fn planes(x: &Value, f: impl Fn(&[f64]) -> f64) -> Result<Value, Why> {
    let [n, c, sides @ ..] = &x.dims[..] else {
        return Err(format!("expected [N, C, …], found {:?}", x.dims));
    };
    let size: usize = sides.iter().product();
    let dims = [*n, *c].into_iter().chain(sides.iter().map(|_| 1)).collect();
    Value::new(x.dtype, dims, (0..n * c).map(|i| f(&x.data[i * size..(i + 1) * size])).collect())
}
