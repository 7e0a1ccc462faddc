//! Boxes of a detector: its scores and deltas, decoded with the anchors of its levels.

use emo_proto::Result;

use super::Levels;
use crate::builder::Builder;
use crate::graph::{Part, Shape, Value};
use crate::op::{Binary, Unary};

/// ln(1000/16): sizes grow and shrink by no more than that.
const LARGEST_GROWTH: f32 = 4.135_166_6;

/// A box that deltas start from: its centre and its sides, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anchor {
    pub centre: [f64; 2],
    /// Width and height.
    pub sides: [f64; 2],
}

/// How a head's scores and deltas are read.
pub struct Coder {
    /// The anchors of a cell of a level, around the point 0, 0.
    pub anchors: fn(level: usize) -> Vec<[f64; 2]>,
    /// Pixels from the left edge to the first cell's centre, and from one centre to the next.
    pub grid: fn(level: usize) -> (f64, f64),
    /// What deltas of the centre and of the sides are multiplied by.
    pub deviations: [f64; 2],
    /// Whether classes exclude each other, with the background behind them; each is by itself otherwise.
    pub softmax: bool,
    /// Which boxes are kept of an image, as published: scores above, overlap at most, how many.
    pub suppression: (f32, f32, usize),
}

impl Coder {
    /// The anchors of a level's map of so many rows and columns: row by row, cell by cell.
    #[must_use]
    pub fn level(&self, level: usize, rows: usize, columns: usize) -> Vec<Anchor> {
        let (sides, (first, step)) = ((self.anchors)(level), (self.grid)(level));
        let at = |i: usize| first + i as f64 * step;
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let anchors = cells.flat_map(|(row, column)| {
            let centre = [at(column), at(row)];
            sides.iter().map(move |&sides| Anchor { centre, sides })
        });
        anchors.collect()
    }
}

/// `boxes [N, P, 4]` (left, top, right, bottom, in pixels of the input, none beyond it) and `scores [N, P, classes]` of
/// all anchors, level by level.
pub(super) fn decode(
    b: &mut Builder,
    levels: &Levels,
    coder: &Coder,
    classes: usize,
    size: (usize, usize),
) -> Result<[Value; 2]> {
    let mut anchors = Vec::new();
    for (level, &scores) in levels.deltas.iter().enumerate() {
        let (.., rows, columns) = b.feature_map(scores)?;
        anchors.extend(coder.level(level, rows, columns));
    }
    b.within("decode", |b| {
        b.part(Part::Boxes, |b| {
            let width = if coder.softmax { classes + 1 } else { classes };
            let scores = b.within("scores", |b| rows(b, &levels.scores, width))?;
            let scores = if coder.softmax {
                let shares = b.softmax("softmax", scores)?;
                b.crop("foreground", shares, &[2], &[classes])?
            } else {
                b.unary("sigmoid", Unary::Sigmoid, scores)?
            };
            let deltas = b.within("deltas", |b| rows(b, &levels.deltas, 4))?;
            let boxes = boxes(b, deltas, &anchors, coder.deviations, size)?;
            Ok([boxes, scores])
        })
    })
}

/// Maps `[N, anchors·width, h, w]` as rows `[N, h·w·anchors, width]`, level behind level.
fn rows(b: &mut Builder, maps: &[Value], width: usize) -> Result<Value> {
    let mut levels = Vec::with_capacity(maps.len());
    for (i, &map) in maps.iter().enumerate() {
        let (n, channels, height, columns) = b.feature_map(map)?;
        let last = b.transpose(&format!("last{i}"), map, &[0, 2, 3, 1])?;
        let shape = [n, (channels * height * columns / width).into(), width.into()];
        levels.push(b.reshape(&format!("rows{i}"), last, shape)?);
    }
    b.concat("concat", &levels, 1)
}

/// Centres move by shares of the anchor's sides, and sides grow by powers of e.
fn boxes(
    b: &mut Builder,
    deltas: Value,
    anchors: &[Anchor],
    [move_by, grow_by]: [f64; 2],
    (height, width): (usize, usize),
) -> Result<Value> {
    let mut numbers = |name: &str, number: &dyn Fn(&Anchor) -> [f64; 2]| {
        let numbers = anchors.iter().flat_map(|anchor| number(anchor).map(|n| n as f32)).collect();
        b.numbers(&format!("anchors.{name}"), Shape::from([1, anchors.len(), 2]), numbers)
    };
    let centres = numbers("centres", &|anchor| anchor.centre);
    let steps = numbers("steps", &|anchor| anchor.sides.map(|side| side * move_by));
    let halves = numbers("halves", &|anchor| anchor.sides.map(|side| side / 2.0));
    let parts = b.split("parts", deltas, 2, 2)?;
    let moved = b.binary("moved", Binary::Mul, parts[0], steps)?;
    let centre = b.binary("centre", Binary::Add, centres, moved)?;
    let factor = b.scalar(grow_by as f32);
    let growth = if grow_by == 1.0 { parts[1] } else { b.binary("growth", Binary::Mul, parts[1], factor)? };
    let growth = b.clip("bounded", growth, -LARGEST_GROWTH, LARGEST_GROWTH)?;
    let growth = b.unary("exp", Unary::Exp, growth)?;
    let half = b.binary("half", Binary::Mul, halves, growth)?;
    let corners =
        [b.binary("first", Binary::Sub, centre, half)?, b.binary("second", Binary::Add, centre, half)?];
    let boxes = b.concat("corners", &corners, 2)?;
    if height == width {
        return b.clip("inside", boxes, 0.0, width as f32);
    }
    let mut inside = b.split("edges", boxes, 2, 4)?;
    for (edge, (name, most)) in
        inside.iter_mut().zip([("left", width), ("top", height), ("right", width), ("bottom", height)])
    {
        *edge = b.clip(name, *edge, 0.0, most as f32)?;
    }
    b.concat("inside", &inside, 2)
}
