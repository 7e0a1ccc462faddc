//! The op table: a row an ONNX operator = its shape rule, its work, its weight operands.
//!
//! Rows live with their family; [`find`] looks one up. A rule gets a [`Ctx`], returns the
//! facts of the node's outputs or says why it cannot, and never panics: the node is a
//! third party's.

mod arithmetic;
mod attention;
#[cfg(test)]
mod cases;
mod context;
mod control;
mod conv;
mod cut;
mod detection;
mod einsum;
mod elementwise;
mod generate;
mod index;
mod linear;
mod microsoft;
mod ml;
mod movement;
mod normalise;
mod pool;
mod quantised;
mod recurrent;
mod reduce;
mod resize;
mod sequence;
mod signal;
mod text;
mod training;
mod window;

use std::sync::LazyLock;

pub use context::{Arguments, Ctx};
pub(crate) use microsoft::experts::numbers_in;
pub use window::Window;

use crate::cost::Work;
use crate::fact::Fact;
use crate::hash::HashMap;
use crate::sym::Expr;

/// Why a rule could not tell: what it expected and what it found.
pub type Why = String;

/// The facts of a node's outputs.
pub type Rule = fn(&Ctx) -> Result<Vec<Fact>, Why>;

/// What a node does, given its outputs.
pub type WorkRule = fn(&Ctx, &[Fact]) -> Result<Work, Why>;

/// A row of the op table.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub rule: Rule,
    pub work: WorkRule,
    /// The operands whose constants are parameters of the model.
    pub weights: &'static [usize],
}

impl Row {
    /// An operator that every convention counts as nothing.
    const fn free(name: &'static str, rule: Rule) -> Self {
        Self { name, rule, work: |_, _| Ok(Work::Free), weights: &[] }
    }
}

/// The elements of a node's first output.
fn written(outputs: &[Fact]) -> Expr {
    outputs.first().map_or_else(|| Expr::unknown("it has no output"), Fact::count)
}

/// ONNX's own operators.
const ONNX: &str = "";

/// Every row, by domain and family.
const FAMILIES: &[(&str, &[Row])] = &[
    (ONNX, linear::ROWS),
    (ONNX, normalise::ROWS),
    (ONNX, elementwise::ROWS),
    (ONNX, reduce::ROWS),
    (ONNX, movement::ROWS),
    (ONNX, cut::ROWS),
    (ONNX, index::ROWS),
    (ONNX, generate::ROWS),
    (ONNX, sequence::ROWS),
    (ONNX, text::ROWS),
    (ONNX, control::ROWS),
    (ONNX, conv::ROWS),
    (ONNX, einsum::ROWS),
    (ONNX, attention::ROWS),
    (ONNX, recurrent::ROWS),
    (ONNX, pool::ROWS),
    (ONNX, resize::ROWS),
    (ONNX, quantised::ROWS),
    (ONNX, signal::ROWS),
    (ONNX, detection::ROWS),
    (ONNX, training::ROWS),
    ("ai.onnx.ml", ml::ROWS),
    ("ai.onnx.preview", attention::PREVIEW),
    ("ai.onnx.preview.training", training::PREVIEW),
    ("com.microsoft", microsoft::attention::ROWS),
    ("com.microsoft", microsoft::experts::ROWS),
    ("com.microsoft", microsoft::fused::ROWS),
    ("com.microsoft", microsoft::layout::ROWS),
    ("com.microsoft", microsoft::other::ROWS),
    ("com.microsoft", microsoft::quantised::ROWS),
    ("com.microsoft.nchwc", microsoft::layout::NCHWC),
];

static TABLE: LazyLock<HashMap<(&str, &str), &Row>> =
    LazyLock::new(|| rows().map(|(domain, row)| ((domain, row.name), row)).collect());

/// Every row with its domain, by family.
pub fn rows() -> impl Iterator<Item = (&'static str, &'static Row)> {
    FAMILIES.iter().flat_map(|(domain, rows)| rows.iter().map(move |row| (*domain, row)))
}

/// The row of an operator; `ai.onnx` is another name for ONNX's own domain.
#[must_use]
pub fn find(domain: &str, name: &str) -> Option<&'static Row> {
    let domain = if domain == "ai.onnx" { ONNX } else { domain };
    TABLE.get(&(domain, name)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_has_one_row() {
        let rows: Vec<_> = rows().map(|(domain, row)| (domain, row.name)).collect();
        for (i, row) in rows.iter().enumerate() {
            assert!(!rows[..i].contains(row), "{row:?} twice");
        }
    }

    #[test]
    fn every_schema_has_a_row() {
        for domain in ["", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training"] {
            let missing: Vec<_> =
                crate::schema::names(domain).filter(|name| find(domain, name).is_none()).collect();
            assert!(missing.is_empty(), "no row for {missing:?} of {domain:?}");
        }
    }
}
