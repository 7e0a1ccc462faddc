//! Maps of other sides: resized, or their means over grids.

use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};

use super::{Form, mean};
use crate::builder::Builder;
use crate::graph::{Dim, Value};
use crate::op::Resize;
use crate::profile::{self, Pool};
use crate::rewrite::{Kind, Rewrite};

/// What fvcore counts of an element of a map that is resized.
const NEAREST: i64 = 1;
const LINEAR: i64 = 4;

/// Each cell of `x` doubled, the last row or column once where the sides are odd: what PyTorch's `nearest` makes of a
/// map that was halved.
///
/// # Errors
/// The sides are no such ones; as every layer: a shape does not fit.
pub fn resize_nearest(b: &mut Builder, x: Value, size: [usize; 2], form: Form) -> Result<Value> {
    let (_, channels, height, width) = b.feature_map(x)?;
    let doubled = [2 * height, 2 * width];
    if size.iter().zip(doubled).any(|(&to, doubled)| to != doubled && to + 1 != doubled) {
        let why = format!("expected a map of half of {size:?} cells, found {height}x{width}");
        return Err(Error::new(why).at(b.path("resize")));
    }
    if size == doubled || form.forms().resize == profile::Resize::Any {
        return b.resize("resize", x, Resize::Nearest, size);
    }
    let whole = b.resize("resize", x, Resize::Nearest, doubled)?;
    let cells = |[height, width]: [usize; 2]| (channels * height * width) as i64;
    let free = Rewrite::free(Kind::Resize, b.path("resize"), b.path("resize"));
    b.rewrote(Rewrite { fvcore: NEAREST * (cells(size) - cells(doubled)), ..free });
    b.crop("crop", whole, &[2, 3], &size)
}

/// Between the centres of cells, as PyTorch's `bilinear` without aligned corners; the same size is the map itself.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn resize_linear(b: &mut Builder, x: Value, size: [usize; 2], form: Form) -> Result<Value> {
    let (n, channels, height, width) = b.feature_map(x)?;
    if size == [height, width] {
        return Ok(x);
    }
    let whole = size[0].is_multiple_of(height) && size[1].is_multiple_of(width);
    if whole || form.forms().resize == profile::Resize::Any {
        return b.resize("resize", x, Resize::Linear, size);
    }
    let elements = (n.at_batch_one() * channels * size[0] * size[1]) as i64;
    let matrices = [interpolation(height, size[0]), interpolation(width, size[1])];
    b.within("resize", |b| along(b, x, &matrices, Kind::Resize, LINEAR * elements))
}

/// The means of `x` over a grid of `bins` × `bins` cells, which overlap where they do not divide the map: PyTorch's
/// adaptive pooling.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn adaptive_pool(b: &mut Builder, x: Value, bins: usize, form: Form) -> Result<Value> {
    if bins == 1 {
        return mean(b, x, Pool::GlobalAveragePool, form);
    }
    let (n, channels, height, width) = b.feature_map(x)?;
    let elements = (n.at_batch_one() * channels * height * width) as i64;
    if let Some(((kernel_h, stride_h), (kernel_w, stride_w))) =
        regular(height, bins).zip(regular(width, bins))
    {
        // fvcore counts what is pooled to a size, and not what is pooled by windows.
        let free = Rewrite::free(Kind::Pool, b.path("pool"), b.path("pool"));
        b.rewrote(Rewrite { fvcore: elements, ..free });
        return b.average_pool("pool", x, [kernel_h, kernel_w], [stride_h, stride_w]);
    }
    let matrices = [height, width].map(|side| means(side, bins));
    b.within("pool", |b| along(b, x, &matrices, Kind::Pool, elements))
}

/// The places of the largest logits, `[N, C, H, W]` → `uint8 [N, H, W]`.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn labels(b: &mut Builder, logits: Value) -> Result<Value> {
    let places = b.arg_max("argmax", logits, 1)?;
    b.cast("labels.cast", places, DataType::Uint8)
}

/// A matrix `[from, to]`, row-major, and its name.
struct Matrix {
    name: String,
    to: usize,
    elements: Vec<f32>,
}

/// The first cell of a bin and the one behind its last.
fn bin(side: usize, bins: usize, i: usize) -> (usize, usize) {
    (i * side / bins, ((i + 1) * side).div_ceil(bins))
}

/// The length of bins and the distance between their starts, where both are the same for all.
fn regular(side: usize, bins: usize) -> Option<(usize, usize)> {
    let (_, length) = bin(side, bins, 0);
    let (stride, _) = bin(side, bins, 1);
    let same = (0..bins).all(|i| bin(side, bins, i) == (i * stride, i * stride + length));
    (same && stride > 0).then_some((length, stride))
}

fn means(side: usize, bins: usize) -> Matrix {
    let mut elements = vec![0.0; side * bins];
    for i in 0..bins {
        let (start, end) = bin(side, bins, i);
        (start..end).for_each(|cell| elements[cell * bins + i] = (1.0 / (end - start) as f64) as f32);
    }
    Matrix { name: format!("means.{side}x{bins}"), to: bins, elements }
}

/// Cell `i` of `to` lies at (i + ½)·from/to − ½, not before the first cell and not behind the last.
fn interpolation(from: usize, to: usize) -> Matrix {
    let mut elements = vec![0.0; from * to];
    for i in 0..to {
        let place = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let first = (place as usize).min(from - 1);
        let share = (place - first as f64) as f32;
        let second = (first + 1).min(from - 1);
        elements[first * to + i] += 1.0 - share;
        elements[second * to + i] += share;
    }
    Matrix { name: format!("linear.{from}x{to}"), to, elements }
}

/// `x: [N, C, h, w]` → `[N, C, H, W]` by a matrix `[h, H]` along the columns and one `[w, W]` along the rows; `fvcore` is
/// what the published operator counts.
fn along(b: &mut Builder, x: Value, matrices: &[Matrix; 2], kind: Kind, fvcore: i64) -> Result<Value> {
    let (n, channels, height, width) = b.feature_map(x)?;
    let [rows, columns] = matrices;
    let maps = n.by(channels);
    let macs = (maps.at_batch_one() * height * columns.to * (width + rows.to)) as i64;
    let free = Rewrite::free(kind, b.path(""), b.path(""));
    b.rewrote(Rewrite { macs: -macs, fvcore: fvcore - macs, ..free });
    let x = times(b, "width", x, maps.by(height), width, columns)?;
    let x = b.reshape("lines", x, [maps, height.into(), columns.to.into()])?;
    let x = b.transpose("upright", x, &[0, 2, 1])?;
    let x = times(b, "height", x, maps.by(columns.to), height, rows)?;
    let x = b.reshape("columns", x, [maps, columns.to.into(), rows.to.into()])?;
    let x = b.transpose("across", x, &[0, 2, 1])?;
    b.reshape("map", x, [n, channels.into(), rows.to.into(), columns.to.into()])
}

/// `x` as lines of `side` cells, each times the matrix.
fn times(b: &mut Builder, name: &str, x: Value, lines: Dim, side: usize, matrix: &Matrix) -> Result<Value> {
    b.within(name, |b| {
        let x = b.reshape("lines", x, [lines, side.into()])?;
        let constant = b.numbers(&matrix.name, [side, matrix.to].into(), matrix.elements.clone());
        b.matmul("product", x, constant)
    })
}
