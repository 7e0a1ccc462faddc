//! `emo zoo` as those who release files meet it, and those who use them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use emo_exporter::models::emo::VARIANTS;
use emo_exporter::profile::PROFILES;
use emo_tests::fixture;
use emo_zoo::manifest::difference::{KINDS, differences};
use emo_zoo::manifest::recipe::Recipe;
use emo_zoo::manifest::{LOCK, MANIFEST, Manifest, facts::sha256};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::audit::emo;

const EMO: &str = env!("CARGO_BIN_EXE_emo-under-test");
/// Two files of the smallest model.
const SMALL: [&str; 6] = ["--models", "emo-1m", "--profiles", "portable,tract", "--opsets", "17"];
const PORTABLE: &str = "emo-1m/emo-1m_portable_opset17_formula-0.onnx";
const TRACT: &str = "emo-1m/emo-1m_tract_opset17_formula-0.onnx";

fn build(folder: &TempDir, more: &[&str]) -> (i32, String, String) {
    emo(folder, &[&["zoo", "build", "--out", "zoo"], &SMALL[..], more].concat())
}

/// A folder whose `zoo` holds the two files, built once and copied.
fn built() -> TempDir {
    static BUILT: OnceLock<TempDir> = OnceLock::new();
    let original = BUILT.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let (code, stdout, stderr) = build(&folder, &[]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
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

    for place in [folder.path().to_str().unwrap(), "/tmp", "/home", "/work"] {
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

/// What somebody does to a store, and what the check says: the file, the finding's code, the field.
type Tampering = (&'static str, fn(&TempDir), &'static [(&'static str, &'static str, &'static str)]);

fn edit(folder: &TempDir, change: impl FnOnce(&mut Value)) {
    let mut manifest = manifest_of(folder);
    change(&mut manifest);
    write_manifest(folder, &manifest);
}

fn file(folder: &TempDir, path: &str) -> PathBuf {
    folder.path().join("zoo").join(path)
}

const TAMPERINGS: &[Tampering] = &[
    ("nothing", |_| {}, &[]),
    (
        "a flipped bit in a weight",
        |folder| {
            let path = file(folder, PORTABLE);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        &[(PORTABLE, "file", "metadata.model_sha")],
    ),
    (
        "a swapped pair of files",
        |folder| {
            let (a, b) = (file(folder, PORTABLE), file(folder, TRACT));
            fs::rename(&a, folder.path().join("kept")).unwrap();
            fs::rename(&b, &a).unwrap();
            fs::rename(folder.path().join("kept"), &b).unwrap();
        },
        &[
            (PORTABLE, "file", "metadata.model_sha"),
            (PORTABLE, "recipe", "profile"),
            (TRACT, "file", "metadata.model_sha"),
            (TRACT, "recipe", "profile"),
        ],
    ),
    (
        "an edited count",
        |folder| edit(folder, |m| m[0]["parameters"] = 1.into()),
        &[(PORTABLE, "counts", "parameters")],
    ),
    (
        "an edited cost",
        |folder| edit(folder, |m| m[1]["costs"]["mmcv"] = Value::Null),
        &[(TRACT, "counts", "costs.mmcv")],
    ),
    (
        "an edited claim",
        |folder| edit(folder, |m| m[0]["claim"]["fvcore"]["published"] = "260M".into()),
        &[(PORTABLE, "claim", "claim.fvcore.published")],
    ),
    (
        "a claim left out",
        |folder| edit(folder, |m| m[0]["claim"] = Value::Null),
        &[(PORTABLE, "claim", "claim.holds")],
    ),
    ("a removed file", |folder| fs::remove_file(file(folder, TRACT)).unwrap(), &[(TRACT, "missing", "")]),
    (
        "an extra file",
        |folder| fs::write(file(folder, "emo-1m/extra.onnx"), "x").unwrap(),
        &[("emo-1m/extra.onnx", "stray", "")],
    ),
    (
        "a truncated file",
        |folder| fs::write(file(folder, TRACT), "").unwrap(),
        &[(TRACT, "file", "metadata.model_sha")],
    ),
    (
        "an edited digest",
        |folder| edit(folder, |m| m[0]["metadata"]["model_sha"] = "0".repeat(64).into()),
        &[(PORTABLE, "file", "metadata.model_sha")],
    ),
    (
        "an edited interface",
        |folder| edit(folder, |m| m[0]["input"]["height"] = 225.into()),
        &[(PORTABLE, "interface", "input.height")],
    ),
    (
        "an edited lint",
        |folder| edit(folder, |m| m[0]["lint"]["nnapi"]["violations"] = 0.into()),
        &[(PORTABLE, "lint", "lint.nnapi.violations")],
    ),
    (
        "other weights",
        |folder| edit(folder, |m| m[0]["weights"]["source"] = "formula:1".into()),
        &[(PORTABLE, "unsound", "")],
    ),
    (
        "a bound of its own",
        |folder| edit(folder, |m| m[0]["numerics"]["bound"] = 1.0.into()),
        &[(PORTABLE, "numerics", "numerics")],
    ),
    (
        "no run",
        |folder| edit(folder, |m| m[0]["numerics"] = Value::Null),
        &[(PORTABLE, "numerics", "numerics")],
    ),
    (
        "an edited command",
        |folder| edit(folder, |m| m[0]["command"] = "emo export emo-2m".into()),
        &[(PORTABLE, "recipe", "command")],
    ),
    (
        "no command",
        |folder| edit(folder, |m| m[0]["command"] = Value::Null),
        &[(PORTABLE, "recipe", "command")],
    ),
    (
        "a licence that nobody stated",
        |folder| edit(folder, |m| m[0]["license"] = "mit".into()),
        &[(PORTABLE, "words", "license")],
    ),
];

#[test]
fn whatever_is_changed_is_named() {
    for (what, tamper, expected) in TAMPERINGS {
        let folder = built();
        tamper(&folder);
        let found = findings(&folder, i32::from(!expected.is_empty()), &[]);
        for (path, code, field) in *expected {
            let row = [path, code, field].map(|&text| text.to_owned());
            assert!(found.contains(&row), "{what}: expected {row:?} among {found:?}");
        }
        let others: Vec<_> =
            found.iter().filter(|[path, ..]| !expected.iter().any(|(known, ..)| known == path)).collect();
        assert!(others.is_empty(), "{what}: {others:?}");
        let (_, text, _) = emo(&folder, &["zoo", "check", "zoo"]);
        for (path, ..) in *expected {
            assert!(text.contains(path), "{what}: expected {path} in {text}");
        }
    }
}

/// The bytes written again are the recorded ones, or the check says so; a manifest alone is enough.
#[test]
fn files_are_written_again() {
    let folder = built();
    assert_eq!(findings(&folder, 0, &["--rebuild"]), Vec::<[String; 3]>::new());
    edit(&folder, |m| m[0]["metadata"]["model_sha"] = "0".repeat(64).into());
    let found = findings(&folder, 1, &["--rebuild"]);
    assert!(found.iter().any(|[path, code, _]| path == PORTABLE && code == "rebuild"), "{found:?}");

    let folder = built();
    fs::remove_dir_all(folder.path().join("zoo/emo-1m")).unwrap();
    fs::write(folder.path().join("zoo/Cargo.toml"), "not of the store").unwrap();
    assert_eq!(findings(&folder, 0, &["--rebuild"]), Vec::<[String; 3]>::new());
    assert_eq!(findings(&folder, 1, &[]).iter().filter(|[_, code, _]| code == "missing").count(), 2);
}

/// What somebody hostile writes, and words of the refusal.
type Hostile = (fn(&TempDir), &'static [&'static str]);

const HOSTILE: &[Hostile] = &[
    (
        |f| edit(f, |m| m[0]["model_path"] = "../emo-1m/x.onnx".into()),
        &["../emo-1m/x.onnx", "inside the folder"],
    ),
    (|f| edit(f, |m| m[0]["model_path"] = "emo-1m/../../x.onnx".into()), &["emo-1m/../../x.onnx"]),
    (|f| edit(f, |m| m[0]["model_path"] = "/etc/passwd.onnx".into()), &["/etc/passwd.onnx"]),
    (|f| edit(f, |m| m[0]["model_path"] = "emo-1m\\x.onnx".into()), &["model_path"]),
    (|f| edit(f, |m| m[0]["model_path"] = "emo-1m/manifest.json".into()), &["emo-1m/manifest.json"]),
    (|f| edit(f, |m| m[0]["model_path"] = format!("emo-1m/{}.onnx", "x".repeat(300)).into()), &["200 bytes"]),
    (|f| edit(f, |m| m[0]["model"] = "emo-1m\u{1b}[2J".into()), &[PORTABLE, "control characters"]),
    (|f| edit(f, |m| m[0]["license"] = "x".repeat(5000).into()), &[PORTABLE, "license", "4096 bytes"]),
    (
        |f| edit(f, |m| m[1]["metadata"]["model_bytes"] = (1_u64 << 40).into()),
        &[TRACT, "model_bytes", "1099511627776"],
    ),
    (|f| edit(f, |m| m[1]["metadata"]["model_bytes"] = (-1).into()), &[TRACT, "model_bytes"]),
    (|f| edit(f, |m| m[1]["parameters"] = 1e300.into()), &[TRACT, "parameters"]),
    (|f| edit(f, |m| m[1]["metadata"]["model_sha"] = "abc".into()), &[TRACT, "model_sha", "64"]),
    (|f| edit(f, |m| m[1] = m[0].clone()), &[PORTABLE, "found two"]),
    (|f| edit(f, |m| m[1]["schema"] = "emo.zoo/2".into()), &[TRACT, "emo.zoo/1", "emo.zoo/2"]),
    (
        |f| {
            edit(f, |m| {
                m[0].as_object_mut().unwrap().remove("schema");
            });
        },
        &[PORTABLE, "schema"],
    ),
    (|f| edit(f, |m| m[0]["opset_version"] = "17".into()), &[PORTABLE, "opset_version", "17"]),
    (|f| edit(f, |m| m[0]["surprise"] = 1.into()), &[PORTABLE, "surprise"]),
    (|f| edit(f, |m| m[0]["weights"] = json!({ "source": 1 })), &[PORTABLE, "weights"]),
    (|f| edit(f, |m| m[1] = 7.into()), &["entry 1", "a number"]),
    (|f| write_manifest(f, &json!({ "models": [] })), &["manifest.json", "an object"]),
    (|f| fs::write(file(f, MANIFEST), "[".repeat(1 << 20)).unwrap(), &["manifest.json", "JSON"]),
    (|f| fs::write(file(f, MANIFEST), [0xff, 0xfe]).unwrap(), &["manifest.json", "UTF-8"]),
    (|f| fs::File::create(file(f, MANIFEST)).unwrap().set_len(1 << 27).unwrap(), &["manifest.json", "bytes"]),
    (
        |f| {
            let text = fs::read_to_string(file(f, MANIFEST)).unwrap();
            let twice = text.replacen("\"parameters\"", "\"dtype\": \"f16\", \"parameters\"", 2);
            fs::write(file(f, MANIFEST), twice).unwrap();
        },
        &[PORTABLE, "duplicate"],
    ),
    #[cfg(unix)]
    (
        |f| {
            fs::rename(file(f, TRACT), f.path().join("elsewhere.onnx")).unwrap();
            std::os::unix::fs::symlink(f.path().join("elsewhere.onnx"), file(f, TRACT)).unwrap();
        },
        &[TRACT, "link"],
    ),
    #[cfg(unix)]
    (
        |f| {
            fs::rename(file(f, "emo-1m"), f.path().join("elsewhere")).unwrap();
            std::os::unix::fs::symlink(f.path().join("elsewhere"), file(f, "emo-1m")).unwrap();
        },
        &[PORTABLE, "link"],
    ),
];

#[test]
fn hostile_manifests_are_refused() {
    for (index, (change, words)) in HOSTILE.iter().enumerate() {
        let folder = built();
        change(&folder);
        let before = digests(folder.path());
        for command in [&["zoo", "check", "zoo"][..], &["zoo", "card", "zoo", "--all"]] {
            let (code, stdout, stderr) = emo(&folder, command);
            assert_eq!((code, stdout.as_str()), (2, ""), "{index}: {stderr}");
            for word in *words {
                assert!(stderr.contains(word), "{index}: expected {word:?} in {stderr}");
            }
        }
        assert_eq!(build(&folder, &[]).0, 2, "{index}");
        assert_eq!(digests(folder.path()), before, "{index}");
    }
}

/// SIGKILL at random moments: what a manifest names is whole at any time, and the end is that of a build that
/// nobody disturbed.
#[cfg(unix)]
#[test]
fn a_killed_build_goes_on_where_it_stopped() {
    const KILLS: u32 = 20;
    let expected = digests(&built().path().join("zoo"));
    let mut folder = TempDir::new().unwrap();
    let start = Instant::now();
    assert_eq!(build(&folder, &[]).0, 0);
    let whole = start.elapsed();
    assert_eq!(digests(&folder.path().join("zoo")), expected);
    folder = TempDir::new().unwrap();

    // A multiplicative generator: the moments are the same in every run.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let (mut kills, mut recorded) = (0, 0);
    for _ in 0..4 * KILLS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let moment = whole.mul_f64((seed >> 32) as f64 / f64::from(u32::MAX));
        let mut child = Command::new(EMO)
            .args(["zoo", "build", "--out", "zoo"])
            .args(SMALL)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while start.elapsed() < moment && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        let finished = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        kills += u32::from(!finished);
        if folder.path().join("zoo").join(MANIFEST).exists() {
            recorded += 1;
            let whole = findings(&folder, i32::from(leftovers(&folder, &expected)), &[]);
            assert!(whole.iter().all(|[_, code, _]| code == "stray"), "{whole:?}");
        }
        if kills == KILLS {
            break;
        }
        if finished {
            assert_eq!(digests(&folder.path().join("zoo")), expected);
            folder = TempDir::new().unwrap();
        }
    }
    assert!(kills == KILLS && recorded > 0, "{kills} kills, {recorded} with a manifest");
    assert_eq!(build(&folder, &[]).0, 0);
    assert_eq!(digests(&folder.path().join("zoo")), expected);
}

/// Whether a killed build left what no manifest names yet.
#[cfg(unix)]
fn leftovers(folder: &TempDir, expected: &BTreeMap<PathBuf, String>) -> bool {
    let named: Vec<_> = manifest_of(folder)
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["model_path"].as_str().unwrap().into())
        .collect();
    let there = digests(&folder.path().join("zoo"));
    there
        .keys()
        .any(|path| !named.contains(path) && path != Path::new(MANIFEST) || !expected.contains_key(path))
}

/// A file system with room for one file: it is recorded, the other refused, and with more room the build ends as
/// if nothing had been.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing() {
    let expected = digests(&built().path().join("zoo"));
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("disk")).unwrap();
    let build = format!("{EMO} zoo build --out disk {}", SMALL.join(" "));
    let script = format!(
        "mount -t tmpfs -o size=8m tmpfs disk || exit 77; {build}; code=$?; cp -r disk zoo; exit $code"
    );
    let output =
        Command::new("unshare").args(["--mount", "bash", "-c", &script]).current_dir(folder.path()).output();
    match output {
        Ok(output) if output.status.code() == Some(2) => {
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(stderr.contains("cannot write"), "{stderr}");
            let there = digests(&folder.path().join("zoo"));
            assert!(there.keys().all(|path| expected.contains_key(path)), "{there:?}");
            assert_eq!(findings(&folder, 0, &[]), Vec::<[String; 3]>::new());
            assert_eq!(manifest_of(&folder).as_array().unwrap().len(), 1);
        }
        // Who may not mount has a limit on the size of files, which no model fits.
        _ => {
            let script = format!("trap '' XFSZ; ulimit -f 1000; exec {build}");
            let output =
                Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
            assert_eq!(output.status.code(), Some(2));
            assert!(!folder.path().join("disk").join(MANIFEST).exists());
            fs::rename(folder.path().join("disk"), folder.path().join("zoo")).unwrap();
        }
    }
    assert_eq!(self::build(&folder, &[]).0, 0);
    assert_eq!(digests(&folder.path().join("zoo")), expected);
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
fn checkpoints_are_known_by_what_they_hold() {
    let Some(checkpoint) = fixture("third_party/emo_1m_train.pth") else { return };
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
        "--profiles",
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

    // A second, other checkpoint of the same model: nobody can tell which is meant.
    let mut other = fs::read(&checkpoint).unwrap();
    other.extend(b"");
    fs::write(weights.join("copy.pth"), &other).unwrap();
    assert_eq!(emo(&folder, &arguments).0, 0, "a copy is the same checkpoint");
    let formula = ["zoo", "build", "--out", "zoo", "--models", "emo-2m", "--weights-dir", "weights"];
    let (code, _, stderr) = emo(&folder, &formula);
    assert!(code == 2 && stderr.contains("emo-2m"), "{stderr}");
}

#[test]
fn strangers_are_taken_in_when_they_hold() {
    let Some(right) = fixture("third_party/emo_1m_torchscript_op17_dynamic.onnx") else { return };
    let wrong = fixture("third_party/wrong_tiles.onnx").unwrap();
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

#[test]
fn every_change_is_of_a_kind() {
    let old = built();
    let rows: [(&[&str], fn(&mut Value)); 6] = [
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
    let rows: [(&[&str], &[&str]); 7] = [
        (&["build", "--models", "emo-3m"], &["emo-3m", "emo-1m"]),
        (&["build", "--profiles", "phone"], &["phone", "portable"]),
        (&["build", "--profiles", "tflite", "--opsets", "17"], &["tflite", "20"]),
        (&["build", "--weights-dir", "empty"], &["empty", "checkpoints"]),
        (&["check", "empty"], &["empty", "manifest.json"]),
        (&["list", "absent"], &["absent"]),
        (&["add", "new", "text.onnx"], &["text.onnx", "ONNX"]),
    ];
    for (arguments, words) in rows {
        let (code, stdout, stderr) = emo(&folder, &[&["zoo"], arguments].concat());
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments:?}: expected {word:?} in {stderr}");
        }
    }
}

/// The project's own manifest: every model for every profile in every opset; a part of it is written again here,
/// all of it by `emo zoo check zoo --rebuild`.
#[test]
fn the_projects_manifest_is_rebuilt() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../zoo/manifest.json");
    let text = fs::read_to_string(path).unwrap();
    let manifest = Manifest::parse(&text).unwrap();
    assert_eq!(manifest.text(), text);
    let per_model: usize = PROFILES.iter().map(|profile| profile.opsets.versions.len()).sum();
    assert_eq!(manifest.len(), VARIANTS.len() * per_model);
    for entry in manifest.entries() {
        let holds =
            entry.claim.as_ref().is_some_and(|c| c.holds) && entry.numerics.as_ref().is_some_and(|n| n.holds);
        assert!(holds, "{}", entry.model_path);
        // Every form of the smallest model, one of each other.
        if entry.model == "emo-1m" || entry.model_path.contains("portable_opset17") {
            let recipe = Recipe::read(entry).unwrap();
            let export = emo_exporter::export_with(&recipe.request, recipe.formula().unwrap()).unwrap();
            assert_eq!(sha256(&export.bytes), entry.metadata.model_sha, "{}", entry.model_path);
        }
    }
}
