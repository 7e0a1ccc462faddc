//! Operators that optimisers fuse out of ONNX's own, and a few that they add.

use emo_proto::tensor_proto::DataType;

use crate::cost::Work;
use crate::fact::Fact;
use crate::ops::conv::{causal_conv, causal_conv_work, conv, conv_transpose_work, conv_work};
use crate::ops::elementwise::{broadcast, dropout, like, same};
use crate::ops::linear::{gemm, gemm_work, matmul_dims, product};
use crate::ops::normalise::{layer_norm, layer_norm_work};
use crate::ops::resize::{grid_sample, grid_sample_work};
use crate::ops::signal::half;
use crate::ops::window::{Window, spatial};
use crate::ops::{Ctx, Row, Why, written};
use crate::sym::Expr;

pub(in crate::graph::ops) const ROWS: &[Row] = &[
    Row {
        name: "FusedConv",
        rule: conv,
        work: |ctx, o| activated(ctx, conv_work(ctx, o)?, o),
        weights: &[1, 2],
    },
    Row {
        name: "FusedGemm",
        rule: gemm,
        work: |ctx, o| activated(ctx, gemm_work(ctx, o)?, o),
        weights: &[1, 2],
    },
    Row { name: "GemmFastGelu", rule: matmul, work: matmul_work, weights: &[1, 2] },
    Row { name: "GemmFloat8", rule: gemm_float8, work: gemm_work, weights: &[1, 2] },
    Row { name: "FusedMatMul", rule: matmul, work: matmul_work, weights: &[0, 1] },
    Row { name: "TransposeMatMul", rule: matmul, work: matmul_work, weights: &[0, 1] },
    Row {
        name: "FusedMatMulActivation",
        rule: matmul,
        work: |ctx, o| activated(ctx, matmul_work(ctx, o)?, o),
        weights: &[0, 1],
    },
    Row { name: "SparseToDenseMatMul", rule: matmul, work: matmul_work, weights: &[0, 1] },
    Row {
        name: "ConvTransposeWithDynamicPads",
        rule: conv_transpose,
        work: |ctx, o| conv_transpose_work(ctx, 3, o),
        weights: &[1, 3],
    },
    Row { name: "CausalConvWithState", rule: causal_conv, work: causal_conv_work, weights: &[1, 2] },
    Row::free("Gelu", same),
    Row { weights: &[1], ..Row::free("FastGelu", same) },
    Row::free("QuickGelu", same),
    Row::free("ScaledSiLU", same),
    Row { weights: &[1], ..Row::free("BiasGelu", same) },
    Row { weights: &[1], ..Row::free("BiasAdd", same) },
    Row { weights: &[1], ..Row::free("BiasSplitGelu", bias_split_gelu) },
    Row::free("BiasSoftmax", same),
    Row { weights: &[1], ..Row::free("BiasDropout", dropout) },
    Row::free("BitmaskDropout", same),
    Row::free("GatedAdd", same),
    Row::free("SwiGLU", swiglu),
    Row::free("CDist", cdist),
    Row::free("ComplexMul", complex),
    Row::free("ComplexMulConj", complex),
    Row::free("Inverse", same),
    Row::free("IsAllFinite", |_| Ok(vec![Fact::scalar(DataType::Bool)])),
    Row::free("Trilu", same),
    Row::free("NGramRepeatBlock", |ctx| Ok(vec![like(ctx.input(1)?, ctx.dtype(1)?)])),
    Row::free("MurmurHash3", murmur_hash),
    Row::free("Rfft", rfft),
    Row::free("Irfft", irfft),
    Row::free("CropAndResize", crop_and_resize),
    Row { name: "GridSample", rule: grid_sample, work: grid_sample_work, weights: &[] },
    Row { name: "LayerNormalization", rule: layer_norm, work: layer_norm_work, weights: &[1, 2] },
    Row { weights: &[1], ..Row::free("SimplifiedLayerNormalization", layer_norm) },
    Row { name: "SkipLayerNormalization", rule: skip_norm, work: layer_norm_work, weights: &[2, 3, 4] },
    Row { weights: &[2, 3], ..Row::free("SkipSimplifiedLayerNormalization", skip_norm) },
    Row { name: "GroupNorm", rule: same, work: layer_norm_work, weights: &[1, 2] },
    Row { name: "SkipGroupNorm", rule: skip_group_norm, work: layer_norm_work, weights: &[1, 2, 4] },
    Row { name: "EmbedLayerNormalization", rule: embed, work: layer_norm_work, weights: &[2, 3, 4, 5, 6] },
    Row { name: "TorchEmbedding", rule: embedding, work: |_, _| Ok(Work::Free), weights: &[0] },
];

/// A product and the activation that is fused to it.
pub(super) fn activated(ctx: &Ctx, work: Work, outputs: &[Fact]) -> Result<Work, Why> {
    Ok(match ctx.text("activation").unwrap_or("") {
        "Relu" | "LeakyRelu" | "Elu" => {
            Work::Several(vec![work, Work::Rectifier { elements: written(outputs) }])
        }
        _ => work,
    })
}

/// The factors as they are multiplied: the batch axes may stand between the last two.
pub(super) fn factor(ctx: &Ctx, index: usize, side: &str) -> Result<Vec<Expr>, Why> {
    let mut dims = ctx.dims(index)?.to_vec();
    let rank = dims.len();
    if rank > 2 && ctx.int(&format!("transBatch{side}"), 0) != 0 {
        dims[..rank - 1].rotate_left(1);
    }
    if rank > 1 && ctx.int(&format!("trans{side}"), 0) != 0 {
        dims.swap(rank - 2, rank - 1);
    }
    Ok(dims)
}

fn matmul(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || matmul_dims(&factor(ctx, 0, "A")?, &factor(ctx, 1, "B")?);
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn matmul_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    let inner = factor(ctx, 0, "A")?.pop().ok_or("expected factors of one axis at least")?;
    Ok(product(ctx, &[0, 1], &written(outputs) * &inner))
}

fn gemm_float8(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype_of("dtype")?.unwrap_or(DataType::Float);
    Ok(gemm(ctx)?.into_iter().map(|fact| Fact { dtype, ..fact }).collect())
}

/// `x, weight, pads, bias`: a transposed convolution whose pads are an operand.
fn conv_transpose(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let (x, weight) = (ctx.dims(0)?, ctx.dims(1)?);
        let axes = spatial(x)?;
        if weight.len() != x.len() {
            return Err(format!("expected a weight of {} axes, found {weight:?}", x.len()));
        }
        let pads = match ctx.optional(2) {
            Some(_) => ctx.elements(2)?.to_vec(),
            None => vec![0.into(); 2 * axes],
        };
        let extra = ctx.ints("output_padding").filter(|extra| !extra.is_empty());
        if pads.len() != 2 * axes || extra.is_some_and(|extra| extra.len() != axes) {
            return Err(format!("expected {} pads, found {}", 2 * axes, pads.len()));
        }
        let window = Window::of(ctx, axes)?;
        let mut dims = vec![x[0].clone(), &weight[1] * ctx.int("group", 1)];
        for i in 0..axes {
            let extra = extra.map_or(0, |extra| extra[i]);
            let written = window.transposed(i, &x[i + 2], &weight[i + 2], extra)?;
            dims.push(written - &pads[i] - &pads[axes + i]);
        }
        Ok(dims)
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// `[…, D]` → `[…, D/2]`.
fn bias_split_gelu(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    halved(ctx)
}

fn halved(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let mut dims = ctx.dims(0)?.to_vec();
        let last = dims.last_mut().ok_or("expected one axis at least")?;
        *last = last.floor_div(&2.into());
        Ok(dims)
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// Both halves of the projection are one operand, or two.
fn swiglu(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    if ctx.optional(1).is_some() { same(ctx) } else { halved(ctx) }
}

/// `[M, N]`, `[K, N]` → `[M, K]`.
fn cdist(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.dims(1)?) {
        ([m, _], [k, _]) => Ok(vec![m.clone(), k.clone()]),
        (a, b) => Err(format!("expected two matrices, found {a:?} and {b:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn complex(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || broadcast(&[ctx.dims(0)?, ctx.dims(1)?]))?])
}

fn murmur_hash(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = if ctx.int("positive", 1) == 1 { DataType::Uint32 } else { DataType::Int32 };
    Ok(vec![like(ctx.input(0)?, dtype)])
}

/// `[…, n]` → `[…, n/2 + 1, 2]`.
fn rfft(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let mut dims = ctx.dims(0)?.to_vec();
        let last = dims.last_mut().ok_or("expected one axis at least")?;
        *last = half(last);
        dims.push(2.into());
        Ok(dims)
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// `[…, n/2 + 1, 2]` → `[…, n]`.
fn irfft(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match ctx.dims(0)? {
        [before @ .., half, _] => Ok(before.iter().cloned().chain([(half - 1) * 2]).collect()),
        other => Err(format!("expected frequencies of complex numbers, found {other:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// `x: [N, C, H, W]`, `rois: [R, 4]`, `crop_size` = height and width → `[R, C, height, width]`.
fn crop_and_resize(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.dims(1)?, ctx.elements(3)?) {
        ([_, channels, ..], [rois, _], [height, width]) => {
            Ok(vec![rois.clone(), channels.clone(), height.clone(), width.clone()])
        }
        (x, rois, _) => Err(format!("expected an image, rois and two extents, found {x:?} and {rois:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// The output, means and deviations, and the sum that was normalised.
fn skip_norm(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let mut outputs = layer_norm(ctx)?;
    outputs.extend(same(ctx)?);
    Ok(outputs)
}

fn skip_group_norm(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok([same(ctx)?, same(ctx)?].concat())
}

/// `ids: [B, L]`, `words: [V, hidden]` → `[B, L, hidden]`, the mask's index a batch, the sum of
/// the embeddings.
fn embed(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype(5)?;
    let dims = || match (ctx.dims(0)?, ctx.dims(2)?) {
        ([batch, length], [_, hidden]) => Ok(vec![batch.clone(), length.clone(), hidden.clone()]),
        (ids, words) => {
            Err(format!("expected ids [B, L] and words [V, hidden], found {ids:?} and {words:?}"))
        }
    };
    let embedded = ctx.shaped(dtype, dims)?;
    let index = ctx.shaped(DataType::Int32, || Ok(ctx.dims(0)?.iter().take(1).cloned().collect()))?;
    Ok(vec![embedded.clone(), index, embedded])
}

fn embedding(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match ctx.dims(0)? {
        [_, size] => Ok(ctx.dims(1)?.iter().chain([size]).cloned().collect()),
        other => Err(format!("expected a table [N, size], found {other:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}
