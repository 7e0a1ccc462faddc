//! The weights of a recognised file, back under the checkpoint's names.
//!
//! What an exporter folded away comes back as an identity: a folded batch norm as one that
//! only adds the bias that it left behind, a folded layer norm's scale and shift as ones and
//! zeros, a folded attention scale divided out of q, a layer that is merged into the next as
//! the identity before their product. The reference then computes the file's
//! function if, and only if, the file computes EMO's.

use std::collections::{BTreeMap, HashMap};
use std::f64::consts::FRAC_1_SQRT_2;

use emo_exporter::models::Model;
use emo_exporter::weights::{Origin, Weights};
use emo_proto::file::OnnxFile;
use emo_proto::tensor::Tensor;
use emo_proto::{Error, Result};

use super::layers::{Part, Place};
use super::plan::{Entry, Kind, Layer, Site};
use super::recognise::{Departure, Found, Recognition, recognise, recognise_as};
use crate::compare::{FLOAT32, Tolerance, coarser};
use crate::constants::{Constants, Grain};
use crate::cost::Work;
use crate::infer::{Bindings, Inference, NodeFacts, infer_file};

/// The weights, and what is left open by how the file holds them.
#[derive(Debug)]
pub struct Recovered {
    pub weights: Weights,
    /// Norms that are not in the file, and which layer bears their bias.
    pub folded: Vec<String>,
    /// Norms whose ε is not the published one, with the ε: the weights are right, the function is not.
    pub epsilons: Vec<(String, f64)>,
    /// Attention layers whose scale is part of q's weights, or missing: these cannot be told apart.
    pub scales_in_q: Vec<String>,
    /// Layers that have the ½ of the GELU before them in their weights, or lack it: these cannot be told apart.
    pub halves_in_weights: Vec<String>,
    /// Layers that are one with the next, and these: the two cannot be told apart.
    pub merged: Vec<(String, String)>,
    /// How the weights of each layer, and of each layer norm, are stored, by its name; what is not there is in f32.
    pub stored: BTreeMap<String, Stored>,
}

/// What a layer's weights were rounded to, each layer's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Of the coarsest type among them.
    pub tolerance: &'static Tolerance,
    /// How far an element of a row of the weight may be from what was rounded, whatever its size.
    pub weight: Vec<f64>,
    /// The same of the bias's elements.
    pub bias: Vec<f64>,
}

/// Reads the weights of a file that is `recognition.model`.
///
/// # Errors
/// A weight is no constant, is computed in a way that is not followed, or its data is absent.
pub fn recover(file: &OnnxFile, inference: &Inference, recognition: &Recognition) -> Result<Recovered> {
    let mut recovery = Recovery {
        inference,
        recognition,
        constants: Constants::new(file),
        tensors: BTreeMap::new(),
        folded: Vec::new(),
        epsilons: Vec::new(),
        scales_in_q: Vec::new(),
        halves_in_weights: Vec::new(),
        stored: BTreeMap::new(),
        left_over: BTreeMap::new(),
    };
    for (index, layer) in recognition.plan.layers.iter().enumerate() {
        recovery.layer(index).map_err(|e| e.at(&layer.name))?;
    }
    for (place, segment) in &recognition.plan.segments {
        for &site in &segment.sites {
            let site = &recognition.plan.sites[site];
            recovery.site(place, site).map_err(|e| e.at(&site.name))?;
        }
    }
    let origin = Origin::of_file(&file.bytes, Some("recovered weights".to_owned()));
    Ok(Recovered {
        weights: Weights::from_tensors(origin, recovery.tensors)?,
        folded: recovery.folded,
        epsilons: recovery.epsilons,
        scales_in_q: recovery.scales_in_q,
        halves_in_weights: recovery.halves_in_weights,
        stored: recovery.stored,
        merged: recognition.merged().map(|(a, b)| (a.name.clone(), b.name.clone())).collect(),
    })
}

/// The weights of an ONNX file that must be `model`, its number of classes included.
///
/// # Errors
/// The file is another model (it says which, or where it leaves EMO), or as [`recover`].
pub fn recover_as(file: &OnnxFile, model: &Model) -> Result<Weights> {
    let inference = infer_file(file, &Bindings::new());
    let recognition = recognise_as(&inference, model).map_err(|departure| {
        let Departure { variant, matched, layers, reason } = departure;
        Error::new(match recognise(&inference) {
            Ok(other) => {
                let (found, classes) = (&other.model.name, other.model.classes);
                format!(
                    "expected {variant} with {} classes, found {found} with {classes}: export that",
                    model.classes
                )
            }
            Err(_) => format!("no {variant}: {matched} of {layers} layers are its; then {reason}"),
        })
    })?;
    let (found, classes) = (recognition.model.classes, model.classes);
    if found != classes {
        let name = &model.name;
        return Err(Error::new(format!(
            "expected {name} with {classes} classes, found {name} with {found}: export that"
        )));
    }
    let recovered = recover(file, &inference, &recognition)?;
    if let Some((norm, epsilon)) = recovered.epsilons.first() {
        let site = recognition.plan.sites.iter().find(|site| site.name == *norm);
        let published = site.map_or(0.0, |site| site.epsilon);
        return Err(Error::new(format!(
            "expected an ε of {published:e} in {norm}, found {epsilon:e}: another function, which an export would not keep"
        )));
    }
    Ok(recovered.weights)
}

struct Recovery<'a> {
    inference: &'a Inference<'a>,
    recognition: &'a Recognition,
    constants: Constants<'a>,
    tensors: BTreeMap<String, Tensor>,
    folded: Vec<String>,
    epsilons: Vec<(String, f64)>,
    scales_in_q: Vec<String>,
    halves_in_weights: Vec<String>,
    stored: BTreeMap<String, Stored>,
    /// Biases of layers that are published without one, by place: what folded norms left behind.
    left_over: BTreeMap<Place, Vec<f32>>,
}

impl<'a> Recovery<'a> {
    fn nodes<'p>(&self, place: &'p Place) -> impl Iterator<Item = &'a NodeFacts<'a>> + use<'a, 'p> {
        let nodes = self.inference.nodes.iter().zip(&self.recognition.places);
        nodes.filter(move |(_, at)| *at == place).map(|(node, _)| node)
    }

    fn put(&mut self, entry: &Entry, values: Vec<f32>) -> Result<()> {
        let tensor = Tensor::from_f32(entry.dims.clone(), values).map_err(|e| e.at(&entry.name))?;
        self.tensors.insert(entry.name.clone(), tensor);
        Ok(())
    }

    fn layer(&mut self, index: usize) -> Result<()> {
        let recognition = self.recognition;
        let (layer, found) = (&recognition.plan.layers[index], &recognition.found[index]);
        let place = Place::from([index]);
        let (mut weight, bias) = self.weight_and_bias(layer, found)?;
        if let Some(stored) = self.stored(layer, found) {
            self.stored.insert(layer.name.clone(), stored);
        }
        let mut bias = bias.unwrap_or_else(|| vec![0.0; layer.shape.outputs]);
        if let Some(head_dim) = layer.attention {
            self.undo_scale(&place, layer, head_dim, &mut weight, &mut bias)?;
        }
        if self.lacks_half(layer) {
            weight.iter_mut().for_each(|x| *x *= 2.0);
            self.halves_in_weights.push(layer.name.clone());
        }
        self.put(&layer.weight, weight)?;
        // A bias that the published layer has not got is a folded norm's.
        if let Some(entry) = &layer.bias {
            self.put(entry, bias)?;
        } else if found.has_bias() {
            self.left_over.insert(place, bias);
        }
        Ok(())
    }

    fn site(&mut self, place: &Place, site: &Site) -> Result<()> {
        match site.kind {
            Kind::BatchNorm => self.batch_norm(place, site),
            Kind::LayerNorm => self.layer_norm(place, site),
            Kind::Scale => self.vector(place, site, "Mul", 1.0),
            Kind::Shift => self.vector(place, site, "Add", 0.0),
            Kind::Token => self.vector(place, site, "Concat", 0.0),
        }
    }

    /// The constant operand of an operator that has as many elements; `absent` throughout where there is none.
    fn vector(&mut self, place: &Place, site: &Site, operator: &str, absent: f32) -> Result<()> {
        // The next norm's own scale comes behind its statistics, which what is looked for here comes before.
        let statistics = |n: &&NodeFacts| matches!(n.node.op_type(), "LayerNormalization" | "ReduceMean");
        let nodes = self.nodes(place).take_while(|n| !statistics(n));
        let operands = nodes.filter(|n| n.node.op_type() == operator).flat_map(|n| &n.node.input);
        let fits = |name: &str| {
            let tensor = self.constants.tensor(name).ok()?;
            (tensor.len() == site.channels).then(|| tensor.f32s().ok()).flatten()
        };
        // How often something is repeated may depend on the input; what is repeated does not.
        let is_constant = |name: &&str| self.inference.values.get(name).is_some_and(|f| f.source.is_some());
        let found = operands.map(|name| self.unexpanded(name)).filter(is_constant).find_map(fits);
        if found.is_none() {
            self.folded.push(site.name.clone());
        }
        self.put(&site.entries[0], found.unwrap_or_else(|| vec![absent; site.channels]))
    }

    /// The number that constants are, or shapes: √C of a head's C channels.
    fn number(&self, name: &str) -> Option<f64> {
        let of_shapes = || match self.inference.values.get(name)?.reals.as_deref()? {
            [one] => one.number(),
            _ => None,
        };
        self.constants.number(name).or_else(of_shapes)
    }

    /// What an Expand repeats for every image of a batch.
    fn unexpanded<'n>(&self, name: &'n str) -> &'n str
    where
        'a: 'n,
    {
        let writer = self.inference.nodes.iter().find(|n| n.node.output.iter().any(|output| output == name));
        match writer.map(|n| n.node).filter(|node| node.op_type() == "Expand") {
            Some(node) => node.input.first().map_or(name, String::as_str),
            None => name,
        }
    }

    /// `[outputs, inputs, k, k]` and `[outputs]`, whatever the file's layout.
    fn weight_and_bias(&self, layer: &Layer, found: &Found) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        if found.is_merged() {
            return Ok((identity(layer.shape.outputs), None));
        }
        let (mut weights, mut bias) = (Vec::new(), None);
        for part in self.in_order(layer, found) {
            let tensor = self.constants.tensor(&part.weight)?;
            weights.push(if part.transposed { transposed(&tensor)? } else { tensor.f32s()? });
            if let Some(name) = &part.bias {
                bias.get_or_insert_with(Vec::new).extend(self.constants.tensor(name)?.f32s()?);
            }
        }
        let weight = if found.is_apart() { beside(&weights, layer.shape.outputs) } else { weights.concat() };
        let (outputs, inputs) = (layer.shape.outputs, layer.shape.inputs);
        let expected = outputs * inputs * layer.shape.kernel * layer.shape.kernel;
        if weight.len() != expected || bias.as_ref().is_some_and(|b: &Vec<f32>| b.len() != outputs) {
            return Err(Error::new(format!(
                "expected {expected} weights and {outputs} biases, found {}",
                weight.len()
            )));
        }
        Ok((weight, bias))
    }

    /// What a layer's weights were rounded to, where that is coarser than f32.
    fn stored(&self, layer: &Layer, found: &Found) -> Option<Stored> {
        let apart = found.is_apart();
        let rows = layer.shape.outputs / if apart { 1 } else { found.parts.len().max(1) };
        // A row that several parts have is as coarse as the coarsest of them.
        let add = |all: &mut Vec<f64>, steps: Vec<f64>| match apart && !all.is_empty() {
            true => all.iter_mut().zip(steps).for_each(|(all, step)| *all = all.max(step)),
            false => all.extend(steps),
        };
        let mut stored = Stored { tolerance: &FLOAT32, weight: Vec::new(), bias: Vec::new() };
        for part in self.in_order(layer, found) {
            let weight = self.constants.grain(&part.weight);
            let bias = part.bias.as_ref().map_or(Grain::Float32, |name| self.constants.grain(name));
            add(&mut stored.weight, weight.half_steps(rows));
            add(&mut stored.bias, bias.half_steps(rows));
            stored.tolerance = coarser(stored.tolerance, coarser(weight.tolerance(), bias.tolerance()));
        }
        (stored.tolerance != &FLOAT32).then_some(stored)
    }

    /// The parts of a layer: queries, keys, values.
    fn in_order<'f>(&self, layer: &Layer, found: &'f Found) -> Vec<&'f Part> {
        let mut parts: Vec<_> = found.parts.iter().collect();
        if layer.attention.is_some() && parts.len() > 1 {
            parts.sort_by_key(|part| self.factor(part.node));
        }
        if found.is_apart() {
            parts.sort_by_key(|part| part.column);
        }
        parts
    }

    /// What a node's output is in attention: 0 the first factor of the scores, 1 the second, 2 what they weight.
    fn factor(&self, index: usize) -> usize {
        let mut reached: Vec<&str> =
            self.inference.nodes[index].node.output.iter().map(String::as_str).collect();
        let mut weights: Vec<&str> = Vec::new();
        for node in &self.inference.nodes {
            let outputs = node.node.output.iter().map(String::as_str);
            let reads = |names: &[&str]| node.node.input.iter().any(|name| names.contains(&name.as_str()));
            if node.node.op_type() == "Softmax"
                || (reads(&weights) && !matches!(*node.work, Work::MatMul { .. }))
            {
                weights.extend(outputs);
            }
        }
        for node in &self.inference.nodes[index + 1..] {
            let inputs = &node.node.input;
            let product = matches!(*node.work, Work::MatMul { .. });
            match inputs.iter().position(|name| reached.contains(&name.as_str())) {
                Some(_) if product && inputs.iter().any(|name| weights.contains(&name.as_str())) => return 2,
                Some(operand) if product => return operand,
                Some(_) => reached.extend(node.node.output.iter().map(String::as_str)),
                None => {}
            }
        }
        2
    }

    /// Divides the published scale out of q, as far as the file does not apply it itself.
    fn undo_scale(
        &mut self,
        place: &Place,
        layer: &Layer,
        head_dim: usize,
        weight: &mut [f32],
        bias: &mut [f32],
    ) -> Result<()> {
        let published = 1.0 / (head_dim as f64).sqrt();
        let applied = self.applied_scale(place)?;
        // The file's own constant is a rounded one.
        if (applied / published - 1.0).abs() < 1e-3 {
            return Ok(());
        }
        if (applied - 1.0).abs() < 1e-6 {
            self.scales_in_q.push(layer.name.clone());
        }
        let factor = applied / published;
        // Queries have the channels of the map.
        let queries = layer.shape.inputs;
        let rows = &mut weight[..queries * layer.shape.inputs];
        rows.iter_mut().chain(&mut bias[..queries]).for_each(|x| *x = (f64::from(*x) * factor) as f32);
        Ok(())
    }

    /// Whether a layer that alone reads a GELU x·(1 + erf(x/√2)) has its ½: onnxsim moves it into the weights.
    fn lacks_half(&self, layer: &Layer) -> bool {
        if !layer.behind_gelu || !self.nodes(&layer.place).any(|n| n.node.op_type() == "Erf") {
            return false;
        }
        let factors = self.nodes(&layer.place).filter_map(|n| {
            let number = |i: usize| self.number(n.node.input.get(i)?);
            match n.node.op_type() {
                "Mul" => number(0).or_else(|| number(1)),
                "Div" => number(1).map(f64::recip),
                _ => None,
            }
        });
        // With the ½ it is half of that.
        (factors.product::<f64>() / FRAC_1_SQRT_2 - 1.0).abs() < 1e-2
    }

    /// The product of all constants that scale the scores, or q and k, before the softmax.
    fn applied_scale(&self, place: &Place) -> Result<f64> {
        let writers: HashMap<&str, &NodeFacts> =
            self.nodes(place).flat_map(|n| n.node.output.iter().map(move |o| (o.as_str(), n))).collect();
        let softmax = self.nodes(place).find(|n| n.node.op_type() == "Softmax");
        let softmax = softmax.ok_or_else(|| Error::new("expected a softmax behind q and k, found none"))?;
        let mut open: Vec<&str> = softmax.node.input.iter().map(String::as_str).collect();
        let (mut seen, mut scale) = (Vec::new(), 1.0);
        while let Some(name) = open.pop() {
            let Some(&node) = writers.get(name).filter(|_| !seen.contains(&name)) else { continue };
            seen.push(name);
            for (i, operand) in node.node.input.iter().enumerate() {
                let number = self.number(operand);
                match (node.node.op_type(), number, i) {
                    ("Mul", Some(factor), _) => scale *= factor,
                    ("Div", Some(divisor), 1) => scale /= divisor,
                    _ => open.push(operand),
                }
            }
        }
        Ok(scale)
    }

    /// The four entries of a batch norm: the file's, or an identity that adds what is left over.
    fn batch_norm(&mut self, place: &Place, site: &Site) -> Result<()> {
        let c = site.channels;
        let kept = self.nodes(place).find(|n| matches!(*n.work, Work::BatchNorm { .. }));
        let entries: [Vec<f32>; 4] = match kept {
            Some(node) => {
                let epsilon = attribute(node, "epsilon").unwrap_or(1e-5);
                self.epsilon(site, epsilon);
                let read = |i: usize| {
                    let name = node.node.input.get(i).map_or("", String::as_str);
                    self.constants.tensor(name).and_then(|t| t.f32s())
                };
                [read(1)?, read(2)?, read(3)?, read(4)?]
            }
            None => {
                self.folded.push(site.name.clone());
                // The variance and the published ε together are one.
                let variance = (1.0 - site.epsilon) as f32;
                let left_over = self.left_over.remove(place).unwrap_or_else(|| vec![0.0; c]);
                [vec![1.0; c], left_over, vec![0.0; c], vec![variance; c]]
            }
        };
        site.entries.iter().zip(entries).try_for_each(|(entry, values)| self.put(entry, values))
    }

    /// Scale and shift of a layer norm, as an operator's or as vectors that are multiplied and added.
    fn layer_norm(&mut self, place: &Place, site: &Site) -> Result<()> {
        let c = site.channels;
        let operator = self.nodes(place).find(|n| matches!(*n.work, Work::LayerNorm { .. }));
        let vector = |this: &Self, name: Option<&String>| {
            let tensor = this.constants.tensor(name?).ok()?;
            let values = (tensor.len() == c).then(|| tensor.f32s().ok()).flatten()?;
            Some((values, this.constants.grain(name?)))
        };
        let (mut scale, mut shift) = (None, None);
        if let Some(node) = operator {
            self.epsilon(site, attribute(node, "epsilon").unwrap_or(1e-5));
            scale = vector(self, node.node.input.get(1));
            shift = vector(self, node.node.input.get(2));
        }
        // Behind the means that spell the norm, or behind an operator whose own scale is ones.
        let spelled = |n: &&NodeFacts| matches!(n.node.op_type(), "ReduceMean" | "GlobalAveragePool");
        let from = self.nodes(place).position(|n| spelled(&n)).filter(|_| operator.is_none());
        for node in self.nodes(place).skip(from.unwrap_or(usize::MAX)) {
            let constant = node.node.input.iter().find_map(|name| vector(self, Some(name)));
            match (node.node.op_type(), constant) {
                ("Mul", Some(values)) if scale.is_none() => scale = Some(values),
                ("Add", Some(values)) if shift.is_none() => shift = Some(values),
                ("Add", None) => {
                    if let Some(epsilon) = node.node.input.iter().find_map(|n| self.number(n)) {
                        self.epsilon(site, epsilon);
                    }
                }
                _ => {}
            }
        }
        if scale.is_none() && shift.is_none() {
            self.folded.push(site.name.clone());
        }
        let ((scale, scale_grain), (shift, shift_grain)) = (
            scale.unwrap_or_else(|| (vec![1.0; c], Grain::Float32)),
            shift.unwrap_or_else(|| (vec![0.0; c], Grain::Float32)),
        );
        let tolerance = coarser(scale_grain.tolerance(), shift_grain.tolerance());
        if tolerance != &FLOAT32 {
            let (weight, bias) = (scale_grain.half_steps(c), shift_grain.half_steps(c));
            self.stored.insert(site.name.clone(), Stored { tolerance, weight, bias });
        }
        self.put(&site.entries[0], scale)?;
        self.put(&site.entries[1], shift)
    }

    fn epsilon(&mut self, site: &Site, epsilon: f64) {
        // As wide as f16 rounds.
        if (epsilon / site.epsilon - 1.0).abs() > 0.1 {
            self.epsilons.push((site.name.clone(), epsilon));
        }
    }
}

fn attribute(node: &NodeFacts, name: &str) -> Option<f64> {
    node.node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.f).map(f64::from)
}

/// Matrices of so many rows side by side.
fn beside(matrices: &[Vec<f32>], rows: usize) -> Vec<f32> {
    let row = |matrix: &Vec<f32>, i: usize| {
        let columns = matrix.len() / rows.max(1);
        matrix[i * columns..(i + 1) * columns].to_vec()
    };
    (0..rows).flat_map(|i| matrices.iter().flat_map(move |matrix| row(matrix, i))).collect()
}

/// `[n, n]`, ones on the diagonal.
fn identity(n: usize) -> Vec<f32> {
    (0..n * n).map(|i| f32::from(u8::from(i % (n + 1) == 0))).collect()
}

/// `[K, M]` as `[M, K]`.
fn transposed(tensor: &Tensor) -> Result<Vec<f32>> {
    let values = tensor.f32s()?;
    let [.., rows, columns] = tensor.dims[..] else {
        return Err(Error::new(format!("expected a matrix, found {:?}", tensor.dims)));
    };
    Ok((0..columns)
        .flat_map(|m| (0..rows).map(move |k| (m, k)))
        .map(|(m, k)| values[k * columns + m])
        .collect())
}
