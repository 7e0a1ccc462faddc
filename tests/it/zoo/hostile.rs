//! Manifests that somebody hostile wrote.

use std::fs;

use emo_zoo::manifest::MANIFEST;
use serde_json::json;
use tempfile::TempDir;

use super::{PORTABLE, TRACT, build, built, digests, edit, file, write_manifest};
use crate::command::refused;

/// What somebody hostile writes, and words of the refusal.
type Hostile = (fn(&TempDir), &'static [&'static str]);

const HOSTILE: &[Hostile] = &[
    (
        |f| edit(f, |m| m[0]["model_path"] = "../emo-1m/x.onnx".into()),
        &["../emo-1m/x.onnx", "inside the folder"],
    ),
    (|f| edit(f, |m| m[0]["model_path"] = "emo-1m/../../x.onnx".into()), &["emo-1m/../../x.onnx"]),
    (|f| edit(f, |m| m[0]["model_path"] = "/etc/passwd.onnx".into()), &["/etc/passwd.onnx"]),
    (|f| edit(f, |m| m[0]["model_path"] = "emo-1m\\x.onnx".into()), &["model_path"]),
    (|f| edit(f, |m| m[0]["model_path"] = "emo-1m/manifest.json".into()), &["emo-1m/manifest.json"]),
    (|f| edit(f, |m| m[0]["model_path"] = format!("emo-1m/{}.onnx", "x".repeat(300)).into()), &["200 bytes"]),
    (|f| edit(f, |m| m[0]["model"] = "emo-1m\u{1b}[2J".into()), &[PORTABLE, "control characters"]),
    (|f| edit(f, |m| m[0]["license"] = "x".repeat(5000).into()), &[PORTABLE, "license", "4096 bytes"]),
    (
        |f| edit(f, |m| m[1]["metadata"]["model_bytes"] = (1_u64 << 40).into()),
        &[TRACT, "model_bytes", "1099511627776"],
    ),
    (|f| edit(f, |m| m[1]["metadata"]["model_bytes"] = (-1).into()), &[TRACT, "model_bytes"]),
    (|f| edit(f, |m| m[1]["parameters"] = 1e300.into()), &[TRACT, "parameters"]),
    (|f| edit(f, |m| m[1]["metadata"]["model_sha"] = "abc".into()), &[TRACT, "model_sha", "64"]),
    (|f| edit(f, |m| m[1] = m[0].clone()), &[PORTABLE, "found two"]),
    (|f| edit(f, |m| m[1]["schema"] = "emo.zoo/2".into()), &[TRACT, "emo.zoo/1", "emo.zoo/2"]),
    (
        |f| {
            edit(f, |m| {
                m[0].as_object_mut().unwrap().remove("schema");
            });
        },
        &[PORTABLE, "schema"],
    ),
    (|f| edit(f, |m| m[0]["opset_version"] = "17".into()), &[PORTABLE, "opset_version", "17"]),
    (|f| edit(f, |m| m[0]["surprise"] = 1.into()), &[PORTABLE, "surprise"]),
    (|f| edit(f, |m| m[0]["weights"] = json!({ "source": 1 })), &[PORTABLE, "weights"]),
    (|f| edit(f, |m| m[1] = 7.into()), &["entry 1", "a number"]),
    (|f| write_manifest(f, &json!({ "models": [] })), &["manifest.json", "an object"]),
    (|f| fs::write(file(f, MANIFEST), "[".repeat(1 << 20)).unwrap(), &["manifest.json", "JSON"]),
    (|f| fs::write(file(f, MANIFEST), [0xff, 0xfe]).unwrap(), &["manifest.json", "UTF-8"]),
    (|f| fs::File::create(file(f, MANIFEST)).unwrap().set_len(1 << 27).unwrap(), &["manifest.json", "bytes"]),
    (
        |f| {
            let text = fs::read_to_string(file(f, MANIFEST)).unwrap();
            let twice = text.replacen("\"dtype\"", "\"dtype\": \"f16\", \"dtype\"", 1);
            fs::write(file(f, MANIFEST), twice).unwrap();
        },
        &[PORTABLE, "duplicate"],
    ),
    #[cfg(unix)]
    (
        |f| {
            fs::rename(file(f, TRACT), f.path().join("elsewhere.onnx")).unwrap();
            std::os::unix::fs::symlink(f.path().join("elsewhere.onnx"), file(f, TRACT)).unwrap();
        },
        &[TRACT, "link"],
    ),
    #[cfg(unix)]
    (
        |f| {
            fs::rename(file(f, "emo-1m"), f.path().join("elsewhere")).unwrap();
            std::os::unix::fs::symlink(f.path().join("elsewhere"), file(f, "emo-1m")).unwrap();
        },
        &[PORTABLE, "link"],
    ),
    #[cfg(unix)]
    (
        |f| {
            fs::rename(file(f, "manifest.json"), f.path().join("elsewhere.json")).unwrap();
            std::os::unix::fs::symlink(f.path().join("elsewhere.json"), file(f, "manifest.json")).unwrap();
        },
        &["manifest.json", "link"],
    ),
];

#[test]
fn hostile_manifests_are_refused() {
    for (index, (change, words)) in HOSTILE.iter().enumerate() {
        let folder = built();
        change(&folder);
        let before = digests(folder.path());
        for command in [&["zoo", "check", "zoo"][..], &["zoo", "card", "zoo", "--all"]] {
            refused(&folder, command, words);
        }
        assert_eq!(build(&folder, &[]).0, 2, "{index}");
        assert_eq!(digests(folder.path()), before, "{index}");
    }
}
