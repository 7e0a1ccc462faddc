//! The op table: a row an ONNX operator = its shape rule, its work, its weight operands.
//!
//! Rows live with their family; [`find`] looks one up. A rule gets a [`Ctx`], returns the
//! facts of the node's outputs or says why it cannot, and never panics: the node is a
//! stranger's.

mod context;
mod elementwise;
mod linear;
mod movement;
mod normalise;
mod reduce;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use context::Ctx;

use crate::cost::Work;
use crate::fact::Fact;

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

const FAMILIES: [&[Row]; 5] =
    [linear::ROWS, normalise::ROWS, elementwise::ROWS, reduce::ROWS, movement::ROWS];

static TABLE: LazyLock<HashMap<&str, &Row>> =
    LazyLock::new(|| FAMILIES.into_iter().flatten().map(|row| (row.name, row)).collect());

/// The row of an operator of ONNX's own domain.
#[must_use]
pub fn find(domain: &str, name: &str) -> Option<&'static Row> {
    matches!(domain, "" | "ai.onnx").then(|| TABLE.get(name).copied()).flatten()
}
