//! Einstein summation.

use std::collections::BTreeMap;

use super::elementwise::broadcast;
use super::linear::product;
use super::{Ctx, Row, Why};
use crate::cost::Work;
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] =
    &[Row { name: "Einsum", rule: einsum, work: einsum_work, weights: &[0, 1, 2, 3] }];

/// An equation with the extents that its operands give it.
#[derive(Debug, PartialEq)]
struct Equation {
    output: Vec<Expr>,
    /// A multiply-add for each combination of all indices.
    combinations: Expr,
}

/// Reads `ij,jk->ik`: letters are axes, `...` stands for any further ones, which broadcast;
/// without an arrow the output has the letters that occur once, in alphabetical order. Every ellipsis
/// stands for as many axes.
fn parse(equation: &str, operands: &[&[Expr]]) -> Result<Equation, Why> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != operands.len() {
        return Err(format!("expected {} operands for {equation}, found {}", terms.len(), operands.len()));
    }
    let mut extents: BTreeMap<char, (Expr, usize)> = BTreeMap::new();
    let mut others: Vec<&[Expr]> = Vec::new();
    let mut wide = None;
    for (term, dims) in terms.iter().zip(operands) {
        let (before, after) = term.split_once("...").unwrap_or((term, ""));
        let (first, last) = (letters(before)?, letters(after)?);
        let rest = dims.len().checked_sub(first.len() + last.len());
        let rest = rest.filter(|&rest| rest == 0 || term.contains("...")).ok_or_else(|| {
            format!("expected {} axes for {term} in {equation}, found {dims:?}", first.len() + last.len())
        })?;
        if term.contains("...") && *wide.get_or_insert(rest) != rest {
            let wide = wide.unwrap_or(rest);
            return Err(format!(
                "expected each ellipsis of {equation} to be {wide} axes, found {rest} in {term}"
            ));
        }
        others.push(&dims[first.len()..first.len() + rest]);
        let named = dims[..first.len()].iter().chain(&dims[first.len() + rest..]);
        for (letter, dim) in first.into_iter().chain(last).zip(named) {
            let (extent, uses) = extents.entry(letter).or_insert_with(|| (dim.clone(), 0));
            let both = broadcast(&[std::slice::from_ref(extent), std::slice::from_ref(dim)])
                .map_err(|why| format!("index {letter} of {equation}: {why}"))?;
            (*extent, *uses) = (both[0].clone(), *uses + 1);
        }
    }
    let others = broadcast(&others)?;
    let combinations = extents.values().map(|(extent, _)| extent).chain(&others).cloned().product();
    let extent = |letter: char| {
        let known = extents.get(&letter).map(|(extent, _)| extent.clone());
        known.ok_or_else(|| format!("{letter} of the output is in no operand of {equation}"))
    };
    let output = match right {
        Some(right) => {
            let (before, after) = right.split_once("...").unwrap_or((right, ""));
            let mut output = letters(before)?.into_iter().map(extent).collect::<Result<Vec<_>, _>>()?;
            if right.contains("...") {
                output.extend(others);
            }
            output.extend(letters(after)?.into_iter().map(extent).collect::<Result<Vec<_>, _>>()?);
            output
        }
        None => {
            let once = extents.values().filter(|(_, uses)| *uses == 1).map(|(extent, _)| extent.clone());
            others.into_iter().chain(once).collect()
        }
    };
    Ok(Equation { output, combinations })
}

fn letters(term: &str) -> Result<Vec<char>, Why> {
    match term.chars().find(|c| !c.is_ascii_alphabetic()) {
        Some(other) => Err(format!("expected a letter for an index, found {other:?}")),
        None => Ok(term.chars().collect()),
    }
}

fn of(ctx: &Ctx) -> Result<Equation, Why> {
    let equation = ctx.text("equation").ok_or("expected an equation, found none")?;
    let operands: Vec<_> = (0..ctx.inputs.len()).map(|i| ctx.dims(i)).collect::<Result<_, _>>()?;
    parse(equation, &operands)
}

fn einsum(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || Ok(of(ctx)?.output))?])
}

/// A single operand is moved or summed, not multiplied.
fn einsum_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    match ctx.inputs.len() {
        0 | 1 => Ok(Work::Free),
        n => Ok(product(ctx, &(0..n).collect::<Vec<_>>(), of(ctx)?.combinations)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations() {
        let b = Expr::symbol("b");
        let dims = |dims: &[i64]| dims.iter().map(|&d| Expr::Number(d)).collect::<Vec<_>>();
        // Equation, operands, result, multiply-adds.
        type Case<'a> = (&'a str, &'a [&'a [i64]], &'a [i64], i64);
        let cases: [Case; 9] = [
            ("ij,jk->ik", &[&[2, 3], &[3, 4]], &[2, 4], 24),
            ("ij,jk", &[&[2, 3], &[3, 4]], &[2, 4], 24),
            ("bij, bjk -> bik", &[&[5, 2, 3], &[5, 3, 4]], &[5, 2, 4], 120),
            ("...ii ->...i", &[&[7, 5, 5]], &[7, 5], 35),
            ("ii", &[&[4, 4]], &[], 4),
            ("i,i", &[&[6], &[6]], &[], 6),
            ("...ij,...jk->...ik", &[&[8, 1, 2, 3], &[8, 7, 3, 4]], &[8, 7, 2, 4], 8 * 7 * 24),
            ("ba", &[&[2, 3]], &[3, 2], 6),
            ("bhqd,bhkd->bhqk", &[&[1, 2, 9, 4], &[1, 2, 9, 4]], &[1, 2, 9, 9], 2 * 81 * 4),
        ];
        for (equation, operands, output, combinations) in cases {
            let operands: Vec<_> = operands.iter().map(|o| dims(o)).collect();
            let operands: Vec<&[Expr]> = operands.iter().map(Vec::as_slice).collect();
            let found = parse(equation, &operands).unwrap();
            assert_eq!(found.output, dims(output), "{equation}");
            assert_eq!(found.combinations, combinations.into(), "{equation}");
        }
        let found = parse("bi,ij->bj", &[&[b.clone(), 3.into()], &dims(&[3, 4])]).unwrap();
        assert_eq!(found.combinations, &b * 12);
    }

    #[test]
    fn wrong_equations_are_refused() {
        let one = [Expr::Number(2)];
        for equation in ["i,j->ij", "ij->ij", "i->j", "i1->i", "..", "i...i.->i", ""] {
            assert!(parse(equation, &[&one]).is_err(), "{equation}");
        }
        let (cube, matrix) = ([2, 3, 4].map(Expr::from), [3, 4].map(Expr::from));
        for other in [&matrix[..], &matrix[1..]] {
            let why = parse("...i,...i->...", &[&cube, other]).unwrap_err();
            assert!(why.contains("to be 2 axes"), "{why}");
        }
        assert!(parse("...i,i->...", &[&cube, &matrix[1..]]).is_ok(), "an operand may have no ellipsis");
    }
}
