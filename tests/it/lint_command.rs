//! `emo lint` and `emo profiles` as users and their pipelines meet them.

use std::fs;

use emo_exporter::profile::PROFILES;
use emo_proto::Message as _;
use emo_proto::tensor_proto::DataType;
use emo_tests::fixture;
use emo_tests::onnx::{graph_of, model, node, value};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{emo, json_of, refused};

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let export = ["export", "emo-1m", "--target", "coreml", "--no-verify", "-o", "ours.onnx"];
    assert_eq!(emo(&folder, &export).0, 0);
    let inputs = vec![
        value("x", DataType::Float, &[2.into(), 8.into()]),
        value("target", DataType::Int64, &["n".into()]),
    ];
    let reshape = node("Reshape", &["x", "target"], &["y"], vec![]);
    let mut open = model(17, graph_of(inputs, vec![], vec![reshape], &["y"]));
    open.ir_version = Some(8);
    fs::write(folder.path().join("open.onnx"), open.encode_to_vec()).unwrap();
    fs::write(folder.path().join("broken.onnx"), b"no model").unwrap();
    folder
}

#[test]
fn exit_codes_say_how_it_ended() {
    let folder = folder();
    let ours = json_of(&folder, 0, &["lint", "ours.onnx", "--target", "coreml"]);
    assert_eq!((&ours["verdict"], &ours["violations"]), (&"pass".into(), &0.into()));
    assert_eq!(ours["partitions"], serde_json::json!([ours["nodes"]]));
    let cut = json_of(&folder, 1, &["lint", "ours.onnx", "--target", "nnapi"]);
    assert_eq!(cut["verdict"], "fail");
    let open = json_of(&folder, 3, &["lint", "open.onnx", "--target", "tract"]);
    assert_eq!((&open["verdict"], &open["undecided"]), (&"undecided".into(), &1.into()));
    json_of(&folder, 0, &["lint", "open.onnx", "--target", "tract", "--dim", "n=3"]);
    json_of(&folder, 0, &["lint", "open.onnx", "--target", "tract", "--input", "target=4"]);
    // A violation outranks what is open, whatever the order.
    json_of(&folder, 0, &["lint", "--allow", "lint-rank", "--target", "coreml", "ours.onnx"]);
    json_of(&folder, 0, &["check", "--allow", "attribute-unnamed", "ours.onnx"]);
    let several = ["lint", "open.onnx", "ours.onnx", "--target", "tract,nnapi"];
    let documents = json_of(&folder, 1, &several);
    let pairs: Vec<_> = documents.as_array().unwrap().iter().map(|d| (&d["file"], &d["profile"])).collect();
    assert_eq!(pairs.len(), 4);
    assert_eq!(pairs[1], (&Value::from("open.onnx"), &Value::from("nnapi")));
    // One that cannot be read takes nothing from the others.
    for command in [["lint", "--target", "coreml"].as_slice(), &["audit"]] {
        let documents = json_of(&folder, 2, &[command, &["broken.onnx", "ours.onnx"]].concat());
        let verdicts: Vec<_> = documents.as_array().unwrap().iter().map(|d| &d["verdict"]).collect();
        assert_eq!(verdicts, ["unreadable", "pass"], "{command:?}");
        assert_eq!(documents[0]["findings"][0]["file"], "broken.onnx");
    }
    for (arguments, word) in [
        (["lint", "ours.onnx", "--target", "corel"].as_slice(), "coreml"),
        (&["lint", "ours.onnx"], "--target"),
        (&["lint", "broken.onnx", "--target", "coreml"], "broken.onnx"),
        (&["lint", "ours.onnx", "--target", "coreml", "--allow", "lint-ranks"], "lint-rank"),
        (&["lint", "ours.onnx", "--target", "coreml", "--dim", "batch=1"], "batch"),
        (&["profiles", "corel"], "coreml"),
    ] {
        refused(&folder, arguments, &[word]);
    }
}

#[test]
fn allowed_codes_are_left_out() {
    let folder = folder();
    let all = json_of(&folder, 1, &["lint", "ours.onnx", "--target", "nnapi"]);
    let codes: Vec<&str> =
        all["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"lint-operator"), "{codes:?}");
    let codes = codes.join(",");
    let arguments = ["lint", "ours.onnx", "--target", "nnapi", "--allow", &codes];
    let none = json_of(&folder, 0, &arguments);
    // What is allowed is still not taken.
    assert_eq!((&none["violations"], &none["partitions"]), (&0.into(), &all["partitions"]));
}

/// A file of thousands of nodes is a page, and its headline says the most of it.
#[test]
fn text_is_a_page() {
    let folder = folder();
    let (_, text, _) = emo(&folder, &["lint", "ours.onnx", "--target", "coreml"]);
    assert!(text.starts_with("ours.onnx  coreml: no violations, 1 partition, "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn text_of_a_third_partys_file_is_a_page() {
    let path = fixture("third_party/emo_1m_einops_torchscript_op17.onnx");
    let (code, text, _) = emo(&folder(), &["lint", path.to_str().unwrap(), "--target", "coreml"]);
    assert_eq!(code, 1);
    let headline = text.lines().next().unwrap();
    for word in ["coreml: ", " violations in ", " partitions (1 expected)", " taken"] {
        assert!(headline.contains(word), "{headline}");
    }
    assert!(text.contains("Transpose of rank 6") && text.lines().count() < 40, "{text}");
}

#[test]
fn every_format_has_the_findings() {
    let folder = folder();
    for (format, words) in [
        ("markdown", ["### emo lint: does not hold", "lint-operator"].as_slice()),
        ("csv", &["file,rule,found,count,first at,emit instead", "lint-operator"]),
        ("junit", &["<testsuites name=\"emo lint\"", "<failure type=\"lint-operator\""]),
        ("sarif", &["\"ruleId\": \"lint-operator\""]),
        ("github", &["::error file=ours.onnx,title=emo lint%3A lint-operator::"]),
    ] {
        let arguments = ["lint", "ours.onnx", "--target", "nnapi", "--format", format];
        let (code, text, _) = emo(&folder, &arguments);
        assert_eq!(code, 1, "{format}");
        words.iter().for_each(|word| assert!(text.contains(word), "{format}: {word}: {text}"));
    }
    // A table a header, and one of findings; where nothing was found its header alone.
    let csv = |arguments: &[&str]| emo(&folder, &[arguments, &["--format", "csv"]].concat()).1;
    let lint = csv(&["lint", "ours.onnx", "--target", "nnapi"]);
    assert!(lint.contains("\r\n\r\nfile,code,severity,place,message\r\nours.onnx,lint-"), "{lint}");
    let check = csv(&["check", "broken.onnx"]);
    assert!(
        check.starts_with("file,code,severity,place,message\r\nbroken.onnx,unreadable,error,,"),
        "{check}"
    );
    assert_eq!(csv(&["check", "ours.onnx"]), "file,code,severity,place,message\r\n");
    // What cannot be decided is an error in JUnit's words.
    let arguments = ["lint", "open.onnx", "--target", "tract", "--format", "junit"];
    assert!(emo(&folder, &arguments).1.contains("<error type=\"lint-undecided\""));
}

/// A free batch is a violation at the input that has it; a size closes it.
#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn a_free_batch_is_closed_by_a_size() {
    let path = fixture("third_party/emo_1m_torchscript_op17_dynamic.onnx");
    let folder = TempDir::new().unwrap();
    let lint = |more: &[&str]| {
        let lint =
            json_of(&folder, 1, &[&["lint", path.to_str().unwrap(), "--target", "coreml"], more].concat());
        let findings = lint["findings"].as_array().unwrap();
        let free: Vec<String> = findings
            .iter()
            .filter(|f| f["code"] == "lint-free-shape")
            .map(|f| f["place"].as_str().unwrap().to_owned())
            .collect();
        (free, lint["taken"].as_u64().unwrap(), lint["nodes"].as_u64().unwrap())
    };
    let (free, taken, nodes) = lint(&[]);
    assert_eq!(free, [r#"input "input""#]);
    assert!(taken * 2 < nodes, "{taken} of {nodes}");
    let (free, taken, nodes) = lint(&["--input", "input=1,3,224,224"]);
    assert!(free.is_empty() && taken * 3 > nodes * 2, "{taken} of {nodes}");
}

/// Where a runtime takes one image a run, a batch of three is a violation at the input.
#[test]
fn images_beyond_the_most_are_named() {
    let folder = TempDir::new().unwrap();
    let export = ["export", "emo-1m", "--batch", "3", "--no-verify", "--size", "64", "-o", "three.onnx"];
    assert_eq!(emo(&folder, &export).0, 0);
    for (profile, expected) in [("ncnn", vec!["input \"input\""]), ("tract", vec![])] {
        let (_, text, _) = emo(&folder, &["lint", "three.onnx", "--target", profile, "--format", "json"]);
        let lint: Value = serde_json::from_str(&text).unwrap();
        let findings = lint["findings"].as_array().unwrap();
        let batch = findings.iter().filter(|f| f["code"] == "lint-batch");
        let places: Vec<_> = batch.map(|f| f["place"].as_str().unwrap()).collect();
        assert_eq!(places, expected, "{profile}");
    }
}

#[test]
fn profiles_shows_the_table() {
    let folder = TempDir::new().unwrap();
    let (code, text, _) = emo(&folder, &["profiles"]);
    assert_eq!((code, text.lines().count()), (0, PROFILES.len() + 1));
    let all = json_of(&folder, 0, &["profiles"]);
    for (profile, document) in PROFILES.iter().zip(all.as_array().unwrap()) {
        assert!(text.contains(profile.summary));
        assert_eq!(document["name"], profile.name);
        assert_eq!(document, &json_of(&folder, 0, &["profiles", profile.name]));
        let (_, detail, _) = emo(&folder, &["profiles", profile.name]);
        let sources = [profile.opsets.source, profile.rank.source, profile.operators.source()];
        for word in sources.iter().chain(profile.notes) {
            assert!(!word.is_empty() && detail.contains(word), "{}: {word}", profile.name);
        }
    }
}
