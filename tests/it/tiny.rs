//! Third-party files that lie in the project: a tiny network of one's own as other toolchains write it, right and wrong
//! (`tests/data/third_party/make.py`). What `../shared` has is larger, and may be absent.

use std::path::{Path, PathBuf};

use emo_exporter::models::own;
use emo_exporter::weights::Spec;
use emo_verifier::infer::{Bindings, infer_file};
use emo_verifier::models::claim;
use emo_verifier::runtime::Tract;
use emo_verifier::verify::{Outcome, Request, verify};
use tempfile::TempDir;

use crate::command::emo;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/third_party").join(name)
}

/// A file, and where and why it is wrong.
const FILES: [(&str, Option<(&str, &str)>); 7] = [
    ("torchscript_op13.onnx", None),
    ("torchscript_op17_dynamic.onnx", None),
    ("dynamo_op18.onnx", None),
    ("onnxslim_op17.onnx", None),
    ("fp16_op17.onnx", None),
    ("wrong_tiles.onnx", Some(("stage3.1", "tiles"))),
    ("wrong_bn_eps.onnx", Some(("stage2.1", "norm-epsilon"))),
];

#[test]
fn small_third_party_files_are_judged() {
    let model = own::open(&file("emo-tiny.toml")).unwrap();
    for (name, wrong) in FILES {
        let onnx = emo_proto::file::open(&file(name)).unwrap();
        for weights in [None, Some(Spec::Formula(0))] {
            let request = Request { model: Some(model.clone()), weights, ..Request::default() };
            let verdict = verify(&onnx, None, &request, &Tract).unwrap();
            let found = verdict.first_divergence.as_deref().zip(verdict.cause);
            let expected = if wrong.is_some() { Outcome::Fail } else { Outcome::Pass };
            assert_eq!((verdict.verdict, found), (expected, wrong), "{name}: {:?}", verdict.reason);
        }
        // A wrong arithmetic counts as the right one does.
        let claim = claim::check(&infer_file(&onnx, &Bindings::new()), &model);
        assert!(claim.holds && claim.params.is_some(), "{name}: {:?}", claim.reason);
    }
}

/// What a right file holds is written again, and verifies against the weights that it was made with.
#[test]
fn small_third_party_files_become_ours() {
    let folder = TempDir::new().unwrap();
    let toml = file("emo-tiny.toml").display().to_string();
    for (name, wrong) in FILES.into_iter().filter(|(name, _)| !name.starts_with("fp16")) {
        let weights = file(name).display().to_string();
        let export = ["export", &toml, "--weights", &weights, "--target", "coreml", "-o", "ours.onnx"];
        let (code, stdout, stderr) = emo(&folder, &export);
        if wrong.is_some_and(|(_, cause)| cause == "norm-epsilon") {
            assert!(code == 2 && stderr.contains("stage2.1.norm"), "{name}: {stderr}");
            continue;
        }
        assert_eq!(code, 0, "{name}: {stdout}{stderr}");
        let verify = ["verify", "ours.onnx", "--model", &toml, "--weights", "formula:0"];
        assert_eq!(emo(&folder, &verify).0, 0, "{name}");
    }
}
