//! Fused attention: projections with the weights, scores, weighted values.

use emo_proto::tensor_proto::DataType;

use crate::cost::Work;
use crate::fact::Fact;
use crate::ops::attention::{linear_attention, linear_attention_work};
use crate::ops::elementwise::{like, same};
use crate::ops::{Ctx, Row, Why};
use crate::sym::Expr;

pub(in crate::ops) const ROWS: &[Row] = &[
    Row {
        name: "Attention",
        rule: |ctx| merged(ctx, 4),
        work: |ctx, _| merged_work(ctx, 4),
        weights: &[1, 2],
    },
    Row {
        name: "QAttention",
        rule: |ctx| merged(ctx, 8),
        work: |ctx, _| merged_work(ctx, 8),
        weights: &[1, 2],
    },
    Row { name: "MultiHeadAttention", rule: multi_head, work: |ctx, _| multi_head_work(ctx), weights: &[3] },
    Row { name: "GroupQueryAttention", rule: grouped, work: |ctx, _| grouped_work(ctx), weights: &[] },
    Row {
        name: "PackedMultiHeadAttention",
        rule: packed,
        work: |_, _| Err(RAGGED.to_owned()),
        weights: &[3],
    },
    Row { name: "LinearAttention", rule: linear_attention, work: linear_attention_work, weights: &[] },
    Row::free("RotaryEmbedding", same),
    Row::free("GemmaRotaryEmbedding", gemma_rotary),
    Row::free("RemovePadding", remove_padding),
    Row::free("RestorePadding", restore_padding),
    Row { weights: &[0], ..Row::free("RelativePositionBias", relative_position_bias) },
];

const RAGGED: &str = "how long the packed sequences are is known only when the graph runs";

fn head_count(ctx: &Ctx, name: &str) -> Result<Expr, Why> {
    match ctx.int(name, 0) {
        heads if heads > 0 => Ok(heads.into()),
        heads => Err(format!("expected {name} above 0, found {heads}")),
    }
}

/// What the products of an attention multiply.
struct Extents {
    batch: Expr,
    queries: Expr,
    /// Keys of the past and of now.
    keys: Expr,
    /// Sizes of all heads together.
    hidden: Expr,
    values: Expr,
}

impl Extents {
    /// Scores and weighted values of every query with every key.
    fn macs(self) -> Expr {
        [self.batch, self.queries, self.keys, self.hidden + &self.values].into_iter().product()
    }
}

/// `input: [B, L, in]`, `weights: [in, hidden + hidden + values]`,
/// `past: [2, B, heads, P, head_size]`.
fn merged_extents(ctx: &Ctx, past: usize) -> Result<Extents, Why> {
    let ([batch, length, _], [_, columns]) = (ctx.dims(0)?, ctx.dims(1)?) else {
        return Err(format!(
            "expected [B, L, in] and [in, out], found {:?} and {:?}",
            ctx.dims(0)?,
            ctx.dims(1)?
        ));
    };
    let (hidden, values) = match ctx.ints("qkv_hidden_sizes") {
        Some(&[hidden, _, values]) => (hidden.into(), values.into()),
        _ => (columns.floor_div(&3.into()), columns.floor_div(&3.into())),
    };
    let past = match ctx.optional(past) {
        Some(_) => ctx.dims(past)?.get(3).cloned().ok_or("expected a past of five axes")?,
        None => 0.into(),
    };
    Ok(Extents { batch: batch.clone(), queries: length.clone(), keys: length + &past, hidden, values })
}

fn merged(ctx: &Ctx, past: usize) -> Result<Vec<Fact>, Why> {
    // A quantised input comes out in the type of the bias.
    let dtype = if past == 8 { ctx.dtype(2)? } else { ctx.dtype(0)? };
    let out = ctx.shaped(dtype, || {
        let e = merged_extents(ctx, past)?;
        Ok(vec![e.batch, e.queries, e.values])
    })?;
    let present = ctx.shaped(dtype, || {
        let (e, heads) = (merged_extents(ctx, past)?, head_count(ctx, "num_heads")?);
        let keys =
            if ctx.int("past_present_share_buffer", 0) != 0 { ctx.dims(past)?[3].clone() } else { e.keys };
        Ok(vec![2.into(), e.batch, heads.clone(), keys, e.hidden.floor_div(&heads)])
    })?;
    Ok(vec![out, present])
}

fn merged_work(ctx: &Ctx, past: usize) -> Result<Work, Why> {
    let e = merged_extents(ctx, past)?;
    let rows = ctx.input(0)?.count();
    let columns = ctx.dims(1)?.last().cloned().ok_or("expected a matrix of weights")?;
    let bias =
        ctx.optional(2).map_or(0.into(), |_| [&e.batch, &e.queries, &columns].into_iter().cloned().product());
    let projection = Work::Linear { macs: &rows * &columns, bias };
    Ok(Work::Several(vec![projection, Work::Attention { macs: e.macs() }]))
}

/// Queries `[B, L, hidden]` with keys and values of the same rank, of this turn or, with four
/// axes, of the past; or all three in one operand `[B, L, heads, 3, head_size]`.
fn multi_head_extents(ctx: &Ctx) -> Result<Extents, Why> {
    let past = |index: usize| match ctx.optional(index) {
        Some(_) => ctx.dims(index)?.get(2).cloned().ok_or_else(|| "expected a past of four axes".to_owned()),
        None => Ok(0.into()),
    };
    let past = past(6)?;
    let three = |i: usize| ctx.optional(i).map(|_| ctx.dims(i)).transpose();
    match (ctx.dims(0)?, three(1)?, three(2)?) {
        ([batch, queries, heads, _, size], None, None) => {
            let hidden = heads * size;
            let (batch, queries) = (batch.clone(), queries.clone());
            Ok(Extents { batch, keys: &queries + &past, queries, values: hidden.clone(), hidden })
        }
        ([batch, queries, hidden], Some([_, keys, heads, _, size]), None) => {
            let (batch, queries, hidden) = (batch.clone(), queries.clone(), hidden.clone());
            Ok(Extents { batch, queries, keys: keys + &past, hidden, values: heads * size })
        }
        ([batch, queries, hidden], Some([_, keys, _]), Some([_, _, values])) => {
            let (batch, queries, hidden) = (batch.clone(), queries.clone(), hidden.clone());
            Ok(Extents { batch, queries, keys: keys + &past, hidden, values: values.clone() })
        }
        ([batch, queries, hidden], Some([_, heads, keys, _]), Some([_, _, _, size])) => {
            let (batch, queries, hidden) = (batch.clone(), queries.clone(), hidden.clone());
            Ok(Extents { batch, queries, keys: keys.clone(), hidden, values: heads * size })
        }
        (q, k, v) => Err(format!("expected queries, keys and values, found {q:?}, {k:?}, {v:?}")),
    }
}

/// The output, keys and values of past and present, the scores.
fn multi_head(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype(0)?;
    let extents = |pick: fn(Extents, Expr) -> Vec<Expr>| {
        ctx.shaped(dtype, || Ok(pick(multi_head_extents(ctx)?, head_count(ctx, "num_heads")?)))
    };
    Ok(vec![
        extents(|e, _| vec![e.batch, e.queries, e.values])?,
        extents(|e, heads| vec![e.batch, heads.clone(), e.keys, e.hidden.floor_div(&heads)])?,
        extents(|e, heads| vec![e.batch, heads.clone(), e.keys, e.values.floor_div(&heads)])?,
        extents(|e, heads| vec![e.batch, heads, e.queries, e.keys])?,
    ])
}

fn multi_head_work(ctx: &Ctx) -> Result<Work, Why> {
    Ok(Work::Attention { macs: multi_head_extents(ctx)?.macs() })
}

/// `query: [B, L, heads·size]`, or queries, keys and values in one.
struct Grouped {
    batch: Expr,
    length: Expr,
    heads: Expr,
    kv_heads: Expr,
    head_size: Expr,
}

fn grouped_extents(ctx: &Ctx) -> Result<Grouped, Why> {
    let [batch, length, width] = ctx.dims(0)? else {
        return Err(format!("expected [B, L, hidden], found {:?}", ctx.dims(0)?));
    };
    let (heads, kv_heads) = (head_count(ctx, "num_heads")?, head_count(ctx, "kv_num_heads")?);
    let columns = if ctx.optional(1).is_some() { heads.clone() } else { &heads + &(&kv_heads * 2) };
    let head_size = width.floor_div(&columns);
    Ok(Grouped { batch: batch.clone(), length: length.clone(), heads, kv_heads, head_size })
}

/// Keys that a query may meet: all of the sequence, which is as long as an operand says.
fn total(ctx: &Ctx) -> Result<Expr, Why> {
    ctx.element(6).cloned()
}

/// The cache holds at least what it held before.
fn grouped(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let out = ctx.shaped(ctx.dtype(0)?, || {
        let g = grouped_extents(ctx)?;
        Ok(vec![g.batch, g.length, &g.heads * &g.head_size])
    })?;
    let cache = |index: usize| {
        ctx.shaped(ctx.optional(index).map_or(out.dtype, |past| past.dtype), || {
            let g = grouped_extents(ctx)?;
            let held = match ctx.optional(index) {
                Some(_) => {
                    total(ctx)?.larger(ctx.dims(index)?.get(2).ok_or("expected a cache of four axes")?)
                }
                None => g.length,
            };
            Ok(vec![g.batch, g.kv_heads, held, g.head_size])
        })
    };
    let scores = ctx.shaped(ctx.dtype(0)?, || {
        let g = grouped_extents(ctx)?;
        Ok(vec![g.batch, g.heads, g.length, total(ctx)?])
    })?;
    Ok(vec![out.clone(), cache(3)?, cache(4)?, scores])
}

fn grouped_work(ctx: &Ctx) -> Result<Work, Why> {
    let g = grouped_extents(ctx)?;
    let keys = match ctx.optional(3) {
        Some(_) => total(ctx)?,
        None => g.length.clone(),
    };
    let macs = [g.batch, g.heads, g.length, keys, g.head_size * 2].into_iter().product();
    Ok(Work::Attention { macs })
}

/// Queries `[tokens, hidden]`, values `[tokens, values]`, or all in `[tokens, heads, 3, size]`.
fn packed(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.optional(2)) {
        ([tokens, heads, _, size], None) => Ok(vec![tokens.clone(), heads * size]),
        ([_, _], Some(_)) => ctx.dims(2).map(<[Expr]>::to_vec),
        (q, _) => Err(format!("expected packed queries, found {q:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// `emb, q, q_rotated, k, k_rotated`: the queries and keys, rotated.
fn gemma_rotary(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![like(ctx.input(1)?, ctx.dtype(1)?), like(ctx.input(3)?, ctx.dtype(3)?)])
}

/// `[B, L, hidden]` → the tokens that are no padding, where they were, and their numbers.
fn remove_padding(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let [batch, length, hidden] = ctx.dims(0)? else {
        return Err(format!("expected [B, L, hidden], found {:?}", ctx.dims(0)?));
    };
    let tokens = Expr::unknown("how many tokens are padding is known only when the graph runs");
    Ok(vec![
        Fact::new(ctx.dtype(0)?, vec![tokens, hidden.clone()]),
        Fact::new(DataType::Int32, vec![batch.clone(), length.clone()]),
        Fact::new(DataType::Int32, vec![batch + 1]),
        Fact::new(DataType::Int32, vec![1.into()]),
    ])
}

fn restore_padding(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.dims(1)?) {
        ([_, hidden], [batch, length]) => Ok(vec![batch.clone(), length.clone(), hidden.clone()]),
        (x, offset) => Err(format!("expected tokens and their offsets, found {x:?} and {offset:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// `table: [buckets, heads]`, lengths of queries and keys → `[1, heads, queries, keys]`.
fn relative_position_bias(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match ctx.dims(0)? {
        [_, heads] => Ok(vec![1.into(), heads.clone(), ctx.element(1)?.clone(), ctx.element(2)?.clone()]),
        other => Err(format!("expected a table [buckets, heads], found {other:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}
