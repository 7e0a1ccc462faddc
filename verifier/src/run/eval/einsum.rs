//! Einstein summation.

use std::collections::BTreeMap;

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::linear::matmul;
use super::table::{Row, rounds};
use super::value::{Value, count, strides, zip};

pub(super) const ROWS: &[Row] = &[rounds("Einsum", einsum)];

/// A tensor whose axes have names: letters, and numbers for those of an ellipsis, counted from the end.
struct Named {
    value: Value,
    axes: Vec<char>,
}

/// Names for the axes of an ellipsis.
fn ellipsis(length: usize) -> impl Iterator<Item = char> {
    (0..length).rev().map(|i| char::from_u32(0xE000 + i as u32).unwrap_or('\u{E000}'))
}

fn names(term: &str, length: usize) -> Vec<char> {
    let (before, after) = term.split_once("...").unwrap_or((term, ""));
    let between = ellipsis(if term.contains("...") { length } else { 0 });
    before.chars().chain(between).chain(after.chars()).collect()
}

fn einsum(call: &Call) -> Result<Vec<Value>, Why> {
    let equation: String =
        call.text("equation").ok_or("expected an equation")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != call.operands.len() {
        return Err(format!("expected {} operands, found {}", terms.len(), call.operands.len()));
    }
    let mut uses: BTreeMap<char, usize> = BTreeMap::new();
    let (mut parts, mut longest) = (Vec::new(), 0);
    for (i, term) in terms.iter().enumerate() {
        let value = call.operand(i)?.clone();
        let letters = term.replace("...", "").chars().count();
        let length = value.rank().checked_sub(letters);
        let length = length.filter(|&n| n == 0 || term.contains("..."));
        let length = length.ok_or_else(|| format!("expected {letters} axes, found {:?}", value.dims))?;
        longest = longest.max(length);
        let axes = names(term, length);
        axes.iter().for_each(|&axis| *uses.entry(axis).or_default() += 1);
        parts.push(diagonal(Named { value, axes })?);
    }
    let output = match right {
        Some(right) => names(right, longest),
        None => {
            let once = uses.iter().filter(|(c, n)| **n == 1 && c.is_ascii_alphabetic()).map(|(&c, _)| c);
            ellipsis(longest).chain(once).collect()
        }
    };
    let mut parts = parts.into_iter();
    let mut whole = parts.next().ok_or("expected one operand at least")?;
    let rest: Vec<Named> = parts.collect();
    for (i, part) in rest.iter().enumerate() {
        let kept = |axis: &char| output.contains(axis) || rest[i + 1..].iter().any(|p| p.axes.contains(axis));
        whole = contract(call, &whole, part, kept)?;
    }
    // What is left of one operand alone is summed.
    let spare: Vec<usize> = (0..whole.axes.len()).filter(|&i| !output.contains(&whole.axes[i])).collect();
    let value = super::reduce::over(call, &whole.value, &spare, false, 0.0, |s, x| s + x, |s, _| s)?;
    let axes: Vec<char> = whole.axes.iter().copied().filter(|axis| output.contains(axis)).collect();
    let perm: Option<Vec<usize>> = output.iter().map(|axis| axes.iter().position(|a| a == axis)).collect();
    one(value.transposed(&perm.ok_or("expected every index of the output in an operand")?)?)
}

/// An axis that is named twice is its diagonal.
fn diagonal(part: Named) -> Result<Named, Why> {
    let own = strides(&part.value.dims);
    let (mut axes, mut dims, mut steps): (Vec<char>, Vec<usize>, Vec<isize>) = Default::default();
    for (i, &axis) in part.axes.iter().enumerate() {
        match axes.iter().position(|&a| a == axis) {
            Some(at) if dims[at] == part.value.dims[i] => steps[at] += own[i],
            Some(_) => return Err(format!("expected one extent of {axis}, found {:?}", part.value.dims)),
            None => {
                axes.push(axis);
                dims.push(part.value.dims[i]);
                steps.push(own[i]);
            }
        }
    }
    Ok(Named { value: part.value.strided(dims, &steps, 0)?, axes })
}

/// The product of two, summed over what nobody needs any more: a batch of matrix products.
fn contract(call: &Call, a: &Named, b: &Named, kept: impl Fn(&char) -> bool) -> Result<Named, Why> {
    let extent =
        |part: &Named, axis: &char| part.axes.iter().position(|x| x == axis).map(|i| part.value.dims[i]);
    // An extent of 1 beside a longer one broadcasts: that is a product element by element.
    let both: Vec<char> = a.axes.iter().copied().filter(|axis| b.axes.contains(axis)).collect();
    if both.iter().any(|axis| extent(a, axis) != extent(b, axis)) {
        return broadcasting(call, a, b, kept);
    }
    let (batch, summed): (Vec<char>, Vec<char>) = both.into_iter().partition(|axis| kept(axis));
    let only =
        |x: &Named, y: &Named| x.axes.iter().copied().filter(|c| !y.axes.contains(c)).collect::<Vec<_>>();
    let (left, right) = (only(a, b), only(b, a));
    let size = |part: &Named, axes: &[char]| axes.iter().filter_map(|c| extent(part, c)).product::<usize>();
    let ordered = |part: &Named, order: [&[char]; 3]| -> Result<Value, Why> {
        let perm: Option<Vec<usize>> =
            order.concat().iter().map(|axis| part.axes.iter().position(|a| a == axis)).collect();
        let moved = part.value.transposed(&perm.ok_or("expected axes of the operand")?)?;
        moved.reshaped(order.iter().map(|axes| size(part, axes)).collect())
    };
    call.sums(size(a, &summed));
    let product = matmul(&ordered(a, [&batch, &left, &summed])?, &ordered(b, [&batch, &summed, &right])?)?;
    let dims = batch
        .iter()
        .chain(&left)
        .filter_map(|c| extent(a, c))
        .chain(right.iter().filter_map(|c| extent(b, c)));
    let value = product.reshaped(dims.collect())?;
    Ok(Named { value, axes: [batch, left, right].concat() })
}

fn broadcasting(call: &Call, a: &Named, b: &Named, kept: impl Fn(&char) -> bool) -> Result<Named, Why> {
    let mut axes = a.axes.clone();
    axes.extend(b.axes.iter().filter(|axis| !a.axes.contains(axis)));
    let seen = |part: &Named| {
        let own = strides(&part.value.dims);
        let place = |axis: &char| part.axes.iter().position(|x| x == axis);
        let dims: Vec<usize> =
            axes.iter().map(|axis| place(axis).map_or(1, |i| part.value.dims[i])).collect();
        let steps: Vec<isize> = axes.iter().map(|axis| place(axis).map_or(0, |i| own[i])).collect();
        part.value.strided(dims, &steps, 0)
    };
    let product = zip(&seen(a)?, &seen(b)?, |x, y| x * y)?;
    count(&product.dims)?;
    let spare: Vec<usize> = (0..axes.len()).filter(|&i| !kept(&axes[i])).collect();
    let value = super::reduce::over(call, &product, &spare, false, 0.0, |s, x| s + x, |s, _| s)?;
    Ok(Named { value, axes: axes.into_iter().filter(|axis| kept(axis)).collect() })
}
