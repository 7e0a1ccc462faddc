//! Anybody's EMO in our forms: weights out of a third-party file, into a portable one.

use emo_tests::{RIGHT_THIRD_PARTY, fixture};
use tempfile::TempDir;

use crate::command::emo;

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn right_third_party_files_become_portable() {
    let folder = TempDir::new().unwrap();
    for name in RIGHT_THIRD_PARTY {
        let path = fixture(&format!("third_party/{name}.onnx"));
        let export = ["export", "emo-1m", "--weights", path.to_str().unwrap(), "-o", "ours.onnx"];
        let (code, stdout, stderr) = emo(&folder, &export);
        assert_eq!(code, 0, "{name}: {stdout}{stderr}");
        assert!(stdout.contains("recovered weights"), "{name}: {stdout}");
        // Float16 weights are the checkpoint's rounded ones: their own function alone is checked.
        let checkpoint: &[&str] = if name.ends_with("fp16") { &[] } else { &["--weights", "formula:0"] };
        let engines: &[&str] =
            if std::env::var("EMO_REQUIRE_ORT").is_ok() { &["tract", "ort"] } else { &["tract"] };
        for engine in engines {
            let verify = [&["verify", "ours.onnx", "--runtime", engine], checkpoint].concat();
            let (code, stdout, stderr) = emo(&folder, &verify);
            assert_eq!(code, 0, "{name} in {engine}: {stdout}{stderr}");
        }
    }
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn another_model_or_function_is_refused() {
    let folder = TempDir::new().unwrap();
    let epsilon = fixture("third_party/wrong_bn_eps.onnx");
    for (model, expected) in
        [("emo-1m", "stage1.1.norm"), ("emo-2m", "expected emo-2m with 1000 classes, found emo-1m")]
    {
        let (code, _, stderr) = emo(&folder, &["export", model, "--weights", epsilon.to_str().unwrap()]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}
