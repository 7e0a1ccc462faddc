//! Batch norm and layer norm.

use emo_proto::Result;

use super::{Form, extents};
use crate::builder::Builder;
use crate::graph::{Affine, Dim, Part, Shape, Source, Value};
use crate::op::{Binary, Unary};
use crate::profile::LayerNorm;
use crate::rewrite::{Kind, Rewrite};

/// Which normalisation stands before a block's expansion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    Batch,
    /// Over the channels of each pixel.
    Layer,
}

/// ε of every layer norm, and of EMO's batch norms.
pub const NORM_EPSILON: f64 = 1e-6;

/// What a norm is called in a model's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormName {
    pub name: &'static str,
    /// What a layer norm is called below that; empty where it has no module of its own.
    pub layer: &'static str,
}

/// EMO's: a layer norm of maps is a module that holds one of rows.
pub const NORM: NormName = NormName { name: "norm", layer: "norm" };

/// A map, normalised or not.
#[derive(Debug, Clone)]
pub struct Normed {
    /// `[N, H, W, C]` where `last`, `[N, C, H, W]` otherwise.
    pub x: Value,
    pub last: bool,
    /// A scale and a shift that are yet to be applied, by what reads the map.
    pub affine: Option<Affine>,
}

impl Normed {
    /// A map `[N, C, H, W]` as it is.
    #[must_use]
    pub fn first(x: Value) -> Self {
        Self { x, last: false, affine: None }
    }

    /// `[N, C, H, W]`.
    ///
    /// # Errors
    /// The map has another rank.
    pub fn channels_first(&self, b: &mut Builder) -> Result<Value> {
        if self.last { b.transpose("channels_first", self.x, &[0, 3, 1, 2]) } else { Ok(self.x) }
    }

    /// `[N, H, W, C]`.
    ///
    /// # Errors
    /// The map has another rank.
    pub fn channels_last(&self, b: &mut Builder) -> Result<Value> {
        if self.last { Ok(self.x) } else { b.transpose("channels_last", self.x, &[0, 2, 3, 1]) }
    }
}

/// Batch norm in inference form, `x: [N, C, H, W]`.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn batch_norm(b: &mut Builder, x: Value, epsilon: f64) -> Result<Value> {
    let (_, channels, ..) = b.feature_map(x)?;
    let [scale, shift, mean, variance] =
        ["weight", "bias", "running_mean", "running_var"].map(|name| b.parameter(name, [channels]));
    b.batch_norm("", [x, scale, shift, mean, variance], epsilon)
}

/// The norm `norm` of this scope, `x` a map of either order of axes, of channels first for a batch norm. Where
/// `folds`, what reads the map can take a layer norm's scale and shift into its weights.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn norm(
    b: &mut Builder,
    x: &Normed,
    norm: Norm,
    NormName { name, layer }: NormName,
    folds: bool,
    form: Form,
) -> Result<Normed> {
    b.within(name, |b| match (norm, form.forms().layer_norm) {
        (Norm::Batch, _) => Ok(Normed::first(batch_norm(b, x.x, NORM_EPSILON)?)),
        (Norm::Layer, LayerNorm::Operator) => operator(b, x, layer),
        (Norm::Layer, LayerNorm::ChannelFirst) if !x.last => spelled(b, x.x, layer, folds),
        (Norm::Layer, LayerNorm::ChannelFirst | LayerNorm::Rows) => rows(b, x, layer, folds),
    })
}

/// Layer norm over the channels of each pixel, a map → `[N, H, W, C]`.
fn operator(b: &mut Builder, x: &Normed, layer: &str) -> Result<Normed> {
    let last = x.channels_last(b)?;
    let (_, channels, ..) = extents(b, last, true)?;
    b.within(layer, |b| {
        let [scale, shift] = ["weight", "bias"].map(|name| b.parameter(name, [channels]));
        let x = b.layer_norm("", [last, scale, shift], NORM_EPSILON)?;
        Ok(Normed { x, last: true, affine: None })
    })
}

/// The same, spelled out over rows of channels, `[N·H·W, C]`: no runtime moves the transpose
/// before it to behind it.
fn rows(b: &mut Builder, x: &Normed, layer: &str, folds: bool) -> Result<Normed> {
    let last = x.channels_last(b)?;
    let (n, channels, height, width) = extents(b, last, true)?;
    let rows = b.reshape("rows", last, [n.by(height * width), channels.into()])?;
    let normed = spelled(b, rows, layer, folds)?;
    let x = b.reshape("map", normed.x, [n, height.into(), width.into(), channels.into()])?;
    Ok(Normed { x, last: true, ..normed })
}

/// The same, spelled out where the channels are: on the second of `x`'s axes.
fn spelled(b: &mut Builder, x: Value, layer: &str, folds: bool) -> Result<Normed> {
    let channels = b.shape(x).0[1].at_batch_one();
    b.within(layer, |b| {
        let normed = b.part(Part::LayerNorm, |b| {
            let mean = b.reduce_mean("mean", x, &[1], true)?;
            let centred = b.binary("centred", Binary::Sub, x, mean)?;
            let square = b.binary("square", Binary::Mul, centred, centred)?;
            let variance = b.reduce_mean("variance", square, &[1], true)?;
            let epsilon = b.scalar(NORM_EPSILON as f32);
            let positive = b.binary("positive", Binary::Add, variance, epsilon)?;
            let deviation = b.unary("deviation", Unary::Sqrt, positive)?;
            b.binary("normed", Binary::Div, centred, deviation)
        })?;
        let elements = b.shape(x).elements().map_or(0, Dim::at_batch_one) as i64;
        let path = b.path("");
        let free = Rewrite::free(Kind::LayerNorm, path.clone(), path.clone());
        let parameters = if folds { 2 * channels as i64 } else { 0 };
        b.rewrote(Rewrite { parameters, fvcore: 5 * elements, ..free });
        if folds {
            let affine = Some(Affine::LayerNorm { name: path });
            return Ok(Normed { x: normed, last: false, affine });
        }
        let extents = &[channels, 1, 1][..b.shape(x).rank() - 1];
        let shape = || Shape(extents.iter().map(|&n| n.into()).collect());
        let [scale, shift] = ["weight", "bias"].map(|name| b.constant(name, shape(), Source::Parameter));
        let scaled = b.binary("scaled", Binary::Mul, normed, scale)?;
        let x = b.binary("shifted", Binary::Add, scaled, shift)?;
        Ok(Normed { x, last: false, affine: None })
    })
}
