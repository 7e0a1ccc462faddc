//! Elements picked or put by indices, or found by their values.

use emo_proto::tensor_proto::DataType;

use super::arithmetic::{extents, moved, place, places};
use super::elementwise::{like, same};
use super::{Ctx, Row, Why};
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row { weights: &[0], ..Row::free("Gather", gather) },
    Row { weights: &[0], ..Row::free("GatherElements", gather_elements) },
    Row { weights: &[0], ..Row::free("GatherND", gather_nd) },
    Row::free("Scatter", same),
    Row::free("ScatterElements", same),
    Row::free("ScatterND", scatter_nd),
    Row::free("TensorScatter", same),
    Row::free("OneHot", one_hot),
    Row::free("NonZero", non_zero),
    Row::free("Unique", unique),
];

/// The axis `axis` of the data becomes the axes of the indices.
fn gather(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let (data, indices) = (ctx.input(0)?, ctx.input(1)?);
    let mut axis = 0;
    let output = ctx.shaped(data.dtype, || {
        let (dims, at) = (ctx.dims(0)?, ctx.dims(1)?);
        axis = Ctx::axis(ctx.int("axis", 0), dims.len())?;
        Ok([&dims[..axis], at, &dims[axis + 1..]].concat())
    })?;
    let (Some(at), Ok(shape)) = (indices.elements.as_deref(), indices.dims.as_deref()) else {
        return Ok(vec![output]);
    };
    let Some(shape) = extents(shape) else { return Ok(vec![output]) };
    Ok(vec![moved(data, output, |index, from| {
        let (before, rest) = index.split_at(axis);
        let (picked, after) = rest.split_at(shape.len());
        let at = at.get(place(&shape, picked.iter().copied()))?.number()?;
        let at = Ctx::axis(at, *from.get(axis)?).ok()?;
        Some(place(from, before.iter().copied().chain([at]).chain(after.iter().copied())))
    })])
}

/// As many elements as indices.
fn gather_elements(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let data = ctx.input(0)?;
    let axis = ctx.int("axis", 0);
    let output = like(ctx.input(1)?, data.dtype);
    let Some(at) = ctx.input(1)?.elements.as_deref() else { return Ok(vec![output]) };
    let shape = output.dims.as_deref().ok().and_then(extents);
    let Some(shape) = shape else { return Ok(vec![output]) };
    Ok(vec![moved(data, output, |index, from| {
        let axis = Ctx::axis(axis, from.len()).ok()?;
        let mut source = index.to_vec();
        let picked = at.get(place(&shape, index.iter().copied()))?.number()?;
        *source.get_mut(axis)? = Ctx::axis(picked, *from.get(axis)?).ok()?;
        Some(place(from, source.into_iter()))
    })])
}

/// The last axis of the indices holds the first coordinates of a slice.
pub(super) fn gather_nd(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let data = ctx.input(0)?;
    let mut depth = 0;
    let batch = usize::try_from(ctx.int("batch_dims", 0)).map_err(|_| "expected batch_dims of 0 at least")?;
    let output = ctx.shaped(data.dtype, || {
        let (dims, at) = (ctx.dims(0)?, ctx.dims(1)?);
        let (last, before) = at.split_last().ok_or("expected indices of one axis at least")?;
        let unknown = || ctx.unknown("how many coordinates the indices have is not known");
        depth = last.count().ok_or_else(unknown)? as usize;
        let used = batch.saturating_add(depth);
        let after = dims.get(used..).filter(|_| batch <= before.len());
        let after = after.ok_or_else(|| format!("expected {used} axes at least, found {dims:?}"))?;
        Ok([before, after].concat())
    })?;
    let (0, Some(at)) = (batch, ctx.input(1)?.elements.as_deref()) else { return Ok(vec![output]) };
    let rank = ctx.input(1)?.rank().unwrap_or(1);
    let shape = ctx.input(1)?.dims.as_deref().ok().and_then(extents);
    let Some(shape) = shape else { return Ok(vec![output]) };
    Ok(vec![moved(data, output, |index, from| {
        let (row, after) = index.split_at(rank - 1);
        let coordinate = |i: usize| {
            let at = at.get(place(&shape, row.iter().copied().chain([i])))?.number()?;
            Ctx::axis(at, *from.get(i)?).ok()
        };
        let source: Vec<usize> = (0..depth).map(coordinate).collect::<Option<_>>()?;
        Some(place(from, source.into_iter().chain(after.iter().copied())))
    })])
}

/// A copy of the data with some elements replaced: known where all of it is.
fn scatter_nd(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let data = ctx.input(0)?;
    let output = like(data, data.dtype);
    let elements = if ctx.text("reduction").is_none_or(|r| r == "none") { scattered(ctx) } else { None };
    Ok(vec![output.holding(elements)])
}

fn scattered(ctx: &Ctx) -> Option<Vec<Expr>> {
    let (data, at, updates) = (ctx.optional(0)?, ctx.optional(1)?, ctx.optional(2)?);
    let shape = extents(data.dims.as_deref().ok()?)?;
    let (depth, rows) = at.dims.as_deref().ok()?.split_last()?;
    let depth = usize::try_from(depth.count()?).ok().filter(|&depth| depth <= shape.len())?;
    let rows = extents(rows)?.iter().product::<usize>();
    let slice: usize = shape[depth..].iter().product();
    let (at, updates) = (at.elements.as_deref()?, updates.elements.as_deref()?);
    let mut elements = data.elements.as_deref()?.to_vec();
    for row in 0..rows {
        let coordinate = |i: usize| Ctx::axis(at.get(row * depth + i)?.number()?, shape[i]).ok();
        let index: Vec<usize> = (0..depth).map(coordinate).collect::<Option<_>>()?;
        let start = place(&shape[..depth], index.into_iter()) * slice;
        let new = updates.get(row * slice..(row + 1) * slice)?;
        elements.get_mut(start..start + slice)?.clone_from_slice(new);
    }
    Some(elements)
}

/// A new axis of extent `depth`.
fn one_hot(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype(2)?;
    let output = ctx.shaped(dtype, || {
        let mut dims = ctx.dims(0)?.to_vec();
        let axis = Ctx::axis(ctx.int("axis", -1), dims.len() + 1)?;
        let depth = match (ctx.element(1), ctx.reals(1)) {
            (Ok(depth), _) => depth.clone(),
            // The depth may be of any type.
            (Err(_), Ok([depth])) => depth.truncated().ok_or("expected a whole depth")?,
            (Err(why), _) => Expr::unknown(&why),
        };
        dims.insert(axis, depth);
        Ok(dims)
    })?;
    Ok(vec![output])
}

/// The coordinates of the elements that are not zero: `[rank, how many]`.
fn non_zero(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    if let Some(found) = known_non_zero(x) {
        return Ok(vec![found]);
    }
    let name = ctx.node.output.first().map_or("", String::as_str);
    let count = Expr::unknown(&format!("how many {name} finds is known only when the graph runs"));
    let rank = match &x.dims {
        // A scalar counts as a list of one.
        Ok(dims) => dims.len().max(usize::from(ctx.opset < 13)).into(),
        Err(reason) => Expr::unknown(reason),
    };
    Ok(vec![Fact::new(DataType::Int64, vec![rank, count])])
}

fn known_non_zero(x: &Fact) -> Option<Fact> {
    let shape = extents(x.dims.as_deref().ok()?).filter(|shape| !shape.is_empty())?;
    let elements = x.elements.as_deref()?;
    let mut columns: Vec<Vec<usize>> = Vec::new();
    let mut at = 0;
    places(&shape, |index| {
        if elements.get(at)?.number()? != 0 {
            columns.push(index.to_vec());
        }
        at += 1;
        Some(0)
    })?;
    let rows = (0..shape.len()).flat_map(|axis| columns.iter().map(move |column| column[axis].into()));
    let dims = vec![shape.len().into(), columns.len().into()];
    Some(Fact::new(DataType::Int64, dims).holding(Some(rows.collect())))
}

/// The different elements or slices, and where they are: one length, which the data decide.
pub(super) fn unique(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype(0)?;
    let name = ctx.node.output.first().map_or("", String::as_str);
    let length = Expr::unknown(&format!("how many {name} keeps is known only when the graph runs"));
    let mut inverse = Err("the input's extents are not known".to_owned());
    let values = match ctx.attribute("axis") {
        None => {
            inverse = Ok(ctx.input(0)?.count());
            Fact::new(dtype, vec![length.clone()])
        }
        Some(axis) => ctx.shaped(dtype, || {
            let mut dims = ctx.dims(0)?.to_vec();
            let axis = Ctx::axis(axis.i(), dims.len())?;
            inverse = Ok(std::mem::replace(&mut dims[axis], length.clone()));
            Ok(dims)
        })?,
    };
    let inverse = inverse.unwrap_or_else(|why| Expr::unknown(&why));
    let list = |length: &Expr| Fact::new(DataType::Int64, vec![length.clone()]);
    Ok(vec![values, list(&length), list(&inverse), list(&length)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_zero_of_a_constant_is_known() {
        let x = Fact::new(DataType::Bool, vec![2.into(), 2.into()])
            .holding(Some([1, 0, 1, 1].map(Expr::from).to_vec()));
        let found = known_non_zero(&x).unwrap();
        assert_eq!(found.dims.unwrap(), [2, 3].map(Expr::from));
        assert_eq!(*found.elements.unwrap(), [0, 1, 1, 0, 0, 1].map(Expr::from));
    }
}
