//! Exact rewrites: norms and the attention scale go into the convolutions beside them, linear
//! neighbours become one. Each notes what it took out, or put in, so that an audit ends at the
//! published figures.
//!
//! Weights are folded with plain f64 loops in a fixed order and a square root, which
//! IEEE 754 rounds exactly: the same bytes on every machine.

use std::fmt;
use std::str::FromStr;

use emo_proto::{Error, Result};

use crate::graph::{Affine, Dim, FoldedConv, Graph, Node, Shape, Source, Value};
use crate::op::Op;
use crate::weights::Weights;

/// What an exact rewrite removed from the published model; what it added is negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    pub kind: Kind,
    /// The module that is gone, or whose work shrank: `stage1.0.norm`.
    pub what: String,
    /// The module that does its work now: `stage1.0.v.conv`.
    pub into: String,
    /// Learnable parameters fewer in the file.
    pub parameters: i64,
    /// Multiply-adds fewer, for the whole (or a free batch's single) input.
    pub macs: i64,
    /// Fewer in fvcore's count: multiply-adds, 2 per element of a batch norm, 5 of a layer norm,
    /// 1 of what is pooled.
    pub fvcore: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A batch norm folded into a convolution.
    Norm,
    /// The attention scale folded into q.
    Scale,
    /// A pointwise convolution that skips the tokens that only pad a window.
    Padding,
    /// A layer norm spelled out, or the part of one that was folded into what reads it.
    LayerNorm,
    /// Two pointwise convolutions in a row made one.
    Merge,
    /// A mean over the map written as pooling, which fvcore counts.
    Pool,
    /// An image of bytes normalised in the file.
    Image,
}

impl Kind {
    pub const ALL: [Self; 7] =
        [Kind::Norm, Kind::Scale, Kind::Padding, Kind::LayerNorm, Kind::Merge, Kind::Pool, Kind::Image];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Norm => "norm",
            Kind::Scale => "scale",
            Kind::Padding => "padding",
            Kind::LayerNorm => "layer-norm",
            Kind::Merge => "merge",
            Kind::Pool => "pool",
            Kind::Image => "image",
        }
    }

    /// What `n` of this kind are, in a report.
    #[must_use]
    pub fn describe(self, n: usize) -> String {
        let (what, done) = match self {
            Kind::Norm => ("batch norm", "folded into convolutions"),
            Kind::Scale => ("attention scale", "folded into q"),
            Kind::Padding => ("value convolution", "spared padded tokens"),
            Kind::LayerNorm => ("layer norm", "spelled out or folded"),
            Kind::Merge => ("pair", "of convolutions made one"),
            Kind::Pool => ("mean", "written as pooling"),
            Kind::Image => ("image", "normalised in the file"),
        };
        format!("{n} {what}{} {done}", if n == 1 { "" } else { "s" })
    }
}

/// `norm stage1.0.norm -> stage1.0.v.conv: 48 params, 0 MACs, 602112 fvcore`
impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, what, into, parameters, macs, fvcore } = self;
        let kind = kind.name();
        write!(f, "{kind} {what} -> {into}: {parameters} params, {macs} MACs, {fvcore} fvcore")
    }
}

impl FromStr for Rewrite {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let parse = || {
            let (modules, counts) = line.rsplit_once(": ")?;
            let (kind, modules) = modules.split_once(' ')?;
            let (what, into) = modules.split_once(" -> ")?;
            let mut counts = counts.split(", ").zip([" params", " MACs", " fvcore"]);
            let mut count = || counts.next().and_then(|(count, unit)| count.strip_suffix(unit)?.parse().ok());
            Some(Self {
                kind: Kind::ALL.into_iter().find(|k| k.name() == kind)?,
                what: what.to_owned(),
                into: into.to_owned(),
                parameters: count()?,
                macs: count()?,
                fvcore: count()?,
            })
        };
        parse().ok_or_else(|| {
            let shape = "KIND MODULE -> MODULE: N params, N MACs, N fvcore";
            Error::new(format!("expected a rewrite `{shape}`, found {line:?}"))
        })
    }
}

/// Folds every batch norm that has a convolution to go into.
///
/// Forward, where all that reads the norm are pointwise convolutions (a padded kernel would
/// see zeros where the norm's shift should be); backward otherwise, where a convolution
/// feeds the norm and nothing else.
pub(crate) fn batch_norms(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        let node = &graph.nodes[index];
        let Op::BatchNormalization { epsilon } = node.op else {
            index += 1;
            continue;
        };
        let (x, y) = (node.inputs[0], node.outputs[0]);
        let norm = Affine::BatchNorm { name: node.name.clone(), epsilon };
        let forward: Vec<usize> = graph.readers(y).collect();
        let backward = graph.writer(x).filter(|&w| matches!(graph.nodes[w].op, Op::Conv { .. }));
        let pointwise = |&i: &usize| matches!(graph.nodes[i].op, Op::Conv { pad: 0, group: 1, stride: 1 });
        let is_output = |v: Value| graph.outputs.contains(&v);
        let (targets, before) = if !forward.is_empty() && forward.iter().all(pointwise) && !is_output(y) {
            (forward, true)
        } else if let Some(conv) = backward.filter(|_| graph.readers(x).count() == 1 && !is_output(x)) {
            (vec![conv], false)
        } else {
            index += 1;
            continue;
        };
        let biases = targets.iter().map(|&conv| fold_into(graph, conv, &norm, before)).sum::<usize>();
        let elements = graph.shape(x).elements().map_or(0, Dim::at_batch_one) as i64;
        let channels = graph.shape(graph.nodes[index].inputs[1]).elements().map_or(0, Dim::at_batch_one);
        graph.rewrites.push(Rewrite {
            kind: Kind::Norm,
            what: graph.nodes[index].name.clone(),
            into: targets.iter().map(|&i| graph.nodes[i].name.as_str()).collect::<Vec<_>>().join(", "),
            parameters: 2 * channels as i64 - biases as i64,
            macs: 0,
            fvcore: 2 * elements,
        });
        remove(graph, index, x, y);
    }
}

/// Makes one of each pair of pointwise convolutions that nothing stands between, where the first
/// has no bias, no other reader, and the one costs less than the two.
pub(crate) fn merge_neighbours(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        let Some(second) = neighbour(graph, index) else {
            index += 1;
            continue;
        };
        let [inner, outer] = [index, second].map(|node| graph.nodes[node].inputs[1]);
        let extent = |v: Value, axis: usize| graph.shape(v).0[axis].at_batch_one() as i64;
        let (input, middle, out) = (extent(inner, 1), extent(inner, 0), extent(outer, 0));
        let parameters = middle * input + out * middle - out * input;
        let (x, y) = (graph.nodes[index].inputs[0], graph.nodes[index].outputs[0]);
        let pixels = graph.shape(y).elements().map_or(0, Dim::at_batch_one) as i64 / middle.max(1);
        let macs = parameters * pixels;
        let mut folded = folded(graph, second);
        folded.inner = Some(graph.value(inner).name.clone());
        graph.values[outer.0].shape.0[1] = graph.shape(inner).0[1];
        resource(graph, second, &folded);
        let [what, into] = [index, second].map(|node| graph.nodes[node].name.clone());
        graph.rewrites.push(Rewrite { kind: Kind::Merge, what, into, parameters, macs, fvcore: macs });
        remove(graph, index, x, y);
    }
}

/// The convolution that alone reads the convolution `index`, if they can be one.
fn neighbour(graph: &Graph, index: usize) -> Option<usize> {
    let pointwise = |i: usize| matches!(graph.nodes[i].op, Op::Conv { pad: 0, group: 1, stride: 1 });
    let node = &graph.nodes[index];
    let untouched = |v: &Value| graph.value(*v).is_parameter();
    let kernel = |i: usize| graph.shape(graph.nodes[i].inputs[1]).0[2..] == [Dim::Fixed(1); 2];
    let y = *node.outputs.first()?;
    let mut readers = graph.readers(y);
    let second = readers.next().filter(|_| readers.next().is_none() && !graph.outputs.contains(&y))?;
    let fits = pointwise(index) && pointwise(second) && kernel(index) && kernel(second);
    let plain = node.inputs.len() == 2 && node.inputs[1..].iter().all(untouched);
    let extent = |node: usize, axis: usize| graph.shape(graph.nodes[node].inputs[1]).0[axis].at_batch_one();
    let cheaper = || {
        let (input, middle, out) = (extent(index, 1), extent(index, 0), extent(second, 0));
        out * input < middle * (input + out)
    };
    (fits && plain && cheaper()).then_some(second)
}

/// Narrowest map over whose rows processors run a depthwise convolution eight pixels at a time.
const NARROW: usize = 8;

/// Writes the expansion of a block as a product over rows of channels, where the depthwise
/// convolution behind it strides or its map is narrow: a runtime that moves transposes to where
/// they vanish then has the channels last in that convolution, and steps from channel to channel
/// where stepping from pixel to pixel would be slow.
pub(crate) fn expansions_as_rows(graph: &mut Graph) {
    let narrow = |x: Value| graph.shape(x).map().is_some_and(|[.., width]| width.at_batch_one() < NARROW);
    let slow = |node: &&Node| match node.op {
        Op::Conv { stride, group, .. } => group > 1 && (stride > 1 || narrow(node.inputs[0])),
        _ => false,
    };
    let depthwise = graph.nodes.iter().filter(slow);
    let blocks: Vec<String> = depthwise
        .filter_map(|node| Some(format!("{}.v.conv", node.name.strip_suffix(".conv_local.conv")?)))
        .collect();
    for name in blocks {
        let expansion = graph.nodes.iter().position(|node| node.name == name);
        if let Some(index) = expansion.filter(|&i| graph.nodes[i].inputs.len() == 3) {
            as_rows(graph, index);
        }
    }
}

/// The biased pointwise convolution `index` as Transpose, Reshape, Gemm, Reshape, Transpose.
fn as_rows(graph: &mut Graph, index: usize) {
    let folded = folded(graph, index);
    resource(graph, index, &folded);
    let Node { name, inputs, outputs, part, .. } = graph.nodes[index].clone();
    let (x, y) = (graph.shape(inputs[0]).0.clone(), graph.shape(outputs[0]).0.clone());
    graph.values[inputs[1].0].shape.0.truncate(2);
    let pixels = x[0].by(x[2].at_batch_one() * x[3].at_batch_one());
    let mut value = |step: &str, shape: Vec<Dim>| graph.add_value(format!("{name}.{step}"), Shape(shape));
    let last = value("channels_last", vec![x[0], x[2], x[3], x[1]]);
    let rows = value("rows", vec![pixels, x[1]]);
    let product = value("product", vec![pixels, y[1]]);
    let map = value("map", vec![y[0], y[2], y[3], y[1]]);
    let operands = vec![rows, inputs[1], inputs[2]];
    let steps = [
        ("channels_last", Op::Transpose { perm: vec![0, 2, 3, 1] }, vec![inputs[0]], last),
        ("rows", Op::Reshape, vec![last], rows),
        ("", Op::Gemm, operands, product),
        ("map", Op::Reshape, vec![product], map),
        ("channels_first", Op::Transpose { perm: vec![0, 3, 1, 2] }, vec![map], outputs[0]),
    ];
    let nodes = steps.into_iter().map(|(step, op, inputs, output)| {
        let name = if step.is_empty() { name.clone() } else { format!("{name}.{step}") };
        Node { name, op, inputs, outputs: vec![output], part }
    });
    graph.nodes.splice(index..=index, nodes);
}

/// What is folded into the convolution `conv` so far.
fn folded(graph: &Graph, conv: usize) -> FoldedConv {
    let inputs = &graph.nodes[conv].inputs;
    match &graph.value(inputs[1]).constant {
        Some(Source::FoldedWeight(folded)) => folded.clone(),
        _ => FoldedConv {
            weight: graph.value(inputs[1]).name.clone(),
            bias: inputs.get(2).map(|&b| graph.value(b).name.clone()),
            ..FoldedConv::default()
        },
    }
}

/// Gives the convolution `conv` the weight and the bias of `folded`.
fn resource(graph: &mut Graph, conv: usize, folded: &FoldedConv) {
    let inputs = graph.nodes[conv].inputs.clone();
    graph.values[inputs[1].0].constant = Some(Source::FoldedWeight(folded.clone()));
    if let Some(bias) = inputs.get(2) {
        graph.values[bias.0].constant = Some(Source::FoldedBias(folded.clone()));
    }
}

/// Notes `norm` in the convolution's weight and bias; returns how many bias elements are new.
fn fold_into(graph: &mut Graph, conv: usize, norm: &Affine, before: bool) -> usize {
    let weight = graph.nodes[conv].inputs[1];
    let mut folded = folded(graph, conv);
    *(if before { &mut folded.before } else { &mut folded.after }) = Some(norm.clone());
    resource(graph, conv, &folded);
    if graph.nodes[conv].inputs.len() > 2 {
        return 0;
    }
    let out = graph.shape(weight).0[0];
    let name = format!("{}.bias", graph.nodes[conv].name);
    let bias = graph.add_constant(name, [out].into(), Source::FoldedBias(folded));
    graph.nodes[conv].inputs.push(bias);
    out.at_batch_one()
}

/// Takes a node out and lets what read `output` read `input`.
fn remove(graph: &mut Graph, index: usize, input: Value, output: Value) {
    graph.nodes.remove(index);
    let operands = graph.nodes.iter_mut().flat_map(|n| &mut n.inputs).chain(&mut graph.outputs);
    operands.filter(|v| **v == output).for_each(|v| *v = input);
}

impl FoldedConv {
    /// The weight `[O, I, …]` with everything folded in, row-major.
    ///
    /// # Errors
    /// A state-dict entry is missing or no float.
    pub(crate) fn weight(&self, weights: &Weights) -> Result<Vec<f32>> {
        let weight = weights.require(&self.weight)?;
        let (out, inner) = (weight.dims[0], weight.dims[1]);
        let taps: usize = weight.dims[2..].iter().product();
        let before = self.before.as_ref().map(|n| n.scale_and_shift(weights)).transpose()?;
        let after = self.after.as_ref().map(|n| n.scale_and_shift(weights)).transpose()?;
        let elements = weight.f32s()?;
        let rows = self.rows.clone().unwrap_or(0..out);
        let mut scaled = Vec::with_capacity(rows.len() * inner * taps);
        for o in rows {
            let row = after.as_ref().map_or(1.0, |(scale, _)| scale[o]) * self.factor(o);
            for i in 0..inner {
                let factor = row * before.as_ref().map_or(1.0, |(scale, _)| scale[i]);
                let start = (o * inner + i) * taps;
                scaled.extend(elements[start..start + taps].iter().map(|&e| f64::from(e) * factor));
            }
        }
        if let Some(name) = &self.inner {
            scaled = product(&scaled, &weights.require(name)?.f64s()?, inner);
        }
        Ok(scaled.into_iter().map(|e| e as f32).collect())
    }

    /// The bias `[O]` with everything folded in.
    ///
    /// # Errors
    /// As [`FoldedConv::weight`].
    pub(crate) fn bias(&self, weights: &Weights) -> Result<Vec<f32>> {
        let weight = weights.require(&self.weight)?;
        let (out, inner) = (weight.dims[0], weight.dims[1]);
        let mut bias = match &self.bias {
            Some(name) => weights.require(name)?.f64s()?,
            None => vec![0.0; out],
        };
        if let Some(norm) = &self.before {
            let (_, shift) = norm.scale_and_shift(weights)?;
            for (b, row) in bias.iter_mut().zip(weight.f64s()?.chunks_exact(inner)) {
                for (w, t) in row.iter().zip(&shift) {
                    *b += w * t;
                }
            }
        }
        if let Some(norm) = &self.after {
            let (scale, shift) = norm.scale_and_shift(weights)?;
            for ((b, s), t) in bias.iter_mut().zip(&scale).zip(&shift) {
                *b = *b * s + t;
            }
        }
        let rows = self.rows.clone().unwrap_or(0..out);
        Ok(rows.map(|o| (bias[o] * self.factor(o)) as f32).collect())
    }

    fn factor(&self, row: usize) -> f64 {
        self.scaled.filter(|&(rows, _)| row < rows).map_or(1.0, |(_, factor)| factor)
    }
}

/// `a: [M, K]` times `b: [K, N]`, row-major, summed in order.
fn product(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let n = b.len() / k.max(1);
    let mut c = Vec::with_capacity(a.len() / k.max(1) * n);
    for row in a.chunks_exact(k.max(1)) {
        let start = c.len();
        c.resize(start + n, 0.0);
        for (a, b) in row.iter().zip(b.chunks_exact(n.max(1))) {
            for (c, b) in c[start..].iter_mut().zip(b) {
                *c += a * b;
            }
        }
    }
    c
}

impl Affine {
    /// `γ/√(σ²+ε)` and `β − μ·γ/√(σ²+ε)` of a batch norm, γ and β of a layer norm, per channel.
    fn scale_and_shift(&self, weights: &Weights) -> Result<(Vec<f64>, Vec<f64>)> {
        let (Affine::BatchNorm { name, .. } | Affine::LayerNorm { name }) = self;
        let entry = |entry: &str| {
            weights.require(&format!("{name}.{entry}")).and_then(emo_proto::tensor::Tensor::f64s)
        };
        let (gamma, beta) = (entry("weight")?, entry("bias")?);
        let Affine::BatchNorm { epsilon, .. } = self else { return Ok((gamma, beta)) };
        let (mean, variance) = (entry("running_mean")?, entry("running_var")?);
        if let Some(v) = variance.iter().find(|&&v| v < 0.0) {
            return Err(Error::new(format!("a variance of {v} cannot be folded")).at(name));
        }
        let scale: Vec<f64> = gamma.iter().zip(&variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        let shift = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        Ok((scale, shift))
    }
}

impl Rewrite {
    /// A rewrite that leaves the counts as they are.
    pub(crate) fn free(kind: Kind, what: String, into: String) -> Self {
        Self { kind, what, into, parameters: 0, macs: 0, fvcore: 0 }
    }
}
