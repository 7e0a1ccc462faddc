//! Releases of networks with windows of another side, of networks of one's own that others wrote, and of older versions.

use std::fs;

use emo_zoo::manifest::Manifest;
use emo_zoo::manifest::recipe::Recipe;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PORTABLE, built, edit, file, findings, manifest_of};
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
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(emo(&folder, &BUILD).1, "zoo: 0 written and verified, 1 unchanged, 0 refused\n");
    let manifest = manifest_of(&folder);
    assert_eq!(schema_errors(&manifest), Vec::<String>::new());
    let entry = &manifest[0];
    assert_eq!((&entry["model_path"], &entry["window"]), (&json!(WINDOWED), &json!(8)));
    let command = "emo export emo2-1m --window 8 --target portable --opset 17 --weights formula:0";
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

/// A file that others wrote, with windows that are published for some size, or with others.
#[test]
fn a_third_partys_windows_are_recorded() {
    let folder = TempDir::new().unwrap();
    for (model, theirs) in [("emo2-1m", "published.onnx"), ("emo-1m", "unpublished.onnx")] {
        assert_eq!(emo(&folder, &["export", model, "--window", "8", "--no-verify", "-o", theirs]).0, 0);
    }
    let (code, stdout, stderr) = emo(&folder, &["zoo", "add", "zoo", "published.onnx", "--claim", "emo2-1m"]);
    assert_eq!((code, stdout.as_str()), (0, "added  emo2-1m/published.onnx\n"), "{stderr}");
    assert_eq!(findings(&folder, 0, &["--rebuild"]), Vec::<[String; 3]>::new());
    let manifest = manifest_of(&folder);
    assert_eq!(schema_errors(&manifest), Vec::<String>::new());
    assert_eq!((&manifest[0]["model"], &manifest[0]["window"]), (&json!("emo2-1m"), &json!(8)));
    for value in [json!(7), json!(10), Value::Null] {
        let found = noticed(&folder, "window", value.clone());
        assert!(found.iter().any(|[_, _, field]| field == "window"), "{value}: {found:?}");
    }
    let (code, stdout, _) = emo(&folder, &["zoo", "add", "zoo", "unpublished.onnx", "--claim", "emo-1m"]);
    assert!(code == 1 && stdout.contains("of 7 tokens a side as published, found 8"), "{stdout}");
    assert_eq!(emo(&folder, &["zoo", "add", "zoo", "unpublished.onnx"]).0, 0);
    assert_eq!(findings(&folder, 0, &[]), Vec::<[String; 3]>::new());
}

/// A file of a network of one's own comes in by the TOML file that it is said to be of.
#[test]
fn a_network_of_ones_own_is_taken_in_by_its_file() {
    let folder = TempDir::new().unwrap();
    let nano = concat!(env!("CARGO_MANIFEST_DIR"), "/cmd/reports.in/emo-nano.toml");
    let text = fs::read_to_string(nano).unwrap();
    fs::write(folder.path().join("my.toml"), &text).unwrap();
    fs::write(folder.path().join("wider.toml"), text.replace("stem = 16", "stem = 20")).unwrap();
    let export = ["export", "my.toml", "--no-verify", "-o", "theirs.onnx"];
    assert_eq!(emo(&folder, &export).0, 0);
    assert_eq!(emo(&folder, &[&export[..4], &["windows.onnx", "--window", "8"]].concat()).0, 0);
    let add = |file: &str, claim: &str, more: &[&str]| {
        emo(&folder, &[&["zoo", "add", "zoo", file, "--claim", claim], more].concat())
    };
    let (code, stdout, _) = add("theirs.onnx", "wider.toml", &[]);
    assert!(code == 1 && stdout.contains("not-emo"), "{stdout}");
    let (code, stdout, _) = add("windows.onnx", "my.toml", &[]);
    assert!(code == 1 && stdout.contains("of 7 tokens a side, found 8"), "{stdout}");
    let (code, stdout, stderr) = add("theirs.onnx", "my.toml", &["--weights", "formula:0"]);
    assert_eq!((code, stdout.as_str()), (0, "added  emo-nano/theirs.onnx\n"), "{stderr}");
    assert_eq!(
        add("theirs.onnx", "my.toml", &["--weights", "formula:0"]).1,
        "unchanged  emo-nano/theirs.onnx\n"
    );
    let manifest = manifest_of(&folder);
    assert_eq!(schema_errors(&manifest), Vec::<String>::new());
    assert_eq!((&manifest[0]["claim"]["holds"], &manifest[0]["paper"]), (&json!(true), &Value::Null));
    assert_eq!(findings(&folder, 0, &["--rebuild"]), Vec::<[String; 3]>::new());
    for field in ["definition", "claim", "numerics"] {
        assert!(!noticed(&folder, field, Value::Null).is_empty(), "{field}");
    }
    let other = manifest[0]["definition"].to_string().replace("stem = 16", "stem = 20");
    assert!(!noticed(&folder, "definition", serde_json::from_str(&other).unwrap()).is_empty());
}

/// Commands that older versions recorded call the target a profile: they write the same, and are no finding.
#[test]
fn older_commands_still_stand() {
    let folder = built();
    let (new, old) = (" --target portable ", " --profile portable ");
    edit(&folder, |manifest| {
        let command = manifest[0]["command"].as_str().unwrap();
        assert!(command.contains(new), "{command}");
        manifest[0]["command"] = command.replace(new, old).into();
    });
    assert_eq!(findings(&folder, 0, &["--rebuild"]), Vec::<[String; 3]>::new());
    assert!(super::build(&folder, &[]).1.contains("2 unchanged"));
    let recorded = manifest_of(&folder);
    let manifest = Manifest::parse(&recorded.to_string()).unwrap();
    let entry = manifest.get(PORTABLE).unwrap();
    assert!(entry.command.as_ref().unwrap().contains(old));
    assert!(Recipe::read(entry).unwrap().command().contains(new));
    let other = recorded[0]["command"].as_str().unwrap().replace("portable", "coreml");
    assert!(noticed(&folder, "command", other.into()).iter().any(|[_, _, field]| field == "command"));
}
