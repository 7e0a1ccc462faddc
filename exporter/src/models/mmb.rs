//! The Meta Mobile Block.
//!
//! One residual around an expansion by λ, an efficient operator F and a projection:
//! `X_e = MLP_e(X) ∈ R^{λC×H×W}`, `X_f = F(X_e)`, `Y = X + MLP_s(X_f)`. MobileNetV2's
//! inverted residual, the Transformer's attention and its feed-forward are values of it,
//! and so is EMO's iRMB: `F(·) = (DW-Conv, Skip)(EW-MHSA(·))` (paper, section 3).

use emo_proto::Result;

use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form, Grid, Norm, Normed};
use crate::op::Binary;
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

/// Multi-head self-attention whose weights come from the unexpanded input. They mix that
/// input before it is expanded to the value, as the published models do.
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

/// A Meta Mobile Block as it stands in a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    pub mmb: MetaMobileBlock,
    pub dim_in: usize,
    pub dim_out: usize,
    pub norm: Norm,
    pub act: Act,
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

    /// Appends the block: `x: [N, dim_in, H, W]` → `[N, dim_out, ⌈H/stride⌉, ⌈W/stride⌉]`.
    ///
    /// # Errors
    /// A shape does not fit, or the heads do not divide the channels.
    pub fn build(&self, b: &mut Builder, x: Value, form: Form) -> Result<Value> {
        let (n, _, height, width) = b.feature_map(x)?;
        let attention = self.mmb.operator.attention;
        let grid = attention.map(|a| match a.window {
            Some(window) => Grid::new(height, width, window),
            None => Grid::whole(height, width),
        });
        // A padded token has no norm to take part in: its scale and shift must stay apart from it.
        let folds = grid.is_none_or(|grid| grid.padding() == 0);
        let normed = layer::norm(b, x, self.norm, folds, form)?;
        let expand = |b: &mut Builder, x| self.expand(b, x, &normed, form);
        let mut y = match attention.zip(grid) {
            Some((attention, grid)) => {
                if form.forms().unpartition_first && grid.padding() > 0 {
                    let macs = (n.at_batch_one() * grid.padding() * self.dim_in * self.dim_mid()) as i64;
                    let free = Rewrite::free(Kind::Padding, b.path("window"), b.path("v.conv"));
                    b.rewrote(Rewrite { macs, fvcore: macs, ..free });
                }
                layer::attend(b, &normed, grid, attention.head_dim, form, expand)?
            }
            None => {
                let x = b.within("norm", |b| normed.channels_first(b))?;
                expand(b, x)?
            }
        };
        if let Some(c) = self.mmb.operator.conv {
            let local = layer::conv_local(b, y, c.kernel, c.stride, form)?;
            y = if c.skip && self.has_shortcut() { b.binary("skip", Binary::Add, y, local)? } else { local };
        }
        let proj = Conv::pointwise(self.dim_out);
        let y = b.within("proj", |b| b.within("conv", |b| layer::conv(b, y, &proj)))?;
        if self.has_shortcut() { b.binary("shortcut", Binary::Add, x, y) } else { Ok(y) }
    }

    /// MLP_e with its activation. What `normed` left to its readers passes through attention,
    /// whose weights sum to one.
    fn expand(&self, b: &mut Builder, x: Value, normed: &Normed, form: Form) -> Result<Value> {
        b.within("v", |b| {
            let c = Conv { before: normed.affine.clone(), ..Conv::pointwise(self.dim_mid()).biased() };
            let y = b.within("conv", |b| layer::conv(b, x, &c))?;
            layer::activation(b, y, self.act, form)
        })
    }
}
