//! Releases of detectors, segmenters and backbones, and of models that patterns name.

use std::fs;

use emo_exporter::models::{DENSE, Model, Task};
use emo_zoo::manifest::MANIFEST;
use emo_zoo::manifest::build::released;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{file, findings, manifest_of};
use crate::command::emo;

const PATH: &str = "ssdlite-emo-1m/ssdlite-emo-1m_portable_opset17_formula-0.onnx";

fn json_of(folder: &TempDir, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = emo(folder, &[arguments, &["--format", "json"]].concat());
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// The models of a plan's files, each once.
fn planned(folder: &TempDir, arguments: &[&str]) -> Vec<String> {
    let plan = json_of(folder, &[&["zoo", "build", "--dry-run"], arguments].concat());
    let model = |file: &Value| file["model_path"].as_str().unwrap().split_once('/').unwrap().0.to_owned();
    let mut models: Vec<_> = plan["files"].as_array().unwrap().iter().map(model).collect();
    models.sort_unstable();
    models.dedup();
    models
}

/// Names and patterns, by commas, mean what they say, wherever lists of models are asked for.
#[test]
fn patterns_name_models() {
    let folder = TempDir::new().unwrap();
    let rows: [(&str, &[&str]); 4] = [
        ("emo-?m", &["emo-1m", "emo-2m", "emo-5m", "emo-6m"]),
        ("emo-1m,emo-1*", &["emo-1m", "emo-1m-backbone"]),
        (
            "segformer-*,deit-tiny",
            &[
                "deit-tiny",
                "segformer-emo2-1m",
                "segformer-emo2-20m",
                "segformer-emo2-2m",
                "segformer-emo2-5m",
            ],
        ),
        ("ssdlite-emo-[12]m", &["ssdlite-emo-1m", "ssdlite-emo-2m"]),
    ];
    for (asked, models) in rows {
        assert_eq!(planned(&folder, &["--models", asked, "--targets", "port*"]), models, "{asked}");
    }
    let mut all: Vec<String> = released().iter().map(|model| model.name.to_string()).collect();
    all.sort_unstable();
    assert_eq!(planned(&folder, &[]), all);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a dry run writes nothing");

    // A manifest alone is enough to list, to show, and to describe.
    fs::create_dir(folder.path().join("zoo")).unwrap();
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../zoo/manifest.json");
    fs::copy(ours, folder.path().join("zoo").join(MANIFEST)).unwrap();
    let listed = json_of(&folder, &["zoo", "list", "zoo", "--models", "retinanet-emo-*,emo-1m-backbone"]);
    assert_eq!(listed["entries"].as_array().unwrap().len(), 4 * 4);
    let (_, shown, _) = emo(&folder, &["zoo", "show", "zoo", "deeplabv3-emo-1m"]);
    let figures =
        "5.6M parameters (5,429,806), 2.4G FLOPs at 512 × 512 by mmcv (2,463,875,928), 33.5 mean-iou";
    for words in ["image-segmentation", figures, "223,382 more"] {
        assert!(shown.contains(words), "expected {words:?} in {shown}");
    }
    let shown = json_of(&folder, &["zoo", "show", "zoo", "pspnet-*"]);
    assert_eq!(shown["entries"].as_array().unwrap().len(), 7 * 4);
    let shown = json_of(&folder, &["show", "pspnet-*"]);
    assert_eq!(shown["models"].as_array().unwrap().len(), 7);
    let (code, cards, _) = emo(&folder, &["zoo", "card", "zoo", "*-emo-5m"]);
    assert_eq!((code, cards.lines().count()), (0, 5), "{cards}");
    for command in [&["zoo", "list", "zoo", "--models"][..], &["zoo", "check", "zoo", "--models"]] {
        let (code, _, stderr) = emo(&folder, &[command, &["emo-9*"]].concat());
        assert!(code == 2 && stderr.contains("emo-9*") && stderr.contains("nearest are emo-"), "{stderr}");
    }
}

/// How much a build says that it will write is what it writes, but for a hundredth.
#[test]
fn a_build_tells_its_size() {
    let folder = TempDir::new().unwrap();
    let request = ["zoo", "build", "--models", "ssdlite-emo-1m,emo-1m", "--targets", "portable,nnapi"];
    let plan = json_of(&folder, &[&request[..], &["--out", "zoo", "--dry-run"]].concat());
    assert!(plan["about_seconds"].as_u64().is_some());
    let (code, stdout, stderr) = emo(&folder, &[&request[..], &["--out", "zoo"]].concat());
    assert_eq!(code, 0, "{stdout}{stderr}");
    let files = plan["files"].as_array().unwrap();
    assert!(stderr.starts_with(&format!("zoo: {} files to write, about ", files.len())), "{stderr}");
    for told in files {
        let (path, about) = (told["model_path"].as_str().unwrap(), told["about_bytes"].as_f64().unwrap());
        let real = fs::metadata(file(&folder, path)).unwrap().len() as f64;
        assert!((about / real - 1.0).abs() < 0.02, "{path}: {about} told, {real} written");
    }

    let manifest = manifest_of(&folder);
    let entry = manifest.as_array().unwrap().iter().find(|entry| entry["model_path"] == PATH).unwrap();
    assert_eq!((&entry["task"], &entry["classes"]["count"]), (&json!("object-detection"), &json!(80)));
    assert_eq!(entry["preprocessing"]["fit"], "stretch");
    let published = &entry["published"];
    let expected = (&json!("0.6G"), &json!("mmcv"), &json!(587_267_498), &json!([320, 320]));
    let found =
        (&published["flops"], &published["convention"], &published["exact_flops"], &published["input"]);
    assert_eq!(found, expected);
    let outputs = entry["metadata"]["io_ports"]["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 12);
    assert!(outputs.iter().all(|port| port["meaning"].as_str().is_some_and(|text| !text.is_empty())));
    assert_eq!(findings(&folder, 0, &[]), Vec::<[String; 3]>::new());
}

/// Entries and cards of the project's own manifest name the right paper, the outputs, and how a picture is fed.
#[test]
fn entries_and_cards_tell_of_their_model() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("zoo")).unwrap();
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../zoo/manifest.json");
    fs::copy(ours, folder.path().join("zoo").join(MANIFEST)).unwrap();
    assert_eq!(emo(&folder, &["zoo", "card", "zoo", "--all"]).0, 0);
    let manifest = manifest_of(&folder);
    for entry in manifest.as_array().unwrap() {
        let name = entry["model"].as_str().unwrap();
        let second = name.contains("emo2-");
        let (paper, source) = match second {
            true => ("https://arxiv.org/abs/2412.06674", "https://github.com/zhangzjn/EMOv2"),
            false => ("https://arxiv.org/abs/2301.01146", "https://github.com/zhangzjn/EMO"),
        };
        assert_eq!((&entry["paper"], &entry["source"]), (&json!(paper), &json!(source)), "{name}");
        let outputs = entry["metadata"]["io_ports"]["outputs"].as_array().unwrap();
        assert!(outputs.iter().all(|port| port["meaning"].is_string()), "{name}");
        let features = name.ends_with("-backbone");
        assert_eq!(entry["published"].is_null() && entry["classes"].is_null(), features, "{name}");
    }
    let rows = [
        ("ssdlite-emo-1m", &["pipeline_tag: object-detection", "[:, :-1]", "the background last"][..]),
        ("retinanet-emo2-5m", &["EMOv2: Pushing 5M", "1 / (1 + np.exp(-scores))", "a mean over pictures"]),
        ("deeplabv3-emo-5m", &["407,702 more, of the auxiliary head", "37.8", "mmcv", "np.pad"]),
        ("segformer-emo2-2m", &["18,874,368 FLOPs are of resizes", "emo.classes", "10.3G"]),
        ("emo-1m-backbone", &["stage4", "a cell for each 32 × 32 pixels"]),
        ("emo-1m", &["261M", "argsort", "tract-onnx"]),
    ];
    for (model, words) in rows {
        let card = fs::read_to_string(folder.path().join(format!("zoo/{model}/README.md"))).unwrap();
        for word in words {
            assert!(card.contains(word), "{model}: expected {word:?} in {card}");
        }
    }
    let papers =
        ["mobilenetv2-100", "deit-tiny"].map(|name| Model::named(name).unwrap().paper().unwrap().url);
    assert_eq!(papers, ["https://arxiv.org/abs/1801.04381", "https://arxiv.org/abs/2012.12877"]);
    assert!(DENSE.iter().filter(|model| model.task() == Task::Detect).all(|model| model.paper().is_some()));
}
