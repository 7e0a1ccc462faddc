//! `emo bench` as a user meets it; what it measures is nobody's expectation.

use tempfile::TempDir;

use crate::audit::{emo, json_of};

/// Every file runs, the first is its own measure, free dimensions are one or the user's.
#[test]
fn files_run_in_turn() {
    let folder = TempDir::new().unwrap();
    for (name, batch) in [("a.onnx", "1"), ("b.onnx", "dynamic")] {
        let export = ["export", "emo-1m", "--size", "64", "--no-verify", "--batch", batch, "-o", name];
        assert_eq!(emo(&folder, &export).0, 0);
    }
    let report = json_of(&folder, 0, &["bench", "a.onnx", "b.onnx", "--rounds", "2", "--dim", "batch=2"]);
    assert_eq!((&report["runtime"], report["files"][0]["ratio"].as_f64()), (&"tract".into(), Some(1.0)));
    assert_eq!(report["files"].as_array().unwrap().len(), 2);
    // A process that runs a network holds its weights, twice 5 MB.
    let peak = &report["files"][1]["peak_bytes"];
    assert!(peak.is_null() || peak.as_u64().unwrap() > 10_000_000, "{peak}");

    let (code, text, _) = emo(&folder, &["bench", "a.onnx", "--rounds", "1"]);
    assert_eq!(code, 0);
    assert!(text.contains("× first") && text.contains("a.onnx"), "{text}");
}

#[test]
fn what_cannot_run_is_named() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("x.onnx"), b"no model").unwrap();
    let rows: [(&[&str], &str); 3] = [
        (&["bench", "x.onnx"], "x.onnx"),
        (&["bench", "missing.onnx"], "missing.onnx"),
        (&["bench", "x.onnx", "--rounds", "0"], "--rounds"),
    ];
    for (arguments, word) in rows {
        let (code, stdout, stderr) = emo(&folder, arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
}
