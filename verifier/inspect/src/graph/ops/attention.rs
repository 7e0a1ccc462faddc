//! Fused attention, and what goes with it.

use super::elementwise::same;
use super::{Ctx, Row, Why};
use crate::cost::Work;
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row { name: "Attention", rule: attention, work: attention_work, weights: &[] },
    Row { name: "LinearAttention", rule: linear_attention, work: linear_attention_work, weights: &[] },
    Row::free("RotaryEmbedding", same),
];

/// Operators of `ai.onnx.preview`.
pub(super) const PREVIEW: &[Row] =
    &[Row { name: "FlexAttention", rule: flex_attention, work: attention_work, weights: &[] }];

/// Queries, keys and values as the products see them.
struct Heads {
    batch: Expr,
    heads: Expr,
    kv_heads: Expr,
    queries: Expr,
    /// Keys of the past and of now.
    keys: Expr,
    head_size: Expr,
    value_size: Expr,
    /// Whether the operands are `[B, L, H·D]`, not `[B, H, L, D]`.
    packed: bool,
}

fn heads(ctx: &Ctx) -> Result<Heads, Why> {
    let past = match ctx.optional(4) {
        Some(_) if ctx.node.op_type() == "Attention" => {
            ctx.dims(4)?.get(2).cloned().ok_or("expected a past of four axes")?
        }
        _ => 0.into(),
    };
    match (ctx.dims(0)?, ctx.dims(1)?, ctx.dims(2)?) {
        ([batch, heads, queries, head_size], [_, kv_heads, keys, _], [_, _, _, value_size]) => Ok(Heads {
            batch: batch.clone(),
            heads: heads.clone(),
            kv_heads: kv_heads.clone(),
            queries: queries.clone(),
            keys: keys + &past,
            head_size: head_size.clone(),
            value_size: value_size.clone(),
            packed: false,
        }),
        ([batch, queries, q], [_, keys, _], [_, _, v]) => {
            let (heads, kv_heads) = (packed_heads(ctx, "q_num_heads")?, packed_heads(ctx, "kv_num_heads")?);
            Ok(Heads {
                batch: batch.clone(),
                queries: queries.clone(),
                keys: keys + &past,
                head_size: q.floor_div(&heads),
                value_size: v.floor_div(&kv_heads),
                heads,
                kv_heads,
                packed: true,
            })
        }
        (q, k, v) => {
            Err(format!("expected queries, keys and values of 3 or 4 axes, found {q:?}, {k:?}, {v:?}"))
        }
    }
}

fn packed_heads(ctx: &Ctx, name: &str) -> Result<Expr, Why> {
    match ctx.int(name, 0) {
        heads if heads > 0 => Ok(heads.into()),
        heads => Err(format!("expected {name} above 0, found {heads}")),
    }
}

/// The output, the keys and values of past and present, the scores.
fn attention(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let h = heads(ctx)?;
    let (dtype, value_dtype) = (ctx.input(0)?.dtype, ctx.input(2)?.dtype);
    let out = match h.packed {
        true => vec![h.batch.clone(), h.queries.clone(), &h.heads * &h.value_size],
        false => vec![h.batch.clone(), h.heads.clone(), h.queries.clone(), h.value_size.clone()],
    };
    let kept = |size: Expr| vec![h.batch.clone(), h.kv_heads.clone(), h.keys.clone(), size];
    let scores = vec![h.batch.clone(), h.heads.clone(), h.queries.clone(), h.keys.clone()];
    Ok(vec![
        Fact::new(dtype, out),
        Fact::new(ctx.input(1)?.dtype, kept(h.head_size.clone())),
        Fact::new(value_dtype, kept(h.value_size.clone())),
        Fact::new(dtype, scores),
    ])
}

fn flex_attention(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(attention(ctx)?.into_iter().take(1).collect())
}

/// Every query meets every key, masked or not, and every score every value.
fn attention_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    let h = heads(ctx)?;
    let sizes = &h.head_size + &h.value_size;
    Ok(Work::Attention { macs: [h.batch, h.heads, h.queries, h.keys, sizes].into_iter().product() })
}

/// `query: [B, T, Hq·Dk]`, `key: [B, T, Hkv·Dk]`, `value: [B, T, Hkv·Dv]` → `[B, T, Hq·Dv]` and
/// the state `[B, Hkv, Dk, Dv]`.
pub(super) fn linear_attention(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let s = linear_state(ctx)?;
    let state_dtype = ctx.optional(3).map_or(ctx.input(0)?.dtype, |past| past.dtype);
    Ok(vec![
        Fact::new(ctx.input(0)?.dtype, vec![s.batch.clone(), s.steps, &s.heads * &s.value_size]),
        Fact::new(state_dtype, vec![s.batch, s.kv_heads, s.head_size, s.value_size]),
    ])
}

struct LinearState {
    batch: Expr,
    steps: Expr,
    heads: Expr,
    kv_heads: Expr,
    head_size: Expr,
    value_size: Expr,
}

fn linear_state(ctx: &Ctx) -> Result<LinearState, Why> {
    let ([batch, steps, q], [_, _, v]) = (ctx.dims(0)?, ctx.dims(2)?) else {
        return Err(format!("expected queries [B, T, H·D], found {:?}", ctx.dims(0)?));
    };
    let (heads, kv_heads) = (packed_heads(ctx, "q_num_heads")?, packed_heads(ctx, "kv_num_heads")?);
    Ok(LinearState {
        batch: batch.clone(),
        steps: steps.clone(),
        head_size: q.floor_div(&heads),
        value_size: v.floor_div(&kv_heads),
        heads,
        kv_heads,
    })
}

/// Each step the outer product of key and value, the product of query and state, and under a
/// delta rule the product of key and state: a `Dk × Dv` matrix each.
pub(super) fn linear_attention_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    let s = linear_state(ctx)?;
    let updates = if ctx.text("update_rule").unwrap_or("gated_delta").contains("delta") { 2 } else { 1 };
    let products = &s.kv_heads * updates + &s.heads;
    let macs = [s.batch, s.steps, products, s.head_size, s.value_size].into_iter().product();
    Ok(Work::Attention { macs })
}
