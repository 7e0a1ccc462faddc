//! Where blocks end in a file's graph, and how their values lie there.

use std::collections::HashMap;

use ndarray::{ArrayD, IxDyn};

use crate::infer::{Inference, NodeFacts};
use crate::recognise::{Layer, Recognition};
use crate::reference::Map;
use crate::runtime::Concrete;

use super::structure::block_of;

/// The value of a graph that is a block's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// `stage3.1`
    pub block: String,
    pub value: String,
    /// Whether it is the map behind the norm of the next block, which was folded backwards.
    pub normed: bool,
}

/// The blocks' outputs in the order of the network; a block whose end is fused with what follows has none.
#[must_use]
pub fn boundaries(inference: &Inference, recognition: &Recognition) -> Vec<Boundary> {
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, node) in inference.nodes.iter().enumerate().filter(|(_, node)| node.path.is_empty()) {
        for name in node.node.input.iter().filter(|_| node.node.op_type() != "Shape") {
            readers.entry(name).or_default().push(index);
        }
    }
    let graph = Readers { inference, recognition, readers };
    let ends = recognition.layers.iter().enumerate().filter(|(_, (layer, _))| ends_block(layer));
    ends.filter_map(|(index, (layer, found))| {
        let [part] = found.parts.as_slice() else { return None };
        let value = graph.end(part.node, index + 1, layer)?;
        let normed = layer.name != STEM && !layer.bias && found.has_bias();
        Some(Boundary { block: block_of(&layer.name), value, normed })
    })
    .collect()
}

/// The stem's convolution, with which the first block ends.
const STEM: &str = "stage0.0.convs.0.0";

fn ends_block(layer: &Layer) -> bool {
    layer.name == STEM || layer.name.ends_with(".proj.conv")
}

struct Readers<'a> {
    inference: &'a Inference<'a>,
    recognition: &'a Recognition,
    readers: HashMap<&'a str, Vec<usize>>,
}

impl Readers<'_> {
    fn node(&self, index: usize) -> &NodeFacts<'_> {
        &self.inference.nodes[index]
    }

    fn is_constant(&self, name: &str) -> bool {
        self.inference.values.get(name).is_some_and(|fact| fact.source.is_some())
    }

    /// What a block ends with whose last layer is the node `from`: its bias, its norm, its shortcut.
    fn end(&self, from: usize, depth: usize, layer: &Layer) -> Option<String> {
        let mut value = self.node(from).node.output.first()?;
        let mut end = value.clone();
        // Behind moves of axes: only a sum makes them part of the block.
        for _ in 0..8 {
            let all = self.readers.get(value.as_str()).map(Vec::as_slice).unwrap_or_default();
            let here: Vec<usize> =
                all.iter().copied().filter(|&reader| self.recognition.depths[reader] == depth).collect();
            let sum = here.iter().copied().find(|&reader| {
                let node = self.node(reader).node;
                node.op_type() == "Add" && !node.input.iter().any(|name| self.is_constant(name))
            });
            if let Some(sum) = sum {
                return self.node(sum).node.output.first().cloned();
            }
            let ([reader], true) = (here.as_slice(), all.len() == 1) else { break };
            let node = self.node(*reader).node;
            value = node.output.first()?;
            match node.op_type() {
                // A bias, or a norm that the stem's convolution has behind it.
                "Add" if end == *node.input.first()? || end == *node.input.get(1)? => end.clone_from(value),
                "BatchNormalization" if layer.name == STEM => end.clone_from(value),
                "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Cast" | "Identity"
                | "QuantizeLinear" | "DequantizeLinear" => {}
                _ => break,
            }
        }
        Some(end)
    }
}

/// How a map lies in a value of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    shape: Vec<usize>,
    /// The map's axes as the graph has them.
    order: Vec<usize>,
}

impl Layout {
    /// Of the value called `name`, which holds a map of the shape `map`, [N, C, H, W] or tokens [N, T, C].
    #[must_use]
    pub fn of(model: &Concrete, name: &str, map: &[usize]) -> Option<Self> {
        let shape = model.shape(name)?;
        let without_ones = |dims: &[usize]| dims.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
        let found = without_ones(shape);
        let forms = match *map {
            [n, c, h, w] => vec![
                (vec![0, 1, 2, 3], vec![vec![n, c, h, w], vec![n, c, h * w]]),
                (vec![0, 2, 3, 1], vec![vec![n, h, w, c], vec![n, h * w, c], vec![n * h * w, c]]),
            ],
            [n, t, c] => vec![
                (vec![0, 1, 2], vec![vec![n, t, c], vec![n * t, c]]),
                (vec![0, 2, 1], vec![vec![n, c, t]]),
            ],
            _ => return None,
        };
        let is = |forms: &[Vec<usize>]| forms.iter().any(|form| without_ones(form) == found);
        let (order, _) = forms.into_iter().find(|(_, forms)| is(forms))?;
        Some(Self { shape: shape.to_vec(), order })
    }

    /// The map as the graph has it.
    #[must_use]
    pub fn write(&self, map: &Map) -> ArrayD<f32> {
        let elements = map.view().permuted_axes(self.order.as_slice()).iter().map(|&x| x as f32).collect();
        ArrayD::from_shape_vec(IxDyn(&self.shape), elements).expect("as many elements in either order")
    }

    /// A map of shape `map` out of the graph's value, in row-major order.
    #[must_use]
    pub fn read(&self, value: &ArrayD<f32>, map: &[usize]) -> Option<Vec<f32>> {
        let lies: Vec<usize> = self.order.iter().map(|&axis| map[axis]).collect();
        let value = ArrayD::from_shape_vec(lies, value.iter().copied().collect()).ok()?;
        let back: Vec<usize> =
            (0..map.len()).filter_map(|axis| self.order.iter().position(|&a| a == axis)).collect();
        Some(value.permuted_axes(back).iter().copied().collect())
    }
}
