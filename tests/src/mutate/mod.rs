//! Right files made wrong, one mistake at a time.

mod attention;
mod function;
mod place;
mod splice;
mod weights;

use std::collections::{HashMap, HashSet};

use emo_exporter::Export;
use emo_exporter::models::Model;
use emo_exporter::weights::Spec;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::{GraphProto, Message, ModelProto, NodeProto, TensorProto};
use emo_verifier::infer::infer_file;
use half::f16;

use crate::Order;
use crate::onnx::node;
use place::{Layer, Names};

/// What a mistake could be made with; nothing where it cannot be made.
pub type Edit = Option<()>;

/// A mistake in a block.
pub type Mistake = fn(&mut Subject, &str) -> Edit;

/// How a mistake shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whatever the weights.
    Function,
    /// Only beside the checkpoint.
    Weights,
}

/// What is wrong, how it is made, how it shows, and what the verdict calls it.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    pub what: &'static str,
    pub edit: Mistake,
    pub kind: Kind,
    pub cause: &'static str,
}

const fn function(what: &'static str, edit: Mistake, cause: &'static str) -> Mutation {
    Mutation { what, edit, kind: Kind::Function, cause }
}

const fn weights(what: &'static str, edit: Mistake, cause: &'static str) -> Mutation {
    Mutation { what, edit, kind: Kind::Weights, cause }
}

pub const EPSILON: Mutation = function("a norm's epsilon", function::epsilon, "norm-epsilon");
pub const LOCAL_EPSILON: Mutation =
    function("a depthwise norm's epsilon", function::local_epsilon, "norm-epsilon");
pub const TENSORFLOW_EPSILON: Mutation =
    function("TensorFlow's epsilon", function::tensorflow_epsilon, "norm-epsilon");
pub const FEED_FORWARD_EPSILON: Mutation =
    function("a feed-forward norm's epsilon", function::feed_forward_epsilon, "norm-epsilon");
pub const TANH_GELU: Mutation = function("tanh GELU", function::tanh_gelu, "tanh-gelu");
pub const SIGMOID_GELU: Mutation = function("sigmoid GELU", function::sigmoid_gelu, "sigmoid-gelu");
pub const RELU: Mutation = function("ReLU", function::relu, "relu");
pub const HALF_OPEN_CLIP: Mutation = function("a Clip without upper bound", function::half_open_clip, "relu");
pub const NO_SKIP: Mutation = function("a dropped skip", function::no_skip, "no-skip");
pub const NO_SHORTCUT: Mutation = function("a dropped shortcut", function::no_shortcut, "no-shortcut");
pub const NO_ATTENTION_SHORTCUT: Mutation =
    function("a dropped shortcut of attention", function::no_attention_shortcut, "no-shortcut");
pub const NO_VALUE_ACTIVATION: Mutation =
    function("no activation on v", function::no_value_activation, "no-value-activation");
pub const NO_LOCAL_ACTIVATION: Mutation =
    function("no local activation", function::no_local_activation, "no-local-activation");
pub const NO_GATE: Mutation = function("no squeeze-excite", function::no_gate, "no-squeeze-excite");
pub const MEAN_OF_PATCHES: Mutation =
    function("a mean of all but the class token", function::mean_of_patches, "mean-pooled");
pub const MEAN_OF_TOKENS: Mutation =
    function("a mean of all tokens", function::mean_of_tokens, "mean-pooled");
pub const TILES: Mutation = function("tiles", attention::tiles, "tiles");
pub const MASKED_PADDING: Mutation = function("masked padding", attention::masked_padding, "masked-padding");
pub const LATE_PADDING: Mutation = function("padded late", attention::late_padding, "late-padding");
pub const ZERO_PADDED_VALUES: Mutation =
    function("zeros for padding", attention::zero_padded_values, "zero-padded-values");
pub const NO_ATTENTION: Mutation = function("no attention", attention::no_attention, "no-attention");
pub const CLOSE_ONLY: Mutation = function("close windows only", attention::close_only, "close-only");
pub const REMOTE_ONLY: Mutation = function("remote windows only", attention::remote_only, "remote-only");
pub const REMOTE_CLOSE: Mutation =
    function("remote and close concatenated", attention::remote_close, "concatenated-windows");
pub const CLOSE_REMOTE: Mutation =
    function("close and remote concatenated", attention::close_remote, "concatenated-windows");
pub const VALUE_BEFORE_ATTENTION: Mutation =
    function("v before attention", splice::value_before_attention, "value-before-attention");
pub const VALUE_AFTER_ATTENTION: Mutation =
    function("v after attention", splice::value_after_attention, "value-after-attention");
pub const EXCHANGED_QK: Mutation = weights("exchanged q and k", weights::exchanged_qk, "exchanged-qk");
pub const NO_SCALE: Mutation = weights("no attention scale", weights::no_scale, "attention-scale");
pub const NO_LAYER_SCALE: Mutation = weights("no LayerScale", weights::no_layer_scale, "no-layer-scale");
pub const NO_POSITION: Mutation =
    weights("no position embedding", function::no_position, "no-position-embedding");
pub const SCALED_WEIGHT: Mutation = weights("a scaled weight", weights::scaled_weight, "weights");
pub const SCALED_VALUE: Mutation = weights("a scaled weight of v", weights::scaled_value, "weights");
pub const FLIPPED_BIT: Mutation = weights("a flipped bit", weights::flipped_bit, "weights");
pub const TRANSPOSED_KERNEL: Mutation = weights("a transposed kernel", weights::transposed_kernel, "weights");

/// What families call a block's layers.
const ATTEND: &[&str] = &["qk.conv", "eops.0.qk.conv", "attn.qkv"];
const EXPAND: &[&str] = &["v.conv", "eops.0.v.conv", "eops.0.net.conv", "mlp.fc1"];
const LOCAL: &[&str] = &["conv_local.conv"];
const PROJECT: &[&str] = &["proj.conv", "mlp.fc2", "conv_pwl"];

/// A file, and where the layers of its model are in it.
#[derive(Debug, Clone)]
pub struct Subject {
    file: ModelProto,
    model: Model,
    /// What our exporter knows of it.
    ours: Option<std::rc::Rc<(Order, Export)>>,
    layers: Vec<Layer>,
    /// The number of the last layer that a value depends on.
    depths: HashMap<String, usize>,
    /// The values that are floats, and not shapes.
    floats: HashSet<String>,
    /// Of the arithmetic.
    dtype: DataType,
    fresh: usize,
}

impl Subject {
    /// The file of an order, with formula weights.
    ///
    /// # Panics
    /// If the target does not take the model.
    #[must_use]
    pub fn ours(order: &Order) -> Self {
        let export = order.export(&Spec::Formula(0)).expect("the target takes the model");
        let names = place::ours(&export.graph);
        let file = Self::new(export.bytes.clone(), order.model, |_| names);
        Self { ours: Some((*order, export).into()), ..file }
    }

    /// A file of PyTorch's exporters, or of a tool that left the names of its weights.
    ///
    /// # Panics
    /// If it is no such file of the model.
    #[must_use]
    pub fn third_party(bytes: Vec<u8>, model: &Model) -> Self {
        Self::new(bytes, model, |file| place::theirs(file, model))
    }

    fn new(bytes: Vec<u8>, model: &Model, names: impl FnOnce(&ModelProto) -> Names) -> Self {
        let file = OnnxFile::from_bytes(bytes.into(), External::none()).expect("an ONNX file");
        let inference = infer_file(&file, &Default::default());
        let outputs = inference.nodes.iter().flat_map(|n| n.node.output.iter().zip(n.written()));
        let floats = outputs.filter(|(_, fact)| fact.is_float()).map(|(name, _)| name.clone()).collect();
        let layers = place::layers(&file.model, model, &names(&file.model));
        let depths = place::depths(&file.model, &layers);
        let (file, model) = (file.model.clone(), model.clone());
        let dtype = DataType::Float;
        let mut subject = Self { file, model, ours: None, layers, depths, floats, dtype, fresh: 0 };
        let first = subject.layers.iter().find_map(|layer| layer.outputs.first()).expect("a layer");
        let weight = &subject.nodes()[subject.writer(first).expect("a layer's node")].input[1];
        let weight = subject.initializer(weight).expect("a layer has a weight");
        subject.dtype = Tensor::decode(weight, &External::none()).expect("a tensor").dtype;
        subject
    }

    /// What the layers' modules lie in: `stage3.1`, or a layer of its own.
    #[must_use]
    pub fn blocks(&self) -> Vec<String> {
        let of = |layer: &Layer| layer.name.split('.').take(2).collect::<Vec<_>>().join(".");
        let mut blocks: Vec<String> = self.layers.iter().map(of).collect();
        blocks.dedup();
        blocks
    }

    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.file.encode_to_vec()
    }

    /// A copy with a mistake in a block; `None` where it cannot be made there.
    #[must_use]
    pub fn with(&self, mistake: Mistake, block: &str) -> Option<Vec<u8>> {
        let mut copy = self.clone();
        mistake(&mut copy, block)?;
        Some(copy.bytes())
    }

    fn graph(&mut self) -> &mut GraphProto {
        self.file.graph.as_mut().expect("a file has a graph")
    }

    fn nodes(&self) -> &[NodeProto] {
        &self.file.graph.as_ref().expect("a file has a graph").node
    }

    fn initializer(&self, name: &str) -> Option<&TensorProto> {
        self.file.graph.as_ref()?.initializer.iter().find(|i| i.name() == name)
    }

    /// The node that writes a value.
    fn writer(&self, value: &str) -> Option<usize> {
        self.nodes().iter().position(|n| n.output.iter().any(|o| o == value))
    }

    /// The node of a name that our exporter gave.
    fn named(&self, name: &str) -> Option<usize> {
        self.nodes().iter().position(|n| n.name() == name)
    }

    /// The extents that our exporter knows of a value, of one image.
    fn shape(&self, value: &str) -> Option<Vec<usize>> {
        let graph = &self.ours.as_ref()?.1.graph;
        let outputs = graph.nodes.iter().flat_map(|n| &n.outputs).copied();
        let value = outputs.into_iter().find(|&v| graph.value(v).name == value)?;
        Some(graph.shape(value).0.iter().map(|d| d.at_batch_one()).collect())
    }

    /// The number of a block's layer, by the names that it may have.
    fn depth(&self, block: &str, names: &[&str]) -> Option<usize> {
        let is = |layer: &Layer| names.iter().any(|name| layer.name == format!("{block}.{name}"));
        self.layers.iter().position(is).map(|index| index + 1)
    }

    /// The number of the layer before a block's first, behind which its norm stands.
    fn before(&self, block: &str) -> Option<usize> {
        let within = |layer: &Layer| layer.name == block || layer.name.starts_with(&format!("{block}."));
        self.layers.iter().position(within).filter(|&first| first > 0)
    }

    fn depth_of(&self, value: &str) -> usize {
        self.depths.get(value).copied().unwrap_or(0)
    }

    fn stands_at(&self, depth: usize, node: &NodeProto) -> bool {
        node.output.first().is_some_and(|o| self.depths.get(o) == Some(&depth))
    }

    /// The first node at a depth that is so.
    fn find(&self, depth: usize, is: impl Fn(&Self, &NodeProto) -> bool) -> Option<usize> {
        self.nodes().iter().position(|n| self.stands_at(depth, n) && is(self, n))
    }

    fn operator(&self, depth: usize, name: &str) -> Option<usize> {
        self.find(depth, |_, n| n.op_type() == name)
    }

    /// All of them, the last first: what is put before one leaves the others in their places.
    fn operators(&self, depth: usize, name: &str) -> Vec<usize> {
        let is = |n: &NodeProto| self.stands_at(depth, n) && n.op_type() == name;
        (0..self.nodes().len()).rev().filter(|&i| is(&self.nodes()[i])).collect()
    }

    /// The number that a value is, where it is a constant of one element.
    fn number(&self, value: &str) -> Option<f64> {
        let constant = self.nodes().iter().find(|n| n.output.first().is_some_and(|o| o == value));
        let tensor = match constant {
            Some(n) if n.op_type() == "Constant" => n.attribute.first()?.t.as_deref()?,
            Some(_) => return None,
            None => self.initializer(value)?,
        };
        let tensor = Tensor::decode(tensor, &External::none()).ok()?;
        (tensor.len() == 1).then(|| tensor.f64s().ok()?.first().copied()).flatten()
    }

    fn is_constant(&self, value: &str) -> bool {
        self.depth_of(value) == 0
    }

    fn name(&mut self) -> String {
        self.fresh += 1;
        format!("mutation_{}", self.fresh)
    }

    /// A float constant of the file's type.
    fn constant(&mut self, dims: &[usize], values: &[f32]) -> String {
        let name = self.name();
        let tensor = rounded(self.dtype, dims.to_vec(), values).encode(&name);
        self.graph().initializer.push(tensor);
        name
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let name = self.name();
        self.graph().initializer.push(crate::onnx::list(&name, values));
        name
    }

    /// Puts a node at `at` that reads `inputs`; returns what it writes.
    fn insert(&mut self, at: usize, operator: &str, inputs: &[&str]) -> String {
        let output = self.name();
        self.graph().node.insert(at, node(operator, inputs, &[&output], Vec::new()));
        output
    }

    /// Puts a node behind the one that writes `value`, for all that read it.
    fn behind(&mut self, value: &str, operator: &str, other: &str) -> Edit {
        let at = self.writer(value)? + 1;
        let new = self.insert(at, operator, &[value, other]);
        self.graph().node.iter_mut().skip(at + 1).for_each(|node| replace(node, value, &new));
        Some(())
    }

    /// Makes a node hand on one of its operands.
    fn bypass(&mut self, at: usize, operand: usize) -> Edit {
        let node = &mut self.graph().node[at];
        let input = node.input.get(operand)?.clone();
        *node = crate::onnx::node("Identity", &[&input], &[&node.output[0]], Vec::new());
        Some(())
    }

    /// Makes every element that a node writes a one.
    fn ones(&mut self, at: usize) -> Edit {
        let (zero, one) = (self.constant(&[], &[0.0]), self.constant(&[], &[1.0]));
        let NodeProto { input, output, .. } = self.nodes()[at].clone();
        let nothing = self.insert(at, "Mul", &[&input[0], &zero]);
        self.graph().node[at + 1] = node("Add", &[&nothing, &one], &[&output[0]], Vec::new());
        Some(())
    }

    /// The sum of two computed values at a depth; the operand of that depth is what it adds to.
    fn sum(&self, depth: usize) -> Option<(usize, usize)> {
        let computed = |s: &Self, name: &String| !s.is_constant(name) && s.floats.contains(name);
        let at = self.find(depth, |s, n| n.op_type() == "Add" && n.input.iter().all(|i| computed(s, i)))?;
        let own = self.nodes()[at].input.iter().position(|i| self.depth_of(i) == depth)?;
        Some((at, own))
    }
}

fn replace(node: &mut NodeProto, old: &str, new: &str) {
    node.input.iter_mut().filter(|name| *name == old).for_each(|name| new.clone_into(name));
}

fn rounded(dtype: DataType, dims: Vec<usize>, values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = match dtype {
        DataType::Float16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    Tensor::new(dtype, dims, bytes.into()).expect("as many elements as there were")
}
