//! Every profile: its numbers, its account, its own rules, what it refuses.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::thread;

use emo_exporter::encode::encode;
use emo_exporter::metadata;
use emo_exporter::models::{MODELS, Model};
use emo_exporter::pass::half;
use emo_exporter::profile::{Allow, OPSETS, Operators, PROFILES, Profile};
use emo_exporter::rewrite::{Kind, Rewrite};
use emo_exporter::target::{Batch, Target};
use emo_exporter::weights::{Spec, Weights, formula};
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_proto::tensor_proto::DataType;
use emo_tests::{Order, emos, families};
use emo_verifier::compare::{FLOAT32, compare};
use emo_verifier::identity::Identity;
use emo_verifier::reference::Reference;
use emo_verifier::runtime::{Runtime, Tract};
use emo_verifier::written::{count, findings, numerics, probe};
use ndarray::{Array4, Axis};

/// Maps that windows divide, in a square and another grid, and maps that they do not.
pub(crate) const SIZES: [(usize, usize); 3] = [(224, 224), (256, 320), (200, 131)];
/// Images of the probe; a fixed batch takes the first.
const IMAGES: usize = 2;

/// Everything that a profile allows of a variant and a size, float32.
pub(crate) fn requests(variant: &'static Model, size: (usize, usize)) -> Vec<Order> {
    let mut requests = Vec::new();
    for profile in &PROFILES {
        for opset in &OPSETS {
            for batch in [Batch::Fixed(1), Batch::Dynamic] {
                let request = Order::new(variant, profile).with(|t| {
                    t.opset = opset;
                    t.size = size;
                    t.batch = batch;
                });
                if variant.build(&request.target).is_ok() {
                    requests.push(request);
                }
            }
        }
    }
    requests
}

pub(crate) fn open(bytes: &[u8]) -> OnnxFile {
    OnnxFile::from_bytes(bytes.to_vec().into(), External::none()).unwrap()
}

pub(crate) fn place(request: &Order) -> String {
    let Order { model, target: Target { profile, opset, size, batch, .. } } = request;
    format!("{} {} opset {} {size:?} {batch:?}", model.name, profile.name, opset.version)
}

/// The same logits as the f64 reference, and counts that with the rewrites are the published
/// model's. Profiles that spell a request alike share its run.
#[test]
fn every_profile_is_the_published_model() {
    let check = |variant: &'static Model, size: (usize, usize)| {
        let requests = requests(variant, size);
        if requests.is_empty() {
            return;
        }
        let weights = Weights::formula(0, &variant.parameters());
        let shape = [IMAGES, 3, size.0, size.1];
        let probe = Array4::from_shape_vec(shape, formula::input(&shape, 0)).unwrap();
        let truth = Reference::new(variant, &weights).unwrap().logits(&probe.mapv(f64::from), None);
        let mut run = HashSet::new();
        let mut published: HashMap<Option<usize>, [Option<i64>; 3]> = HashMap::new();
        for request in requests {
            let place = place(&request);
            let export = request.export(&Spec::Formula(0)).expect(&place);
            let file = open(&export.bytes);
            let identity = Identity::read(&file.model).unwrap();
            let (audit, claim) = count(&file.model, &identity);
            assert!(claim.holds && audit.uncounted.is_empty(), "{place}: {claim:?}");
            let findings = findings(&file.model, &identity, &audit, &claim);
            assert!(findings.is_empty(), "{place}: {findings:?}");
            // The reference profile comes first and rewrites nothing.
            let totals = [claim.params, claim.macs, claim.fvcore];
            let expected = *published.entry(identity.batch).or_insert(totals);
            assert_eq!(totals, expected, "{place}");

            let anonymous = encode(&export.graph, request.target.opset, &[], &weights).unwrap();
            if !run.insert(anonymous) {
                continue;
            }
            let images = identity.batch.unwrap_or(IMAGES);
            let input = probe.slice_axis(Axis(0), (0..images).into()).to_owned().into_dyn();
            let shapes = [("input".to_owned(), input.shape().to_vec())];
            let logits = Tract.prepare(&file, &shapes, &[]).expect(&place).run(&[input]).expect(&place);
            let logits: Vec<f32> = logits[0].iter().copied().collect();
            let truth: Vec<f64> = truth.iter().copied().take(logits.len()).collect();
            let difference = compare(&logits, &truth).expect(&place);
            assert!(FLOAT32.admits(&difference), "{place}: {difference:?}");
        }
    };
    let models = families();
    thread::scope(|scope| {
        for half in models.chunks(4) {
            scope.spawn(move || half.iter().for_each(|v| SIZES.iter().for_each(|&size| check(v, size))));
        }
    });
}

/// What a row does not allow is refused with the reason and what works instead.
#[test]
fn refusals_say_what_works() {
    let variant = &MODELS[0];
    type Ask = fn(Order) -> Order;
    let rows: [(&str, Ask, &[&str]); 9] = [
        ("coreml", |r| r.with(|t| t.batch = Batch::Dynamic), &["batch", "Neural Engine", "a fixed batch"]),
        ("nnapi", |r| r.with(|t| t.batch = Batch::Dynamic), &["NNAPI", "portable"]),
        ("qnn", |r| r.with(|t| t.batch = Batch::Dynamic), &["HTP", "a fixed batch"]),
        ("tflite", |r| r.with(|t| t.opset = &OPSETS[0]), &["opset 20", "Flex"]),
        ("nnapi", |r| r.with(|t| t.dtype = DataType::Float16), &["float16", "float32 works"]),
        ("coreml", |r| r.with(|t| t.image_input = true), &["uint8", "normalised floats"]),
        ("ncnn", |r| r.with(|t| t.batch = Batch::Dynamic), &["no batch axis", "one image a run"]),
        (
            "ncnn",
            |r| r.with(|t| t.batch = Batch::Fixed(3)),
            &["batch of 3", "no batch axis", "one image a run"],
        ),
        ("ncnn", |r| r.with(|t| t.image_input = true), &["from_pixels"]),
    ];
    for (name, ask, words) in rows {
        let request = ask(Order::new(variant, Profile::named(name).unwrap()));
        let message = request.export(&Spec::Formula(0)).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
    }
}

/// The table itself: names are unique, defaults are opsets that we write, lists name an operator once.
#[test]
fn the_table_is_sound() {
    let names: BTreeSet<&str> = PROFILES.iter().map(|p| p.name).collect();
    assert_eq!(names.len(), PROFILES.len());
    for profile in &PROFILES {
        let opset = profile.default_opset();
        assert_eq!(Some(&opset.version), profile.opsets.versions.first(), "{}", profile.name);
        if let Operators::Listed(list) = profile.operators {
            let conditional = list.when.iter().map(|p| (p.domain, p.op));
            let mut seen = HashSet::new();
            for operator in list.plain().map(|op| ("", op)).chain(conditional) {
                assert!(seen.insert(operator), "{}: {operator:?} twice", profile.name);
            }
        }
    }
}

/// A change of a metadata entry.
type Edit = fn(&str) -> String;

/// What a file says of itself is held to its structure, at sizes for which nothing is published too: the rewrites that it
/// records, its model, its windows.
#[test]
fn what_a_file_says_is_held_to_its_structure() {
    let edited = |key: &str, edit: Edit| {
        let order = Order::new(Model::named("emo2-1m").unwrap(), Profile::named("portable").unwrap());
        let export = order.with(|t| (t.size, t.batch) = ((96, 96), Batch::Fixed(2)));
        let mut model = open(&export.export(&Spec::Formula(0)).unwrap().bytes).model;
        let entry = model.metadata_props.iter_mut().find(|entry| entry.key() == key).unwrap();
        entry.value = Some(edit(entry.value()));
        let identity = Identity::read(&model).unwrap();
        let (audit, claim) = count(&model, &identity);
        let findings = findings(&model, &identity, &audit, &claim);
        findings.into_iter().map(|finding| (finding.code, finding.message)).collect::<Vec<_>>()
    };
    assert_eq!(edited(metadata::REWRITES, str::to_owned), []);
    let rows: [(&str, Edit, &str, &str); 4] = [
        (metadata::REWRITES, |text| text.split_once('\n').unwrap().1.to_owned(), "rewrites", "as folded"),
        (metadata::REWRITES, |text| text.replacen("params, 0 MACs", "params, 1 MACs", 1), "rewrites", "MACs"),
        (metadata::MODEL, |_| "emo2-2m".to_owned(), "claim", "the file is emo2-1m"),
        (metadata::MODEL, |_| "emo2-1m, window 8".to_owned(), "claim", "expected emo2-1m, window 8"),
    ];
    for (key, edit, code, words) in rows {
        let found = edited(key, edit);
        assert!(found.iter().any(|(c, message)| *c == code && message.contains(words)), "{words}: {found:?}");
    }
}

/// Every kind of rewrite reads back as it was written, with counts of either sign.
#[test]
fn rewrites_read_back() {
    for kind in Kind::ALL {
        let rewrite = Rewrite {
            kind,
            what: "stage1.0.norm".to_owned(),
            into: "a, b".to_owned(),
            parameters: -3,
            macs: 7,
            fvcore: -100,
        };
        assert_eq!(rewrite.to_string().parse::<Rewrite>().unwrap(), rewrite);
    }
}

/// A float16 file is half as large; ends are float32; what the profile keeps is float32 between
/// as few casts as there are borders.
#[test]
fn float16_files_are_half() {
    for variant in emos() {
        for profile in &PROFILES {
            let full = Order::new(variant, profile);
            let request = full.with(|t| t.dtype = DataType::Float16);
            let Ok(export) = request.export(&Spec::Formula(0)) else {
                assert!(request.target.accept().is_err());
                continue;
            };
            let whole = full.export(&Spec::Formula(0)).unwrap().bytes.len();
            let share = export.bytes.len() as f64 / whole as f64;
            assert!(share < 0.52, "{} {}: {share}", variant.name, profile.name);
            let graph = open(&export.bytes).model.graph.unwrap();
            let count = |op: &str| graph.node.iter().filter(|n| n.op_type() == op).count();
            // A layer norm that is spelled out has a root; as an operator it keeps its statistics itself.
            let kept = count("Softmax") + count("Sqrt");
            let expected = if profile.float32.is_empty() { 2 } else { 2 + 2 * kept };
            assert_eq!(count("Cast"), expected, "{} {}", variant.name, profile.name);
            assert!(half::tensors(&export.graph).count() > graph.node.len() / 2);
        }
    }
}

/// Normalising bytes in the file adds nothing to what is published.
#[test]
fn images_of_bytes_leave_the_published_counts() {
    for profile in PROFILES.iter().filter(|p| p.image_input == Allow::Yes) {
        let export = Order::new(&MODELS[0], profile).with(|t| t.image_input = true).export(&Spec::Formula(0));
        let file = open(&export.unwrap().bytes);
        let (_, claim) = count(&file.model, &Identity::read(&file.model).unwrap());
        assert!(claim.published.is_some() && claim.holds, "{}: {claim:?}", profile.name);
    }
}

/// A file that takes bytes normalises them itself: the reference's logits, whose input is normalised in f64.
#[test]
fn images_are_normalised_in_the_file() {
    for profile in PROFILES.iter().filter(|p| p.image_input == Allow::Yes) {
        let size = (64, 96);
        let request = Order::new(&MODELS[0], profile).with(|t| {
            t.image_input = true;
            t.size = size;
        });
        let export = request.export(&Spec::Formula(0)).unwrap();
        let file = open(&export.bytes);
        let identity = Identity::read(&file.model).unwrap();
        assert_eq!((identity.batch, identity.size, identity.image), (Some(1), size, true));
        let (audit, claim) = count(&file.model, &identity);
        assert!(claim.holds, "{}: {claim:?}", profile.name);
        let findings = findings(&file.model, &identity, &audit, &claim);
        assert!(findings.is_empty(), "{}: {findings:?}", profile.name);
        let numerics = numerics(&file, &identity, &export.weights, &Tract).unwrap();
        assert!(numerics.holds, "{}: {numerics:?}", profile.name);
        // Black and white are among the bytes, and at the borders too.
        let probe = probe(&identity).unwrap().input;
        let ends = probe.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        assert_eq!(ends, (0.0, 255.0));
    }
}
