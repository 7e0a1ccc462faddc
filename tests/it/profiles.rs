//! Every profile: its numbers, its account, its own rules, what it refuses.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::thread;

use emo_exporter::encode::encode;
use emo_exporter::fold::{Kind, Rewrite};
use emo_exporter::half;
use emo_exporter::models::emo::{Batch, Request, VARIANTS, Variant};
use emo_exporter::profile::{Attribute, NodeFacts, OPSETS, Operand, Operators, PROFILES, Profile};
use emo_exporter::weights::{Spec, Weights, formula};
use emo_proto::attribute_proto::AttributeType;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_proto::tensor_proto::DataType;
use emo_proto::{AttributeProto, NodeProto};
use emo_tests::fixture;
use emo_verifier::compare::{FLOAT32, compare};
use emo_verifier::fact::Fact;
use emo_verifier::identity::Identity;
use emo_verifier::infer::{Bindings, Inference, infer};
use emo_verifier::reference::Reference;
use emo_verifier::runtime::{Runtime, Tract};
use emo_verifier::written::count;
use ndarray::{Array4, ArrayD, Axis};

/// Maps that windows divide, in a square and another grid, and maps that they do not.
const SIZES: [(usize, usize); 3] = [(224, 224), (256, 320), (200, 131)];
/// Images of the probe; a fixed batch takes the first.
const IMAGES: usize = 2;

/// Everything that a profile allows of a variant and a size, float32.
fn requests(variant: &'static Variant, size: (usize, usize)) -> Vec<Request> {
    let mut requests = Vec::new();
    for profile in &PROFILES {
        for opset in &OPSETS {
            for batch in [Batch::Fixed(1), Batch::Dynamic] {
                let request = Request { opset, size, batch, ..Request::new(variant, profile) };
                if profile.accept(&request).is_ok() {
                    requests.push(request);
                }
            }
        }
    }
    requests
}

fn open(bytes: &[u8]) -> OnnxFile {
    OnnxFile::from_bytes(bytes.to_vec().into(), External::none()).unwrap()
}

fn place(request: &Request) -> String {
    let Request { variant, profile, opset, size, batch, .. } = request;
    format!("{} {} opset {} {size:?} {batch:?}", variant.name, profile.name, opset.version)
}

/// The same logits as the f64 reference, and counts that with the rewrites are the published
/// model's. Profiles that spell a request alike share its run.
#[test]
fn every_profile_is_the_published_model() {
    let check = |variant: &'static Variant, size: (usize, usize)| {
        let weights = Weights::formula(0, &variant.parameters(1000));
        let shape = [IMAGES, 3, size.0, size.1];
        let probe = Array4::from_shape_vec(shape, formula::input(&shape, 0)).unwrap();
        let truth = Reference::new(variant, &weights).unwrap().forward(probe.mapv(f64::from));
        let mut run = HashSet::new();
        let mut published: HashMap<Option<usize>, [u64; 3]> = HashMap::new();
        for request in requests(variant, size) {
            let place = place(&request);
            let export = emo_exporter::export(&request, &Spec::Formula(0)).expect(&place);
            let file = open(&export.bytes);
            let identity = Identity::read(&file.model).unwrap();
            let (audit, claim) = count(&file.model, &identity);
            assert!(claim.holds && audit.uncounted.is_empty(), "{place}: {claim:?}");
            // The reference profile comes first and rewrites nothing.
            let totals = [claim.params.total(), claim.macs.total(), claim.fvcore.total()];
            let expected = *published.entry(identity.batch).or_insert(totals);
            assert_eq!(totals, expected, "{place}");

            let anonymous = encode(&export.graph, request.opset, &[], &weights).unwrap();
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
    thread::scope(|scope| {
        for half in VARIANTS.chunks(2) {
            scope.spawn(move || half.iter().for_each(|v| SIZES.iter().for_each(|&size| check(v, size))));
        }
    });
}

/// What a row sees of a file's node.
fn facts<'a>(node: &'a NodeProto, inference: &Inference) -> NodeFacts<'a> {
    let constants: HashSet<&str> = inference.constants.iter().map(|c| c.name.as_str()).collect();
    let operand = |name: &str, fact: &Fact| Operand {
        dtype: Some(fact.dtype),
        shape: fact.dims.as_ref().ok().map(|dims| dims.iter().map(|d| d.count()).collect()),
        constant: constants.contains(name),
        integers: fact.elements.as_ref().map(|e| e.iter().filter_map(|e| e.number()).collect()),
    };
    let known = |name: &String| Some(operand(name, inference.values.get(name.as_str())?));
    let attribute = |a: &'a AttributeProto| {
        let value = match a.r#type() {
            AttributeType::Int => Attribute::Int(a.i()),
            AttributeType::Float => Attribute::Float(a.f()),
            AttributeType::String => Attribute::Text(String::from_utf8_lossy(a.s()).into_owned()),
            _ => Attribute::Other,
        };
        (a.name(), value)
    };
    NodeFacts {
        domain: node.domain(),
        op: node.op_type(),
        attributes: node.attribute.iter().map(attribute).collect(),
        operands: node.input.iter().map(known).collect(),
        results: node.output.iter().filter_map(known).collect(),
    }
}

/// A file breaks no rule of its own profile: every operator permitted, every condition met.
#[test]
fn profiles_keep_their_own_rules() {
    for variant in &VARIANTS {
        for request in SIZES.iter().flat_map(|&size| requests(variant, size)) {
            let file = open(&emo_exporter::export(&request, &Spec::Formula(0)).unwrap().bytes);
            let inference = infer(&file.model, &Bindings::new());
            for node in &file.model.graph.as_ref().unwrap().node {
                let violations = request.profile.judge(&facts(node, &inference));
                assert!(violations.is_empty(), "{}: {}: {violations:?}", place(&request), node.name());
            }
        }
    }
}

/// PyTorch's files break the rank of every profile and the operators of those that list them.
#[test]
fn others_files_break_the_mobile_rules() {
    let Some(path) = fixture("third_party/emo_1m_dynamo_op18.onnx") else { return };
    let file = emo_proto::file::open(&path).unwrap();
    let inference = infer(&file.model, &Bindings::new());
    let nodes = &file.model.graph.as_ref().unwrap().node;
    for name in ["coreml", "nnapi", "qnn", "tflite", "ncnn"] {
        let profile = Profile::named(name).unwrap();
        let transposes = nodes.iter().filter(|n| n.op_type() == "Transpose" && !n.attribute.is_empty());
        let rank_6 = transposes.filter(|n| n.attribute[0].ints.len() == 6);
        let mut broken = 0;
        for node in rank_6 {
            let mut facts = facts(node, &inference);
            // The permutation tells the rank where inference does not.
            facts.operands[0].get_or_insert_default().shape = Some(vec![None; 6]);
            assert!(!profile.judge(&facts).is_empty(), "{name}: {}", node.name());
            broken += 1;
        }
        assert!(broken > 0, "the file has transposes of rank 6");
    }
}

/// What a row does not allow is refused with the reason and what works instead.
#[test]
fn refusals_say_what_works() {
    let variant = &VARIANTS[0];
    type Ask = fn(Request) -> Request;
    let rows: [(&str, Ask, &[&str]); 8] = [
        ("coreml", |r| Request { batch: Batch::Dynamic, ..r }, &["batch", "Neural Engine", "--batch N"]),
        ("nnapi", |r| Request { batch: Batch::Dynamic, ..r }, &["NNAPI", "portable"]),
        ("qnn", |r| Request { batch: Batch::Dynamic, ..r }, &["HTP", "--batch N"]),
        ("tflite", |r| Request { opset: &OPSETS[0], ..r }, &["opset 20", "Flex"]),
        ("nnapi", |r| Request { dtype: DataType::Float16, ..r }, &["float16", "--dtype f32"]),
        ("coreml", |r| Request { image_input: true, ..r }, &["uint8", "normalised floats"]),
        ("ncnn", |r| Request { batch: Batch::Dynamic, ..r }, &["no batch axis", "--batch 1"]),
        ("ncnn", |r| Request { image_input: true, ..r }, &["from_pixels"]),
    ];
    for (name, ask, words) in rows {
        let request = ask(Request::new(variant, Profile::named(name).unwrap()));
        let message = emo_exporter::export(&request, &Spec::Formula(0)).unwrap_err().to_string();
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
    for variant in &VARIANTS {
        for profile in &PROFILES {
            let full = Request::new(variant, profile);
            let request = Request { dtype: DataType::Float16, ..full };
            let Ok(export) = emo_exporter::export(&request, &Spec::Formula(0)) else {
                assert!(profile.accept(&request).is_err());
                continue;
            };
            let whole = emo_exporter::export(&full, &Spec::Formula(0)).unwrap().bytes.len();
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

/// Bytes that are a multiple of what normalisation makes of them give the logits of the floats.
#[test]
fn images_are_normalised_in_the_file() {
    let variant = &VARIANTS[0];
    let (height, width) = (64, 96);
    let bytes: Vec<f32> = (0..height * width * 3).map(|i| ((i * 7919) % 256) as f32).collect();
    let image = ArrayD::from_shape_vec(vec![1, height, width, 3], bytes).unwrap();
    let (mean, deviation) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let normal = Array4::from_shape_fn([1, 3, height, width], |(_, c, y, x)| {
        (f64::from(image[[0, y, x, c]]) / 255.0 - mean[c]) / deviation[c]
    });
    let weights = Weights::formula(0, &variant.parameters(1000));
    let truth: Vec<f64> =
        Reference::new(variant, &weights).unwrap().forward(normal).iter().copied().collect();
    for name in ["reference", "portable", "ort-cpu"] {
        let request = Request {
            image_input: true,
            size: (height, width),
            ..Request::new(variant, Profile::named(name).unwrap())
        };
        let export = emo_exporter::export(&request, &Spec::Formula(0)).unwrap();
        let file = open(&export.bytes);
        let identity = Identity::read(&file.model).unwrap();
        assert_eq!((identity.batch, identity.size), (Some(1), (height, width)));
        assert!(count(&file.model, &identity).1.holds);
        // The engine takes the bytes as floats, from behind the cast.
        let mut model = file.model.clone();
        let graph = model.graph.as_mut().unwrap();
        let cast = graph.node.iter().position(|n| n.op_type() == "Cast").unwrap();
        graph.node[cast].op_type = Some("Identity".to_owned());
        graph.node[cast].attribute.clear();
        let bytes = prost_bytes(&model);
        let shapes = [("image".to_owned(), image.shape().to_vec())];
        let logits =
            Tract.prepare(&open(&bytes), &shapes, &[]).unwrap().run(std::slice::from_ref(&image)).unwrap();
        let logits: Vec<f32> = logits[0].iter().copied().collect();
        assert!(FLOAT32.admits(&compare(&logits, &truth).unwrap()), "{name}");
    }
}

fn prost_bytes(model: &emo_proto::ModelProto) -> Vec<u8> {
    let mut model = model.clone();
    if let Some(emo_proto::type_proto::Value::TensorType(tensor)) =
        model.graph.as_mut().and_then(|g| g.input[0].r#type.as_mut()).and_then(|t| t.value.as_mut())
    {
        tensor.elem_type = Some(DataType::Float as i32);
    }
    prost::Message::encode_to_vec(&model)
}
