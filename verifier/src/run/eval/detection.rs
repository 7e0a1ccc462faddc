//! Which boxes are kept.

use emo_proto::tensor_proto::DataType;

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::table::{Row, moves};
use super::value::Value;
use crate::run::boxes::{Corners, iou};

pub(super) const ROWS: &[Row] = &[moves("NonMaxSuppression", suppress)];

/// Of every image and class the best boxes that share no more than the threshold with a better one: their indices.
fn suppress(call: &Call) -> Result<Vec<Value>, Why> {
    let (boxes, scores) = (call.operand(0)?, call.operand(1)?);
    let (&[images, each, 4], &[_, classes, _]) = (&boxes.dims[..], &scores.dims[..]) else {
        return Err(format!("expected boxes [N, B, 4], found {:?}", boxes.dims));
    };
    if scores.dims != [images, classes, each] {
        return Err(format!("expected scores of {images} images and {each} boxes, found {:?}", scores.dims));
    }
    let setting = |operand: usize| call.maybe(operand).map(Value::number).transpose();
    let (most, above) = (setting(2)?.unwrap_or(0.0), setting(4)?);
    let shared = setting(3)?.unwrap_or(0.0);
    let centres = call.int("center_point_box", 0) == 1;
    let mut kept = Vec::new();
    for (image, class) in (0..images).flat_map(|image| (0..classes).map(move |class| (image, class))) {
        let corners = |at: usize| corners(&boxes.data[(image * each + at) * 4..][..4], centres);
        let score = |at: usize| scores.data[(image * classes + class) * each + at];
        let mut order: Vec<usize> =
            (0..each).filter(|&at| above.is_none_or(|above| score(at) > above)).collect();
        // Stable: of equals the first comes first.
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        let mut own: Vec<Corners> = Vec::new();
        for at in order {
            if own.len() as f64 >= most {
                break;
            }
            let candidate = corners(at);
            if own.iter().all(|better| iou(better, &candidate) <= shared) {
                own.push(candidate);
                kept.extend([image, class, at].map(|index| index as f64));
            }
        }
    }
    one(Value::new(DataType::Int64, vec![kept.len() / 3, 3], kept)?)
}

/// Two corners in any order, or a centre and sides.
fn corners(numbers: &[f64], centres: bool) -> Corners {
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| numbers[i]);
    match centres {
        true => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        false => [a.min(c), b.min(d), a.max(c), b.max(d)],
    }
}
