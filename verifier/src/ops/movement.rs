//! Elements keep their values and change their places.

use emo_proto::tensor_proto::DataType;

use super::{Ctx, Row, Why};
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row::free("Constant", constant),
    Row::free("Reshape", reshape),
    Row::free("Transpose", transpose),
    Row::free("Split", split),
    Row::free("Pad", pad),
    Row::free("Slice", slice),
    Row::free("Concat", concat),
    Row::free("SpaceToDepth", |ctx| blocks(ctx, true)),
    Row::free("DepthToSpace", |ctx| blocks(ctx, false)),
];

fn concat(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let mut dims = ctx.dims(0)?.to_vec();
    let axis = Ctx::axis(ctx.int("axis", 0), dims.len())?;
    for index in 1..ctx.inputs.len() {
        let part = ctx.dims(index)?.get(axis).ok_or("expected operands of one rank")?;
        dims[axis] = &dims[axis] + part;
    }
    Ok(vec![Fact::new(ctx.input(0)?.dtype, dims)])
}

fn blocks(ctx: &Ctx, deeper: bool) -> Result<Vec<Fact>, Why> {
    let (x, block) = (ctx.dims(0)?, ctx.int("blocksize", 0));
    let [n, c, h, w] = x else { return Err(format!("expected [N, C, H, W], found {x:?}")) };
    if !(1..1 << 20).contains(&block) {
        return Err(format!("expected a block of 1 at least, found {block}"));
    }
    let (side, area) = (Expr::Number(block), Expr::Number(block * block));
    let dims = match deeper {
        true => vec![n.clone(), c * &area, h.floor_div(&side), w.floor_div(&side)],
        false => vec![n.clone(), c.floor_div(&area), h * &side, w * &side],
    };
    Ok(vec![Fact::new(ctx.input(0)?.dtype, dims)])
}

fn constant(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let attribute = ctx.node.attribute.first().ok_or("expected a value, found none")?;
    let fact = match attribute.name() {
        "value" => Ctx::tensor(attribute.t.as_ref().ok_or("expected a tensor, found none")?),
        "value_int" => Fact::new(DataType::Int64, Vec::new()).holding(Some(vec![attribute.i().into()])),
        "value_ints" => Fact::list(attribute.ints.iter().map(|&n| n.into()).collect()),
        "value_float" => Fact::new(DataType::Float, Vec::new()),
        "value_floats" => Fact::new(DataType::Float, vec![attribute.floats.len().into()]),
        "value_string" => Fact::new(DataType::String, Vec::new()),
        "value_strings" => Fact::new(DataType::String, vec![attribute.strings.len().into()]),
        other => return Err(format!("expected a dense value, found {other}")),
    };
    Ok(vec![fact])
}

fn reshape(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let (x, target) = (ctx.dims(0)?, ctx.elements(1)?);
    let copies = ctx.int("allowzero", 0) == 0;
    let mut dims = Vec::with_capacity(target.len());
    for (i, dim) in target.iter().enumerate() {
        dims.push(match dim.number() {
            Some(0) if copies => x.get(i).cloned().ok_or("a zero copies an extent that is not there")?,
            Some(n) if n < -1 => return Err(format!("expected extents of -1 at least, found {n}")),
            _ => dim.clone(),
        });
    }
    let count = ctx.input(0)?.count();
    let free: Vec<usize> = (0..dims.len()).filter(|&i| dims[i].is(-1)).collect();
    let others: Expr = dims.iter().filter(|d| !d.is(-1)).cloned().product();
    match *free.as_slice() {
        [] if count.number().zip(others.number()).is_some_and(|(a, b)| a != b) => {
            return Err(format!("expected {count} elements, found a target of {others}"));
        }
        [] => {}
        [free] => {
            dims[free] = match (count.number(), others.number()) {
                (Some(a), Some(b)) if b == 0 || a % b != 0 => {
                    return Err(format!("{count} elements do not divide by {others}"));
                }
                _ => count.floor_div(&others),
            }
        }
        _ => return Err("expected one extent of -1 at most".to_owned()),
    }
    Ok(vec![
        Fact::new(ctx.input(0)?.dtype, dims).holding(ctx.input(0)?.elements.as_deref().map(<[Expr]>::to_vec)),
    ])
}

fn transpose(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.dims(0)?;
    let perm: Vec<usize> = match ctx.ints("perm") {
        Some(perm) => perm.iter().map(|&axis| Ctx::axis(axis, x.len())).collect::<Result<_, _>>()?,
        None => (0..x.len()).rev().collect(),
    };
    if perm.len() != x.len() {
        return Err(format!("expected a permutation of {} axes, found {perm:?}", x.len()));
    }
    Ok(vec![Fact::new(ctx.input(0)?.dtype, perm.iter().map(|&axis| x[axis].clone()).collect())])
}

fn split(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.dims(0)?;
    let axis = Ctx::axis(ctx.int("axis", 0), x.len())?;
    let parts = ctx.node.output.len();
    let sizes = match ctx.ints_or_operand("split", 1)? {
        Some(sizes) => sizes,
        None => {
            let each = x[axis].ceil_div(&parts.into());
            let last = &x[axis] - &(&each * &parts.saturating_sub(1).into());
            let mut sizes = vec![each; parts.saturating_sub(1)];
            sizes.push(last);
            sizes
        }
    };
    let sum: Expr = sizes.iter().cloned().sum();
    if sizes.len() != parts || sum.number().zip(x[axis].number()).is_some_and(|(a, b)| a != b) {
        return Err(format!("expected {parts} parts of {}, found {sizes:?}", x[axis]));
    }
    let part = |size: Expr| {
        let mut dims = x.to_vec();
        dims[axis] = size;
        Fact::new(ctx.inputs[0].as_ref().map_or(DataType::Undefined, |f| f.dtype), dims)
    };
    Ok(sizes.into_iter().map(part).collect())
}

fn pad(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.dims(0)?;
    let pads = ctx.ints_or_operand("pads", 1)?.ok_or("expected pads, found none")?;
    let axes = match ctx.optional(3) {
        Some(_) => Ctx::axes(ctx.elements(3)?, x.len())?,
        None => (0..x.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("expected {} pads, found {}", 2 * axes.len(), pads.len()));
    }
    let mut dims = x.to_vec();
    for (i, &axis) in axes.iter().enumerate() {
        dims[axis] = &(&dims[axis] + &pads[i]) + &pads[i + axes.len()];
    }
    Ok(vec![Fact::new(ctx.input(0)?.dtype, dims)])
}

/// Starts and ends count from the end where negative, and stop at the borders.
fn slice(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.dims(0)?;
    let starts = ctx.ints_or_operand("starts", 1)?.ok_or("expected starts, found none")?;
    let ends = ctx.ints_or_operand("ends", 2)?.ok_or("expected ends, found none")?;
    let axes = match ctx.ints_or_operand("axes", 3)? {
        Some(axes) => Ctx::axes(&axes, x.len())?,
        None => (0..starts.len()).collect(),
    };
    let steps = match ctx.optional(4) {
        Some(_) => ctx.elements(4)?.to_vec(),
        None => vec![Expr::Number(1); axes.len()],
    };
    if [starts.len(), ends.len(), steps.len()].iter().any(|&n| n != axes.len()) {
        return Err("expected as many starts, ends and steps as axes".to_owned());
    }
    let mut dims = x.to_vec();
    for (i, &axis) in axes.iter().enumerate() {
        let extent = x.get(axis).ok_or_else(|| format!("there is no axis {axis}"))?;
        dims[axis] = sliced(extent, &starts[i], &ends[i], &steps[i])?;
    }
    Ok(vec![Fact::new(ctx.input(0)?.dtype, dims)])
}

fn sliced(extent: &Expr, start: &Expr, end: &Expr, step: &Expr) -> Result<Expr, Why> {
    let step = step.number().filter(|&s| s != 0).ok_or("expected a step other than 0")?;
    let (low, high) =
        if step > 0 { (Expr::Number(0), extent.clone()) } else { (Expr::Number(-1), extent - 1) };
    let clamp = |at: &Expr| match at.number() {
        Some(n) if n >= i64::from(i32::MAX) => high.clone(),
        Some(n) if n <= i64::from(i32::MIN) => low.clone(),
        Some(n) if n < 0 => (extent + at).larger(&low).smaller(&high),
        _ => at.larger(&low).smaller(&high),
    };
    let span = &clamp(end) - &clamp(start);
    Ok(span.ceil_div(&step.into()).larger(&0.into()))
}
