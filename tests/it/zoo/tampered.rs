//! A store in which something was changed: the check names the file and what differs.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::{PORTABLE, TRACT, built, edit, file, findings};
use crate::command::emo;

/// What somebody does to a store, and what the check says: the file, the finding's code, the field.
type Tampering = (&'static str, fn(&TempDir), &'static [(&'static str, &'static str, &'static str)]);

const TAMPERINGS: &[Tampering] = &[
    ("nothing", |_| {}, &[]),
    (
        "a flipped bit in a weight",
        |folder| {
            let path = file(folder, PORTABLE);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        &[(PORTABLE, "file", "metadata.model_sha")],
    ),
    (
        "a swapped pair of files",
        |folder| {
            let (a, b) = (file(folder, PORTABLE), file(folder, TRACT));
            fs::rename(&a, folder.path().join("kept")).unwrap();
            fs::rename(&b, &a).unwrap();
            fs::rename(folder.path().join("kept"), &b).unwrap();
        },
        &[
            (PORTABLE, "file", "metadata.model_sha"),
            (PORTABLE, "recipe", "profile"),
            (TRACT, "file", "metadata.model_sha"),
            (TRACT, "recipe", "profile"),
        ],
    ),
    (
        "an edited count",
        |folder| edit(folder, |m| m[0]["parameters"] = 1.into()),
        &[(PORTABLE, "counts", "parameters")],
    ),
    (
        "an edited cost",
        |folder| edit(folder, |m| m[1]["costs"]["mmcv"] = Value::Null),
        &[(TRACT, "counts", "costs.mmcv")],
    ),
    (
        "an edited claim",
        |folder| edit(folder, |m| m[0]["claim"]["fvcore"]["published"] = "260M".into()),
        &[(PORTABLE, "claim", "claim.fvcore.published")],
    ),
    (
        "a claim left out",
        |folder| edit(folder, |m| m[0]["claim"] = Value::Null),
        &[(PORTABLE, "claim", "claim.holds")],
    ),
    ("a removed file", |folder| fs::remove_file(file(folder, TRACT)).unwrap(), &[(TRACT, "missing", "")]),
    (
        "an extra file",
        |folder| fs::write(file(folder, "emo-1m/extra.onnx"), "x").unwrap(),
        &[("emo-1m/extra.onnx", "stray", "")],
    ),
    (
        "a truncated file",
        |folder| fs::write(file(folder, TRACT), "").unwrap(),
        &[(TRACT, "file", "metadata.model_sha")],
    ),
    (
        "an edited digest",
        |folder| edit(folder, |m| m[0]["metadata"]["model_sha"] = "0".repeat(64).into()),
        &[(PORTABLE, "file", "metadata.model_sha")],
    ),
    (
        "an edited interface",
        |folder| edit(folder, |m| m[0]["input"]["height"] = 225.into()),
        &[(PORTABLE, "interface", "input.height")],
    ),
    (
        "an edited lint",
        |folder| edit(folder, |m| m[0]["lint"]["nnapi"]["violations"] = 0.into()),
        &[(PORTABLE, "lint", "lint.nnapi.violations")],
    ),
    (
        "other weights",
        |folder| edit(folder, |m| m[0]["weights"]["source"] = "formula:1".into()),
        &[(PORTABLE, "unsound", "")],
    ),
    (
        "a bound of its own",
        |folder| edit(folder, |m| m[0]["numerics"]["bound"] = 1.0.into()),
        &[(PORTABLE, "numerics", "numerics")],
    ),
    (
        "an engine that nobody has",
        |folder| edit(folder, |m| m[0]["numerics"]["runtime"] = "abacus".into()),
        &[(PORTABLE, "numerics", "numerics")],
    ),
    (
        "an input that is no number",
        |folder| edit(folder, |m| m[0]["numerics"]["probes"][0] = "noise-free".into()),
        &[(PORTABLE, "numerics", "numerics")],
    ),
    (
        "no run",
        |folder| edit(folder, |m| m[0]["numerics"] = Value::Null),
        &[(PORTABLE, "numerics", "numerics")],
    ),
    (
        "an edited command",
        |folder| edit(folder, |m| m[0]["command"] = "emo export emo-2m".into()),
        &[(PORTABLE, "recipe", "command")],
    ),
    (
        "no command",
        |folder| edit(folder, |m| m[0]["command"] = Value::Null),
        &[(PORTABLE, "recipe", "command")],
    ),
    (
        "a licence that nobody stated",
        |folder| edit(folder, |m| m[0]["license"] = "mit".into()),
        &[(PORTABLE, "words", "license")],
    ),
];

#[test]
fn whatever_is_changed_is_named() {
    for (what, tamper, expected) in TAMPERINGS {
        let folder = built();
        tamper(&folder);
        let found = findings(&folder, i32::from(!expected.is_empty()), &[]);
        for (path, code, field) in *expected {
            let row = [path, code, field].map(|&text| text.to_owned());
            assert!(found.contains(&row), "{what}: expected {row:?} among {found:?}");
        }
        let others: Vec<_> =
            found.iter().filter(|[path, ..]| !expected.iter().any(|(known, ..)| known == path)).collect();
        assert!(others.is_empty(), "{what}: {others:?}");
        let (_, text, _) = emo(&folder, &["zoo", "check", "zoo"]);
        for (path, ..) in *expected {
            assert!(text.contains(path), "{what}: expected {path} in {text}");
        }
    }
}
