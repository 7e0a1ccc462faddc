//! The border to ONNX: a graph and weights become bytes. The only file that names its messages.

use std::collections::HashSet;

use emo_proto::attribute_proto::AttributeType;
use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::tensor_shape_proto::{Dimension, dimension};
use emo_proto::{
    AttributeProto, Error, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, Result,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use half::f16;
use prost::Message;

use crate::graph::{Dim, Graph, Node, Shape, Source, Value, ValueInfo};
use crate::op::{Op, Resize};
use crate::pass::half::LARGEST;
use crate::profile::{Opset, Resizing};
use crate::weights::Weights;

/// The version that is stamped into files.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The ONNX file of `graph`: the same bytes for the same weights on any machine.
///
/// `properties` become the file's metadata, in their order.
///
/// # Errors
/// A state-dict entry that the graph reads is missing, or cannot be folded.
pub fn encode(
    graph: &Graph,
    opset: &Opset,
    properties: &[(&str, String)],
    weights: &Weights,
) -> Result<Vec<u8>> {
    Ok(message(graph, opset, properties, |value| initializer(value, weights))?.encode_to_vec())
}

/// A file without the elements of its weights.
#[derive(Debug)]
pub struct Outline {
    /// Where weights stand, zeros do, which no memory is written for.
    pub model: ModelProto,
    /// Those of the file that has them.
    pub bytes: usize,
}

/// What [`encode`] would write, but for the elements of the weights.
///
/// # Errors
/// A number that is no weight does not fit its type.
pub fn outline(graph: &Graph, opset: &Opset, properties: &[(&str, String)]) -> Result<Outline> {
    let zeros = |value: &ValueInfo| {
        if matches!(value.constant, Some(Source::Numbers(_)) | None) {
            return Ok(None);
        }
        let width = if value.dtype == DataType::Float16 { size_of::<f16>() } else { size_of::<f32>() };
        let elements: usize = dims(value).iter().product();
        let tensor = Tensor::new(value.dtype, dims(value), vec![0; width * elements].into());
        tensor.map(|tensor| Some(tensor.encode(&value.name)))
    };
    let model = message(graph, opset, properties, zeros)?;
    Ok(Outline { bytes: model.encoded_len(), model })
}

/// The model as a message; `initializer` gives the constants that have one.
fn message(
    graph: &Graph,
    opset: &Opset,
    properties: &[(&str, String)],
    initializer: impl Fn(&ValueInfo) -> Result<Option<TensorProto>>,
) -> Result<ModelProto> {
    let mut nodes = Nodes { opset, graph, emitted: HashSet::new(), nodes: Vec::new() };
    graph.nodes.iter().try_for_each(|node| nodes.push(node))?;
    let nodes = nodes.nodes;
    let constants = graph.constants().into_iter().map(|v| graph.value(v));
    let initializer = constants.filter_map(|v| initializer(v).transpose()).collect::<Result<_>>()?;
    Ok(ModelProto {
        ir_version: Some(opset.ir_version),
        producer_name: Some("emo".to_owned()),
        producer_version: Some(VERSION.to_owned()),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset.version) }],
        metadata_props: properties.iter().map(property).collect(),
        graph: Some(GraphProto {
            name: Some(graph.name.clone()),
            node: nodes,
            initializer,
            input: graph.inputs.iter().map(|&v| value_info(graph.value(v))).collect(),
            output: graph.outputs.iter().map(|&v| value_info(graph.value(v))).collect(),
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    })
}

fn property((key, value): &(&str, String)) -> StringStringEntryProto {
    StringStringEntryProto { key: Some((*key).to_owned()), value: Some(value.clone()) }
}

/// Numbers that are no parameters are written as a node and have no initializer.
fn initializer(value: &ValueInfo, weights: &Weights) -> Result<Option<TensorProto>> {
    let elements = match &value.constant {
        Some(Source::Parameter) => {
            let tensor = weights.require(&value.name)?;
            if (value.dtype, dims(value)) == (DataType::Float, tensor.dims.clone()) {
                return Ok(Some(tensor.encode(&value.name)));
            }
            tensor.f32s()
        }
        Some(Source::FoldedWeight(conv)) => conv.weight(weights),
        Some(Source::FoldedBias(conv)) => conv.bias(weights),
        Some(Source::Numbers(_)) | None => return Ok(None),
    };
    let tensor = tensor(value, elements?).map_err(|e| e.at(&value.name))?;
    Ok(Some(tensor.encode(&value.name)))
}

fn dims(value: &ValueInfo) -> Vec<usize> {
    value.shape.0.iter().map(|d| d.at_batch_one()).collect()
}

/// The elements in the value's shape and type.
fn tensor(value: &ValueInfo, elements: Vec<f32>) -> Result<Tensor> {
    if value.dtype != DataType::Float16 {
        return Tensor::from_f32(dims(value), elements);
    }
    let halves = elements.into_iter().map(f16::from_f32);
    if let Some((index, _)) = halves.clone().enumerate().find(|(_, half)| !half.is_finite()) {
        let why = format!("element {index} is beyond float16's {LARGEST}; float32 holds it");
        return Err(Error::new(why));
    }
    let bytes: Vec<u8> = halves.flat_map(f16::to_le_bytes).collect();
    Tensor::new(DataType::Float16, dims(value), bytes.into())
}

fn value_info(value: &ValueInfo) -> ValueInfoProto {
    let dim = |&dim: &Dim| Dimension {
        value: Some(match dim {
            Dim::Fixed(n) => dimension::Value::DimValue(n as i64),
            Dim::Batch(_) => dimension::Value::DimParam(dim.to_string()),
        }),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(value.dtype as i32),
        shape: Some(TensorShapeProto { dim: value.shape.0.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: Some(value.name.clone()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// Nodes as ONNX has them, each constant operand before its first reader.
struct Nodes<'a> {
    opset: &'a Opset,
    graph: &'a Graph,
    /// Names of the `Constant` nodes so far.
    emitted: HashSet<String>,
    nodes: Vec<NodeProto>,
}

impl Nodes<'_> {
    fn push(&mut self, node: &Node) -> Result<()> {
        let mut inputs = Vec::with_capacity(node.inputs.len() + 3);
        for &operand in &node.inputs {
            inputs.push(self.operand(operand)?);
        }
        let (attributes, operands) = self.spell(node);
        for operand in operands {
            inputs.push(match operand {
                Operand::Integers(values) => self.integers(&values)?,
                Operand::Numbers(values) => self.numbers(&values)?,
                Operand::Absent => String::new(),
            });
        }
        self.nodes.push(NodeProto {
            name: Some(node.name.clone()),
            op_type: Some(node.op.onnx_name().into()),
            input: inputs,
            output: node.outputs.iter().map(|&v| self.graph.value(v).name.clone()).collect(),
            attribute: attributes,
            ..NodeProto::default()
        });
        Ok(())
    }

    fn operand(&mut self, value: Value) -> Result<String> {
        let info = self.graph.value(value);
        if let Some(Source::Numbers(numbers)) = &info.constant {
            self.constant(&info.name, &tensor(info, numbers.clone())?);
        }
        Ok(info.name.clone())
    }

    fn integers(&mut self, values: &[i64]) -> Result<String> {
        let digits: Vec<String> = values.iter().map(ToString::to_string).collect();
        let name = format!("integers.{}", digits.join("x"));
        self.constant(&name, &Tensor::from_i64(vec![values.len()], values)?);
        Ok(name)
    }

    fn numbers(&mut self, values: &[f32]) -> Result<String> {
        let digits: Vec<String> = values.iter().map(ToString::to_string).collect();
        let name = format!("numbers.{}", digits.join("x"));
        self.constant(&name, &Tensor::from_f32(vec![values.len()], values.to_vec())?);
        Ok(name)
    }

    fn constant(&mut self, name: &str, tensor: &Tensor) {
        if self.emitted.insert(name.to_owned()) {
            self.nodes.push(NodeProto {
                name: Some(name.to_owned()),
                op_type: Some("Constant".into()),
                output: vec![name.to_owned()],
                attribute: vec![AttributeProto {
                    t: Some(tensor.encode("").into()),
                    ..attribute("value", AttributeType::Tensor)
                }],
                ..NodeProto::default()
            });
        }
    }

    /// No size can name a free batch.
    fn resize(&self, node: &Node, mode: Resize, resizing: Resizing) -> (Vec<AttributeProto>, Vec<Operand>) {
        let extents = |value: Value| self.graph.shape(value).0.clone();
        let (from, to) = (extents(node.inputs[0]), extents(node.outputs[0]));
        let fixed = to.iter().all(|d| matches!(d, Dim::Fixed(_)));
        let numbers = |dims: &[Dim]| dims.iter().map(|d| d.at_batch_one()).collect::<Vec<_>>();
        let (from, to) = (numbers(&from), numbers(&to));
        let whole = from.iter().zip(&to).all(|(from, to)| to.is_multiple_of(*from));
        let attributes = match mode {
            Resize::Nearest => vec![
                text("coordinate_transformation_mode", "asymmetric"),
                text("mode", "nearest"),
                text("nearest_mode", "floor"),
            ],
            Resize::Linear => {
                vec![text("coordinate_transformation_mode", "half_pixel"), text("mode", "linear")]
            }
        };
        let grows = from.iter().zip(&to).all(|(from, to)| to >= from);
        let nothing = || match resizing {
            Resizing::LeftOut | Resizing::Logits { .. } | Resizing::Products { .. } => Operand::Absent,
            Resizing::Empty | Resizing::Scales => Operand::Numbers(Vec::new()),
        };
        let operands = if whole || !fixed || (resizing == Resizing::Scales && grows) {
            let scales = from.iter().zip(&to).map(|(&from, &to)| scale(from, to));
            vec![nothing(), Operand::Numbers(scales.collect())]
        } else {
            let scales = if resizing == Resizing::Scales { Operand::Absent } else { nothing() };
            vec![nothing(), scales, Operand::Integers(integers(&to))]
        };
        (attributes, operands)
    }

    /// The attributes of a node and the operands behind its values.
    fn spell(&self, node: &Node) -> (Vec<AttributeProto>, Vec<Operand>) {
        let one = |values: Vec<i64>| vec![Operand::Integers(values)];
        match &node.op {
            Op::Conv { stride, pad, dilation, group } => {
                let kernel = &self.graph.shape(node.inputs[1]).0[2..];
                let attributes = vec![
                    ints("dilations", [*dilation; 2]),
                    int("group", *group),
                    ints("kernel_shape", kernel.iter().map(|d| d.at_batch_one())),
                    ints("pads", [*pad; 4]),
                    ints("strides", [*stride; 2]),
                ];
                (attributes, Vec::new())
            }
            Op::Gemm => (vec![int("transB", 1)], Vec::new()),
            Op::BatchNormalization { epsilon } => (vec![float("epsilon", *epsilon)], Vec::new()),
            Op::LayerNormalization { epsilon } => {
                (vec![int_signed("axis", -1), float("epsilon", *epsilon)], Vec::new())
            }
            Op::Softmax => (vec![int_signed("axis", -1)], Vec::new()),
            Op::MatMul | Op::Unary(_) | Op::Clip | Op::Binary(_) => (Vec::new(), Vec::new()),
            Op::ReduceMean { axes, keep } => {
                let keep = int("keepdims", usize::from(*keep));
                if self.opset.reduce_axes_operand {
                    (vec![keep], one(integers(axes)))
                } else {
                    (vec![ints("axes", axes.iter().copied()), keep], Vec::new())
                }
            }
            Op::Reshape => (Vec::new(), one(target(self.graph.shape(node.outputs[0])))),
            Op::Transpose { perm } => (vec![ints("perm", perm.iter().copied())], Vec::new()),
            Op::Split { axis, sizes } => (vec![int("axis", *axis)], one(integers(sizes))),
            Op::Concat { axis } => (vec![int("axis", *axis)], Vec::new()),
            Op::Pad { before, behind } => (Vec::new(), one([integers(before), integers(behind)].concat())),
            Op::Crop { axes, extents } => {
                let operands = [vec![0; axes.len()], integers(extents), integers(axes)];
                (Vec::new(), operands.map(Operand::Integers).into())
            }
            Op::SpaceToDepth { block } => (vec![int("blocksize", *block)], Vec::new()),
            Op::DepthToSpace { block } => (vec![int("blocksize", *block), text("mode", "DCR")], Vec::new()),
            Op::GlobalAveragePool => (Vec::new(), Vec::new()),
            Op::AveragePool { kernel, stride } => {
                (vec![ints("kernel_shape", *kernel), ints("strides", *stride)], Vec::new())
            }
            Op::Resize { mode, resizing, .. } => self.resize(node, *mode, *resizing),
            Op::ArgMax { axis } => (vec![int("axis", *axis), int("keepdims", 0)], Vec::new()),
            Op::TopK { count } => (Vec::new(), one(vec![*count as i64])),
            Op::Quotient { by } | Op::Remainder { by } => (Vec::new(), one(vec![*by as i64])),
            Op::Gather | Op::ScatterNd => (Vec::new(), Vec::new()),
            Op::ReduceSum => (vec![int("keepdims", 1)], one(vec![0])),
            Op::NonMaxSuppression { most, iou, score } => {
                let thresholds = [*iou, *score].map(|threshold| Operand::Numbers(vec![threshold]));
                let operands = [Operand::Integers(vec![*most as i64])].into_iter().chain(thresholds);
                (Vec::new(), operands.collect())
            }
            Op::Cast { to } => (vec![int_signed("to", i64::from(*to as i32))], Vec::new()),
        }
    }
}

/// What a node reads behind its values.
enum Operand {
    Integers(Vec<i64>),
    Numbers(Vec<f32>),
    /// Left out.
    Absent,
}

/// The factor from `from` cells to `to`, such that ⌊from·factor⌋ = to in float32 and in exact numbers.
fn scale(from: usize, to: usize) -> f32 {
    let scale = to as f32 / from as f32;
    if from as f64 * f64::from(scale) < to as f64 { scale.next_up() } else { scale }
}

/// A reshape's operand: whatever holds the free batch is left to the runtime.
fn target(shape: &Shape) -> Vec<i64> {
    shape.0.iter().map(|d| if let Dim::Fixed(n) = d { *n as i64 } else { -1 }).collect()
}

fn integers(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&v| v as i64).collect()
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

fn int_signed(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

fn int(name: &str, value: usize) -> AttributeProto {
    int_signed(name, value as i64)
}

fn float(name: &str, value: f64) -> AttributeProto {
    AttributeProto { f: Some(value as f32), ..attribute(name, AttributeType::Float) }
}

fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec()), ..attribute(name, AttributeType::String) }
}

fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> AttributeProto {
    let ints = values.into_iter().map(|v| v as i64).collect();
    AttributeProto { ints, ..attribute(name, AttributeType::Ints) }
}

#[cfg(test)]
mod tests {
    use super::scale;

    #[test]
    fn scales_give_the_extents() {
        for (from, to) in (1..200).flat_map(|from| (1..600).map(move |to| (from, to))) {
            let scale = scale(from, to);
            assert_eq!((from as f32 * scale).floor() as usize, to, "{from} to {to} in float32");
            assert_eq!((from as f64 * f64::from(scale)).floor() as usize, to, "{from} to {to}");
        }
        assert_eq!(scale(16, 512).to_bits(), 32f32.to_bits());
    }
}
