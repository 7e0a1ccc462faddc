//! A graph of ours with nothing folded, value by value: what its nodes are, and how layers and norms stand to each other.

use std::collections::{HashMap, HashSet};

use emo_proto::TensorProto;

use super::{Count, Entry, Kind, Plan, Site, Step, entry};
use crate::infer::{Inference, NodeFacts};
use crate::models::layers::Place;
use crate::sym::Expr;

/// A graph of ours, value by value.
pub struct Reading<'a> {
    inference: &'a Inference<'a>,
    places: &'a [Place],
    writers: HashMap<&'a str, usize>,
    readers: HashMap<&'a str, Vec<usize>>,
    /// A graph in which nothing is folded stores parameters alone.
    parameters: HashSet<&'a str>,
}

impl<'a> Reading<'a> {
    pub fn new(inference: &'a Inference<'a>, places: &'a [Place]) -> Self {
        let mut writers = HashMap::new();
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, node) in inference.nodes.iter().enumerate() {
            writers.extend(node.node.output.iter().map(|name| (name.as_str(), index)));
            for name in &node.node.input {
                readers.entry(name).or_default().push(index);
            }
        }
        let stored = inference.graph().into_iter().flat_map(|graph| &graph.initializer);
        let parameters = stored.map(TensorProto::name).collect();
        Self { inference, places, writers, readers, parameters }
    }

    fn node(&self, index: usize) -> &'a NodeFacts<'a> {
        &self.inference.nodes[index]
    }

    fn op(&self, index: usize) -> &'a str {
        self.node(index).node.op_type()
    }

    fn output(&self, index: usize) -> &'a str {
        self.node(index).node.output.first().map_or("", String::as_str)
    }

    fn readers(&self, value: &str) -> &[usize] {
        self.readers.get(value).map_or(&[], Vec::as_slice)
    }

    fn is_computed(&self, name: &str) -> bool {
        self.inference.values.get(name).is_some_and(|fact| fact.source.is_none())
    }

    /// The operands of a node that data decides.
    fn computed(&self, index: usize) -> Vec<&'a str> {
        let inputs = self.node(index).node.input.iter().map(String::as_str);
        inputs.filter(|name| self.is_computed(name)).collect()
    }

    pub fn outputs(&self) -> Vec<Place> {
        let outputs = self.inference.graph().into_iter().flat_map(|graph| &graph.output);
        let place =
            |name: &str| self.writers.get(name).map_or_else(Place::default, |&w| self.places[w].clone());
        outputs.map(|output| place(output.name())).collect()
    }

    pub fn count(&self, node: &NodeFacts) -> Count {
        let number = |expr: &Expr| expr.number().unwrap_or(0);
        let params: Expr =
            node.weights().iter().map(|&w| self.inference.constants[w].parameters.clone()).sum();
        Count { params: number(&params), macs: number(&node.cost.macs), fvcore: number(&node.cost.fvcore) }
    }

    /// Multiply-adds of a product over one window that another node at its place has as well.
    pub fn doubled(&self, index: usize, images: usize) -> i64 {
        let dims = |index: usize| self.node(index).outputs.first().and_then(|fact| fact.dims.as_ref().ok());
        let is_product = |index: usize| self.step(index) == Some(Step::Product);
        let one_window = dims(index).and_then(|dims| dims.first()).is_some_and(|n| n.is(images as i64));
        let before =
            (0..index).filter(|&other| is_product(other) && self.places[other] == self.places[index]);
        let alike = |other: usize| dims(other) == dims(index) && dims(index).is_some();
        let doubled = is_product(index) && one_window && before.into_iter().any(alike);
        if doubled { self.count(self.node(index)).macs } else { 0 }
    }

    /// What a node begins, beside affine maps.
    pub fn step(&self, index: usize) -> Option<Step> {
        let several = self.computed(index).len() > 1;
        match self.op(index) {
            "Sigmoid" => {
                let (input, output) = (self.computed(index)[0], self.output(index));
                let own = |&reader: &usize| self.computed(reader).contains(&input);
                let multiplies = |&reader: &usize| self.op(reader) == "Mul";
                Some(match self.readers(output) {
                    readers if readers.iter().any(own) => Step::Silu,
                    readers if readers.iter().any(multiplies) => Step::Gate,
                    _ => Step::Sigmoid,
                })
            }
            "Gelu" => Some(Step::Gelu),
            "Clip" => Some(Step::Relu6),
            "Relu" => Some(Step::Relu),
            "Softmax" => Some(Step::Softmax),
            "MatMul" if several => Some(Step::Product),
            "Add" if several => Some(Step::Sum),
            "LayerNormalization" => Some(Step::LayerNorm),
            _ => None,
        }
    }

    /// The part with parameters of its own that a node is.
    pub fn site(&self, index: usize) -> Option<Site> {
        let node = self.node(index);
        let weights = node.node.input.iter().filter(|name| self.parameters.contains(name.as_str()));
        let entries: Vec<Entry> = weights.map(|name| entry(self.inference, name)).collect();
        let kind = match self.op(index) {
            "BatchNormalization" => Kind::BatchNorm,
            "LayerNormalization" => Kind::LayerNorm,
            "Mul" if !entries.is_empty() => Kind::Scale,
            "Add" if !entries.is_empty() => Kind::Shift,
            "Concat" if !entries.is_empty() => Kind::Token,
            _ => return None,
        };
        let epsilon = node.node.attribute.iter().find(|a| a.name() == "epsilon").and_then(|a| a.f);
        Some(Site {
            name: match kind {
                Kind::BatchNorm | Kind::LayerNorm => site_name(node.node.name()),
                // What has no module of its own is called as its one parameter.
                Kind::Scale | Kind::Shift | Kind::Token => entries[0].name.clone(),
            },
            kind,
            channels: entries.first().map_or(0, |entry| entry.dims.iter().product()),
            entries,
            place: self.places[index].clone(),
            count: self.count(node),
            epsilon: epsilon.map_or(0.0, f64::from),
        })
    }

    /// Sets how layers and norms stand to each other.
    pub fn join(&self, plan: &mut Plan) {
        let layer_at = |index: usize| plan.layers.iter().position(|l| l.name == self.name(index));
        let site_at = |index: usize| {
            let name = self.site(index)?.name;
            plan.sites.iter().position(|site| site.name == name)
        };
        let nodes = || 0..self.inference.nodes.len();
        let layers: HashMap<usize, usize> = nodes().filter_map(|i| Some((i, layer_at(i)?))).collect();
        let sites: HashMap<usize, usize> = nodes().filter_map(|i| Some((i, site_at(i)?))).collect();

        let mut joined = plan.layers.clone();
        for (&node, &layer) in &layers {
            let shape = joined[layer].shape;
            if let Some(norm) = self.source(self.data(node)).filter(|_| shape.is_pointwise())
                && let Some(&site) = sites.get(&norm)
                && self.is_before_alone(norm, &layers, plan)
            {
                joined[layer].before = Some(site);
                joined[layer].merges = None;
            }
            joined[layer].padding = self.padding(node);
            let data = self.data(node);
            if shape.is_pointwise() {
                joined[layer].joined = self.side_by_side(data);
            }
            let gelu = self.writers.get(data).is_some_and(|&writer| self.op(writer) == "Gelu");
            joined[layer].behind_gelu = gelu && self.readers(data).len() == 1;
        }
        for (&node, &site) in &sites {
            let Some(&writer) = self.writers.get(self.data(node)) else { continue };
            let Some(&first) = layers.get(&writer) else { continue };
            let alone = self.readers(self.output(writer)).len() == 1;
            let second = joined.iter().position(|layer| layer.before == Some(site));
            match (second, plan.sites[site].kind) {
                (Some(second), Kind::BatchNorm) if alone && joined[first].shape.is_pointwise() => {
                    joined[first].merges = Some(second);
                }
                (None, Kind::BatchNorm | Kind::Scale) if alone => joined[first].after.push(site),
                _ => {}
            }
        }
        for softmax in nodes().filter(|&i| self.op(i) == "Softmax") {
            let Some((layer, head)) = self.queries(softmax) else { continue };
            if let Some(&layer) = layers.get(&layer) {
                joined[layer].attention = Some(head);
            }
        }
        plan.layers = joined;
    }

    /// Where the maps stand that lie side by side in `value`, and their channels; nothing where it is one map.
    fn side_by_side(&self, value: &str) -> Vec<(Place, usize)> {
        let Some(&concat) = self.writers.get(value).filter(|&&writer| self.op(writer) == "Concat") else {
            return Vec::new();
        };
        let map = |name: &String| {
            let dims = self.inference.values.get(name.as_str())?.dims.as_ref().ok()?;
            let [_, channels, _, _] = &dims[..] else { return None };
            let writer = self.writers.get(name.as_str())?;
            Some((self.places[*writer].clone(), channels.count()? as usize))
        };
        self.node(concat).node.input.iter().map(map).collect::<Option<_>>().unwrap_or_default()
    }

    fn name(&self, index: usize) -> &'a str {
        self.node(index).node.name()
    }

    /// What a node computes from.
    fn data(&self, index: usize) -> &'a str {
        self.computed(index).first().copied().unwrap_or_default()
    }

    /// The node that makes what `value` moves, or weights by numbers that sum to one.
    fn source(&self, mut value: &'a str) -> Option<usize> {
        loop {
            let index = *self.writers.get(value)?;
            value = match self.op(index) {
                "Reshape" | "Transpose" | "Split" | "Slice" | "Gather" | "Pad" | "Concat" | "Identity"
                | "Squeeze" | "Unsqueeze" | "Flatten" | "SpaceToDepth" | "DepthToSpace" | "ReduceMean"
                | "GlobalAveragePool" => self.data(index),
                "MatMul" => {
                    let is_softmax = |value: &str| {
                        let maker = self.source(value);
                        maker.is_some_and(|maker| self.op(maker) == "Softmax")
                    };
                    let [a, b] = self.computed(index)[..] else { return Some(index) };
                    match (is_softmax(a), is_softmax(b)) {
                        (true, false) => b,
                        (false, true) => a,
                        _ => return Some(index),
                    }
                }
                _ => return Some(index),
            };
        }
    }

    /// Whether pointwise layers alone read a norm: then it may be part of them, and else of the layer before it.
    fn is_before_alone(&self, norm: usize, layers: &HashMap<usize, usize>, plan: &Plan) -> bool {
        let mut values = vec![self.output(norm)];
        while let Some(value) = values.pop() {
            for &reader in self.readers(value) {
                match self.op(reader) {
                    "Conv" | "Gemm" | "MatMul" if layers.contains_key(&reader) => {
                        if !plan.layers[layers[&reader]].shape.is_pointwise() {
                            return false;
                        }
                    }
                    "Reshape" | "Transpose" | "Split" | "Slice" | "Gather" | "Pad" | "Concat"
                    | "Identity" | "Squeeze" | "SpaceToDepth" | "DepthToSpace" | "ReduceMean"
                    | "GlobalAveragePool" | "MatMul" => {
                        values.extend(self.node(reader).node.output.iter().map(String::as_str));
                    }
                    _ => return false,
                }
            }
        }
        true
    }

    /// The layer that makes queries and keys of a softmax, by its node, and the channels of a head.
    fn queries(&self, softmax: usize) -> Option<(usize, usize)> {
        let scale = *self.writers.get(self.data(softmax))?;
        let product = *self.writers.get(self.data(scale))?;
        let factor = self.node(scale).node.input.iter().find(|name| !self.is_computed(name))?;
        let factor = self.inference.values.get(factor)?.reals.as_ref()?.first()?.number()?;
        let [q, k] = self.computed(product)[..] else { return None };
        let (q, k) = (self.source(q)?, self.source(k)?);
        (q == k).then(|| (q, (1.0 / (factor * factor)).round() as usize))
    }

    /// Multiply-adds of a layer on tokens that are cut off behind its activation.
    fn padding(&self, node: usize) -> i64 {
        let elements = |name: &str| self.inference.values.get(name).and_then(|fact| fact.count().number());
        let macs = self.count(self.node(node)).macs;
        let mut value = self.output(node);
        for _ in 0..self.inference.nodes.len() {
            let next = self.readers(value).iter().copied().find(|&reader| self.op(reader) != "Sigmoid");
            let Some(next) = next else { break };
            match self.op(next) {
                "Slice" => {
                    let (Some(whole), Some(kept)) = (elements(value), elements(self.output(next))) else {
                        break;
                    };
                    return macs - macs / whole * kept;
                }
                "Gelu" | "Mul" | "Reshape" | "Transpose" | "DepthToSpace" => value = self.output(next),
                _ => break,
            }
        }
        0
    }
}

/// A layer norm lies in a module of its own, which has no other part.
fn site_name(path: &str) -> String {
    path.strip_suffix(".norm").filter(|outer| outer.ends_with("norm")).unwrap_or(path).to_owned()
}
