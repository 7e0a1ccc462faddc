//! Packed weights and mixtures of experts: what generators of language models write.
//!
//! Packed weights tell their extents by attributes; how a format packs them is the engine's. A number
//! of 2, 4 or 8 bits in bytes is a parameter each.

use emo_proto::NodeProto;
use emo_proto::tensor_proto::DataType;

use crate::cost::Work;
use crate::fact::Fact;
use crate::ops::elementwise::{like, same};
use crate::ops::linear::product;
use crate::ops::normalise::layer_norm_work;
use crate::ops::{Ctx, Row, Why, written};
use crate::sym::Expr;

pub(in crate::graph::ops) const ROWS: &[Row] = &[
    Row { name: "GatherBlockQuantized", rule: gather_quantised, work: |_, _| Ok(Work::Free), weights: &[0] },
    Row { weights: &[0], ..Row::free("GatherPacked", gather_packed) },
    Row { name: "MatMulNBitsMlp", rule: mlp, work: mlp_work, weights: &[2, 3, 5, 6, 8] },
    Row { name: "MatMulNBitsQkv", rule: qkv, work: qkv_work, weights: &[2, 3, 5, 6, 8, 9, 11] },
    Row { name: "MatMulNBitsQLoRA", rule: columns, work: low_rank_work, weights: &[1, 3, 5] },
    Row { name: "MatMulPacked", rule: columns, work: columns_work, weights: &[1] },
    Row { name: "MatMulFpQ4", rule: shaped_by_operand, work: last_work, weights: &[1] },
    Row { name: "MatMulBlockQuantizedFp4Weight", rule: rows, work: last_work, weights: &[1, 5] },
    Row { name: "MatMulBlockQuantizedFp8Weight", rule: rows, work: last_work, weights: &[1, 4] },
    Row { name: "RouterGateUpProj", rule: router_gate_up, work: gate_up_work, weights: &[1] },
    Row {
        name: "MoE",
        rule: same,
        work: |ctx, _| experts_work(ctx, [2, 4, 6]),
        weights: &[2, 3, 4, 5, 6, 7],
    },
    Row {
        name: "QMoE",
        rule: same,
        work: |ctx, _| experts_work(ctx, [2, 5, 8]),
        weights: &[2, 4, 5, 7, 8, 10],
    },
    Row { name: "MoEPacked", rule: same, work: |ctx, _| packed_experts_work(ctx), weights: &[2, 3, 4] },
    Row { name: "MoEGroupRouter", rule: group_router, work: group_router_work, weights: &[1, 2] },
    Row { weights: &[1], ..Row::free("GatedRMSNorm", same) },
    Row { weights: &[1], ..Row::free("BranchwiseRMSNorm", same) },
    Row { weights: &[1], ..Row::free("RMSNormRotary", norm_rotary) },
    Row { weights: &[1, 2], ..Row::free("LinearAttentionGate", gates) },
    Row { name: "EngramGate", rule: engram, work: |_, _| Ok(Work::Free), weights: &[3, 4, 5] },
    Row {
        name: "HyperConnectionLowRankMix",
        rule: low_rank_mix,
        work: low_rank_mix_work,
        weights: &[1, 2, 3, 4],
    },
    Row::free("HyperConnectionPostMix", same),
    Row::free("HyperConnectionPreMix", pre_mix),
    Row { name: "QOrderedMatMul", rule: ordered_matmul, work: ordered_matmul_work, weights: &[2, 5] },
    Row { name: "QOrderedLayerNormalization", rule: same, work: layer_norm_work, weights: &[2, 3] },
    Row::free("QOrderedGelu", same),
    Row::free("QuantizeWithOrder", |ctx| Ok(vec![like(ctx.input(0)?, DataType::Int8)])),
    Row::free("DequantizeWithOrder", ordered_floats),
];

/// How many numbers lie in an element of a packed operand; `operand` tells weights of several apart.
pub(crate) fn numbers_in(node: &NodeProto, dtype: DataType, operand: usize) -> i64 {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name() == name);
    let int = |name: &str, default: i64| attribute(name).and_then(|a| a.i).unwrap_or(default);
    let is_eight = attribute("quant_type").is_some_and(|a| a.s() == b"fp8");
    let bits = match (node.op_type(), dtype) {
        (_, dtype) if dtype != DataType::Uint8 => return 1,
        ("GatherBlockQuantized", _) => int("bits", 4),
        ("MatMulBlockQuantizedFp4Weight", _) => 4,
        ("QMoE", _) if is_eight => 8,
        ("QMoE", _) if attribute("quant_type").is_some_and(|a| a.s() != b"int") => 4,
        ("QMoE", _) => {
            let own = match operand {
                2 => "fc1_expert_weight_bits",
                5 => "fc2_expert_weight_bits",
                _ => "fc3_expert_weight_bits",
            };
            int(own, int("expert_weight_bits", 4))
        }
        _ => 8,
    };
    if (1..=8).contains(&bits) { 8 / bits } else { 1 }
}

/// A gather of rows, which come out dequantised; bytes of several numbers lie along the last axis.
fn gather_quantised(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let output = ctx.shaped(ctx.dtype(2)?, || {
        let mut data = ctx.dims(0)?.to_vec();
        let last = data.last_mut().ok_or("expected a table of one axis at least")?;
        *last = &*last * numbers_in(ctx.node, ctx.dtype(0)?, 0);
        let axis = Ctx::axis(ctx.int("gather_axis", 0), data.len())?;
        Ok([&data[..axis], ctx.dims(1)?, &data[axis + 1..]].concat())
    })?;
    Ok(vec![output])
}

/// Rows of `K` numbers.
fn gather_packed(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype_of("output_dtype")?.unwrap_or(DataType::Bfloat16);
    let dims = || Ok([ctx.dims(1)?, &[ctx.int("K", 0).into()]].concat());
    Ok(vec![ctx.shaped(dtype, dims)?])
}

/// The first operand with its last extent replaced.
fn with_last(ctx: &Ctx, last: impl FnOnce() -> Result<Expr, Why>) -> Result<Vec<Fact>, Why> {
    let dims = || match ctx.dims(0)? {
        [before @ .., _] => Ok(before.iter().cloned().chain([last()?]).collect()),
        [] => Err("expected one axis at least".to_owned()),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn last_of<'a>(ctx: &Ctx<'a>) -> Result<&'a Expr, Why> {
    ctx.dims(0)?.last().ok_or_else(|| "expected one axis at least".to_owned())
}

/// A product with a weight of `out` columns for each row of the first operand.
fn linear(ctx: &Ctx, columns: Expr) -> Result<Work, Why> {
    Ok(Work::Linear { macs: &ctx.input(0)?.count() * &columns, bias: 0.into() })
}

fn columns(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    with_last(ctx, || Ok(ctx.int("N", 0).into()))
}

fn columns_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    linear(ctx, ctx.int("N", 0).into())
}

/// A weight `[N, …]`, packed along its other axis.
fn rows(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    with_last(ctx, || ctx.dims(1)?.first().cloned().ok_or_else(|| "expected a weight of two axes".to_owned()))
}

fn shaped_by_operand(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    with_last(ctx, || {
        ctx.elements(2)?.last().cloned().ok_or_else(|| "expected the weight's extents".to_owned())
    })
}

/// By what came out.
fn last_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    Ok(product(ctx, &[0, 1], &written(outputs) * last_of(ctx)?))
}

/// The base and the two factors of an adapter, whose rank its scales tell.
fn low_rank_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    let rank = match ctx.dims(4)? {
        [rank, _] => rank.clone(),
        other => return Err(format!("expected scales of the adapter [R, blocks], found {other:?}")),
    };
    let rank = if ctx.input(3)?.count().is(0) { 0.into() } else { rank };
    let rows = ctx.input(0)?.count().exact_div(last_of(ctx)?).ok_or("expected rows of K numbers")?;
    let (k, n) = (Expr::from(ctx.int("K", 0)), Expr::from(ctx.int("N", 0)));
    let columns = &(&k * &n) + &(&rank * &(&k + &n));
    Ok(Work::Linear { macs: &rows * &columns, bias: 0.into() })
}

/// The gated product, and the sum that was normalised.
fn mlp(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok([columns(ctx)?, same(ctx)?].concat())
}

fn mlp_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    linear(ctx, (ctx.int("N", 0).saturating_mul(2)).into())
}

fn qkv(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let width = |name: &'static str| with_last(ctx, || Ok(ctx.int(name, 0).into()));
    Ok([width("Nq")?, width("Nkv")?, width("Nkv")?, same(ctx)?].concat())
}

fn qkv_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    linear(ctx, Expr::from(ctx.int("Nq", 0)) + &(Expr::from(ctx.int("Nkv", 0)) * 2))
}

/// `W: [K, router + 2·inter]` → the router's logits and the gated activation.
fn router_gate_up(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let router = Expr::from(ctx.int("router_size", 0));
    let inter = || match ctx.dims(1)? {
        [_, all] => Ok((all - &router).floor_div(&2.into())),
        other => Err(format!("expected a weight [K, N], found {other:?}")),
    };
    Ok([with_last(ctx, || Ok(router.clone()))?, with_last(ctx, inter)?].concat())
}

fn gate_up_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    linear(ctx, ctx.dims(1)?.last().cloned().ok_or("expected a weight [K, N]")?)
}

/// Every token meets `k` experts: each holds the matrices `[experts, rows, columns]` of the operands.
fn experts_work(ctx: &Ctx, matrices: [usize; 3]) -> Result<Work, Why> {
    let mut expert = Expr::Number(0);
    for index in matrices.into_iter().filter(|&index| ctx.optional(index).is_some()) {
        let [_, rows, columns] = ctx.dims(index)? else {
            return Err(format!("expected weights [experts, rows, columns], found {:?}", ctx.dims(index)?));
        };
        let numbers = numbers_in(ctx.node, ctx.dtype(index)?, index);
        expert = &expert + &(&(rows * columns) * numbers);
    }
    chosen(ctx, &expert)
}

/// `[experts, inter, bytes]` of gate and perhaps up, `[experts, hidden, bytes]` of down.
fn packed_experts_work(ctx: &Ctx) -> Result<Work, Why> {
    let [_, inter, _] = ctx.dims(2)? else {
        return Err(format!("expected weights [experts, inter, bytes], found {:?}", ctx.dims(2)?));
    };
    let matrices = if ctx.optional(3).is_some() { 3 } else { 2 };
    chosen(ctx, &(&(inter * last_of(ctx)?) * matrices))
}

fn chosen(ctx: &Ctx, expert: &Expr) -> Result<Work, Why> {
    let tokens = match ctx.dims(0)? {
        [before @ .., _] => before.iter().cloned().product::<Expr>(),
        [] => return Err("expected tokens [..., hidden], found a number".to_owned()),
    };
    Ok(Work::Linear { macs: &(&tokens * ctx.int("k", 1)) * expert, bias: 0.into() })
}

/// `[tokens, experts]` each time: the logits that decide, the scores, the weights.
fn group_router(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let (rows, experts) = (ctx.dims(0)?, ctx.dims(1)?);
        let [before @ .., _] = rows else { return Err("expected logits [..., experts]".to_owned()) };
        Ok(vec![before.iter().cloned().product(), experts.iter().cloned().product()])
    };
    let (own, single) = (ctx.shaped(ctx.dtype(0)?, dims)?, ctx.shaped(DataType::Float, dims)?);
    Ok(vec![own, single.clone(), single])
}

fn group_router_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    match ctx.optional(2) {
        Some(_) => linear(ctx, ctx.input(1)?.count()),
        None => Ok(Work::Free),
    }
}

/// `[B, S, heads, stride]` → `[B, S, heads·width]`, and before rotation `[B, S, heads, width]`.
fn norm_rotary(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = if ctx.int("output_fp16", 0) == 0 { ctx.dtype(0)? } else { DataType::Float16 };
    let split = || match (ctx.dims(0)?, ctx.dims(1)?) {
        ([b, s, heads, _], [width]) => Ok([b, s, heads, width].map(Expr::clone).to_vec()),
        (x, scale) => Err(format!("expected [B, S, heads, stride] and [width], found {x:?} and {scale:?}")),
    };
    let merged = || {
        let dims = split()?;
        Ok(vec![dims[0].clone(), dims[1].clone(), &dims[2] * &dims[3]])
    };
    Ok(vec![ctx.shaped(dtype, merged)?, ctx.shaped(DataType::Float, split)?])
}

/// Decays and rates, as the projections that they are made of.
fn gates(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok([same(ctx)?, same(ctx)?].concat())
}

fn engram(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok([same(ctx)?, same(ctx)?].concat())
}

/// Streams `[..., C·H]` or `[..., C, H]` → `[..., H]`.
fn pre_mix(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let branches = ctx.int("num_branches", 0);
    let dims = || match ctx.dims(0)? {
        [before @ .., width] if branches > 0 => {
            Ok(before.iter().cloned().chain([width.floor_div(&branches.into())]).collect())
        }
        [before @ .., _, width] => Ok(before.iter().chain([width]).cloned().collect()),
        other => Err(format!("expected streams [..., C, H], found {other:?}")),
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn low_rank_mix(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let branches = Expr::from(ctx.int("num_branches", 1).max(1));
    let width = || Ok(last_of(ctx)?.floor_div(&branches));
    Ok([with_last(ctx, width)?, with_last(ctx, || Ok(branches.clone()))?, same(ctx)?].concat())
}

/// The factors down and up, and the projection of the gates.
fn low_rank_mix_work(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    let rank = ctx.dims(2)?.last().ok_or("expected a factor [C·H, R]")?;
    linear(ctx, rank * 2 + &Expr::from(ctx.int("num_branches", 1)))
}

/// Transposed where its columns lie together.
fn ordered_matmul(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    // CUBLASLT_ORDER_COL is 0.
    let column = usize::from(ctx.int("order_B", 0) != 0);
    with_last(ctx, || ctx.dims(2)?.get(column).cloned().ok_or_else(|| "expected a matrix".to_owned()))
}

fn ordered_matmul_work(ctx: &Ctx, outputs: &[Fact]) -> Result<Work, Why> {
    Ok(product(ctx, &[0, 2], &written(outputs) * last_of(ctx)?))
}

fn ordered_floats(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = ctx.dtype_of("to")?.unwrap_or(DataType::Float);
    Ok(vec![like(ctx.input(0)?, dtype)])
}
