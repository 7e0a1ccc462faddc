//! The operators that are evaluated, a row each.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::Why;
use super::call::Call;
use super::value::Value;

/// The outputs of a node.
pub(crate) type Function = fn(&Call) -> Result<Vec<Value>, Why>;

/// An operator.
#[derive(Debug)]
pub(crate) struct Row {
    pub name: &'static str,
    pub function: Function,
    /// Whether every element of its outputs is one of its operands', or an integer: nothing is rounded.
    pub moves: bool,
    /// Whether what it writes is rounded to integer units of a scale.
    pub quantises: bool,
    /// Operands whose integers, where they are constant, are weights in units of a scale.
    pub weights: &'static [usize],
}

pub(super) const fn rounds(name: &'static str, function: Function) -> Row {
    Row { name, function, moves: false, quantises: false, weights: &[] }
}

pub(super) const fn moves(name: &'static str, function: Function) -> Row {
    Row { moves: true, ..rounds(name, function) }
}

/// ONNX's own operators.
const ONNX: &str = "";

/// ONNX Runtime's.
const MICROSOFT: &str = "com.microsoft";

const FAMILIES: &[(&str, &[Row])] = &[
    (ONNX, super::elementwise::ROWS),
    (ONNX, super::linear::ROWS),
    (ONNX, super::conv::ROWS),
    (ONNX, super::pool::ROWS),
    (ONNX, super::reduce::ROWS),
    (ONNX, super::normalise::ROWS),
    (ONNX, super::movement::ROWS),
    (ONNX, super::index::ROWS),
    (ONNX, super::detection::ROWS),
    (ONNX, super::quantised::ROWS),
    (ONNX, super::control::ROWS),
    (ONNX, super::einsum::ROWS),
    (ONNX, super::resize::ROWS),
    (ONNX, super::attention::ROWS),
    (ONNX, super::recurrent::ROWS),
    (MICROSOFT, super::microsoft::fused::ROWS),
    (MICROSOFT, super::microsoft::quantised::ROWS),
    (MICROSOFT, super::microsoft::attention::ROWS),
];

static TABLE: LazyLock<HashMap<(&str, &str), &Row>> = LazyLock::new(|| {
    FAMILIES.iter().flat_map(|(domain, rows)| rows.iter().map(|row| ((*domain, row.name), row))).collect()
});

/// The row of an operator; `ai.onnx` is another name for ONNX's own domain.
pub(crate) fn find(domain: &str, name: &str) -> Option<&'static Row> {
    let domain = if domain == "ai.onnx" { ONNX } else { domain };
    TABLE.get(&(domain, name)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_has_one_row_and_is_one() {
        let rows: usize = FAMILIES.iter().map(|(_, rows)| rows.len()).sum();
        assert_eq!(TABLE.len(), rows);
        for (domain, name) in TABLE.keys() {
            assert!(crate::ops::find(domain, name).is_some(), "{domain}.{name}");
        }
    }
}
