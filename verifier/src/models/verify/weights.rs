//! A file's weights against a checkpoint's, layer by layer.
//!
//! What a file folds is compared as folded products, so that both sides are what a layer does to its input: the
//! rows of a convolution times the batch norm behind it, the columns times the norm before it. Rounding alone
//! may part them: a change too small for any output to show is found all the same.

use emo_exporter::weights::Weights;
use emo_proto::Result;
use serde::Serialize;

use super::cause;
use crate::compare::{BFLOAT16, FLOAT16, FLOAT32, Tolerance, coarser};
use crate::models::plan::{Kind, Layer, Plan, Site};
use crate::models::recognise::Recognition;
use crate::models::recover::{Recovered, Stored};

/// A tensor that is not the checkpoint's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorDifference {
    /// Its name in the checkpoint: `stage3.1.qk.conv.weight`.
    pub tensor: String,
    pub block: String,
    /// The largest difference of an element, as a share of the largest element.
    pub largest: f64,
    /// What is different, where it is known.
    pub what: String,
    pub cause: &'static str,
}

/// Every tensor that is not the checkpoint's, in the order of the network.
///
/// Rounding to the type that the file stores a layer's own weights in is no difference.
///
/// # Errors
/// A tensor is missing or has another shape than the variant's.
pub fn compare(
    recognition: &Recognition,
    recovered: &Recovered,
    expected: &Weights,
) -> Result<Vec<TensorDifference>> {
    let plan = &*recognition.plan;
    let layers = &plan.layers;
    let file = Side { weights: &recovered.weights, recovered: Some(recovered) };
    let truth = Side { weights: expected, recovered: None };
    let mut differences = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        // Two layers between which stands a batch norm and nothing else: it may be folded into either, and
        // where they are one, all that there is of them is their product.
        let first =
            layer.merges.map(|_| index).or_else(|| layers.iter().position(|l| l.merges == Some(index)));
        let pair = first.and_then(|first| Some((first, layers[first].merges?)));
        let is_merged = |index: usize| recognition.found[index].is_merged();
        if is_merged(index) {
            continue;
        }
        let map = |side, epsilon| match pair.filter(|&(first, _)| is_merged(first)) {
            Some(pair) => product(plan, pair, side, epsilon),
            None => Map::of(plan, index, side, epsilon),
        };
        let stored = file.stored(layer);
        let stored = match pair.filter(|&(first, _)| is_merged(first)) {
            Some((first, second)) => coarser(file.stored(&layers[first]), file.stored(&layers[second])),
            None => stored,
        };
        let (f, e) = (map(file, None)?, map(truth, None)?);
        let innocent = match pair {
            Some(pair) => {
                let both = |side| product(plan, pair, side, None);
                let of_both = coarser(file.stored(&layers[pair.0]), file.stored(&layers[pair.1]));
                both(file)?.equals(&both(truth)?, of_both) || backwards(plan, pair, index, file, truth)?
            }
            None => false,
        };
        if innocent || f.equals(&e, stored) {
            continue;
        }
        // The checkpoint under another ε, folded, is a norm's mistake and no weight's.
        let folded_epsilon = [1e-5, 1e-3, 1e-2].into_iter().find_map(|epsilon| {
            let other = map(truth, Some(epsilon)).ok()?;
            let what =
                || format!("the norm that is folded into it has ε = {epsilon:.0e}, not the published one");
            f.equals(&other, stored).then(|| (cause::NORM_EPSILON, what()))
        });
        let unscaled = f.equals(&Map::unscaled(plan, index, truth)?, stored);
        let unscaled = unscaled
            .then(|| (cause::NO_LAYER_SCALE, "it lacks the factor of each channel behind it".to_owned()));
        let block = plan.block_of_layer(index);
        let mut difference = f.difference((layer, block), &e, stored, folded_epsilon.or(unscaled));
        if let Some((first, _)) = pair.filter(|&(first, _)| is_merged(first)) {
            difference.what = format!("as one with {}, {}", layers[first].name, difference.what);
        }
        differences.push(difference);
    }
    for (index, site) in plan.sites.iter().enumerate() {
        differences.extend(embedding(plan, index, site, file, truth)?);
    }
    Ok(differences)
}

/// How a token, or what is added to tokens, is not the checkpoint's: neither is a part of a layer.
fn embedding(
    plan: &Plan,
    index: usize,
    site: &Site,
    file: Side,
    truth: Side,
) -> Result<Option<TensorDifference>> {
    if !matches!(site.kind, Kind::Shift | Kind::Token) {
        return Ok(None);
    }
    let values = |side: Side| side.weights.require(&site.entries[0].name)?.f64s();
    let (found, expected) = (values(file)?, values(truth)?);
    let peak = expected.iter().fold(0.0, |peak: f64, x| peak.max(x.abs()));
    let pairs = || found.iter().zip(&expected);
    // No layer tells what the file's type is; the coarsest that it stores anything in admits most.
    let stored = file.recovered.into_iter().flat_map(|recovered| recovered.stored.values());
    let slack = Slack::of(stored.map(|stored| stored.tolerance).fold(&FLOAT32, coarser));
    if pairs().all(|(a, b)| (a - b).abs() <= slack.admits(b.abs(), 0.0)) {
        return Ok(None);
    }
    let absent = site.kind == Kind::Shift
        && file.recovered.is_some_and(|recovered| recovered.folded.contains(&site.name));
    let (cause, what) = match absent {
        true => (cause::NO_POSITION_EMBEDDING, "nothing is added to the tokens".to_owned()),
        false => {
            let differing = pairs().filter(|(a, b)| (*a - *b).abs() > slack.admits(b.abs(), 0.0)).count();
            (cause::WEIGHTS, format!("{differing} of {} elements differ", expected.len()))
        }
    };
    let largest = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / peak;
    let (tensor, block) = (site.entries[0].name.clone(), plan.block_of_site(index));
    Ok(Some(TensorDifference { tensor, block, largest, what, cause }))
}

/// Weights by name, and for those of a file how they were read.
#[derive(Clone, Copy)]
struct Side<'a> {
    weights: &'a Weights,
    recovered: Option<&'a Recovered>,
}

impl Side<'_> {
    /// The tolerance of the type that a layer's weights are stored in.
    fn stored(self, layer: &Layer) -> &'static Tolerance {
        self.own(layer).map_or(&FLOAT32, |stored| stored.tolerance)
    }

    fn own<'s>(self, layer: &Layer) -> Option<&'s Stored>
    where
        Self: 's,
    {
        self.recovered.and_then(|recovered| recovered.stored.get(&layer.name))
    }

    /// How far an element of a row may be from what was rounded: of the weight, of the bias.
    fn rounding(self, layer: &Layer, row: usize) -> (f64, f64) {
        let own = self.own(layer);
        let of = |steps: Option<&Vec<f64>>| steps.and_then(|steps| steps.get(row)).copied().unwrap_or(0.0);
        let (weight, bias) = (of(own.map(|o| &o.weight)), of(own.map(|o| &o.bias)));
        let enlarged = self.enlarged(layer, row);
        (weight * enlarged, bias * enlarged)
    }

    /// By what recovery multiplied the stored elements of a layer's row, and with them their rounding.
    fn enlarged(self, layer: &Layer, row: usize) -> f64 {
        let Some(recovered) = self.recovered else { return 1.0 };
        let is_of = |names: &[String]| names.contains(&layer.name);
        match layer.attention {
            _ if recovered.merged.iter().any(|(first, _)| *first == layer.name) => 0.0,
            _ if is_of(&recovered.halves_in_weights) => 2.0,
            Some(head_dim) if row < layer.shape.inputs && is_of(&recovered.scales_in_q) => {
                (head_dim as f64).sqrt()
            }
            _ => 1.0,
        }
    }
}

/// Whether one of the pair's layers is the checkpoint's if the norm between them went into the first.
fn backwards(
    plan: &Plan,
    (first, second): (usize, usize),
    index: usize,
    found: Side,
    expected: Side,
) -> Result<bool> {
    let layers = &plan.layers;
    let with_norm = |side: Side| -> Result<Map> {
        let mut map = Map::bare(&layers[first], side)?;
        if let Some(site) = layers[second].before {
            map.precede(&Affine::of(side, &plan.sites[site], None)?);
        }
        Ok(map)
    };
    if !with_norm(found)?.equals(&with_norm(expected)?, found.stored(&layers[first])) {
        return Ok(false);
    }
    let second = &layers[second];
    Ok(index == first
        || Map::bare(second, found)?.equals(&Map::bare(second, expected)?, found.stored(second)))
}

/// What a layer does to its input, with the norms that may be part of it: y = W·x + b.
struct Map {
    rows: usize,
    columns: usize,
    /// Taps of the kernel.
    taps: usize,
    /// `[rows, columns, taps]`
    weight: Vec<f64>,
    bias: Vec<f64>,
    /// The sum of the magnitudes that an element of the bias is the sum of.
    bias_magnitude: Vec<f64>,
    /// The same of the weights, where these are products of matrices.
    weight_magnitude: Vec<f64>,
    /// How far an element may be off since stored ones in it were rounded to steps that do not shrink with them.
    bias_rounding: Vec<f64>,
    weight_rounding: Vec<f64>,
}

/// Scale and shift of a norm for each channel, with the magnitude of the shift's terms.
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
    magnitude: Vec<f64>,
    /// How far the stored scale and shift may be from what was rounded.
    rounding: [Vec<f64>; 2],
}

impl Affine {
    /// With another ε than the published one where one is given.
    fn of(side: Side, site: &Site, epsilon: Option<f64>) -> Result<Self> {
        let get = |entry: usize| side.weights.require(&site.entries[entry].name)?.f64s();
        let zeros = || vec![0.0; site.channels];
        match site.kind {
            Kind::LayerNorm => {
                let shift = get(1)?;
                let magnitude: Vec<f64> = shift.iter().map(|x| x.abs()).collect();
                let stored = side.recovered.and_then(|recovered| recovered.stored.get(&site.name));
                let rounding =
                    stored.map_or_else(|| [zeros(), zeros()], |s| [s.weight.clone(), s.bias.clone()]);
                Ok(Self { scale: get(0)?, shift, magnitude, rounding })
            }
            Kind::BatchNorm => {
                let (scale, shift) = (get(0)?, get(1)?);
                let (mean, variance) = (get(2)?, get(3)?);
                let epsilon = epsilon.unwrap_or(site.epsilon);
                let scale: Vec<f64> =
                    scale.iter().zip(&variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
                let moved: Vec<f64> = scale.iter().zip(&mean).map(|(s, m)| s * m).collect();
                let magnitude = shift.iter().zip(&moved).map(|(t, m)| t.abs() + m.abs()).collect();
                let shift: Vec<f64> = shift.iter().zip(&moved).map(|(t, m)| t - m).collect();
                Ok(Self { scale, shift, magnitude, rounding: [zeros(), zeros()] })
            }
            Kind::Scale => {
                let scale = get(0)?;
                Ok(Self { scale, shift: zeros(), magnitude: zeros(), rounding: [zeros(), zeros()] })
            }
            Kind::Shift | Kind::Token => {
                let scale = vec![1.0; site.channels];
                Ok(Self { scale, shift: zeros(), magnitude: zeros(), rounding: [zeros(), zeros()] })
            }
        }
    }
}

impl Map {
    fn of(plan: &Plan, index: usize, side: Side, epsilon: Option<f64>) -> Result<Self> {
        let layer = &plan.layers[index];
        let mut map = Self::bare(layer, side)?;
        if let Some(site) = layer.before {
            map.follow(&Affine::of(side, &plan.sites[site], epsilon)?);
        }
        for &site in &layer.after {
            map.precede(&Affine::of(side, &plan.sites[site], epsilon)?);
        }
        Ok(map)
    }

    /// With its norms, and without the factors of channels behind it.
    fn unscaled(plan: &Plan, index: usize, side: Side) -> Result<Self> {
        let layer = &plan.layers[index];
        let after = layer.after.iter().copied().filter(|&site| plan.sites[site].kind != Kind::Scale);
        let mut map = Self::bare(layer, side)?;
        if let Some(site) = layer.before {
            map.follow(&Affine::of(side, &plan.sites[site], None)?);
        }
        for site in after {
            map.precede(&Affine::of(side, &plan.sites[site], None)?);
        }
        Ok(map)
    }

    /// Without any norm.
    fn bare(layer: &Layer, side: Side) -> Result<Self> {
        let (shape, weights) = (layer.shape, side.weights);
        let (rows, columns, taps) = (shape.outputs, shape.inputs, shape.kernel * shape.kernel);
        let weight = weights.require(&layer.weight.name)?.f64s()?;
        let bias = match &layer.bias {
            Some(entry) => weights.require(&entry.name)?.f64s()?,
            None => vec![0.0; rows],
        };
        let bias_magnitude = bias.iter().map(|x| x.abs()).collect();
        let weight_magnitude = weight.iter().map(|x| x.abs()).collect();
        let bias_rounding = (0..rows).map(|row| side.rounding(layer, row).1).collect();
        let in_row = |row: usize| std::iter::repeat_n(side.rounding(layer, row).0, columns * taps);
        let weight_rounding = (0..rows).flat_map(in_row).collect();
        Ok(Self {
            rows,
            columns,
            taps,
            weight,
            bias,
            bias_magnitude,
            weight_magnitude,
            bias_rounding,
            weight_rounding,
        })
    }

    /// Behind a norm: W·(s·x + t) + b.
    fn follow(&mut self, norm: &Affine) {
        for row in 0..self.rows {
            for column in 0..self.columns {
                let w = &mut self.weight[row * self.columns + column];
                let rounding = &mut self.weight_rounding[row * self.columns + column];
                self.bias[row] += *w * norm.shift[column];
                self.bias_magnitude[row] += w.abs() * norm.magnitude[column];
                let [scale, shift] = [0, 1].map(|entry: usize| norm.rounding[entry][column]);
                self.bias_rounding[row] += *rounding * (norm.magnitude[column] + shift) + w.abs() * shift;
                *rounding = *rounding * (norm.scale[column].abs() + scale) + w.abs() * scale;
                *w *= norm.scale[column];
                self.weight_magnitude[row * self.columns + column] = w.abs();
            }
        }
    }

    /// Before a norm: s·(W·x + b) + t.
    fn precede(&mut self, norm: &Affine) {
        let length = self.columns * self.taps;
        for row in 0..self.rows {
            let scale = norm.scale[row];
            for i in row * length..(row + 1) * length {
                self.weight[i] *= scale;
                self.weight_magnitude[i] *= scale.abs();
                self.weight_rounding[i] *= scale.abs();
            }
            self.bias[row] = self.bias[row] * scale + norm.shift[row];
            self.bias_magnitude[row] = self.bias_magnitude[row] * scale.abs() + norm.magnitude[row];
            self.bias_rounding[row] *= scale.abs();
        }
    }

    /// Whether rounding alone parts the two.
    fn equals(&self, other: &Self, stored: &Tolerance) -> bool {
        self.first_difference(other, stored).is_none()
    }

    fn first_difference(&self, other: &Self, stored: &Tolerance) -> Option<Part> {
        [Part::Weight, Part::Bias].into_iter().find(|&part| {
            let ((a, m, rounding), (b, n, _)) = (self.part(part), other.part(part));
            let slack = Slack::of(stored);
            let mut elements = a.iter().zip(b).zip(m.iter().zip(n)).zip(rounding);
            elements.any(|(((a, b), (m, n)), r)| (a - b).abs() > slack.admits(m.max(*n), *r))
        })
    }

    /// Elements, their magnitudes, their roundings.
    fn part(&self, part: Part) -> (&[f64], &[f64], &[f64]) {
        match part {
            Part::Weight => (&self.weight, &self.weight_magnitude, &self.weight_rounding),
            Part::Bias => (&self.bias, &self.bias_magnitude, &self.bias_rounding),
        }
    }

    /// Tells a difference that is there.
    fn difference(
        &self,
        (layer, block): (&Layer, String),
        expected: &Self,
        stored: &Tolerance,
        known: Option<(&'static str, String)>,
    ) -> TensorDifference {
        let part = self.first_difference(expected, stored).unwrap_or(Part::Weight);
        let (found, truth, entry) = match part {
            Part::Weight => (&self.weight, &expected.weight, "weight"),
            Part::Bias => (&self.bias, &expected.bias, "bias"),
        };
        let peak = truth.iter().fold(0.0, |peak: f64, x| peak.max(x.abs()));
        let largest = found.iter().zip(truth).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / peak;
        let (cause, what) =
            match (known, layer.attention.map(|_| self.queries_keys()), expected.queries_keys()) {
                (Some(known), ..) => known,
                // Up to the attention scale, which is taken for a part of q.
                (_, Some((q, k)), (eq, ek)) if proportional(q, ek) && proportional(k, eq) => {
                    (cause::EXCHANGED_QK, "queries and keys have changed places".to_owned())
                }
                (_, Some((q, k)), (eq, ek)) if near(k, ek) && ratio(q, eq).is_some() => {
                    let ratio = ratio(q, eq).unwrap_or(1.0);
                    (
                        cause::ATTENTION_SCALE,
                        format!("queries are {ratio:.4} times the checkpoint's: no 1/√head_dim"),
                    )
                }
                _ => (cause::WEIGHTS, self.describe(expected, found, truth)),
            };
        TensorDifference { tensor: format!("{}.{entry}", layer.name), block, largest, what, cause }
    }

    /// The rows of q and of k, which have as many channels as the map.
    fn queries_keys(&self) -> (&[f64], &[f64]) {
        let rows = (self.columns * self.columns).min(self.weight.len() / 2);
        (&self.weight[..rows], &self.weight[rows..2 * rows])
    }

    fn describe(&self, expected: &Self, found: &[f64], truth: &[f64]) -> String {
        if let Some(ratio) = ratio(found, truth) {
            return format!("all elements are {ratio:.6} times the checkpoint's");
        }
        // Small kernels alone can be transposed, and then they are not what they were.
        if !near(&self.weight, &expected.weight) && near(&self.transposed(), &expected.weight) {
            return "its kernels are transposed".to_owned();
        }
        let differing =
            found.iter().zip(truth).filter(|(a, b)| (*a - *b).abs() > 1e-6 * a.abs().max(b.abs()));
        format!("{} of {} elements differ", differing.count(), truth.len())
    }

    /// Kernels with rows for columns.
    fn transposed(&self) -> Vec<f64> {
        let side = self.taps.isqrt();
        let kernel = |k: &[f64]| (0..self.taps).map(|i| k[i % side * side + i / side]).collect::<Vec<_>>();
        self.weight.chunks(self.taps).flat_map(kernel).collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Weight,
    Bias,
}

/// How far an element may be from the checkpoint's.
#[derive(Debug, Clone, Copy)]
struct Slack {
    relative: f64,
    /// At least, whatever the steps are.
    least: f64,
}

impl Slack {
    /// Folding rounds in f32, a handful of times. What is stored apart is rounded apart: a weight, a norm's scale
    /// and the root of its variance, a product of which is off by two and a half roundings at most.
    fn of(stored: &Tolerance) -> Self {
        const FOLDED: f64 = 16.0 / (1 << 24) as f64;
        let (relative, least) = match stored.name {
            name if name == FLOAT16.name => (3.0 / (1 << 11) as f64, 1.0 / (1 << 24) as f64),
            name if name == BFLOAT16.name => (3.0 / (1 << 8) as f64, 0.0),
            _ => (FOLDED, 0.0),
        };
        Self { relative, least }
    }

    /// Of a sum of terms that have this magnitude together, in which stored elements are off by `rounding`. What a norm
    /// scales down may be a norm's own entry that is rounded, so that one rounding is always admitted.
    fn admits(self, magnitude: f64, rounding: f64) -> f64 {
        self.relative * magnitude + rounding.max(self.least)
    }
}

/// As good as equal, whatever the type: for telling what a difference is.
fn near(a: &[f64], b: &[f64]) -> bool {
    const SHARE: f64 = 2e-2;
    let peak = b.iter().fold(0.0, |peak: f64, x| peak.max(x.abs()));
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SHARE * peak)
}

/// The factor that all elements of `a` are of `b`'s, if there is one and it is not 1.
fn ratio(a: &[f64], b: &[f64]) -> Option<f64> {
    let (product, power) = a.iter().zip(b).fold((0.0, 0.0), |(ab, bb), (a, b)| (ab + a * b, bb + b * b));
    let ratio = product / power;
    let scaled: Vec<f64> = b.iter().map(|b| b * ratio).collect();
    (ratio.is_finite() && (ratio - 1.0).abs() > 1e-3 && near(a, &scaled)).then_some(ratio)
}

fn proportional(a: &[f64], b: &[f64]) -> bool {
    near(a, b) || ratio(a, b).is_some()
}

/// Two layers with a norm between them as one.
fn product(plan: &Plan, (first, second): (usize, usize), side: Side, epsilon: Option<f64>) -> Result<Map> {
    let (second, first) = (Map::of(plan, second, side, epsilon)?, Map::of(plan, first, side, epsilon)?);
    let (rows, inner, columns) = (second.rows, second.columns, first.columns);
    let zeros = || vec![0.0; rows * columns];
    let (mut weight, mut magnitude, mut rounding) = (zeros(), zeros(), zeros());
    for row in 0..rows {
        for i in 0..inner {
            let (w, r) = (second.weight[row * inner + i], second.weight_rounding[row * inner + i]);
            for column in 0..columns {
                let (from, to) = (i * columns + column, row * columns + column);
                let term = w * first.weight[from];
                weight[to] += term;
                magnitude[to] += term.abs();
                rounding[to] += r * first.weight[from].abs() + w.abs() * first.weight_rounding[from];
            }
        }
    }
    let (weight_magnitude, weight_rounding) = (magnitude, rounding);
    Ok(Map { rows, columns, taps: 1, weight, weight_magnitude, weight_rounding, ..second })
}
