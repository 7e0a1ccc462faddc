//! A file's counts against a model, part by part.
//!
//! Exporters fold batch norms, shift them into the layer before, spell layer norms out, make two
//! convolutions one. The account says which part is missing, where its work went, and what that explains; it is made
//! from the file's own structure, matched to the model's graph ([`super::recognise`]), and
//! it must close: what the file has and what the account explains is what that graph has with nothing folded, and where
//! figures are published, these.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use emo_exporter::models::{CLASSES, Model};
use serde::Serialize;

use super::figures::dense::{self, Dense};
use super::figures::{Published, published};
use super::layers::{Place, linear, pixels};
use super::plan::{Count, Kind, Layer, Segment, Site, pooled};
use super::recognise::{Departure, Found, Input, Recognition, at_batch_one, recognise, recognise_as};
use crate::cost::{Pool, Work};
use crate::fact::Fact;
use crate::infer::{Inference, NodeFacts};
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

/// Whether a file is a model by its counts.
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
    /// What is published of a detector or a segmenter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense: Option<Dense>,
    /// Why it does not hold, and where; or what the figures cannot be compared with.
    pub reason: Option<String>,
}

/// Checks the claim that a file is `model`, whatever its classes.
#[must_use]
pub fn check(inference: &Inference, model: &Model) -> Claim {
    let refuse = |reason: String| Claim {
        model: model.name.to_string(),
        params: None,
        macs: None,
        fvcore: None,
        holds: false,
        account: Vec::new(),
        published: published(&model.name).copied(),
        dense: None,
        reason: Some(reason),
    };
    match recognise_as(inference, model) {
        Ok(recognition) => of(inference, &recognition),
        Err(departure) => refuse(departed(inference, &departure)),
    }
}

/// The claim that a recognised file is what it was recognised as.
#[must_use]
pub fn of(inference: &Inference, recognition: &Recognition) -> Claim {
    let figures = published(&recognition.model.name).copied();
    let reconciled = Input::of(inference)
        .ok_or_else(|| "expected an input [N, 3, H, W] or [N, H, W, 3] of known height and width".to_owned())
        .and_then(|input| Ok((reconcile(inference, recognition, &input)?, input)));
    match reconciled {
        Ok(((total, account), input)) => judge(recognition, &input, figures, total, account),
        Err(reason) => Claim {
            model: recognition.model.to_string(),
            params: None,
            macs: None,
            fvcore: None,
            holds: false,
            account: Vec::new(),
            published: figures,
            dense: None,
            reason: Some(reason),
        },
    }
}

/// Where the file leaves the claimed model, and what it is instead.
fn departed(inference: &Inference, departure: &Departure) -> String {
    let Departure { variant, matched, layers, reason } = departure;
    let place = format!("{matched} of {layers} layers are those of {variant}; then {reason}");
    match recognise(inference) {
        Ok(other) => format!("the file is {}: {place}", other.model),
        Err(_) => place,
    }
}

/// Sets the reconciled totals beside the published figures.
fn judge(
    recognition: &Recognition,
    input: &Input,
    figures: Option<Published>,
    total: Count,
    account: Vec<Entry>,
) -> Claim {
    // Parameters depend on the head's width, FLOPs on the input's and the windows' sizes too; where either is another
    // one, the account has closed at the model's own graph and the published figure says nothing.
    let classes = recognition.model.classes;
    let (head, size) = (classes == CLASSES, input.size == (224, 224));
    let window = recognition.model.other_window();
    let counts = head && size && window.is_none();
    let [params, macs, fvcore] = [total.params, total.macs, total.fvcore].map(u64::try_from);
    // An exact integer prints as published; a test holds the table to that.
    let holds = figures.is_none_or(|figures| {
        let params_hold = !head || params == Ok(figures.exact_params);
        let macs_hold = !counts || macs == Ok(figures.exact_macs);
        let fvcore_holds = !counts || fvcore == Ok(figures.exact_fvcore);
        params_hold && macs_hold && fvcore_holds
    });
    // With the published classes and windows; a test holds the table's FLOPs to the models.
    let as_published = |model: &&Model| Model::named(&model.name) == Some(*model);
    let dense = Some(&recognition.model).filter(as_published).and_then(|model| dense::published(&model.name));
    let holds = holds && dense.is_none_or(|dense| params == Ok(dense.exact_params));
    let (h, w) = input.size;
    let reason = match figures {
        Some(figures) if !holds => {
            let [params, macs, fvcore] =
                [figures.exact_params, figures.exact_macs, figures.exact_fvcore].map(|n| n as i64);
            let exact = Count { params, macs, fvcore };
            Some(format!("expected {exact}, found {total} with the account"))
        }
        Some(_) if !counts => {
            let own = Model::named(&recognition.model.name).and_then(Model::window);
            let [of, this] = [own, window].map(|side| match (side, window) {
                (Some(side), Some(_)) => format!(", windows of {side}"),
                _ => String::new(),
            });
            Some(format!(
                "figures are published for 224 × 224 pixels and {CLASSES} classes{of}; this is {h} × {w} and \
                 {classes}{this}"
            ))
        }
        _ => dense
            .filter(|_| !holds)
            .map(|dense| format!("expected {} parameters, found {}", dense.exact_params, total.params)),
    };
    Claim {
        model: recognition.model.to_string(),
        params: Some(total.params),
        macs: Some(total.macs),
        fvcore: Some(total.fvcore),
        holds,
        account,
        published: figures.filter(|_| head),
        dense,
        reason,
    }
}

/// The file's counts with the account of what is missing, place by place.
///
/// # Errors
/// A part of the file counts otherwise than the model, and nothing explains it.
fn reconcile(
    inference: &Inference,
    recognition: &Recognition,
    input: &Input,
) -> Result<(Count, Vec<Entry>), String> {
    let plan = &recognition.plan;
    let found = found(inference, recognition, input)?;
    let mut account: Vec<Entry> = Vec::new();
    let mut total = Count::default();
    let places: BTreeSet<&Place> = found.keys().chain(plan.segments.keys()).collect();
    for place in places {
        let (nothing, none) = (Segment::default(), Count::default());
        let expected = plan.segments.get(place).unwrap_or(&nothing);
        let found = *found.get(place).unwrap_or(&none);
        let part = Part { inference, recognition, input, place, expected, found };
        let entries = part.explain()?;
        let explained = entries.iter().fold(found, |sum, entry| sum + entry.count());
        if explained != expected.count {
            let with = if entries.is_empty() { "" } else { " with what folding explains" };
            let (expected, after) = (expected.count, part.name());
            return Err(format!("{after}: expected {expected}, found {explained}{with}"));
        }
        total = total + explained;
        account.extend(entries);
    }
    // Published figures are those of one image.
    let one = |count: i64| count / input.images.max(1) as i64;
    account.iter_mut().for_each(|entry| (entry.macs, entry.fvcore) = (one(entry.macs), one(entry.fvcore)));
    Ok((Count { macs: one(total.macs), fvcore: one(total.fvcore), ..total }, account))
}

impl Entry {
    fn count(&self) -> Count {
        Count { params: self.params, macs: self.macs, fvcore: self.fvcore }
    }
}

/// The counts of the file by place.
fn found(
    inference: &Inference,
    recognition: &Recognition,
    input: &Input,
) -> Result<BTreeMap<Place, Count>, String> {
    let number = |expr: &Expr, node: &NodeFacts| {
        let n = at_batch_one(expr, input.batch.as_deref()).and_then(|n| i64::try_from(n).ok());
        n.ok_or_else(|| format!("{} cannot be counted: {expr}", node.place()))
    };
    let mut found: BTreeMap<Place, Count> = BTreeMap::new();
    let mut add = |place: &Place, count: Count| {
        let sum = found.entry(place.clone()).or_default();
        *sum = *sum + count;
    };
    // Whichever of several layers that share a weight runs first in the file, the first of the model has it.
    let owners: HashMap<usize, Place> = recognition
        .found
        .iter()
        .enumerate()
        .flat_map(|(layer, found)| found.parts.iter().map(move |part| (part.node, layer)))
        .map(|(node, layer)| (node, Place::from([recognition.plan.owner(layer)])))
        .collect();
    for (index, (node, place)) in inference.nodes.iter().zip(&recognition.places).enumerate() {
        let params: Expr = node.weights().iter().map(|&w| inference.constants[w].parameters.clone()).sum();
        let params = Count { params: number(&params, node)?, ..Count::default() };
        let (macs, fvcore) = (number(&node.cost.macs, node)?, number(&node.cost.fvcore, node)?);
        add(owners.get(&index).unwrap_or(place), params);
        add(place, Count { macs, fvcore, ..Count::default() });
    }
    Ok(found)
}

/// A place of the model, and what the file has there.
struct Part<'a> {
    inference: &'a Inference<'a>,
    recognition: &'a Recognition,
    input: &'a Input,
    place: &'a Place,
    expected: &'a Segment,
    found: Count,
}

impl<'a> Part<'a> {
    /// The one layer that stands here.
    fn layer(&self) -> Option<(&'a Layer, &'a Found)> {
        let [layer] = self.place[..] else { return None };
        Some((&self.recognition.plan.layers[layer], &self.recognition.found[layer]))
    }

    fn name(&self) -> String {
        let names = self.place.iter().map(|&layer| self.recognition.plan.layers[layer].name.as_str());
        match &names.collect::<Vec<_>>()[..] {
            [] => "before the first layer".to_owned(),
            names => format!("from {} to the next layer", names.join(" and ")),
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &'a NodeFacts<'a>> {
        let nodes = self.inference.nodes.iter().zip(&self.recognition.places);
        nodes.filter(|(_, place)| *place == self.place).map(|(node, _)| node)
    }

    /// Entries for what the file lacks here, each read off its structure.
    fn explain(&self) -> Result<Vec<Entry>, String> {
        let mut entries: Vec<Entry> = self.pooled().into_iter().chain(self.resampled()).collect();
        entries.extend(self.same_size());
        // Parameters that the file lacks, as far as no entry has them.
        let mut lacking = self.expected.count.params - self.found.params;
        for &site in &self.expected.sites {
            if let Some(entry) = self.missing(&self.recognition.plan.sites[site], lacking)? {
                lacking -= entry.params;
                entries.push(entry);
            }
        }
        entries.extend(self.skipped_padding());
        entries.extend(self.one_window());
        entries.extend(self.merged());
        entries.extend(self.apart());
        Ok(entries)
    }

    /// A mean that one of the two has as pooling, which fvcore counts.
    fn pooled(&self) -> Option<Entry> {
        let batch = self.input.batch.as_deref();
        let pools = |node: &&NodeFacts| matches!(&*node.work, Work::Pool { kind: Pool::GlobalMean, .. });
        let elements = |node: &NodeFacts| match &*node.work {
            Work::Pool { inputs, .. } => at_batch_one(inputs, batch).unwrap_or(0) as i64,
            work => pooled(work),
        };
        let found: i64 = self.nodes().filter(pools).map(elements).sum();
        let into = match self.nodes().find(pools) {
            Some(node) => format!("{} (pooling, which fvcore counts)", node.place()),
            None => "a mean, which fvcore does not count".to_owned(),
        };
        let fvcore = self.expected.pooled - found;
        let (layer, _) = self.layer().filter(|_| fvcore != 0)?;
        Some(Entry { norm: format!("mean behind {}", layer.name), into, params: 0, macs: 0, fvcore })
    }

    /// Means over grids of cells and resizes, where the file has them as products with constants or as windows, or
    /// leaves out the last: what fvcore counts of them is then another number.
    fn resampled(&self) -> Option<Entry> {
        let (layer, _) = self.layer().filter(|_| self.expected.gridded + self.expected.resized > 0)?;
        let (products, resizes) = self.resampling();
        let reads = |layer: &Layer| layer.joined.iter().any(|(place, _)| place == self.place);
        let mut apart = self.recognition.layers().filter(|(_, found)| found.is_apart());
        let reader = apart.find(|(layer, _)| reads(layer)).map(|(layer, _)| layer);
        let expected = self.expected.gridded + self.expected.resized;
        let (norm, into) = match (self.expected.gridded > 0, products > 0) {
            (false, false) if reader.is_some() && resizes == 0 => ("the resize", "what reads it"),
            (false, false) if resizes == self.expected.resized => return None,
            (true, true) => ("means over grids", "products with constants, and windows"),
            (true, false) => ("means over grids", "windows"),
            (false, true) => ("the resize", "products with constants"),
            (false, false) => ("the resize", "left to who reads the file"),
        };
        Some(Entry {
            norm: format!("{norm} behind {}", layer.name),
            into: into.to_owned(),
            params: 0,
            macs: -products,
            fvcore: expected - resizes - products,
        })
    }

    /// Multiply-adds of products with constants here, and what fvcore counts of resizes.
    fn resampling(&self) -> (i64, i64) {
        let is_layer = |index: usize| {
            let parts = self.recognition.found.iter().flat_map(|found| &found.parts);
            parts.into_iter().any(|part| part.node == index)
        };
        let batch = self.input.batch.as_deref();
        let number = |expr: &Expr| at_batch_one(expr, batch).unwrap_or(0) as i64;
        let (mut products, mut resizes) = (0, 0);
        for index in 0..self.inference.nodes.len() {
            let node = &self.inference.nodes[index];
            if self.recognition.places[index] != *self.place {
                continue;
            }
            match &*node.work {
                Work::Resize { .. } if !self.same(node) => resizes += number(&node.cost.fvcore),
                _ if node.node.op_type() == "MatMul" && !is_layer(index) && self.has_constant(node) => {
                    products += number(&node.cost.macs);
                }
                _ => {}
            }
        }
        (products, resizes)
    }

    /// A layer over maps side by side that is done map by map, before the maps are resized.
    fn apart(&self) -> Option<Entry> {
        let (layer, found) = self.layer().filter(|(_, found)| found.is_apart())?;
        let (products, resizes) = self.resampling();
        let saved = found.parts.iter().map(|part| {
            let (shape, _) = linear(self.inference, part.node)?;
            let fewer = layer.pixels as i64 - pixels(self.inference, part.node, shape) as i64;
            Some(fewer * (shape.inputs * shape.outputs * self.input.images.max(1)) as i64)
        });
        let macs = saved.sum::<Option<i64>>()? - products;
        Some(Entry {
            norm: format!("{} over maps side by side", layer.name),
            into: "a layer a map, before the map is resized".to_owned(),
            params: 0,
            macs,
            fvcore: macs - resizes,
        })
    }

    fn has_constant(&self, node: &NodeFacts) -> bool {
        let fact = |name: &String| self.inference.values.get(name.as_str());
        node.node.input.iter().any(|name| fact(name).is_some_and(|fact| fact.source.is_some()))
    }

    /// Whether a node leaves the size of its map as it is.
    fn same(&self, node: &NodeFacts) -> bool {
        let dims =
            |fact: Option<&Fact>| fact.and_then(|fact| fact.dims.as_deref().ok().map(<[Expr]>::to_vec));
        let before = node.node.input.first().and_then(|name| self.inference.values.get(name.as_str()));
        dims(before) == dims(node.outputs.first().map(AsRef::as_ref))
    }

    /// Resizes that leave the size as it is, which fvcore counts and no file of ours has.
    fn same_size(&self) -> Option<Entry> {
        let same = |node: &&NodeFacts| matches!(&*node.work, Work::Resize { .. }) && self.same(node);
        let first = self.nodes().find(same)?;
        let batch = self.input.batch.as_deref();
        let count = |node: &NodeFacts| at_batch_one(&node.cost.fvcore, batch).unwrap_or(0) as i64;
        let fvcore: i64 = self.nodes().filter(same).map(count).sum();
        Some(Entry {
            norm: "no resize to the same size".to_owned(),
            into: format!("{} (which changes nothing)", first.place()),
            params: 0,
            macs: 0,
            fvcore: -fvcore,
        })
    }

    /// The layer that is one with the next, which does the work of both.
    fn merged(&self) -> Option<Entry> {
        let (layer, _) = self.layer().filter(|(_, found)| found.is_merged())?;
        let next = &self.recognition.plan.layers[layer.merges?];
        let sites = self.expected.sites.iter().map(|&site| self.recognition.plan.sites[site].count);
        let own = sites.fold(self.expected.count, |rest, site| rest - site);
        let into = format!("{} (the two are one)", next.name);
        Some(Entry { norm: layer.name.clone(), into, params: own.params, macs: own.macs, fvcore: own.fvcore })
    }

    /// The entry of a part that is not in the file as one.
    fn missing(&self, site: &Site, lacking: i64) -> Result<Option<Entry>, String> {
        let entry =
            |into: String, params, fvcore| Entry { norm: site.name.clone(), into, params, macs: 0, fvcore };
        match site.kind {
            Kind::BatchNorm => self.batch_norm(site),
            Kind::LayerNorm => {
                let kept = self.nodes().any(|node| matches!(*node.work, Work::LayerNorm { .. }));
                // Scale and shift may have gone into the layers that read the norm; what spells it
                // counts nothing in fvcore, the operator counts as the model's.
                let params = lacking.min(site.count.params);
                let spelled =
                    self.nodes().find(|n| matches!(n.node.op_type(), "ReduceMean" | "GlobalAveragePool"));
                match (kept, spelled) {
                    (true, _) if params == 0 => Ok(None),
                    (true, _) => Ok(Some(entry("the layers that read it".to_owned(), params, 0))),
                    (false, Some(node)) => {
                        let into = format!("{} and what follows", node.place());
                        Ok(Some(entry(into, params, site.count.fvcore)))
                    }
                    (false, None) => Err(format!("{} is missing: expected it {}", site.name, self.name())),
                }
            }
            Kind::Scale | Kind::Shift | Kind::Token => {
                let params = lacking.min(site.count.params);
                let into = self.layer().map_or("the layers beside it", |(layer, _)| layer.name.as_str());
                Ok((params > 0).then(|| entry(into.to_owned(), params, 0)))
            }
        }
    }

    /// The entry of a batch norm that is part of a layer beside it.
    fn batch_norm(&self, site: &Site) -> Result<Option<Entry>, String> {
        let Some((layer, found)) = self.layer() else { return Ok(None) };
        let kept = self.nodes().any(|node| matches!(*node.work, Work::BatchNorm { .. }));
        let gained = if layer.bias.is_some() || !found.has_bias() { 0 } else { layer.shape.outputs as i64 };
        if kept {
            return match gained {
                0 => Ok(None),
                _ => Err(format!("{} has a bias that nothing explains: {} is there", layer.name, site.name)),
            };
        }
        let reads = |(other, found): &(&Layer, &Found)| {
            let before = other.before.map(|site| &self.recognition.plan.sites[site].name);
            before == Some(&site.name) && found.has_bias()
        };
        let into = match self.recognition.layers().find(reads) {
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
        let (params, fvcore) = (site.count.params - gained, site.count.fvcore);
        Ok(Some(Entry { norm: site.name.clone(), into: into.clone(), params, macs: 0, fvcore }))
    }

    /// Attention over tiles and over strides computed once, where the map is one window.
    fn one_window(&self) -> Option<Entry> {
        let macs = self.expected.doubled;
        let lacks = self.expected.count.macs - self.found.macs == macs;
        let layer = &self.recognition.plan.layers[*self.place.first()?].name;
        (macs > 0 && lacks).then(|| Entry {
            norm: format!("the second attention behind {layer}"),
            into: "the first: the map is one window, and both are the same".to_owned(),
            params: 0,
            macs,
            fvcore: macs,
        })
    }

    /// A value layer that is computed where no token pads a window.
    fn skipped_padding(&self) -> Option<Entry> {
        let (layer, _) = self.layer()?;
        let macs = layer.padding;
        let lacks = self.expected.count.macs - self.found.macs == macs;
        (macs > 0 && lacks).then(|| Entry {
            norm: format!("padding before {}", layer.name),
            into: format!("{} on the map without padding", layer.name),
            params: 0,
            macs,
            fvcore: macs,
        })
    }
}
