//! DeiT: the Meta Mobile Block with F = attention, λ = 1, and with F = identity, λ = 4, in turn.
//!
//! Source: "Training data-efficient image transformers & distillation through attention" (ICML 2021, arXiv
//! 2012.12877), table 1; names as in the published weights of timm (`deit_tiny_patch16_224`).

use emo_proto::Result;

use super::mmb::{AttentionLayout, Block, Layout, MetaMobileBlock, Values};
use super::{CLASSES, Definition, Model, Outputs, Paper};
use crate::builder::Builder;
use crate::graph::{Dim, Value};
use crate::layer::{self, Act, Conv, Form, Linear, Norm, NormName, Normed, Pattern};
use crate::op::Binary;

pub const PAPER: Paper = Paper {
    title: "Training data-efficient image transformers & distillation through attention",
    venue: "ICML 2021",
    url: "https://arxiv.org/abs/2012.12877",
    source: "https://github.com/huggingface/pytorch-image-models",
};

#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Channels of a token.
    pub dim: usize,
    pub depth: usize,
    pub heads: usize,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// Height and width of the input: each place has its embedding.
    pub side: usize,
}

/// Expansion ratio λ of the feed-forwards.
pub const EXPANSION: usize = 4;

/// F = attention among all tokens, λ = 1.
pub const ATTENTION: Layout = Layout {
    norm: Some(NormName { name: "norm1", layer: "" }),
    attention: Some(AttentionLayout {
        module: "",
        layer: "attn.qkv",
        values: Values::Joint,
        patterns: &[Pattern::Strided],
    }),
    expand: None,
    local: None,
    project: Linear { name: "attn.proj", bias: true, norm: None, act: None },
    scale: None,
    shortcut: "attn.shortcut",
    matrices: true,
};

/// F = identity.
pub const FEED_FORWARD: Layout = Layout {
    norm: Some(NormName { name: "norm2", layer: "" }),
    attention: None,
    expand: Some(Linear { name: "mlp.fc1", bias: true, norm: None, act: Some("mlp") }),
    project: Linear { name: "mlp.fc2", bias: true, norm: None, act: None },
    shortcut: "mlp.shortcut",
    ..ATTENTION
};

/// The published classifiers without a distillation token.
pub(super) fn published() -> [Model; 2] {
    [variant("deit-tiny", "DeiT-Ti", 192, 3), variant("deit-small", "DeiT-S", 384, 6)]
}

fn variant(name: &'static str, title: &'static str, dim: usize, heads: usize) -> Model {
    let network = Network { dim, depth: 12, heads, patch: 16, side: 224 };
    Model { name: name.into(), title: title.into(), classes: CLASSES, definition: Definition::Deit(network) }
}

impl Network {
    /// The blocks with their names, in order: `blocks.0` attends, `blocks.0` feeds forward, `blocks.1` …
    #[must_use]
    pub fn blocks(&self) -> Vec<(String, Block)> {
        let attention = MetaMobileBlock::attention(self.dim.checked_div(self.heads).unwrap_or(0));
        let pair =
            [(attention, &ATTENTION), (MetaMobileBlock::feed_forward(EXPANSION as f64), &FEED_FORWARD)];
        let block = |mmb, layout| {
            let (norm, act) = (Norm::Layer, Act::Gelu);
            Block { mmb, dim_in: self.dim, dim_out: self.dim, norm, act, layout }
        };
        let blocks = |i| pair.map(|(mmb, layout)| (format!("blocks.{i}"), block(mmb, layout)));
        (0..self.depth).flat_map(blocks).collect()
    }

    /// `x: [N, 3, side, side]` → `logits: [N, classes]`.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub(super) fn build(&self, b: &mut Builder, x: Value, classes: usize, form: Form) -> Result<Outputs> {
        let mut x = self.embed(b, x, form)?;
        for (name, block) in self.blocks() {
            x = b.within(&name, |b| block.build(b, x, form))?;
        }
        Ok(vec![("logits".into(), head(b, x, classes, form)?)])
    }

    /// Patches as tokens, the class token before them, each with the embedding of its place: → `[N, 1, tokens, dim]`
    /// where matrices take rows, `[N, dim, 1, tokens]` otherwise.
    fn embed(&self, b: &mut Builder, x: Value, form: Form) -> Result<Value> {
        let c = Conv { kernel: self.patch, stride: self.patch, ..Conv::pointwise(self.dim).biased() };
        let patches = b.within("patch_embed.proj", |b| layer::conv(b, x, &c))?;
        let (n, channels, height, width) = b.feature_map(patches)?;
        let (patches, tokens) = b.within("patch_embed", |b| {
            let last = b.transpose("channels_last", patches, &[0, 2, 3, 1])?;
            let tokens = height * width;
            Ok((b.reshape("tokens", last, [n, tokens.into(), channels.into()])?, tokens))
        })?;
        let class = b.parameter("cls_token", [1, 1, channels]);
        let places = b.parameter("pos_embed", [1, tokens + 1, channels]);
        let x = b.within("embed", |b| {
            let together = if n == Dim::Fixed(1) {
                b.concat("class", &[class, patches], 1)?
            } else {
                // A class token for each image would need the number of images: zeros make room for one.
                let patches = layer::pad_tokens(b, "patches", patches, (1, 0), form)?;
                let class = layer::pad_tokens(b, "class", class, (0, tokens), form)?;
                b.binary("together", Binary::Add, patches, class)?
            };
            let x = b.binary("places", Binary::Add, together, places)?;
            b.reshape("map", x, [n, 1.into(), (tokens + 1).into(), channels.into()])
        })?;
        if form.rows() { Ok(x) } else { b.transpose("embed.channels_first", x, &[0, 3, 1, 2]) }
    }
}

/// Layer norm, class token, classifier: all tokens → `[N, classes]`.
fn head(b: &mut Builder, x: Value, classes: usize, form: Form) -> Result<Value> {
    let x = Normed { x, last: form.rows(), affine: None };
    let (n, channels, ..) = layer::extents(b, x.x, x.last)?;
    let normed = layer::norm(b, &x, Norm::Layer, NormName { name: "norm", layer: "" }, true, form)?;
    b.within("head", |b| {
        let class = b.crop("class", normed.x, &[if normed.last { 2 } else { 3 }], &[1])?;
        let rows = b.reshape("rows", class, [n, channels.into()])?;
        let c = Conv { before: normed.affine, ..Conv::pointwise(classes).biased() };
        layer::linear(b, rows, &c)
    })
}
