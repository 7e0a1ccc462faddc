//! `emo bench` as a user meets it; what it measures is nobody's expectation.

use emo_proto::Message as _;
use emo_proto::tensor_proto::DataType;
use emo_tests::onnx::{graph_of, model, node, value};
use tempfile::TempDir;

use crate::command::{emo, json_of};

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
    assert!(text.starts_with("tract, 1 thread, input [1, 3, 64, 64], "), "{text}");
}

/// The request or the file is wrong, or the engine does not take it, which says nothing of the file.
#[test]
fn what_cannot_run_is_named() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("x.onnx"), b"no model").unwrap();
    for (name, op, extents) in [
        ("open.onnx", "Relu", ["batch".into(), 3.into(), "height".into(), 8.into()]),
        ("lacks.onnx", "Frobnicate", ["batch".into(), 3.into(), 8.into(), 8.into()]),
    ] {
        let input = vec![value("x", DataType::Float, &extents)];
        let made = model(17, graph_of(input, vec![], vec![node(op, &["x"], &["y"], vec![])], &["y"]));
        std::fs::write(folder.path().join(name), made.encode_to_vec()).unwrap();
    }
    let rows: [(i32, &[&str], &str); 7] = [
        (2, &["bench", "x.onnx"], "x.onnx"),
        (2, &["bench", "missing.onnx"], "missing.onnx"),
        (2, &["bench", "x.onnx", "--rounds", "0"], "--rounds"),
        (2, &["bench", "open.onnx"], "give --input x=1,3,320,8"),
        (2, &["bench", "open.onnx", "--threads", "2"], "tract runs on one thread"),
        (3, &["bench", "lacks.onnx"], "tract has no Frobnicate"),
        (0, &["bench", "open.onnx", "--input", "x=1,3,8,8", "--rounds", "1"], ""),
    ];
    for (expected, arguments, word) in rows {
        let (code, stdout, stderr) = emo(&folder, arguments);
        assert_eq!((code, stdout.is_empty()), (expected, expected != 0), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
}
