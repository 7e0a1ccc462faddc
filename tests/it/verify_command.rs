//! `emo verify` as users and their pipelines meet it.

use std::fs;

use emo_exporter::models::{DENSE, MODELS, Model};
use emo_proto::Message as _;
use emo_proto::tensor_proto::DataType;
use emo_tests::{fixture, onnx};
use emo_verifier::verify::cause::CAUSES;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{emo, json_of, refused};

fn third_party(name: &str) -> String {
    fixture(&format!("third_party/{name}.onnx")).display().to_string()
}

/// The folder with `emo-1m.onnx` and `other.onnx`, whose weights have another seed.
fn exports() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, seed, opset) in [("emo-1m.onnx", "formula:0", "17"), ("other.onnx", "formula:1", "20")] {
        let arguments = ["export", "emo-1m", "--no-verify", "--weights", seed, "--opset", opset, "-o", name];
        let (code, _, stderr) = emo(&folder, &arguments);
        assert_eq!(code, 0, "{stderr}");
    }
    folder
}

#[test]
fn a_verdict_has_its_fields() {
    let folder = exports();
    let right = json_of(&folder, 0, &["verify", "emo-1m.onnx", "--weights", "formula:0"]);
    let expected = [("verdict", "pass"), ("model", "emo-1m"), ("tolerance", "f32"), ("runtime", "tract")];
    for (field, value) in expected {
        assert_eq!(right[field], value, "{field}");
    }
    assert!(right["max_abs"].as_f64().unwrap() < 1e-5);
    for field in ["cause", "first_divergence", "departure"] {
        assert_eq!(right[field], Value::Null, "{field}");
    }
    let wrong =
        json_of(&folder, 1, &["verify", "other.onnx", "--weights", "formula:0", "--test-inputs", "2"]);
    assert_eq!((&wrong["verdict"], &wrong["cause"]), (&"fail".into(), &"weights".into()));
    assert_eq!(wrong["first_divergence"], "stage0.0");
    assert_eq!(wrong["weights"]["differing"][0]["tensor"], "stage0.0.convs.0.0.weight");
}

/// Windows that were not published are told, and are another model than the one that is asked for by name.
#[test]
fn windows_that_were_not_published_are_told() {
    let folder = TempDir::new().unwrap();
    let nano = concat!(env!("CARGO_MANIFEST_DIR"), "/cmd/reports.in/emo-nano.toml");
    for (model, side) in [("emo-1m", 8), ("emo-1m", 16), ("emo2-1m", 8), ("emo2-1m", 10), (nano, 8)] {
        let side = side.to_string();
        let export = ["export", model, "--window", &side, "--no-verify", "-o", "model.onnx"];
        assert_eq!(emo(&folder, &export).0, 0);
        let asked = ["verify", "model.onnx", "--test-inputs", "1", "--model", model];
        let free = &asked[..4];
        let sides = if model == "emo2-1m" { "7 or 8" } else { "7" };
        let published = if model == nano { "" } else { " as published" };
        let reason = format!("expected attention windows of {sides} tokens a side{published}, found {side}");
        if (model, side.as_str()) == ("emo2-1m", "8") {
            for arguments in [free, &asked] {
                let document = json_of(&folder, 0, arguments);
                assert!(!document["findings"].to_string().contains("other-window"), "{document}");
            }
            continue;
        }
        if model != nano {
            let note = format!("note[other-window]: {reason}; the file is judged with these\n");
            let (code, text, _) = emo(&folder, free);
            assert!(code == 0 && text.contains(&note), "{note}: {text}");
            let document = json_of(&folder, 0, free);
            assert_eq!(document["model"], format!("{model}, window {side}"));
            let found = document["findings"].as_array().unwrap().iter().find(|f| f["code"] == "other-window");
            let expected = json!({
                "code": "other-window", "severity": "note", "place": "", "file": "model.onnx",
                "message": format!("{reason}; the file is judged with these"),
            });
            assert_eq!(found, Some(&expected), "{document}");
        }
        let (code, text, _) = emo(&folder, &asked);
        let line = format!("error[other-window]: {reason}\n");
        assert!(
            code == 1 && text.starts_with("model.onnx  fail other-window: ") && text.contains(&line),
            "{text}"
        );
        let document = json_of(&folder, 1, &asked);
        assert_eq!((&document["cause"], &document["reason"]), (&"other-window".into(), &reason.into()));
    }
}

/// Whoever reads reports by machine finds every cause in the schema.
#[test]
fn the_schema_knows_every_cause() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../verifier/schemas/verify.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let known = schema["$defs"]["cause"]["enum"].as_array().unwrap();
    let mut known: Vec<&str> = known.iter().map(|name| name.as_str().unwrap()).collect();
    let mut causes: Vec<&str> = CAUSES.iter().map(|cause| cause.name).collect();
    known.sort_unstable();
    causes.sort_unstable();
    assert_eq!(known, causes);
}

/// Any module of any model may be where a file parts.
#[test]
fn the_schema_knows_every_place() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../verifier/schemas/verify.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let block = jsonschema::validator_for(&schema["$defs"]["block"]).unwrap();
    for place in ["boxes", "scores", "nms"] {
        assert!(block.is_valid(&place.into()), "{place}");
    }
    for parameter in MODELS.iter().chain(&*DENSE).flat_map(Model::parameters) {
        for (end, _) in parameter.name.match_indices('.') {
            let module = &parameter.name[..end];
            assert!(block.is_valid(&module.into()), "{module}");
        }
    }
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn every_format_has_the_verdict() {
    let wrong = third_party("wrong_tiles");
    let folder = TempDir::new().unwrap();
    for (format, words) in [
        ("text", ["fail tiles in stage3.1: emo-1m at 224 × 224", "stage4.2"]),
        ("json", ["\"cause\": \"tiles\"", "\"first_divergence\": \"stage3.1\""]),
        ("markdown", ["fail tiles in stage3.1", "| stage3.1 "]),
        ("junit", ["<failure", "tiles"]),
        ("sarif", ["\"ruleId\": \"tiles\"", "stage3.1"]),
        ("github", ["::error file=", "tiles"]),
    ] {
        let (code, stdout, stderr) =
            emo(&folder, &["verify", &wrong, "--test-inputs", "1", "--format", format]);
        assert_eq!(code, 1, "{stderr}");
        for word in words {
            assert!(stdout.contains(word), "{format}: expected {word:?} in {stdout}");
        }
    }
    let (_, stdout, _) = emo(&folder, &["verify", &wrong, "--test-inputs", "1"]);
    assert!(stdout.lines().next().unwrap().contains("fail"), "{stdout}");
}

#[test]
fn many_files_end_with_the_worst() {
    let folder = exports();
    fs::write(folder.path().join("text.onnx"), "no model").unwrap();
    let all = ["verify", "emo-1m.onnx", "other.onnx", "--weights", "formula:0", "--test-inputs", "1"];
    let documents = json_of(&folder, 1, &all);
    assert_eq!((&documents[0]["verdict"], &documents[1]["verdict"]), (&"pass".into(), &"fail".into()));
    let documents = json_of(&folder, 2, &["verify", "*.onnx", "--test-inputs", "1"]);
    let verdicts: Vec<_> =
        documents.as_array().unwrap().iter().map(|d| d["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["pass", "pass", "unreadable"]);
}

#[test]
fn recorded_data_is_written_and_held_to() {
    let folder = exports();
    let save = ["verify", "emo-1m.onnx", "--test-inputs", "2", "--save-data", "data"];
    assert_eq!(emo(&folder, &save).0, 0);
    for file in ["test_data_set_0/input_0.pb", "test_data_set_1/output_0.pb"] {
        assert!(folder.path().join("data").join(file).exists(), "{file}");
    }
    let held = json_of(&folder, 0, &["verify", "emo-1m.onnx", "--data", "data", "--test-inputs", "0"]);
    let recorded: Vec<_> = held["probes"].as_array().unwrap().iter().map(|p| p["recorded"] == true).collect();
    assert_eq!(recorded, [false, true, false, true]);
    // Another file's outputs: its function holds, the data is not its own.
    let other = json_of(&folder, 1, &["verify", "other.onnx", "--data", "data", "--test-inputs", "0"]);
    assert_eq!(other["cause"], "outputs-differ");
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn any_two_files_are_compared() {
    let folder = exports();
    let against = |a: &str, b: &str, code: i32| {
        json_of(&folder, code, &["verify", a, "--against", b, "--test-inputs", "2"])
    };
    let same = against("emo-1m.onnx", "emo-1m.onnx", 0);
    assert_eq!((&same["verdict"], &same["max_abs"]), (&"pass".into(), &0.0.into()));
    let other = against("emo-1m.onnx", "other.onnx", 1);
    assert_eq!(other["cause"], "outputs-differ");
    let third_party = third_party("emo_1m_torchscript_op17_dynamic");
    assert_eq!(against("emo-1m.onnx", &third_party, 0)["outputs"].as_array().unwrap().len(), 2);

    let graph = |operator: &str, domain: &str| {
        let port = |name: &str| onnx::value(name, DataType::Float, &[2.into(), "n".into()]);
        let mut node = onnx::node(operator, &["x"], &["y"], Vec::new());
        node.rare().domain = Some(domain.to_owned());
        let mut graph = onnx::graph_of(vec![port("x")], Vec::new(), vec![node], &["y"]);
        (graph.name, graph.output) = (Some("one".to_owned()), vec![port("y")]);
        let mut model = onnx::model(17, graph);
        model
            .opset_import
            .push(emo_proto::OperatorSetIdProto { domain: Some("example".to_owned()), version: Some(1) });
        model.encode_to_vec()
    };
    fs::write(folder.path().join("tanh.onnx"), graph("Tanh", "")).unwrap();
    fs::write(folder.path().join("sigmoid.onnx"), graph("Sigmoid", "")).unwrap();
    fs::write(folder.path().join("own.onnx"), graph("Own", "example")).unwrap();
    assert_eq!(against("tanh.onnx", "tanh.onnx", 0)["outputs"][0]["shape"], serde_json::json!([2, 24]));
    let wide = json_of(&folder, 1, &["verify", "tanh.onnx", "--against", "sigmoid.onnx", "--dim", "n=5"]);
    assert_eq!(wide["outputs"][0]["shape"], serde_json::json!([2, 5]));
    let lacking = against("own.onnx", "tanh.onnx", 3);
    assert!(lacking["reason"].as_str().unwrap().contains("example.Own"), "{lacking}");
    let (code, _, stderr) = emo(&folder, &["verify", "tanh.onnx", "--against", "emo-1m.onnx"]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn wrong_requests_are_refused() {
    let folder = exports();
    // A process can have one library, so that only a process of its own can be given another.
    fs::write(folder.path().join("libonnxruntime.so.1.31.0"), "no library").unwrap();
    let rows: [(&[&str], &str); 11] = [
        (&["--tolerance", "f64"], "f32, f16, bf16, int8"),
        (&["--runtime", "tensorrt"], "tract, ort"),
        (&["--weights", "absent.pth"], "absent.pth"),
        (&["--runtime", "ort", "--ort-library", "absent.so"], "absent.so"),
        (&["--ort-library", "libonnxruntime.so.1.31.0"], "libonnxruntime.so.1.31.0"),
        (&["--ort-library", "libonnxruntime.so.1.31.0"], "pip install onnxruntime"),
        (&["--ort-library", "."], "pip install onnxruntime"),
        // The library's name is the runtime's choice.
        (&["--ort-library", "absent.so"], "absent.so"),
        (&["--runtime", "tract", "--ort-library", "absent.so"], "expected --runtime ort, found tract"),
        (&["--data", "absent"], "absent"),
        (&["--dim", "depth=3"], "depth"),
    ];
    for (arguments, word) in rows {
        refused(&folder, &[&["verify", "emo-1m.onnx", "--test-inputs", "1"], arguments].concat(), &[word]);
    }
}
