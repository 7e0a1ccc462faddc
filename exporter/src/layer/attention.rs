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
struct Heads {
    channels: usize,
    count: usize,
    dim: usize,
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
    let channels = b.shape(normed.x).0[if normed.last { 3 } else { 1 }].at_batch_one();
    if head_dim == 0 || !channels.is_multiple_of(head_dim) {
        let why = format!("expected heads that divide {channels} channels, found heads of {head_dim}");
        return Err(Error::new(why).at(b.path("qk")));
    }
    let heads = Heads { channels, count: channels / head_dim, dim: head_dim };
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
    /// The convolution that makes `q`, `k` or both, with what is folded into it.
    fn conv(self, normed: &Normed, part: Option<&'static str>, form: Form) -> Conv {
        let rows = match part {
            None => 0..2 * self.channels,
            Some("q") => 0..self.channels,
            Some(_) => self.channels..2 * self.channels,
        };
        let scaled = form.forms().fold && rows.start == 0;
        Conv {
            scaled: scaled.then(|| (self.channels, self.scale())),
            before: normed.affine.clone(),
            part: part.map(|part| (rows.clone(), part)),
            ..Conv::pointwise(rows.len()).biased()
        }
    }

    fn scale(self) -> f64 {
        1.0 / (self.dim as f64).sqrt()
    }

    /// Divides the scores by √d, or notes that q's weights have done so.
    fn scaled(self, b: &mut Builder, scores: Value, qk: &str, form: Form) -> Result<Value> {
        if form.forms().fold {
            b.rewrote(Rewrite::free(Kind::Scale, b.path("scale"), qk.to_owned()));
            return Ok(scores);
        }
        let scale = b.scalar(self.scale() as f32);
        b.binary("scale", Binary::Mul, scores, scale)
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
    let (n, c, h, w) = b.feature_map(x)?;
    let split = |parts: usize| [n, (parts * heads.count).into(), heads.dim.into(), (h * w).into()];

    let path = b.path("qk.conv");
    let project = |b: &mut Builder, x, part: Option<&'static str>| {
        let c = heads.conv(normed, part, form);
        b.within("qk", |b| b.within("conv", |b| conv(b, x, &c)))
    };
    let [q, k] = match qk {
        Qk::OfWindows | Qk::OfMap => {
            let projected = if qk == Qk::OfWindows {
                project(b, x, None)?
            } else {
                let projected = project(b, map, None)?;
                cut(b, "qk", projected)?
            };
            let qk = b.within("qk", |b| b.reshape("heads", projected, split(2)))?;
            b.within("attn", |b| b.halves("split", qk, 1))?
        }
        Qk::Apart => {
            let half = |b: &mut Builder, part| {
                let projected = project(b, x, Some(part))?;
                b.within("qk", |b| b.reshape(part, projected, split(1)))
            };
            [half(b, "q")?, half(b, "k")?]
        }
    };
    b.within("attn", |b| {
        let q = b.transpose("q", q, &[0, 1, 3, 2])?;
        let scores = b.matmul("scores", q, k)?;
        let scores = heads.scaled(b, scores, &path, form)?;
        let weights = b.part(Part::Softmax, |b| b.softmax("softmax", scores))?;
        let values = b.reshape("heads", x, split(1))?;
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
        b.reshape("map", mixed, [n, c.into(), h.into(), w.into()])
    })
}

/// The map `[N, C, H, W]`, by way of `[N, tokens, windows·heads, d]`; of one image the first axis
/// is left out, since a runtime that multiplies batches with a stride then needs no transpose.
fn tokens(b: &mut Builder, normed: &Normed, grid: Grid, heads: Heads, form: Form) -> Result<Value> {
    let last = b.within("norm", |b| normed.channels_last(b))?;
    let n = b.shape(last).0[0];
    let (tokens, batch) = (grid.tokens(), grid.windows() * heads.count);
    let x = b.within("window", |b| {
        let padded = grid.pad(b, last, 1, form)?;
        grid.gather(b, padded)
    })?;
    let one = n == Dim::Fixed(1);
    let heads_last: Shape = match one {
        true => [tokens, batch, heads.dim].into(),
        false => [n, tokens.into(), batch.into(), heads.dim.into()].into(),
    };
    let (forward, transposed): (&[usize], &[usize]) =
        if one { (&[1, 0, 2], &[1, 2, 0]) } else { (&[0, 2, 1, 3], &[0, 2, 3, 1]) };

    let path = b.path("qk.conv");
    let rows =
        b.within("qk", |b| b.reshape("rows", x, [n.by(tokens * grid.windows()), heads.channels.into()]))?;
    let project = |b: &mut Builder, part, perm: &[usize]| {
        let c = heads.conv(normed, Some(part), form);
        let y = b.within("qk", |b| {
            let y = b.within("conv", |b| linear(b, rows, &c))?;
            b.reshape(part, y, heads_last.clone())
        })?;
        b.within("attn", |b| b.transpose(part, y, perm))
    };
    let q = project(b, "q", forward)?;
    let k = project(b, "k", transposed)?;
    let mixed = b.within("attn", |b| {
        let scores = b.matmul("scores", q, k)?;
        let scores = heads.scaled(b, scores, &path, form)?;
        let weights = b.part(Part::Softmax, |b| b.softmax("softmax", scores))?;
        let values = b.reshape("heads", x, heads_last.clone())?;
        let values = b.transpose("values", values, forward)?;
        let mixed = b.matmul("mix", weights, values)?;
        b.transpose("mixed", mixed, forward)
    })?;
    b.within("window", |b| {
        let map = grid.scatter(b, mixed, n, heads.channels)?;
        let map = grid.crop(b, map, 1)?;
        b.transpose("channels_first", map, &[0, 3, 1, 2])
    })
}
