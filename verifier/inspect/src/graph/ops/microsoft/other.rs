//! The rest of what ONNX Runtime registers: attention over ragged and sparse keys, generation loops,
//! states of speculative decoding, older spellings of ONNX's own operators.
//!
//! What an operator multiplies is not always told by shapes. Such a node says why it has no count.

use emo_proto::tensor_proto::DataType;

use crate::cost::{Pool, Work};
use crate::fact::Fact;
use crate::ops::elementwise::{dropout, like, same};
use crate::ops::pool::{self, window_dims};
use crate::ops::{Ctx, Row, Why, cut, generate, index, recurrent};
use crate::sym::Expr;

const SPARSE: &str = "which keys a query meets is known only when the graph runs";
const TURNS: &str = "how many tokens it writes is known only when the graph runs";
const COMPILED: &str = "it holds what a provider has compiled, not a graph";
const OWN: &str = "what it multiplies is the engine's own; no convention counts it";

/// A row whose outputs have known shapes and whose work has no count.
const fn uncounted(
    name: &'static str,
    rule: crate::ops::Rule,
    work: crate::ops::WorkRule,
    weights: &'static [usize],
) -> Row {
    Row { name, rule, work, weights }
}

pub(in crate::graph::ops) const ROWS: &[Row] = &[
    uncounted("DynamicSparseAttention", sparse_heads, |_, _| Err(SPARSE.into()), &[14, 15, 16]),
    uncounted("SparsePagedAttention", same, |_, _| Err(SPARSE.into()), &[16, 17, 18]),
    uncounted("SparseAttentionIndexer", unknown, |_, _| Err(SPARSE.into()), &[2, 3, 9]),
    uncounted("PackedSparseAttentionIndexer", unknown, |_, _| Err(SPARSE.into()), &[2, 3, 9]),
    Row::free("PackedSparseAttentionIndexerMerge", unknown),
    uncounted("LongformerAttention", same, |_, _| Err(SPARSE.into()), &[1, 2, 4, 5]),
    uncounted("QOrderedLongformerAttention", same, |_, _| Err(SPARSE.into()), &[2, 4, 8, 10]),
    uncounted("BeamSearch", unknown, |_, _| Err(TURNS.into()), &[]),
    uncounted("GreedySearch", unknown, |_, _| Err(TURNS.into()), &[]),
    uncounted("Sampling", unknown, |_, _| Err(TURNS.into()), &[]),
    uncounted("WhisperBeamSearch", unknown, |_, _| Err(TURNS.into()), &[]),
    uncounted("EPContext", unknown, |_, _| Err(COMPILED.into()), &[]),
    uncounted("Snpe", unknown, |_, _| Err(COMPILED.into()), &[]),
    uncounted("AttnLSTM", recurrent::cell, |_, _| Err(OWN.into()), &[1, 2, 3, 7, 8, 9, 10, 13]),
    uncounted("WordConvEmbedding", words, |_, _| Err(OWN.into()), &[1, 2, 3]),
    uncounted("Mamba2Verify", verified, |_, _| Err(OWN.into()), &[3, 4, 5, 6, 7, 8]),
    Row { name: "GatedDeltaNet", rule: delta_net, work: delta_net_work, weights: &[7, 8] },
    Row { name: "VarlenCausalConvWithState", rule: varlen_conv, work: varlen_conv_work, weights: &[1, 3] },
    Row {
        name: "GatedRelativePositionBias",
        rule: gated_bias,
        work: gated_bias_work,
        weights: &[1, 3, 4, 5],
    },
    Row {
        name: "MaxpoolWithMask",
        rule: masked_pool,
        work: |ctx, _| pool::work(ctx, Pool::Window),
        weights: &[],
    },
    Row { weights: &[1], ..Row::free("BitmaskBiasDropout", dropout) },
    Row { weights: &[0], ..Row::free("GatherND", index::gather_nd) },
    Row::free("MRotaryEmbedding", same),
    Row::free("ConvStateReplay", |ctx| Ok(vec![like(ctx.input(2)?, ctx.dtype(2)?)])),
    Row::free("GatedDeltaNetStateReplay", |ctx| Ok(vec![like(ctx.input(2)?, ctx.dtype(2)?)])),
    Row::free("SpeculativePrefixCommit", unknown),
    Row::free("BifurcationDetector", unknown),
    Row::free("DynamicTimeWarping", unknown),
    Row::free("QuantizeBFP", unknown),
    Row::free("DequantizeBFP", unknown),
    Row::free("NGramHashMapping", hashes),
    Row::free("VarlenNGramHashMapping", hashes),
    Row::free("Tokenizer", tokens),
    Row::free("Unique", index::unique),
    Row::free("UnfoldTensor", unfold),
    Row::free("ExpandDims", expand_dims),
    Row::free("Pad", cut::pad),
    Row::free("Range", generate::range),
    Row::free("SampleOp", same),
];

/// Outputs of which only the operands' values tell the extents.
fn unknown(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let why = format!("{} does not tell the extents of its outputs", ctx.node.op_type());
    Ok(vec![Fact::unknown(DataType::Undefined, &why); ctx.node.output.len()])
}

/// Queries alone or packed with keys and values: `[B, L, heads·size]`; the caches keep their shape.
fn sparse_heads(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let (heads, kv_heads) = (ctx.int("num_heads", 0), ctx.int("kv_num_heads", 0));
    let out = ctx.shaped(ctx.dtype(0)?, || {
        let mut dims = ctx.dims(0)?.to_vec();
        if ctx.optional(1).is_none() {
            let last = dims.last_mut().ok_or("expected [B, L, width]")?;
            let all = heads.saturating_add(kv_heads.saturating_mul(2));
            *last = last.floor_div(&all.into()) * heads;
        }
        Ok(dims)
    })?;
    let cache = |i: usize| ctx.optional(i).map_or_else(|| Fact::unknown(out.dtype, "no cache"), Fact::clone);
    let cache = |i: usize| Fact { source: None, ..cache(i) };
    Ok(vec![out.clone(), cache(3), cache(4), Fact::unknown(DataType::Int32, "the engine's status")])
}

/// What a packed delta rule works on.
struct Delta {
    /// `[tokens]` or `[B, S]`.
    lead: Vec<Expr>,
    heads: Expr,
    value_heads: Expr,
    size: Expr,
    value_size: Expr,
}

/// Queries `[tokens, heads, size]` and values, or all in one beside a state `[B, heads, values, size]`.
fn delta(ctx: &Ctx) -> Result<Delta, Why> {
    match (ctx.dims(0)?, ctx.optional(2)) {
        ([lead @ .., heads, size], Some(_)) => match ctx.dims(2)? {
            [.., value_heads, value_size] => Ok(Delta {
                lead: lead.to_vec(),
                heads: heads.clone(),
                value_heads: value_heads.clone(),
                size: size.clone(),
                value_size: value_size.clone(),
            }),
            other => Err(format!("expected values [tokens, heads, size], found {other:?}")),
        },
        ([lead @ .., width], None) => {
            let [_, value_heads, value_size, size] = ctx.dims(6)? else {
                return Err(format!("expected a state of four axes, found {:?}", ctx.dims(6)?));
            };
            let keys = width - &(value_heads * value_size);
            let heads = keys.floor_div(&(size * 2));
            let (value_heads, value_size) = (value_heads.clone(), value_size.clone());
            Ok(Delta { lead: lead.to_vec(), heads, value_heads, size: size.clone(), value_size })
        }
        (other, _) => Err(format!("expected queries [tokens, heads, size], found {other:?}")),
    }
}

fn delta_net(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let out = ctx.shaped(ctx.dtype(0)?, || {
        let d = delta(ctx)?;
        Ok(d.lead.into_iter().chain([d.heads.larger(&d.value_heads), d.value_size]).collect())
    })?;
    let state = ctx.optional(6).map_or_else(
        || Fact::unknown(DataType::Float, "the batch is in the lengths of the sequences"),
        |state| like(state, state.dtype),
    );
    Ok(vec![out, state, Fact::unknown(DataType::Float, "captured steps")])
}

/// As `LinearAttention`: an outer product, a product with the query and, under a delta rule, one with
/// the key, a matrix of key by value each.
fn delta_net_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    let d = delta(ctx)?;
    let delta = ctx.text("update_rule").unwrap_or("gated_delta").contains("delta");
    let products = &d.value_heads * if delta { 3 } else { 2 };
    let tokens = d.lead.into_iter().product::<Expr>();
    Ok(Work::Attention { macs: [tokens, products, d.size, d.value_size].into_iter().product() })
}

fn varlen_conv(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let state = ctx.input(4)?;
    let update = Fact::unknown(ctx.dtype(0)?, "captured steps");
    Ok(vec![same(ctx)?.remove(0), like(state, state.dtype), update])
}

/// Depthwise: `[tokens, channels]` by `[channels, 1, kernel]`.
fn varlen_conv_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    let elements = ctx.input(0)?.count();
    let kernel = ctx.dims(1)?.last().ok_or("expected a kernel [channels, 1, taps]")?;
    let bias = ctx.optional(3).map_or(0.into(), |_| elements.clone());
    Ok(Work::Conv { macs: &elements * kernel, bias })
}

/// `rel_pos: [1, heads, L, L]` for each of the batch.
fn gated_bias(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.dims(2)?) {
        ([batch, _, _], [_, rest @ ..]) => Ok([batch].into_iter().chain(rest).cloned().collect()),
        (x, bias) => Err(format!("expected [B, L, width] and [1, heads, L, L], found {x:?} and {bias:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn gated_bias_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    let columns = ctx.dims(3)?.last().ok_or("expected a weight [size, D]")?;
    Ok(Work::Linear { macs: &ctx.input(0)?.count() * columns, bias: 0.into() })
}

fn masked_pool(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(ctx.dtype(0)?, || window_dims(ctx, ctx.dims(0)?))?])
}

/// `[R, width]` → `[R, inner]`, and the states as they came.
fn verified(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.dims(8)?) {
        ([rows, _], [inner]) => Ok(vec![rows.clone(), inner.clone()]),
        (x, norm) => Err(format!("expected [R, width] and [inner], found {x:?} and {norm:?}")),
    };
    let (y, readout) = (ctx.shaped(ctx.dtype(0)?, dims)?, ctx.shaped(DataType::Float, dims)?);
    let (conv, ssm) = (ctx.input(1)?, ctx.input(2)?);
    let channels = ctx.shaped(ctx.dtype(0)?, || match (ctx.dims(0)?, ctx.dims(1)?) {
        ([rows, _], [_, channels, _]) => Ok(vec![rows.clone(), channels.clone()]),
        other => Err(format!("expected a projection and a state, found {other:?}")),
    })?;
    Ok(vec![y, like(conv, conv.dtype), like(ssm, ssm.dtype), channels, readout])
}

/// `[words, letters]` by filters: `[words, embedding]`.
fn words(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || match (ctx.dims(0)?, ctx.dims(1)?) {
        ([before @ .., _], [filters, ..]) => Ok(before.iter().chain([filters]).cloned().collect()),
        (x, filters) => Err(format!("expected words and filters, found {x:?} and {filters:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(1)?, dims)?])
}

/// A hash for each head of each n-gram behind the ids.
fn hashes(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let grams = ctx.int("max_ngram_size", 1).saturating_sub(1);
    let columns = grams.saturating_mul(ctx.int("n_head_per_ngram", 1));
    let hashes = ctx.shaped(ctx.dtype(0)?, || Ok([ctx.dims(0)?, &[columns.into()]].concat()))?;
    let mut outputs = unknown(ctx)?;
    if let Some(first) = outputs.first_mut() {
        *first = hashes;
    }
    Ok(outputs)
}

/// The tokens along a new axis.
fn tokens(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let longest = Expr::unknown("how many tokens a text has is known only when the graph runs");
    Ok(vec![ctx.shaped(DataType::String, || Ok([ctx.dims(0)?, &[longest]].concat()))?])
}

/// Slices of `size` along `dim`, a step apart, as a new last axis.
fn unfold(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let mut dims = ctx.dims(0)?.to_vec();
        let axis = Ctx::axis(ctx.int("dim", -1), dims.len())?;
        let (size, step) = (ctx.int("size", 1), ctx.int("step", 1));
        if step < 1 || size < 1 {
            return Err(format!("expected a size and a step of 1 at least, found {size} and {step}"));
        }
        dims[axis] = (&dims[axis] - size).floor_div(&step.into()) + 1;
        dims.push(size.into());
        Ok(dims)
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn expand_dims(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let mut dims = ctx.dims(0)?.to_vec();
        let at = ctx.element(1)?.number().ok_or_else(|| ctx.unknown("the axis is not known"))?;
        dims.insert(Ctx::axis(at, dims.len() + 1)?, 1.into());
        Ok(dims)
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}
