//! Files of every profile as anybody's: without their metadata and their names, each is recognised, verified and
//! reconciled with the published counts.

use std::collections::{HashMap, HashSet};

use emo_exporter::profile::{OPSETS, PROFILES};
use emo_exporter::target::{Batch, Target};
use emo_exporter::weights::Spec;
use emo_proto::tensor_proto::DataType;
use emo_proto::{Message as _, ModelProto};
use emo_tests::Order;
use emo_tests::mutate::{self, Kind, Mutation, Subject};
use emo_verifier::audit::audit;
use emo_verifier::infer::{Bindings, infer_file};
use emo_verifier::models::claim;
use emo_verifier::models::figures::published;
use emo_verifier::runtime::{Options, Ort, Runtime, Tract};
use emo_verifier::verify::{self, Outcome, Verdict};

use crate::profiles::open;

const FORMULA: Option<Spec> = Some(Spec::Formula(0));

fn request(model: &str, profile: &str) -> Order {
    Order::named(model, profile)
}

/// The file of a request, its metadata and its names taken away.
fn anonymous(request: &Order) -> Vec<u8> {
    nameless(&request.export(&Spec::Formula(0)).unwrap().bytes)
}

pub fn nameless(bytes: &[u8]) -> Vec<u8> {
    let mut model = ModelProto::decode(bytes).unwrap();
    model.metadata_props.clear();
    (model.producer_name, model.doc_string) = (None, None);
    let graph = model.graph.as_mut().unwrap();
    (graph.name, graph.doc_string) = (Some("graph".to_owned()), None);
    let mut names: HashMap<String, String> = HashMap::new();
    let mut rename = |name: &mut String| {
        let next = format!("v{}", names.len());
        if !name.is_empty() {
            *name = names.entry(name.clone()).or_insert(next).clone();
        }
    };
    for node in &mut graph.node {
        node.name = None;
        node.input.iter_mut().chain(&mut node.output).for_each(&mut rename);
    }
    graph.initializer.iter_mut().filter_map(|i| i.name.as_mut()).for_each(&mut rename);
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    values.filter_map(|v| v.name.as_mut()).for_each(&mut rename);
    model.encode_to_vec()
}

fn judge(bytes: &[u8], weights: Option<Spec>, probes: usize, runtime: &dyn Runtime) -> Verdict {
    let request = verify::Request { weights, probes: Some(probes), ..Default::default() };
    verify::verify(&open(bytes), None, &request, runtime).unwrap()
}

/// Passes with and without the checkpoint, and counts what is published.
fn holds(request: &Order, bytes: &[u8]) {
    let Order { model, target: Target { profile, opset, size, batch, .. } } = request;
    let place = format!("{} {} {} {size:?} {batch:?}", model.name, profile.name, opset.version);
    for weights in [None, FORMULA] {
        let verdict = judge(bytes, weights.clone(), 1, &Tract);
        assert_eq!(verdict.verdict, Outcome::Pass, "{place} {weights:?}: {:?}", verdict.reason);
        assert_eq!((verdict.model.as_deref(), verdict.size), (Some(&*model.name), Some(*size)), "{place}");
        assert_eq!(verdict.bytes, request.target.image_input, "{place}");
        let verdict = verdict.weights.unwrap();
        assert_eq!(!verdict.merged.is_empty(), profile.forms.merge, "{place}");
        // Two layers that are one cannot be told apart without a checkpoint.
        let open = verdict.open.iter().any(|open| open.contains("are one layer"));
        assert_eq!(open, profile.forms.merge && weights.is_none(), "{place}");
    }
    counts(request, bytes, &place);
}

fn counts(request: &Order, bytes: &[u8], place: &str) {
    let file = open(bytes);
    let claim = claim::check(&infer_file(&file, &Default::default()), request.model);
    assert!(claim.holds, "{place}: {:?}", claim.reason);
    let merged: Vec<_> =
        claim.account.iter().filter(|entry| entry.into.contains("the two are one")).collect();
    if request.target.size == (224, 224) {
        let exact = published(&request.model.name).unwrap();
        let exact = [exact.exact_params, exact.exact_macs, exact.exact_fvcore].map(|n| Some(n as i64));
        assert_eq!([claim.params, claim.macs, claim.fvcore], exact, "{place}");
        // The stem's projection at half the input's sides.
        let params = 24 * 24;
        let macs = params * 112 * 112;
        for entry in &merged {
            assert_eq!((entry.params, entry.macs, entry.fvcore), (params, macs, macs), "{place}");
            assert_eq!(entry.norm, "stage0.1.proj.conv");
        }
    }
    assert_eq!(merged.len(), usize::from(request.target.profile.forms.merge), "{place}");
}

#[test]
fn every_profile_is_recognised() {
    let mut files: HashSet<Vec<u8>> = HashSet::new();
    for profile in &PROFILES {
        for opset in &OPSETS {
            let request = request("emo-1m", profile.name).with(|t| t.opset = opset);
            if request.target.accept().is_err() {
                continue;
            }
            // Profiles that spell the model alike share its file.
            let bytes = anonymous(&request);
            if files.insert(bytes.clone()) {
                holds(&request, &bytes);
            }
        }
    }
}

#[test]
fn other_variants_sizes_and_batches_are_recognised() {
    for (model, profile, size, batch) in [
        ("emo-2m", "ort-cpu", (224, 224), Batch::Fixed(1)),
        ("emo-5m", "nnapi", (224, 224), Batch::Fixed(1)),
        ("emo-6m", "qnn", (224, 224), Batch::Fixed(1)),
        ("emo-1m", "coreml", (200, 131), Batch::Fixed(1)),
        ("emo-1m", "nnapi", (200, 131), Batch::Fixed(1)),
        ("emo-1m", "tract", (256, 320), Batch::Dynamic),
        ("emo-1m", "tflite", (64, 64), Batch::Fixed(2)),
    ] {
        let request = request(model, profile).with(|t| {
            t.size = size;
            t.batch = batch;
        });
        holds(&request, &anonymous(&request));
    }
}

/// Images of bytes are fed as such, and what normalises them counts as nothing.
#[test]
fn files_of_images_are_recognised() {
    for profile in PROFILES.iter().filter(|p| ["reference", "ort-cpu", "qnn"].contains(&p.name)) {
        let request = request("emo-1m", profile.name).with(|t| t.image_input = true);
        let bytes = anonymous(&request);
        holds(&request, &bytes);
        let verdict = judge(&bytes, None, 1, &Tract);
        let model = ModelProto::decode(&*bytes).unwrap();
        let params = audit(&model, &Bindings::new()).totals.params;
        let account: i64 = verdict.claim.unwrap().account.iter().map(|entry| entry.params).sum();
        assert_eq!(params, (1_361_168 - account).into(), "{}", profile.name);
        let whole = |x: &f32| x.fract() == 0.0 && (0.0..=255.0).contains(x);
        assert!(verdict.probes.iter().all(|p| p.input.iter().all(whole)));
        assert_eq!(verdict.probes[0].shape, [1, 224, 224, 3]);
    }
}

/// Float16 files of each profile that has them pass as such, in ONNX Runtime with kernels of that type.
#[test]
fn float16_files_pass_as_float16() {
    let ort = std::env::var("EMO_REQUIRE_ORT").ok().map(|_| Ort::open(&Options::default()).unwrap());
    let mut files: HashSet<Vec<u8>> = HashSet::new();
    for profile in &PROFILES {
        let request = request("emo-1m", profile.name).with(|t| t.dtype = DataType::Float16);
        if request.target.accept().is_err() {
            continue;
        }
        let bytes = anonymous(&request);
        if !files.insert(bytes.clone()) {
            continue;
        }
        counts(&request, &bytes, profile.name);
        let runtime: &dyn Runtime = ort.as_ref().map_or(&Tract, |ort| ort);
        let verdict = judge(&bytes, FORMULA, verify::PROBES, runtime);
        let place = format!("{}: {:?}", profile.name, verdict.reason);
        assert_eq!((verdict.verdict, verdict.dtype), (Outcome::Pass, Some("f16")), "{place}");
        for probe in &verdict.probes {
            let sqnr = probe.difference.unwrap().sqnr_db;
            assert_eq!(probe.top1.0, probe.top1.1, "{place} {}", probe.name);
            assert!(sqnr > 50.0 || ort.is_none(), "{place} {}: {sqnr} dB", probe.name);
        }
    }
}

/// A mistake and its block, in files that have lost the end of one.
const MISTAKES: [(&Mutation, &str); 11] = [
    (&mutate::TILES, "stage3.2"),
    (&mutate::TANH_GELU, "stage3.4"),
    (&mutate::NO_SKIP, "stage3.3"),
    (&mutate::NO_SHORTCUT, "stage2.1"),
    (&mutate::NO_ATTENTION, "stage4.1"),
    // On either side of the end that two blocks have lost.
    (&mutate::NO_GATE, "stage0.1"),
    (&mutate::NO_LOCAL_ACTIVATION, "stage0.1"),
    (&mutate::NO_VALUE_ACTIVATION, "stage1.0"),
    (&mutate::NO_LOCAL_ACTIVATION, "stage1.0"),
    (&mutate::SCALED_VALUE, "stage1.0"),
    (&mutate::SCALED_WEIGHT, "stage1.0"),
];

#[test]
fn a_changed_weight_is_found_in_a_float16_file() {
    let request = request("emo-1m", "ort-cpu").with(|t| t.dtype = DataType::Float16);
    let subject = Subject::ours(&request);
    for (mutation, block) in [(mutate::SCALED_VALUE, "stage1.0"), (mutate::FLIPPED_BIT, "stage3.3")] {
        let bytes = nameless(&subject.with(mutation.edit, block).unwrap());
        let verdict = judge(&bytes, FORMULA, 1, &Tract);
        let found = (verdict.cause, verdict.first_divergence.as_deref());
        assert_eq!(found, (Some(mutation.cause), Some(block)), "{:?}", verdict.reason);
    }
}

#[test]
fn mistakes_are_found_in_merged_files() {
    let subject = Subject::ours(&request("emo-1m", "ort-cpu"));
    for (Mutation { what, edit, kind, cause }, block) in MISTAKES {
        let bytes = nameless(&subject.with(*edit, block).unwrap());
        let weights = FORMULA.filter(|_| *kind == Kind::Weights);
        let verdict = judge(&bytes, weights, 1, &Tract);
        let found = (verdict.verdict, verdict.cause, verdict.first_divergence.as_deref());
        let expected = (Outcome::Fail, Some(*cause), Some(block));
        assert_eq!(found, expected, "{what} in {block}: {:?}", verdict.reason);
    }
}
