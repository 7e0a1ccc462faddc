//! DeiT.
//!
//! Source: "Training data-efficient image transformers & distillation through attention" (ICML 2021, arXiv
//! 2012.12877), sections 3 and 5.1, and the Vision Transformer (ICLR 2021, arXiv 2010.11929), equations 1 to 4; the
//! weights' names are those of timm.

use std::iter;

use emo_exporter::layer::NORM_EPSILON;
use emo_exporter::models::deit::{EXPANSION, Network};
use emo_proto::Result;
use ndarray::{Array3, Array4, ArrayView2, Axis, Ix3, s};

use super::attention::attend;
use super::ops::{Activation, LayerNorm, Pointwise, planes};
use super::scope::Scope;
use super::{Block, Map, Mistake, OfImage, Part, Parts};

pub fn load(network: &Network, root: &Scope) -> Result<Parts> {
    let mut blocks = vec![Block::new("patch_embed", OfImage(Embedding::load(network, root)?))];
    for index in 0..network.depth {
        let name = format!("blocks.{index}");
        let block = Encoder::load(&root.at(&name), network.dim, network.heads)?;
        blocks.push(Block::new(&name, block).ending(&name));
    }
    let head = ClassToken {
        norm: LayerNorm::load(&root.at("norm"), network.dim, NORM_EPSILON)?,
        linear: Pointwise::classifier(&root.at("head"), network.dim)?,
    };
    Ok(Parts::classifier(blocks, head))
}

/// The tokens [N, T, C] as a map [N, C, T, 1], whose pixels the layers take one by one.
fn columns(tokens: &Map) -> Array4<f64> {
    let tokens = tokens.view().into_dimensionality::<Ix3>().expect("tokens of three axes");
    tokens.permuted_axes([0, 2, 1]).as_standard_layout().into_owned().insert_axis(Axis(3))
}

/// The map [N, C, T, 1] as tokens [N, T, C].
fn tokens(columns: Array4<f64>) -> Map {
    columns.remove_axis(Axis(3)).permuted_axes([0, 2, 1]).as_standard_layout().into_owned().into_dyn()
}

/// An image as tokens: the class token, then a projection of each patch, row by row; to each the embedding of its
/// position is added.
struct Embedding {
    patches: Pointwise,
    patch: usize,
    /// [1, C, 1, 1]
    class_token: Array4<f64>,
    /// [1, C, T, 1]
    positions: Array4<f64>,
}

impl Embedding {
    fn load(network: &Network, root: &Scope) -> Result<Self> {
        let Network { dim, patch, side, .. } = *network;
        let embedded = |name, tokens| -> Result<Array4<f64>> {
            let dims = [1, tokens, dim];
            let values = Array3::from_shape_vec(dims, root.get(name, &dims)?).expect("a value an element");
            Ok(columns(&values.into_dyn()))
        };
        Ok(Self {
            patches: Pointwise::patches(&root.at("patch_embed.proj"), 3, dim, patch)?,
            patch,
            class_token: embedded("cls_token", 1)?,
            positions: embedded("pos_embed", 1 + (side / patch).pow(2))?,
        })
    }
}

impl Part for Embedding {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        let x = planes(x);
        let (n, channels, height, width) = x.dim();
        let (side, down, across) = (self.patch, height / self.patch, width / self.patch);
        let x = x.slice(s![.., .., ..down * side, ..across * side]);
        // The matrix reads a patch as the kernel lies: channel, row, column.
        let pixels = x.to_shape((n, channels, down, side, across, side)).expect("whole patches");
        let pixels = pixels.permuted_axes([0, 1, 3, 5, 2, 4]);
        let pixels = pixels.as_standard_layout().into_owned();
        let pixels = pixels.into_shape_with_order((n, channels * side * side, down * across, 1));
        let patches = self.patches.forward(&pixels.expect("as many elements"));

        let (_, dim, positions, _) = self.positions.dim();
        assert_eq!(1 + down * across, positions, "tokens, of which each has a position");
        let mut y = Array4::zeros((n, dim, positions, 1));
        y.slice_mut(s![.., .., ..1, ..]).assign(&self.class_token);
        y.slice_mut(s![.., .., 1.., ..]).assign(&patches);
        if mistake != Some(Mistake::NoPosition) {
            y += &self.positions;
        }
        tokens(y)
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        mistake == Mistake::NoPosition
    }
}

/// Attention of all tokens on all, then a feed-forward, each behind a norm and with a shortcut.
struct Encoder {
    attention_norm: LayerNorm,
    /// Channels (q, k or v, head, `head_dim`).
    queries_keys_values: Pointwise,
    heads: usize,
    project: Pointwise,
    norm: LayerNorm,
    expand: Pointwise,
    reduce: Pointwise,
}

impl Encoder {
    fn load(scope: &Scope, dim: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            attention_norm: LayerNorm::load(&scope.at("norm1"), dim, NORM_EPSILON)?,
            queries_keys_values: Pointwise::linear(&scope.at("attn.qkv"), dim, 3 * dim)?,
            heads,
            project: Pointwise::linear(&scope.at("attn.proj"), dim, dim)?,
            norm: LayerNorm::load(&scope.at("norm2"), dim, NORM_EPSILON)?,
            expand: Pointwise::linear(&scope.at("mlp.fc1"), dim, EXPANSION * dim)?,
            reduce: Pointwise::linear(&scope.at("mlp.fc2"), EXPANSION * dim, dim)?,
        })
    }

    fn attend(&self, x: &Array4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let projected = self.queries_keys_values.forward(x);
        let mut mixed = Array4::zeros(x.dim());
        for (projected, mut mixed) in projected.outer_iter().zip(mixed.outer_iter_mut()) {
            let projected = projected.index_axis_move(Axis(2), 0);
            let dim = projected.nrows() / 3;
            let (queries, rest) = projected.split_at(Axis(0), dim);
            let (keys, values): (ArrayView2<f64>, _) = rest.split_at(Axis(0), dim);
            let attended = attend([queries, keys], &values, dim / self.heads, iter::empty(), mistake);
            mixed.index_axis_mut(Axis(2), 0).assign(&attended);
        }
        self.project.forward(&mixed)
    }
}

impl Part for Encoder {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        let lacks = |parts: [Mistake; 2]| mistake.is_some_and(|mistake| parts.contains(&mistake));
        let x = columns(x);
        let mut normed = x.clone();
        self.attention_norm.apply(&mut normed, mistake);
        let mut y = self.attend(&normed, mistake);
        if !lacks([Mistake::NoShortcut, Mistake::NoAttentionShortcut]) {
            y += &x;
        }
        let mut normed = y.clone();
        self.norm.apply(&mut normed, mistake);
        let mut hidden = self.expand.forward(&normed);
        Activation::Gelu.apply(&mut hidden, mistake);
        let fed = self.reduce.forward(&hidden);
        tokens(if lacks([Mistake::NoShortcut, Mistake::NoFeedForwardShortcut]) { fed } else { y + fed })
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        use Mistake::*;
        let shortcut = matches!(mistake, NoShortcut | NoAttentionShortcut | NoFeedForwardShortcut);
        let attention = matches!(mistake, NoScale | ExchangedQueriesKeys);
        shortcut || attention || mistake.is_of_norm(NORM_EPSILON) || Activation::Gelu.can_make(mistake)
    }

    fn normed(&self, x: &Map) -> Map {
        let mut y = columns(x);
        self.attention_norm.apply(&mut y, None);
        tokens(y)
    }
}

/// Layer norm, and the linear layer of the class token.
struct ClassToken {
    norm: LayerNorm,
    linear: Pointwise,
}

impl Part for ClassToken {
    fn forward(&self, map: &Map, mistake: Option<Mistake>) -> Map {
        let mut x = columns(map);
        self.norm.apply(&mut x, mistake);
        let read = match mistake {
            Some(Mistake::MeanPooled { class_token }) => {
                x.slice_move(s![.., .., usize::from(!class_token).., ..])
            }
            _ => x.slice_move(s![.., .., ..1, ..]),
        };
        let pooled = read.mean_axis(Axis(2)).expect("a token at least").insert_axis(Axis(2));
        let logits = self.linear.forward(&pooled);
        logits.remove_axis(Axis(3)).remove_axis(Axis(2)).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        matches!(mistake, Mistake::MeanPooled { .. }) || mistake.is_of_norm(NORM_EPSILON)
    }
}
