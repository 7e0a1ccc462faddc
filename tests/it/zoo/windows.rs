//! Releases of networks with windows of another side.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{edit, file, findings, manifest_of};
use crate::command::{emo, refused};

const BUILD: [&str; 12] = [
    "zoo",
    "build",
    "--models",
    "emo2-1m",
    "--window",
    "8",
    "--targets",
    "portable",
    "--opsets",
    "17",
    "--out",
    "zoo",
];
const WINDOWED: &str = "emo2-1m/emo2-1m_window8_portable_opset17_formula-0.onnx";

fn schema_errors(manifest: &Value) -> Vec<String> {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../zoo/schemas/manifest.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    schema.iter_errors(manifest).map(|error| error.to_string()).collect()
}

/// What a check says of an entry whose field is another one, the file's own run aside.
fn noticed(folder: &TempDir, field: &str, value: Value) -> Vec<[String; 3]> {
    let before = manifest_of(folder);
    edit(folder, |manifest| match value {
        Value::Null => drop(manifest[0].as_object_mut().unwrap().remove(field)),
        value => manifest[0][field] = value,
    });
    let found = findings(folder, 1, &[]);
    edit(folder, |manifest| *manifest = before);
    found
}

/// A release with windows of 8 is built once, says so, and is written again.
#[test]
fn windows_are_recorded_and_written_again() {
    let folder = TempDir::new().unwrap();
    let (code, stdout, stderr) = emo(&folder, &BUILD);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert_eq!(emo(&folder, &BUILD).1, "zoo: 0 written and verified, 1 unchanged, 0 refused\n");
    let manifest = manifest_of(&folder);
    assert_eq!(schema_errors(&manifest), Vec::<String>::new());
    let entry = &manifest[0];
    assert_eq!((&entry["model_path"], &entry["window"]), (&json!(WINDOWED), &json!(8)));
    let command = "emo export emo2-1m --window 8 --profile portable --opset 17 --weights formula:0";
    assert_eq!(entry["command"], command);
    assert_eq!(entry["claim"]["fvcore"]["published"], Value::Null, "figures are published for windows of 7");
    assert_eq!(findings(&folder, 0, &["--rebuild"]), Vec::<[String; 3]>::new());
    // The command writes the recorded bytes.
    let words: Vec<&str> = command.split(' ').skip(1).chain(["--no-verify", "-o", "again.onnx"]).collect();
    assert_eq!(emo(&folder, &words).0, 0);
    assert_eq!(
        fs::read(folder.path().join("again.onnx")).unwrap(),
        fs::read(file(&folder, WINDOWED)).unwrap()
    );

    for value in [json!(7), json!(9), json!(1_u64 << 40), Value::Null] {
        let found = noticed(&folder, "window", value.clone());
        assert!(
            found.iter().any(|[_, code, field]| (code.as_str(), field.as_str()) == ("recipe", "window")),
            "{value}: {found:?}"
        );
    }
    fs::remove_dir_all(folder.path().join("zoo/emo2-1m")).unwrap();
    assert_eq!(findings(&folder, 0, &["--rebuild"]), Vec::<[String; 3]>::new(), "by the manifest alone");
    edit(&folder, |manifest| manifest[0]["window"] = json!(1_u64 << 40));
    let found = findings(&folder, 1, &["--rebuild"]);
    assert!(found.iter().any(|[_, code, _]| code == "rebuild"), "{found:?}");
    let without = ["zoo", "build", "--models", "deit-tiny", "--window", "8", "--out", "new"];
    refused(&folder, &without, &["deit-tiny", "a model with windows"]);
    refused(&folder, &["export", "emo-1m", "--window", "65"], &["window", "1 to 64", "65"]);
}
