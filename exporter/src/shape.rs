//! One shape rule a family, called on every push.

use crate::graph::{Dim, Shape};
use crate::op::Op;

/// The shapes that `op` makes of `inputs`, or what it expected instead.
///
/// [`Op::Reshape`] has no rule here: its result is the caller's, and the builder
/// compares the number of elements.
pub(crate) fn infer(op: &Op, inputs: &[&Shape]) -> Result<Vec<Shape>, String> {
    let one = |shape: Result<Shape, String>| shape.map(|s| vec![s]);
    match op {
        Op::Conv { stride, pad, group } => one(conv(inputs, *stride, *pad, *group)),
        Op::Gemm => one(gemm(inputs)),
        Op::MatMul => one(matmul(inputs)),
        Op::BatchNormalization { .. } => one(per_channel(inputs, 1, 5)),
        Op::LayerNormalization { .. } => {
            let last = inputs.first().map_or(0, |x| x.rank().saturating_sub(1));
            one(per_channel(inputs, last, 3))
        }
        Op::Softmax | Op::Unary(_) => one(operand(inputs, 0).cloned()),
        Op::Binary(_) => one(broadcast(operand(inputs, 0)?, operand(inputs, 1)?)),
        Op::ReduceMean { axes, keep } => one(reduce(operand(inputs, 0)?, axes, *keep)),
        Op::Transpose { perm } => one(transpose(operand(inputs, 0)?, perm)),
        Op::Split { axis, sizes } => split(operand(inputs, 0)?, *axis, sizes),
        Op::Pad { bottom, right } => one(resize(operand(inputs, 0)?, |h, w| Some((h + bottom, w + right)))),
        Op::Crop { height, width } => one(resize(operand(inputs, 0)?, |h, w| {
            (*height <= h && *width <= w).then_some((*height, *width))
        })),
        Op::Reshape => Err("a reshape takes its shape from the caller".to_owned()),
    }
}

fn operand<'a>(inputs: &[&'a Shape], index: usize) -> Result<&'a Shape, String> {
    inputs.get(index).copied().ok_or_else(|| format!("operand {index} is missing"))
}

fn feature_map(shape: &Shape) -> Result<(Dim, usize, usize, usize), String> {
    match shape.map() {
        Some([n, Dim::Fixed(c), Dim::Fixed(h), Dim::Fixed(w)]) => Ok((n, c, h, w)),
        _ => Err(format!("expected a map [N, C, H, W], found {shape}")),
    }
}

fn conv(inputs: &[&Shape], stride: usize, pad: usize, group: usize) -> Result<Shape, String> {
    let (n, c, h, w) = feature_map(operand(inputs, 0)?)?;
    let (Dim::Fixed(m), per_group, kernel, kernel_w) = feature_map(operand(inputs, 1)?)? else {
        return Err("the weight cannot have a free extent".to_owned());
    };
    if group == 0 || stride == 0 || per_group * group != c || !m.is_multiple_of(group) {
        return Err(format!(
            "expected a weight of {c} input channels in {group} groups at stride {stride} > 0, found {}",
            inputs[1]
        ));
    }
    if let Some(bias) = inputs.get(2)
        && **bias != Shape::from([m])
    {
        return Err(format!("expected a bias [{m}], found {bias}"));
    }
    let extent = |side: usize, kernel: usize| {
        (side + 2 * pad)
            .checked_sub(kernel)
            .map(|room| room / stride + 1)
            .ok_or_else(|| format!("a kernel of {kernel} does not fit into {side} with padding {pad}"))
    };
    Ok([n, m.into(), extent(h, kernel)?.into(), extent(w, kernel_w)?.into()].into())
}

fn gemm(inputs: &[&Shape]) -> Result<Shape, String> {
    match (
        operand(inputs, 0)?.0.as_slice(),
        operand(inputs, 1)?.0.as_slice(),
        operand(inputs, 2)?.0.as_slice(),
    ) {
        ([n, k], [m, k_weight], [m_bias]) if k == k_weight && m == m_bias => Ok([*n, *m].into()),
        _ => Err("expected [N, K], [M, K] and [M]".to_owned()),
    }
}

fn matmul(inputs: &[&Shape]) -> Result<Shape, String> {
    let (a, b) = (&operand(inputs, 0)?.0, &operand(inputs, 1)?.0);
    match (a.as_slice(), b.as_slice()) {
        ([batch_a @ .., m, k_a], [batch_b @ .., k_b, n]) if batch_a == batch_b && k_a == k_b => {
            let mut dims = batch_a.to_vec();
            dims.extend([*m, *n]);
            Ok(Shape(dims))
        }
        _ => Err("expected […, M, K] and […, K, N] of equal leading extents".to_owned()),
    }
}

/// A normalisation: `arity` operands, all but the first `[C]` where C is the extent of `axis`.
fn per_channel(inputs: &[&Shape], axis: usize, arity: usize) -> Result<Shape, String> {
    let x = operand(inputs, 0)?;
    let channels = *x.0.get(axis).ok_or_else(|| format!("expected an axis {axis}, found {x}"))?;
    if inputs.len() != arity || inputs[1..].iter().any(|s| s.0 != [channels]) {
        return Err(format!("expected {} operands [{channels}] behind the first", arity - 1));
    }
    Ok(x.clone())
}

fn broadcast(a: &Shape, b: &Shape) -> Result<Shape, String> {
    let rank = a.rank().max(b.rank());
    let at = |s: &Shape, i: usize| (i + s.rank()).checked_sub(rank).map_or(Dim::Fixed(1), |i| s.0[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (Dim::Fixed(1), y) => Ok(y),
            (x, Dim::Fixed(1)) => Ok(x),
            (x, y) => Err(format!("extents {x} and {y} do not broadcast")),
        })
        .collect::<Result<_, _>>()
        .map(Shape)
}

fn reduce(x: &Shape, axes: &[usize], keep: bool) -> Result<Shape, String> {
    if let Some(axis) = axes.iter().find(|&&a| a >= x.rank()) {
        return Err(format!("expected an axis below {}, found {axis}", x.rank()));
    }
    let dims = x.0.iter().enumerate();
    Ok(Shape(match keep {
        true => dims.map(|(i, &d)| if axes.contains(&i) { Dim::Fixed(1) } else { d }).collect(),
        false => dims.filter(|(i, _)| !axes.contains(i)).map(|(_, &d)| d).collect(),
    }))
}

fn transpose(x: &Shape, perm: &[usize]) -> Result<Shape, String> {
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..x.rank()) {
        return Err(format!("expected a permutation of {} axes, found {perm:?}", x.rank()));
    }
    Ok(Shape(perm.iter().map(|&i| x.0[i]).collect()))
}

fn split(x: &Shape, axis: usize, sizes: &[usize]) -> Result<Vec<Shape>, String> {
    if x.0.get(axis) != Some(&Dim::Fixed(sizes.iter().sum())) {
        return Err(format!("expected axis {axis} to hold {sizes:?}, found {x}"));
    }
    let part = |&size: &usize| {
        let mut dims = x.0.clone();
        dims[axis] = Dim::Fixed(size);
        Shape(dims)
    };
    Ok(sizes.iter().map(part).collect())
}

fn resize(x: &Shape, to: impl Fn(usize, usize) -> Option<(usize, usize)>) -> Result<Shape, String> {
    let (n, c, h, w) = feature_map(x)?;
    let (height, width) = to(h, w).ok_or_else(|| format!("the result is larger than {x}"))?;
    Ok([n, c.into(), height.into(), width.into()].into())
}
