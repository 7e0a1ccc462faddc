//! A file's counts against a published model, norm by norm.
//!
//! Exporters fold batch norms, shift them into the layer before, spell layer norms out, make two
//! convolutions one. The account says which part is missing, where its work went, and what that explains; it is made
//! from the file's own structure, matched to the model's layers ([`mod@crate::recognise`]), and
//! it must close: what the file has and what the account explains is the published integer.

use std::fmt;
use std::ops::Add;
use std::sync::Arc;

use emo_exporter::layer::Norm;
use emo_exporter::models::emo::WINDOW;
use emo_exporter::models::{CLASSES, Model};
use emo_proto::ModelProto;
use serde::Serialize;

use crate::audit;
use crate::cost::{Pool, Work};
use crate::image::Image;
use crate::infer::{Inference, NodeFacts};
use crate::paper::{Published, print_flops, print_params, published};
use crate::recognise::{
    Departure, Found, Layer, NormSite, Recognition, Role, at_batch_one, recognise, recognise_as,
};
use crate::sym::Expr;

/// What a norm, or another part of the published model, would add to the file's counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The module that is not in the file as such: `stage1.0.norm`.
    pub norm: String,
    /// Where its work is done now: a layer, or how it is spelled.
    pub into: String,
    pub params: i64,
    pub macs: i64,
    pub fvcore: i64,
}

/// Whether a file is the published model by its counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Claim {
    pub model: String,
    /// Parameters of the file and the account together.
    pub params: Option<i64>,
    /// Multiply-adds for one image, of the file and the account together.
    pub macs: Option<i64>,
    /// FLOPs under fvcore's convention for one image, of the file and the account together.
    pub fvcore: Option<i64>,
    pub holds: bool,
    pub account: Vec<Entry>,
    pub published: Option<Published>,
    /// Why it does not hold, and where; or what the figures cannot be compared with.
    pub reason: Option<String>,
}

/// The counts of a part of a file, or of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    params: i64,
    macs: i64,
    fvcore: i64,
}

/// Checks the claim that a file is `model` (`emo-1m`).
#[must_use]
pub fn check(file: &ModelProto, inference: &Inference, model: &str) -> Claim {
    let figures = published(model).copied();
    let refuse = |reason: String| Claim {
        model: model.to_owned(),
        params: None,
        macs: None,
        fvcore: None,
        holds: false,
        account: Vec::new(),
        published: figures,
        reason: Some(reason),
    };
    let Some(figures) = figures else {
        return refuse(format!("nothing is published under the name {model}"));
    };
    let known = Model::named(model).expect("every published model has its row");
    let recognition = match recognise_as(inference, known) {
        Ok(recognition) => recognition,
        Err(departure) => return refuse(departed(inference, &departure)),
    };
    let Some(input) = input(file, inference) else {
        return refuse("expected an input [N, 3, H, W] or [N, H, W, 3] of known height and width".to_owned());
    };
    match reconcile(inference, &recognition, &input) {
        Ok((total, account)) => judge(&recognition, &input, figures, total, account),
        Err(reason) => refuse(reason),
    }
}

/// Where the file leaves the claimed model, and what it is instead.
fn departed(inference: &Inference, departure: &Departure) -> String {
    let Departure { variant, matched, layers, reason } = departure;
    let place = format!("{matched} of {layers} layers are those of {variant}; then {reason}");
    match recognise(inference) {
        Ok(other) => format!("the file is {}: {place}", other.model.name),
        Err(_) => place,
    }
}

/// Sets the reconciled totals beside the published figures.
fn judge(
    recognition: &Recognition,
    input: &Input,
    figures: Published,
    total: Count,
    account: Vec<Entry>,
) -> Claim {
    // Parameters depend on the head's width, FLOPs on the input's size too; where either is another
    // one, the account has closed at the model's own formulas and the published figure says nothing.
    let (head, size) = (recognition.model.classes == CLASSES, (input.height, input.width) == (224, 224));
    let [params, macs, fvcore] = [total.params, total.macs, total.fvcore].map(u64::try_from);
    let params_hold =
        !head || params.is_ok_and(|n| n == figures.exact_params && print_params(n) == figures.params);
    let fvcore_holds =
        !(head && size) || fvcore.is_ok_and(|n| n == figures.exact_fvcore && print_flops(n) == figures.flops);
    let macs_hold = !(head && size) || macs == Ok(figures.exact_macs);
    let holds = params_hold && macs_hold && fvcore_holds;
    let reason = if !holds {
        let exact = [figures.exact_params, figures.exact_macs, figures.exact_fvcore].map(|n| n as i64);
        let [params, macs, fvcore] = exact;
        let exact = Count { params, macs, fvcore };
        Some(format!("expected {exact}, found {total} with the account"))
    } else if head && size {
        None
    } else {
        let (h, w, classes) = (input.height, input.width, recognition.model.classes);
        Some(format!(
            "figures are published for 224 × 224 pixels and {CLASSES} classes; this is {h} × {w} and {classes}"
        ))
    };
    Claim {
        model: figures.model.to_owned(),
        params: Some(total.params),
        macs: Some(total.macs),
        fvcore: Some(total.fvcore),
        holds,
        account,
        published: head.then_some(figures),
        reason,
    }
}

/// The file's only image input.
struct Input {
    /// The name of a free batch.
    batch: Option<Arc<str>>,
    /// Images where the batch is fixed, 1 where it is free.
    images: i64,
    height: i64,
    width: i64,
}

fn input(model: &ModelProto, inference: &Inference) -> Option<Input> {
    let input = audit::inputs(model.graph.as_ref()?).next()?;
    let fact = inference.values.get(input.name())?;
    let [n, _, height, width] = Image::of(fact)?.extents(fact.dims.as_deref().ok()?)?;
    Some(Input {
        batch: n.symbols().into_iter().next(),
        images: n.number().unwrap_or(1),
        height: height.number()?,
        width: width.number()?,
    })
}

/// The file's counts with the account of what is missing, layer by layer.
///
/// # Errors
/// A part of the file counts otherwise than the model, and no norm explains it.
fn reconcile(
    inference: &Inference,
    recognition: &Recognition,
    input: &Input,
) -> Result<(Count, Vec<Entry>), String> {
    let found = found(inference, recognition, input)?;
    let (before, found) = found.split_first().ok_or("the file has no layers")?;
    if *before != Count::default() {
        return Err(format!("before the first layer: expected nothing to count, found {before}"));
    }
    let mut account: Vec<Entry> = Vec::new();
    let mut total = Count::default();
    let mut map = (input.height, input.width);
    for (i, (layer, found)) in recognition.layers.iter().map(|(layer, _)| layer).zip(found).enumerate() {
        let segment =
            Segment { inference, recognition, input, depth: i + 1, map: after(layer, map), found: *found };
        let entries = segment.explain()?;
        let explained = entries.iter().fold(*found, |sum, entry| sum + entry.count());
        let expected = segment.expected();
        if explained != expected {
            let with = if entries.is_empty() { "" } else { " with what folding explains" };
            return Err(format!(
                "from {} to the next layer: expected {expected}, found {explained}{with}",
                layer.name
            ));
        }
        map = segment.map;
        total = total + explained;
        account.extend(entries);
    }
    // Published figures are those of one image.
    let one = |count: i64| count / input.images.max(1);
    account.iter_mut().for_each(|entry| (entry.macs, entry.fvcore) = (one(entry.macs), one(entry.fvcore)));
    Ok((Count { macs: one(total.macs), fvcore: one(total.fvcore), ..total }, account))
}

impl Entry {
    fn count(&self) -> Count {
        Count { params: self.params, macs: self.macs, fvcore: self.fvcore }
    }
}

/// The counts of the file by depth.
fn found(inference: &Inference, recognition: &Recognition, input: &Input) -> Result<Vec<Count>, String> {
    let number = |expr: &Expr, node: &NodeFacts| {
        let n = at_batch_one(expr, input.batch.as_deref()).and_then(|n| i64::try_from(n).ok());
        n.ok_or_else(|| format!("{} cannot be counted: {expr}", node.place()))
    };
    let mut found = vec![Count::default(); recognition.layers.len() + 1];
    for (node, &depth) in inference.nodes.iter().zip(&recognition.depths) {
        let params: Expr = node.weights().iter().map(|&w| inference.constants[w].parameters.clone()).sum();
        let count = Count {
            params: number(&params, node)?,
            macs: number(&node.cost.macs, node)?,
            fvcore: number(&node.cost.fvcore, node)?,
        };
        found[depth] = found[depth] + count;
    }
    Ok(found)
}

/// The map behind a layer.
fn after(layer: &Layer, (height, width): (i64, i64)) -> (i64, i64) {
    match layer.shape.stride {
        2 => (height - height / 2, width - width / 2),
        _ => (height, width),
    }
}

/// A layer of the model and everything of the file up to the next one.
struct Segment<'a> {
    inference: &'a Inference<'a>,
    recognition: &'a Recognition,
    input: &'a Input,
    depth: usize,
    /// Height and width behind the layer.
    map: (i64, i64),
    found: Count,
}

impl Segment<'_> {
    fn layer(&self) -> &Layer {
        &self.recognition.layers[self.depth - 1].0
    }

    /// The layer before and the layer behind.
    fn neighbours(&self) -> [Option<&(Layer, Found)>; 2] {
        let at = |i: Option<usize>| i.and_then(|i| self.recognition.layers.get(i));
        [at(self.depth.checked_sub(2)), at(Some(self.depth))]
    }

    /// Pixels behind the layer, of all images.
    fn pixels(&self) -> i64 {
        self.map.0 * self.map.1 * self.input.images
    }

    /// The same, padded to whole windows.
    fn tokens(&self) -> i64 {
        let window = WINDOW as i64;
        let whole = |side: i64| (side + window - 1) / window * window;
        whole(self.map.0) * whole(self.map.1) * self.input.images
    }

    /// Where a published layer is computed: attention and its value see the padding, the
    /// squeeze-excite and the head a mean.
    fn positions(&self) -> i64 {
        let layer = self.layer();
        let value = self.neighbours()[0].is_some_and(|(before, _)| before.attention.is_some());
        match layer.role {
            Role::Mean => self.input.images,
            Role::Map if layer.attention.is_some() || value => self.tokens(),
            Role::Map => self.pixels(),
        }
    }

    fn expected(&self) -> Count {
        let Layer { shape, bias, norm, attention, .. } = self.layer();
        let weights = shape.outputs as i64 * shape.inputs as i64 * (shape.kernel * shape.kernel) as i64;
        let bias = if *bias { shape.outputs as i64 } else { 0 };
        // q·kᵀ and the product with the values: a window's tokens for each token and channel.
        let products = attention.map_or(0, |_| 2 * self.tokens() * (WINDOW * WINDOW * shape.inputs) as i64);
        let norm = norm.as_ref().map_or(Count::default(), |site| self.norm(site));
        let macs = weights * self.positions() + products;
        norm + Count { params: weights + bias, macs, fvcore: macs }
    }

    /// What a norm counts: scale and shift, and fvcore's 2 or 5 an element.
    fn norm(&self, site: &NormSite) -> Count {
        let each = match site.kind {
            Norm::Batch => 2,
            Norm::Layer => 5,
        };
        let channels = site.channels as i64;
        Count { params: 2 * channels, macs: 0, fvcore: each * channels * self.pixels() }
    }

    fn nodes(&self) -> impl Iterator<Item = &NodeFacts<'_>> {
        let nodes = self.inference.nodes.iter().zip(&self.recognition.depths);
        nodes.filter(|(_, depth)| **depth == self.depth).map(|(node, _)| node)
    }

    /// Entries for what the segment lacks, each read off the file's structure.
    fn explain(&self) -> Result<Vec<Entry>, String> {
        let mut entries = Vec::new();
        for node in self.nodes() {
            if let Work::Pool { kind: Pool::GlobalMean, inputs, .. } = &*node.work {
                let elements = at_batch_one(inputs, self.input.batch.as_deref()).unwrap_or(0);
                entries.push(Entry {
                    norm: format!("mean behind {}", self.layer().name),
                    into: format!("{} (pooling, which fvcore counts)", node.place()),
                    params: 0,
                    macs: 0,
                    fvcore: -i64::try_from(elements).unwrap_or(i64::MAX),
                });
            }
        }
        if let Some(site) = &self.layer().norm {
            entries.extend(self.missing(site)?);
        }
        entries.extend(self.skipped_padding());
        entries.extend(self.merged());
        Ok(entries)
    }

    /// The layer that is one with the next, which does the work of both.
    fn merged(&self) -> Option<Entry> {
        let (layer, found) = &self.recognition.layers[self.depth - 1];
        let (next, _) = self.neighbours()[1].filter(|_| found.is_merged())?;
        let params = (layer.shape.outputs * layer.shape.inputs) as i64;
        let macs = params * self.positions();
        let into = format!("{} (the two are one)", next.name);
        Some(Entry { norm: layer.name.clone(), into, params, macs, fvcore: macs })
    }

    /// The entry of a norm that is not in the file as one.
    fn missing(&self, site: &NormSite) -> Result<Option<Entry>, String> {
        let norm = self.norm(site);
        let is_norm = |work: &Work| match site.kind {
            Norm::Batch => matches!(work, Work::BatchNorm { .. }),
            Norm::Layer => matches!(work, Work::LayerNorm { .. }),
        };
        let kept = self.nodes().any(|node| is_norm(&node.work));
        let entry =
            |into: String, params, fvcore| Entry { norm: site.name.clone(), into, params, macs: 0, fvcore };
        let (layer, found) = &self.recognition.layers[self.depth - 1];
        let gained = if layer.bias || !found.has_bias() { 0 } else { layer.shape.outputs as i64 };
        match site.kind {
            Norm::Batch if kept && gained == 0 => Ok(None),
            Norm::Batch if kept => {
                Err(format!("{} has a bias that nothing explains: {} is there", layer.name, site.name))
            }
            Norm::Batch => {
                let next =
                    self.neighbours()[1].filter(|(next, found)| next.shape.kernel == 1 && found.has_bias());
                let into = match next {
                    _ if gained > 0 => &layer.name,
                    Some((next, _)) => &next.name,
                    None if found.has_bias() => &layer.name,
                    None => {
                        return Err(format!(
                            "{} is missing, and no layer beside it has a bias to hold it",
                            site.name
                        ));
                    }
                };
                Ok(Some(entry(into.clone(), norm.params - gained, norm.fvcore)))
            }
            Norm::Layer => {
                // Scale and shift may have gone into the layers that read the norm; what spells it
                // counts nothing in fvcore, the operator counts as the model's.
                let expected = self.expected();
                let params = (expected.params - self.found.params).min(norm.params);
                let spelled =
                    self.nodes().find(|n| matches!(n.node.op_type(), "ReduceMean" | "GlobalAveragePool"));
                match (kept, spelled) {
                    (true, _) if params == 0 => Ok(None),
                    (true, _) => Ok(Some(entry("the layers that read it".to_owned(), params, 0))),
                    (false, Some(node)) => {
                        Ok(Some(entry(format!("{} and what follows", node.place()), params, norm.fvcore)))
                    }
                    (false, None) => {
                        Err(format!("{} is missing: expected it behind {}", site.name, layer.name))
                    }
                }
            }
        }
    }

    /// A value layer that is computed where no token pads a window.
    fn skipped_padding(&self) -> Option<Entry> {
        let shape = self.layer().shape;
        let skipped = self.positions() - self.pixels();
        let macs = shape.outputs as i64 * shape.inputs as i64 * skipped;
        let lacks = self.expected().fvcore - self.found.fvcore == macs;
        let value = self.layer().role == Role::Map && self.layer().attention.is_none();
        (value && skipped > 0 && lacks).then(|| Entry {
            norm: format!("padding before {}", self.layer().name),
            into: format!("{} on the map without padding", self.layer().name),
            params: 0,
            macs,
            fvcore: macs,
        })
    }
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

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { params, macs, fvcore } = self;
        write!(f, "{params} parameters, {macs} MACs and {fvcore} FLOPs (fvcore)")
    }
}
