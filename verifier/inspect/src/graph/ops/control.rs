//! Operators that hold graphs: the walk visits them, for their outputs are their bodies'.

use super::{Row, Why};

pub(super) const ROWS: &[Row] = &[held("If"), held("Loop"), held("Scan"), held("SequenceMap")];

const fn held(name: &'static str) -> Row {
    Row::free(name, |_| Err(Why::from("expected a walk through its body")))
}
