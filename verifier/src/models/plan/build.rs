//! A plan, made of the exporter's graph.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;

use emo_exporter::encode::outline;
use emo_exporter::models::Model;
use emo_exporter::profile::{OPSETS, Profile};
use emo_exporter::rewrite::Kind;
use emo_exporter::target::{Batch, Output, Target};
use emo_proto::{ModelProto, Result};

use super::reading::Reading;
use super::{Count, Layer, Plan, Step, entry, pooled};
use crate::cost::Work;
use crate::infer::{Bindings, Inference, infer};
use crate::models::layers::{Name, Order, Part, Place, Shape, pixels, walk};

/// Nothing folded, in the latest opset.
fn unfolded() -> Target {
    Target { opset: &OPSETS[OPSETS.len() - 1], ..Target::new(Profile::reference()) }
}

impl Plan {
    /// The graph of `model` that gives `output` of images of that height and width, and where its nodes stand.
    ///
    /// # Errors
    /// The model does not give it.
    pub fn graph(model: &Model, output: Output, size: (usize, usize)) -> Result<(ModelProto, Vec<Place>)> {
        let target = Target { size, output: Some(output), ..unfolded() };
        let file = outline(&model.build(&target)?, target.opset, &[])?.model;
        let places = {
            let inference = infer(&file, &Bindings::new());
            let parameters = model.parameters().into_iter().map(|parameter| parameter.name).collect();
            let (layers, order) = (Vec::new(), Order::default());
            let Ok(places) =
                walk(&inference, &mut Naming { inference: &inference, parameters, layers, order });
            places
        };
        Ok((file, places))
    }

    /// Of `model` for `images` of that height and width.
    ///
    /// # Errors
    /// The model does not take that size.
    pub fn new(model: &Model, size: (usize, usize), images: usize) -> Result<Self> {
        let target = Target { size, batch: Batch::Fixed(images.max(1)), ..unfolded() };
        let built = model.build(&target)?;
        let file = outline(&built, target.opset, &[])?.model;
        let inference = infer(&file, &Bindings::new());
        let parameters = model.parameters().into_iter().map(|parameter| parameter.name).collect();
        let (layers, order) = (Vec::new(), Order::default());
        let mut naming = Naming { inference: &inference, parameters, layers, order };
        let Ok(places) = walk(&inference, &mut naming);
        let Naming { layers, order, .. } = naming;
        let graph = Reading::new(&inference, &places);
        let mut plan = Self {
            model: model.clone(),
            layers,
            sites: Vec::new(),
            segments: BTreeMap::new(),
            order,
            outputs: graph.outputs(),
        };
        for (index, node) in inference.nodes.iter().enumerate() {
            let segment = plan.segments.entry(places[index].clone()).or_default();
            let (count, step) = (graph.count(node), graph.step(index));
            segment.count = segment.count + count;
            segment.pooled += pooled(&node.work);
            segment.resized += if matches!(&*node.work, Work::Resize { .. }) { count.fvcore } else { 0 };
            segment.products += if step == Some(Step::Product) { count.macs } else { 0 };
            segment.doubled += graph.doubled(index, images.max(1));
            segment.steps.extend(step);
            segment.nodes.push((node.node.name().to_owned(), step));
            if let Some(site) = graph.site(index) {
                segment.sites.push(plan.sites.len());
                plan.sites.push(site);
            }
        }
        // What no operator pools is spelled otherwise even with nothing folded; the model pools.
        for pool in built.rewrites.iter().filter(|rewrite| rewrite.kind == Kind::Pool) {
            let node = inference.nodes.iter().position(|node| node.node.name().starts_with(&pool.into));
            let Some(segment) = node.and_then(|node| plan.segments.get_mut(&places[node])) else { continue };
            let count = Count { params: pool.parameters, macs: pool.macs, fvcore: pool.fvcore };
            segment.count = segment.count + count;
            segment.gridded += pool.fvcore - pool.macs;
        }
        graph.join(&mut plan);
        if model.classes > 0 {
            plan.classifiers(&model.with_classes(model.classes + 1).build(&target)?);
        }
        Ok(plan)
    }
}

/// Names the layers of a graph of ours, one after the other.
struct Naming<'a> {
    inference: &'a Inference<'a>,
    /// The names of what the model has learnt.
    parameters: HashSet<String>,
    layers: Vec<Layer>,
    order: Order,
}

impl Name for Naming<'_> {
    type Error = Infallible;

    fn name(&mut self, shape: Shape, part: Part, place: Place) -> Result<Option<usize>, Infallible> {
        let Part { node, weight, bias, .. } = part;
        if !self.parameters.contains(&weight) {
            return Ok(None);
        }
        self.layers.push(Layer {
            name: self.inference.nodes[node].node.name().to_owned(),
            shape,
            weight: entry(self.inference, &weight),
            bias: bias.map(|name| entry(self.inference, &name)),
            place: place.clone(),
            pixels: pixels(self.inference, node, shape),
            per_class: 0,
            attention: None,
            joined: Vec::new(),
            before: None,
            after: Vec::new(),
            merges: None,
            behind_gelu: false,
            padding: 0,
        });
        Ok(Some(self.order.push(&place)))
    }

    fn add_bias(&mut self, layer: usize, _: usize, bias: String, elements: usize) {
        let layer = &mut self.layers[layer];
        if layer.bias.is_none() && elements == layer.shape.outputs {
            layer.bias = Some(entry(self.inference, &bias));
        }
    }

    fn order(&self) -> &Order {
        &self.order
    }
}
