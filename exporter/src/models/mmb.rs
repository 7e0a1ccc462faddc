//! The Meta Mobile Block.
//!
//! One residual around an expansion by λ, an efficient operator F and a projection:
//! `X_e = MLP_e(X) ∈ R^{λC×H×W}`, `X_f = F(X_e)`, `Y = X + MLP_s(X_f)`. MobileNetV2's
//! inverted residual, the Transformer's attention and its feed-forward are values of it,
//! and so is EMO's iRMB: `F(·) = (DW-Conv, Skip)(EW-MHSA(·))` (paper, section 3).
//!
//! Two things make a block: what it computes ([`MetaMobileBlock`]), and how its family publishes that
//! ([`Layout`]): where norms, biases and activations stand, in which order attention and expansion
//! come, and what all of them are called. [`Block::build`] is one function for all families.

use emo_proto::{Error, Result};

use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form, Grid, Linear, Norm, NormName, Normed, Pattern, Span};
use crate::op::Binary;
use crate::profile;
use crate::rewrite::{Kind, Rewrite};

/// λ and F.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetaMobileBlock {
    /// Expansion ratio λ, on the input's channels.
    pub expansion: f64,
    /// The efficient operator F; identity when both parts are absent.
    pub operator: Operator,
}

/// The efficient operator F: attention, then a depthwise convolution; each may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Operator {
    pub attention: Option<Attention>,
    pub conv: Option<DepthwiseConv>,
}

/// Multi-head self-attention whose weights come from the unexpanded input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    pub head_dim: usize,
    /// Side of a window; `None` attends over the whole map.
    pub window: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepthwiseConv {
    pub kernel: usize,
    pub stride: usize,
    /// Adds the convolution's input to its output, where the block has a shortcut too.
    pub skip: bool,
}

impl MetaMobileBlock {
    /// MobileNetV2's inverted residual: λ > 1, F = depthwise convolution.
    #[must_use]
    pub fn inverted_residual(expansion: f64, kernel: usize, stride: usize) -> Self {
        let conv = Some(DepthwiseConv { kernel, stride, skip: false });
        Self { expansion, operator: Operator { attention: None, conv } }
    }

    /// The Transformer's attention: λ = 1, F = attention over the whole map.
    #[must_use]
    pub fn attention(head_dim: usize) -> Self {
        let attention = Some(Attention { head_dim, window: None });
        Self { expansion: 1.0, operator: Operator { attention, conv: None } }
    }

    /// The Transformer's feed-forward: F = identity.
    #[must_use]
    pub fn feed_forward(expansion: f64) -> Self {
        Self { expansion, operator: Operator::default() }
    }

    /// The inverted residual mobile block: F = depthwise convolution with skip, over
    /// expanded-window attention where there is any.
    #[must_use]
    pub fn irmb(expansion: f64, kernel: usize, stride: usize, attention: Option<Attention>) -> Self {
        let conv = Some(DepthwiseConv { kernel, stride, skip: true });
        Self { expansion, operator: Operator { attention, conv } }
    }
}

/// How a family publishes its blocks: what stands where, and what it is called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layout {
    /// The norm of the block's input.
    pub norm: Option<NormName>,
    /// What makes q and k, and where it finds values.
    pub attention: Option<AttentionLayout>,
    /// MLP_e; absent where λ = 1 needs none, or where it is rows of the attention's matrix.
    pub expand: Option<Linear>,
    /// The depthwise convolution, and its activation.
    pub local: Option<(Linear, Act)>,
    /// MLP_s.
    pub project: Linear,
    /// What multiplies each channel of the projection.
    pub scale: Option<&'static str>,
    /// What the sum with the input is called: two blocks may be published as one.
    pub shortcut: &'static str,
    /// Whether linear maps are published as matrices, which take rows of channels.
    pub matrices: bool,
}

/// How a family attends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionLayout {
    /// The module of attention and expansion, and the layer in it that makes q and k.
    pub module: &'static str,
    pub layer: &'static str,
    pub values: Values,
    /// The results of all patterns of windows are added.
    pub patterns: &'static [Pattern],
}

/// What attention mixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// The unexpanded input: the result is expanded.
    Input,
    /// The expanded input.
    Expanded,
    /// Rows of the matrix that makes q and k, where λ = 1.
    Joint,
}

/// A Meta Mobile Block as it stands in a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    pub mmb: MetaMobileBlock,
    pub dim_in: usize,
    pub dim_out: usize,
    /// Of the input, where the layout has one.
    pub norm: Norm,
    /// Behind the expansion, where the layout has one.
    pub act: Act,
    pub layout: &'static Layout,
}

impl Block {
    /// Channels of the expanded map, λ·C rounded down.
    #[must_use]
    pub fn dim_mid(&self) -> usize {
        (self.dim_in as f64 * self.mmb.expansion) as usize
    }

    /// Whether the block adds its input: it keeps the map and the channels.
    #[must_use]
    pub fn has_shortcut(&self) -> bool {
        self.dim_in == self.dim_out && self.mmb.operator.conv.is_none_or(|c| c.stride == 1)
    }

    /// Whether the block takes and gives maps with the channels last.
    #[must_use]
    pub fn channels_last(&self, form: Form) -> bool {
        self.layout.matrices && form.rows()
    }

    /// Appends the block: `x: [N, dim_in, H, W]` → `[N, dim_out, ⌈H/stride⌉, ⌈W/stride⌉]`, or the same of maps with
    /// the [channels last](Self::channels_last).
    ///
    /// # Errors
    /// A shape does not fit, or the heads do not divide the channels.
    pub fn build(&self, b: &mut Builder, x: Value, form: Form) -> Result<Value> {
        self.check().map_err(|e| e.at(b.path("")))?;
        let last = self.channels_last(form);
        let (n, _, height, width) = layer::extents(b, x, last)?;
        let attention = self.mmb.operator.attention.zip(self.layout.attention);
        let grid = attention.map(|(a, _)| match a.window {
            Some(window) => Grid::new(height, width, window),
            None => Grid::whole(height, width),
        });
        // A padded token has no norm to take part in: its scale and shift must stay apart from it.
        let folds = grid.is_none_or(|grid| grid.padding() == 0);
        let input = Normed { x, last, affine: None };
        let normed = match self.layout.norm {
            Some(name) => layer::norm(b, &input, self.norm, name, folds, form)?,
            None => input,
        };
        let mut y = match attention.zip(grid) {
            Some((attention, grid)) => self.attend(b, &normed, grid, attention, form)?,
            None if last => b.within(self.norm_name(), |b| layer::rows(b, "flat", normed.x))?,
            None => b.within(self.norm_name(), |b| normed.channels_first(b))?,
        };
        if attention.is_none() {
            y = self.expand(b, y, &normed, form)?;
        }
        if let Some((c, (local, act))) = self.mmb.operator.conv.zip(self.layout.local) {
            let channels = self.dim_mid();
            let conv =
                Conv { kernel: c.kernel, stride: c.stride, depthwise: true, ..Conv::pointwise(channels) };
            let z = layer::convolve(b, y, &local, conv, act, form)?;
            y = if c.skip && self.has_shortcut() { b.binary("skip", Binary::Add, y, z)? } else { z };
        }
        y = layer::convolve(b, y, &self.layout.project, Conv::pointwise(self.dim_out), self.act, form)?;
        if last {
            let map = [n, height.into(), width.into(), self.dim_out.into()];
            y = b.within(self.layout.project.name, |b| b.reshape("map", y, map))?;
        }
        if let Some(name) = self.layout.scale {
            let scale = b.parameter(name, [1, self.dim_out, 1, 1]);
            y = b.binary("scaled", Binary::Mul, y, scale)?;
        }
        if self.has_shortcut() { b.binary(self.layout.shortcut, Binary::Add, x, y) } else { Ok(y) }
    }

    /// Whether the layout names what the block is made of.
    fn check(&self) -> Result<()> {
        let (operator, layout) = (self.mmb.operator, self.layout);
        if operator.attention.is_some() && layout.attention.is_none() {
            return Err(Error::new("expected a layout with attention, found one without"));
        }
        if operator.conv.is_some() && layout.local.is_none() {
            return Err(Error::new("expected a layout with a depthwise convolution, found one without"));
        }
        if layout.expand.is_none() && self.dim_mid() != self.dim_in {
            let (found, channels) = (self.dim_mid(), self.dim_in);
            return Err(Error::new(format!(
                "expected {channels} channels where nothing expands them, found {found}"
            )));
        }
        Ok(())
    }

    /// Attention and MLP_e, in the layout's order.
    fn attend(
        &self,
        b: &mut Builder,
        normed: &Normed,
        grid: Grid,
        (attention, layout): (Attention, AttentionLayout),
        form: Form,
    ) -> Result<Value> {
        if layout.values == Values::Input {
            let (n, ..) = layer::extents(b, normed.x, normed.last)?;
            if form.forms().unpartition_first && grid.padding() > 0 {
                let macs = (n.at_batch_one() * grid.padding() * self.dim_in * self.dim_mid()) as i64;
                let free = Rewrite::free(Kind::Padding, b.path("window"), b.path("v.conv"));
                b.rewrote(Rewrite { macs, fvcore: macs, ..free });
            }
            let expand = |b: &mut Builder, x| self.expand(b, x, normed, form);
            return layer::attend(b, normed, grid, attention.head_dim, form, expand);
        }
        let rows = self.channels_last(form);
        let last = rows || form.forms().attention == profile::Attention::Tokens;
        let x = b.within(self.norm_name(), |b| {
            if last { normed.channels_last(b) } else { normed.channels_first(b) }
        })?;
        let x = Normed { x, last, ..normed.clone() };
        let span = Span {
            grid,
            patterns: layout.patterns,
            head_dim: attention.head_dim,
            layer: layout.layer,
            joint: layout.values == Values::Joint,
        };
        b.within(layout.module, |b| {
            let y = layer::span(b, &x, &span, form, |b, x| self.expand(b, x, normed, form))?;
            b.within("window", |b| {
                let mixed = Normed { x: y, last, affine: None };
                if rows { layer::rows(b, "flat", y) } else { mixed.channels_first(b) }
            })
        })
    }

    /// MLP_e with its activation. What `normed` left to its readers passes through attention,
    /// whose weights sum to one.
    fn expand(&self, b: &mut Builder, x: Value, normed: &Normed, form: Form) -> Result<Value> {
        let Some(layer) = &self.layout.expand else { return Ok(x) };
        let c = Conv { before: normed.affine.clone(), ..Conv::pointwise(self.dim_mid()) };
        layer::convolve(b, x, layer, c, self.act, form)
    }

    fn norm_name(&self) -> &'static str {
        self.layout.norm.map_or("", |norm| norm.name)
    }
}
