//! `emo dump` as scripts read it.

use emo_tests::fixture;
use tempfile::TempDir;

use crate::command::{emo, json_of};

/// Shapes that are numbers and formulas, ours and third-party.
#[test]
fn dumps_keep_their_schema() {
    let folder = TempDir::new().unwrap();
    let export = ["export", "emo-1m", "--no-verify", "--batch", "dynamic", "-o", "m.onnx"];
    assert_eq!(emo(&folder, &export).0, 0);
    let dump = json_of(&folder, 0, &["dump", "m.onnx"]);
    let mut shapes =
        dump["files"][0]["values"].as_array().unwrap().iter().map(|value| &value["type"]["shape"]);
    assert!(shapes.any(|shape| shape[0] == "batch"));
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn dumps_of_third_parties_keep_it_too() {
    let files = fixture("third_party").join("*.onnx").display().to_string();
    json_of(&TempDir::new().unwrap(), 0, &["dump", &files]);
}
