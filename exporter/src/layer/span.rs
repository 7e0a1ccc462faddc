//! Self-attention over values of their own, in one or several patterns of windows.

use emo_proto::{Error, Result};

use super::attention::{Heads, HeadsLast};
use super::{Form, Grid, Normed, Pattern, conv, extents, linear};
use crate::builder::Builder;
use crate::graph::{Dim, Value};
use crate::op::Binary;
use crate::profile::{Attention, Mix, Qk, Windows};
use crate::rewrite::{Kind, Rewrite};

/// Attention whose values are projected before they are mixed.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub grid: Grid,
    /// The results of all patterns are added.
    pub patterns: &'static [Pattern],
    pub head_dim: usize,
    /// What makes q and k, and v as well where it is `joint`.
    pub layer: &'static str,
    pub joint: bool,
}

/// Σ softmax(q·kᵀ/√`head_dim`)·v over the patterns, q, k and v computed once, on the padded map: padded tokens take
/// part with what their biases make of them. `x` and the result: `[N, H, W, C]` where `x.last`, `[N, C, H, W]`
/// otherwise. `expand` makes v, of a map or of rows of channels, where q, k and v are not `joint`.
///
/// # Errors
/// A shape does not fit, or the heads do not divide the channels.
pub fn span(
    b: &mut Builder,
    x: &Normed,
    span: &Span,
    form: Form,
    expand: impl FnOnce(&mut Builder, Value) -> Result<Value>,
) -> Result<Value> {
    let Span { grid, patterns, .. } = *span;
    let heads = Heads::new(b, x, span.head_dim, span.layer)?;
    let padded = b.within("window", |b| grid.pad(b, x.x, if x.last { 1 } else { 2 }, form))?;
    let (n, ..) = extents(b, padded, x.last)?;
    let flat = if x.last { super::rows(b, "window.rows", padded)? } else { padded };
    let mut sources = sources(b, x, flat, span, heads, form)?;
    if !span.joint {
        sources.push(Part { value: expand(b, flat)?, parts: 1, name: "v" });
    }
    let parts = Parts { sources, n, heads, last: x.last, layer: b.path(span.layer), form };
    // In one window all patterns are the same.
    let same = form.forms().fold && grid.windows() == 1;
    let mut total = None;
    for &pattern in if same { &patterns[..1] } else { patterns } {
        let scope = if patterns.len() == 1 || same { "" } else { pattern.name() };
        let mixed = b.within(scope, |b| parts.mix(b, grid.of(pattern)))?;
        total = Some(match total {
            Some(total) => b.binary("sum", Binary::Add, total, mixed)?,
            None => mixed,
        });
    }
    let total =
        total.ok_or_else(|| Error::new("expected a pattern of windows, found none").at(&parts.layer))?;
    let cropped = b.within("window", |b| grid.crop(b, total, if x.last { 1 } else { 2 }))?;
    if same && patterns.len() > 1 {
        times(b, cropped, grid, heads, patterns.len(), x.last)
    } else {
        Ok(cropped)
    }
}

/// What one of `count` equal attentions has to be multiplied by.
fn times(b: &mut Builder, x: Value, grid: Grid, heads: Heads, count: usize, last: bool) -> Result<Value> {
    let (n, channels, ..) = extents(b, x, last)?;
    let products = grid.tokens() * grid.tokens() * (heads.channels + channels);
    let macs = ((count - 1) * n.at_batch_one() * products) as i64;
    let path = b.path("attn");
    b.rewrote(Rewrite { macs, fvcore: macs, ..Rewrite::free(Kind::Pattern, path.clone(), path) });
    let count = b.scalar(count as f32);
    b.binary("times", Binary::Mul, x, count)
}

/// One of q, k and v, or several behind one another.
struct Part {
    value: Value,
    parts: usize,
    name: &'static str,
}

/// q and k (and v, where they are joint), of the padded map or of its rows.
fn sources(
    b: &mut Builder,
    normed: &Normed,
    x: Value,
    span: &Span,
    heads: Heads,
    form: Form,
) -> Result<Vec<Part>> {
    let names = &["q", "k", "v"][..if span.joint { 3 } else { 2 }];
    let parts = names.len();
    let mut project = |part| {
        let c = heads.conv(normed, parts, part, form);
        b.within(span.layer, |b| if normed.last { linear(b, x, &c) } else { conv(b, x, &c) })
    };
    let apart = match form.forms().attention {
        Attention::Tokens => true,
        Attention::Channels { qk, .. } => qk == Qk::Apart,
    };
    if apart {
        let part = |(i, &name)| Ok(Part { value: project(Some((i, name)))?, parts: 1, name });
        return names.iter().enumerate().map(part).collect();
    }
    let value = project(None)?;
    if !normed.last {
        return Ok(vec![Part { value, parts, name: if span.joint { "qkv" } else { "qk" } }]);
    }
    let split = b.within("attn", |b| b.split("split", value, 1, parts))?;
    Ok(names.iter().zip(split).map(|(&name, value)| Part { value, parts: 1, name }).collect())
}

/// q, k and v of a padded map, in the order of axes of `last`.
struct Parts {
    sources: Vec<Part>,
    n: Dim,
    heads: Heads,
    last: bool,
    /// What made q.
    layer: String,
    form: Form,
}

impl Parts {
    /// The attention in the windows of one grid: a padded map in the same order of axes.
    fn mix(&self, b: &mut Builder, grid: Grid) -> Result<Value> {
        match self.form.forms().attention {
            Attention::Channels { windows, mix, .. } if !self.last => self.channels(b, grid, windows, mix),
            Attention::Channels { .. } | Attention::Tokens => self.tokens(b, grid),
        }
    }

    fn channels(&self, b: &mut Builder, grid: Grid, windows: Windows, mix: Mix) -> Result<Value> {
        let (h, w) = grid.side();
        let mut parts = Vec::with_capacity(3);
        for source in &self.sources {
            b.within(source.name, |b| {
                let cut = grid.partition(b, source.value, windows)?;
                let (batch, channels, ..) = b.feature_map(cut)?;
                let count = source.parts * self.heads.count;
                let shape = [batch, count.into(), (channels / count).into(), (h * w).into()];
                let cut = b.reshape("heads", cut, shape)?;
                parts.extend(b.split("split", cut, 1, source.parts)?);
                Ok(())
            })?;
        }
        let [q, k, v] = parts[..] else { unreachable!("q, k and v") };
        let mixed = b.within("attn", |b| {
            let weights = self.heads.weights_of_channels(b, [q, k], &self.layer, self.form)?;
            self.heads.mix_channels(b, weights, v, (h, w), mix)
        })?;
        b.within("window", |b| grid.merge(b, mixed, windows))
    }

    fn tokens(&self, b: &mut Builder, grid: Grid) -> Result<Value> {
        let order = HeadsLast::new(grid, self.n, self.heads);
        let mut gathered = Vec::with_capacity(3);
        for &Part { value, name, .. } in &self.sources {
            let channels = b.shape(value).0[1].at_batch_one();
            let value = match grid.windows() {
                1 => value,
                _ => b.within(name, |b| grid.gather(b, value, self.n, channels))?,
            };
            gathered.push((value, channels));
        }
        let [(q, _), (k, _), (v, channels)] = gathered[..] else { unreachable!("q, k and v") };
        let mut move_heads = |x, name: &str, perm: &[usize]| {
            let x = b.within(name, |b| b.reshape("heads", x, order.shape(self.heads.dim)))?;
            b.within("attn", |b| b.transpose(name, x, perm))
        };
        let q = move_heads(q, "q", order.forward())?;
        let k = move_heads(k, "k", order.transposed())?;
        let values = (v, channels / self.heads.count);
        let mixed = b.within("attn", |b| order.mix(b, self.heads, [q, k], values, &self.layer, self.form))?;
        b.within("window", |b| grid.scatter(b, mixed, self.n, channels))
    }
}
