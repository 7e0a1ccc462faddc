//! Detectors, segmenters and backbones as anybody's files: recognised, verified, reconciled, and wrong ones placed.

use emo_exporter::models::{Model, own};
use emo_exporter::profile::Profile;
use emo_exporter::target::{Output, Target};
use emo_exporter::weights::Spec;
use emo_verifier::runtime::Tract;
use emo_verifier::verify::{self, Outcome, Verdict};

use crate::own_profiles::nameless;
use crate::profiles::open;

fn export(model: &str, size: (usize, usize), target: &str, output: Option<Output>) -> Vec<u8> {
    let model = Model::named(model).unwrap();
    let target = Target { size, output, ..model.target(Profile::named(target).unwrap()) };
    emo_exporter::export(model, &target, &Spec::Formula(0)).unwrap().bytes
}

fn judge(bytes: &[u8], weights: Option<Spec>) -> Verdict {
    let request = verify::Request { weights, probes: Some(2), ..Default::default() };
    verify::verify(&open(bytes), None, &request, &Tract).unwrap()
}

/// A head each, targets and outputs by turns; sizes that windows and strides divide and others.
const RIGHT: [(&str, (usize, usize), &str, Option<Output>); 10] = [
    ("ssdlite-emo-1m", (128, 128), "portable", None),
    ("ssdlite-emo2-1m", (96, 131), "coreml", Some(Output::Decoded)),
    ("retinanet-emo-1m", (128, 96), "tract", None),
    ("retinanet-emo2-1m", (96, 96), "openvino", Some(Output::Decoded)),
    ("deeplabv3-emo-1m", (128, 96), "ort-cpu", None),
    ("pspnet-emo-1m", (192, 192), "portable", None),
    ("pspnet-emo2-2m", (131, 96), "reference", Some(Output::LogitsSmall)),
    ("semantic-fpn-emo-1m", (96, 96), "qnn", Some(Output::Labels)),
    ("segformer-emo2-2m", (96, 128), "nnapi", Some(Output::LogitsSmall)),
    ("emo-5m-backbone", (96, 200), "tensorrt", None),
];

#[test]
fn nameless_files_are_recognised_and_hold() {
    for (model, size, target, output) in RIGHT {
        let bytes = nameless(&export(model, size, target, output));
        for weights in [None, Some(Spec::Formula(0))] {
            let verdict = judge(&bytes, weights);
            let at = format!("{model} for {target} at {size:?}: {:?}", verdict.reason);
            assert_eq!((verdict.verdict, verdict.model.as_deref()), (Outcome::Pass, Some(model)), "{at}");
            let gives = output.unwrap_or_else(|| Model::named(model).unwrap().output_forms()[0]);
            assert_eq!(verdict.output, Some(gives.name()), "{at}");
            assert!(verdict.claim.as_ref().is_some_and(|claim| claim.holds), "{at}: {:?}", verdict.claim);
            assert!(verdict.weights.is_some_and(|weights| weights.differing.is_empty()), "{at}");
        }
    }
}

/// A network of one's own takes a head: it is written back as it was read, verified, and told apart from all others.
#[test]
fn a_network_of_ones_own_takes_a_head() {
    let rows = [("deeplabv3", 5), ("ssdlite", 3), ("segformer", 7)];
    let classifier = own::write(Model::named("emo-1m").unwrap()).unwrap();
    for (head, classes) in rows {
        let text = classifier
            .replace("name = \"emo-1m\"", &format!("name = \"mine-{head}\""))
            .replace("classes = 1000", &format!("classes = {classes}\nhead = \"{head}\""));
        let model = own::read(&text, "my.toml").unwrap();
        assert_eq!(own::write(&model).unwrap(), text);
        let target = Target { size: (96, 96), ..model.target(Profile::named("portable").unwrap()) };
        let bytes = emo_exporter::export(&model, &target, &Spec::Formula(0)).unwrap().bytes;
        let request = verify::Request { model: Some(model), probes: Some(2), ..Default::default() };
        let verdict = verify::verify(&open(&nameless(&bytes)), None, &request, &Tract).unwrap();
        let found = (verdict.verdict, verdict.classes);
        assert_eq!(found, (Outcome::Pass, Some(classes)), "{head}: {:?}", verdict.reason);
    }
    let three =
        classifier.replacen("[[stages]]", "[[gone]]", 1).replace("classes", "head = \"ssdlite\"\nclasses");
    assert!(own::read(&three, "my.toml").is_err());
}
