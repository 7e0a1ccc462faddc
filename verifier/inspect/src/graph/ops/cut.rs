//! Tensors cut apart, put together, padded: extents change, elements stay in their order.

use super::arithmetic::{moved, place};
use super::{Ctx, Row, Why};
use crate::fact::{Fact, MOST_ELEMENTS};
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row::free("Concat", concat),
    Row::free("Split", split),
    Row::free("Slice", slice),
    Row::free("Pad", pad),
    Row::free("CenterCropPad", center_crop_pad),
    Row::free("Compress", compress),
];

fn concat(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let first = ctx.input(0)?;
    let mut axis = 0;
    let output = ctx.shaped(first.dtype, || {
        let shapes = (0..ctx.inputs.len()).map(|i| ctx.dims(i)).collect::<Result<Vec<_>, _>>()?;
        // Only the first opset has a default.
        axis = Ctx::axis(ctx.int("axis", i64::from(matches!(ctx.opset, 1..4))), shapes[0].len())?;
        joined(&shapes, axis)
    })?;
    if output.rank() == Some(1) {
        return Ok(vec![chained(ctx, output)]);
    }
    Ok(vec![output])
}

/// The shapes put together along an axis; the other extents are the same, so one that is known
/// tells the others.
pub(super) fn joined(shapes: &[&[Expr]], axis: usize) -> Result<Vec<Expr>, Why> {
    let Some((first, rest)) = shapes.split_first() else { return Err("expected an operand".to_owned()) };
    let mut dims = first.to_vec();
    for shape in rest {
        if shape.len() != dims.len() {
            return Err(format!("expected operands of {} axes, found {}", dims.len(), shape.len()));
        }
        for (i, (dim, other)) in dims.iter_mut().zip(*shape).enumerate() {
            if i == axis {
                *dim = &*dim + other;
                continue;
            }
            match (dim.number(), other.number()) {
                (Some(a), Some(b)) if a != b => {
                    return Err(format!("expected the same extents on axis {i}, found {a} and {b}"));
                }
                (None, Some(_)) => dim.clone_from(other),
                (None, None) if !dim.is_known() => dim.clone_from(other),
                _ => {}
            }
        }
    }
    Ok(dims)
}

/// Lists one after the other. Where the elements of one are not known their number may be.
fn chained(ctx: &Ctx, output: Fact) -> Fact {
    let operands = || ctx.inputs.iter().flatten();
    if output.is_float() {
        let reals: Option<Vec<_>> =
            operands().map(|f| f.reals.as_deref()).collect::<Option<Vec<_>>>().map(|r| r.concat());
        return output.holding_reals(reals);
    }
    if operands().all(|fact| fact.elements.is_none()) {
        return output;
    }
    let mut elements = Vec::new();
    for (i, fact) in operands().enumerate() {
        match (fact.elements.as_deref(), fact.count().count()) {
            (Some(known), _) => elements.extend_from_slice(known),
            (None, Some(n)) if n as usize <= MOST_ELEMENTS => {
                let name = ctx.node.input.get(i).map_or("", String::as_str);
                let reason = format!("{name} is known only when the graph runs");
                elements.extend(std::iter::repeat_n(Expr::unknown(&reason), n as usize));
            }
            (None, _) => return output,
        }
        if elements.len() > MOST_ELEMENTS {
            return output;
        }
    }
    output.holding(Some(elements))
}

fn split(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let parts = ctx.node.output.len();
    let Ok(dims) = ctx.dims(0) else { return Ok(vec![super::elementwise::like(x, x.dtype); parts]) };
    let axis = Ctx::axis(ctx.int("axis", 0), dims.len())?;
    let extent = &dims[axis];
    let sizes = match ctx.ints_or_operand("split", 1) {
        Ok(Some(sizes)) => sizes,
        Ok(None) => even(extent, parts),
        Err(why) => vec![Expr::unknown(&why); parts],
    };
    let sum: Expr = sizes.iter().cloned().sum();
    if sizes.len() != parts || sum.number().zip(extent.number()).is_some_and(|(a, b)| a != b) {
        return Err(format!("expected {parts} parts of {extent}, found {sizes:?}"));
    }
    let mut start = Some(0_usize);
    let part = |size: Expr| {
        let mut dims = dims.to_vec();
        let length = size.count().and_then(|n| usize::try_from(n).ok());
        dims[axis] = size;
        let output = Fact::new(x.dtype, dims);
        let from = start;
        start = start.zip(length).and_then(|(a, b)| a.checked_add(b));
        let Some(from) = from else { return output };
        moved(x, output, |index, shape| {
            let source = index.iter().enumerate().map(|(i, &at)| if i == axis { at + from } else { at });
            Some(place(shape, source))
        })
    };
    Ok(sizes.into_iter().map(part).collect())
}

/// Equal parts, the last one smaller where they do not come out even.
pub(super) fn even(extent: &Expr, parts: usize) -> Vec<Expr> {
    let each = extent.ceil_div(&parts.into());
    let last = extent - &(&each * &parts.saturating_sub(1).into());
    let mut sizes = vec![each; parts.saturating_sub(1)];
    sizes.push(last);
    sizes
}

/// Starts and ends count from the end where negative, and stop at the borders.
fn slice(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let mut cuts: Vec<Option<(i64, i64)>> = Vec::new();
    let output = ctx.shaped(x.dtype, || {
        let dims = ctx.dims(0)?;
        let list = |name: &str, index: usize| ctx.ints_or_operand(name, index);
        let axes = match list("axes", 3) {
            Ok(Some(axes)) => Ctx::axes(&axes, dims.len())?,
            Ok(None) => {
                let named = ctx.ints("starts").map(<[i64]>::len);
                let count = named.or_else(|| ctx.optional(1)?.count().count().map(|n| n as usize));
                (0..count.unwrap_or(dims.len()).min(dims.len())).collect()
            }
            // Any axis may be cut.
            Err(why) => return Ok(vec![Expr::unknown(&why); dims.len()]),
        };
        let steps = match ctx.optional(4) {
            Some(_) => ctx.elements(4).map(<[Expr]>::to_vec),
            None => Ok(vec![Expr::Number(1); axes.len()]),
        };
        let mut dims = dims.to_vec();
        let bounds = (list("starts", 1), list("ends", 2), steps);
        let (starts, ends, steps) = match bounds {
            (Ok(Some(starts)), Ok(Some(ends)), Ok(steps)) => (starts, ends, steps),
            (Ok(None), ..) | (_, Ok(None), _) => {
                return Err("expected starts and ends, found none".to_owned());
            }
            (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => {
                axes.iter().for_each(|&axis| dims[axis] = Expr::unknown(&why));
                return Ok(dims);
            }
        };
        if [starts.len(), ends.len(), steps.len()].iter().any(|&n| n != axes.len()) {
            return Err("expected as many starts, ends and steps as axes".to_owned());
        }
        cuts = vec![Some((0, 1)); dims.len()];
        for (i, &axis) in axes.iter().enumerate() {
            let (start, extent) = sliced(&dims[axis], &starts[i], &ends[i], &steps[i])?;
            cuts[axis] = start.number().zip(steps[i].number());
            dims[axis] = extent;
        }
        Ok(dims)
    })?;
    Ok(vec![moved(x, output, |index, shape| {
        let source = |(&i, cut): (&usize, &Option<(i64, i64)>)| {
            let (start, step) = (*cut)?;
            usize::try_from(step.checked_mul(i as i64)?.checked_add(start)?).ok()
        };
        let source: Vec<usize> = index.iter().zip(&cuts).map(source).collect::<Option<_>>()?;
        Some(place(shape, source.into_iter()))
    })])
}

/// No extent that is left open gets this long: whoever cuts here means its end.
const FAR: i64 = 1_000_000_000;

/// Where a cut starts, and its extent.
fn sliced(extent: &Expr, start: &Expr, end: &Expr, step: &Expr) -> Result<(Expr, Expr), Why> {
    let step = match step.number() {
        Some(0) => return Err("expected a step other than 0".to_owned()),
        Some(step) => step,
        None => return Ok((step.clone(), Expr::unknown("a step that is known only when the graph runs"))),
    };
    let symbolic = extent.number().is_none();
    // A place from the start; what is left open is not meant to reach the far end.
    let place = |at: &Expr, past_end: Expr, before_start: Expr| match at.number() {
        Some(n) if symbolic && n >= FAR => past_end,
        Some(n) if symbolic && n <= -FAR => before_start,
        Some(n) if n < 0 => extent + at,
        // A formula for a place counts from the start, unless it can only be negative.
        None if (at * -1).at_least() > Some(0) => extent + at,
        _ => at.clone(),
    };
    // Borders that leave nothing need not be kept to: nothing is the least there is.
    let (start, span) = match step {
        1.. => {
            let start = place(start, extent.clone(), 0.into()).larger(&0.into());
            let end = place(end, extent.clone(), 0.into()).smaller(extent);
            (start.smaller(extent), &end - &start)
        }
        _ => {
            let last = extent - 1;
            let start = place(start, last.clone(), Expr::Number(-1)).smaller(&last);
            let end = place(end, last, Expr::Number(-1)).larger(&Expr::Number(-1));
            (start.larger(&0.into()), &start - &end)
        }
    };
    let steps = span.ceil_div(&Expr::Number(step.saturating_abs()));
    Ok((start, steps.larger(&0.into())))
}

/// The first and last extents added before and after; negative ones cut.
pub(super) fn pad(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let output = ctx.shaped(x.dtype, || {
        let mut dims = ctx.dims(0)?.to_vec();
        // `paddings` in the first opset.
        let name = if ctx.ints("paddings").is_some() { "paddings" } else { "pads" };
        let pads = ctx.ints_or_operand(name, 1);
        let axes = match ctx.optional(3) {
            Some(_) => ctx.elements(3).map(|axes| Ctx::axes(axes, dims.len())),
            None => Ok(Ok((0..dims.len()).collect())),
        };
        let (pads, axes) = match (pads, axes) {
            (Ok(pads), Ok(axes)) => (pads.ok_or("expected pads, found none")?, axes?),
            (Err(why), Ok(axes)) => {
                axes?.into_iter().for_each(|axis| dims[axis] = Expr::unknown(&why));
                return Ok(dims);
            }
            (_, Err(why)) => return Ok(vec![Expr::unknown(&why); dims.len()]),
        };
        if pads.len() != 2 * axes.len() {
            return Err(format!("expected {} pads, found {}", 2 * axes.len(), pads.len()));
        }
        for (i, &axis) in axes.iter().enumerate() {
            dims[axis] = &(&dims[axis] + &pads[i]) + &pads[i + axes.len()];
            if dims[axis].number().is_some_and(|n| n < 0) {
                return Err(format!("pads leave {} of axis {axis}", dims[axis]));
            }
        }
        Ok(dims)
    })?;
    Ok(vec![output])
}

/// The axes named get the extents given, cropped or padded.
fn center_crop_pad(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let output = ctx.shaped(ctx.dtype(0)?, || {
        let mut dims = ctx.dims(0)?.to_vec();
        let axes = match ctx.ints("axes") {
            Some(axes) => Ctx::axes(&axes.iter().map(|&n| n.into()).collect::<Vec<_>>(), dims.len())?,
            None => (0..dims.len()).collect(),
        };
        let shape = match ctx.elements(1) {
            Ok(shape) => shape.to_vec(),
            Err(why) => vec![Expr::unknown(&why); axes.len()],
        };
        if shape.len() != axes.len() {
            return Err(format!("expected {} extents, found {}", axes.len(), shape.len()));
        }
        axes.into_iter().zip(shape).for_each(|(axis, extent)| dims[axis] = extent);
        Ok(dims)
    })?;
    Ok(vec![output])
}

/// The slices of an axis where a condition holds, or the elements of the flattened tensor.
fn compress(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype(0)?;
    let kept = match ctx.elements(1) {
        Ok(truths) if truths.iter().all(|t| t.number().is_some()) => {
            truths.iter().filter(|t| !t.is(0)).count().into()
        }
        Ok(_) => Expr::unknown("how many are kept is known only when the graph runs"),
        Err(why) => Expr::unknown(&why),
    };
    let output = match ctx.attribute("axis") {
        None => Fact::new(dtype, vec![kept]),
        Some(axis) => ctx.shaped(dtype, || {
            let mut dims = ctx.dims(0)?.to_vec();
            let axis = Ctx::axis(axis.i(), dims.len())?;
            dims[axis] = kept;
            Ok(dims)
        })?,
    };
    Ok(vec![output])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_do_not_come_out_even_end_smaller() {
        assert_eq!(even(&7.into(), 3), [3, 3, 1].map(Expr::from));
    }

    #[test]
    fn cuts_stop_at_the_borders() {
        let h = Expr::symbol("h");
        let [n, min, max] = [Expr::Number, |_| Expr::Number(i64::MIN), |_| Expr::Number(i64::MAX)];
        let cases = [
            ((n(10), n(2), n(-1), n(3)), (n(2), "3")),
            ((n(10), n(-3), max(0), n(1)), (n(7), "3")),
            ((n(10), n(9), min(0), n(-1)), (n(9), "10")),
            ((n(10), n(20), n(-20), n(-3)), (n(9), "4")),
            ((n(10), n(8), n(2), n(1)), (n(8), "0")),
            ((h.clone(), n(0), max(0), n(2)), (n(0), "floor((h + 1)/2)")),
            ((h.clone(), n(0), h.clone(), n(1)), (n(0), "h")),
            ((h.clone(), n(1), max(0), n(1)), (n(1), "h - 1")),
            ((h.clone(), n(0), n(-2), n(1)), (n(0), "max(0, h - 2)")),
            ((h.clone(), n(-1), min(0), n(-1)), (&h - 1, "h")),
        ];
        for ((extent, start, end, step), (at, cut)) in cases {
            let found = sliced(&extent, &start, &end, &step).unwrap();
            assert_eq!((found.0, found.1.to_string().as_str()), (at, cut));
        }
        assert!(sliced(&h, &n(0), &n(1), &n(0)).is_err());
    }
}
