//! Branches and loops that run decides.

use emo_proto::tensor_proto::DataType;

use super::Why;
use super::call::Call;
use super::movement::{concat, part};
use super::table::{Row, moves};
use super::value::{Value, axis, count};

pub(super) const ROWS: &[Row] = &[
    moves("If", |c| {
        let branch = if c.operand(0)?.number()? != 0.0 { "then_branch" } else { "else_branch" };
        (c.bodies)(branch, &[])
    }),
    moves("Loop", repeat),
    moves("Scan", scan),
];

/// Rounds of a loop, at most.
const MOST_ROUNDS: usize = 1 << 16;

fn repeat(call: &Call) -> Result<Vec<Value>, Why> {
    let trips = call.maybe(0).map(Value::number).transpose()?.unwrap_or(f64::INFINITY);
    let mut goes_on = call.maybe(1).map(Value::number).transpose()?.unwrap_or(1.0) != 0.0;
    let carried = call.operands.len().saturating_sub(2);
    let state = (0..carried).map(|i| call.operand(i + 2).cloned());
    let mut state = state.collect::<Result<Vec<_>, _>>()?;
    let mut scans: Vec<Vec<Value>> = Vec::new();
    let (mut round, mut held) = (0, 0);
    while goes_on && (round as f64) < trips {
        if round >= MOST_ROUNDS {
            return Err(format!("expected at most {MOST_ROUNDS} rounds of a loop"));
        }
        let mut given =
            vec![Value::scalar(DataType::Int64, round as f64), Value::scalar(DataType::Bool, 1.0)];
        given.append(&mut state);
        let mut outputs = (call.bodies)("body", &given)?;
        if outputs.len() < carried + 1 {
            return Err(format!("expected {} outputs of the body, found {}", carried + 1, outputs.len()));
        }
        goes_on = outputs[0].number()? != 0.0;
        let found = outputs.split_off(carried + 1);
        state = outputs.split_off(1);
        gather(&mut scans, found, &mut held)?;
        round += 1;
    }
    if round == 0 && call.wanted() > carried {
        return Err("expected one round at least of a loop that gathers outputs".to_owned());
    }
    for scan in &scans {
        state.push(stacked(scan, 0)?);
    }
    Ok(state)
}

/// Adds what a round gives, of whose elements so many are `held` already: no more than a tensor has, which they will be.
fn gather(scans: &mut Vec<Vec<Value>>, found: Vec<Value>, held: &mut usize) -> Result<(), Why> {
    *held = count(&[*held + found.iter().map(Value::len).sum::<usize>()])?;
    scans.resize(found.len(), Vec::new());
    scans.iter_mut().zip(found).for_each(|(scan, value)| scan.push(value));
    Ok(())
}

/// Values of one shape along an axis of their own.
fn stacked(values: &[Value], at: usize) -> Result<Value, Why> {
    let deeper = |value: &Value| {
        let mut dims = value.dims.clone();
        dims.insert(at.min(dims.len()), 1);
        value.reshaped(dims)
    };
    let values = values.iter().map(deeper).collect::<Result<Vec<_>, _>>()?;
    concat(&values.iter().collect::<Vec<_>>(), at)
}

fn scan(call: &Call) -> Result<Vec<Value>, Why> {
    let scanned = usize::try_from(call.int("num_scan_inputs", 0)).map_err(|e| e.to_string())?;
    let carried = call.operands.len().checked_sub(scanned).ok_or("expected as many operands as it scans")?;
    if call.opset < 9 || scanned == 0 {
        return Err("expected a Scan of opset 9 or later".to_owned());
    }
    let operand = |i| call.operand(i).cloned();
    let mut state = (0..carried).map(operand).collect::<Result<Vec<_>, _>>()?;
    let setting = |name: &str, i: usize| call.ints(name).and_then(|list| list.get(i)).copied().unwrap_or(0);
    let inputs = (carried..carried + scanned).map(operand).collect::<Result<Vec<_>, _>>()?;
    let axes = inputs.iter().enumerate().map(|(i, x)| axis(setting("scan_input_axes", i), x.rank()));
    let axes = axes.collect::<Result<Vec<_>, _>>()?;
    let rounds = inputs[0].dims[axes[0]];
    if rounds == 0 || inputs.iter().zip(&axes).any(|(x, &a)| x.dims[a] != rounds) {
        return Err("expected inputs of one length above 0 to scan".to_owned());
    }
    let (mut scans, mut held): (Vec<Vec<Value>>, usize) = (Vec::new(), 0);
    for round in 0..rounds {
        let mut given = std::mem::take(&mut state);
        for (i, (x, &axis)) in inputs.iter().zip(&axes).enumerate() {
            let at = if setting("scan_input_directions", i) == 0 { round } else { rounds - 1 - round };
            let one = part(x, axis, at, at + 1)?;
            let kept = one.dims.iter().enumerate().filter(|(k, _)| *k != axis).map(|(_, &dim)| dim);
            given.push(one.reshaped(kept.collect())?);
        }
        let mut outputs = (call.bodies)("body", &given)?;
        if outputs.len() < carried {
            return Err(format!("expected {carried} outputs of the body, found {}", outputs.len()));
        }
        let found = outputs.split_off(carried);
        state = outputs;
        gather(&mut scans, found, &mut held)?;
    }
    for (i, scan) in scans.iter_mut().enumerate() {
        if setting("scan_output_directions", i) != 0 {
            scan.reverse();
        }
        let rank = scan[0].rank() + 1;
        state.push(stacked(scan, axis(setting("scan_output_axes", i), rank)?)?);
    }
    Ok(state)
}
