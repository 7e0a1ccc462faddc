//! What differs between two entries, field by field, and between two manifests.

use std::collections::{BTreeMap, BTreeSet};

use emo_proto::{Error, Result};
use serde::Serialize;
use serde_json::Value;

use super::Manifest;
use super::entry::Entry;

/// A part of an entry that can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// As `--fail-on` and reports name it.
    pub name: &'static str,
    pub what: &'static str,
    /// Fields of an entry, with all that is in them.
    pub fields: &'static [&'static str],
}

/// A whole entry that only one side has.
pub const ADDED: &str = "added";
pub const REMOVED: &str = "removed";
/// Any of the parts.
pub const CHANGED: &str = "changed";

/// Every field of an entry is of one kind.
pub const KINDS: [Kind; 9] = [
    Kind { name: "file", what: "the bytes", fields: &["metadata.model_bytes", "metadata.model_sha"] },
    Kind {
        name: "interface",
        what: "inputs, outputs, classes, opset and element type",
        fields: &[
            "classes",
            "dtype",
            "input",
            "metadata.io_ports",
            "onnx_version",
            "opset_version",
            "preprocessing",
        ],
    },
    Kind { name: "counts", what: "parameters and costs", fields: &["costs", "parameters"] },
    Kind { name: "claim", what: "the published figures", fields: &["claim", "published"] },
    Kind { name: "numerics", what: "the run beside the reference", fields: &["numerics"] },
    Kind { name: "lint", what: "what profiles have against the file", fields: &["lint"] },
    Kind { name: "weights", what: "where the weights came from", fields: &["weights"] },
    Kind {
        name: "recipe",
        what: "how the file is written again",
        fields: &["command", "definition", "model", "model_path", "profile", "schema", "tool", "window"],
    },
    Kind {
        name: "words",
        what: "task, tags, licence and links",
        fields: &["license", "metadata.tags", "paper", "source", "task"],
    },
];

/// A field that differs; the sides as JSON, `null` where one has none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub kind: &'static str,
    /// `costs.macs`
    pub field: String,
    pub old: Value,
    pub new: Value,
}

/// What the entries of two manifests do not share, by path.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Changes {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: BTreeMap<String, Vec<Difference>>,
}

/// The kind that a field is of.
#[must_use]
pub fn kind(field: &str) -> &'static str {
    let within = |prefix: &&str| {
        field.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    KINDS.iter().find(|kind| kind.fields.iter().any(within)).map_or("recipe", |kind| kind.name)
}

/// Every field that differs, in the order of their names. A list is one field.
///
/// # Panics
/// Never: an entry has a JSON form.
#[must_use]
pub fn differences(old: &Entry, new: &Entry) -> Vec<Difference> {
    let fields = |entry: &Entry| {
        let mut fields = BTreeMap::new();
        flatten(String::new(), &serde_json::to_value(entry).expect("entries are plain data"), &mut fields);
        fields
    };
    let (old, new) = (fields(old), fields(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let side = |fields: &BTreeMap<String, Value>, name| fields.get(name).cloned().unwrap_or(Value::Null);
    let found = names.into_iter().map(|name| (name, side(&old, name), side(&new, name)));
    let differing = found.filter(|(_, old, new)| old != new);
    differing.map(|(name, old, new)| Difference { kind: kind(name), field: name.clone(), old, new }).collect()
}

fn flatten(path: String, value: &Value, fields: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                flatten(if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, fields);
            }
        }
        _ => {
            fields.insert(path, value.clone());
        }
    }
}

/// What changed from one manifest to another.
#[must_use]
pub fn changes(old: &Manifest, new: &Manifest) -> Changes {
    let mut changes = Changes::default();
    for entry in old.entries() {
        match new.get(&entry.model_path) {
            None => changes.removed.push(entry.model_path.clone()),
            Some(now) => {
                let found = differences(entry, now);
                if !found.is_empty() {
                    changes.changed.insert(entry.model_path.clone(), found);
                }
            }
        }
    }
    let added = new.entries().map(|entry| &entry.model_path).filter(|path| old.get(path).is_none());
    changes.added.extend(added.cloned());
    changes
}

impl Changes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// Whether there is a change of that kind.
    #[must_use]
    pub fn has(&self, kind: &str) -> bool {
        match kind {
            ADDED => !self.added.is_empty(),
            REMOVED => !self.removed.is_empty(),
            CHANGED => !self.changed.is_empty(),
            part => self.changed.values().flatten().any(|difference| difference.kind == part),
        }
    }
}

/// The names that `--fail-on` takes.
pub fn names() -> impl Iterator<Item = &'static str> {
    [ADDED, REMOVED, CHANGED].into_iter().chain(KINDS.iter().map(|kind| kind.name))
}

/// Whether `name` is a kind of change.
///
/// # Errors
/// It is none: those that there are.
pub fn known(name: &str) -> Result<()> {
    if names().any(|known| known == name) {
        return Ok(());
    }
    let names: Vec<_> = names().collect();
    Err(Error::new(format!("expected kinds out of {}, found {name:?}", names.join(", "))))
}
