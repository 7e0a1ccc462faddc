//! Files against profiles: ours keep their own, others' are told what to change.

use std::thread;

use emo_exporter::models::emo::VARIANTS;
use emo_exporter::profile::Profile;
use emo_exporter::weights::Spec;
use emo_tests::fixture;
use emo_verifier::infer::{Bindings, infer};
use emo_verifier::lint::{Code, Lint, lint};

use crate::profiles::{SIZES, open, place, requests};

/// Profiles of runtimes that take parts of a graph, or none, where a rule is broken.
const MOBILE: [&str; 5] = ["coreml", "nnapi", "qnn", "tflite", "ncnn"];

const STRANGERS: [&str; 8] = [
    "emo_1m_torchscript_op13",
    "emo_1m_torchscript_op17_dynamic",
    "emo_1m_dynamo_op18",
    "emo_1m_einops_torchscript_op17",
    "emo_1m_dynamo_op20_onnxslim",
    "emo_1m_fp16",
    "wrong_tiles",
    "wrong_bn_eps",
];

/// A file breaks no rule of its own profile, and nothing stays open: one piece, every node.
#[test]
fn a_file_keeps_its_own_profile() {
    thread::scope(|scope| {
        for half in VARIANTS.chunks(2) {
            scope.spawn(move || {
                for request in half.iter().flat_map(|v| SIZES.iter().flat_map(|&size| requests(v, size))) {
                    let file = open(&emo_exporter::export(&request, &Spec::Formula(0)).unwrap().bytes);
                    let lint = lint(&file.model, &infer(&file.model, &Bindings::new()), request.profile);
                    assert!(lint.breaches.is_empty(), "{}: {:?}", place(&request), lint.breaches);
                    assert_eq!(lint.pieces, [lint.nodes], "{}", place(&request));
                }
            });
        }
    });
}

fn strangers(check: impl Fn(&str, &dyn Fn(&'static Profile) -> Lint)) {
    for name in STRANGERS {
        let Some(path) = fixture(&format!("third_party/{name}.onnx")) else { continue };
        let file = emo_proto::file::open(&path).unwrap();
        let inference = infer(&file.model, &Bindings::new());
        check(name, &|profile| lint(&file.model, &inference, profile));
    }
}

/// PyTorch's files break every mobile profile, and their transposes of rank 6 are named.
#[test]
fn pytorch_files_break_the_mobile_profiles() {
    strangers(|file, lint| {
        for name in MOBILE {
            let lint = lint(Profile::named(name).unwrap());
            let rank_6 = lint.breaches.iter().filter(|b| b.code == Code::Rank && b.operator == "Transpose");
            let rank_6 = rank_6.filter(|b| b.found == "Transpose of rank 6").count();
            assert!(rank_6 > 0, "{file} {name}");
        }
    });
}
