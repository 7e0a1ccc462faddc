//! What changed from one file to another.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::audit::{Audit, By, Group, Port, groups};
use crate::report::{Cell, Table};
use crate::sym::Expr;

/// What can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Inputs and outputs: names, types, shapes.
    Interface,
    /// Versions of operator sets, and of the format.
    Opset,
    /// How many nodes there are of an operator.
    Operators,
    /// Learnable parameters.
    Params,
    /// Counts under every convention.
    Cost,
    /// Activations and their peak memory.
    Memory,
    /// Stored bytes by element type.
    Storage,
    /// Parameters and costs of a module.
    Scope,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::Interface,
        Kind::Opset,
        Kind::Operators,
        Kind::Params,
        Kind::Cost,
        Kind::Memory,
        Kind::Storage,
        Kind::Scope,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Interface => "interface",
            Kind::Opset => "opset",
            Kind::Operators => "operators",
            Kind::Params => "params",
            Kind::Cost => "cost",
            Kind::Memory => "memory",
            Kind::Storage => "storage",
            Kind::Scope => "scope",
        }
    }
}

/// A figure, or a description; what is not there is neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Count(Expr),
    Text(String),
    Absent,
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Count(count) => count.serialize(serializer),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Absent => serializer.serialize_none(),
        }
    }
}

/// Something that is not the same in both files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub kind: Kind,
    /// What changed: `input images`, `Conv`, `stage3.1 macs`.
    pub what: String,
    pub before: Value,
    pub after: Value,
    /// How much was added, of figures.
    pub difference: Option<Expr>,
}

/// Everything that differs, kind by kind; modules to a depth of `depth` parts of their path.
#[must_use]
pub fn diff(before: &Audit, after: &Audit, depth: usize) -> Vec<Change> {
    let pair = |of: &dyn Fn(&Audit) -> Values| [of(before), of(after)];
    let mut changes = Vec::new();
    let mut compare = |kind: Kind, [before, after]: [Values; 2]| {
        let keys: Vec<&String> = before.order.iter().chain(after.order.iter()).collect();
        let mut seen = std::collections::HashSet::new();
        for key in keys.into_iter().filter(|key| seen.insert(*key)) {
            let value = |values: &Values| values.map.get(key).cloned().unwrap_or(Value::Absent);
            let (before, after) = (value(&before), value(&after));
            if before != after {
                let difference = difference(&before, &after);
                changes.push(Change { kind, what: key.clone(), before, after, difference });
            }
        }
    };
    compare(Kind::Interface, pair(&interface));
    compare(Kind::Opset, pair(&versions));
    compare(Kind::Operators, pair(&operators));
    compare(Kind::Params, pair(&params));
    compare(Kind::Cost, pair(&costs));
    compare(Kind::Memory, pair(&memory));
    compare(Kind::Storage, pair(&storage));
    compare(Kind::Scope, pair(&|audit| scopes(audit, depth)));
    changes
}

fn difference(before: &Value, after: &Value) -> Option<Expr> {
    match (before, after) {
        (Value::Count(a), Value::Count(b)) => Some(b - a),
        (Value::Absent, Value::Count(b)) => Some(b.clone()),
        (Value::Count(a), Value::Absent) => Some(-a),
        _ => None,
    }
}

/// Named values in their order.
#[derive(Default)]
struct Values {
    order: Vec<String>,
    map: BTreeMap<String, Value>,
}

impl Values {
    fn put(&mut self, name: String, value: Value) {
        self.order.push(name.clone());
        self.map.insert(name, value);
    }

    fn count(&mut self, name: impl Into<String>, count: &Expr) {
        self.put(name.into(), Value::Count(count.clone()));
    }
}

fn interface(audit: &Audit) -> Values {
    let mut values = Values::default();
    for (role, ports) in [("input", &audit.inputs), ("output", &audit.outputs)] {
        for port in ports {
            values.put(format!("{role} {}", port.name), Value::Text(port.describe()));
        }
    }
    values
}

impl Port {
    /// `float [batch, 3, 224, 224]`.
    #[must_use]
    pub fn describe(&self) -> String {
        let shape = self.shape.as_ref().map_or("of unknown shape".to_owned(), |shape| format!("{shape:?}"));
        format!("{} {shape}", self.dtype)
    }
}

fn versions(audit: &Audit) -> Values {
    let mut values = Values::default();
    audit.opsets.iter().for_each(|(domain, version)| values.count(domain, &(*version).into()));
    values.count("ir_version", &audit.ir_version.into());
    values
}

fn operators(audit: &Audit) -> Values {
    let mut values = Values::default();
    audit.operators.iter().for_each(|(operator, nodes)| values.count(operator, &(*nodes).into()));
    values.count("uncounted nodes", &audit.uncounted.len().into());
    values
}

fn params(audit: &Audit) -> Values {
    let mut values = Values::default();
    values.count("params", &audit.totals.params);
    values
}

fn costs(audit: &Audit) -> Values {
    let mut values = Values::default();
    audit.totals.cost.each().into_iter().for_each(|(convention, count)| values.count(convention.name, count));
    values
}

fn memory(audit: &Audit) -> Values {
    let mut values = Values::default();
    values.count("activations", &audit.activations);
    let peak = &audit.peak_memory;
    let unknown = || Value::Text(peak.reason.clone().unwrap_or_default());
    values.put("peak_memory".to_owned(), peak.bytes.clone().map_or_else(unknown, Value::Count));
    values.count("highest_rank", &audit.highest_rank.into());
    values
}

fn storage(audit: &Audit) -> Values {
    let mut values = Values::default();
    audit
        .stored
        .by_type
        .iter()
        .for_each(|stored| values.count(format!("{} bytes", stored.dtype), &stored.bytes));
    values
}

fn scopes(audit: &Audit, depth: usize) -> Values {
    let mut values = Values::default();
    for Group { name, counts, .. } in groups(audit, By::Scope { depth }) {
        for (figure, count) in counts.figures() {
            if !count.is(0) {
                values.count(format!("{name} {figure}"), count);
            }
        }
    }
    values
}

/// A table for each kind of change that there is.
#[must_use]
pub fn tables(changes: &[Change]) -> Vec<Table> {
    let cell = |value: &Value| match value {
        Value::Count(count) => Cell::Count(count.clone()),
        Value::Text(text) => Cell::Text(text.clone()),
        Value::Absent => Cell::Text("-".to_owned()),
    };
    let row = |change: &Change| {
        let added = change.difference.as_ref().map_or(Cell::from(""), |added| Cell::Text(signed(added)));
        vec![Cell::Text(change.what.clone()), cell(&change.before), cell(&change.after), added]
    };
    let table = |kind: Kind| {
        let rows: Vec<_> = changes.iter().filter(|change| change.kind == kind).map(row).collect();
        let header = vec![kind.name(), "before", "after", "difference"];
        Table { title: kind.name().to_owned(), header, rows, ..Table::default() }
    };
    Kind::ALL.into_iter().map(table).filter(|table| !table.rows.is_empty()).collect()
}

fn signed(count: &Expr) -> String {
    let sign = if count.number().is_some_and(|n| n > 0) { "+" } else { "" };
    format!("{sign}{}", crate::report::figure(count))
}
