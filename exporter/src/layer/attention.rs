//! Multi-head self-attention among the tokens of each window.

use emo_proto::{Error, Result};

use super::{Conv, Form, Grid, Normed, conv, linear};
use crate::builder::Builder;
use crate::graph::{Dim, Part, Shape, Value};
use crate::op::Binary;
use crate::profile::{Attention, Mix, Qk, Windows};
use crate::rewrite::{Kind, Rewrite};

/// The heads of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub channels: usize,
    pub count: usize,
    pub dim: usize,
}

/// softmax(q·kᵀ/√`head_dim`)·x among the tokens of each window of `grid`, `expand`ed:
/// `[N, C, H, W]` → whatever `expand`, a pointwise map, makes of it.
///
/// q and k come from one biased 1×1 convolution `qk` whose output channels are (q then k) ×
/// heads × `head_dim`. The windows are put together before or after `expand`, as the profile
/// has it.
///
/// # Errors
/// A shape does not fit, or the heads do not divide the channels.
pub fn attend(
    b: &mut Builder,
    normed: &Normed,
    grid: Grid,
    head_dim: usize,
    form: Form,
    expand: impl FnOnce(&mut Builder, Value) -> Result<Value>,
) -> Result<Value> {
    let heads = Heads::new(b, normed, head_dim, "qk")?;
    match form.forms().attention {
        Attention::Tokens => {
            let mixed = tokens(b, normed, grid, heads, form)?;
            expand(b, mixed)
        }
        Attention::Channels { windows, qk, mix } => {
            let mixed = channels_first(b, normed, grid, heads, (windows, qk, mix), form)?;
            let merge = |b: &mut Builder, x| {
                b.within("window", |b| {
                    let merged = grid.merge(b, x, windows)?;
                    grid.crop(b, merged, 2)
                })
            };
            if form.forms().unpartition_first {
                let map = merge(b, mixed)?;
                expand(b, map)
            } else {
                let expanded = expand(b, mixed)?;
                merge(b, expanded)
            }
        }
    }
}

impl Heads {
    /// Heads of `head_dim` channels of the map; `layer` is what makes q and k.
    pub fn new(b: &Builder, normed: &Normed, head_dim: usize, layer: &str) -> Result<Self> {
        let channels = b.shape(normed.x).0[if normed.last { 3 } else { 1 }].at_batch_one();
        if head_dim == 0 || !channels.is_multiple_of(head_dim) {
            let why = format!("expected heads that divide {channels} channels, found heads of {head_dim}");
            return Err(Error::new(why).at(b.path(layer)));
        }
        Ok(Self { channels, count: channels / head_dim, dim: head_dim })
    }

    /// The convolution that makes all `parts` of q, k and v that lie behind one another in a published one, or the
    /// one called `part`, with what is folded into it.
    pub fn conv(
        self,
        normed: &Normed,
        parts: usize,
        part: Option<(usize, &'static str)>,
        form: Form,
    ) -> Conv {
        let rows = match part {
            None => 0..parts * self.channels,
            Some((index, _)) => index * self.channels..(index + 1) * self.channels,
        };
        let scaled = form.forms().fold && rows.start == 0;
        Conv {
            scaled: scaled.then(|| (self.channels, self.scale())),
            before: normed.affine.clone(),
            part: part.map(|(_, part)| (rows.clone(), part)),
            ..Conv::pointwise(rows.len()).biased()
        }
    }

    fn scale(self) -> f64 {
        1.0 / (self.dim as f64).sqrt()
    }

    /// The weights of the values: q: `[…, T, d]`, k: `[…, d, T]` → `[…, T, T]`. The scores are divided by √d, or
    /// `layer`, which made q, has done so.
    fn weights(self, b: &mut Builder, [q, k]: [Value; 2], layer: &str, form: Form) -> Result<Value> {
        let mut scores = b.matmul("scores", q, k)?;
        if form.forms().fold {
            b.rewrote(Rewrite::free(Kind::Scale, b.path("scale"), layer.to_owned()));
        } else {
            let scale = b.scalar(self.scale() as f32);
            scores = b.binary("scale", Binary::Mul, scores, scale)?;
        }
        b.part(Part::Softmax, |b| b.softmax("softmax", scores))
    }

    /// The same of q as k is: `[B, heads, d, T]`.
    pub fn weights_of_channels(
        self,
        b: &mut Builder,
        [q, k]: [Value; 2],
        layer: &str,
        form: Form,
    ) -> Result<Value> {
        let q = b.transpose("q", q, &[0, 1, 3, 2])?;
        self.weights(b, [q, k], layer, form)
    }

    /// Mixes the values of windows `[B, C, h, w]`, whose heads may lie apart, `[B, heads, C/heads, h·w]`, and whose
    /// channels may be others than those of q and k: → `[B, C, h, w]`.
    pub fn mix_channels(
        self,
        b: &mut Builder,
        weights: Value,
        values: Value,
        (h, w): (usize, usize),
        mix: Mix,
    ) -> Result<Value> {
        let extents = b.shape(values).clone();
        let (n, channels) = (extents.0[0], extents.elements().map_or(0, Dim::at_batch_one) / (h * w));
        let channels = channels / n.at_batch_one().max(1);
        let heads: Shape = [n, self.count.into(), (channels / self.count).into(), (h * w).into()].into();
        let values = if extents == heads { values } else { b.reshape("heads", values, heads)? };
        let mixed = match mix {
            Mix::TransposedScores => {
                let weights = b.transpose("weights", weights, &[0, 1, 3, 2])?;
                b.matmul("mix", values, weights)?
            }
            Mix::TransposedValues => {
                let values = b.transpose("values", values, &[0, 1, 3, 2])?;
                let mixed = b.matmul("mix", weights, values)?;
                b.transpose("mixed", mixed, &[0, 1, 3, 2])?
            }
        };
        b.reshape("map", mixed, [n, channels.into(), h.into(), w.into()])
    }
}

/// Tokens outermost: how what a grid has gathered is seen as heads, and moved to where products want them.
#[derive(Debug, Clone)]
pub(super) struct HeadsLast {
    groups: Dim,
    tokens: usize,
    batch: usize,
}

impl HeadsLast {
    pub fn new(grid: Grid, n: Dim, heads: Heads) -> Self {
        let (groups, windows) = grid.groups(n);
        Self { groups, tokens: grid.tokens(), batch: windows * heads.count }
    }

    /// `[groups, tokens, windows·heads, d]`; of one group the first axis is left out, since a runtime that
    /// multiplies batches with a stride then needs no transpose.
    pub fn shape(&self, dim: usize) -> Shape {
        match self.groups {
            Dim::Fixed(1) => [self.tokens, self.batch, dim].into(),
            groups => [groups, self.tokens.into(), self.batch.into(), dim.into()].into(),
        }
    }

    /// To `[…, windows·heads, tokens, d]` and back.
    pub fn forward(&self) -> &'static [usize] {
        if self.groups == Dim::Fixed(1) { &[1, 0, 2] } else { &[0, 2, 1, 3] }
    }

    /// To `[…, windows·heads, d, tokens]`.
    pub fn transposed(&self) -> &'static [usize] {
        if self.groups == Dim::Fixed(1) { &[1, 2, 0] } else { &[0, 2, 3, 1] }
    }

    /// Mixes the values, of any shape with `dim` channels a head, by q and k in the order of products.
    pub fn mix(
        &self,
        b: &mut Builder,
        heads: Heads,
        qk: [Value; 2],
        (values, dim): (Value, usize),
        layer: &str,
        form: Form,
    ) -> Result<Value> {
        let weights = heads.weights(b, qk, layer, form)?;
        let values = b.reshape("heads", values, self.shape(dim))?;
        let values = b.transpose("values", values, self.forward())?;
        let mixed = b.matmul("mix", weights, values)?;
        b.transpose("mixed", mixed, self.forward())
    }
}

/// Windows `[windows·N, C, h, w]` → the same shape.
fn channels_first(
    b: &mut Builder,
    normed: &Normed,
    grid: Grid,
    heads: Heads,
    (windows, qk, mix): (Windows, Qk, Mix),
    form: Form,
) -> Result<Value> {
    let x = b.within("norm", |b| normed.channels_first(b))?;
    let map = b.within("window", |b| grid.pad(b, x, 2, form))?;
    let cut = |b: &mut Builder, scope: &str, x| b.within(scope, |b| grid.partition(b, x, windows));
    let x = cut(b, "window", map)?;
    let (n, _, h, w) = b.feature_map(x)?;
    let split = |parts: usize| [n, (parts * heads.count).into(), heads.dim.into(), (h * w).into()];

    let path = b.path("qk.conv");
    let project = |b: &mut Builder, x, part: Option<(usize, &'static str)>| {
        let c = heads.conv(normed, 2, part, form);
        b.within("qk", |b| b.within("conv", |b| conv(b, x, &c)))
    };
    let qk = match qk {
        Qk::OfWindows | Qk::OfMap => {
            let projected = if qk == Qk::OfWindows {
                project(b, x, None)?
            } else {
                let projected = project(b, map, None)?;
                cut(b, "qk", projected)?
            };
            let qk = b.within("qk", |b| b.reshape("heads", projected, split(2)))?;
            let parts = b.within("attn", |b| b.split("split", qk, 1, 2))?;
            [parts[0], parts[1]]
        }
        Qk::Apart => {
            let half = |b: &mut Builder, part: (usize, &'static str)| {
                let projected = project(b, x, Some(part))?;
                b.within("qk", |b| b.reshape(part.1, projected, split(1)))
            };
            [half(b, (0, "q"))?, half(b, (1, "k"))?]
        }
    };
    b.within("attn", |b| {
        let weights = heads.weights_of_channels(b, qk, &path, form)?;
        heads.mix_channels(b, weights, x, (h, w), mix)
    })
}

/// The map `[N, C, H, W]`, by way of `[N, tokens, windows·heads, d]`.
fn tokens(b: &mut Builder, normed: &Normed, grid: Grid, heads: Heads, form: Form) -> Result<Value> {
    let last = b.within("norm", |b| normed.channels_last(b))?;
    let n = b.shape(last).0[0];
    let x = b.within("window", |b| {
        let padded = grid.pad(b, last, 1, form)?;
        grid.gather(b, padded, n, heads.channels)
    })?;
    let order = HeadsLast::new(grid, n, heads);

    let path = b.path("qk.conv");
    let pixels = n.by(grid.tokens() * grid.windows());
    let rows = b.within("qk", |b| b.reshape("rows", x, [pixels, heads.channels.into()]))?;
    let project = |b: &mut Builder, part: (usize, &'static str), perm: &[usize]| {
        let c = heads.conv(normed, 2, Some(part), form);
        let y = b.within("qk", |b| {
            let y = b.within("conv", |b| linear(b, rows, &c))?;
            b.reshape(part.1, y, order.shape(heads.dim))
        })?;
        b.within("attn", |b| b.transpose(part.1, y, perm))
    };
    let q = project(b, (0, "q"), order.forward())?;
    let k = project(b, (1, "k"), order.transposed())?;
    let mixed = b.within("attn", |b| order.mix(b, heads, [q, k], (x, heads.dim), &path, form))?;
    b.within("window", |b| {
        let map = grid.scatter(b, mixed, n, heads.channels)?;
        let map = grid.crop(b, map, 1)?;
        b.transpose("channels_first", map, &[0, 3, 1, 2])
    })
}
