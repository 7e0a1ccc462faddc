//! Which model is this: a file's linear layers along its data, matched to those that a model's own graph has.
//!
//! Names mean nothing here: exporters rename, fold, decompose, split and reorder. What remains is the graph of
//! convolutions and products with weights: each layer by its shape, and by the layers that it stands behind. A layer
//! that has no partner is a departure with its place.
//!
//! Two pointwise layers with a batch norm between them and nothing else are one linear map, which an exporter may
//! write as one layer. The first is then found without a node of its own, and the second has the product.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use emo_exporter::models::{DENSE, MODELS, Model, Task};
use emo_proto::Result;
use serde::Serialize;

pub use super::found::{Found, Input, at_batch_one};
use super::layers::{Name, Order, Part, Place, Shape, linear, pixels, walk};
use super::plan::{Layer, Plan, Segment};
use super::windows;
use crate::infer::Inference;

/// A file that is a known model, layer by layer.
#[derive(Debug)]
pub struct Recognition {
    /// With the file's number of classes and its windows.
    pub model: Model,
    /// What is expected of it, at the size and for the images that the file takes, where it says so.
    pub plan: Arc<Plan>,
    /// What stands for each layer of the plan.
    pub found: Vec<Found>,
    /// The place of every node, by index.
    pub places: Vec<Place>,
    /// Other models that the file is as well.
    pub ties: Vec<String>,
}

impl Recognition {
    /// Published layers with what stands for them.
    pub fn layers(&self) -> impl Iterator<Item = (&Layer, &Found)> {
        self.plan.layers.iter().zip(&self.found)
    }

    /// The layers that the file has as one with the next, and these.
    pub fn merged(&self) -> impl Iterator<Item = (&Layer, &Layer)> {
        let merged = self.layers().filter(|(_, found)| found.is_merged());
        merged.filter_map(|(layer, _)| Some((layer, &self.plan.layers[layer.merges?])))
    }

    /// Whether a node stands behind that layer and no later one.
    #[must_use]
    pub fn is_behind(&self, node: usize, layer: usize) -> bool {
        *self.places[node] == [layer]
    }
}

/// Where a file leaves a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Departure {
    pub variant: String,
    /// Layers that match before.
    pub matched: usize,
    /// Layers of the model.
    pub layers: usize,
    pub reason: String,
}

/// Models that are tried in full, those whose layers the file shares most of.
const TRIED: usize = 3;

/// The model that a file is.
///
/// # Errors
/// The departure tells which model the file follows furthest, and where it leaves it.
pub fn recognise(inference: &Inference) -> Result<Recognition, Departure> {
    let shapes = shapes(inference);
    let mut best: Option<Departure> = None;
    let mut found: Option<Recognition> = None;
    // To build all models of other tasks takes longer than to judge a classifier.
    for rows in [&CLASSIFIERS, &OTHERS] {
        let mut models: Vec<_> = rows.iter().map(|(model, own)| (shared(own, &shapes), *model)).collect();
        models.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
        let most = models.first().map_or(0, |(shared, _)| *shared);
        for (shared, model) in models.into_iter().take(TRIED) {
            // A model of which the file has fewer layers is no tie.
            if found.is_some() && shared < most {
                break;
            }
            match (recognise_as(inference, model), &mut found) {
                (Ok(recognition), None) => found = Some(recognition),
                (Ok(other), Some(found)) => found.ties.push(other.model.name.to_string()),
                (Err(departure), _) if best.as_ref().is_none_or(|b| departure.matched > b.matched) => {
                    best = Some(departure);
                }
                (Err(_), _) => {}
            }
        }
        if found.is_some() {
            break;
        }
    }
    found.ok_or_else(|| best.expect("there are models"))
}

/// The file as one given model, whatever its classes and windows.
///
/// # Errors
/// Where the file leaves it.
pub fn recognise_as(inference: &Inference, model: &Model) -> Result<Recognition, Departure> {
    let plan = plan_for(model, inference).map_err(|error| departure(model, 0, 0, error.to_string()))?;
    let mut matching = Matching {
        inference,
        plan: &plan,
        found: vec![None; plan.layers.len()],
        classes: None,
        late: Vec::new(),
        readers: LazyCell::new(Box::new(|| readers(inference))),
    };
    let depart =
        |matching: &Matching, reason: String| departure(model, matching.matched(), plan.layers.len(), reason);
    let places = match walk(inference, &mut matching) {
        Ok(places) => places,
        Err(reason) => return Err(depart(&matching, reason)),
    };
    if let Some(reason) = matching.missing() {
        return Err(depart(&matching, reason));
    }
    let classes = matching.classes.unwrap_or(model.classes);
    let found: Vec<Found> = matching.found.into_iter().flatten().collect();
    let plan = windows::at_size(inference, &found, &places, &model.with_classes(classes), &plan);
    let model = plan.model.clone();
    Ok(Recognition { model, plan, found, places, ties: Vec::new() })
}

fn departure(model: &Model, matched: usize, layers: usize, reason: String) -> Departure {
    Departure { variant: model.name.to_string(), matched, layers, reason }
}

/// What is expected of a model: at the file's own size where layers that are alike stand beside each other, as those of
/// heads on several maps do, and are told apart by their maps.
fn plan_for(model: &Model, inference: &Inference) -> Result<Arc<Plan>> {
    let known = plan(model)?;
    match Input::of(inference) {
        Some(input) if model.task() != Task::Classify && input.size != model.published_size() => {
            Ok(Arc::new(Plan::new(model, input.size, input.images)?))
        }
        _ => Ok(known),
    }
}

/// What is expected of a model at its published size, made once.
fn plan(model: &Model) -> Result<Arc<Plan>> {
    static PLANS: Mutex<Vec<Arc<Plan>>> = Mutex::new(Vec::new());
    let known = || PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(plan) = known().iter().find(|plan| plan.model == *model) {
        return Ok(plan.clone());
    }
    let plan = Arc::new(Plan::new(model, model.published_size(), 1)?);
    known().push(plan.clone());
    Ok(plan)
}

/// Shapes of weights, and how many a network has of each.
type Shapes = HashMap<Vec<usize>, usize>;

/// Published models, and the shapes of each.
type Rows = LazyLock<Vec<(&'static Model, Shapes)>>;

static CLASSIFIERS: Rows = LazyLock::new(|| MODELS.iter().map(|model| (model, own(model))).collect());
static OTHERS: Rows = LazyLock::new(|| DENSE.iter().map(|model| (model, own(model))).collect());

fn own(model: &Model) -> Shapes {
    let parameters = model.parameters();
    count(parameters.into_iter().map(|p| p.shape).filter(|shape| shape.len() > 1))
}

fn count(shapes: impl Iterator<Item = Vec<usize>>) -> Shapes {
    let mut counts = Shapes::new();
    for mut shape in shapes {
        while shape.len() > 2 && shape.last() == Some(&1) {
            shape.pop();
        }
        *counts.entry(shape).or_default() += 1;
    }
    counts
}

fn shapes(inference: &Inference) -> Shapes {
    let layers = (0..inference.nodes.len()).filter_map(|index| linear(inference, index));
    count(layers.map(|(shape, _)| vec![shape.outputs, shape.inputs, shape.kernel, shape.kernel]))
}

fn shared(own: &Shapes, found: &Shapes) -> usize {
    own.iter().map(|(shape, n)| found.get(shape).map_or(0, |m| *n.min(m))).sum()
}

/// A file's layers, one after the other, beside those of a plan.
struct Matching<'a> {
    inference: &'a Inference<'a>,
    plan: &'a Plan,
    found: Vec<Option<Found>>,
    classes: Option<usize>,
    /// Layers that stand behind an attention instead of beside it, and this.
    late: Vec<(usize, usize)>,
    /// The main graph's readers of each value.
    readers: LazyCell<Readers<'a>, Box<dyn FnOnce() -> Readers<'a> + 'a>>,
}

type Readers<'a> = HashMap<&'a str, Vec<usize>>;

fn readers<'a>(inference: &'a Inference<'a>) -> Readers<'a> {
    let mut readers = Readers::new();
    for (index, node) in inference.nodes.iter().enumerate().filter(|(_, node)| node.path.is_empty()) {
        for name in &node.node.input {
            readers.entry(name).or_default().push(index);
        }
    }
    readers
}

/// Layers of each shape.
type Following = HashMap<Shape, usize>;

impl Matching<'_> {
    fn matched(&self) -> usize {
        self.found.iter().flatten().count()
    }

    /// The layers that stand at `place` and are not found whole.
    fn open<'m>(&'m self, place: &'m [usize]) -> impl Iterator<Item = usize> + 'm {
        let layers = self.plan.layers.iter().enumerate();
        layers
            .filter(move |(index, layer)| *layer.place == *place && self.lacks(*index) > 0)
            .map(|(index, _)| index)
    }

    /// The outputs of a layer that are not found yet.
    fn lacks(&self, layer: usize) -> usize {
        let outputs = self.plan.layers[layer].shape.outputs;
        match &self.found[layer] {
            Some(found) if found.is_merged() || self.plan.layers[layer].per_class > 0 => 0,
            Some(found) if found.shape.inputs < self.plan.layers[layer].shape.inputs => outputs,
            Some(found) => outputs.saturating_sub(found.shape.outputs),
            None => outputs,
        }
    }

    /// The layer that reads the map at `place` side by side with others, and the map's first channel there.
    fn column(&self, shape: Shape, place: &Place) -> Option<(usize, usize)> {
        (0..self.found.len()).filter(|&layer| self.lacks(layer) > 0).find_map(|layer| {
            let whole = &self.plan.layers[layer];
            let mut column = 0;
            for (at, channels) in &whole.joined {
                let is_taken = |found: &Found| found.parts.iter().any(|part| part.column == column);
                let part = Shape { inputs: *channels, ..whole.shape };
                if at == place && part == shape && !self.found[layer].iter().any(is_taken) {
                    return Some((layer, column));
                }
                column += channels;
            }
            None
        })
    }

    /// Whether parts of the layer were found that read a map each.
    fn is_apart(&self, layer: usize) -> bool {
        let whole = self.plan.layers[layer].shape.inputs;
        self.found[layer].as_ref().is_some_and(|found| found.is_apart() || found.shape.inputs < whole)
    }

    fn is_whole(&self, layer: usize, shape: Shape) -> bool {
        self.found[layer].is_none() && self.plan.layers[layer].shape == shape
    }

    /// Whether the layer is dilated, and of that shape but for its dilation.
    fn is_dilated(&self, layer: usize, shape: Shape) -> bool {
        let dilation = self.plan.layers[layer].shape.dilation;
        dilation > 1 && self.is_whole(layer, Shape { dilation, ..shape })
    }

    /// Whether the layer classifies, into any number of classes; the first such layer decides how many.
    fn classifies(&self, index: usize, shape: Shape) -> Option<usize> {
        let layer = &self.plan.layers[index];
        let fixed = layer.shape.outputs.checked_sub(layer.per_class * self.plan.model.classes)?;
        let classes = shape.outputs.checked_sub(fixed)?.checked_div(layer.per_class)?;
        let fits = Shape { outputs: shape.outputs, ..layer.shape } == shape
            && fixed + classes * layer.per_class == shape.outputs
            && classes > 0
            && self.classes.is_none_or(|known| known == classes);
        (fits && self.found[index].is_none()).then_some(classes)
    }

    /// Whether the layer is a part of `layer`'s rows: queries, keys or values.
    fn is_part(&self, layer: usize, shape: Shape) -> bool {
        let whole = &self.plan.layers[layer];
        let outputs = whole.shape.outputs;
        whole.attention.is_some()
            && Shape { outputs, ..shape } == whole.shape
            && outputs.is_multiple_of(shape.outputs.max(1))
            && shape.outputs <= self.lacks(layer)
    }

    /// A layer of that shape that should stand behind an attention's queries and keys and stands beside them, or should
    /// stand beside them and stands behind: values that are projected before the attention, or after it.
    fn displaced(&mut self, shape: Shape, place: &Place) -> Option<usize> {
        let layers = &self.plan.layers;
        let attends = |at: &Place| match at[..] {
            [attention] if layers[attention].attention.is_some() => Some(attention),
            _ => None,
        };
        let is_moved = |&layer: &usize| {
            let own = &layers[layer].place;
            let early = attends(own).is_some_and(|attention| layers[attention].place == *place);
            let late =
                attends(place).is_some_and(|attention| layers[attention].place == *own && layer != attention);
            early || late
        };
        let layer = (0..layers.len()).filter(|&layer| self.is_whole(layer, shape)).find(is_moved)?;
        self.late.extend(attends(place).map(|attention| (layer, attention)));
        Some(layer)
    }

    /// The second of two layers of which the first stands at `place`, and whose product `shape` is. Of an identity and a
    /// product alone the first can be made anew, so it has to be square.
    fn product(&self, first: usize, shape: Shape) -> Option<usize> {
        let layer = &self.plan.layers[first];
        let second = layer.merges.filter(|_| self.found[first].is_none())?;
        let next = self.plan.layers[second].shape;
        let square = layer.shape.inputs == layer.shape.outputs;
        let product = Shape { inputs: layer.shape.inputs, ..next };
        (square
            && layer.shape.is_pointwise()
            && next.is_pointwise()
            && shape == product
            && shape != layer.shape)
            .then_some(second)
    }

    /// Of layers that a node may be, the one whose map has as many pixels and behind which the layers are most alike.
    fn nearest(&self, layers: &[usize], shape: Shape, node: usize) -> Option<usize> {
        let [_, _, ..] = layers else { return layers.first().copied() };
        let pixels = pixels(self.inference, node, shape);
        let found = self.following(node);
        let share = |layer: usize| {
            let own = self.expected_behind(layer);
            let alike: usize = own.iter().map(|(shape, n)| found.get(shape).map_or(0, |m| *n.min(m))).sum();
            let all = own.values().sum::<usize>().max(found.values().sum());
            (self.plan.layers[layer].pixels == pixels, alike * 1000 / all.max(1))
        };
        // Of several that are as near the first.
        layers.iter().copied().rev().max_by_key(|&layer| share(layer))
    }

    /// The layers that depend on a node of the file.
    fn following(&self, node: usize) -> Following {
        let (mut seen, mut open) = (HashSet::new(), vec![node]);
        let mut following = Following::new();
        while let Some(index) = open.pop() {
            let node = self.inference.nodes[index].node;
            if node.op_type() == "Shape" {
                continue;
            }
            let next = node.output.iter().filter_map(|name| self.readers.get(name.as_str())).flatten();
            for &reader in next.filter(|reader| seen.insert(**reader)) {
                if let Some((shape, _)) = linear(self.inference, reader) {
                    *following.entry(shape).or_default() += 1;
                }
                open.push(reader);
            }
        }
        following
    }

    /// The layers that depend on one of the plan.
    fn expected_behind(&self, layer: usize) -> Following {
        let mut following = Following::new();
        for (other, row) in self.plan.layers.iter().enumerate() {
            if self.plan.order.is_before(layer, other) {
                *following.entry(row.shape).or_default() += 1;
            }
        }
        following
    }

    fn take(&mut self, layer: usize, shape: Shape, part: Part) {
        let apart = shape.inputs < self.plan.layers[layer].shape.inputs;
        match &mut self.found[layer] {
            Some(found) if apart => {
                found.shape.inputs += shape.inputs;
                found.parts.push(part);
            }
            Some(found) => {
                found.shape.outputs += shape.outputs;
                found.parts.push(part);
            }
            none => *none = Some(Found { parts: vec![part], shape }),
        }
    }

    /// The first layer that the file lacks.
    fn missing(&self) -> Option<String> {
        let missing = (0..self.found.len()).find(|&layer| self.lacks(layer) > 0)?;
        let Layer { name, shape, .. } = &self.plan.layers[missing];
        Some(match &self.found[missing] {
            None => format!("expected {name} ({shape}), found the end of the network"),
            Some(found) => {
                let node = self.inference.nodes[found.parts[0].node].place();
                let (n, what) = match self.is_apart(missing) {
                    true => (found.shape.inputs, "inputs"),
                    false => (found.shape.outputs, "outputs"),
                };
                format!("expected {name} ({shape}), found {n} of its {what} at {node}")
            }
        })
    }
}

impl Name for Matching<'_> {
    type Error = String;

    fn name(&mut self, shape: Shape, part: Part, place: Place) -> Result<Option<usize>, String> {
        let open: Vec<usize> = self.open(&place).collect();
        let at = |is: &dyn Fn(usize) -> bool| open.iter().copied().find(|&layer| is(layer));
        let whole: Vec<usize> = open.iter().copied().filter(|&layer| self.is_whole(layer, shape)).collect();
        if let Some(layer) = self.nearest(&whole, shape, part.node) {
            self.take(layer, shape, part);
            return Ok(Some(layer));
        }
        if let Some((layer, classes)) = open.iter().find_map(|&l| Some((l, self.classifies(l, shape)?))) {
            self.classes = Some(classes);
            self.take(layer, shape, part);
            return Ok(Some(layer));
        }
        if let Some(layer) = at(&|layer| self.is_part(layer, shape)) {
            self.take(layer, shape, part);
            return Ok(Some(layer));
        }
        if let Some((first, second)) =
            open.iter().find_map(|&first| Some((first, self.product(first, shape)?)))
        {
            let merged = self.plan.layers[first].shape;
            self.found[first] = Some(Found { parts: Vec::new(), shape: merged });
            self.take(second, shape, part);
            return Ok(Some(second));
        }
        // A branch that is spread otherwise is told by structure.
        if let Some(layer) = at(&|layer| self.is_dilated(layer, shape)) {
            self.take(layer, shape, part);
            return Ok(Some(layer));
        }
        if let Some(layer) = self.displaced(shape, &place) {
            self.take(layer, shape, part);
            return Ok(Some(layer));
        }
        if let Some((layer, column)) = self.column(shape, &place) {
            self.take(layer, shape, Part { column, ..part });
            return Ok(Some(layer));
        }
        // Means over grids of cells may be products with constants, and so may what is resized.
        let resampled = |segment: &Segment| segment.gridded > 0 || segment.resized > 0;
        let product = self.inference.nodes[part.node].node.op_type() == "MatMul";
        let apart = matches!(place[..], [layer] if self.is_apart(layer));
        if product && (apart || self.plan.segments.get(&place).is_some_and(resampled)) {
            return Ok(None);
        }
        let node = self.inference.nodes[part.node].place();
        let expected =
            open.first().copied().or_else(|| (0..self.found.len()).find(|&layer| self.lacks(layer) > 0));
        Err(match expected.map(|layer| &self.plan.layers[layer]) {
            Some(Layer { name, shape: expected, .. }) if *expected != shape => {
                format!("expected {name} ({expected}), found {node} ({shape})")
            }
            Some(Layer { name, shape: expected, .. }) => {
                format!("expected {name} ({expected}), found {node} at another place of the network")
            }
            None => format!("expected the end of the network, found {node} ({shape})"),
        })
    }

    fn add_bias(&mut self, layer: usize, made: usize, bias: String, elements: usize) {
        let Some(found) = &mut self.found[layer] else { return };
        let parts = if found.is_apart() { 1 } else { found.parts.len() };
        let outputs = found.shape.outputs;
        if let Some(part) = found.parts.iter_mut().find(|part| part.node == made)
            && elements * parts == outputs
        {
            part.bias = Some(bias);
        }
    }

    fn order(&self) -> &Order {
        &self.plan.order
    }

    fn behind(&self, layer: usize) -> Place {
        // Behind attention that should have come with it, both are.
        match self.late.iter().find(|(late, _)| *late == layer) {
            Some(&(_, attention)) => Place::from([layer.min(attention), layer.max(attention)]),
            None => Place::from([layer]),
        }
    }
}
