//! Mistakes of weights.

use emo_proto::TensorProto;
use emo_proto::tensor::{External, Tensor};

use super::{ATTEND, EXPAND, Edit, LOCAL, PROJECT, Subject, rounded};

/// How the elements of a layer's weight lie.
struct Lie {
    rows: usize,
    columns: usize,
    /// Side of its kernels.
    side: usize,
    /// A matrix that rows are multiplied with from the left.
    transposed: bool,
}

impl Lie {
    /// The elements of some rows, each an output channel's.
    fn of(&self, rows: std::ops::Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let Self { rows: all, columns, transposed, .. } = *self;
        let at = move |row, column| if transposed { column * all + row } else { row * columns + column };
        rows.flat_map(move |row| (0..columns).map(move |column| (row, at(row, column))))
    }
}

impl Subject {
    /// The node of a layer; of its first part, of its second, where these lie apart.
    fn parts(&self, block: &str, names: &[&str]) -> Option<Vec<usize>> {
        let layer = &self.layers[self.depth(block, names)? - 1];
        layer.outputs.iter().map(|output| self.writer(output)).collect()
    }

    /// The weight of a layer that is one node, changed in place.
    fn weight(&mut self, block: &str, names: &[&str], change: impl Fn(&mut [f32], &Lie)) -> Edit {
        let [at] = *self.parts(block, names)? else { return None };
        self.weight_of(at, change)
    }

    fn weight_of(&mut self, at: usize, change: impl Fn(&mut [f32], &Lie)) -> Edit {
        let node = &self.nodes()[at];
        let by_rows = node.attribute.iter().any(|a| a.name() == "transB" && a.i() == 1);
        let transposed = node.op_type() != "Conv" && !by_rows;
        let weight = node.input[1].clone();
        let dims: Vec<usize> = self.initializer(&weight)?.dims.iter().map(|&d| d as usize).collect();
        let (rows, columns) = if transposed { (dims[1], dims[0]) } else { (dims[0], dims[1]) };
        let lie = Lie { rows, columns, side: dims.get(2).copied().unwrap_or(1), transposed };
        self.tensor(&weight, |values| change(values, &lie))
    }

    fn tensor(&mut self, name: &str, change: impl Fn(&mut [f32])) -> Edit {
        edit(self.graph().initializer.iter_mut().find(|i| i.name() == name)?, change)
    }
}

fn edit(proto: &mut TensorProto, change: impl Fn(&mut [f32])) -> Edit {
    let tensor = Tensor::decode(proto, &External::none()).ok()?;
    let mut values = tensor.f32s().ok()?;
    change(&mut values);
    let name = proto.name().to_owned();
    *proto = rounded(tensor.dtype, tensor.dims.clone(), &values).encode(&name);
    Some(())
}

/// What q, k and, where it is made with them, v share: the rows of q lie first, those of k behind them.
fn shares(s: &Subject, block: &str) -> usize {
    if s.depth(block, &["attn.qkv"]).is_some() { 3 } else { 2 }
}

/// q's rows and k's have changed places.
pub(super) fn exchanged_qk(s: &mut Subject, block: &str) -> Edit {
    let parts = s.parts(block, ATTEND)?;
    if let [q, k, ..] = parts[..] {
        let (ours, theirs) = (s.nodes()[q].input[1..].to_vec(), s.nodes()[k].input[1..].to_vec());
        s.graph().node[q].input.splice(1.., theirs);
        s.graph().node[k].input.splice(1.., ours);
        return Some(());
    }
    let shares = shares(s, block);
    s.weight(block, ATTEND, |values, lie| {
        let share = lie.rows / shares;
        lie.of(0..share).zip(lie.of(share..2 * share)).for_each(|((_, q), (_, k))| values.swap(q, k));
    })?;
    let bias = s.nodes()[parts[0]].input.get(2)?.clone();
    s.tensor(&bias, |values| {
        let share = values.len() / shares;
        values[..2 * share].rotate_left(share);
    })
}

/// The scores are not scaled, by an operator or by q's weights.
pub(super) fn no_scale(s: &mut Subject, block: &str) -> Edit {
    let depth = s.depth(block, ATTEND)?;
    let is_scale = |n: &emo_proto::NodeProto| {
        let number = n.input.get(1).and_then(|i| s.number(i));
        matches!(n.op_type(), "Mul" | "Div")
            && number.is_some_and(|n| (n - 1.0).abs() > 0.1)
            && !s.is_constant(&n.input[0])
            && s.floats.contains(&n.input[0])
    };
    let softmax = *s.operators(depth, "Softmax").first()?;
    let scales: Vec<usize> =
        (0..softmax).filter(|&i| s.stands_at(depth, &s.nodes()[i]) && is_scale(&s.nodes()[i])).collect();
    if !scales.is_empty() {
        return scales.into_iter().try_for_each(|at| s.bypass(at, 0));
    }
    let (_, definition) = s.model.blocks().into_iter().find(|(name, _)| name == block)?;
    let factor = (definition.mmb.operator.attention?.head_dim as f32).sqrt();
    let parts = s.parts(block, ATTEND)?;
    let shares = if parts.len() > 1 { 1 } else { shares(s, block) };
    s.weight_of(parts[0], |values, lie| {
        lie.of(0..lie.rows / shares).for_each(|(_, at)| values[at] *= factor);
    })?;
    let bias = s.nodes()[parts[0]].input.get(2)?.clone();
    s.tensor(&bias, |values| {
        let share = values.len() / shares;
        values[..share].iter_mut().for_each(|x| *x *= factor);
    })
}

/// No channel is multiplied behind the projection, by an operator or by its weights.
pub(super) fn no_layer_scale(s: &mut Subject, block: &str) -> Edit {
    if let Some(at) = s.named(&format!("{block}.scaled")) {
        return s.bypass(at, 0);
    }
    let ours = s.ours.clone()?;
    let gamma = ours.1.weights.get(&format!("{block}.ls.gamma"))?.f32s().ok()?;
    s.weight(block, PROJECT, |values, lie| {
        lie.of(0..lie.rows).for_each(|(row, at)| values[at] /= gamma[row]);
    })
}

/// The projection's weights are a hundredth too large.
pub(super) fn scaled_weight(s: &mut Subject, block: &str) -> Edit {
    s.weight(block, PROJECT, |values, _| values.iter_mut().for_each(|x| *x *= 1.01))
}

/// The expansion's weights are a hundredth too large.
pub(super) fn scaled_value(s: &mut Subject, block: &str) -> Edit {
    s.weight(block, EXPAND, |values, _| values.iter_mut().for_each(|x| *x *= 1.01))
}

/// The top bit of the mantissa of the projection's largest weight.
pub(super) fn flipped_bit(s: &mut Subject, block: &str) -> Edit {
    s.weight(block, PROJECT, |values, _| {
        let largest = (0..values.len()).max_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs()));
        if let Some(i) = largest {
            values[i] = f32::from_bits(values[i].to_bits() ^ 1 << 22);
        }
    })
}

/// The depthwise kernels' rows are their columns.
pub(super) fn transposed_kernel(s: &mut Subject, block: &str) -> Edit {
    s.weight(block, LOCAL, |values, lie| {
        let side = lie.side;
        for kernel in values.chunks_exact_mut(side * side) {
            for (i, j) in (0..side).flat_map(|i| (0..i).map(move |j| (i, j))) {
                kernel.swap(i * side + j, j * side + i);
            }
        }
    })
}
