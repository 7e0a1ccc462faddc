//! Which EMO is this: a file's linear layers along its data path, matched to a variant's.
//!
//! Names mean nothing here: exporters rename, fold, decompose and split. What remains is the
//! chain of convolutions and products with weights, by shape, in the order in which the data
//! passes them; in EMO that order is total. A layer's place in the chain is its *depth*, and
//! every other node belongs to the depth of the last layer that it depends on.
//!
//! Two pointwise layers with a batch norm between them and nothing else are one linear map, which an exporter may
//! write as one layer. The first is then found without a node of its own, and the second has the product.

use std::collections::HashMap;

use emo_exporter::layer::Norm;
use emo_exporter::models::{Definition, MODELS, Model};
use serde::Serialize;

use crate::infer::Inference;
use crate::sym::Expr;

/// A normalisation of the published network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormSite {
    /// Its module path: `stage1.0.norm`.
    pub name: String,
    pub kind: Norm,
    pub channels: usize,
}

/// A linear layer of the published network, and what stands between it and the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its module path: `stage3.1.v.conv`.
    pub name: String,
    pub shape: Shape,
    /// Whether the published layer has a bias.
    pub bias: bool,
    pub norm: Option<NormSite>,
    /// Heads' channels, where the layer makes q and k.
    pub attention: Option<usize>,
    pub role: Role,
    /// Whether a batch norm alone stands between it and the next layer, and nothing else reads it: the two may be
    /// one.
    pub merges: bool,
}

/// What a layer is computed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Every pixel.
    Map,
    /// The mean of all pixels.
    Mean,
}

/// What can be told of a linear layer in any spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub outputs: usize,
    /// Inputs that an output sees.
    pub inputs: usize,
    /// Side of the kernel; 1 for a matrix product.
    pub kernel: usize,
    pub stride: usize,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { outputs, inputs, kernel, stride } = self;
        write!(f, "{kernel}×{kernel}, {inputs} → {outputs}")?;
        if *stride > 1 { write!(f, ", stride {stride}") } else { Ok(()) }
    }
}

/// A linear layer of a file: one node, two where q and k are apart, none where it is merged into the next.
#[derive(Debug, Clone)]
pub struct Found {
    pub parts: Vec<Part>,
    /// Of all parts together.
    pub shape: Shape,
}

/// A node that multiplies with a weight.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its index in [`Inference::nodes`].
    pub node: usize,
    /// The value that is its weight, and whether inputs come before outputs in it.
    pub weight: String,
    pub transposed: bool,
    /// The value that is its bias, in the node or added behind it.
    pub bias: Option<String>,
}

impl Found {
    #[must_use]
    pub fn has_bias(&self) -> bool {
        !self.is_merged() && self.parts.iter().all(|part| part.bias.is_some())
    }

    /// Whether the next layer is the product of both.
    #[must_use]
    pub fn is_merged(&self) -> bool {
        self.parts.is_empty()
    }
}

/// A file that is an EMO, layer by layer.
#[derive(Debug)]
pub struct Recognition {
    /// With the file's number of classes.
    pub model: Model,
    /// Published layers with what stands for them; the index + 1 is the depth.
    pub layers: Vec<(Layer, Found)>,
    /// The depth of every node, by index.
    pub depths: Vec<usize>,
}

impl Recognition {
    /// The layers that the file has as one with the next, and these.
    pub fn merged(&self) -> impl Iterator<Item = (&Layer, &Layer)> {
        let pairs = self.layers.windows(2).filter(|pair| pair[0].1.is_merged());
        pairs.map(|pair| (&pair[0].0, &pair[1].0))
    }
}

/// Where a file leaves a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Departure {
    pub variant: String,
    /// Layers that match before.
    pub matched: usize,
    /// Layers of the variant.
    pub layers: usize,
    pub reason: String,
}

/// The linear layers of a variant in the order of the data.
#[must_use]
pub fn layers(model: &Model) -> Vec<Layer> {
    let Definition::Emo(network) = &model.definition else { unimplemented!("another family") };
    let linear = |name: String, outputs, inputs, bias| Layer {
        name,
        shape: Shape { outputs, inputs, kernel: 1, stride: 1 },
        bias,
        norm: None,
        attention: None,
        role: Role::Map,
        merges: false,
    };
    let gate =
        |name: &str| Layer { role: Role::Mean, ..linear(name.to_owned(), network.stem, network.stem, true) };
    let batch = |name: String, channels| Some(NormSite { name, kind: Norm::Batch, channels });
    let local = |name: &str, channels, kernel, stride| Layer {
        shape: Shape { outputs: channels, inputs: 1, kernel, stride },
        norm: batch(format!("{name}.conv_local.norm"), channels),
        ..linear(format!("{name}.conv_local.conv"), channels, 1, false)
    };
    let stem = network.stem;
    let mut layers = vec![
        Layer {
            shape: Shape { outputs: stem, inputs: 3, kernel: 3, stride: 2 },
            norm: batch("stage0.0.convs.0.1".to_owned(), stem),
            ..linear("stage0.0.convs.0.0".to_owned(), stem, 3, true)
        },
        local("stage0.1", stem, 3, 1),
        gate("stage0.1.se.conv_reduce"),
        gate("stage0.1.se.conv_expand"),
        linear("stage0.1.proj.conv".to_owned(), stem, stem, false),
    ];
    // The stem has no shortcut around its projection.
    let mut added = false;
    for (name, block) in network.blocks() {
        let (c, m) = (block.dim_in, block.dim_mid());
        let operator = block.mmb.operator;
        if let Some(last) = layers.last_mut() {
            last.norm = Some(NormSite { name: format!("{name}.norm"), kind: block.norm, channels: c });
            let read_once = !block.has_shortcut() && operator.attention.is_none();
            last.merges = block.norm == Norm::Batch && !added && read_once;
        }
        added = block.has_shortcut();
        if let Some(attention) = operator.attention {
            let qk = linear(format!("{name}.qk.conv"), 2 * c, c, true);
            layers.push(Layer { attention: Some(attention.head_dim), ..qk });
        }
        layers.push(linear(format!("{name}.v.conv"), m, c, true));
        if let Some(conv) = operator.conv {
            layers.push(local(&name, m, conv.kernel, conv.stride));
        }
        layers.push(linear(format!("{name}.proj.conv"), block.dim_out, m, false));
    }
    let channels = network.stages.last().map_or(stem, |stage| stage.dim);
    if let Some(last) = layers.last_mut() {
        last.norm = Some(NormSite { name: "norm".to_owned(), kind: Norm::Layer, channels });
    }
    layers.push(Layer { role: Role::Mean, ..linear("head".to_owned(), model.classes, channels, true) });
    layers
}

/// The variant that a file is.
///
/// # Errors
/// None; the departure tells which one the file follows furthest, and where it leaves it.
pub fn recognise(inference: &Inference) -> Result<Recognition, Departure> {
    let mut best: Option<Departure> = None;
    for model in MODELS.iter() {
        match recognise_as(inference, model) {
            Ok(recognition) => return Ok(recognition),
            Err(departure) if best.as_ref().is_none_or(|b| departure.matched > b.matched) => {
                best = Some(departure);
            }
            Err(_) => {}
        }
    }
    Err(best.expect("there are models"))
}

/// The file as one given variant.
///
/// # Errors
/// Where the file leaves it.
pub fn recognise_as(inference: &Inference, model: &Model) -> Result<Recognition, Departure> {
    let (mut depths, mut found) = chain(inference);
    let classes = found.last().map_or(0, |head| head.shape.outputs);
    let model = model.with_classes(classes);
    let expected = layers(&model);
    let depart = |matched: usize, reason: String| Departure {
        variant: model.name.to_string(),
        matched,
        layers: expected.len(),
        reason,
    };
    for (i, layer) in expected.iter().enumerate() {
        let Some(candidate) = found.get(i) else {
            return Err(depart(
                i,
                format!("expected {} ({}), found the end of the network", layer.name, layer.shape),
            ));
        };
        if let Some(next) = expected.get(i + 1)
            && are_one(layer, next, candidate.shape)
        {
            found.insert(i, Found { parts: Vec::new(), shape: layer.shape });
            depths.iter_mut().filter(|depth| **depth > i).for_each(|depth| *depth += 1);
            continue;
        }
        if candidate.shape != layer.shape {
            let node = inference.nodes[candidate.parts[0].node].place();
            let (name, expected, shape) = (&layer.name, layer.shape, candidate.shape);
            return Err(depart(i, format!("expected {name} ({expected}), found {node} ({shape})")));
        }
    }
    if let Some(more) = found.get(expected.len()) {
        let node = inference.nodes[more.parts[0].node].place();
        return Err(depart(
            expected.len(),
            format!("expected the end of the network, found {node} ({})", more.shape),
        ));
    }
    let layers = expected.into_iter().zip(found.drain(..)).collect();
    Ok(Recognition { model, layers, depths })
}

/// Whether `found` is the product of two layers. Of an identity and a product alone the first can be made anew, so
/// it has to be square.
fn are_one(first: &Layer, second: &Layer, found: Shape) -> bool {
    let pointwise = |shape: Shape| (shape.kernel, shape.stride) == (1, 1);
    let square = first.shape.inputs == first.shape.outputs;
    let product = Shape { inputs: first.shape.inputs, ..second.shape };
    first.merges
        && square
        && pointwise(first.shape)
        && pointwise(second.shape)
        && found == product
        && found != first.shape
}

/// Every node's depth, and the linear layers in the order of their depths.
fn chain(inference: &Inference) -> (Vec<usize>, Vec<Found>) {
    let mut depth_of: HashMap<&str, usize> = HashMap::new();
    // The layers whose products still lack a bias, by the value that they write.
    let mut unbiased: HashMap<&str, (usize, usize)> = HashMap::new();
    let mut depths = Vec::with_capacity(inference.nodes.len());
    let mut found: Vec<Found> = Vec::new();
    for (index, node) in inference.nodes.iter().enumerate() {
        let operands = || node.node.input.iter().map(String::as_str);
        let mut depth = operands().filter_map(|name| depth_of.get(name)).copied().max().unwrap_or(0);
        // A body's nodes run within their node; layers stand in the main graph.
        let main = node.path.is_empty();
        if let Some((shape, part)) = linear(inference, index).filter(|_| main) {
            depth += 1;
            let (biased, layer) = (part.bias.is_some(), depth - 1);
            match found.get_mut(layer) {
                // q and k as two layers read the same map: together they are one.
                Some(twin) if twin.shape.inputs == shape.inputs && shape.inputs > 1 => {
                    twin.shape.outputs += shape.outputs;
                    twin.parts.push(part);
                }
                Some(_) => {}
                None => found.push(Found { parts: vec![part], shape }),
            }
            if let (false, Some(value)) = (biased, node.node.output.first()) {
                unbiased.insert(value, (layer, found[layer].parts.len() - 1));
            }
        } else if node.node.op_type() == "Add"
            && let Some((layer, part)) = operands().find_map(|name| unbiased.get(name).copied())
            && let Some((bias, elements)) = operands().find_map(|name| constant(inference, name))
            && elements * found[layer].parts.len() == found[layer].shape.outputs
        {
            found[layer].parts[part].bias = Some(bias);
        }
        depths.push(depth);
        if main {
            node.node.output.iter().for_each(|name| {
                depth_of.insert(name, depth);
            });
        }
    }
    (depths, found)
}

/// A value that constants alone decide, and the number of its elements.
fn constant(inference: &Inference, name: &str) -> Option<(String, usize)> {
    let fact = inference.values.get(name).filter(|fact| fact.source.is_some())?;
    Some((name.to_owned(), fact.count().count()? as usize))
}

/// The operators that multiply with a weight: its operand, and how it lies in memory.
const LINEAR: [(&str, usize, Layout); 5] = [
    ("Conv", 1, Layout::Kernel),
    ("FusedConv", 1, Layout::Kernel),
    ("Gemm", 1, Layout::Gemm),
    ("FusedGemm", 1, Layout::Gemm),
    ("MatMul", 1, Layout::Columns),
];

#[derive(Debug, Clone, Copy)]
enum Layout {
    /// `[M, C/group, k, k]`
    Kernel,
    /// `[M, K]` where transposed, `[K, M]` else.
    Gemm,
    /// `[…, K, M]`
    Columns,
}

/// The shape of a node that multiplies data with a constant, and where its weights are.
fn linear(inference: &Inference, index: usize) -> Option<(Shape, Part)> {
    let node = inference.nodes[index].node;
    let &(_, operand, layout) = LINEAR.iter().find(|(name, ..)| *name == node.op_type())?;
    let name = |index: usize| node.input.get(index).map(String::as_str);
    let fact = |index: usize| inference.values.get(name(index)?);
    if fact(0)?.source.is_some() || fact(operand)?.source.is_none() {
        return None;
    }
    let dims = fact(operand)?.dims.as_ref().ok()?;
    let dims: Vec<usize> = dims.iter().map(|d| d.count().map(|n| n as usize)).collect::<Option<_>>()?;
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name() == name);
    let pointwise = |outputs, inputs| Shape { outputs, inputs, kernel: 1, stride: 1 };
    let (shape, transposed) = match (layout, dims.as_slice()) {
        (Layout::Kernel, &[outputs, inputs, kernel, width]) if kernel == width => {
            let stride = attribute("strides").and_then(|a| a.ints.first()).map_or(1, |&s| s as usize);
            (Shape { outputs, inputs, kernel, stride }, false)
        }
        (Layout::Gemm, &[a, b]) => match attribute("transB").is_some_and(|t| t.i() != 0) {
            true => (pointwise(a, b), false),
            false => (pointwise(b, a), true),
        },
        (Layout::Columns, &[.., inputs, outputs]) => (pointwise(outputs, inputs), true),
        _ => return None,
    };
    let bias = match layout {
        Layout::Columns => None,
        Layout::Kernel | Layout::Gemm => {
            name(2).and_then(|name| constant(inference, name)).map(|(name, _)| name)
        }
    };
    Some((shape, Part { node: index, weight: name(operand)?.to_owned(), transposed, bias }))
}

/// The number that a formula is where `batch` is one.
#[must_use]
pub fn at_batch_one(expr: &Expr, batch: Option<&str>) -> Option<u64> {
    expr.with(&|name| (Some(name) == batch).then_some(1)).count()
}
