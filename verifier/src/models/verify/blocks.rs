//! Where blocks end in a file's graph, and how their values lie there.

use std::collections::HashMap;

use ndarray::{ArrayD, IxDyn};

use crate::infer::{Inference, NodeFacts};
use crate::models::layers::Place;
use crate::models::plan::{Kind, Plan, Step, numbered};
use crate::models::recognise::Recognition;
use crate::reference::Map;
use crate::runtime::Concrete;

/// The value of a graph that is a block's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// `stage3.1`
    pub block: String,
    pub value: String,
    /// Whether it is the map behind the norm of the next block, which was folded backwards.
    pub normed: bool,
    /// What it becomes before another layer or another map comes in: resized, moved.
    pub moved: Vec<String>,
    /// The sum of the last of these and another map.
    pub sum: Option<String>,
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
    let plan = &recognition.plan;
    let block = |index: usize| plan.block_of_layer(index);
    let is_last = |index: &usize| (index + 1..plan.layers.len()).all(|later| block(later) != block(*index));
    let ends = (0..plan.layers.len()).filter(is_last).filter(|&index| block(index) != "head");
    ends.filter_map(|index| {
        let (layer, found) = (&plan.layers[index], &recognition.found[index]);
        let part = match found.parts.as_slice() {
            [part] => part,
            [.., last] if found.is_apart() => last,
            _ => return None,
        };
        let own_norm = owns(plan, index, Kind::BatchNorm);
        let normed = !own_norm && layer.bias.is_none() && found.has_bias();
        let value = graph.end(part.node, index)?;
        let (moved, sum) = graph.behind(&value);
        Some(Boundary { block: block(index), value, normed, moved, sum })
    })
    .collect()
}

/// Whether a layer's block has a norm or a scale behind the layer. Where the next block's first layer alone reads a norm,
/// the weights of either may hold it; whose it is, its name tells.
fn owns(plan: &Plan, index: usize, kind: Kind) -> bool {
    let (place, block) = (Place::from([index]), plan.block_of_layer(index));
    plan.sites.iter().enumerate().any(|(at, site)| {
        let named = numbered(&site.name).is_some_and(|own| own == block);
        let behind = plan.layers[index].after.contains(&at) || site.place == place && named;
        site.kind == kind && behind
    })
}

/// The operators that an activation ends with, in all its spellings.
fn closing(step: Step) -> &'static [&'static str] {
    match step {
        Step::Silu => &["Mul", "Div", "Swish", "QuickGelu"],
        Step::Relu6 => &["Clip", "Min"],
        Step::Relu => &["Relu", "Max"],
        _ => &[],
    }
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

    fn is_computed(&self, name: &str) -> bool {
        !name.is_empty() && !self.is_constant(name)
    }

    /// What a block ends with whose last layer is the node `from`: its bias, its norm, its activation, its shortcut.
    fn end(&self, from: usize, index: usize) -> Option<String> {
        let plan = &self.recognition.plan;
        let place = Place::from([index]);
        let own = |(name, step): &(String, Option<Step>)| {
            step.filter(|_| numbered(name).is_none_or(|block| block == plan.block_of_layer(index)))
        };
        let steps: Vec<Step> =
            plan.segments.get(&place).into_iter().flat_map(|s| s.nodes.iter().filter_map(own)).collect();
        let here =
            || (from + 1..self.recognition.places.len()).filter(|&i| self.recognition.places[i] == place);
        let output = |index: usize| self.node(index).node.output.first().cloned();
        if let Some(&activation) = steps.iter().find(|step| !closing(**step).is_empty()) {
            let closes = |&index: &usize| {
                let node = self.node(index).node;
                let computed = node.input.iter().filter(|name| self.is_computed(name)).count();
                let several = !matches!(node.op_type(), "Mul" | "Div") || computed > 1;
                several && closing(activation).contains(&node.op_type())
            };
            return output(here().find(closes)?);
        }
        self.linear_end(from, index, &place)
    }

    /// What a value becomes before another layer or another map comes in, and its sum with that.
    fn behind(&self, value: &str) -> (Vec<String>, Option<String>) {
        let mut moved: Vec<String> = Vec::new();
        loop {
            let last = moved.last().map_or(value, String::as_str);
            let all = self.readers.get(last).map(Vec::as_slice).unwrap_or_default();
            let &[reader] = all else { return (moved, None) };
            let node = self.node(reader).node;
            let output = node.output.first().cloned();
            match node.op_type() {
                "Resize" | "Upsample" | "Expand" | "Transpose" | "Reshape" | "Identity" => {
                    moved.extend(output);
                }
                "Add" if node.input.iter().all(|name| self.is_computed(name)) => return (moved, output),
                _ => return (moved, None),
            }
        }
    }

    /// The same without an activation.
    fn linear_end(&self, from: usize, index: usize, place: &Place) -> Option<String> {
        let owns = |kind| owns(&self.recognition.plan, index, kind);
        let mut value = self.node(from).node.output.first()?;
        let mut end = value.clone();
        // Behind moves of axes: only a sum makes them part of the block.
        for _ in 0..8 {
            let all = self.readers.get(value.as_str()).map(Vec::as_slice).unwrap_or_default();
            let here: Vec<usize> =
                all.iter().copied().filter(|&reader| self.recognition.places[reader] == *place).collect();
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
                // A bias, a norm or a scale that the layer has behind it.
                "Add" if end == *node.input.first()? || end == *node.input.get(1)? => end.clone_from(value),
                "BatchNormalization" if owns(Kind::BatchNorm) => end.clone_from(value),
                "Mul" if owns(Kind::Scale) => end.clone_from(value),
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
