//! `emo zoo` as those who release files meet it, and those who use them.

mod dense;
mod edited;
mod hostile;
mod interrupted;
mod tampered;
mod windows;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use emo_exporter::models::{DENSE, Model};
use emo_exporter::profile::PROFILES;
use emo_exporter::weights::formula;
use emo_proto::Message as _;
use emo_tests::torch_save::Dtype;
use emo_tests::{emos, fixture, safetensors};
use emo_zoo::manifest::build::{recipes, released};
use emo_zoo::manifest::difference::{KINDS, differences};
use emo_zoo::manifest::entry::Provenance;
use emo_zoo::manifest::recipe::Recipe;
use emo_zoo::manifest::{LOCK, MANIFEST, Manifest, facts::sha256};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::audit::external;
use crate::command::{emo, refused};

/// Two files of the smallest model.
const SMALL: [&str; 6] = ["--models", "emo-1m", "--targets", "portable,tract", "--opsets", "17"];
const PORTABLE: &str = "emo-1m/emo-1m_portable_opset17_formula-0.onnx";
const TRACT: &str = "emo-1m/emo-1m_tract_opset17_formula-0.onnx";

fn build(folder: &TempDir, more: &[&str]) -> (i32, String, String) {
    emo(folder, &[&["zoo", "build", "--out", "zoo"], &SMALL[..], more].concat())
}

/// A folder whose `zoo` holds the two files, built once and copied.
pub fn built() -> TempDir {
    static BUILT: OnceLock<TempDir> = OnceLock::new();
    let original = BUILT.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let (code, stdout, stderr) = build(&folder, &[]);
        assert_eq!(code, 0, "{stdout}{stderr}");
        let outlook = "zoo: 2 files to write, about 11 MB; about ";
        assert!(stderr.starts_with(outlook) && stderr.lines().count() == 1, "{stderr}");
        folder
    });
    let folder = TempDir::new().unwrap();
    copy(&original.path().join("zoo"), &folder.path().join("zoo"));
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Every file of a folder with its digest, but for the lock.
fn digests(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap() != LOCK {
                let digest = sha256(&fs::read(&path).unwrap());
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), digest);
            }
        }
    }
    found
}

fn manifest_of(folder: &TempDir) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.path().join("zoo").join(MANIFEST)).unwrap()).unwrap()
}

fn write_manifest(folder: &TempDir, manifest: &Value) {
    let text = serde_json::to_string_pretty(manifest).unwrap() + "\n";
    fs::write(folder.path().join("zoo").join(MANIFEST), text).unwrap();
}

/// The findings of `emo zoo check`, each as (file, code, field).
fn findings(folder: &TempDir, code: i32, more: &[&str]) -> Vec<[String; 3]> {
    let (found, stdout, stderr) = emo(folder, &[&["zoo", "check", "zoo", "--format", "json"], more].concat());
    assert_eq!(found, code, "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let of = |finding: &Value| ["model_path", "code", "field"].map(|field| text(finding, field));
    report["findings"].as_array().unwrap().iter().map(of).collect()
}

fn edit(folder: &TempDir, change: impl FnOnce(&mut Value)) {
    let mut manifest = manifest_of(folder);
    change(&mut manifest);
    write_manifest(folder, &manifest);
}

fn file(folder: &TempDir, path: &str) -> PathBuf {
    folder.path().join("zoo").join(path)
}

#[test]
fn a_manifest_keeps_its_schema_and_order() {
    let folder = built();
    let text = fs::read_to_string(folder.path().join("zoo").join(MANIFEST)).unwrap();
    let manifest = Manifest::parse(&text).unwrap();
    assert_eq!(manifest.text(), text, "sorted, indented, with a line's end");
    let paths: Vec<_> = manifest.entries().map(|entry| entry.model_path.as_str()).collect();
    assert_eq!(paths, [PORTABLE, TRACT]);

    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../zoo/schemas/manifest.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let errors = |value: &Value| schema.iter_errors(value).map(|e| e.to_string()).collect::<Vec<_>>();
    let value = manifest_of(&folder);
    assert_eq!(errors(&value), Vec::<String>::new());
    for field in value[0].as_object().unwrap().keys() {
        let mut without = value.clone();
        without[0].as_object_mut().unwrap().remove(field);
        assert!(!errors(&without).is_empty(), "{field} may be left out");
    }

    for place in [folder.path().to_str().unwrap(), "/tmp", "/home", "\"/"] {
        assert!(!text.contains(place), "{place} is in the manifest");
    }
    let entry = &value[0];
    assert_eq!((&entry["onnx_version"], &entry["opset_version"]), (&"1.12.0".into(), &17.into()));
    assert_eq!(entry["weights"], json!({ "source": "formula:0" }));
    assert_eq!(entry["metadata"]["io_ports"]["inputs"][0]["shape"], json!([1, 3, 224, 224]));
    assert_eq!((&entry["license"], &entry["claim"]["holds"]), (&"not stated".into(), &true.into()));
    assert_eq!(entry["claim"]["parameters"]["model"], 1_361_168);
    assert_eq!(entry["claim"]["fvcore"]["model"], 260_843_664);
    let bytes = fs::read(folder.path().join("zoo").join(PORTABLE)).unwrap();
    assert_eq!(entry["metadata"]["model_sha"], sha256(&bytes).as_str());
}

#[test]
fn a_second_build_does_nothing_and_another_folder_gets_the_same() {
    let folder = built();
    let zoo = folder.path().join("zoo");
    let times = || [PORTABLE, MANIFEST].map(|path| fs::metadata(zoo.join(path)).unwrap().modified().unwrap());
    let (before, digests_before) = (times(), digests(&zoo));
    let (code, stdout, stderr) = build(&folder, &["-j", "1"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "zoo: 0 written and verified, 2 unchanged, 0 refused\n");
    assert_eq!(times(), before);

    let other = TempDir::new().unwrap();
    assert_eq!(build(&other, &["-j", "1"]).0, 0);
    assert_eq!(digests(&other.path().join("zoo")), digests_before);
    // What the manifest gives as its command writes one of them too.
    let command = manifest_of(&folder)[1]["command"].as_str().unwrap().to_owned();
    let arguments: Vec<_> = command.split(' ').skip(1).chain(["--no-verify", "-o", "again.onnx"]).collect();
    assert_eq!(emo(&other, &arguments).0, 0, "{command}");
    assert_eq!(fs::read(other.path().join("again.onnx")).unwrap(), fs::read(zoo.join(TRACT)).unwrap());
}

/// The bytes written again are the recorded ones, or the check says so, with a run or without; a manifest alone is
/// enough.
#[test]
fn files_are_written_again() {
    let folder = built();
    for rebuild in ["--rebuild", "--rebuild=run", "--rebuild=bytes"] {
        assert_eq!(findings(&folder, 0, &[rebuild]), Vec::<[String; 3]>::new());
    }
    edit(&folder, |m| m[0]["metadata"]["model_sha"] = "0".repeat(64).into());
    for rebuild in ["--rebuild", "--rebuild=bytes"] {
        let found = findings(&folder, 1, &[rebuild]);
        assert!(found.iter().any(|[path, code, _]| path == PORTABLE && code == "rebuild"), "{found:?}");
    }
    // What a run alone tells.
    let folder = built();
    edit(&folder, |m| m[1]["numerics"]["max_abs"] = 9e-6.into());
    assert_eq!(findings(&folder, 0, &["--rebuild=bytes"]), Vec::<[String; 3]>::new());
    let row = [TRACT, "numerics", "numerics.max_abs"].map(str::to_owned);
    assert_eq!(findings(&folder, 1, &["--rebuild"]), [row]);

    let folder = built();
    fs::remove_dir_all(folder.path().join("zoo/emo-1m")).unwrap();
    fs::write(folder.path().join("zoo/Cargo.toml"), "not of the store").unwrap();
    assert_eq!(findings(&folder, 0, &["--rebuild"]), Vec::<[String; 3]>::new());
    assert_eq!(findings(&folder, 1, &[]).iter().filter(|[_, code, _]| code == "missing").count(), 2);
}

#[test]
fn two_builds_exclude_each_other() {
    let folder = built();
    let lock = fs::File::options().write(true).open(folder.path().join("zoo").join(LOCK)).unwrap();
    lock.try_lock().unwrap();
    let (code, stdout, stderr) = build(&folder, &[]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("another emo at work") && stderr.contains("zoo"), "{stderr}");
    drop(lock);
    assert_eq!(build(&folder, &[]).0, 0);
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn checkpoints_are_known_by_what_they_hold() {
    let checkpoint = fixture("third_party/emo_1m_train.pth");
    let folder = TempDir::new().unwrap();
    let weights = folder.path().join("weights");
    fs::create_dir_all(weights.join("EMO_6M")).unwrap();
    fs::copy(&checkpoint, weights.join("EMO_6M/net.bin")).unwrap();
    fs::write(weights.join("notes.txt"), "no checkpoint").unwrap();
    let arguments = [
        "zoo",
        "build",
        "--out",
        "zoo",
        "--targets",
        "portable",
        "--opsets",
        "17",
        "--weights-dir",
        "weights",
    ];
    let (code, stdout, stderr) = emo(&folder, &arguments);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("emo-1m/emo-1m_portable_opset17.onnx"), "{stdout}");
    let entry = manifest_of(&folder)[0].clone();
    let recorded = &entry["weights"];
    assert_eq!(
        (&recorded["source"], &recorded["official"], &recorded["entry"]),
        (&"checkpoint".into(), &false.into(), &"net_E".into())
    );
    assert_eq!(recorded["sha256"], sha256(&fs::read(&checkpoint).unwrap()).as_str());
    let found = findings(&folder, 3, &["--rebuild"]);
    assert_eq!(found[0][1], "no-checkpoint");
    assert_eq!(findings(&folder, 0, &["--rebuild", "--weights-dir", "weights"]), Vec::<[String; 3]>::new());

    fs::copy(&checkpoint, weights.join("copy.pth")).unwrap();
    assert_eq!(emo(&folder, &arguments).0, 0, "a copy is the same checkpoint");
    // Of two that differ nobody can tell which is meant.
    let tensors = Model::named("emo-1m").unwrap().parameters();
    let tensors =
        tensors.iter().map(|p| (p.name.as_str(), p.shape.as_slice(), formula::tensor(&p.name, &p.shape, 5)));
    fs::write(weights.join("other.safetensors"), safetensors::write(Dtype::F32, tensors)).unwrap();
    let (code, _, stderr) = emo(&folder, &arguments);
    assert!(code == 2 && stderr.contains("net.bin") && stderr.contains("other.safetensors"), "{stderr}");
    let formula = ["zoo", "build", "--out", "zoo", "--models", "emo-2m", "--weights-dir", "weights"];
    let (code, _, stderr) = emo(&folder, &formula);
    assert!(code == 2 && stderr.contains("emo-2m"), "{stderr}");
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn third_party_files_are_taken_in_when_they_hold() {
    let right = fixture("third_party/emo_1m_torchscript_op17_dynamic.onnx");
    let wrong = fixture("third_party/wrong_tiles.onnx");
    let folder = built();
    let add = |path: &Path, claim: &str| {
        emo(&folder, &["zoo", "add", "zoo", path.to_str().unwrap(), "--claim", claim])
    };
    let (code, stdout, _) = add(&right, "emo-1m");
    assert_eq!((code, stdout.as_str()), (0, "added  emo-1m/emo_1m_torchscript_op17_dynamic.onnx\n"));
    let (code, stdout, _) = add(&right, "emo-1m");
    assert_eq!((code, stdout.split_once("  ").unwrap().0), (0, "unchanged"));
    let before = digests(&folder.path().join("zoo"));
    let (code, stdout, _) = add(&wrong, "emo-1m");
    assert_eq!(code, 1);
    assert!(stdout.contains("tiles") && stdout.contains("strided grids"), "{stdout}");
    let (code, stdout, _) = add(&right, "emo-2m");
    assert_eq!(code, 1);
    assert!(stdout.contains("expected emo-2m, found emo-1m"), "{stdout}");
    assert_eq!(digests(&folder.path().join("zoo")), before);

    assert_eq!(findings(&folder, 0, &["--rebuild"]), Vec::<[String; 3]>::new());
    let entry = manifest_of(&folder).as_array().unwrap().last().unwrap().clone();
    assert_eq!(entry["claim"]["parameters"]["model"], 1_361_168);
    assert_eq!(entry["metadata"]["io_ports"]["inputs"][0]["shape"][0], "batch");
    edit(&folder, |m| m[2]["claim"]["fvcore"]["file"] = 1.into());
    let found = findings(&folder, 1, &[]);
    assert_eq!(found[0][1], "claim", "{found:?}");
}

/// A file that was built is told better by its build, under whatever name it comes back.
#[test]
fn what_was_built_is_known() {
    let folder = built();
    fs::copy(file(&folder, TRACT), folder.path().join("downloaded.onnx")).unwrap();
    let before = digests(&folder.path().join("zoo"));
    for path in [format!("zoo/{TRACT}"), "downloaded.onnx".to_owned()] {
        let (code, stdout, stderr) = emo(&folder, &["zoo", "add", "zoo", &path]);
        assert_eq!((code, stdout), (0, format!("unchanged  {TRACT}\n")), "{stderr}");
    }
    assert_eq!(digests(&folder.path().join("zoo")), before);
}

/// The kinds of a change, and the change.
type Change = (&'static [&'static str], fn(&mut Value));

#[test]
fn every_change_is_of_a_kind() {
    let old = built();
    let rows: [Change; 6] = [
        (&["removed"], |m| drop(m.as_array_mut().unwrap().remove(0))),
        (&["changed", "counts"], |m| m[0]["costs"]["macs"] = 1.into()),
        (&["changed", "file"], |m| m[0]["metadata"]["model_bytes"] = 1.into()),
        (&["changed", "lint"], |m| m[0]["lint"]["qnn"]["partitions"] = 2.into()),
        (&["changed", "words"], |m| m[0]["license"] = "mit".into()),
        (&[], |_| {}),
    ];
    let every = ["added", "removed", "changed"].into_iter().chain(KINDS.iter().map(|kind| kind.name));
    let every: Vec<_> = every.collect();
    for (kinds, change) in rows {
        let new = built();
        edit(&new, change);
        let new = new.path().join("zoo");
        for kind in &every {
            let (code, stdout, _) =
                emo(&old, &["zoo", "diff", "zoo", new.to_str().unwrap(), "--fail-on", kind]);
            assert_eq!(code, i32::from(kinds.contains(kind)), "{kinds:?} {kind}: {stdout}");
            assert_eq!(stdout == "no difference\n", kinds.is_empty(), "{stdout}");
        }
        let back = ["zoo", "diff", new.to_str().unwrap(), "zoo", "--fail-on", "added"];
        assert_eq!(emo(&old, &back).0, i32::from(kinds.contains(&"removed")));
    }
    let (code, _, stderr) = emo(&old, &["zoo", "diff", "zoo", "zoo", "--fail-on", "colour"]);
    assert!(code == 2 && stderr.contains("colour") && stderr.contains("interface"), "{stderr}");
}

/// No field of an entry is of no kind, or of two.
#[test]
fn every_field_is_of_one_kind() {
    let folder = built();
    let value = &manifest_of(&folder)[0];
    let mut fields: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    fields.retain(|field| field != "metadata");
    fields.extend(value["metadata"].as_object().unwrap().keys().map(|field| format!("metadata.{field}")));
    // What networks of one's own alone have, and other windows.
    fields.push("definition".to_owned());
    fields.push("window".to_owned());
    fields.sort_unstable();
    let mut listed: Vec<String> = KINDS.iter().flat_map(|k| k.fields).map(ToString::to_string).collect();
    listed.sort_unstable();
    assert_eq!(listed, fields);
    let manifest = Manifest::parse(&manifest_of(&folder).to_string()).unwrap();
    let entry = manifest.get(PORTABLE).unwrap();
    assert_eq!(differences(entry, entry), []);
}

#[test]
fn lists_and_cards_have_the_manifests_figures() {
    let folder = built();
    let entry = manifest_of(&folder)[0].clone();
    let digest = entry["metadata"]["model_sha"].as_str().unwrap();
    let (code, list, _) = emo(&folder, &["zoo", "list", "zoo"]);
    assert!(code == 0 && list.contains(PORTABLE) && list.contains(&digest[..12]), "{list}");
    let (code, show, _) = emo(&folder, &["zoo", "show", "zoo", "emo-1m"]);
    assert!(code == 0 && show.contains(digest) && show.contains("260,843,664 together"), "{show}");
    for command in ["list", "show"] {
        let arguments = ["zoo", command, "zoo", "emo-1m", "--format", "json"];
        let arguments: Vec<_> =
            arguments.into_iter().filter(|word| command == "show" || *word != "emo-1m").collect();
        let (_, stdout, _) = emo(&folder, &arguments);
        let document: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(document["schema"], format!("emo.zoo.{command}/1"));
        assert_eq!(document["entries"].as_array().unwrap().len(), 2);
    }
    let (code, _, stderr) = emo(&folder, &["zoo", "show", "zoo", "emo-3m"]);
    assert!(code == 2 && stderr.contains("emo-3m") && stderr.contains("emo-1m"), "{stderr}");

    let (code, stdout, _) = emo(&folder, &["zoo", "card", "zoo", "--all"]);
    assert_eq!((code, stdout.as_str()), (0, "zoo/emo-1m/README.md\n"));
    let card = fs::read_to_string(folder.path().join("zoo/emo-1m/README.md")).unwrap();
    for word in ["license: other\n", "license_name: not-stated\n", digest, "1,356,680", "261M", "untrained"] {
        assert!(card.contains(word), "expected {word:?} in {card}");
    }
    assert_eq!(findings(&folder, 0, &[]), Vec::<[String; 3]>::new(), "a card is no stray");
}

#[test]
fn wrong_requests_are_refused() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    fs::File::create(folder.path().join("text.onnx")).unwrap().write_all(b"no model").unwrap();
    let beside = external(3, "weights.bin").encode_to_vec();
    fs::write(folder.path().join("beside.onnx"), beside).unwrap();
    let rows: [(&[&str], &[&str]); 11] = [
        (&["build", "--models", "sdlite-*"], &["sdlite-*", "a model of emo list", "ssdlite-emo-1m"]),
        (&["build", "--models", "emo-[1m"], &["emo-[1m", "a pattern of names"]),
        (&["add", "new", "beside.onnx"], &["beside.onnx", "weights inside the file", "weights.bin"]),
        (&["build", "--models", "emo-3m"], &["emo-3m", "emo-1m"]),
        (&["build", "-j", "999999999"], &["999999999", "65535"]),
        (&["build", "--targets", "phone"], &["phone", "portable"]),
        (&["build", "--targets", "tflite", "--opsets", "17"], &["tflite", "20"]),
        (&["build", "--weights-dir", "empty"], &["empty", "checkpoints"]),
        (&["check", "empty"], &["empty", "manifest.json"]),
        (&["list", "absent"], &["absent"]),
        (&["add", "new", "text.onnx"], &["text.onnx", "ONNX"]),
    ];
    for (arguments, words) in rows {
        refused(&folder, &[&["zoo"], arguments].concat(), words);
    }
}

/// The project's own manifest is what a build of everything makes; a part of it is written again here, all of it by
/// `emo zoo check zoo --rebuild`.
#[test]
fn the_projects_manifest_is_rebuilt() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../zoo/manifest.json");
    let text = fs::read_to_string(path).unwrap();
    let manifest = Manifest::parse(&text).unwrap();
    assert_eq!(manifest.text(), text);
    let per_model: usize = PROFILES.iter().map(|profile| profile.opsets.versions.len()).sum();
    let formula = Provenance::Named { source: "formula:0".to_owned() };
    let models: Vec<_> = released().into_iter().map(|model| (model, formula.clone())).collect();
    let paths: Vec<String> = recipes(&models, None, None).unwrap().iter().map(Recipe::path).collect();
    assert_eq!(paths.len(), emos().count() * per_model + DENSE.len() * 4);
    assert!(manifest.entries().map(|entry| &entry.model_path).eq(&paths));
    for entry in manifest.entries() {
        let holds =
            entry.claim.as_ref().is_some_and(|c| c.holds) && entry.numerics.as_ref().is_some_and(|n| n.holds);
        assert!(holds, "{}", entry.model_path);
        // Every form of the smallest model, one of each other.
        if entry.model == "emo-1m" || entry.model_path.contains("portable_opset17") {
            let recipe = Recipe::read(entry).unwrap();
            let export =
                emo_exporter::export_with(&recipe.model, &recipe.target, recipe.formula().unwrap()).unwrap();
            assert_eq!(sha256(&export.bytes), entry.metadata.model_sha, "{}", entry.model_path);
        }
    }
}
