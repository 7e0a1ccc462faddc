//! Fused attention: projections with the weights, scores, weighted values.

use emo_proto::tensor_proto::DataType;

use crate::cost::Work;
use crate::fact::Fact;
use crate::ops::attention::{linear_attention, linear_attention_work};
use crate::ops::elementwise::{like, same};
use crate::ops::{Ctx, Row, Why};
use crate::sym::Expr;

pub(in crate::graph::ops) const ROWS: &[Row] = &[
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
    Row {
        name: "DecoderMaskedSelfAttention",
        rule: |ctx| merged(ctx, 4),
        work: |ctx, _| merged_work(ctx, 4),
        weights: &[1, 2],
    },
    Row { name: "QOrderedAttention", rule: ordered, work: ordered_work, weights: &[5, 6, 7, 11, 12, 13] },
    Row {
        name: "MultiHeadAttention",
        rule: |ctx| multi_head(ctx, MULTI_HEAD),
        work: |ctx, _| multi_head_work(ctx, MULTI_HEAD),
        weights: &[3],
    },
    Row {
        name: "DecoderMaskedMultiHeadAttention",
        rule: |ctx| multi_head(ctx, MASKED),
        work: |ctx, _| multi_head_work(ctx, MASKED),
        weights: &[10],
    },
    Row { name: "DecoderAttention", rule: decoder, work: decoder_work, weights: &[2, 3, 4] },
    Row {
        name: "GroupQueryAttention",
        rule: |ctx| grouped(ctx, GROUPED),
        work: |ctx, _| grouped_work(ctx, GROUPED),
        weights: &[11, 14, 15],
    },
    // Every query meets every key, masked or not, as in each attention here.
    Row {
        name: "SparseAttention",
        rule: |ctx| grouped(ctx, SPARSE),
        work: |ctx, _| grouped_work(ctx, SPARSE),
        weights: &[],
    },
    Row {
        name: "PackedAttention",
        rule: packed_merged,
        work: |_, _| Err(RAGGED.to_owned()),
        weights: &[1, 2],
    },
    Row { name: "PagedAttention", rule: paged, work: |_, _| Err(RAGGED.to_owned()), weights: &[11, 12, 13] },
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

/// Where an operator that takes queries, keys and values apart has its past and that one's length.
#[derive(Clone, Copy)]
struct Past {
    keys: usize,
    length: Option<usize>,
}

const MULTI_HEAD: Past = Past { keys: 6, length: Some(8) };
const MASKED: Past = Past { keys: 5, length: Some(7) };

/// Where a grouped attention has the length of the whole sequence.
#[derive(Clone, Copy)]
struct Total(usize);

const GROUPED: Total = Total(6);
const SPARSE: Total = Total(7);

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
/// axes, of the past; or all three in one operand `[B, L, heads, 3, head_size]` or `[B, L, 3·hidden]`.
fn multi_head_extents(ctx: &Ctx, at: Past) -> Result<Extents, Why> {
    let shared = ctx.int("past_present_share_buffer", 0) != 0;
    let past = match (ctx.optional(at.keys), at.length.and_then(|length| ctx.optional(length))) {
        (None, _) => 0.into(),
        // A shared buffer has room for what is to come.
        (Some(_), Some(_)) if shared => ctx.element(at.length.unwrap_or(at.keys))?.clone(),
        (Some(_), _) => ctx.dims(at.keys)?.get(2).cloned().ok_or("expected a past of four axes")?,
    };
    let three = |i: usize| ctx.optional(i).map(|_| ctx.dims(i)).transpose();
    match (ctx.dims(0)?, three(1)?, three(2)?) {
        ([batch, queries, heads, _, size], None, None) => {
            let hidden = heads * size;
            let (batch, queries) = (batch.clone(), queries.clone());
            Ok(Extents { batch, keys: &queries + &past, queries, values: hidden.clone(), hidden })
        }
        ([batch, queries, all], None, None) => {
            let hidden = all.floor_div(&3.into());
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
fn multi_head(ctx: &Ctx, at: Past) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype(0)?;
    let extents = |pick: fn(Extents, Expr) -> Vec<Expr>| {
        ctx.shaped(dtype, || Ok(pick(multi_head_extents(ctx, at)?, head_count(ctx, "num_heads")?)))
    };
    let shared = ctx.int("past_present_share_buffer", 0) != 0;
    let cache = |index: usize, pick: fn(Extents, Expr) -> Vec<Expr>| match ctx.optional(index) {
        Some(buffer) if shared => Ok(like(buffer, buffer.dtype)),
        _ => extents(pick),
    };
    Ok(vec![
        extents(|e, _| vec![e.batch, e.queries, e.values])?,
        cache(at.keys, |e, heads| vec![e.batch, heads.clone(), e.keys, e.hidden.floor_div(&heads)])?,
        cache(at.keys + 1, |e, heads| vec![e.batch, heads.clone(), e.keys, e.values.floor_div(&heads)])?,
        extents(|e, heads| vec![e.batch, heads, e.queries, e.keys])?,
    ])
}

fn multi_head_work(ctx: &Ctx, at: Past) -> Result<Work, Why> {
    Ok(Work::Attention { macs: multi_head_extents(ctx, at)?.macs() })
}

/// `query: [L, B, hidden]`, `key: [T, B, hidden]`: axes of time come first.
fn decoder_extents(ctx: &Ctx) -> Result<Extents, Why> {
    let ([queries, batch, hidden], [keys, _, _]) = (ctx.dims(0)?, ctx.dims(1)?) else {
        return Err(format!("expected queries and keys of three axes, found {:?}", ctx.dims(0)?));
    };
    let flag = |i: usize| ctx.element(i).ok().and_then(Expr::number).unwrap_or(0) != 0;
    if flag(9) {
        return Err(ctx.unknown("how long the cache is depends on what is fed"));
    }
    let (batch, queries, keys) = (batch.clone(), queries.clone(), keys.clone());
    Ok(Extents { batch, queries, keys, hidden: hidden.clone(), values: hidden.clone() })
}

fn decoder(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let cache = ctx.shaped(ctx.dtype(0)?, || {
        let (e, heads) = (decoder_extents(ctx)?, head_count(ctx, "num_heads")?);
        Ok(vec![e.batch, heads.clone(), e.keys, e.hidden.floor_div(&heads)])
    })?;
    Ok(vec![same(ctx)?.remove(0), cache.clone(), cache])
}

/// Queries by one weight, keys and values by another.
fn decoder_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    let e = decoder_extents(ctx)?;
    let rows = &(&e.queries + &(&e.keys * 2)) * &e.batch;
    let projection = Work::Linear {
        macs: [rows, e.hidden.clone(), e.hidden.clone()].into_iter().product(),
        bias: 0.into(),
    };
    Ok(Work::Several(vec![projection, Work::Attention { macs: e.macs() }]))
}

/// Three weights `[in, hidden]`.
fn ordered_extents(ctx: &Ctx) -> Result<(Expr, Extents), Why> {
    let ([batch, length, _], [inputs, hidden], [_, values]) = (ctx.dims(0)?, ctx.dims(5)?, ctx.dims(7)?)
    else {
        return Err(format!("expected [B, L, in] and weights [in, hidden], found {:?}", ctx.dims(0)?));
    };
    let (batch, queries) = (batch.clone(), length.clone());
    let e = Extents { batch, keys: queries.clone(), queries, hidden: hidden.clone(), values: values.clone() };
    Ok((inputs.clone(), e))
}

fn ordered(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || ordered_extents(ctx).map(|(_, e)| vec![e.batch, e.queries, e.values]);
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn ordered_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    let (inputs, e) = ordered_extents(ctx)?;
    let columns = &(&e.hidden * 2) + &e.values;
    let macs = [e.batch.clone(), e.queries.clone(), inputs, columns].into_iter().product();
    Ok(Work::Several(vec![Work::Linear { macs, bias: 0.into() }, Work::Attention { macs: e.macs() }]))
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
fn total(ctx: &Ctx, at: Total) -> Result<Expr, Why> {
    ctx.element(at.0).cloned()
}

/// The cache holds at least what it held before, numbers as packed as they were.
fn grouped(ctx: &Ctx, at: Total) -> Result<Vec<Fact>, Why> {
    let out = ctx.shaped(ctx.dtype(0)?, || {
        let g = grouped_extents(ctx)?;
        Ok(vec![g.batch, g.length, &g.heads * &g.head_size])
    })?;
    let cache = |index: usize| {
        ctx.shaped(ctx.optional(index).map_or(out.dtype, |past| past.dtype), || {
            let g = grouped_extents(ctx)?;
            let (held, size) = match ctx.optional(index).map(|_| ctx.dims(index)).transpose()? {
                Some([_, _, held, size]) => (total(ctx, at)?.larger(held), size.clone()),
                Some(other) => return Err(format!("expected a cache of four axes, found {other:?}")),
                None => (g.length, g.head_size),
            };
            Ok(vec![g.batch, g.kv_heads, held, size])
        })
    };
    let scores = ctx.shaped(ctx.dtype(0)?, || {
        let g = grouped_extents(ctx)?;
        Ok(vec![g.batch, g.heads, g.length, total(ctx, at)?])
    })?;
    Ok(vec![out.clone(), cache(3)?, cache(4)?, scores])
}

fn grouped_work(ctx: &Ctx, at: Total) -> Result<Work, Why> {
    let g = grouped_extents(ctx)?;
    let keys = match ctx.optional(3) {
        Some(_) => total(ctx, at)?,
        None => g.length.clone(),
    };
    let macs = [g.batch, g.heads, g.length, keys, g.head_size * 2].into_iter().product();
    Ok(Work::Attention { macs })
}

/// `[tokens, in]` by merged weights `[in, hidden + hidden + values]`.
fn packed_merged(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.dims(1)?, ctx.ints("qkv_hidden_sizes")) {
        ([tokens, _], _, Some(&[_, _, values])) => Ok(vec![tokens.clone(), values.into()]),
        ([tokens, _], [_, columns], _) => Ok(vec![tokens.clone(), columns.floor_div(&3.into())]),
        (x, weights, _) => Err(format!("expected [tokens, in] and a matrix, found {x:?} and {weights:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

/// `[tokens, heads·size]`, or queries, keys and values in one; caches in blocks keep their shape.
fn paged(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let out = ctx.shaped(ctx.dtype(0)?, || {
        let [tokens, width] = ctx.dims(0)? else {
            return Err(format!("expected [tokens, hidden], found {:?}", ctx.dims(0)?));
        };
        let (heads, kv_heads) = (head_count(ctx, "num_heads")?, head_count(ctx, "kv_num_heads")?);
        let columns = if ctx.optional(1).is_some() { heads.clone() } else { &heads + &(&kv_heads * 2) };
        let size = match ctx.int("v_head_size", 0) {
            0 => width.floor_div(&columns),
            size => size.into(),
        };
        Ok(vec![tokens.clone(), &heads * &size])
    })?;
    let cache = |i: usize| ctx.optional(i).map_or_else(|| out.clone(), |cache| like(cache, cache.dtype));
    Ok(vec![out.clone(), cache(3), cache(4)])
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
