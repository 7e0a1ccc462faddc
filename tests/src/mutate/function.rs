//! Mistakes of what is computed: norms, activations, shortcuts, the head.

use emo_proto::NodeProto;

use super::{EXPAND, Edit, LOCAL, PROJECT, Subject};
use crate::onnx::{float, int, ints, node, text};

/// A norm's ε is PyTorch's default.
pub(super) fn epsilon(s: &mut Subject, block: &str) -> Edit {
    const EPSILON: f32 = 1e-5;
    // The stem's norm stands behind its first convolution.
    let depth = match block {
        "stage0.0" => 1,
        "stage0.1" => return None,
        _ => s.before(block)?,
    };
    let norm = s.find(depth, |_, n| matches!(n.op_type(), "BatchNormalization" | "LayerNormalization"));
    if let Some(at) = norm {
        return set_epsilon(s, at, EPSILON);
    }
    let small = |s: &Subject, value: &String| s.number(value).is_some_and(|n| n > 0.0 && n < 1e-4);
    let at = s.find(depth, |s, n| n.op_type() == "Add" && n.input.iter().any(|i| small(s, i)))?;
    let operand = s.nodes()[at].input.iter().position(|i| small(s, i))?;
    let epsilon = s.constant(&[], &[EPSILON]);
    s.graph().node[at].input[operand] = epsilon;
    Some(())
}

fn set_epsilon(s: &mut Subject, at: usize, epsilon: f32) -> Edit {
    let node = &mut s.graph().node[at];
    node.attribute.retain(|a| a.name() != "epsilon");
    node.attribute.push(float("epsilon", epsilon));
    Some(())
}

/// The ε of the norm behind the depthwise convolution is PyTorch's default.
pub(super) fn local_epsilon(s: &mut Subject, block: &str) -> Edit {
    let at = s.operator(s.depth(block, LOCAL)?, "BatchNormalization")?;
    set_epsilon(s, at, 1e-5)
}

/// The ε of the norm behind `MobileNetV2`'s depthwise convolution is TensorFlow's.
pub(super) fn tensorflow_epsilon(s: &mut Subject, block: &str) -> Edit {
    let at = s.operator(s.depth(block, &["conv_dw"])?, "BatchNormalization")?;
    set_epsilon(s, at, 1e-3)
}

/// The ε of the norm before a Transformer's feed-forward is TensorFlow's.
pub(super) fn feed_forward_epsilon(s: &mut Subject, block: &str) -> Edit {
    let at = s.named(&format!("{block}.norm2"))?;
    set_epsilon(s, at, 1e-3)
}

/// GELU by its tanh approximation.
pub(super) fn tanh_gelu(s: &mut Subject, block: &str) -> Edit {
    let depth = s.depth(block, EXPAND)?;
    if let Some(at) = s.operator(depth, "Gelu") {
        let attributes = &mut s.graph().node[at].attribute;
        attributes.retain(|a| a.name() != "approximate");
        attributes.push(text("approximate", "tanh"));
        return Some(());
    }
    // erf(u) ≈ tanh(2/√π · (u + 0.08943·u³)), where u = x/√2.
    let at = s.operator(depth, "Erf")?;
    let NodeProto { input, output, .. } = s.nodes()[at].clone();
    let (linear, cubic) = (s.constant(&[], &[std::f32::consts::FRAC_2_SQRT_PI]), s.constant(&[], &[0.08943]));
    let square = s.insert(at, "Mul", &[&input[0], &input[0]]);
    let cubed = s.insert(at + 1, "Mul", &[&square, &input[0]]);
    let cubed = s.insert(at + 2, "Mul", &[&cubed, &cubic]);
    let sum = s.insert(at + 3, "Add", &[&input[0], &cubed]);
    let sum = s.insert(at + 4, "Mul", &[&sum, &linear]);
    s.graph().node[at + 5] = node("Tanh", &[&sum], &[&output[0]], Vec::new());
    Some(())
}

/// GELU as x·σ(1.702·x).
pub(super) fn sigmoid_gelu(s: &mut Subject, block: &str) -> Edit {
    let depth = s.depth(block, EXPAND)?;
    let slope = s.constant(&[], &[1.702 * std::f32::consts::SQRT_2]);
    // erf(u) ≈ 2·σ(1.702·x) − 1, where u = x/√2.
    let at = s.operator(depth, "Erf")?;
    let (two, one) = (s.constant(&[], &[2.0]), s.constant(&[], &[1.0]));
    let NodeProto { input, output, .. } = s.nodes()[at].clone();
    let steep = s.insert(at, "Mul", &[&input[0], &slope]);
    let sigmoid = s.insert(at + 1, "Sigmoid", &[&steep]);
    let double = s.insert(at + 2, "Mul", &[&sigmoid, &two]);
    s.graph().node[at + 3] = node("Sub", &[&double, &one], &[&output[0]], Vec::new());
    Some(())
}

/// ReLU for ReLU6, everywhere in the block.
pub(super) fn relu(s: &mut Subject, block: &str) -> Edit {
    unbound(s, block, |n| *n = node("Relu", &[&n.input[0]], &[&n.output[0]], Vec::new()))
}

/// The same as some tools write it: a Clip without an upper bound.
pub(super) fn half_open_clip(s: &mut Subject, block: &str) -> Edit {
    unbound(s, block, |n| n.input.truncate(2))
}

fn unbound(s: &mut Subject, block: &str, edit: fn(&mut NodeProto)) -> Edit {
    let inside = |n: &&mut NodeProto| n.op_type() == "Clip" && n.name().starts_with(&format!("{block}."));
    let bounded: Vec<&mut NodeProto> = s.graph().node.iter_mut().filter(inside).collect();
    let found = !bounded.is_empty();
    bounded.into_iter().for_each(edit);
    found.then_some(())
}

/// Tokens are not told where they are.
pub(super) fn no_position(s: &mut Subject, _: &str) -> Edit {
    let at = s.named("embed.places")?;
    s.bypass(at, 0)
}

/// The classifier reads the mean over the tokens from `first` on.
fn mean_from(s: &mut Subject, first: i64) -> Edit {
    let at = s.named("head.class")?;
    let NodeProto { input, output, .. } = s.nodes()[at].clone();
    let ends = [vec![first], vec![i64::MAX], vec![2]].map(|list| s.integers(&list));
    let tokens = s.insert(at, "Slice", &[&input[0], &ends[0], &ends[1], &ends[2]]);
    // As opset 17 writes it: the axes are an attribute.
    let mean = vec![ints("axes", &[2]), int("keepdims", 1)];
    s.graph().node[at + 1] = node("ReduceMean", &[&tokens], &[&output[0]], mean);
    Some(())
}

pub(super) fn mean_of_patches(s: &mut Subject, _: &str) -> Edit {
    mean_from(s, 1)
}

pub(super) fn mean_of_tokens(s: &mut Subject, _: &str) -> Edit {
    mean_from(s, 0)
}

/// The skip around the depthwise convolution is missing.
pub(super) fn no_skip(s: &mut Subject, block: &str) -> Edit {
    let (at, own) = s.sum(s.depth(block, LOCAL)?)?;
    s.bypass(at, own)
}

/// The block's shortcut is missing.
pub(super) fn no_shortcut(s: &mut Subject, block: &str) -> Edit {
    let (at, own) = s.sum(s.depth(block, PROJECT)?)?;
    s.bypass(at, own)
}

/// The shortcut around a Transformer's attention is missing.
pub(super) fn no_attention_shortcut(s: &mut Subject, block: &str) -> Edit {
    let (at, own) = s.sum(s.depth(block, &["attn.proj"])?)?;
    s.bypass(at, own)
}

/// The activation behind the value projection is missing.
pub(super) fn no_value_activation(s: &mut Subject, block: &str) -> Edit {
    let depth = s.depth(block, EXPAND)?;
    if let Some(at) = s.operator(depth, "Gelu") {
        return s.bypass(at, 0);
    }
    // ½·x·(1 + 1) is x, and so is x·1.
    let at = s.operator(depth, "Erf").or_else(|| s.operator(depth, "Sigmoid"))?;
    s.ones(at)
}

/// The SiLU behind the depthwise convolution is missing.
pub(super) fn no_local_activation(s: &mut Subject, block: &str) -> Edit {
    let at = s.operator(s.depth(block, LOCAL)?, "Sigmoid")?;
    s.ones(at)
}

/// The squeeze-excite is missing.
pub(super) fn no_gate(s: &mut Subject, block: &str) -> Edit {
    let at = s.operator(s.depth(block, &["se.conv_expand"])?, "Sigmoid")?;
    s.ones(at)
}
