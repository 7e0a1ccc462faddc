//! A node alone.

use std::cell::{Cell, RefCell};

use emo_proto::NodeProto;
use emo_proto::tensor::External;

use super::call::Call;
use super::round::{Rounding, Step};
use super::table::{Row, find};
use super::value::Value;
use crate::ops::{Arguments, Ctx};
use crate::run::quiet::guarded;

/// The first output of a node whose operands are constants, if it has one; as the file says.
pub(crate) fn constant_node(
    node: &NodeProto,
    opset: i64,
    operands: Vec<Option<Value>>,
    external: &External,
) -> Option<Value> {
    let row = find(node.domain(), node.op_type())?;
    let arguments = Arguments::new();
    let call = Call {
        attributes: Ctx::of_attributes(node, opset, &arguments, external),
        operands,
        step: RefCell::new(Step::of(Rounding::Written, "")),
        terms: Cell::new(0),
        moved: Cell::new(false),
        bodies: &|_, _| Err("expected no bodies".to_owned()),
    };
    let mut outputs = guarded(|| (row.function)(&call)).ok()?.ok()?;
    finish(row, &call, &mut outputs);
    outputs.into_iter().next()
}

/// Rounds what a node computed.
pub(crate) fn finish(row: &Row, call: &Call, outputs: &mut [Value]) {
    if !row.moves && !call.moved.get() {
        let step = call.step.borrow();
        outputs.iter_mut().for_each(|value| step.store(value, call.terms.get()));
    }
}
