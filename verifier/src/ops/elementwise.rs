//! One element out for one, or for several that broadcast.

use emo_proto::tensor_proto::DataType;

use super::normalise::same;
use super::{Ctx, Row, Why};
use crate::cost::Work;
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row::free("Sigmoid", same),
    Row::free("Abs", same),
    Row::free("Exp", same),
    Row::free("Sqrt", same),
    Row::free("Erf", same),
    Row::free("Gelu", same),
    binary("Add"),
    binary("Mul"),
    binary("Div"),
    Row { weights: &[], ..binary("Sub") },
    Row::free("Cast", cast),
];

fn cast(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let to = i32::try_from(ctx.int("to", 0)).ok().and_then(|to| DataType::try_from(to).ok());
    let dtype = to.ok_or("expected a type to cast to, found none")?;
    Ok(vec![Fact { dims: x.dims.clone(), ..Fact::new(dtype, Vec::new()) }])
}

/// A vector that is added or multiplied is a parameter; a lone number is not.
const fn binary(name: &'static str) -> Row {
    Row { name, rule: broadcast_all, work: |_, _| Ok(Work::Free), weights: &[0, 1] }
}

fn broadcast_all(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = broadcast(&[ctx.dims(0)?, ctx.dims(1)?])?;
    Ok(vec![Fact::new(ctx.input(0)?.dtype, dims)])
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
                (None, None) => Expr::unknown(&format!("{at} and {dim} may differ")),
            };
        }
    }
    Ok(result)
}
