//! Our own evaluation of whole files: third-party ones and every profile's, exact, as written and with noise.

use emo_exporter::models::Model;
use emo_exporter::profile::PROFILES;
use emo_exporter::weights::Spec;
use emo_proto::file::{OnnxFile, open};
use emo_tests::Order;
use emo_tests::golden::Golden;
use emo_tests::{RIGHT_THIRD_PARTY, fixture};
use emo_verifier::compare::{FLOAT32, compare};
use emo_verifier::eval::{Noise, Rounding};
use emo_verifier::runtime::{Concrete, Evaluator, Runtime, Tract};
use ndarray::ArrayD;

use crate::profiles::open as from_bytes;

fn evaluator(file: &OnnxFile, shape: &[usize]) -> Evaluator {
    let concrete = Concrete::new(file, &[("input".to_owned(), shape.to_vec())]).unwrap();
    Evaluator::new(&concrete, &[], &[]).unwrap()
}

fn run(evaluator: &Evaluator, x: &ArrayD<f32>, rounding: Rounding) -> Vec<f64> {
    let logits = evaluator.run(std::slice::from_ref(x), rounding).unwrap().remove(0);
    logits.into_iter().collect()
}

/// How far `found` is from `expected`, as a share of the largest.
fn off(found: &[f64], expected: &[f64]) -> f64 {
    compare(found, expected).unwrap().relative()
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn third_party_files_are_what_they_say_and_noise_is_as_large_as_their_rounding() {
    let golden = Golden::load("emo_1m_224x224_b1");
    let x = golden.input().into_dyn();
    for name in RIGHT_THIRD_PARTY {
        let path = fixture(&format!("third_party/{name}.onnx"));
        let evaluator = evaluator(&open(&path).unwrap(), x.shape());
        let exact = run(&evaluator, &x, Rounding::Exact);
        let written = run(&evaluator, &x, Rounding::Written);
        let noise = |seed| Noise { seed, arithmetic: true, singles: true, ..Noise::default() };
        let noisy = run(&evaluator, &x, Rounding::Noise(&noise(1)));
        assert_ne!(noisy, run(&evaluator, &x, Rounding::Noise(&noise(2))), "{name}");
        let (rounding, noise) = (off(&written, &exact), off(&noisy, &exact));
        if name == "emo_1m_fp16" {
            // The constants are float16 in both, the arithmetic is.
            assert!((1e-5..1e-2).contains(&rounding), "{rounding}");
            assert!((1e-5..1e-2).contains(&noise), "{noise}");
            assert_eq!(evaluator.coarse().map(|(_, dtype)| dtype), Some("FLOAT16"));
        } else {
            golden.check_logits(&exact, &[1, 1000], &FLOAT32).expect(name);
            assert!(rounding < 2e-6 && rounding > 0.0, "{name}: {rounding}");
            assert!(noise < 2e-6 && noise > 0.0, "{name}: {noise}");
            assert_eq!(evaluator.coarse(), None, "{name}");
        }
    }
}

#[test]
fn every_profile_is_what_tract_computes() {
    for profile in &PROFILES {
        let request = Order::new(Model::named("emo-1m").unwrap(), profile);
        let request = request.with(|t| t.size = (64, 96));
        let file = from_bytes(&request.export(&Spec::Formula(0)).unwrap().bytes);
        let x = ArrayD::from_shape_fn(vec![1, 3, 64, 96], |i| {
            ((i[1] * 7 + i[2] * 5 + i[3] * 3) % 17) as f32 / 8.0 - 1.0
        });
        let evaluator = evaluator(&file, x.shape());
        let mut tract = Tract.prepare(&file, &[("input".to_owned(), x.shape().to_vec())], &[]).unwrap();
        let tract: Vec<f64> =
            tract.run(std::slice::from_ref(&x)).unwrap().remove(0).iter().map(|&x| x.into()).collect();
        for rounding in [Rounding::Exact, Rounding::Written] {
            let difference = off(&run(&evaluator, &x, rounding), &tract);
            assert!(difference < 2e-6, "{} {rounding:?}: {difference}", profile.name);
        }
    }
}
