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
        Op::Conv { stride, pad, dilation, group } => one(conv(inputs, *stride, *pad, *dilation, *group)),
        Op::Gemm => one(gemm(inputs)),
        Op::MatMul => one(matmul(inputs)),
        Op::BatchNormalization { .. } => one(per_channel(inputs, 1, 5)),
        Op::LayerNormalization { .. } => {
            let last = inputs.first().map_or(0, |x| x.rank().saturating_sub(1));
            one(per_channel(inputs, last, 3))
        }
        Op::Softmax | Op::Unary(_) | Op::Clip | Op::Cast { .. } => one(operand(inputs, 0).cloned()),
        Op::Binary(_) => one(broadcast(operand(inputs, 0)?, operand(inputs, 1)?)),
        Op::ReduceMean { axes, keep } => one(reduce(operand(inputs, 0)?, axes, *keep)),
        Op::Transpose { perm } => one(transpose(operand(inputs, 0)?, perm)),
        Op::Split { axis, sizes } => split(operand(inputs, 0)?, *axis, sizes),
        Op::Concat { axis } => one(concat(inputs, *axis)),
        Op::Pad { before, behind } => one(pad(operand(inputs, 0)?, before, behind)),
        Op::Crop { axes, extents } => one(crop(operand(inputs, 0)?, axes, extents)),
        Op::SpaceToDepth { block } => one(space_to_depth(operand(inputs, 0)?, *block)),
        Op::DepthToSpace { block } => one(depth_to_space(operand(inputs, 0)?, *block)),
        Op::GlobalAveragePool => {
            feature_map(operand(inputs, 0)?)?;
            one(reduce(inputs[0], &[2, 3], true))
        }
        Op::AveragePool { kernel, stride } => one(average_pool(operand(inputs, 0)?, *kernel, *stride)),
        Op::Resize { size, .. } => one(resize(operand(inputs, 0)?, *size)),
        Op::ArgMax { axis } => one(reduce(operand(inputs, 0)?, &[*axis], false)),
        Op::TopK { count } => top(operand(inputs, 0)?, *count),
        Op::Gather => one(gather(operand(inputs, 0)?, operand(inputs, 1)?)),
        Op::Quotient { by } | Op::Remainder { by } => match by {
            0 => Err("expected a divisor above 0".to_owned()),
            _ => one(operand(inputs, 0).cloned()),
        },
        Op::NonMaxSuppression { .. } => one(suppressed(operand(inputs, 0)?, operand(inputs, 1)?)),
        Op::ScatterNd => one(scattered(inputs)),
        Op::ReduceSum => one(line(operand(inputs, 0)?).map(|_| [1].into())),
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

fn conv(
    inputs: &[&Shape],
    stride: usize,
    pad: usize,
    dilation: usize,
    group: usize,
) -> Result<Shape, String> {
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
    if dilation == 0 || kernel == 0 || kernel_w == 0 {
        return Err(format!("expected a kernel whose taps are apart, found a dilation of {dilation}"));
    }
    let extent = |side: usize, kernel: usize| {
        (side + 2 * pad)
            .checked_sub(dilation * (kernel - 1) + 1)
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
        // A matrix on either side of many.
        ([m, k_a], [batch @ .., k_b, n]) | ([batch @ .., m, k_a], [k_b, n]) if k_a == k_b => {
            Ok(Shape(batch.iter().chain([m, n]).copied().collect()))
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

fn concat(inputs: &[&Shape], axis: usize) -> Result<Shape, String> {
    let mut dims = operand(inputs, 0)?.0.clone();
    let mut extent = 0;
    for shape in inputs {
        let Some(&Dim::Fixed(part)) = shape.0.get(axis) else {
            return Err(format!("expected a fixed extent at axis {axis}, found {shape}"));
        };
        let others = |dims: &[Dim]| -> Vec<Dim> {
            dims.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, &d)| d).collect()
        };
        if others(&shape.0) != others(&dims) {
            return Err(format!("expected equal extents off axis {axis}, found {shape}"));
        }
        extent += part;
    }
    dims[axis] = Dim::Fixed(extent);
    Ok(Shape(dims))
}

fn pad(x: &Shape, before: &[usize], behind: &[usize]) -> Result<Shape, String> {
    if [before.len(), behind.len()] != [x.rank(); 2] {
        return Err(format!("expected zeros for {} axes, found {before:?} and {behind:?}", x.rank()));
    }
    let zeros = before.iter().zip(behind).map(|(before, behind)| before + behind);
    let wider = |(&dim, zeros): (&Dim, usize)| match dim {
        Dim::Fixed(n) => Ok(Dim::Fixed(n + zeros)),
        Dim::Batch(_) if zeros == 0 => Ok(dim),
        Dim::Batch(_) => Err("a free extent cannot be padded".to_owned()),
    };
    x.0.iter().zip(zeros).map(wider).collect::<Result<_, _>>().map(Shape)
}

fn crop(x: &Shape, axes: &[usize], extents: &[usize]) -> Result<Shape, String> {
    let mut dims = x.0.clone();
    for (&axis, &extent) in axes.iter().zip(extents) {
        match dims.get_mut(axis) {
            Some(dim @ &mut Dim::Fixed(n)) if extent <= n => *dim = Dim::Fixed(extent),
            _ => return Err(format!("expected {extent} elements at least at axis {axis}, found {x}")),
        }
    }
    Ok(Shape(dims))
}

fn average_pool(x: &Shape, kernel: [usize; 2], stride: [usize; 2]) -> Result<Shape, String> {
    let (n, c, h, w) = feature_map(x)?;
    let extent = |side: usize, axis: usize| match side.checked_sub(kernel[axis]) {
        Some(room) if kernel[axis] > 0 && stride[axis] > 0 => Ok((room / stride[axis] + 1).into()),
        _ => Err(format!("expected windows of {kernel:?} each {stride:?} in the map, found {x}")),
    };
    Ok([n, c.into(), extent(h, 0)?, extent(w, 1)?].into())
}

fn resize(x: &Shape, [height, width]: [usize; 2]) -> Result<Shape, String> {
    let (n, c, h, w) = feature_map(x)?;
    if height == 0 || width == 0 || (h, w) == (height, width) {
        return Err(format!("expected other sides than {height}x{width}, found {x}"));
    }
    Ok([n, c.into(), height.into(), width.into()].into())
}

fn line(x: &Shape) -> Result<usize, String> {
    match x.0.as_slice() {
        [Dim::Fixed(n)] => Ok(*n),
        _ => Err(format!("expected a line, found {x}")),
    }
}

fn top(x: &Shape, count: usize) -> Result<Vec<Shape>, String> {
    match line(x)? {
        n if (1..=n).contains(&count) => Ok(vec![[count].into(); 2]),
        n => Err(format!("expected 1 to {n} elements, found {count}")),
    }
}

fn gather(x: &Shape, places: &Shape) -> Result<Shape, String> {
    match x.0.split_first() {
        Some((_, row)) => Ok(Shape(places.0.iter().chain(row).copied().collect())),
        None => Err(format!("expected rows, found {x}")),
    }
}

fn suppressed(boxes: &Shape, scores: &Shape) -> Result<Shape, String> {
    match (boxes.0.as_slice(), scores.0.as_slice()) {
        ([Dim::Fixed(1), k, Dim::Fixed(4)], [Dim::Fixed(1), _, k_scores]) if k == k_scores => {
            Ok([Dim::Batch(1), 3.into()].into())
        }
        _ => Err("expected boxes [1, K, 4] and scores [1, C, K]".to_owned()),
    }
}

fn scattered(inputs: &[&Shape]) -> Result<Shape, String> {
    let (x, places, elements) = (operand(inputs, 0)?, operand(inputs, 1)?, operand(inputs, 2)?);
    match (x.0.as_slice(), places.0.as_slice(), elements.0.as_slice()) {
        ([_], [s, Dim::Fixed(1)], [s_elements]) if s == s_elements => Ok(x.clone()),
        _ => Err("expected a line, places [S, 1] and elements [S]".to_owned()),
    }
}

fn space_to_depth(x: &Shape, block: usize) -> Result<Shape, String> {
    let (n, c, h, w) = feature_map(x)?;
    if block == 0 || !h.is_multiple_of(block) || !w.is_multiple_of(block) {
        return Err(format!("expected sides that divide by {block}, found {x}"));
    }
    Ok([n, (c * block * block).into(), (h / block).into(), (w / block).into()].into())
}

fn depth_to_space(x: &Shape, block: usize) -> Result<Shape, String> {
    let (n, c, h, w) = feature_map(x)?;
    if block == 0 || !c.is_multiple_of(block * block) {
        return Err(format!("expected channels that divide by {block}², found {x}"));
    }
    Ok([n, (c / (block * block)).into(), (h * block).into(), (w * block).into()].into())
}
