//! Attention, and what turns by place.

use std::sync::Arc;

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::index::gather;
use super::linear::matmul;
use super::movement::{concat, part};
use super::normalise::soften;
use super::table::{Row, rounds};
use super::value::{Value, zip};

pub(super) const ROWS: &[Row] = &[
    rounds("Attention", attention),
    rounds("RotaryEmbedding", |c| one(rotary(c, c.operand(1)?, c.operand(2)?, c.maybe(3))?)),
];

/// Queries, keys and values `[B, heads, L, size]`, and what is done with their products.
pub(super) struct Heads {
    pub q: Value,
    pub k: Value,
    pub v: Value,
    pub scale: f64,
    pub softcap: f64,
    /// Added to the scores, where it broadcasts.
    pub bias: Option<Value>,
    /// Keys before the first query's own, if later ones are hidden from it.
    pub causal: Option<usize>,
}

impl Heads {
    /// The weighted values, and the scores before and after softmax.
    pub fn attend(&self, call: &Call) -> Result<(Value, Value, Value), Why> {
        let ([_, heads, length, size], [_, groups, keys, _]) = (&self.q.dims[..], &self.k.dims[..]) else {
            return Err(format!(
                "expected [B, heads, L, size], found {:?} and {:?}",
                self.q.dims, self.k.dims
            ));
        };
        if *groups == 0 || heads % groups != 0 || self.v.rank() != 4 {
            return Err(format!("expected groups of {heads} heads, found {:?}", self.k.dims));
        }
        call.sums((*size).max(*keys));
        let shared = Value::list((0..*heads).map(|head| (head * groups / heads) as i64));
        let (k, v) = (gather(&self.k, &shared, 1)?, gather(&self.v, &shared, 1)?);
        let scores = matmul(&self.q, &k.transposed(&[0, 1, 3, 2])?)?.map(|x| x * self.scale);
        let mut masked = match self.softcap {
            0.0 => scores.clone(),
            cap => scores.map(|x| cap * (x / cap).tanh()),
        };
        if let Some(bias) = &self.bias {
            masked = zip(&masked, bias, |x, b| x + b)?;
        }
        if let Some(past) = self.causal {
            let data = Arc::make_mut(&mut masked.data);
            for (i, x) in data.iter_mut().enumerate() {
                if i % keys > i / keys % length + past {
                    *x = f64::NEG_INFINITY;
                }
            }
        }
        let mut weights = masked.clone();
        let data = Arc::make_mut(&mut weights.data);
        soften(data.as_mut_slice(), (masked.len() / (*keys).max(1), *keys, 1), false);
        // A row that may look nowhere gives nothing.
        data.iter_mut().zip(masked.data.iter()).for_each(|(w, &x)| {
            if x == f64::NEG_INFINITY {
                *w = 0.0;
            }
        });
        Ok((matmul(&weights, &v)?, scores, weights))
    }
}

/// `[B, L, heads · size]` → `[B, heads, L, size]`.
pub(super) fn split_heads(x: &Value, heads: usize) -> Result<Value, Why> {
    match x.dims[..] {
        [_, _, _, _] => Ok(x.clone()),
        [b, l, hidden] if heads > 0 && hidden % heads == 0 => {
            x.reshaped(vec![b, l, heads, hidden / heads])?.transposed(&[0, 2, 1, 3])
        }
        _ => Err(format!("expected [B, L, hidden] of {heads} heads, found {:?}", x.dims)),
    }
}

/// The way back.
pub(super) fn join_heads(x: &Value) -> Result<Value, Why> {
    let [b, heads, l, size] = x.dims[..] else {
        return Err(format!("expected four axes, found {:?}", x.dims));
    };
    x.transposed(&[0, 2, 1, 3])?.reshaped(vec![b, l, heads * size])
}

/// A mask of truths as numbers to add.
pub(super) fn additive(mask: &Value, hidden: f64) -> Value {
    match super::elementwise::is_integer(mask.dtype) {
        true => mask.map(|x| if x != 0.0 { 0.0 } else { hidden }),
        false => mask.clone(),
    }
}

fn attention(call: &Call) -> Result<Vec<Value>, Why> {
    let count = |name| usize::try_from(call.int(name, 0)).unwrap_or(0);
    let flat = call.operand(0)?.rank() == 3;
    let windowed = ["left_window_size", "right_window_size"].iter().any(|name| call.int(name, -1) >= 0);
    if windowed || call.maybe(6).is_some() {
        return Err("expected attention over all keys, found a window or nonpad_kv_seqlen".to_owned());
    }
    let q = split_heads(call.operand(0)?, count("q_num_heads"))?;
    let mut k = split_heads(call.operand(1)?, count("kv_num_heads"))?;
    let mut v = split_heads(call.operand(2)?, count("kv_num_heads"))?;
    let mut past = 0;
    if let (Some(keys), Some(values)) = (call.maybe(4), call.maybe(5)) {
        past = keys.dims.get(2).copied().unwrap_or(0);
        (k, v) = (concat(&[keys, &k], 2)?, concat(&[values, &v], 2)?);
    }
    let size = q.dims.last().copied().unwrap_or(1) as f64;
    let mask = call.maybe(3).map(|mask| additive(mask, f64::NEG_INFINITY));
    let mask = match mask {
        // A mask may be shorter than the keys; what it does not reach is hidden.
        Some(mask) if mask.dims.last().is_some_and(|&n| n < k.dims[2] && n > 1) => {
            let mut dims = mask.dims.clone();
            let axis = dims.len() - 1;
            dims[axis] = k.dims[2] - dims[axis];
            let hidden =
                Value::new(mask.dtype, dims.clone(), vec![f64::NEG_INFINITY; dims.iter().product()])?;
            Some(concat(&[&mask, &hidden], axis)?)
        }
        other => other,
    };
    let heads = Heads {
        scale: call.real("scale", 1.0 / size.sqrt()),
        softcap: call.real("softcap", 0.0),
        bias: mask,
        causal: call.flag("is_causal", false).then_some(past),
        q,
        k,
        v,
    };
    if call.wanted() > 3 && call.int("qk_matmul_output_mode", 0) != 0 {
        return Err("expected qk_matmul_output_mode 0".to_owned());
    }
    let (y, scores, _) = heads.attend(call)?;
    let y = if flat { join_heads(&y)? } else { y };
    Ok(vec![y, heads.k, heads.v, scores])
}

/// Pairs of elements turned by an angle that their place gives.
pub(super) fn rotary(call: &Call, cos: &Value, sin: &Value, places: Option<&Value>) -> Result<Value, Why> {
    let x = call.operand(0)?;
    let heads = usize::try_from(call.int("num_heads", 0)).unwrap_or(0);
    let flat = x.rank() == 3;
    let whole = match (flat, heads) {
        (true, 0) => {
            // com.microsoft leaves it to the tables how wide a head is.
            let size = 2 * cos.dims.last().copied().unwrap_or(1).max(1);
            split_heads(x, x.dims[2] / size)?
        }
        _ => split_heads(x, heads)?,
    };
    let [b, _, l, size] = whole.dims[..] else {
        return Err(format!("expected four axes, found {:?}", whole.dims));
    };
    let width = match usize::try_from(call.int("rotary_embedding_dim", 0)).unwrap_or(0) {
        0 => size,
        width if width <= size && width % 2 == 0 => width,
        width => {
            return Err(format!("expected an even rotary_embedding_dim of at most {size}, found {width}"));
        }
    };
    let half = width / 2;
    let table = |table: &Value| -> Result<Value, Why> {
        let rows = match places {
            // One place is the first of a sequence's.
            Some(places) if places.len() == 1 => {
                let first = places.number()? as i64;
                gather(table, &Value::list(first..first + l as i64), 0)?.reshaped(vec![1, l, half])?
            }
            Some(places) => gather(table, places, 0)?,
            None => table.clone(),
        };
        let before = rows.len() / (l * half).max(1);
        rows.reshaped(vec![before, 1, l, half])?.expanded(&[b, 1, l, half])
    };
    let (cos, sin) = (table(cos)?, table(sin)?);
    let turned = part(&whole, 3, 0, width)?;
    let rest = part(&whole, 3, width, size)?;
    let interleaved = call.flag("interleaved", false);
    let (first, second) = if interleaved {
        let pairs = turned.reshaped([&turned.dims[..3], &[half, 2]].concat())?;
        let one = |i| part(&pairs, 4, i, i + 1)?.reshaped([&turned.dims[..3], &[half]].concat());
        (one(0)?, one(1)?)
    } else {
        (part(&turned, 3, 0, half)?, part(&turned, 3, half, width)?)
    };
    let times = |a: &Value, b: &Value| zip(a, b, |a, b| a * b);
    let real = zip(&times(&first, &cos)?, &times(&second, &sin)?, |a, b| a - b)?;
    let imaginary = zip(&times(&first, &sin)?, &times(&second, &cos)?, |a, b| a + b)?;
    let turned = if interleaved {
        let deep = |x: &Value| x.reshaped([&x.dims[..], &[1]].concat());
        concat(&[&deep(&real)?, &deep(&imaginary)?], 4)?.reshaped(turned.dims.clone())?
    } else {
        concat(&[&real, &imaginary], 3)?
    };
    let y = concat(&[&turned, &rest], 3)?;
    if flat { join_heads(&y) } else { Ok(y) }
}
