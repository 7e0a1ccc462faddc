//! Every field of an entry, edited in every way: the check notices, or the field is somebody's word.

use std::collections::BTreeSet;

use emo_zoo::manifest::check::{Scope, check};
use emo_zoo::manifest::checkpoints::Checkpoints;
use emo_zoo::manifest::entry::upper_bound;
use emo_zoo::manifest::evidence::Watch;
use emo_zoo::manifest::{Manifest, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{built, edit, file, manifest_of};
use crate::command::emo;

/// Fields of a third-party entry that no byte and no run can contradict, and why.
const WORDS: [(&str, &str); 3] = [
    ("/license", "what the authors state"),
    ("/source", "where the file came from"),
    ("/tool", "the version that took it in, which may be any"),
];

struct Silent;

impl Watch for Silent {
    fn during(&self, _: &str, work: &mut dyn FnMut()) {
        work();
    }
}

/// Every place of a value, as JSON pointers have it, lists and objects with what is in them.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found));
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(i, value)| places(value, &format!("{at}/{i}"), found));
        }
        _ => {}
    }
    found.push(at.to_owned());
}

/// What somebody may make of a value.
fn edits(value: &Value) -> Vec<Value> {
    let mut edits = vec![Value::Null];
    match value {
        Value::Null => edits = vec![json!("x"), json!(1), json!([])],
        Value::Bool(b) => edits.push(json!(!b)),
        Value::Number(n) => match n.as_i64() {
            Some(n) => edits.extend([n / 2, n * 2, n + 1, n - 1, -n].map(Value::from)),
            // In two digits, as the figures have.
            None => edits.extend([0.5, 2.0].map(|by| json!(upper_bound(n.as_f64().unwrap_or(0.0) * by)))),
        },
        Value::String(text) => {
            let half: String = text.chars().take(text.chars().count() / 2).collect();
            let turned: String = text.chars().rev().collect();
            edits.extend([half, text.repeat(2), turned, String::new()].map(Value::from));
        }
        Value::Array(values) => {
            edits.push(json!([]));
            edits.push(json!(values[..values.len() / 2]));
            edits.push(json!(values[values.len() / 2..]));
            edits.push(json!([&values[..], &values[..]].concat()));
            edits.push(values.iter().rev().cloned().collect());
            // The first two in each other's place.
            let mut swapped = values.clone();
            if swapped.len() > 1 {
                swapped.swap(0, 1);
            }
            edits.push(swapped.into());
        }
        Value::Object(fields) => {
            edits.push(json!({}));
            for name in fields.keys() {
                let mut less = fields.clone();
                less.remove(name);
                edits.push(less.into());
            }
            // Two fields of a kind in each other's place.
            let names: Vec<&String> = fields.keys().collect();
            for pair in names.windows(2) {
                let mut swapped = fields.clone();
                swapped[pair[0].as_str()] = fields[pair[1].as_str()].clone();
                swapped[pair[1].as_str()] = fields[pair[0].as_str()].clone();
                edits.push(swapped.into());
            }
        }
    }
    edits
}

/// Where null may as well be absent, as in JSON of every kind.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect()
        }
        Value::Array(values) => values.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// Edits of the one entry of a store that nothing notices, by the field; and how many edits there were.
fn unnoticed(folder: &TempDir) -> (BTreeSet<String>, usize) {
    let manifest = manifest_of(folder);
    let entry = &manifest[0];
    let store = Store::new(folder.path().join("zoo"));
    let notices = |edited: &Value| {
        let Ok(manifest) = Manifest::parse(&json!([edited]).to_string()) else { return true };
        let holds = |scope| check(&store, &manifest, scope, &Silent).is_ok_and(|found| found.is_empty());
        let checkpoints = Checkpoints::default();
        let anew = Scope { checkpoints: Some(&checkpoints), run: true, ..Scope::default() };
        !holds(Scope::default()) || !holds(anew)
    };
    assert!(!notices(entry));
    let mut at = Vec::new();
    places(entry, "", &mut at);
    let (mut missed, mut made) = (BTreeSet::new(), 0);
    for place in at.iter().filter(|place| !place.is_empty()) {
        for value in edits(entry.pointer(place).unwrap()) {
            let mut edited = entry.clone();
            *edited.pointer_mut(place).unwrap() = value;
            if without_nulls(&edited) == without_nulls(entry) {
                continue;
            }
            made += 1;
            if !notices(&edited) {
                missed.insert(place.clone());
            }
        }
    }
    (missed, made)
}

/// A store with one entry, edited.
fn alone(path: &str) -> TempDir {
    let folder = built();
    edit(&folder, |manifest| {
        let entries = manifest.as_array_mut().unwrap();
        for entry in entries.extract_if(.., |entry| entry["model_path"] != path) {
            std::fs::remove_file(file(&folder, entry["model_path"].as_str().unwrap())).unwrap();
        }
    });
    folder
}

#[test]
fn every_edit_of_an_entry_is_noticed() {
    let (missed, made) = unnoticed(&alone(super::TRACT));
    assert!(made > 300, "{made} edits");
    assert_eq!(missed, BTreeSet::new());
}

#[test]
fn of_a_third_party_entry_nothing_is_exempt_but_words() {
    let folder = built();
    std::fs::copy(file(&folder, super::PORTABLE), folder.path().join("theirs.onnx")).unwrap();
    std::fs::remove_dir_all(folder.path().join("zoo")).unwrap();
    let add =
        ["zoo", "add", "zoo", "theirs.onnx", "--license", "mit", "--source", "https://example.org/theirs"];
    let (code, stdout, stderr) = emo(&folder, &add);
    assert_eq!(code, 0, "{stdout}{stderr}");
    let (missed, made) = unnoticed(&folder);
    assert!(made > 300, "{made} edits");
    let words: BTreeSet<String> = WORDS.iter().map(|(place, _)| (*place).to_owned()).collect();
    assert_eq!(missed, words);
}
