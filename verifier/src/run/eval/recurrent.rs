//! Recurrent cells with their default activations.

use super::Why;
use super::call::Call;
use super::elementwise::sigmoid;
use super::linear::product;
use super::table::{Row, rounds};
use super::value::{Value, zeros};

pub(super) const ROWS: &[Row] = &[
    rounds("RNN", |c| {
        run(c, 1, |_, gates, _, h, _| h.copy_from_slice(&gates.iter().map(|x| x.tanh()).collect::<Vec<_>>()))
    }),
    rounds("GRU", |c| run(c, 3, gru)),
    rounds("LSTM", |c| run(c, 4, lstm)),
];

/// One step of a cell: the sums of its gates, what the state alone gives to them with its bias, the state, and the
/// cell's own.
type Cell = fn(&Call, &[f64], &[f64], &mut [f64], &mut [f64]);

fn lstm(call: &Call, gates: &[f64], _: &[f64], h: &mut [f64], c: &mut [f64]) {
    let n = h.len();
    for i in 0..n {
        let input = sigmoid(gates[i]);
        let forget = if call.flag("input_forget", false) { 1.0 - input } else { sigmoid(gates[2 * n + i]) };
        c[i] = forget * c[i] + input * gates[3 * n + i].tanh();
        h[i] = sigmoid(gates[n + i]) * c[i].tanh();
    }
}

fn gru(_: &Call, gates: &[f64], inner: &[f64], h: &mut [f64], _: &mut [f64]) {
    let n = h.len();
    for i in 0..n {
        let (update, reset) = (sigmoid(gates[i]), sigmoid(gates[n + i]));
        let new = (gates[2 * n + i] - inner[2 * n + i] + reset * inner[2 * n + i]).tanh();
        h[i] = (1.0 - update) * new + update * h[i];
    }
}

/// `x: [L, B, in]`, `w: [directions, gates · hidden, in]`, `r: [directions, gates · hidden, hidden]`.
fn run(call: &Call, gates: usize, cell: Cell) -> Result<Vec<Value>, Why> {
    for refused in ["activations", "clip"] {
        if call.attribute(refused).is_some() {
            return Err(format!("expected a cell without {refused}"));
        }
    }
    if call.maybe(7).is_some() || call.int("layout", 0) != 0 {
        return Err("expected a cell without peepholes, time first".to_owned());
    }
    if gates == 3 && !call.flag("linear_before_reset", false) {
        return Err("expected linear_before_reset".to_owned());
    }
    let (x, w, r) = (call.operand(0)?, call.operand(1)?, call.operand(2)?);
    let misfit = || format!("expected a sequence and weights of it, found {:?} and {:?}", x.dims, w.dims);
    let ([length, batch, width], [directions, rows, _]) = (&x.dims[..], &w.dims[..]) else {
        return Err(misfit());
    };
    let (length, batch, width, directions) = (*length, *batch, *width, *directions);
    let n = rows / gates;
    if w.dims[2] != width || r.dims != [directions, *rows, n] || rows % gates != 0 {
        return Err(misfit());
    }
    let lengths = match call.maybe(4) {
        Some(lengths) => super::value::extents(&lengths.integers())?,
        None => vec![length; batch],
    };
    let state = |index: usize| -> Result<Vec<f64>, Why> {
        match call.maybe(index) {
            Some(state) if state.len() == directions * batch * n => Ok(state.data.to_vec()),
            Some(state) => Err(format!("expected a state of {n}, found {:?}", state.dims)),
            None => zeros(&[directions, batch, n]),
        }
    };
    let (mut hidden, mut cells) = (state(5)?, state(6)?);
    let mut y = zeros(&[length, directions, batch, n])?;
    let way = call.text("direction").unwrap_or("forward");
    call.sums(width.max(n));
    for d in 0..directions {
        let back = way == "reverse" || d == 1;
        let w = turned(w, d)?;
        let r = turned(r, d)?;
        let bias = |i: usize, k: usize| call.maybe(3).map_or(0.0, |b| b.data[(d * 2 + k) * rows + i]);
        if call.maybe(3).is_some_and(|b| b.len() != directions * 2 * rows) {
            return Err(misfit());
        }
        for b in 0..batch {
            let lengths = lengths.get(b).copied().unwrap_or(length).min(length);
            for step in 0..lengths {
                let t = if back { lengths - 1 - step } else { step };
                let at = (d * batch + b) * n;
                let (mut sums, mut inner) = (vec![0.0; *rows], vec![0.0; *rows]);
                let start = (t * batch + b) * width;
                product(&x.data[start..start + width], &w, &mut sums, (1, width, *rows))?;
                product(&hidden[at..at + n], &r, &mut inner, (1, n, *rows))?;
                for i in 0..*rows {
                    inner[i] += bias(i, 1);
                    sums[i] += inner[i] + bias(i, 0);
                }
                cell(call, &sums, &inner, &mut hidden[at..at + n], &mut cells[at..at + n]);
                let to = ((t * directions + d) * batch + b) * n;
                y[to..to + n].copy_from_slice(&hidden[at..at + n]);
            }
        }
    }
    let last = vec![directions, batch, n];
    Ok(vec![
        Value::new(x.dtype, vec![length, directions, batch, n], y)?,
        Value::new(x.dtype, last.clone(), hidden)?,
        Value::new(x.dtype, last, cells)?,
    ])
}

/// The weights of a direction, a column a gate.
fn turned(w: &Value, direction: usize) -> Result<Vec<f64>, Why> {
    let (rows, columns) = (w.dims[1], w.dims[2]);
    let part = w.data[direction * rows * columns..(direction + 1) * rows * columns].to_vec();
    Ok(Value::new(w.dtype, vec![rows, columns], part)?.transposed(&[1, 0])?.data.to_vec())
}
