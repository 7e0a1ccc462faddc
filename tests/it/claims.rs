//! Claims: a file's counts and the account of what folding removed, against the published table.

use emo_tests::{RIGHT_THIRD_PARTY, fixture};
use tempfile::TempDir;

use crate::command::{emo, json_of};

/// Other toolchains' EMO-1M, its norms folded, shifted and spelled out: what is in the file and the
/// account are the published integers, and no other model's.
#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn claims_close_by_account() {
    let folder = TempDir::new().unwrap();
    let published = |model: &str| emo_verifier::models::figures::published(model).unwrap();
    for name in RIGHT_THIRD_PARTY {
        let path = fixture(&format!("third_party/{name}.onnx"));
        let path = path.to_str().unwrap();
        let claim = json_of(&folder, 0, &["audit", path, "--claim", "emo-1m"])["claim"].clone();
        let exact = published("emo-1m");
        assert_eq!(claim["holds"], true, "{name}");
        assert_eq!(
            (claim["params"].as_u64(), claim["fvcore"].as_u64()),
            (Some(exact.exact_params), Some(exact.exact_fvcore))
        );
        // PyTorch folds 18 of the 21 batch norms; opset 13 has no layer norm, so its 12 are spelled out.
        let spelled = if name.contains("op13") || name.contains("fp16") { 12 } else { 0 };
        assert_eq!(claim["account"].as_array().unwrap().len(), 18 + spelled, "{name}");
        let wrong = json_of(&folder, 1, &["audit", path, "--claim", "emo-2m"]);
        assert_eq!(wrong["claim"]["holds"], false);
        let message = wrong["findings"][0]["message"].as_str().unwrap();
        assert!(message.contains("the file is emo-1m") && message.contains("stage1.2.v.conv"), "{message}");
    }
}

/// Our own exports, at sizes that pad windows and with heads of other widths too.
#[test]
fn claims_hold_for_every_export() {
    let folder = TempDir::new().unwrap();
    for model in ["emo-1m", "emo-2m", "emo-5m", "emo-6m"] {
        for options in [
            &[][..],
            &["--target", "reference"],
            &["--size", "200x131"],
            &["--classes", "10", "--batch", "dynamic"],
        ] {
            let export = [&["export", model, "--no-verify", "-o", "model.onnx"], options].concat();
            assert_eq!(emo(&folder, &export).0, 0);
            let claim = json_of(&folder, 0, &["audit", "model.onnx", "--claim", model])["claim"].clone();
            assert_eq!(claim["holds"], true, "{model} {options:?}");
        }
    }
}

/// EMOv2-5M at 512 × 512 has windows of 8, which its counts alone show; the figure is the published one.
#[test]
fn windows_are_told_by_counts() {
    let folder = TempDir::new().unwrap();
    let options = ["--window", "8", "--size", "512", "--no-verify", "-o", "model.onnx"];
    for profile in ["portable", "reference"] {
        let export = [&["export", "emo2-5m", "--profile", profile], &options[..]].concat();
        assert_eq!(emo(&folder, &export).0, 0);
        let claim = json_of(&folder, 0, &["audit", "model.onnx", "--claim", "emo2-5m"])["claim"].clone();
        assert_eq!(claim["model"], "emo2-5m, window 8");
        assert_eq!((claim["holds"].as_bool(), claim["fvcore"].as_u64()), (Some(true), Some(5_627_331_840)));
    }
    let (code, _, error) = emo(&folder, &["export", "deit-tiny", "--window", "8", "--no-verify"]);
    assert!(code == 2 && error.contains("expected a model with windows"), "{code} {error}");
}
