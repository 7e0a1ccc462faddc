//! The command `emo` as a user meets it.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use emo_exporter::models::Model;
use emo_exporter::weights::formula;
use emo_tests::torch_save::{Checkpoint, Dtype, Object};
use emo_tests::{fixture, safetensors};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::EMO;

/// This package builds the command once more, so that cargo tells where it is.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

fn emo(folder: &Path, arguments: &[&str]) -> Run {
    let output = Command::new(EMO).args(arguments).current_dir(folder).output().unwrap();
    Run::from(output)
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Run {
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// The request was refused with all of `words`, and nothing but the inputs is left.
    fn refused(&self, folder: &Path, inputs: &[&str], words: &[&str]) {
        assert_eq!(self.code, 2, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
        for word in words {
            assert!(self.stderr.contains(word), "expected {word:?} in: {}", self.stderr);
        }
        let mut left: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort_unstable();
        assert_eq!(left, inputs);
    }
}

/// The state dict of a variant under the formula, each name passed through `rename`.
fn state_dict(variant: &str, rename: fn(&str) -> String) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let parameters = Model::named(variant).unwrap().parameters();
    parameters
        .into_iter()
        .map(|p| (rename(&p.name), p.shape.clone(), formula::tensor(&p.name, &p.shape, 0)))
        .collect()
}

fn checkpoint(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Checkpoint {
    Checkpoint::state_dict(Dtype::F32, tensors.iter().map(|(n, s, v)| (n.as_str(), s.as_slice(), v.clone())))
}

#[test]
fn export_writes_a_verified_file_and_verify_agrees() {
    let folder = TempDir::new().unwrap();
    let export = emo(folder.path(), &["export", "emo-1m"]);
    assert_eq!((export.code, export.stderr.as_str()), (0, ""));
    for figure in ["pass", "untrained", "1,361,168", "260,843,664", "1.3M", "261M"] {
        assert!(export.stdout.contains(figure), "{figure}: {}", export.stdout);
    }
    let verify = emo(folder.path(), &["verify", "emo-1m.onnx", "--weights", "formula:0", "--format", "json"]);
    assert_eq!(verify.json()["verdict"], "pass");
    let other = emo(folder.path(), &["verify", "emo-1m.onnx", "--weights", "formula:1"]);
    assert_eq!(other.code, 1);
    let first = other.stdout.lines().next().unwrap();
    assert!(first.starts_with("emo-1m.onnx  fail"), "{first}");
}

/// The README opens with what its first command prints; the error's last digits are the processor's.
#[test]
fn the_readme_shows_what_is_printed() {
    let folder = TempDir::new().unwrap();
    let printed = emo(folder.path(), &["export", "emo-1m"]).stdout;
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, shown) = readme.split_once("```text\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let settled = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("tract against"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(settled(shown), settled(&printed));
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn a_published_checkpoint_becomes_a_proven_file() {
    let checkpoint = fixture("third_party/emo_1m_train.pth");
    let folder = TempDir::new().unwrap();
    let path = checkpoint.to_str().unwrap();
    let report = emo(folder.path(), &["export", "emo-1m", "--weights", path, "--format", "json"]).json();
    assert_eq!(report["verdict"], "pass");
    assert_eq!(report["claim"]["params"]["published"], 1_361_168);
    assert!(report["weights"].as_str().unwrap().contains("net_E"));
    let verify = emo(folder.path(), &["verify", "emo-1m.onnx", "--weights", path]);
    assert_eq!(verify.code, 0, "{}", verify.stdout);
}

#[test]
fn two_folders_get_the_same_bytes() {
    let digest = |arguments: &[&str]| {
        let folder = TempDir::new().unwrap();
        let report = emo(
            folder.path(),
            &[&["export", "emo-2m", "--no-verify", "--format", "json"], arguments].concat(),
        );
        report.json()["file"]["sha256"].as_str().unwrap().to_owned()
    };
    assert_eq!(digest(&[]), digest(&["-o", "another-name.onnx"]));
    assert_ne!(digest(&[]), digest(&["--opset", "20"]));
}

#[test]
fn every_request_is_served() {
    let cases: [&[&str]; 6] = [
        &["--size", "256x320", "--opset", "20"],
        &["--size", "33x97", "--target", "reference"],
        &["--batch", "dynamic", "--size", "200x131"],
        &["--batch", "2", "--target", "reference", "--opset", "20"],
        &["--classes", "10"],
        &["--weights", "formula:7", "--size", "32"],
    ];
    for case in cases {
        let folder = TempDir::new().unwrap();
        let report = emo(folder.path(), &[&["export", "emo-1m", "--format", "json"], case].concat()).json();
        assert_eq!(report["verdict"], "pass", "{case:?}");
        assert_eq!(report["claim"]["published"], Value::Null, "{case:?}: nothing is published for it");
    }
}

#[test]
fn every_format_of_a_checkpoint_gives_the_same_model() {
    let tensors = state_dict("emo-1m", str::to_owned);
    let slices = tensors.iter().map(|(n, s, v)| (n.as_str(), s.as_slice(), v.clone()));
    let folder = TempDir::new().unwrap();
    let mut logits = Vec::new();
    for (name, bytes) in [
        ("zip.pth", checkpoint(&tensors).nested("net_E").zip()),
        ("legacy.pt", checkpoint(&tensors).legacy()),
        ("weights.safetensors", safetensors::write(Dtype::F32, slices)),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
        let report = emo(folder.path(), &["export", "emo-1m", "--weights", name, "--format", "json"]).json();
        logits.push(report["numerics"]["max_abs"].clone());
    }
    assert!(logits.iter().all(|l| *l == logits[0]), "{logits:?}");
}

/// Each is a clear error, exit 2, and no file.
#[test]
fn bad_requests_are_refused() {
    let rows: [(&[&str], &[&str]); 11] = [
        (&["export", "emo-3m"], &["emo-3m", "emo list", "nearest are emo-"]),
        (&["export", "emo-1m", "--size", "31"], &["31x31", "32"]),
        (&["export", "emo-1m", "--size", "large"], &["large", "256x320"]),
        (&["export", "emo-1m", "--target", "phone"], &["phone", "portable"]),
        (&["export", "emo-1m", "--opset", "13"], &["13", "17"]),
        (&["export", "emo-1m", "--batch", "0"], &["batch", "found 0"]),
        (&["export", "emo-1m", "--batch", "18446744073709551615"], &["batch", "65536"]),
        (&["export", "emo-1m", "--classes", "0"], &["classes", "found 0"]),
        (&["export", "emo-1m", "--size", "16384"], &["too large", "--no-verify"]),
        (&["export", "emo-1m", "--weights", "formula:x"], &["formula:x"]),
        (&["export", "emo-1m", "--weights", "absent.pth"], &["absent.pth"]),
    ];
    for (arguments, words) in rows {
        let folder = TempDir::new().unwrap();
        emo(folder.path(), arguments).refused(folder.path(), &[], words);
    }
}

#[test]
fn bad_weights_are_refused() {
    let whole = checkpoint(&state_dict("emo-1m", str::to_owned)).zip();
    let renamed = state_dict("emo-1m", |name| name.replace("stage3.1.qk", "stage3.1.kq"));
    let call = Object::Call { module: "posix", name: "system", argument: "touch proof".to_owned() };
    let code = Checkpoint { storages: Vec::new(), root: call, big_endian: false }.zip();
    let rows: [(&str, Vec<u8>, &[&str]); 6] = [
        ("truncated.pth", whole[..whole.len() / 2].to_vec(), &["truncated.pth"]),
        ("text.pth", b"not a checkpoint at all".to_vec(), &["text.pth", "torch.save"]),
        ("renamed.pth", checkpoint(&renamed).zip(), &["stage3.1.qk.conv.weight", "stage3.1.kq.conv.weight"]),
        ("variant.pth", checkpoint(&state_dict("emo-2m", str::to_owned)).zip(), &["emo-2m", "not of emo-1m"]),
        ("list.pkl", b"\x80\x02]q\x00(K\x01K\x02e.".to_vec(), &["list.pkl"]),
        ("code.pth", code, &["posix.system"]),
    ];
    for (name, bytes, words) in rows {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
        emo(folder.path(), &["export", "emo-1m", "--weights", name]).refused(folder.path(), &[name], words);
    }
}

/// What is read stays, by whatever name it is to be written.
#[test]
fn no_input_is_overwritten() {
    let rows: [&[&str]; 6] = [
        &["export", "emo-1m", "--weights", "emo-1m.onnx"],
        &["export", "emo-1m", "--weights", "a.pth", "-o", "./a.pth"],
        &["audit", "emo-1m.onnx", "--plot", "./emo-1m.onnx"],
        &["audit", "emo-1m.onnx", "--write-budget", "emo-1m.onnx"],
        &["audit", "emo-1m.onnx", "--write-budget", "a.toml", "--plot", "./a.toml"],
        &["audit", "emo-1m.onnx", "--budget", "b.toml", "--write-budget", "b.toml"],
    ];
    let folder = TempDir::new().unwrap();
    let inputs = ["a.pth", "b.toml", "emo-1m.onnx"];
    assert_eq!(emo(folder.path(), &["export", "emo-1m", "--no-verify", "--size", "32"]).code, 0);
    fs::write(folder.path().join("a.pth"), checkpoint(&state_dict("emo-1m", str::to_owned)).zip()).unwrap();
    fs::write(folder.path().join("b.toml"), "params = 1\n").unwrap();
    let contents = || inputs.map(|name| fs::read(folder.path().join(name)).unwrap());
    let before = contents();
    for arguments in rows {
        emo(folder.path(), arguments).refused(folder.path(), &inputs, &["expected a file of its own"]);
        assert!(contents() == before, "{arguments:?}");
    }
}

#[test]
fn a_path_that_cannot_be_written_is_refused() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for out in ["file/emo.onnx", "absent/emo.onnx", "."] {
        emo(folder.path(), &["export", "emo-1m", "--no-verify", "-o", out]).refused(
            folder.path(),
            &["file"],
            &[out],
        );
    }
}

/// A file size limit stands for a full disk: tests may run as a user whom no permission stops.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("emo-1m.onnx"), "the file before").unwrap();
    // The signal that comes with the limit is ignored, as a full disk sends none.
    let script = format!("trap '' XFSZ; ulimit -f 1000; exec {EMO} export emo-1m --no-verify");
    let output = Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    Run::from(output).refused(folder.path(), &["emo-1m.onnx"], &["emo-1m.onnx"]);
    assert_eq!(fs::read_to_string(folder.path().join("emo-1m.onnx")).unwrap(), "the file before");
}

/// A reader that stops early, as `head` does.
#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(EMO)
        .args(["show", "emo-5m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn verify_refuses_what_is_no_model() {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in [("empty.onnx", &b""[..]), ("text.onnx", b"hello"), ("zip.onnx", b"PK\x03\x04")] {
        fs::write(folder.path().join(name), bytes).unwrap();
        let run = emo(folder.path(), &["verify", name, "--weights", "formula:0"]);
        assert_eq!(run.code, 2);
        assert!(run.stderr.contains(name), "{}", run.stderr);
    }
}

#[test]
fn list_and_show_print_the_published_figures() {
    let folder = PathBuf::from(".");
    let list = emo(&folder, &["list", "--format", "json"]).json();
    assert_eq!(list["models"][3]["exact_fvcore"], 960_752_512);
    let show = emo(&folder, &["show", "emo-6m"]);
    for figure in ["8 heads of 20, window 7", "stage4.1", "1,274,880", "63,943,040", "6,168,496"] {
        assert!(show.stdout.contains(figure), "{figure}: {}", show.stdout);
    }
}
