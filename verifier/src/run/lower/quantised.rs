//! Operators on integers with a scale, as dequantised operands, the float operator, and a result quantised again:
//! how each is defined. Sources: ONNX's `Operators.md`, ONNX Runtime's `docs/ContribOperators.md`.

use emo_proto::{AttributeProto, NodeProto};

use super::{Writer, attributes, float, int, integer, operand};

const CONV: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];

/// Reads operands `at` (numbers), `at + 1` (scale) and `at + 2` (zero point).
fn dequantised(w: &mut Writer, node: &NodeProto, at: usize, axis: Option<i64>) -> Option<String> {
    let given: Vec<&str> = (at..at + 3).map_while(|i| operand(node, i)).collect();
    let with = axis.map(|axis| int("axis", axis)).into_iter().collect();
    (given.len() >= 2).then(|| w.node(node, "DequantizeLinear", &given, with))
}

/// Quantises `y` by operands `at` (scale) and `at + 1` (zero point) into the node's output.
fn quantise(w: &mut Writer, node: &NodeProto, y: &str, at: usize) -> Option<()> {
    let mut given = vec![y, operand(node, at)?];
    given.extend(operand(node, at + 1));
    w.write(node, "QuantizeLinear", &given, node.output.first()?, Vec::new());
    Some(())
}

/// A bias of 32 bits, whose scale is the product of the operands'.
fn bias(w: &mut Writer, node: &NodeProto, at: usize, scales: [usize; 2]) -> Option<Option<String>> {
    let Some(bias) = operand(node, at) else { return Some(None) };
    let scale = w.node(node, "Mul", &[operand(node, scales[0])?, operand(node, scales[1])?], Vec::new());
    Some(Some(w.node(node, "DequantizeLinear", &[bias, &scale], vec![int("axis", 0)])))
}

/// x, its scale and zero point, w, its, y's, b.
pub fn conv(w: &mut Writer, node: &NodeProto) -> Option<()> {
    let (x, weight) = (dequantised(w, node, 0, None)?, dequantised(w, node, 3, Some(0))?);
    let bias = bias(w, node, 8, [1, 4])?;
    let given: Vec<&str> = [x.as_str(), &weight].into_iter().chain(bias.as_deref()).collect();
    let y = w.node(node, "Conv", &given, attributes(node, CONV));
    quantise(w, node, &y, 6)
}

/// a, its scale and zero point, b, its, y's. Scales a column stand along b's last axis.
pub fn matmul(w: &mut Writer, node: &NodeProto) -> Option<()> {
    let (a, b) = (dequantised(w, node, 0, None)?, dequantised(w, node, 3, Some(-1))?);
    let y = w.node(node, "MatMul", &[&a, &b], Vec::new());
    quantise(w, node, &y, 6)
}

/// a, its scale and zero point, b, its, c, y's; without y's the result stays a float.
pub fn gemm(w: &mut Writer, node: &NodeProto) -> Option<()> {
    if float(node, "alpha", 1.0) != 1.0 {
        return None;
    }
    let columns = if integer(node, "transB", 0) != 0 { 0 } else { 1 };
    let (a, b) = (dequantised(w, node, 0, None)?, dequantised(w, node, 3, Some(columns))?);
    let c = bias(w, node, 6, [1, 4])?;
    let given: Vec<&str> = [a.as_str(), &b].into_iter().chain(c.as_deref()).collect();
    let with = attributes(node, &["transA", "transB"]);
    if operand(node, 7).is_none() {
        w.write(node, "Gemm", &given, node.output.first()?, with);
        return Some(());
    }
    let y = w.node(node, "Gemm", &given, with);
    quantise(w, node, &y, 7)
}

/// a, its scale and zero point, b, its, y's.
pub fn binary(w: &mut Writer, node: &NodeProto) -> Option<()> {
    let operator = node.op_type().strip_prefix("QLinear")?;
    let (a, b) = (dequantised(w, node, 0, None)?, dequantised(w, node, 3, None)?);
    let y = w.node(node, operator, &[&a, &b], Vec::new());
    quantise(w, node, &y, 6)
}

/// x, its scale and zero point, y's.
pub fn unary(w: &mut Writer, node: &NodeProto) -> Option<()> {
    if integer(node, "channels_last", 0) != 0 {
        return None;
    }
    let operator = node.op_type().strip_prefix("QLinear")?;
    let x = dequantised(w, node, 0, None)?;
    let own = |a: &&AttributeProto| !matches!(a.name(), "opset" | "channels_last");
    let with = node.attribute.iter().filter(own).cloned().collect();
    let y = w.node(node, operator, &[&x], with);
    quantise(w, node, &y, 3)
}

/// y's scale and zero point, then for each part its numbers, scale and zero point.
pub fn concat(w: &mut Writer, node: &NodeProto) -> Option<()> {
    let mut parts = Vec::new();
    for at in (2..node.input.len()).step_by(3) {
        parts.push(dequantised(w, node, at, None)?);
    }
    let given: Vec<&str> = parts.iter().map(String::as_str).collect();
    let y = w.node(node, "Concat", &given, attributes(node, &["axis"]));
    quantise(w, node, &y, 0)
}

/// A product of integers that a Cast makes floats and a Mul by the product of both scales real: what ONNX Runtime's
/// dynamic quantiser writes. The three are the product of the dequantised operands.
fn scaled_product(w: &Writer, node: &NodeProto) -> Option<Scaled> {
    let (cast_at, cast) = w.sole_reader(node.output.first()?)?;
    let (scaled_at, scaled) = w.sole_reader(cast.output.first()?)?;
    if cast.op_type() != "Cast" || scaled.op_type() != "Mul" {
        return None;
    }
    let scales = scaled.input.iter().find(|name| *name != &cast.output[0])?;
    let product = w.writer(scales).filter(|n| n.op_type() == "Mul")?;
    // The first factor's scale is the one that was computed with it.
    let quantiser = w.writer(operand(node, 0)?).filter(|n| n.op_type() == "DynamicQuantizeLinear")?;
    let own = quantiser.output.get(1)?;
    let other = product.input.iter().find(|name| *name != own)?;
    product.input.contains(own).then_some(())?;
    let output = scaled.output.first()?.clone();
    Some(Scaled { scales: [own.clone(), other.clone()], parts: [cast_at, scaled_at], output })
}

/// What follows a product of integers.
struct Scaled {
    /// Of the first and the second factor.
    scales: [String; 2],
    /// The Cast and the Mul, by index.
    parts: [usize; 2],
    output: String,
}

/// ConvInteger and MatMulInteger.
pub fn integer_product(w: &mut Writer, node: &NodeProto) -> Option<()> {
    let Scaled { scales: [own, other], parts, output } = scaled_product(w, node)?;
    let mut pair = |values: usize, scale: &str, axis: i64| {
        let mut given = vec![operand(node, values)?, scale];
        given.extend(operand(node, values + 2));
        Some(w.node(node, "DequantizeLinear", &given, vec![int("axis", axis)]))
    };
    let is_conv = node.op_type() == "ConvInteger";
    let a = pair(0, &own, 1)?;
    let b = pair(1, &other, if is_conv { 0 } else { -1 })?;
    let (operator, with) = if is_conv { ("Conv", attributes(node, CONV)) } else { ("MatMul", Vec::new()) };
    w.write(node, operator, &[&a, &b], &output, with);
    w.gone.extend(parts);
    Some(())
}

/// a float matrix, b's numbers, scale and zero point, a bias.
pub fn dynamic_matmul(w: &mut Writer, node: &NodeProto) -> Option<()> {
    let names: [String; 3] = std::array::from_fn(|_| w.value());
    w.nodes.push(NodeProto {
        name: Some(node.name().to_owned()),
        op_type: Some("DynamicQuantizeLinear".into()),
        input: vec![operand(node, 0)?.to_owned()],
        output: names.to_vec(),
        ..NodeProto::default()
    });
    let a = w.node(node, "DequantizeLinear", &[&names[0], &names[1], &names[2]], Vec::new());
    let b = dequantised(w, node, 1, Some(-1))?;
    biased_product(w, node, [&a, &b], operand(node, 4))
}

/// a and b, their scales, their zero points, a bias.
pub fn matmul_to_float(w: &mut Writer, node: &NodeProto) -> Option<()> {
    let mut factor = |at: usize| {
        let mut given = vec![operand(node, at)?, operand(node, at + 2)?];
        given.extend(operand(node, at + 4));
        Some(w.node(node, "DequantizeLinear", &given, vec![int("axis", -1)]))
    };
    let (a, b) = (factor(0)?, factor(1)?);
    biased_product(w, node, [&a, &b], operand(node, 6))
}

fn biased_product(w: &mut Writer, node: &NodeProto, factors: [&str; 2], bias: Option<&str>) -> Option<()> {
    let output = node.output.first()?;
    match bias {
        Some(bias) => {
            let product = w.node(node, "MatMul", &factors, Vec::new());
            w.write(node, "Add", &[&product, bias], output, Vec::new());
        }
        None => w.write(node, "MatMul", &factors, output, Vec::new()),
    }
    Some(())
}
