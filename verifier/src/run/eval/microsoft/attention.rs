//! Attention as ONNX Runtime fuses it.

use crate::eval::Why;
use crate::eval::attention::{Heads, join_heads, rotary, split_heads};
use crate::eval::call::Call;
use crate::eval::elementwise::one;
use crate::eval::linear::matmul;
use crate::eval::movement::{concat, part};
use crate::eval::quantised::{centred, seen_on};
use crate::eval::table::{Row, rounds};
use crate::eval::value::{Value, zip};

pub(in crate::run::eval) const ROWS: &[Row] = &[
    rounds("Attention", |c| merged(c, c.operand(0)?, c.operand(1)?, 3, 4, c.maybe(5))),
    Row { weights: &[1], ..rounds("QAttention", quantised) },
    rounds("MultiHeadAttention", multi_head),
    rounds("RotaryEmbedding", |c| one(rotary(c, c.operand(2)?, c.operand(3)?, c.maybe(1))?)),
];

fn heads(call: &Call) -> Result<usize, Why> {
    usize::try_from(call.int("num_heads", 0))
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| "expected num_heads".to_owned())
}

/// A mask as numbers that are added to scores `[B, heads, L, keys]`.
fn mask(call: &Call, mask: &Value, batch: usize, keys: usize) -> Result<Value, Why> {
    let hidden = call.real("mask_filter_value", -10_000.0);
    let shown = mask.map(|x| if x != 0.0 { 0.0 } else { hidden });
    match mask.dims[..] {
        // Lengths.
        [n] if n == batch => {
            let shown = (0..batch * keys)
                .map(|i| if ((i % keys) as f64) < mask.data[i / keys] { 0.0 } else { hidden });
            Value::new(mask.dtype, vec![batch, 1, 1, keys], shown.collect())
        }
        [_, _] => shown.reshaped(vec![mask.dims[0], 1, 1, mask.dims[1]]),
        [_, rows, _] => shown.reshaped(vec![mask.dims[0], 1, rows, mask.dims[2]]),
        _ => Err(format!("expected a mask of one to three axes, found {:?}", mask.dims)),
    }
}

fn sum(a: Option<Value>, b: Option<&Value>) -> Result<Option<Value>, Why> {
    match (a, b) {
        (Some(a), Some(b)) => zip(&a, b, |a, b| a + b).map(Some),
        (a, b) => Ok(a.or_else(|| b.cloned())),
    }
}

/// `x: [B, L, in]`, the three projections in one matrix and one bias.
fn merged(
    call: &Call,
    x: &Value,
    weights: &Value,
    mask_at: usize,
    past_at: usize,
    bias: Option<&Value>,
) -> Result<Vec<Value>, Why> {
    let ([batch, length, _], [_, columns], heads) = (&x.dims[..], &weights.dims[..], heads(call)?) else {
        return Err(format!("expected [B, L, in] and [in, out], found {:?} and {:?}", x.dims, weights.dims));
    };
    if call.flag("do_rotary", false) {
        return Err("expected no rotary embedding within".to_owned());
    }
    let mut all = matmul(x, weights)?;
    if let Some(bias) = call.maybe(2) {
        all = zip(&all, bias, |x, b| x + b)?;
    }
    let sizes = match call.ints("qkv_hidden_sizes") {
        Some(&[q, k, v]) => [q, k, v].map(|n| usize::try_from(n).unwrap_or(0)),
        _ => [columns / 3; 3],
    };
    let head = |i: usize| {
        let start = sizes[..i].iter().sum();
        split_heads(&part(&all, 2, start, start + sizes[i])?, heads)
    };
    let (q, mut k, mut v) = (head(0)?, head(1)?, head(2)?);
    let mut before = 0;
    if let Some(past) = call.maybe(past_at) {
        let one = |i| part(past, 0, i, i + 1)?.reshaped(past.dims[1..].to_vec());
        (k, v) = (concat(&[&one(0)?, &k], 2)?, concat(&[&one(1)?, &v], 2)?);
        before = k.dims[2] - length;
    }
    let shown = call.maybe(mask_at).map(|m| mask(call, m, *batch, k.dims[2])).transpose()?;
    let size = q.dims[3] as f64;
    let scale = call.real("scale", 0.0);
    let attention = Heads {
        scale: if scale == 0.0 { 1.0 / size.sqrt() } else { scale },
        softcap: 0.0,
        bias: sum(shown, bias)?,
        causal: call.flag("unidirectional", false).then_some(before),
        q,
        k,
        v,
    };
    let y = join_heads(&attention.attend(call)?.0)?;
    let deep = |x: &Value| x.reshaped([&[1], &x.dims[..]].concat());
    if call.wanted() < 2 {
        return one(y);
    }
    Ok(vec![y, concat(&[&deep(&attention.k)?, &deep(&attention.v)?], 0)?])
}

fn quantised(call: &Call) -> Result<Vec<Value>, Why> {
    let x = centred(call.operand(0)?, call.maybe(6), None)?;
    let x = zip(&x, call.operand(3)?, |x, s| x * s)?.with_type(call.operand(3)?.dtype);
    let w = centred(call.operand(1)?, call.maybe(7), Some(1))?;
    let w = zip(&w, &seen_on(call.operand(4)?, 2, 1)?, |w, s| w * s)?;
    merged(call, &x, &w, 5, 8, None)
}

fn multi_head(call: &Call) -> Result<Vec<Value>, Why> {
    let count = heads(call)?;
    let three = |x: &Value, n: usize, i: usize| -> Result<Value, Why> {
        let [b, l, h, m, d] = x.dims[..] else {
            return Err(format!("expected five axes, found {:?}", x.dims));
        };
        if m != n {
            return Err(format!("expected {n} packed in one, found {:?}", x.dims));
        }
        part(x, 3, i, i + 1)?.reshaped(vec![b, l, h, d])?.transposed(&[0, 2, 1, 3])
    };
    let bias = |x: Value, i: usize, hidden: &[usize; 3]| -> Result<Value, Why> {
        let Some(bias) = call.maybe(3) else { return Ok(x) };
        let start = hidden[..i].iter().sum();
        zip(&x, &part(bias, 0, start, start + hidden[i])?, |x, b| x + b)
    };
    let query = call.operand(0)?;
    let (q, mut k, mut v) = match (query.rank(), call.maybe(1), call.maybe(2)) {
        (5, None, None) => (three(query, 3, 0)?, three(query, 3, 1)?, three(query, 3, 2)?),
        (3, Some(kv), None) if kv.rank() == 5 => {
            (split_heads(query, count)?, three(kv, 2, 0)?, three(kv, 2, 1)?)
        }
        (3, Some(k), Some(v)) => {
            let width = |x: &Value| if x.rank() == 4 { x.dims[1] * x.dims[3] } else { x.dims[x.rank() - 1] };
            let hidden = [query.dims[2], width(k), width(v)];
            let own = |x: &Value, i| match x.rank() {
                3 => split_heads(&bias(x.clone(), i, &hidden)?, count),
                _ => Ok(x.clone()),
            };
            (own(query, 0)?, own(k, 1)?, own(v, 2)?)
        }
        _ => return Err(format!("expected queries, keys and values, found {:?}", query.dims)),
    };
    let mut before = 0;
    if let (Some(keys), Some(values)) = (call.maybe(6), call.maybe(7)) {
        before = keys.dims.get(2).copied().unwrap_or(0);
        (k, v) = (concat(&[keys, &k], 2)?, concat(&[values, &v], 2)?);
    }
    let shown = call.maybe(4).map(|m| mask(call, m, q.dims[0], k.dims[2])).transpose()?;
    let scale = call.real("scale", 0.0);
    let attention = Heads {
        scale: if scale == 0.0 { 1.0 / (q.dims[3] as f64).sqrt() } else { scale },
        softcap: 0.0,
        bias: sum(shown, call.maybe(5))?,
        causal: call.flag("unidirectional", false).then_some(before),
        q,
        k,
        v,
    };
    let y = join_heads(&attention.attend(call)?.0)?;
    Ok(vec![y, attention.k, attention.v])
}
