//! Several operators as one.

use std::sync::Arc;

use crate::eval::Why;
use crate::eval::call::Call;
use crate::eval::conv::conv;
use crate::eval::elementwise::{gelu, gelu_tanh, one, sigmoid, unary};
use crate::eval::linear::{gemm, matmul};
use crate::eval::normalise::{by_root_mean_square, grouped, soften, standardised};
use crate::eval::table::{Row, moves, rounds};
use crate::eval::value::{Value, zip};

pub(in crate::run::eval) const ROWS: &[Row] = &[
    rounds("FusedConv", |c| one(fused_conv(c, c.operand(0)?, c.maybe(3))?)),
    rounds("NhwcConv", |c| {
        one(channels_last(&conv(c, &channels_first(c.operand(0)?)?, c.operand(1)?, c.maybe(2))?)?)
    }),
    rounds("NhwcFusedConv", |c| {
        let sum = c.maybe(3).map(channels_first).transpose()?;
        one(channels_last(&fused_conv(c, &channels_first(c.operand(0)?)?, sum.as_ref())?)?)
    }),
    rounds("FusedGemm", |c| {
        let product = gemm(c, c.operand(0)?, c.operand(1)?)?;
        let beta = c.real("beta", 1.0);
        let y = match c.maybe(2) {
            Some(bias) => zip(&product, &bias.expanded(&product.dims)?, |x, b| x + beta * b)?,
            None => product,
        };
        let parameters = ["activation_alpha", "activation_beta", "activation_gamma"];
        one(activated(c, y, &parameters.map(|name| c.float(name).map(f64::from)))?)
    }),
    rounds("FusedMatMul", |c| one(fused_matmul(c)?)),
    rounds("TransposeMatMul", |c| one(fused_matmul(c)?)),
    rounds("FusedMatMulActivation", |c| {
        let parameters = ["activation_alpha", "activation_beta", "activation_gamma"];
        one(activated(c, fused_matmul(c)?, &parameters.map(|name| c.float(name).map(f64::from)))?)
    }),
    rounds("Gelu", |c| unary(c, gelu)),
    rounds("BiasGelu", |c| one(zip(c.operand(0)?, c.operand(1)?, |x, b| gelu(x + b))?)),
    rounds("FastGelu", |c| match c.maybe(1) {
        Some(bias) => one(zip(c.operand(0)?, bias, |x, b| gelu_tanh(x + b))?),
        None => unary(c, gelu_tanh),
    }),
    rounds("QuickGelu", |c| {
        let alpha = c.real("alpha", 1.702);
        unary(c, |x| x * sigmoid(alpha * x))
    }),
    rounds("BiasAdd", |c| {
        let biased = zip(c.operand(0)?, c.operand(1)?, |x, b| x + b)?;
        one(zip(&biased, c.operand(2)?, |x, s| x + s)?)
    }),
    rounds("BiasSplitGelu", |c| {
        let x = zip(c.operand(0)?, c.operand(1)?, |x, b| x + b)?;
        let axis = x.rank().checked_sub(1).ok_or("expected an axis to split")?;
        let half = x.dims[axis] / 2;
        let part = |start| crate::eval::movement::part(&x, axis, start, start + half);
        one(zip(&part(0)?, &part(half)?, |x, gate| x * gelu(gate))?)
    }),
    rounds("BiasSoftmax", |c| {
        let x = zip(c.operand(0)?, c.operand(1)?, |x, b| x + b)?;
        let axis = c.axis_of("axis", 1, x.rank())?;
        let (outer, length) = (x.dims[..axis].iter().product(), x.dims[axis..].iter().product());
        let mut y = x;
        c.sums(length);
        soften(Arc::make_mut(&mut y.data).as_mut_slice(), (outer, length, 1), false);
        one(y)
    }),
    rounds("SkipLayerNormalization", |c| skip_norm(c, c.maybe(3), c.maybe(4), true)),
    rounds("SkipSimplifiedLayerNormalization", |c| skip_norm(c, None, c.maybe(3), false)),
    rounds("EmbedLayerNormalization", embed),
    rounds("GroupNorm", group_norm),
    moves("NhwcMaxPool", |c| {
        let mut x = c.operands.clone();
        x[0] = Some(channels_first(c.operand(0)?)?);
        one(channels_last(&crate::eval::pool::max(c, x[0].as_ref().ok_or("expected an image")?)?.remove(0))?)
    }),
];

/// `[N, …, C]` → `[N, C, …]`.
pub(super) fn channels_first(x: &Value) -> Result<Value, Why> {
    let rank = x.rank();
    let perm: Vec<usize> = [0, rank.max(1) - 1].into_iter().chain(1..rank.max(1) - 1).collect();
    x.transposed(&perm)
}

/// `[N, C, …]` → `[N, …, C]`.
pub(super) fn channels_last(x: &Value) -> Result<Value, Why> {
    let perm: Vec<usize> = [0].into_iter().chain(2..x.rank()).chain([1]).collect();
    x.transposed(&perm)
}

fn fused_conv(call: &Call, x: &Value, sum: Option<&Value>) -> Result<Value, Why> {
    let mut y = conv(call, x, call.operand(1)?, call.maybe(2))?;
    if let Some(sum) = sum {
        y = zip(&y, sum, |y, s| y + s)?;
    }
    let given = call.floats("activation_params").unwrap_or_default();
    activated(call, y, &[0, 1, 2].map(|i| given.get(i).map(|&x| x.into())))
}

/// The activation that an attribute names, with its own defaults.
fn activated(call: &Call, y: Value, parameters: &[Option<f64>; 3]) -> Result<Value, Why> {
    let or = |i: usize, default: f64| parameters[i].unwrap_or(default);
    Ok(match call.text("activation").unwrap_or_default() {
        "" => y,
        "Relu" => y.map(|x| if x < 0.0 { 0.0 } else { x }),
        "Sigmoid" => y.map(sigmoid),
        "Tanh" => y.map(f64::tanh),
        "LeakyRelu" => y.map(|x| if x < 0.0 { or(0, 0.01) * x } else { x }),
        "Clip" => y.map(|x| x.max(or(0, f64::MIN)).min(or(1, f64::MAX))),
        "HardSigmoid" => y.map(|x| (or(0, 0.2) * x + or(1, 0.5)).clamp(0.0, 1.0)),
        "HardSwish" => y.map(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Elu" => y.map(|x| if x < 0.0 { or(0, 1.0) * x.exp_m1() } else { x }),
        "Gelu" => y.map(gelu),
        "QuickGelu" => y.map(|x| x * sigmoid(or(0, 1.702) * x)),
        "Softplus" => y.map(|x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
        "Softsign" => y.map(|x| x / (1.0 + x.abs())),
        other => return Err(format!("expected an activation that is known, found {other}")),
    })
}

fn fused_matmul(call: &Call) -> Result<Value, Why> {
    let turned = |x: &Value, batch: &str, last: &str| {
        let rank = x.rank();
        let mut perm: Vec<usize> = (0..rank).collect();
        if rank > 1 && call.flag(batch, false) {
            // The first axis goes behind the batch.
            perm[..rank - 1].rotate_left(1);
        }
        if rank > 1 && call.flag(last, false) {
            perm.swap(rank - 2, rank - 1);
        }
        x.transposed(&perm)
    };
    let a = turned(call.operand(0)?, "transBatchA", "transA")?;
    let b = turned(call.operand(1)?, "transBatchB", "transB")?;
    call.sums(a.dims.last().copied().unwrap_or(1));
    let alpha = call.real("alpha", 1.0);
    Ok(matmul(&a, &b)?.map(|x| alpha * x))
}

/// `input + skip + bias`, normalised over the last axis; the sum is the last output.
fn skip_norm(
    call: &Call,
    beta: Option<&Value>,
    bias: Option<&Value>,
    centre: bool,
) -> Result<Vec<Value>, Why> {
    let mut sum = zip(call.operand(0)?, call.operand(1)?, |x, s| x + s)?;
    if let Some(bias) = bias {
        sum = zip(&sum, bias, |x, b| x + b)?;
    }
    let (size, epsilon) = (sum.dims.last().copied().unwrap_or(1), call.real("epsilon", 1e-12));
    call.sums(size);
    let (y, means, inverses) = if centre {
        standardised(&sum, size, epsilon)
    } else {
        let (y, inverses) = by_root_mean_square(&sum, size, epsilon);
        (y, inverses.clone(), inverses)
    };
    let mut y = zip(&y, call.operand(2)?, |x, g| x * g)?;
    if let Some(beta) = beta {
        y = zip(&y, beta, |x, b| x + b)?;
    }
    let mut dims = sum.dims.clone();
    dims.pop();
    dims.push(1);
    let float = emo_proto::tensor_proto::DataType::Float;
    Ok(vec![y, Value::new(float, dims.clone(), means)?, Value::new(float, dims, inverses)?, sum])
}

/// Words, places and segments, their sum normalised; and how many words of each mask are there.
fn embed(call: &Call) -> Result<Vec<Value>, Why> {
    use crate::eval::index::gather;
    let ids = call.operand(0)?;
    let [batch, length] = ids.dims[..] else {
        return Err(format!("expected ids [B, L], found {:?}", ids.dims));
    };
    let words = gather(call.operand(2)?, ids, 0)?;
    let own = Value::list((0..length as i64).collect::<Vec<_>>());
    let places = gather(call.operand(3)?, call.maybe(8).unwrap_or(&own), 0)?;
    let mut sum = zip(&words, &places, |w, p| w + p)?;
    if let (Some(segments), Some(table)) = (call.maybe(1), call.maybe(4)) {
        sum = zip(&sum, &gather(table, segments, 0)?, |x, s| x + s)?;
    }
    let size = sum.dims.last().copied().unwrap_or(1);
    call.sums(size);
    let (y, ..) = standardised(&sum, size, call.real("epsilon", 1e-12));
    let y = zip(&zip(&y, call.operand(5)?, |x, g| x * g)?, call.operand(6)?, |x, b| x + b)?;
    let counts = (0..batch).map(|i| match call.maybe(7) {
        Some(mask) => mask.data.iter().skip(i * length).take(length).filter(|m| **m == 1.0).count() as f64,
        None => 0.0,
    });
    let index = Value::new(emo_proto::tensor_proto::DataType::Int32, vec![batch], counts.collect())?;
    Ok(vec![y, index, sum])
}

fn group_norm(call: &Call) -> Result<Vec<Value>, Why> {
    let last = call.flag("channels_last", true);
    let x = if last { channels_first(call.operand(0)?)? } else { call.operand(0)?.clone() };
    let groups = usize::try_from(call.int("groups", 0)).unwrap_or(0);
    let y = grouped(call, &x, groups, call.operand(1)?, call.operand(2)?)?;
    let y = if call.flag("activation", false) { y.map(|x| x * sigmoid(x)) } else { y };
    one(if last { channels_last(&y)? } else { y })
}
