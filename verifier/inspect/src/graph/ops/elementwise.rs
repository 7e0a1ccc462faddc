//! One element out for one, or for several that broadcast.

use emo_proto::tensor_proto::DataType;

use super::arithmetic::{cast as cast_elements, expanded, fold, fold_unary};
use super::{Ctx, Row, Why, written};
use crate::cost::Work;
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    unary("Abs"),
    unary("Acos"),
    unary("Acosh"),
    unary("Asin"),
    unary("Asinh"),
    unary("Atan"),
    unary("Atanh"),
    unary("BitwiseNot"),
    unary("Ceil"),
    unary("Celu"),
    unary("Cos"),
    unary("Cosh"),
    unary("Erf"),
    unary("Exp"),
    unary("Floor"),
    unary("Gelu"),
    unary("HardSigmoid"),
    unary("HardSwish"),
    unary("Log"),
    unary("Mish"),
    unary("Neg"),
    unary("Not"),
    unary("Reciprocal"),
    unary("Round"),
    unary("Selu"),
    unary("Shrink"),
    unary("Sigmoid"),
    unary("Sign"),
    unary("Sin"),
    unary("Sinh"),
    unary("Softplus"),
    unary("Softsign"),
    unary("Sqrt"),
    unary("Swish"),
    unary("Tan"),
    unary("Tanh"),
    unary("ThresholdedRelu"),
    Row { work: rectifier, ..unary("Elu") },
    Row { work: rectifier, ..unary("LeakyRelu") },
    Row { work: rectifier, ..unary("Relu") },
    Row { work: rectifier, weights: &[1], ..Row::free("PRelu", same) },
    Row { work: clip_work, ..Row::free("Clip", clip) },
    Row::free("IsInf", truth_of_one),
    Row::free("IsNaN", truth_of_one),
    Row { weights: &[0, 1], ..Row::free("Add", binary) },
    Row { weights: &[0, 1], ..Row::free("Mul", binary) },
    Row { weights: &[0, 1], ..Row::free("Div", binary) },
    Row::free("Sub", binary),
    Row::free("Mod", binary),
    Row::free("Pow", binary),
    Row::free("BitShift", binary),
    Row::free("BitwiseAnd", binary),
    Row::free("BitwiseOr", binary),
    Row::free("BitwiseXor", binary),
    Row::free("SwiGLU", binary),
    Row::free("Equal", compare),
    Row::free("Greater", compare),
    Row::free("GreaterOrEqual", compare),
    Row::free("Less", compare),
    Row::free("LessOrEqual", compare),
    Row::free("And", compare),
    Row::free("Or", compare),
    Row::free("Xor", compare),
    Row::free("Max", variadic),
    Row::free("Mean", variadic),
    Row::free("Min", variadic),
    Row { weights: &[0, 1], ..Row::free("Sum", variadic) },
    Row::free("Where", choose),
    Row::free("Cast", cast),
    Row::free("CastLike", cast_like),
    Row::free("BitCast", bit_cast),
    Row::free("Dropout", dropout),
];

const fn unary(name: &'static str) -> Row {
    Row::free(name, one)
}

/// The first operand's type and extents.
pub(super) fn same(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    Ok(vec![like(x, x.dtype)])
}

/// The extents of `x`, of another type.
pub(super) fn like(x: &Fact, dtype: DataType) -> Fact {
    Fact { dims: x.dims.clone(), ..Fact::unknown(dtype, "") }
}

fn one(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    Ok(vec![fold_unary(ctx, like(x, x.dtype))])
}

fn truth_of_one(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![like(ctx.input(0)?, DataType::Bool)])
}

fn rectifier(_: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    Ok(Work::Rectifier { elements: written(outputs) })
}

fn binary(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype(0)?;
    ctx.dtype(1)?;
    Ok(vec![fold(ctx, ctx.shaped(dtype, || broadcast_two(ctx))?)])
}

fn compare(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    ctx.input(0)?;
    ctx.input(1)?;
    Ok(vec![fold(ctx, ctx.shaped(DataType::Bool, || broadcast_two(ctx))?)])
}

/// Before opset 7 the second operand is fitted to the first, where an attribute allows it.
fn broadcast_two(ctx: &Ctx) -> Result<Vec<Expr>, Why> {
    match ctx.opset {
        1..7 => Ok(ctx.dims(0)?.to_vec()),
        _ => broadcast(&[ctx.dims(0)?, ctx.dims(1)?]),
    }
}

fn variadic(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let all = || (0..ctx.inputs.len()).map(|i| ctx.dims(i)).collect::<Result<Vec<_>, _>>();
    let fact = ctx.shaped(ctx.dtype(0)?, || broadcast(&all()?))?;
    Ok(vec![if ctx.node.op_type() == "Mean" { fact } else { fold(ctx, fact) }])
}

/// Condition, value where true, value where not.
fn choose(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let [condition, x, y] = [ctx.input(0)?, ctx.input(1)?, ctx.input(2)?];
    let output = ctx.shaped(x.dtype, || broadcast(&[ctx.dims(0)?, ctx.dims(1)?, ctx.dims(2)?]))?;
    let Some(condition) = expanded(condition, output.clone()).elements else { return Ok(vec![output]) };
    let (x, y) = (expanded(x, output.clone()), expanded(y, output.clone()));
    let places = condition.iter().enumerate();
    let pick = |i: usize, c: &Expr, x: &[Expr], y: &[Expr]| match c.number() {
        Some(0) => y[i].clone(),
        Some(_) => x[i].clone(),
        None if x[i] == y[i] => x[i].clone(),
        None => super::arithmetic::undecided(ctx),
    };
    let elements = match (&x.elements, &y.elements) {
        (Some(x), Some(y)) => Some(places.clone().map(|(i, c)| pick(i, c, x, y)).collect()),
        _ => None,
    };
    let reals = match (&x.reals, &y.reals) {
        (Some(x), Some(y)) => {
            places.map(|(i, c)| Some(if c.number()? == 0 { y[i].clone() } else { x[i].clone() })).collect()
        }
        _ => None,
    };
    Ok(vec![output.holding(elements).holding_reals(reals)])
}

fn clip(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let bound = |i: usize| ctx.optional(i).map(|fact| fact.elements.as_deref()?.first().cloned());
    let elements = match (x.elements.as_deref(), bound(1), bound(2)) {
        (None, ..) | (_, Some(None), _) | (_, _, Some(None)) => None,
        (Some(elements), low, high) => {
            let low = |e: &Expr| low.clone().flatten().map_or_else(|| e.clone(), |low| e.larger(&low));
            let high = |e: Expr| high.clone().flatten().map_or_else(|| e.clone(), |high| e.smaller(&high));
            Some(elements.iter().map(|e| high(low(e))).collect())
        }
    };
    Ok(vec![like(x, x.dtype).holding(elements)])
}

/// From 0 to 6 it is a `ReLU6`.
fn clip_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    let bound = |name: &str, index: usize| match ctx.float(name) {
        Some(bound) => Some(f64::from(bound)),
        None => ctx.optional(index)?.reals.as_deref()?.first()?.number(),
    };
    match (bound("min", 1), bound("max", 2)) {
        (Some(0.0), Some(6.0)) => rectifier(ctx, outputs),
        _ => Ok(Work::Free),
    }
}

fn cast(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let to = ctx.dtype_of("to")?.ok_or("expected a type to cast to, found none")?;
    Ok(vec![cast_elements(ctx, x, like(x, to))])
}

fn cast_like(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    Ok(vec![cast_elements(ctx, x, like(x, ctx.dtype(1)?))])
}

/// The same bits as another type of the same size.
fn bit_cast(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let to = ctx.dtype_of("to")?.ok_or("expected a type to cast to, found none")?;
    Ok(vec![like(ctx.input(0)?, to)])
}

/// The mask was of the data's type before opset 10.
pub(super) fn dropout(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let mask = if matches!(ctx.opset, 1..10) { x.dtype } else { DataType::Bool };
    Ok(vec![like(x, x.dtype), like(x, mask)])
}

/// The shape that several broadcast to, as numpy does.
pub(super) fn broadcast(shapes: &[&[Expr]]) -> Result<Vec<Expr>, Why> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut result = vec![Expr::Number(1); rank];
    for shape in shapes {
        for (i, dim) in shape.iter().enumerate() {
            let at = &mut result[rank - shape.len() + i];
            *at = match (at.number(), dim.number()) {
                (Some(1), _) => dim.clone(),
                (_, Some(1)) => continue,
                _ if at == dim => continue,
                // A number and a symbol can only agree where the symbol is that number or one.
                (Some(_), None) => continue,
                (None, Some(_)) => dim.clone(),
                (Some(a), Some(b)) => return Err(format!("extents {a} and {b} do not broadcast")),
                (None, None) if !at.is_known() => continue,
                (None, None) if !dim.is_known() => dim.clone(),
                // They are the same where the graph runs, unless one is 1.
                (None, None) => at.larger(dim),
            };
        }
    }
    Ok(result)
}
