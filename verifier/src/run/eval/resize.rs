//! Resizing and sampling of images.

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::table::{Row, rounds};
use super::value::{Value, around, axis, count, zeros};

pub(super) const ROWS: &[Row] =
    &[rounds("Resize", resize), rounds("Upsample", upsample), rounds("GridSample", grid_sample)];

/// How an axis is resized.
struct Axis {
    input: usize,
    output: usize,
    scale: f64,
    /// The part of the input that is taken, for tf_crop_and_resize.
    crop: (f64, f64),
}

/// What elements of the input make an element of the output, and how much of each; `None` is the extrapolation
/// value.
type Taps = Vec<Option<Vec<(usize, f64)>>>;

fn resize(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let old = call.opset < 11;
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|&a| axis(a, x.rank())).collect::<Result<Vec<_>, _>>()?,
        None => (0..x.rank()).collect(),
    };
    let crop = call
        .maybe(1)
        .filter(|_| !old && call.text("coordinate_transformation_mode") == Some("tf_crop_and_resize"));
    let crop = |i: usize| match crop {
        Some(roi) if roi.len() == 2 * axes.len() => (roi.data[i], roi.data[i + axes.len()]),
        _ => (0.0, 1.0),
    };
    let sizes = call.maybe(3).filter(|sizes| sizes.len() > 0).map(Value::integers);
    let scales = call.maybe(if old { 1 } else { 2 }).filter(|scales| scales.len() > 0);
    let mut plans = Vec::new();
    match (sizes, scales) {
        (Some(sizes), _) if sizes.len() == axes.len() => {
            let ratio = |i: usize| sizes[i] as f64 / x.dims[axes[i]] as f64;
            let all = (0..axes.len()).map(ratio);
            let common = match call.text("keep_aspect_ratio_policy") {
                Some("not_larger") => Some(all.fold(f64::INFINITY, f64::min)),
                Some("not_smaller") => Some(all.fold(0.0, f64::max)),
                _ => None,
            };
            for (i, &axis) in axes.iter().enumerate() {
                let input = x.dims[axis];
                let output = common.map_or(sizes[i] as f64, |scale| (scale * input as f64 + 0.5).floor());
                let output = if output >= 0.0 { output as usize } else { 0 };
                let scale = common.unwrap_or_else(|| ratio(i));
                plans.push((axis, Axis { input, output, scale, crop: crop(i) }));
            }
        }
        (None, Some(scales)) if scales.len() == axes.len() => {
            for (i, &axis) in axes.iter().enumerate() {
                let (input, scale) = (x.dims[axis], scales.data[i]);
                // As the operator computes it, in single precision.
                let output = (input as f32 * scale as f32).floor() as usize;
                plans.push((axis, Axis { input, output, scale, crop: crop(i) }));
            }
        }
        _ => return Err(format!("expected scales or sizes of {} axes", axes.len())),
    }
    one(resized(call, x, &plans, old)?)
}

fn upsample(call: &Call) -> Result<Vec<Value>, Why> {
    let x = call.operand(0)?;
    let scales: Vec<f64> = match (call.floats("scales"), call.maybe(1)) {
        (Some(scales), _) => scales.iter().map(|&s| s.into()).collect(),
        (None, Some(scales)) => scales.data.to_vec(),
        _ => return Err("expected scales".to_owned()),
    };
    let plan = |(axis, &scale): (usize, &f64)| {
        let input = x.dims.get(axis).copied().unwrap_or(0);
        let output = (input as f32 * scale as f32).floor() as usize;
        (axis, Axis { input, output, scale, crop: (0.0, 1.0) })
    };
    if scales.len() != x.rank() {
        return Err(format!("expected {} scales, found {}", x.rank(), scales.len()));
    }
    one(resized(call, x, &scales.iter().enumerate().map(plan).collect::<Vec<_>>(), true)?)
}

fn resized(call: &Call, x: &Value, plans: &[(usize, Axis)], old: bool) -> Result<Value, Why> {
    let mode = call.text("mode").unwrap_or("nearest");
    let fill = call.real("extrapolation_value", 0.0);
    call.moved.set(mode == "nearest");
    let mut y = x.clone();
    let mut outside = vec![false; 0];
    let crops = call.text("coordinate_transformation_mode") == Some("tf_crop_and_resize");
    for (axis, plan) in plans {
        if plan.input == plan.output && plan.scale == 1.0 && !crops {
            continue;
        }
        if plan.input == 0 {
            return Err(format!("expected elements to resize, found {:?}", x.dims));
        }
        let taps = taps(call, plan, mode, old)?;
        let (outer, side, inner) = around(&y.dims, *axis);
        let mut dims = y.dims.clone();
        dims[*axis] = plan.output;
        let mut data = zeros(&dims)?;
        let mut lost = vec![false; if crops { data.len() } else { 0 }];
        for o in 0..outer {
            for (k, taps) in taps.iter().enumerate() {
                let to = &mut data[(o * plan.output + k) * inner..(o * plan.output + k + 1) * inner];
                match taps {
                    None => {
                        to.fill(fill);
                        if crops {
                            let start = (o * plan.output + k) * inner;
                            lost[start..start + inner].fill(true);
                        }
                    }
                    Some(taps) => {
                        for &(at, weight) in taps {
                            let from = &y.data[(o * side + at) * inner..(o * side + at + 1) * inner];
                            to.iter_mut().zip(from).for_each(|(y, &x)| *y += weight * x);
                            if crops && !outside.is_empty() {
                                for i in 0..inner {
                                    if outside[(o * side + at) * inner + i] {
                                        lost[(o * plan.output + k) * inner + i] = true;
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        lost.iter().zip(&mut data).filter(|(lost, _)| **lost).for_each(|(_, y)| *y = fill);
        outside = lost;
        y = Value::new(y.dtype, dims, data)?;
    }
    Ok(y)
}

fn taps(call: &Call, axis: &Axis, mode: &str, old: bool) -> Result<Taps, Why> {
    let rule =
        call.text("coordinate_transformation_mode").unwrap_or(if old { "asymmetric" } else { "half_pixel" });
    let nearest = call.text("nearest_mode").unwrap_or(if old { "floor" } else { "round_prefer_floor" });
    let (input, output, scale) = (axis.input as f64, axis.output as f64, axis.scale);
    count(&[axis.output])?;
    let a = call.real("cubic_coeff_a", -0.75);
    let excluded = call.flag("exclude_outside", false);
    let smooth = call.flag("antialias", false) && scale < 1.0;
    let mut all = Vec::with_capacity(axis.output);
    for i in 0..axis.output {
        let i = i as f64;
        let at = match rule {
            "half_pixel" => (i + 0.5) / scale - 0.5,
            "pytorch_half_pixel" => {
                if axis.output > 1 {
                    (i + 0.5) / scale - 0.5
                } else {
                    0.0
                }
            }
            "half_pixel_symmetric" => {
                let adjustment = output / (scale * input);
                input / 2.0 * (1.0 - adjustment) + (i + 0.5) / scale - 0.5
            }
            "align_corners" => {
                if axis.output > 1 {
                    i * (input - 1.0) / (output - 1.0)
                } else {
                    0.0
                }
            }
            "asymmetric" => i / scale,
            "tf_half_pixel_for_nn" => (i + 0.5) / scale,
            "tf_crop_and_resize" => {
                let (start, end) = axis.crop;
                if axis.output > 1 {
                    start * (input - 1.0) + i * (end - start) * (input - 1.0) / (output - 1.0)
                } else {
                    0.5 * (start + end) * (input - 1.0)
                }
            }
            other => return Err(format!("expected a coordinate_transformation_mode, found {other}")),
        };
        if rule == "tf_crop_and_resize" && !(0.0..=input - 1.0).contains(&at) {
            all.push(None);
            continue;
        }
        let last = axis.input as i64 - 1;
        let inside = |at: f64| (at as i64).clamp(0, last) as usize;
        let weights: Vec<(f64, f64)> = match mode {
            "nearest" => {
                let near = match nearest {
                    "round_prefer_floor" => (at - 0.5).ceil(),
                    "round_prefer_ceil" => (at + 0.5).floor(),
                    "floor" => at.floor(),
                    "ceil" => at.ceil(),
                    other => return Err(format!("expected a nearest_mode, found {other}")),
                };
                vec![(near, 1.0)]
            }
            "linear" | "cubic" => {
                let cubic = mode == "cubic";
                let reach = if cubic { 2.0 } else { 1.0 } / if smooth { scale } else { 1.0 };
                let kernel = |d: f64| if cubic { cubic_weight(d, a) } else { (1.0 - d.abs()).max(0.0) };
                let (first, end) = ((at - reach).floor() as i64, (at + reach).ceil() as i64);
                let weight = |k: i64| (k as f64, kernel((k as f64 - at) * if smooth { scale } else { 1.0 }));
                (first..=end).map(weight).filter(|(_, w)| *w != 0.0).collect()
            }
            other => return Err(format!("expected a mode of Resize, found {other}")),
        };
        let outside = |k: f64| k < 0.0 || k > last as f64;
        let kept: Vec<(f64, f64)> = weights.into_iter().filter(|(k, _)| !(excluded && outside(*k))).collect();
        let sum: f64 = kept.iter().map(|(_, w)| w).sum();
        let sum = if excluded || smooth { sum } else { 1.0 };
        all.push(Some(kept.into_iter().map(|(k, w)| (inside(k), w / sum)).collect()));
    }
    Ok(all)
}

/// Keys' cubic convolution.
fn cubic_weight(d: f64, a: f64) -> f64 {
    let d = d.abs();
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    } else {
        0.0
    }
}

/// `x: [N, C, H, W]` at the places `grid: [N, h, w, 2]`, from −1 to 1.
fn grid_sample(call: &Call) -> Result<Vec<Value>, Why> {
    let (x, grid) = (call.operand(0)?, call.operand(1)?);
    let ([n, c, h, w], [m, rows, columns, 2]) = (&x.dims[..], &grid.dims[..]) else {
        return Err(format!(
            "expected [N, C, H, W] and [N, h, w, 2], found {:?} and {:?}",
            x.dims, grid.dims
        ));
    };
    if n != m || *h == 0 || *w == 0 {
        return Err(format!("expected grids of {n} images, found {:?}", grid.dims));
    }
    let corners = call.flag("align_corners", false);
    let padding = call.text("padding_mode").unwrap_or("zeros");
    let mode = call.text("mode").unwrap_or("linear");
    let pixel = |x: f64, side: usize| {
        let side = side as f64;
        if corners { (x + 1.0) / 2.0 * (side - 1.0) } else { ((x + 1.0) * side - 1.0) / 2.0 }
    };
    let place = |at: f64, side: usize| -> Option<usize> {
        let last = side as f64 - 1.0;
        match padding {
            "zeros" => (0.0..=last).contains(&at).then_some(at as usize),
            "border" => Some(at.clamp(0.0, last) as usize),
            _ => {
                let (low, high) = if corners { (0.0, last) } else { (-0.5, last + 0.5) };
                let span = high - low;
                let folded = if span == 0.0 { 0.0 } else { (at - low).rem_euclid(2.0 * span) };
                let back = low + if folded > span { 2.0 * span - folded } else { folded };
                Some(back.round_ties_even().clamp(0.0, last) as usize)
            }
        }
    };
    let taps = |at: f64| -> Vec<(f64, f64)> {
        let low = at.floor();
        match mode {
            "nearest" => vec![(at.round_ties_even(), 1.0)],
            "cubic" | "bicubic" => {
                (-1..=2).map(|k| (low + f64::from(k), cubic_weight(low + f64::from(k) - at, -0.75))).collect()
            }
            _ => vec![(low, 1.0 - (at - low)), (low + 1.0, at - low)],
        }
    };
    let dims = vec![*n, *c, *rows, *columns];
    let mut y = zeros(&dims)?;
    let points = rows * columns;
    for i in 0..n * points {
        let (image, point) = (i / points, i % points);
        let (across, down) = (taps(pixel(grid.data[2 * i], *w)), taps(pixel(grid.data[2 * i + 1], *h)));
        for (v, wv) in &down {
            for (u, wu) in &across {
                let (Some(row), Some(column)) = (place(*v, *h), place(*u, *w)) else { continue };
                for channel in 0..*c {
                    let plane = image * c + channel;
                    y[plane * points + point] += wv * wu * x.data[(plane * h + row) * w + column];
                }
            }
        }
    }
    one(Value::new(x.dtype, dims, y)?)
}
