//! What ONNX Runtime's optimiser fuses. Source: its `docs/ContribOperators.md`.

use emo_proto::{AttributeProto, NodeProto};

use super::{Writer, attributes, float, integer, ints, operand};

const CONV: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];

/// `activation(Conv(x, w, b) + z)`
pub fn conv(w: &mut Writer, node: &NodeProto) -> Option<()> {
    let given: Vec<&str> = (0..3).map_while(|i| operand(node, i)).collect();
    let mut y = w.node(node, "Conv", &given, attributes(node, CONV));
    if let Some(z) = operand(node, 3) {
        y = w.node(node, "Add", &[&y, z], Vec::new());
    }
    activate(w, node, y)
}

/// `activation(Gemm(a, b, c))`
pub fn gemm(w: &mut Writer, node: &NodeProto) -> Option<()> {
    let given: Vec<&str> = (0..3).map_while(|i| operand(node, i)).collect();
    let y = w.node(node, "Gemm", &given, attributes(node, &["alpha", "beta", "transA", "transB"]));
    activate(w, node, y)
}

/// The activation that a node ends with, without parameters of its own.
fn activate(w: &mut Writer, node: &NodeProto, y: String) -> Option<()> {
    let activation = node.attribute.iter().find(|a| a.name() == "activation").map(AttributeProto::s);
    let operator = match activation {
        None | Some(b"") => "Identity",
        Some(b"Relu") => "Relu",
        Some(b"Sigmoid") => "Sigmoid",
        Some(b"Tanh") => "Tanh",
        Some(_) => return None,
    };
    w.write(node, operator, &[&y], node.output.first()?, Vec::new());
    Some(())
}

/// `alpha · A' · B'`, each factor with its batch axis behind the others (`transBatch`), then its last two axes
/// exchanged (`trans`), where it says so.
pub fn matmul(w: &mut Writer, node: &NodeProto) -> Option<()> {
    let factor = |w: &mut Writer, index: usize, trans: &str, batch: &str| {
        let name = operand(node, index)?.to_owned();
        let (trans, batch) = (integer(node, trans, 0) != 0, integer(node, batch, 0) != 0);
        if !trans && !batch {
            return Some(name);
        }
        let rank = *w.ranks.get(name.as_str()).filter(|&&rank| rank >= 2)?;
        let mut axes: Vec<usize> = (0..rank).collect();
        if batch {
            axes[..rank - 1].rotate_left(1);
        }
        if trans {
            axes.swap(rank - 2, rank - 1);
        }
        Some(w.node(node, "Transpose", &[&name], vec![ints("perm", &axes)]))
    };
    let a = factor(w, 0, "transA", "transBatchA")?;
    let b = factor(w, 1, "transB", "transBatchB")?;
    let (alpha, output) = (float(node, "alpha", 1.0), node.output.first()?);
    if alpha == 1.0 {
        w.write(node, "MatMul", &[&a, &b], output, Vec::new());
    } else {
        let product = w.node(node, "MatMul", &[&a, &b], Vec::new());
        let alpha = w.number(alpha)?;
        w.write(node, "Mul", &[&product, &alpha], output, Vec::new());
    }
    Some(())
}
