//! The witnesses of numerics against PyTorch's golden vectors.

use emo_exporter::weights::Weights;
use emo_tests::golden::{CLASSIFICATION, Golden};
use emo_verifier::compare::FLOAT64;
use emo_verifier::reference::{Output, Reference};

/// The features of every stage and the logits, of every golden.
#[test]
fn the_reference_holds() {
    for name in CLASSIFICATION {
        let golden = Golden::load(name);
        let variant = golden.variant();
        let weights = Weights::formula(golden.seed, &variant.parameters());
        let reference = Reference::new(variant, &weights).unwrap();
        let mut stages = 0;
        let outputs = reference.outputs_with(golden.input().mapv(f64::from), None, |block, map| {
            if let Some(stage) = block.ends() {
                assert_eq!(stage, golden.features[stages].name, "{name}");
                let values = map.as_slice().expect("blocks give maps in standard layout");
                golden.check(stages, values, map.shape(), &FLOAT64).expect(name);
                stages += 1;
            }
        });
        assert_eq!(stages, golden.features.len(), "{name}: stages");
        let [Output { name: "logits", value: logits }] = outputs.as_slice() else {
            panic!("{name}: outputs")
        };
        let values = logits.as_slice().expect("logits are in standard layout");
        golden.check_logits(values, logits.shape(), &FLOAT64).expect(name);
    }
}
