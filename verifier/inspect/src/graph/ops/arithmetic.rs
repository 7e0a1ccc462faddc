//! Shape arithmetic: what operators do to elements that are known before the graph runs.
//!
//! Integers are formulas, so that arithmetic is exact or unknown; floats are numbers rounded as
//! the engine rounds them, or exact quotients of formulas.

use emo_proto::tensor_proto::DataType;

use super::Ctx;
use crate::fact::{Fact, MOST_ELEMENTS};
use crate::real::Real;
use crate::sym::Expr;

type Integers = fn(&Expr, &Expr) -> Option<Expr>;
type Reals = fn(&Real, &Real) -> Option<Real>;

/// What a binary operator does to integers and truth values.
fn integers(ctx: &Ctx) -> Option<Integers> {
    Some(match ctx.node.op_type() {
        "Add" | "Sum" => |a, b| Some(a + b),
        "Sub" => |a, b| Some(a - b),
        "Mul" => |a, b| Some(a * b),
        "Div" => quotient,
        "Mod" if ctx.int("fmod", 0) == 0 => |a, b| Some(a.modulo(b)),
        "Mod" => |a, b| numbers(a, b, i64::checked_rem),
        "Max" => |a, b| Some(a.larger(b)),
        "Min" => |a, b| Some(a.smaller(b)),
        "Pow" => |a, b| numbers(a, b, |a, b| a.checked_pow(u32::try_from(b).ok()?)),
        "Equal" => |a, b| match (order(a, b), order(b, a)) {
            (Some(true), _) | (_, Some(true)) => Some(0.into()),
            _ => (a - b).number().map(|n| i64::from(n == 0).into()),
        },
        "Less" => |a, b| order(a, b).map(|less| i64::from(less).into()),
        "Greater" => |a, b| order(b, a).map(|less| i64::from(less).into()),
        "LessOrEqual" => |a, b| order(b, a).map(|less| i64::from(!less).into()),
        "GreaterOrEqual" => |a, b| order(a, b).map(|less| i64::from(!less).into()),
        "And" => |a, b| {
            if a.is(0) || b.is(0) { Some(0.into()) } else { numbers(a, b, |a, b| Some(a & b)) }
        },
        "Or" => |a, b| if a.is(1) || b.is(1) { Some(1.into()) } else { numbers(a, b, |a, b| Some(a | b)) },
        "BitwiseAnd" => |a, b| numbers(a, b, |a, b| Some(a & b)),
        "BitwiseOr" => |a, b| numbers(a, b, |a, b| Some(a | b)),
        "Xor" | "BitwiseXor" => |a, b| numbers(a, b, |a, b| Some(a ^ b)),
        "BitShift" if ctx.text("direction") == Some("RIGHT") => |a, b| numbers(a, b, shift_right),
        "BitShift" => |a, b| numbers(a, b, |a, b| a.checked_mul(1_i64.checked_shl(u32::try_from(b).ok()?)?)),
        _ => return None,
    })
}

/// What a binary operator does to floats.
fn reals(ctx: &Ctx) -> Option<Reals> {
    Some(match ctx.node.op_type() {
        "Add" | "Sum" => Real::plus,
        "Sub" => Real::minus,
        "Mul" => Real::times,
        "Div" => Real::over,
        "Max" => Real::larger,
        "Min" => Real::smaller,
        _ => return None,
    })
}

fn numbers(a: &Expr, b: &Expr, of: impl FnOnce(i64, i64) -> Option<i64>) -> Option<Expr> {
    of(a.number()?, b.number()?).map(Expr::Number)
}

fn shift_right(a: i64, by: i64) -> Option<i64> {
    // Signed integers are not shifted, and negative ones would be.
    u32::try_from(by).ok().filter(|_| a >= 0).map(|by| a.checked_shr(by).unwrap_or(0))
}

/// Integer division cuts towards zero.
fn quotient(a: &Expr, b: &Expr) -> Option<Expr> {
    match (a.number(), b.number()) {
        (Some(a), Some(b)) => a.checked_div(b).map(Expr::Number),
        _ if a.at_least() >= Some(0) && b.at_least() >= Some(0) => Some(a.floor_div(b)),
        _ => a.exact_div(b),
    }
}

/// Whether `a < b`, where that is the same for every extent.
fn order(a: &Expr, b: &Expr) -> Option<bool> {
    match ((b - a).at_least(), (a - b).at_least()) {
        (Some(n), _) if n > 0 => Some(true),
        (_, Some(n)) if n >= 0 => Some(false),
        _ => None,
    }
}

/// The output of a binary or variadic operator with its elements, where it computes on known ones.
pub(super) fn fold(ctx: &Ctx, output: Fact) -> Fact {
    let Some((first, rest)) = ctx.inputs.split_first() else { return output };
    let operands = || first.iter().chain(rest.iter().flatten()).map(AsRef::as_ref);
    if operands().all(|fact| fact.elements.is_some())
        && let Some(of) = integers(ctx)
    {
        let elements = combine(&output, operands().map(|f| (f, f.elements.as_deref())), |a, b| {
            Some(of(a, b).map_or_else(|| undecided(ctx), |e| in_range(e, ctx, output.dtype)))
        });
        return output.holding(elements);
    }
    if operands().all(|fact| fact.reals.is_some()) {
        if let Some(of) = reals(ctx) {
            let dtype = output.dtype;
            let elements = combine(&output, operands().map(|f| (f, f.reals.as_deref())), |a, b| {
                of(a, b)?.rounded(dtype)
            });
            return output.holding_reals(elements);
        }
        if let Some(of) = comparison(ctx.node.op_type()) {
            let truths: Option<Vec<Real>> =
                combine(&output, operands().map(|f| (f, f.reals.as_deref())), |a, b| {
                    Some(f64::from(u8::from(of(a.number()?, b.number()?))).into())
                });
            let truths = truths.and_then(|t| t.iter().map(Real::truncated).collect());
            return output.holding(truths);
        }
    }
    output
}

fn comparison(name: &str) -> Option<fn(f64, f64) -> bool> {
    Some(match name {
        "Equal" => |a, b| a == b,
        "Less" => |a, b| a < b,
        "Greater" => |a, b| a > b,
        "LessOrEqual" => |a, b| a <= b,
        "GreaterOrEqual" => |a, b| a >= b,
        _ => return None,
    })
}

/// Operands broadcast to the output and combined from the left.
fn combine<'f, T: Clone + 'f>(
    output: &Fact,
    operands: impl Iterator<Item = (&'f Fact, Option<&'f [T]>)>,
    of: impl Fn(&T, &T) -> Option<T>,
) -> Option<Vec<T>> {
    let shape = extents(output.dims.as_deref().ok()?)?;
    let mut result: Option<Vec<T>> = None;
    for (fact, elements) in operands {
        let elements = elements?;
        let places = broadcast_places(fact, &shape)?;
        result = Some(match result {
            None => places.iter().map(|&i| elements.get(i).cloned()).collect::<Option<_>>()?,
            Some(left) => {
                left.iter().zip(&places).map(|(a, &i)| of(a, elements.get(i)?)).collect::<Option<_>>()?
            }
        });
    }
    result
}

/// The output of an operator with one operand, with its elements where they are known.
pub(super) fn fold_unary(ctx: &Ctx, output: Fact) -> Fact {
    let Some(x) = ctx.optional(0) else { return output };
    if let Some(elements) = x.elements.as_deref() {
        let of: fn(&Expr) -> Option<Expr> = match ctx.node.op_type() {
            "Neg" => |x| Some(-x),
            "Abs" => |x| Some(x.larger(&-x)),
            "Sign" => |x| match x.at_least() {
                Some(n) if n > 0 => Some(1.into()),
                _ => x.number().map(|n| n.signum().into()),
            },
            "Not" => |x| x.number().map(|n| i64::from(n == 0).into()),
            "Relu" => |x| Some(x.larger(&0.into())),
            _ => return output,
        };
        let folded = elements.iter().map(|x| of(x).unwrap_or_else(|| undecided(ctx)));
        return output.clone().holding(Some(folded.collect()));
    }
    let Some(reals) = x.reals.as_deref() else { return output };
    let number = |of: fn(f64) -> f64| move |x: &Real| x.number().map(|n| of(n).into());
    let folded: Option<Vec<Real>> = match ctx.node.op_type() {
        "Floor" => reals.iter().map(|x| Some(x.floor())).collect(),
        "Ceil" => reals.iter().map(|x| Some(x.ceil())).collect(),
        "Neg" => reals.iter().map(|x| Real::Number(0.0).minus(x)).collect(),
        "Reciprocal" => reals.iter().map(|x| Real::Number(1.0).over(x)).collect(),
        "Abs" => reals.iter().map(number(f64::abs)).collect(),
        "Sqrt" => reals.iter().map(number(f64::sqrt)).collect(),
        "Round" => reals.iter().map(number(f64::round_ties_even)).collect(),
        _ => None,
    };
    let dtype = output.dtype;
    let folded = folded.and_then(|r| r.into_iter().map(|x| x.rounded(dtype)).collect());
    output.holding_reals(folded)
}

/// The elements of `x` as another type has them.
pub(super) fn cast(ctx: &Ctx, x: &Fact, output: Fact) -> Fact {
    let dtype = output.dtype;
    let target = Fact::scalar(dtype);
    let truth = |e: &Expr| match e.number() {
        Some(n) => i64::from(n != 0).into(),
        None if e.at_least() > Some(0) => 1.into(),
        None => undecided(ctx),
    };
    match (x.elements.as_deref(), x.reals.as_deref()) {
        (Some(elements), _) if dtype == DataType::Bool => {
            output.holding(Some(elements.iter().map(truth).collect()))
        }
        (Some(elements), _) if target.is_integer() => {
            let cast = elements.iter().map(|e| in_range(e.clone(), ctx, dtype));
            output.holding(Some(cast.collect()))
        }
        (Some(elements), _) if target.is_float() => {
            let known = |e: &Expr| e.is_known().then(|| Real::from(e).rounded(dtype)).flatten();
            output.holding_reals(elements.iter().map(known).collect())
        }
        (None, Some(reals)) if target.is_float() => {
            output.holding_reals(reals.iter().map(|r| r.clone().rounded(dtype)).collect())
        }
        (None, Some(reals)) if target.is_integer() => {
            let cut = |r: &Real| r.truncated().map(|e| in_range(e, ctx, dtype));
            output.holding(reals.iter().map(cut).collect())
        }
        _ => output,
    }
}

/// An element that is not the same for every extent, or lies in no integer.
pub(super) fn undecided(ctx: &Ctx) -> Expr {
    let name = ctx.node.output.first().map_or("", String::as_str);
    Expr::unknown(&format!("{name} depends on extents in a way that no formula says"))
}

/// Integers of a type wrap around at its ends; nobody means that.
fn in_range(e: Expr, ctx: &Ctx, dtype: DataType) -> Expr {
    use DataType::*;
    let (low, high) = match dtype {
        Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        Uint8 => (0, i64::from(u8::MAX)),
        Uint16 => (0, i64::from(u16::MAX)),
        Uint32 => (0, i64::from(u32::MAX)),
        Uint64 => (0, i64::MAX),
        _ => return e,
    };
    match e.number() {
        Some(n) if n < low || n > high => undecided(ctx),
        _ => e,
    }
}

/// The extents as numbers, if they are and there are few elements.
pub(super) fn extents(dims: &[Expr]) -> Option<Vec<usize>> {
    let extents: Option<Vec<usize>> = dims.iter().map(|d| usize::try_from(d.number()?).ok()).collect();
    let count = extents.iter().flatten().try_fold(1_usize, |count, &d| count.checked_mul(d));
    extents.filter(|_| count.is_some_and(|count| count <= MOST_ELEMENTS))
}

/// For each place of a tensor of `shape`, in order, what `source` says of its index.
pub(super) fn places(
    shape: &[usize],
    mut source: impl FnMut(&[usize]) -> Option<usize>,
) -> Option<Vec<usize>> {
    let count = shape.iter().product();
    let mut index = vec![0; shape.len()];
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        found.push(source(&index)?);
        for (i, extent) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *extent {
                break;
            }
            *i = 0;
        }
    }
    Some(found)
}

/// The place of an index in a tensor of `shape`.
pub(super) fn place(shape: &[usize], index: impl Iterator<Item = usize>) -> usize {
    shape.iter().zip(index).fold(0, |place, (extent, i)| place * extent + i)
}

/// Where each place of `shape` reads a tensor that broadcasts to it.
fn broadcast_places(fact: &Fact, shape: &[usize]) -> Option<Vec<usize>> {
    let from = extents(fact.dims.as_deref().ok()?)?;
    let skip = shape.len().checked_sub(from.len())?;
    places(shape, |index| {
        let index = index.iter().skip(skip).zip(&from).map(|(&i, &extent)| if extent == 1 { 0 } else { i });
        Some(place(&from, index))
    })
}

/// The output with the elements of `x` that `source` picks for each index.
pub(super) fn moved(x: &Fact, output: Fact, source: impl FnMut(&[usize], &[usize]) -> Option<usize>) -> Fact {
    if x.elements.is_none() && x.reals.is_none() {
        return output;
    }
    let (Ok(from), Ok(to)) = (&x.dims, &output.dims) else { return output };
    let (Some(from), Some(to)) = (extents(from), extents(to)) else { return output };
    let mut source = source;
    let Some(places) = places(&to, |index| source(index, &from)) else { return output };
    picked(x, output, &places)
}

/// The output with the elements of `x` at these places.
pub(super) fn picked(x: &Fact, output: Fact, places: &[usize]) -> Fact {
    let elements = x.elements.as_deref().and_then(|e| places.iter().map(|&i| e.get(i).cloned()).collect());
    let reals = x.reals.as_deref().and_then(|r| places.iter().map(|&i| r.get(i).cloned()).collect());
    output.holding(elements).holding_reals(reals)
}

/// The output with the elements of a tensor that the index of each maps to, by broadcasting.
pub(super) fn expanded(x: &Fact, output: Fact) -> Fact {
    if x.elements.is_none() && x.reals.is_none() {
        return output;
    }
    let shape = output.dims.as_deref().ok().and_then(extents);
    match shape.and_then(|shape| broadcast_places(x, &shape)) {
        Some(places) => picked(x, output, &places),
        None => output,
    }
}
