//! Right files made wrong, one mistake at a time.

use std::collections::{HashMap, HashSet};

use emo_exporter::models::emo::WINDOW;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::{Message, ModelProto, NodeProto, TensorProto};
use emo_verifier::infer::infer_file;
use emo_verifier::models::plan::Layer;
use emo_verifier::models::recognise::{Found, recognise};
use half::f16;

use crate::onnx::{float, int, node, text};

/// A file, and where the layers of EMO are in it.
pub struct Subject {
    pub model: ModelProto,
    layers: Vec<(Layer, Found)>,
    /// What each layer's nodes write.
    outputs: Vec<Vec<String>>,
    /// How many layers a value depends on in a row.
    depths: HashMap<String, usize>,
    /// The values that are floats, and not shapes.
    floats: HashSet<String>,
    /// Of the arithmetic.
    dtype: DataType,
    fresh: usize,
}

type Edit = Option<()>;

impl Subject {
    /// # Panics
    /// If the file is no EMO.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        let file = OnnxFile::from_bytes(bytes.into(), External::none()).expect("an ONNX file");
        let inference = infer_file(&file, &Default::default());
        let recognition = recognise(&inference).expect("an EMO");
        let names = |index: usize| inference.nodes[index].node.output.clone();
        let outputs =
            recognition.found.iter().map(|f| f.parts.iter().flat_map(|p| names(p.node)).collect()).collect();
        let depths = recognition.places.iter().map(|place| place.last().map_or(0, |layer| layer + 1));
        let depths = inference.nodes.iter().zip(depths);
        let depths = depths.flat_map(|(n, d)| n.node.output.iter().map(move |o| (o.clone(), d))).collect();
        let outputs_of = inference.nodes.iter().flat_map(|n| n.node.output.iter().zip(n.written()));
        let floats = outputs_of.filter(|(_, fact)| fact.is_float()).map(|(name, _)| name.clone()).collect();
        let first = &recognition.found[0].parts[0];
        let dtype = inference.nodes[first.node].outputs[0].dtype;
        let layers = recognition.layers().map(|(layer, found)| (layer.clone(), found.clone())).collect();
        Self { model: file.model.clone(), layers, outputs, depths, floats, dtype, fresh: 0 }
    }

    /// The blocks that have a layer of this name: `qk.conv`.
    #[must_use]
    pub fn blocks(&self) -> Vec<String> {
        let of = |(layer, _): &(Layer, Found)| layer.name.split('.').take(2).collect::<Vec<_>>().join(".");
        let mut blocks: Vec<String> = self.layers.iter().map(of).collect();
        blocks.dedup();
        blocks
    }

    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    /// A copy with a mistake in a block; `None` where it cannot be made there.
    #[must_use]
    pub fn with(&self, mistake: fn(&mut Subject, &str) -> Edit, block: &str) -> Option<Vec<u8>> {
        let mut copy = Self {
            model: self.model.clone(),
            layers: self.layers.clone(),
            outputs: self.outputs.clone(),
            depths: self.depths.clone(),
            floats: self.floats.clone(),
            ..*self
        };
        mistake(&mut copy, block)?;
        Some(copy.bytes())
    }

    fn graph(&mut self) -> &mut emo_proto::GraphProto {
        self.model.graph.as_mut().expect("a file has a graph")
    }

    fn nodes(&self) -> &[NodeProto] {
        &self.model.graph.as_ref().expect("a file has a graph").node
    }

    /// The depth of a block's layer: `v.conv`.
    fn depth(&self, block: &str, layer: &str) -> Option<usize> {
        let name = format!("{block}.{layer}");
        self.layers.iter().position(|(l, _)| l.name == name).map(|index| index + 1)
    }

    /// The depth of what stands before a block's first layer: its norm.
    fn before(&self, block: &str) -> Option<usize> {
        let first = self
            .layers
            .iter()
            .position(|(l, _)| l.name == block || l.name.starts_with(&format!("{block}.")))?;
        (first > 0).then_some(first)
    }

    fn depth_of(&self, value: &str) -> usize {
        self.depths.get(value).copied().unwrap_or(0)
    }

    /// The first node at a depth that is so.
    fn find(&self, depth: usize, is: impl Fn(&Self, &NodeProto) -> bool) -> Option<usize> {
        self.nodes()
            .iter()
            .position(|n| n.output.first().is_some_and(|o| self.depths.get(o) == Some(&depth)) && is(self, n))
    }

    fn operator(&self, depth: usize, name: &str) -> Option<usize> {
        self.find(depth, |_, n| n.op_type() == name)
    }

    /// The number that a value is, where it is a constant of one element.
    fn number(&self, value: &str) -> Option<f64> {
        let graph = self.model.graph.as_ref()?;
        let constant = graph.node.iter().find(|n| n.output.first().is_some_and(|o| o == value));
        let tensor = match constant {
            Some(n) if n.op_type() == "Constant" => n.attribute.first()?.t.as_deref()?,
            Some(_) => return None,
            None => graph.initializer.iter().find(|i| i.name() == value)?,
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

    /// The data of a layer's weight, changed in place.
    fn weight(&mut self, block: &str, layer: &str, change: impl Fn(&mut [f32], &Layer, bool)) -> Edit {
        let depth = self.depth(block, layer)?;
        let (layer, found) = self.layers[depth - 1].clone();
        let [part] = found.parts.as_slice() else { return None };
        self.tensor(&part.weight, |values| change(values, &layer, part.transposed))
    }

    fn tensor(&mut self, name: &str, change: impl Fn(&mut [f32])) -> Edit {
        let tensor = self.graph().initializer.iter_mut().find(|i| i.name() == name)?;
        edit(tensor, change)
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

fn rounded(dtype: DataType, dims: Vec<usize>, values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = match dtype {
        DataType::Float16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    Tensor::new(dtype, dims, bytes.into()).expect("as many elements as there were")
}

/// A norm's ε is PyTorch's default.
pub fn epsilon(s: &mut Subject, block: &str) -> Edit {
    const EPSILON: f32 = 1e-5;
    // The stem's norm stands behind its first convolution.
    let depth = match block {
        "stage0.0" => 1,
        "stage0.1" => return None,
        _ => s.before(block)?,
    };
    let norm = s.find(depth, |_, n| matches!(n.op_type(), "BatchNormalization" | "LayerNormalization"));
    if let Some(at) = norm {
        let node = &mut s.graph().node[at];
        node.attribute.retain(|a| a.name() != "epsilon");
        node.attribute.push(float("epsilon", EPSILON));
        return Some(());
    }
    let small = |s: &Subject, value: &String| s.number(value).is_some_and(|n| n > 0.0 && n < 1e-4);
    let at = s.find(depth, |s, n| n.op_type() == "Add" && n.input.iter().any(|i| small(s, i)))?;
    let operand = s.nodes()[at].input.iter().position(|i| small(s, i))?;
    let epsilon = s.constant(&[], &[EPSILON]);
    s.graph().node[at].input[operand] = epsilon;
    Some(())
}

/// The ε of the norm behind the depthwise convolution is PyTorch's default.
pub fn local_epsilon(s: &mut Subject, block: &str) -> Edit {
    let at = s.operator(s.depth(block, "conv_local.conv")?, "BatchNormalization")?;
    let node = &mut s.graph().node[at];
    node.attribute.retain(|a| a.name() != "epsilon");
    node.attribute.push(float("epsilon", 1e-5));
    Some(())
}

/// GELU by its tanh approximation.
pub fn tanh_gelu(s: &mut Subject, block: &str) -> Edit {
    let depth = s.depth(block, "v.conv")?;
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

/// The skip around the depthwise convolution is missing.
pub fn no_skip(s: &mut Subject, block: &str) -> Edit {
    let (at, own) = s.sum(s.depth(block, "conv_local.conv")?)?;
    s.bypass(at, own)
}

/// The block's shortcut is missing.
pub fn no_shortcut(s: &mut Subject, block: &str) -> Edit {
    let (at, own) = s.sum(s.depth(block, "proj.conv")?)?;
    s.bypass(at, own)
}

/// The activation behind the value projection is missing.
pub fn no_value_activation(s: &mut Subject, block: &str) -> Edit {
    let depth = s.depth(block, "v.conv")?;
    if let Some(at) = s.operator(depth, "Gelu") {
        return s.bypass(at, 0);
    }
    // ½·x·(1 + 1) is x, and so is x·1.
    let at = s.operator(depth, "Erf").or_else(|| s.operator(depth, "Sigmoid"))?;
    s.ones(at)
}

/// The SiLU behind the depthwise convolution is missing.
pub fn no_local_activation(s: &mut Subject, block: &str) -> Edit {
    let at = s.operator(s.depth(block, "conv_local.conv")?, "Sigmoid")?;
    s.ones(at)
}

/// The squeeze-excite is missing.
pub fn no_gate(s: &mut Subject, block: &str) -> Edit {
    let at = s.operator(s.depth(block, "se.conv_expand")?, "Sigmoid")?;
    s.ones(at)
}

/// Windows are tiles: the map is rearranged before its norm and put back before the depthwise convolution.
pub fn tiles(s: &mut Subject, block: &str) -> Edit {
    let side = match block.split('.').next()? {
        "stage3" => 2 * WINDOW,
        _ => return None,
    };
    s.depth(block, "qk.conv")?;
    let depth = s.before(block)?;
    // The map that the norm and the shortcut read.
    let (shortcut, own) = s.sum(s.depth(block, "proj.conv")?)?;
    let map = s.nodes()[shortcut].input[1 - own].clone();
    let local = s.outputs[s.depth(block, "conv_local.conv")? - 1][0].clone();
    let windows = side / WINDOW;
    let grid: Vec<i64> = (0..side).map(|y| (y % windows * WINDOW + y / windows) as i64).collect();
    let mut tile = vec![0; side];
    grid.iter().zip(0..).for_each(|(&from, to)| tile[from as usize] = to);

    let at = s.nodes().iter().position(|n| n.output.contains(&map))? + 1;
    let readers: Vec<String> =
        s.nodes().iter().filter(|n| n.input.contains(&map)).map(|n| n.output[0].clone()).collect();
    let moved = s.rearranged(at, &map, &grid);
    let norm =
        |s: &Subject, n: &NodeProto| readers.contains(&n.output[0]) && s.depth_of(&n.output[0]) == depth;
    let norms: Vec<usize> = (0..s.nodes().len()).filter(|&i| norm(s, &s.nodes()[i])).collect();
    for i in norms {
        replace(&mut s.graph().node[i], &map, &moved);
    }
    let at = s.nodes().iter().position(|n| n.output.contains(&local))?;
    let value = s.nodes()[at].input[0].clone();
    let at = s.nodes().iter().position(|n| n.output.contains(&value))? + 1;
    let back = s.rearranged(at, &value, &tile);
    for node in s.graph().node.iter_mut().skip(at + 2) {
        replace(node, &value, &back);
    }
    Some(())
}

impl Subject {
    /// Rows and columns of a map in another order.
    fn rearranged(&mut self, at: usize, value: &str, order: &[i64]) -> String {
        let order = self.integers(order);
        let rows = self.insert(at, "Gather", &[value, &order]);
        self.graph().node[at].attribute.push(int("axis", 2));
        let columns = self.insert(at + 1, "Gather", &[&rows, &order]);
        self.graph().node[at + 1].attribute.push(int("axis", 3));
        columns
    }
}

fn replace(node: &mut NodeProto, old: &str, new: &str) {
    node.input.iter_mut().filter(|name| *name == old).for_each(|name| new.clone_into(name));
}

/// The softmax leaves out the tokens that pad a window of a map of `size`; window-major, as our own exports are.
fn masked(s: &mut Subject, block: &str, (height, width): (usize, usize)) -> Edit {
    let at = s.operator(s.depth(block, "qk.conv")?, "Softmax")?;
    let stride = if block.starts_with("stage3") { 16 } else { 32 };
    let (height, width) = (height.div_ceil(stride), width.div_ceil(stride));
    let (down, across) = (height.div_ceil(WINDOW), width.div_ceil(WINDOW));
    let mut mask = Vec::new();
    for (i, j) in (0..down).flat_map(|i| (0..across).map(move |j| (i, j))) {
        for token in 0..WINDOW * WINDOW {
            let inside = token / WINDOW * down + i < height && token % WINDOW * across + j < width;
            mask.push(if inside { 0.0 } else { -1e4 });
        }
    }
    if mask.iter().all(|&m| m == 0.0) {
        return None;
    }
    let tokens = WINDOW * WINDOW;
    let mask = s.constant(&[down * across, 1, 1, tokens], &mask);
    let apart = s.integers(&[(down * across) as i64, -1, tokens as i64, tokens as i64]);
    let scores = s.nodes()[at].input[0].clone();
    // Windows and heads may share an axis.
    let shape = s.insert(at, "Shape", &[&scores]);
    let windows = s.insert(at + 1, "Reshape", &[&scores, &apart]);
    let masked = s.insert(at + 2, "Add", &[&windows, &mask]);
    let scores = s.insert(at + 3, "Reshape", &[&masked, &shape]);
    s.graph().node[at + 4].input[0] = scores;
    Some(())
}

/// Padding is masked in a file of 256 × 320 pixels.
pub fn masked_256x320(s: &mut Subject, block: &str) -> Edit {
    masked(s, block, (256, 320))
}

/// The block does not attend: every token takes its own value.
pub fn no_attention(s: &mut Subject, block: &str) -> Edit {
    let at = s.operator(s.depth(block, "qk.conv")?, "Softmax")?;
    // Scores times zero, and much for a token with itself: its weight is one.
    let tokens = WINDOW * WINDOW;
    let own: Vec<f32> =
        (0..tokens * tokens).map(|i| if i % tokens == i / tokens { 60.0 } else { 0.0 }).collect();
    let (zero, own) = (s.constant(&[], &[0.0]), s.constant(&[tokens, tokens], &own));
    let scores = s.nodes()[at].input[0].clone();
    let nothing = s.insert(at, "Mul", &[&scores, &zero]);
    let scores = s.insert(at + 1, "Add", &[&nothing, &own]);
    s.graph().node[at + 2].input[0] = scores;
    Some(())
}

/// q's rows and k's have changed places.
pub fn exchanged_qk(s: &mut Subject, block: &str) -> Edit {
    let halves = |values: &mut [f32], layer: &Layer, transposed: bool| {
        let (rows, columns) = (layer.shape.outputs, layer.shape.inputs);
        let at =
            |row: usize, column: usize| if transposed { column * rows + row } else { row * columns + column };
        for (row, column) in (0..rows / 2).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            values.swap(at(row, column), at(row + rows / 2, column));
        }
    };
    s.weight(block, "qk.conv", halves)?;
    let depth = s.depth(block, "qk.conv")?;
    let bias = s.layers[depth - 1].1.parts[0].bias.clone()?;
    s.tensor(&bias, |values| {
        let half = values.len() / 2;
        values.rotate_left(half);
    })
}

/// The scores are not scaled, by an operator or by q's weights.
pub fn no_scale(s: &mut Subject, block: &str) -> Edit {
    let depth = s.depth(block, "qk.conv")?;
    let scale = |s: &Subject, n: &NodeProto| {
        let number = n.input.get(1).and_then(|i| s.number(i));
        matches!(n.op_type(), "Mul" | "Div")
            && number.is_some_and(|n| (n - 1.0).abs() > 0.1)
            && !s.is_constant(&n.input[0])
    };
    let softmax = s.operator(depth, "Softmax")?;
    let scaled: Vec<usize> = (0..softmax)
        .filter(|&i| s.depths.get(&s.nodes()[i].output[0]) == Some(&depth) && scale(s, &s.nodes()[i]))
        .collect();
    if !scaled.is_empty() {
        return scaled.into_iter().try_for_each(|at| s.bypass(at, 0));
    }
    let head = s.layers[depth - 1].0.attention? as f32;
    let grow = move |values: &mut [f32], layer: &Layer, transposed: bool| {
        let (rows, columns) = (layer.shape.outputs, layer.shape.inputs);
        let at =
            |row: usize, column: usize| if transposed { column * rows + row } else { row * columns + column };
        for (row, column) in (0..rows / 2).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            values[at(row, column)] *= head.sqrt();
        }
    };
    s.weight(block, "qk.conv", grow)?;
    let bias = s.layers[depth - 1].1.parts[0].bias.clone()?;
    s.tensor(&bias, |values| {
        let half = values.len() / 2;
        values[..half].iter_mut().for_each(|x| *x *= head.sqrt());
    })
}

/// The projection's weights are a hundredth too large.
pub fn scaled_weight(s: &mut Subject, block: &str) -> Edit {
    s.weight(block, "proj.conv", |values, _, _| values.iter_mut().for_each(|x| *x *= 1.01))
}

/// The expansion's weights are a hundredth too large.
pub fn scaled_value(s: &mut Subject, block: &str) -> Edit {
    s.weight(block, "v.conv", |values, _, _| values.iter_mut().for_each(|x| *x *= 1.01))
}

/// The top bit of the mantissa of the projection's largest weight.
pub fn flipped_bit(s: &mut Subject, block: &str) -> Edit {
    s.weight(block, "proj.conv", |values, _, _| {
        let largest = (0..values.len()).max_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs()));
        if let Some(i) = largest {
            values[i] = f32::from_bits(values[i].to_bits() ^ 1 << 22);
        }
    })
}

/// The depthwise kernels' rows are their columns.
pub fn transposed_kernel(s: &mut Subject, block: &str) -> Edit {
    s.weight(block, "conv_local.conv", |values, layer, _| {
        let side = layer.shape.kernel;
        for kernel in values.chunks_exact_mut(side * side) {
            for (i, j) in (0..side).flat_map(|i| (0..i).map(move |j| (i, j))) {
                kernel.swap(i * side + j, j * side + i);
            }
        }
    })
}
