//! Maps of other sides: resized, or their means over grids.

use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};

use super::{Form, mean};
use crate::builder::Builder;
use crate::graph::{Dim, Value};
use crate::op::Resize;
use crate::profile::{Pool, Resizing};
use crate::rewrite::{Kind, Rewrite};

/// PyTorch's `nearest`; the same size is the map itself.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn resize_nearest(b: &mut Builder, x: Value, size: [usize; 2], form: Form) -> Result<Value> {
    resize(b, x, Resize::Nearest, size, form)
}

/// PyTorch's `bilinear` without aligned corners; the same size is the map itself.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn resize_linear(b: &mut Builder, x: Value, size: [usize; 2], form: Form) -> Result<Value> {
    match form.forms().resizing {
        Resizing::Products { widest } => linear(b, x, size, widest, form),
        _ => linear(b, x, size, 0, form),
    }
}

/// The same of logits, which no convolution reads.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn resize_logits(b: &mut Builder, x: Value, size: [usize; 2], form: Form) -> Result<Value> {
    match form.forms().resizing {
        Resizing::Products { widest } | Resizing::Logits { widest } => linear(b, x, size, widest, form),
        _ => linear(b, x, size, 0, form),
    }
}

/// As products with constant matrices, which are mostly zeros, where no side is longer than `widest`.
fn linear(b: &mut Builder, x: Value, size: [usize; 2], widest: usize, form: Form) -> Result<Value> {
    let (n, channels, height, width) = b.feature_map(x)?;
    if height.max(width) > widest || size == [height, width] {
        return resize(b, x, Resize::Linear, size, form);
    }
    let [rows, columns] = size;
    let maps = (n.at_batch_one() * channels) as i64;
    let macs = maps * (columns * height * (width + rows)) as i64;
    let counted = LINEAR * maps * (rows * columns) as i64;
    let free = Rewrite::free(Kind::Resize, b.path("resize"), b.path("resize"));
    b.rewrote(Rewrite { macs: -macs, fvcore: counted - macs, ..free });
    b.within("resize", |b| {
        let across = interpolation(width, columns, false);
        let across = b.numbers(&across.name, [width, columns].into(), across.elements);
        let down = interpolation(height, rows, true);
        let down = b.numbers(&down.name, [rows, height].into(), down.elements);
        let x = b.matmul("across", x, across)?;
        b.matmul("down", down, x)
    })
}

/// What fvcore counts of a cell of a map that is resized.
const LINEAR: i64 = 4;

fn resize(b: &mut Builder, x: Value, mode: Resize, size: [usize; 2], form: Form) -> Result<Value> {
    let (.., height, width) = b.feature_map(x)?;
    let same = size == [height, width];
    if same { Ok(x) } else { b.resize("resize", x, mode, size, form.forms().resizing) }
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
    b.within("pool", |b| along(b, x, &matrices, elements))
}

/// Classes that a byte can name.
const BYTE: usize = 256;

/// The places of the largest logits, `[N, C, H, W]` → `uint8 [N, H, W]`.
///
/// # Errors
/// There are more than 256 classes; as every layer: a shape does not fit.
pub fn labels(b: &mut Builder, logits: Value) -> Result<Value> {
    let (_, classes, ..) = b.feature_map(logits)?;
    if classes > BYTE {
        let why = format!("expected {BYTE} classes at most, labels are bytes, found {classes}");
        return Err(Error::new(why).at("labels"));
    }
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

/// Cell `i` of `to` lies at (i + ½)·from/to − ½, not before the first cell and not behind the last; with rows for the
/// cells of `to` where `upright`, columns otherwise.
fn interpolation(from: usize, to: usize, upright: bool) -> Matrix {
    let mut elements = vec![0.0; from * to];
    let place = |cell: usize, i: usize| if upright { i * from + cell } else { cell * to + i };
    for i in 0..to {
        let at = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let first = (at as usize).min(from - 1);
        let share = (at - first as f64) as f32;
        elements[place(first, i)] += 1.0 - share;
        elements[place((first + 1).min(from - 1), i)] += share;
    }
    let name =
        if upright { format!("linear.rows.{from}x{to}") } else { format!("linear.columns.{from}x{to}") };
    Matrix { name, to, elements }
}

/// `x: [N, C, h, w]` → `[N, C, H, W]` by a matrix `[h, H]` along the columns and one `[w, W]` along the rows; `fvcore` is
/// what the published operator counts.
fn along(b: &mut Builder, x: Value, matrices: &[Matrix; 2], fvcore: i64) -> Result<Value> {
    let (n, channels, height, width) = b.feature_map(x)?;
    let [rows, columns] = matrices;
    let maps = n.by(channels);
    let macs = (maps.at_batch_one() * height * columns.to * (width + rows.to)) as i64;
    let free = Rewrite::free(Kind::Pool, b.path(""), b.path(""));
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
