//! `emo dump` as scripts read it.

use emo_tests::fixture;
use tempfile::TempDir;

use crate::command::{emo, json_of};

/// Shapes that are numbers and formulas, ours and strangers'.
#[test]
fn dumps_keep_their_schema() {
    let folder = TempDir::new().unwrap();
    let export = ["export", "emo-1m", "--no-verify", "--batch", "dynamic", "-o", "m.onnx"];
    assert_eq!(emo(&folder, &export).0, 0);
    let dump = json_of(&folder, 0, &["dump", "m.onnx"]);
    let mut shapes =
        dump["files"][0]["values"].as_array().unwrap().iter().map(|value| &value["type"]["shape"]);
    assert!(shapes.any(|shape| shape[0] == "batch"));
    if let Some(files) = fixture("third_party") {
        json_of(&folder, 0, &["dump", &files.join("*.onnx").display().to_string()]);
    }
}
