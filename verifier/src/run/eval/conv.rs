//! Convolutions and their transposes.

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::linear::product;
use super::table::{Row, rounds};
use super::value::{Value, count, zeros};
use super::window::Geometry;

pub(super) const ROWS: &[Row] = &[
    rounds("Conv", |c| one(conv(c, c.operand(0)?, c.operand(1)?, c.maybe(2))?)),
    rounds("ConvTranspose", |c| one(transposed(c, c.operand(0)?, c.operand(1)?, c.maybe(2))?)),
];

/// Elements of the matrix of windows that is made at once.
const BLOCK: usize = 1 << 20;

/// `x: [N, C, …]`, `w: [M, C / group, …]`.
pub(super) fn conv(call: &Call, x: &Value, w: &Value, bias: Option<&Value>) -> Result<Value, Why> {
    let misfit = || format!("expected [N, C, …] and weights of it, found {:?} and {:?}", x.dims, w.dims);
    let ([n, c, sides @ ..], [m, d, kernel @ ..]) = (&x.dims[..], &w.dims[..]) else { return Err(misfit()) };
    let (n, c, m, d) = (*n, *c, *m, *d);
    let groups = groups(call, c).ok_or_else(misfit)?;
    if sides.len() != kernel.len() || d * groups != c || m % groups != 0 {
        return Err(misfit());
    }
    let geometry = Geometry::of(call, sides, kernel)?;
    let mut dims = vec![n, m];
    dims.extend(&geometry.output[3 - geometry.axes..]);
    let mut y = zeros(&dims)?;
    let (places, pixels, positions) = (geometry.places(), geometry.pixels(), geometry.positions());
    call.sums(d * places);
    let each = m / groups;
    if !y.is_empty() && c > 0 {
        for i in 0..n * groups {
            let g = i % groups;
            let x = &x.data[i * d * pixels..(i + 1) * d * pixels];
            let w = &w.data[g * each * d * places..(g + 1) * each * d * places];
            let y = &mut y[i * each * positions..(i + 1) * each * positions];
            if d == 1 {
                depthwise(&geometry, x, w, y);
            } else {
                dense(&geometry, x, w, y, (each, d))?;
            }
        }
    }
    add_bias(&mut y, bias, m, positions)?;
    Value::new(x.dtype, dims, y)
}

/// No more groups than channels, of which there may be none.
fn groups(call: &Call, channels: usize) -> Option<usize> {
    usize::try_from(call.int("group", 1)).ok().filter(|groups| (1..=channels.max(1)).contains(groups))
}

fn add_bias(y: &mut [f64], bias: Option<&Value>, channels: usize, positions: usize) -> Result<(), Why> {
    let Some(bias) = bias else { return Ok(()) };
    if bias.len() != channels {
        return Err(format!("expected a bias of {channels}, found {:?}", bias.dims));
    }
    for (i, plane) in y.chunks_exact_mut(positions.max(1)).enumerate() {
        let b = bias.data[i % channels];
        plane.iter_mut().for_each(|y| *y += b);
    }
    Ok(())
}

/// One channel in, some out.
fn depthwise(geometry: &Geometry, x: &[f64], w: &[f64], y: &mut [f64]) {
    let (length, stride) = (geometry.output[2], geometry.strides[2]);
    for (y, w) in y.chunks_exact_mut(geometry.positions()).zip(w.chunks_exact(geometry.places())) {
        for (tap, &w) in geometry.taps().zip(w) {
            for (line, y) in y.chunks_exact_mut(length).enumerate() {
                let Some((first, last, at)) = geometry.run(line, tap) else { continue };
                if stride == 1 {
                    let x = &x[at..at + last - first];
                    y[first..last].iter_mut().zip(x).for_each(|(y, &x)| *y += w * x);
                } else {
                    let x = x[at..].iter().step_by(stride);
                    y[first..last].iter_mut().zip(x).for_each(|(y, &x)| *y += w * x);
                }
            }
        }
    }
}

/// `channels` in, `each` out: a product with the matrix of windows, a block of lines at a time.
fn dense(
    geometry: &Geometry,
    x: &[f64],
    w: &[f64],
    y: &mut [f64],
    (each, channels): (usize, usize),
) -> Result<(), Why> {
    let (pixels, positions, length) = (geometry.pixels(), geometry.positions(), geometry.output[2]);
    let terms = channels * geometry.places();
    let pointwise = geometry.places() == 1
        && geometry.strides == [1; 3]
        && geometry.begins == [0; 3]
        && geometry.input == geometry.output;
    if pointwise {
        return product(w, x, y, (each, terms, positions));
    }
    let lines = (BLOCK / (terms * length).max(1)).clamp(1, geometry.lines());
    let width = lines * length;
    let mut windows = zeros(&[terms, width])?;
    let mut block = zeros(&[each, width])?;
    for start in (0..geometry.lines()).step_by(lines) {
        let lines = lines.min(geometry.lines() - start);
        let width = lines * length;
        let windows = &mut windows[..terms * width];
        windows.fill(0.0);
        let rows = (0..channels).flat_map(|c| geometry.taps().map(move |tap| (c, tap)));
        for ((c, tap), row) in rows.zip(windows.chunks_exact_mut(width)) {
            let x = &x[c * pixels..(c + 1) * pixels];
            for (line, row) in row.chunks_exact_mut(length).enumerate() {
                let Some((first, last, at)) = geometry.run(start + line, tap) else { continue };
                let x = x[at..].iter().step_by(geometry.strides[2]);
                row[first..last].iter_mut().zip(x).for_each(|(row, &x)| *row = x);
            }
        }
        let block = &mut block[..each * width];
        product(w, windows, block, (each, terms, width))?;
        for (y, block) in y.chunks_exact_mut(positions).zip(block.chunks_exact(width)) {
            y[start * length..start * length + width].copy_from_slice(block);
        }
    }
    Ok(())
}

/// `x: [N, C, …]`, `w: [C, M / group, …]`: each element of `x` writes a window.
fn transposed(call: &Call, x: &Value, w: &Value, bias: Option<&Value>) -> Result<Value, Why> {
    let misfit = || format!("expected [N, C, …] and weights of it, found {:?} and {:?}", x.dims, w.dims);
    let ([n, c, sides @ ..], [k, each, kernel @ ..]) = (&x.dims[..], &w.dims[..]) else {
        return Err(misfit());
    };
    let (n, c, each) = (*n, *c, *each);
    let groups = groups(call, c).ok_or_else(misfit)?;
    if sides.len() != kernel.len() || *k != c || c % groups != 0 {
        return Err(misfit());
    }
    let geometry = Geometry::transposed(call, sides, kernel)?;
    let mut dims = vec![n, each * groups];
    dims.extend(&geometry.input[3 - geometry.axes..]);
    let mut y = zeros(&dims)?;
    let (places, pixels, positions) = (geometry.places(), geometry.pixels(), geometry.positions());
    let d = c / groups;
    call.sums(d * places);
    count(&[each, places, positions])?;
    for i in 0..n * groups {
        let g = i % groups;
        let x = Value::new(
            x.dtype,
            vec![d, positions],
            x.data[i * d * positions..(i + 1) * d * positions].to_vec(),
        )?;
        let w = w.data[g * d * each * places..(g + 1) * d * each * places].to_vec();
        let w = Value::new(x.dtype, vec![d, each * places], w)?.transposed(&[1, 0])?;
        let windows = super::linear::matmul(&w, &x)?;
        let y = &mut y[i * each * pixels..(i + 1) * each * pixels];
        let rows = (0..each).flat_map(|m| geometry.taps().map(move |tap| (m, tap)));
        for ((m, tap), row) in rows.zip(windows.data.chunks_exact(positions.max(1))) {
            let y = &mut y[m * pixels..(m + 1) * pixels];
            for (line, row) in row.chunks_exact(geometry.output[2].max(1)).enumerate() {
                let Some((first, last, at)) = geometry.run(line, tap) else { continue };
                let y = y[at..].iter_mut().step_by(geometry.strides[2]);
                y.zip(&row[first..last]).for_each(|(y, &x)| *y += x);
            }
        }
    }
    add_bias(&mut y, bias, each * groups, pixels)?;
    Value::new(x.dtype, dims, y)
}
