//! Sequences of tensors, and values that may be absent.

use emo_proto::tensor_proto::DataType;

use super::cut::joined;
use super::{Ctx, Row, Why};
use crate::fact::{Fact, Kind, MOST_ITEMS, Sequence};
use crate::sym::Expr;
use crate::typed::of_type;

pub(super) const ROWS: &[Row] = &[
    Row::free("SequenceEmpty", empty),
    Row::free("SequenceConstruct", construct),
    Row::free("SequenceInsert", insert),
    Row::free("SequenceErase", erase),
    Row::free("SequenceAt", at),
    Row::free("SequenceLength", length),
    Row::free("SplitToSequence", split),
    Row::free("ConcatFromSequence", concat),
    Row::free("Optional", optional),
    Row::free("OptionalGetElement", get),
    Row::free("OptionalHasElement", has),
];

const DIFFER: &str = "the items of a sequence differ";

fn sequence<'a>(ctx: &Ctx<'a>) -> Result<&'a Sequence, Why> {
    match &ctx.input(0)?.kind {
        Kind::Sequence(sequence) => Ok(sequence),
        Kind::Tensor if ctx.input(0)?.dtype == DataType::Undefined => {
            Err(ctx.unknown(ctx.input(0)?.dims.as_ref().err().map_or("", AsRef::as_ref)))
        }
        _ => Err(format!("expected a sequence, found {}", ctx.input(0)?.describe())),
    }
}

/// The item that is true of all, of which there is one at least.
fn all_of(items: &[Fact]) -> Option<Fact> {
    let (first, rest) = items.split_first()?;
    let item = |fact: &Fact| Fact { source: None, ..fact.clone() };
    Some(rest.iter().fold(item(first), |all, fact| all.joined(&item(fact), DIFFER)))
}

fn empty(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype_of("dtype")?.unwrap_or(DataType::Float);
    Ok(vec![Fact::sequence(Fact::unknown(dtype, "the sequence is empty"), Some(Vec::new()))])
}

fn construct(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let items: Vec<Fact> = (0..ctx.inputs.len()).map(|i| tensor(ctx, i)).collect::<Result<_, _>>()?;
    let item = all_of(&items).ok_or("expected a tensor, found none")?;
    Ok(vec![Fact::sequence(item, Some(items))])
}

/// An operand that is a tensor, not a sequence.
fn tensor(ctx: &Ctx, index: usize) -> Result<Fact, Why> {
    let fact = ctx.input(index)?;
    match fact.is_tensor() {
        true => Ok(Fact { source: None, ..fact.clone() }),
        false => Err(format!("expected a tensor, found {}", fact.describe())),
    }
}

/// The place that an operand gives in a sequence of this many.
fn position(ctx: &Ctx, index: usize, count: usize, default: usize) -> Result<Option<usize>, Why> {
    if ctx.optional(index).is_none() {
        return Ok(Some(default));
    }
    match ctx.element(index).ok().and_then(Expr::number) {
        Some(at) => Ctx::axis(at, count).map(Some),
        None => Ok(None),
    }
}

fn insert(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let (sequence, new) = (sequence(ctx)?, tensor(ctx, 1)?);
    let items = match &sequence.items {
        Some(items) if items.len() < MOST_ITEMS => {
            position(ctx, 2, items.len() + 1, items.len())?.map(|at| {
                let mut items = items.clone();
                items.insert(at, new.clone());
                items
            })
        }
        _ => None,
    };
    let was_empty = sequence.items.as_ref().is_some_and(Vec::is_empty);
    let item = if was_empty { new } else { sequence.item.joined(&new, DIFFER) };
    Ok(vec![Fact::sequence(item, items)])
}

fn erase(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let sequence = sequence(ctx)?;
    let items = match &sequence.items {
        Some(items) => position(ctx, 1, items.len(), items.len().saturating_sub(1))?.map(|at| {
            let kept = items.iter().enumerate().filter(|(i, _)| *i != at);
            kept.map(|(_, item)| item.clone()).collect()
        }),
        None => None,
    };
    Ok(vec![Fact::sequence(sequence.item.clone(), items)])
}

fn at(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let sequence = sequence(ctx)?;
    let items = sequence.items.as_deref().unwrap_or_default();
    let place = if items.is_empty() { None } else { position(ctx, 1, items.len(), 0)? };
    Ok(vec![place.map_or_else(|| sequence.item.clone(), |at| items[at].clone())])
}

fn length(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let length = sequence(ctx)?.items.as_ref().map(|items| vec![items.len().into()]);
    Ok(vec![Fact::scalar(DataType::Int64).holding(length)])
}

/// In parts of one, of a size, or of sizes; only parts of one can drop their axis.
fn split(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let Ok(dims) = ctx.dims(0) else {
        return Ok(vec![Fact::sequence(super::elementwise::like(x, x.dtype), None)]);
    };
    let axis = Ctx::axis(ctx.int("axis", 0), dims.len())?;
    let part = |size: Expr| {
        let mut dims = dims.to_vec();
        dims[axis] = size;
        Fact::new(x.dtype, dims)
    };
    let extent = &dims[axis];
    let parts = |size: i64| {
        let count = extent.ceil_div(&size.into()).count().filter(|&n| n <= MOST_ITEMS as u64)?;
        let mut sizes = vec![Expr::Number(size); count as usize];
        if let (Some(last), Some(n)) = (sizes.last_mut(), extent.number()) {
            *last = (n - size.saturating_mul(count as i64 - 1)).into();
        }
        Some(sizes)
    };
    let Some(sizes) = ctx.optional(1) else {
        let mut one = dims.to_vec();
        match ctx.int("keepdims", 1) {
            0 => drop(one.remove(axis)),
            _ => one[axis] = 1.into(),
        }
        let one = Fact::new(x.dtype, one);
        let items = parts(1).map(|sizes| vec![one.clone(); sizes.len()]);
        return Ok(vec![Fact::sequence(one, items)]);
    };
    let unknown = || Fact::sequence(part(Expr::unknown("how it is split is not known")), None);
    let Some(elements) = sizes.elements.as_deref() else { return Ok(vec![unknown()]) };
    let sizes = match (sizes.rank(), elements) {
        (Some(0), [size]) => match size.number() {
            Some(size) if size > 0 => parts(size),
            Some(size) => return Err(format!("expected parts of 1 at least, found {size}")),
            None => None,
        },
        _ => Some(elements.to_vec()),
    };
    let Some(sizes) = sizes else { return Ok(vec![unknown()]) };
    let sum: Expr = sizes.iter().cloned().sum();
    if sum.number().zip(extent.number()).is_some_and(|(a, b)| a != b) {
        return Err(format!("expected parts of {extent}, found {sizes:?}"));
    }
    let items: Vec<Fact> = sizes.into_iter().map(part).collect();
    Ok(vec![all_of(&items).map_or_else(unknown, |item| Fact::sequence(item, Some(items)))])
}

fn concat(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let sequence = sequence(ctx)?;
    let stacks = ctx.int("new_axis", 0) != 0;
    let axis = ctx.attribute("axis").ok_or("expected an axis, found none")?.i();
    let output = ctx.shaped(sequence.item.dtype, || {
        let dims = sequence.item.dims.as_deref().map_err(|reason| ctx.unknown(reason))?;
        let axis = Ctx::axis(axis, dims.len() + usize::from(stacks))?;
        let items = sequence.items.as_deref().filter(|items| !items.is_empty());
        let unknown = Expr::unknown("the length of the sequence is known only when the graph runs");
        if stacks {
            let mut dims = dims.to_vec();
            dims.insert(axis, items.map_or(unknown, |items| items.len().into()));
            return Ok(dims);
        }
        match items {
            Some(items) => {
                let shapes = items.iter().map(|item| item.dims.as_deref());
                let shapes = shapes.collect::<Result<Vec<_>, _>>().map_err(|reason| ctx.unknown(reason))?;
                joined(&shapes, axis)
            }
            None => {
                let mut dims = dims.to_vec();
                dims[axis] = unknown;
                Ok(dims)
            }
        }
    })?;
    Ok(vec![output])
}

/// Holds the operand, or nothing of a type.
fn optional(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    if let Some(x) = ctx.optional(0) {
        return match x.kind {
            Kind::Tensor | Kind::Sparse | Kind::Sequence(_) => {
                Ok(vec![Fact::optional(Fact { source: None, ..x.clone() })])
            }
            _ => Err(format!("expected a tensor or a sequence, found {}", x.describe())),
        };
    }
    let holds = ctx.attribute("type").and_then(|a| a.tp.as_ref()).ok_or("expected a type, found none")?;
    Ok(vec![Fact::optional(of_type(holds, "nothing"))])
}

/// What it holds; what is no optional value is that value.
fn get(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    Ok(vec![match &x.kind {
        Kind::Optional(holds) => Fact::clone(holds),
        _ => Fact { source: None, ..x.clone() },
    }])
}

fn has(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let known = match ctx.optional(0).map(|x| &x.kind) {
        None => Some(0),
        Some(Kind::Optional(_)) => None,
        Some(_) => Some(1),
    };
    Ok(vec![Fact::scalar(DataType::Bool).holding(known.map(|n| vec![n.into()]))])
}
