//! Values out of attributes, shapes and chance.

use emo_proto::tensor_proto::DataType;

use super::elementwise::like;
use super::{Ctx, Row, Why};
use crate::fact::{Fact, MOST_ELEMENTS};
use crate::real::Real;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row::free("Constant", constant),
    Row::free("ConstantOfShape", constant_of_shape),
    Row::free("Shape", shape),
    Row::free("Size", size),
    Row::free("Range", range),
    Row::free("EyeLike", eye_like),
    Row::free("RandomNormal", random),
    Row::free("RandomUniform", random),
    Row::free("RandomNormalLike", random_like),
    Row::free("RandomUniformLike", random_like),
    Row::free("Bernoulli", random_like),
    Row::free("Multinomial", multinomial),
];

fn constant(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let list = |dtype, length: usize| Fact::new(dtype, vec![length.into()]);
    for attribute in &ctx.node.attribute {
        let name = attribute.name();
        let Some(value) = ctx.attribute(name) else { continue };
        let real = |&f: &f32| Real::Number(f.into());
        let fact = match name {
            "value" => ctx.tensor_of(value.t.as_ref().ok_or("expected a tensor, found none")?),
            "value_int" => Fact::scalar(DataType::Int64).holding(Some(vec![value.i().into()])),
            "value_ints" => Fact::list(value.ints.iter().map(|&n| n.into()).collect()),
            "value_float" => Fact::scalar(DataType::Float).holding_reals(Some(vec![real(&value.f())])),
            "value_floats" => {
                let reals = value.floats.iter().map(real).collect();
                list(DataType::Float, value.floats.len()).holding_reals(Some(reals))
            }
            "value_string" => Fact::scalar(DataType::String),
            "value_strings" => list(DataType::String, value.strings.len()),
            "sparse_value" => {
                let sparse = value.sparse_tensor.as_ref().ok_or("expected a sparse tensor, found none")?;
                let values = sparse.values.as_ref().ok_or("expected values, found none")?;
                let dtype = DataType::try_from(values.data_type()).unwrap_or(DataType::Undefined);
                Fact::new(dtype, sparse.dims.iter().map(|&d| d.into()).collect())
            }
            _ => continue,
        };
        return Ok(vec![fact]);
    }
    Err("expected a value, found none".to_owned())
}

/// A float zero where no value is given.
fn constant_of_shape(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let zero = || Fact::new(DataType::Float, vec![1.into()]).holding_reals(Some(vec![0.0.into()]));
    let value = match ctx.attribute("value").and_then(|a| a.t.as_ref()) {
        Some(tensor) => ctx.tensor_of(tensor),
        None => zero(),
    };
    let output = ctx.shaped(value.dtype, || ctx.extents(0))?;
    let count = output.count().count().filter(|&n| n <= MOST_ELEMENTS as u64).map(|n| n as usize);
    let elements = value.elements.as_deref().and_then(|e| Some(vec![e.first()?.clone(); count?]));
    let reals = value.reals.as_deref().and_then(|r| Some(vec![r.first()?.clone(); count?]));
    Ok(vec![output.holding(elements).holding_reals(reals)])
}

/// The extents from `start` to `end`, which count from the end where negative.
fn shape(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let Ok(dims) = &x.dims else {
        let why = x.dims.as_ref().err().map_or("", AsRef::as_ref);
        return Ok(vec![Fact::new(DataType::Int64, vec![Expr::unknown(why)])]);
    };
    let rank = dims.len() as i64;
    let at = |name: &str, default: i64| {
        let at = ctx.int(name, default);
        (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize
    };
    let (start, end) = (at("start", 0), at("end", rank));
    Ok(vec![Fact::list(dims.get(start..end).unwrap_or_default().to_vec())])
}

fn size(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![Fact::scalar(DataType::Int64).holding(Some(vec![ctx.input(0)?.count()]))])
}

/// `start`, `limit`, `delta`, of any type of number.
pub(super) fn range(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype(0)?;
    let list = |length: Expr| Fact::new(dtype, vec![length]);
    if let (Ok(start), Ok(limit), Ok(delta)) = (ctx.element(0), ctx.element(1), ctx.element(2)) {
        if delta.is(0) {
            return Err("expected a step other than 0".to_owned());
        }
        let length = match delta.number() {
            Some(delta) if delta < 0 => (start - limit).ceil_div(&Expr::Number(delta.saturating_neg())),
            _ => (limit - start).ceil_div(delta),
        };
        let length = length.larger(&0.into());
        let count = length.count().filter(|&n| n <= MOST_ELEMENTS as u64);
        let elements = count.map(|n| (0..n as i64).map(|i| start + &(delta * i)).collect());
        return Ok(vec![list(length).holding(elements)]);
    }
    let only = |i: usize| ctx.reals(i).ok().and_then(|r| r.first()?.number());
    if let (Some(start), Some(limit), Some(delta)) = (only(0), only(1), only(2)) {
        let length = ((limit - start) / delta).ceil().max(0.0);
        let length = Real::Number(length).truncated();
        return Ok(vec![list(
            length.ok_or_else(|| format!("expected a range that ends, found a step of {delta}"))?,
        )]);
    }
    let name = ctx.node.output.first().map_or("", String::as_str);
    Ok(vec![list(Expr::unknown(&format!("the length of {name} is known only when the graph runs")))])
}

/// A matrix of the operand's extents.
fn eye_like(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    if let Some(rank) = x.rank().filter(|&rank| rank != 2) {
        return Err(format!("expected a matrix, found {rank} axes"));
    }
    Ok(vec![like(x, ctx.dtype_of("dtype")?.unwrap_or(x.dtype))])
}

fn random(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let shape = ctx.ints("shape").ok_or("expected a shape, found none")?;
    let dtype = ctx.dtype_of("dtype")?.unwrap_or(DataType::Float);
    Ok(vec![Fact::new(dtype, shape.iter().map(|&n| n.into()).collect())])
}

fn random_like(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    Ok(vec![like(x, ctx.dtype_of("dtype")?.unwrap_or(x.dtype))])
}

/// `[batch, classes]` → `[batch, sample_size]`.
fn multinomial(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype_of("dtype")?.unwrap_or(DataType::Int32);
    let output = ctx.shaped(dtype, || match ctx.dims(0)? {
        [batch, _] => Ok(vec![batch.clone(), ctx.int("sample_size", 1).into()]),
        other => Err(format!("expected [batch, classes], found {other:?}")),
    })?;
    Ok(vec![output])
}
