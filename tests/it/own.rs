//! A network of one's own, from its file to a release; and several models side by side.

use std::fs;

use emo_exporter::models::MODELS;
use emo_exporter::profile::{Opset, PROFILES};
use emo_exporter::target::Target;
use emo_exporter::weights::Spec;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_tests::golden::{Golden, NANO, nano};
use emo_verifier::audit::audit;
use emo_verifier::compare::FLOAT32;
use emo_verifier::identity::Identity;
use emo_verifier::infer::Bindings;
use emo_verifier::runtime::{Runtime, Tract};
use emo_verifier::written::count;
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{emo, refused};

/// A folder whose `my.toml` is the golden's network.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::copy(nano(), folder.path().join("my.toml")).unwrap();
    folder
}

fn json(folder: &TempDir, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = emo(folder, &[arguments, &["--format", "json"]].concat());
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}: {stdout}");
    serde_json::from_str(&stdout).unwrap()
}

/// Every target in every opset that it takes: the golden's logits in tract, its counts with what folding removed,
/// and a file that tells what it is.
#[test]
fn every_target_has_the_goldens_logits_and_counts() {
    let golden = Golden::load("emo_nano_224x224_b1");
    for profile in &PROFILES {
        for opset in profile.opsets.versions.iter().filter_map(|version| Opset::version(*version)) {
            let place = format!("{} {}", profile.name, opset.version);
            let target = Target { opset, ..Target::new(profile) };
            let export = emo_exporter::export(&NANO, &target, &Spec::Formula(golden.seed)).expect(&place);
            let file = OnnxFile::from_bytes(export.bytes.into(), External::none()).unwrap();
            let identity = Identity::read(&file.model).expect(&place);
            assert_eq!(identity.model, *NANO, "{place}");
            let (_, claim) = count(&file.model, &identity);
            assert_eq!(claim.params.map(i64::cast_unsigned), golden.params, "{place}");
            assert_eq!(claim.fvcore.map(i64::cast_unsigned), golden.fvcore, "{place}");
            let input = ("input".to_owned(), golden.input.to_vec());
            let mut session = Tract.prepare(&file, &[input], &[]).expect(&place);
            let logits = session.run(&[golden.input().into_dyn()]).expect(&place).remove(0);
            let values: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
            golden.check_logits(&values, logits.shape(), &FLOAT32).expect(&place);
        }
    }
}

/// What is counted without weights is what the file with them counts, to the byte.
#[test]
fn an_outline_is_the_file_without_its_weights() {
    for model in MODELS.iter().chain([&*NANO]) {
        for profile in &PROFILES {
            let target = Target::new(profile);
            let outline = emo_exporter::outline(model, &target).unwrap();
            let export = emo_exporter::export(model, &target, &Spec::Formula(0)).unwrap();
            let bytes = export.bytes.len();
            let file = OnnxFile::from_bytes(export.bytes.into(), External::none()).unwrap();
            let counts = |model| serde_json::to_value(audit(model, &Bindings::new())).unwrap();
            assert_eq!(outline.bytes, bytes, "{} {}", model.name, profile.name);
            assert_eq!(counts(&outline.model), counts(&file.model), "{} {}", model.name, profile.name);
        }
    }
}

#[test]
fn an_exported_network_verifies_and_says_what_it_is() {
    let folder = folder();
    let (code, stdout, stderr) = emo(&folder, &["export", "my.toml"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    for word in ["pass  emo-nano.onnx", "318,804", "95,522,480", "no figures are published for this network"]
    {
        assert!(stdout.contains(word), "{word}: {stdout}");
    }
    let more =
        ["export", "my.toml", "--classes", "7", "--size", "96", "--batch", "dynamic", "-o", "seven.onnx"];
    assert_eq!(json(&folder, &more)["classes"], 7);
    let mistake = fs::read_to_string(nano()).unwrap().replace("kernel = 5\nnorm = \"layer\"", "kernel = 4");
    fs::write(folder.path().join("wrong.toml"), mistake).unwrap();
    for command in ["export", "show"] {
        refused(
            &folder,
            &[command, "wrong.toml"],
            &["wrong.toml:25: kernel: expected an odd number, found 4"],
        );
        refused(&folder, &[command, "absent.toml"], &["absent.toml: "]);
    }
}

#[test]
fn show_sets_models_side_by_side() {
    let folder = folder();
    let (_, one, _) = emo(&folder, &["show", "my.toml"]);
    for word in ["emo-nano, a stem of 16 channels and four stages", "4 heads of 16, window 7", "318,804"] {
        assert!(one.contains(word), "{word}: {one}");
    }
    let (code, several, _) = emo(&folder, &["show", "my.toml", "emo-1m", "emo-6m"]);
    assert_eq!(code, 0);
    assert!(several.lines().all(|line| line.chars().count() <= 80), "{several}");
    for word in ["emo-nano", "318,804", "95,522,480", "emo-1m", "1,361,168", "960,752,512"] {
        assert!(several.contains(word), "{word}: {several}");
    }
    let document = json(&folder, &["show", "my.toml", "emo-1m"]);
    let models = document["models"].as_array().unwrap();
    assert_eq!((&models[0]["params"], &models[0]["fvcore"]), (&318_804.into(), &95_522_480.into()));
    let reference = ["export", "emo-1m", "--target", "reference", "--no-verify"];
    assert_eq!(models[1]["file_bytes"], json(&folder, &reference)["file"]["bytes"]);
    assert!(models.iter().all(|model| model["peak_bytes"].is_u64()), "{document}");
}

/// The file of a published model is that model; with a name and other numbers it is another.
#[test]
fn show_writes_the_file_of_a_model() {
    let folder = folder();
    for model in ["emo-1m", "my.toml"] {
        let (code, toml, _) = emo(&folder, &["show", model, "--toml"]);
        assert_eq!(code, 0);
        fs::write(folder.path().join("again.toml"), &toml).unwrap();
        assert_eq!(json(&folder, &["show", "again.toml"]), json(&folder, &["show", model]));
        assert_eq!(emo(&folder, &["show", "again.toml", "--toml"]).1, toml);
        let wider = toml.replace("dim = 96", "dim = 120").replace("dim = 168", "dim = 210");
        fs::write(folder.path().join("wider.toml"), wider).unwrap();
        if model == "emo-1m" {
            refused(&folder, &["show", "wider.toml"], &["wider.toml:1: name: ", "emo-1m"]);
        } else {
            assert_ne!(json(&folder, &["show", "wider.toml"]), json(&folder, &["show", model]));
        }
    }
    refused(&folder, &["show", "emo-1m", "emo-2m", "--toml"], &["--toml", "found 2"]);
}

/// A release of one's own is built, kept, checked and built again from what the manifest says; a changed network
/// replaces it.
#[test]
fn a_release_can_be_written_again() {
    let folder = folder();
    let build =
        ["zoo", "build", "--models", "my.toml", "--targets", "portable", "--opsets", "17", "--out", "zoo"];
    assert_eq!(emo(&folder, &build).0, 0);
    assert!(emo(&folder, &build).1.ends_with("zoo: 0 written and verified, 1 unchanged, 0 refused\n"));
    fs::remove_file(folder.path().join("my.toml")).unwrap();
    let (code, stdout, stderr) = emo(&folder, &["zoo", "check", "zoo", "--rebuild"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let (_, card, _) = emo(&folder, &["zoo", "card", "zoo", "emo-nano"]);
    assert_eq!(card, "zoo/emo-nano/README.md\n");
    let card = fs::read_to_string(folder.path().join("zoo/emo-nano/README.md")).unwrap();
    assert!(card.contains("stem = 16\n") && card.contains("emo export emo-nano.toml "), "{card}");

    let wider = fs::read_to_string(nano()).unwrap().replace("stem = 16", "stem = 20");
    fs::write(folder.path().join("my.toml"), wider).unwrap();
    assert!(emo(&folder, &build).1.ends_with("zoo: 1 written and verified, 0 unchanged, 0 refused\n"));

    let manifest = folder.path().join("zoo/manifest.json");
    let edited = fs::read_to_string(&manifest).unwrap().replace("stem = 20", "stem = 24");
    fs::write(&manifest, edited).unwrap();
    let (code, stdout, _) = emo(&folder, &["zoo", "check", "zoo", "--rebuild"]);
    assert!(code == 1 && stdout.contains("definition") && stdout.contains("rebuild"), "{stdout}");
    let twice = ["zoo", "build", "--models", "my.toml,my.toml", "--out", "new"];
    refused(&folder, &twice, &["two called emo-nano"]);
}

/// Every `--help` has examples, and each is a request that the parser takes.
#[test]
fn examples_in_help_are_requests() {
    let mut examples = 0;
    let mut commands = vec![emo_zoo::cli::commands()];
    while let Some(command) = commands.pop() {
        let subcommands: Vec<_> = command.get_subcommands().cloned().collect();
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  emo ")).collect();
        assert!(!lines.is_empty() || !subcommands.is_empty(), "{}: no examples", command.get_name());
        for line in lines {
            let request = line.split("  ").next().unwrap().split(" > ").next().unwrap();
            // As a shell would, which takes the quotes of patterns.
            let request = request.replace("my.toml", &nano().display().to_string()).replace('\'', "");
            let words = std::iter::once("emo").chain(request.split(' '));
            let parsed = emo_zoo::cli::commands().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{request}: {}", parsed.unwrap_err());
            examples += 1;
        }
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        commands.extend(subcommands);
    }
    assert!(examples >= 30, "{examples}");
}

/// The names that a file's target had before go on working; what there is to choose from stands in help.
#[test]
fn a_profile_is_a_target() {
    let folder = folder();
    let export = |flag| ["export", "my.toml", flag, "tract", "--no-verify"];
    assert_eq!(json(&folder, &export("--profile")), json(&folder, &export("--target")));
    assert_eq!(emo(&folder, &["profiles"]), emo(&folder, &["targets"]));
    let old = emo(&folder, &["lint", "emo-nano.onnx", "--profile", "tract"]);
    assert_eq!(old, emo(&folder, &["lint", "emo-nano.onnx", "--target", "tract"]));
    let build = |flag| ["zoo", "build", flag, "phone"];
    assert_eq!(emo(&folder, &build("--profiles")).1, emo(&folder, &build("--targets")).1);
    for command in [&["export"][..], &["show"], &["lint"], &["targets"], &["zoo", "build"]] {
        let (_, help, _) = emo(&folder, &[command, &["--help"]].concat());
        assert!(!help.to_lowercase().contains("profile"), "{help}");
        let named = if command == ["show"] { "emo list" } else { "openvino" };
        assert!(help.contains(named), "{help}");
    }
}
