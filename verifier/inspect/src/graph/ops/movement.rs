//! Elements keep their values and change their places; none is lost, some are repeated.

use super::arithmetic::{expanded, moved, place};
use super::{Ctx, Row, Why};
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row::free("Identity", identity),
    Row::free("Reshape", reshape),
    Row::free("Flatten", flatten),
    Row::free("Squeeze", squeeze),
    Row::free("Unsqueeze", unsqueeze),
    Row::free("Expand", expand),
    Row::free("Tile", tile),
    Row::free("Transpose", transpose),
    Row::free("DepthToSpace", depth_to_space),
    Row::free("SpaceToDepth", space_to_depth),
    Row::free("ReverseSequence", reverse_sequence),
    Row::free("Trilu", trilu),
];

/// The value as it is, a sequence too.
fn identity(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![Fact { source: None, ..ctx.input(0)?.clone() }])
}

/// The elements of `x` in their order, as another shape.
pub(super) fn reshaped(x: &Fact, output: Fact) -> Fact {
    let elements = x.elements.as_deref().map(<[_]>::to_vec);
    let reals = x.reals.as_deref().map(<[_]>::to_vec);
    output.holding(elements).holding_reals(reals)
}

fn reshape(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let output = ctx.shaped(x.dtype, || {
        let target = match ctx.ints("shape") {
            Some(shape) => shape.iter().map(|&n| n.into()).collect(),
            None => ctx.extents(1)?,
        };
        target_dims(x, &target, ctx.int("allowzero", 0) == 0)
    })?;
    Ok(vec![reshaped(x, output)])
}

/// A zero copies an extent where `copies`; one -1 takes what is left.
fn target_dims(x: &Fact, target: &[Expr], copies: bool) -> Result<Vec<Expr>, Why> {
    let from = x.dims.as_deref().unwrap_or_default();
    let mut dims = Vec::with_capacity(target.len());
    for (i, dim) in target.iter().enumerate() {
        dims.push(match dim.number() {
            Some(0) if copies => match (from.get(i), &x.dims) {
                (Some(extent), _) => extent.clone(),
                (None, Err(reason)) => Expr::unknown(reason),
                (None, Ok(_)) => return Err("a zero copies an extent that is not there".to_owned()),
            },
            Some(n) if n < -1 => return Err(format!("expected extents of -1 at least, found {n}")),
            _ => dim.clone(),
        });
    }
    let count = x.count();
    let others = |free: usize| {
        let others = dims.iter().enumerate().filter(|(i, _)| *i != free);
        others.map(|(_, d)| d.clone()).product::<Expr>()
    };
    let free: Vec<usize> = (0..dims.len()).filter(|&i| dims[i].is(-1)).collect();
    let unknown: Vec<usize> = (0..dims.len()).filter(|&i| !dims[i].is_known()).collect();
    let left = match (free.as_slice(), unknown.as_slice()) {
        (&[free], _) => Some(free),
        // The only extent that is not known is what is left, or it would not fit.
        ([], &[unknown]) if count.is_known() && !others(unknown).is(0) => Some(unknown),
        ([], _) => None,
        _ => return Err("expected one extent of -1 at most".to_owned()),
    };
    let Some(left) = left else {
        let product: Expr = dims.iter().cloned().product();
        // One may be more than the other whatever their symbols are.
        let more = |a: &Expr, b: &Expr| (a - b).at_least() > Some(0);
        if more(&count, &product) || more(&product, &count) {
            return Err(format!("expected {count} elements, found a target of {product}"));
        }
        return Ok(dims);
    };
    let others = others(left);
    dims[left] = match (count.number(), others.number()) {
        (Some(0), Some(0)) => 0.into(),
        (Some(a), Some(b)) if b == 0 || a % b != 0 => {
            return Err(format!("{count} elements do not divide by {others}"));
        }
        _ => count.floor_div(&others),
    };
    Ok(dims)
}

/// Axes before `axis` become one, the others another.
fn flatten(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let dims = || {
        let dims = ctx.dims(0)?;
        let axis = ctx.int("axis", 1);
        // The end is an axis here.
        let axis = if axis == dims.len() as i64 { dims.len() } else { Ctx::axis(axis, dims.len())? };
        let (before, after) = dims.split_at(axis);
        Ok(vec![before.iter().cloned().product(), after.iter().cloned().product()])
    };
    // Whatever the rank, two axes come out.
    let output = match ctx.shaped(x.dtype, dims)? {
        Fact { dims: Err(reason), .. } => Fact::new(x.dtype, vec![Expr::unknown(&reason); 2]),
        output => output,
    };
    Ok(vec![reshaped(x, output)])
}

/// Without axes, those of extent 1.
fn squeeze(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let output = ctx.shaped(x.dtype, || {
        let dims = ctx.dims(0)?;
        let axes = match ctx.ints_or_operand("axes", 1)? {
            Some(axes) => Ctx::axes(&axes, dims.len())?,
            None if dims.iter().all(|d| d.number().is_some()) => {
                (0..dims.len()).filter(|&i| dims[i].is(1)).collect()
            }
            None => return Err(ctx.unknown("which extents are 1 is known only when the graph runs")),
        };
        if let Some(&axis) = axes.iter().find(|&&axis| dims[axis].number().is_some_and(|n| n != 1)) {
            return Err(format!("expected an extent of 1 on axis {axis}, found {}", dims[axis]));
        }
        let mut gone = vec![false; dims.len()];
        axes.iter().for_each(|&axis| gone[axis] = true);
        Ok(dims.iter().zip(gone).filter(|(_, gone)| !gone).map(|(dim, _)| dim.clone()).collect())
    })?;
    Ok(vec![reshaped(x, output)])
}

fn unsqueeze(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let output = ctx.shaped(x.dtype, || {
        let dims = ctx.dims(0)?;
        let axes = ctx.ints_or_operand("axes", 1)?.ok_or("expected axes, found none")?;
        let rank = dims.len() + axes.len();
        let mut new = vec![false; rank];
        Ctx::axes(&axes, rank)?.into_iter().for_each(|axis| new[axis] = true);
        let mut old = dims.iter().cloned();
        let extents = new.into_iter().map(|new| if new { Some(1.into()) } else { old.next() });
        extents.collect::<Option<_>>().ok_or_else(|| "expected each axis once".to_owned())
    })?;
    Ok(vec![reshaped(x, output)])
}

/// The shape is one to broadcast with, not the result.
fn expand(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let output = ctx.shaped(x.dtype, || super::elementwise::broadcast(&[ctx.dims(0)?, &ctx.extents(1)?]))?;
    Ok(vec![expanded(x, output)])
}

/// Repeats a number a axis; in the first opset `tiles` along one `axis`.
fn tile(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let output = ctx.shaped(x.dtype, || {
        let mut dims = ctx.dims(0)?.to_vec();
        if matches!(ctx.opset, 1..6) {
            let axis = ctx.element(2)?.number().ok_or_else(|| ctx.unknown("the axis is not known"))?;
            let axis = Ctx::axis(axis, dims.len())?;
            dims[axis] = &dims[axis] * ctx.element(1)?;
            return Ok(dims);
        }
        let repeats = match ctx.elements(1) {
            Ok(repeats) => repeats.to_vec(),
            Err(why) => vec![Expr::unknown(&why); dims.len()],
        };
        if repeats.len() != dims.len() {
            return Err(format!("expected {} repeats, found {}", dims.len(), repeats.len()));
        }
        Ok(dims.iter().zip(&repeats).map(|(dim, n)| dim * n).collect())
    })?;
    Ok(vec![moved(x, output, |index, from| {
        Some(place(
            from,
            index.iter().zip(from).map(|(&i, &extent)| if extent == 0 { 0 } else { i % extent }),
        ))
    })])
}

fn transpose(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let mut axes = Vec::new();
    let output = ctx.shaped(x.dtype, || {
        let dims = ctx.dims(0)?;
        axes = match ctx.ints("perm") {
            Some(perm) => Ctx::axes(&perm.iter().map(|&n| n.into()).collect::<Vec<_>>(), dims.len())?,
            None => (0..dims.len()).rev().collect(),
        };
        if axes.len() != dims.len() {
            return Err(format!("expected a permutation of {} axes, found {axes:?}", dims.len()));
        }
        Ok(axes.iter().map(|&axis| dims[axis].clone()).collect())
    })?;
    Ok(vec![moved(x, output, |index, from| {
        let mut source = vec![0; from.len()];
        axes.iter().zip(index).for_each(|(&axis, &i)| source[axis] = i);
        Some(place(from, source.into_iter()))
    })])
}

/// `[N, C, H, W]` and the block's side, of an image.
fn image<'a>(ctx: &Ctx<'a>) -> Result<([&'a Expr; 4], i64), Why> {
    let [n, c, h, w] = ctx.dims(0)? else {
        return Err(format!("expected [N, C, H, W], found {:?}", ctx.dims(0)?));
    };
    match ctx.int("blocksize", 0) {
        block @ 1.. if block.checked_mul(block).is_some() => Ok(([n, c, h, w], block)),
        block => Err(format!("expected a block of 1 at least, found {block}")),
    }
}

fn divided(extent: &Expr, by: i64) -> Result<Expr, Why> {
    match extent.number() {
        Some(n) if n % by != 0 => Err(format!("expected an extent that divides by {by}, found {n}")),
        _ => Ok(extent.floor_div(&by.into())),
    }
}

fn depth_to_space(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let output = ctx.shaped(ctx.dtype(0)?, || {
        let ([n, c, h, w], block) = image(ctx)?;
        Ok(vec![n.clone(), divided(c, block * block)?, h * block, w * block])
    })?;
    Ok(vec![output])
}

fn space_to_depth(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let output = ctx.shaped(ctx.dtype(0)?, || {
        let ([n, c, h, w], block) = image(ctx)?;
        Ok(vec![n.clone(), c * (block * block), divided(h, block)?, divided(w, block)?])
    })?;
    Ok(vec![output])
}

fn reverse_sequence(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    match ctx.input(0)?.rank() {
        Some(rank) if rank < 2 => Err(format!("expected two axes at least, found {rank}")),
        _ => super::elementwise::same(ctx),
    }
}

/// One half of each matrix, the other zero.
fn trilu(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    match ctx.input(0)?.rank() {
        Some(rank) if rank < 2 => Err(format!("expected two axes at least, found {rank}")),
        _ => super::elementwise::same(ctx),
    }
}
