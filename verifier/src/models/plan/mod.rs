//! What is expected of a file: read off the graph that the exporter builds for a model with nothing folded.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::{Add, Sub};

use emo_exporter::models::{Model, Task};

mod build;
mod reading;

use super::layers::{Order, Place, Shape};
use crate::cost::{Pool, Work};
use crate::infer::Inference;

/// The counts of a part of a file, or of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    pub params: i64,
    pub macs: i64,
    pub fvcore: i64,
}

/// A linear layer of a model.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its module path: `stage3.1.v.conv`.
    pub name: String,
    pub shape: Shape,
    /// Its weight and its bias, as the checkpoint names them.
    pub weight: Entry,
    pub bias: Option<Entry>,
    /// Where it stands.
    pub place: Place,
    /// Pixels of its output, or tokens, for an image.
    pub pixels: usize,
    /// Outputs for each class, where it classifies; 0 elsewhere.
    pub per_class: usize,
    /// Channels of a head, where the layer makes queries and keys; its first rows are the queries.
    pub attention: Option<usize>,
    /// Where each map stands that it reads side by side with others, and the map's channels.
    pub joined: Vec<(Place, usize)>,
    /// The norm that its input comes from, which may be part of its weights.
    pub before: Option<usize>,
    /// Norms and scales of its output alone, which may be part of its weights.
    pub after: Vec<usize>,
    /// Whether a batch norm alone stands between it and the next layer, and nothing else reads it: the two may be one.
    pub merges: Option<usize>,
    /// Whether it alone reads a GELU, whose ½ may be part of its weights.
    pub behind_gelu: bool,
    /// Multiply-adds that are left out where the layer is computed without the tokens that pad windows.
    pub padding: i64,
}

/// A state-dict entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub dims: Vec<usize>,
}

/// What a part of a model is that has parameters and is no linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    BatchNorm,
    /// Over the channels of each pixel or token.
    LayerNorm,
    /// A factor for each channel.
    Scale,
    /// A sum with an embedding.
    Shift,
    /// A token beside those of the image.
    Token,
}

/// Such a part.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its module path: `stage1.0.norm`.
    pub name: String,
    pub kind: Kind,
    pub channels: usize,
    /// Its parameters in the order of its operator's operands.
    pub entries: Vec<Entry>,
    pub place: Place,
    pub count: Count,
    pub epsilon: f64,
}

/// What a model does between its linear layers, beside affine maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Silu,
    Gelu,
    Relu6,
    Relu,
    /// Of scores.
    Sigmoid,
    /// The sigmoid of a squeeze-excite and the product with it.
    Gate,
    Softmax,
    /// The product of two computed matrices.
    Product,
    /// The sum of two computed maps: a skip or a shortcut.
    Sum,
    LayerNorm,
}

/// What stands at a place.
#[derive(Debug, Clone, Default)]
pub struct Segment {
    pub count: Count,
    /// Elements that are pooled.
    pub pooled: i64,
    /// Elements that are pooled over grids of cells, which a file may spell as products or windows.
    pub gridded: i64,
    /// FLOPs (fvcore) of resizes, which a file may spell as products, or leave to who reads it.
    pub resized: i64,
    /// Multiply-adds of products of two computed matrices.
    pub products: i64,
    /// Multiply-adds of products that are there twice where the map is one window: tiles and strides are the same.
    pub doubled: i64,
    pub sites: Vec<usize>,
    pub steps: Vec<Step>,
    /// The modules of its nodes, and what each does.
    pub nodes: Vec<(String, Option<Step>)>,
}

/// A model at a size.
#[derive(Debug, Clone)]
pub struct Plan {
    pub model: Model,
    pub layers: Vec<Layer>,
    pub sites: Vec<Site>,
    pub segments: BTreeMap<Place, Segment>,
    pub order: Order,
    /// Where the outputs stand, in their order.
    pub outputs: Vec<Place>,
}

impl Plan {
    /// The first layer that has the same weight, which several may share.
    #[must_use]
    pub fn owner(&self, layer: usize) -> usize {
        let weight = &self.layers[layer].weight.name;
        self.layers.iter().position(|other| other.weight.name == *weight).unwrap_or(layer)
    }

    /// The layer that has that module path.
    #[must_use]
    pub fn layer(&self, name: &str) -> Option<usize> {
        self.layers.iter().position(|layer| layer.name == name)
    }

    /// The block that a layer lies in: `stage1.1`, `neck.lateral_convs.0`; `head` where a classifier classifies.
    #[must_use]
    pub fn block_of_layer(&self, layer: usize) -> String {
        let Layer { name, per_class, .. } = &self.layers[layer];
        let parts: Vec<&str> = name.split('.').collect();
        match numbered(name) {
            Some(block) => block,
            None if self.model.task() != Task::Classify && parts.len() > 2 => parts[..2].join("."),
            None if self.model.task() == Task::Classify && *per_class > 0 => "head".to_owned(),
            None if self.model.task() == Task::Classify => parts[0].to_owned(),
            None => name.clone(),
        }
    }

    /// The block that a norm lies in: that of the layer which it is before, or behind.
    #[must_use]
    pub fn block_of_site(&self, site: usize) -> String {
        let reader = self.layers.iter().position(|layer| layer.before == Some(site));
        let layer = reader.or_else(|| self.sites[site].place.last().copied());
        numbered(&self.sites[site].name)
            .or_else(|| layer.map(|layer| self.block_of_layer(layer)))
            .unwrap_or_default()
    }

    /// Marks the layers that are wider in a network of one class more.
    fn classifiers(&mut self, wider: &emo_exporter::graph::Graph) {
        let dims: HashMap<&str, usize> = wider
            .constants()
            .into_iter()
            .map(|v| wider.value(v))
            .map(|v| (v.name.as_str(), v.shape.0.first().map_or(0, |d| d.at_batch_one())))
            .collect();
        for layer in &mut self.layers {
            let outputs = dims.get(layer.weight.name.as_str()).copied().unwrap_or(layer.shape.outputs);
            layer.per_class = outputs.saturating_sub(layer.shape.outputs);
        }
    }
}

/// A module path up to the first numbers in a row: `stage1.1` of `stage1.1.norm`, `blocks.3` of `blocks.3.attn.qkv`,
/// `neck.lateral_convs.0` of `neck.lateral_convs.0.conv`.
#[must_use]
pub fn numbered(module: &str) -> Option<String> {
    let parts: Vec<&str> = module.split('.').collect();
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let first = parts.iter().position(|part| is_number(part))?;
    let numbers = parts[first..].iter().take_while(|part| is_number(part)).count();
    (first > 0).then(|| parts[..first + numbers].join("."))
}

/// Elements that a node pools over whole maps.
pub fn pooled(work: &Work) -> i64 {
    match work {
        Work::Pool { kind: Pool::GlobalMean, inputs, .. } => inputs.number().unwrap_or(0),
        _ => 0,
    }
}

pub(super) fn entry(inference: &Inference, name: &str) -> Entry {
    let dims = inference.values.get(name).and_then(|fact| fact.dims.as_ref().ok());
    let dims = dims.map(|dims| dims.iter().map(|d| d.count().unwrap_or(0) as usize).collect());
    Entry { name: name.to_owned(), dims: dims.unwrap_or_default() }
}

impl Add for Count {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            params: self.params.saturating_add(other.params),
            macs: self.macs.saturating_add(other.macs),
            fvcore: self.fvcore.saturating_add(other.fvcore),
        }
    }
}

impl Sub for Count {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self {
            params: self.params.saturating_sub(other.params),
            macs: self.macs.saturating_sub(other.macs),
            fvcore: self.fvcore.saturating_sub(other.fvcore),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { params, macs, fvcore } = self;
        write!(f, "{params} parameters, {macs} MACs and {fvcore} FLOPs (fvcore)")
    }
}
