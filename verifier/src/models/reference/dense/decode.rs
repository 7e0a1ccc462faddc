//! Boxes and scores out of what the levels of a detector give.
//!
//! Sources: the coder of "Rich feature hierarchies for accurate object detection and semantic segmentation" (CVPR 2014,
//! arXiv 1311.2524), appendix C, on the anchors that the published configurations have; boxes are cut off at the
//! image's borders. The published generators make a cell's anchors in single precision, and so does this one: what it
//! rounds is seen in the eighth digit of a box.

use ndarray::{Array3, ArrayView1, Axis};

use super::layer::size;
use super::numbered;
use crate::models::reference::Mistake;
use crate::models::reference::ops::{count, planes, sigmoid};
use crate::models::reference::parts::{Junction, Map, Parts, Source};

/// The most by which a side grows or shrinks.
const LARGEST_SCALE: f64 = 1000.0 / 16.0;

/// The boxes that deltas are relative to, level by level.
pub struct Anchors {
    /// Of an anchor's centre from the upper left corner of its cell, in strides.
    pub offset: f32,
    /// Pixels between cells, and width and height of a cell's anchors.
    pub levels: Vec<(f32, Vec<[f32; 2]>)>,
    /// What deltas of x, y, width and height are multiplied with.
    pub deviations: [f64; 4],
}

impl Anchors {
    pub fn of_a_cell(&self) -> usize {
        self.levels.first().map_or(0, |(_, sides)| sides.len())
    }
}

/// Both forms of a detector's outputs: what its levels give, and `boxes` and `scores`.
pub fn finish(parts: &mut Parts, [scores, deltas]: [&[Source]; 2], anchors: Anchors, made: Scores) {
    let takes: Vec<Source> = deltas.iter().copied().chain([Source::Image]).collect();
    let raw = [numbered("scores", scores), numbered("deltas", deltas)].concat();
    let boxes = parts.push("boxes", Boxes(anchors), takes);
    let scores = parts.push("scores", made, scores);
    parts.forms = vec![("raw", raw), ("decoded", vec![("boxes".into(), boxes), ("scores".into(), scores)])];
}

/// [N, P, `each`] of maps [N, A·n, H, W]: level by level, row by row and cell by cell, what `of` makes of the n values of
/// each anchor, given its level, row, column and number.
fn by_anchor(
    maps: &[&Map],
    anchors: usize,
    mistake: Option<Mistake>,
    of: impl Fn([usize; 4], ArrayView1<f64>) -> Vec<f64>,
) -> Map {
    let mut order: Vec<usize> = (0..maps.len()).collect();
    if mistake == Some(Mistake::ReversedLevels) {
        order.reverse();
    }
    let items = maps.first().map_or(0, |map| map.shape()[0]);
    let mut values = Vec::new();
    for item in 0..items {
        for &level in &order {
            let map = planes(maps[level]);
            let (_, channels, height, width) = map.dim();
            let map = map.index_axis(Axis(0), item);
            let map =
                map.to_shape((anchors, channels / anchors, height, width)).expect("values of each anchor");
            for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
                for anchor in 0..anchors {
                    let cell = map.index_axis(Axis(0), anchor).slice_move(ndarray::s![.., row, column]);
                    values.extend(of([level, row, column, anchor], cell));
                }
            }
        }
    }
    let cells: usize = maps.iter().map(|map| size(map).iter().product::<usize>()).sum();
    let each = values.len() / (items * cells * anchors).max(1);
    Array3::from_shape_vec((items, cells * anchors, each), values)
        .expect("as many values an anchor")
        .into_dyn()
}

/// Corners [N, P, 4] of the boxes that deltas [N, A·4, H, W] of the levels make of the anchors, in pixels of the image,
/// which is the last map: left, top, right, bottom.
struct Boxes(Anchors);

impl Junction for Boxes {
    fn forward(&self, maps: &[&Map], mistake: Option<Mistake>) -> Map {
        let (image, deltas) = maps.split_last().expect("an image behind the levels");
        let [height, width] = size(image).map(count);
        let Anchors { mut offset, ref levels, mut deviations } = self.0;
        match mistake {
            Some(Mistake::ShiftedAnchors) => offset = 0.5 - offset,
            Some(Mistake::NoVariance) => deviations = [1.0; 4],
            _ => {}
        }
        by_anchor(deltas, self.0.of_a_cell(), mistake, |[level, row, column, anchor], deltas| {
            let (stride, sides) = &levels[level];
            let along = |axis: usize, cell: usize, border: f64| {
                let (middle, half) = (offset * stride, 0.5 * sides[anchor][axis]);
                let [low, high] = [middle - half, middle + half].map(f64::from);
                let side = high - low;
                let shift = deltas[axis] * deviations[axis];
                let growth = deltas[axis + 2] * deviations[axis + 2];
                let centre = count(cell) * f64::from(*stride) + 0.5 * (low + high) + shift * side;
                let half = 0.5 * side * growth.clamp(-LARGEST_SCALE.ln(), LARGEST_SCALE.ln()).exp();
                [centre - half, centre + half].map(|edge| edge.clamp(0.0, border))
            };
            let ([left, right], [top, bottom]) = (along(0, column, width), along(1, row, height));
            match mistake {
                Some(Mistake::ExchangedAxes) => vec![top, left, bottom, right],
                Some(Mistake::NormalisedBoxes) => {
                    vec![left / width, top / height, right / width, bottom / height]
                }
                Some(Mistake::Centres) => {
                    vec![0.5 * (left + right), 0.5 * (top + bottom), right - left, bottom - top]
                }
                Some(Mistake::CornerAndSides) => vec![left, top, right - left, bottom - top],
                _ => vec![left, top, right, bottom],
            }
        })
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        match mistake {
            Mistake::ShiftedAnchors | Mistake::ReversedLevels => true,
            other if other.is_of_writing() => true,
            Mistake::NoVariance => self.0.deviations != [1.0; 4],
            _ => false,
        }
    }
}

/// Scores [N, P, classes] of the levels' maps [N, A·n, H, W].
pub struct Scores {
    /// Of a cell.
    pub anchors: usize,
    /// Whether the last of the n is that of no class, and all together are 1; otherwise each class is on its own.
    pub background: bool,
}

impl Junction for Scores {
    fn forward(&self, maps: &[&Map], mistake: Option<Mistake>) -> Map {
        let together = self.background != (mistake == Some(Mistake::OtherScores));
        by_anchor(maps, self.anchors, mistake, |_, logits| {
            let mut scores = if together {
                let largest = logits.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let shares = logits.mapv(|x| (x - largest).exp());
                (&shares / shares.sum()).to_vec()
            } else {
                logits.iter().map(|&x| sigmoid(x)).collect()
            };
            match mistake {
                Some(Mistake::BackgroundFirst) if self.background => drop(scores.remove(0)),
                Some(Mistake::BackgroundKept) => {}
                _ if self.background => drop(scores.pop()),
                _ => {}
            }
            scores
        })
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        match mistake {
            Mistake::OtherScores | Mistake::ReversedLevels => true,
            Mistake::BackgroundFirst | Mistake::BackgroundKept => self.background,
            _ => false,
        }
    }
}
