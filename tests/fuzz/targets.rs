//! What reads third-party bytes: each a row, that the fuzzer runs on what it makes up and the tests on the corpora.
//!
//! Whatever the bytes are, a row's function ends soon, in little memory, and without a panic.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use emo_exporter::models::{MODELS, own};
use emo_exporter::profile::PROFILES;
use emo_exporter::weights::{Parameter, Spec, Weights, fits};
use emo_proto::file::OnnxFile;
use emo_proto::tensor::{External, Tensor};
use emo_proto::text::Text;
use emo_verifier::audit::{By, explain, groups, tally};
use emo_verifier::budget::{self, Budget};
use emo_verifier::constants::Constants;
use emo_verifier::data::{self, Port, Ports};
use emo_verifier::eval::{Noise, Rounding};
use emo_verifier::infer::{Bindings, infer, infer_file};
use emo_verifier::models::claim;
use emo_verifier::models::recognise::recognise;
use emo_verifier::models::recover::recover;
use emo_verifier::runtime::{Concrete, Evaluator, Form};
use emo_verifier::{check, identity, lint, lower, memory};
use emo_zoo::manifest::Manifest;
use ndarray::ArrayD;

/// A reader.
pub struct Target {
    /// That of the fuzzer's binary, and of the corpus's folder.
    pub name: &'static str,
    /// Whether the bytes are what it reads.
    pub run: fn(&[u8]) -> bool,
}

pub const TARGETS: &[Target] = &[
    Target { name: "decode", run: decoded },
    Target { name: "infer", run: inferred },
    Target { name: "check", run: |bytes| with(bytes, |file| drop(check::check(file, None))) },
    Target { name: "lint", run: linted },
    Target { name: "recover", run: recovered },
    Target { name: "eval", run: evaluated },
    Target { name: "pickle", run: |bytes| loaded(bytes, "x.pth") },
    Target { name: "safetensors", run: |bytes| loaded(bytes, "x.safetensors") },
    Target { name: "array", run: array },
    Target { name: "picture", run: picture },
    Target { name: "manifest", run: manifest },
    Target { name: "budget", run: limits },
    Target { name: "own", run: network },
];

/// The bytes as an ONNX file, if they are one.
fn with(bytes: &[u8], run: impl FnOnce(&OnnxFile)) -> bool {
    let file = OnnxFile::from_bytes(bytes.to_vec().into(), External::none());
    file.as_ref().is_ok_and(|file| {
        run(file);
        true
    })
}

/// A model or an error; every tensor of it elements or an error; a text of it.
fn decoded(bytes: &[u8]) -> bool {
    with(bytes, |file| {
        for tensor in file.model.graph.iter().flat_map(|graph| &graph.initializer) {
            if let Ok(tensor) = Tensor::decode(tensor, &file.external) {
                let _ = (tensor.f64s(), tensor.f32s(), tensor.i64s());
            }
        }
        let describe = |_: &str, _: &str| None;
        let text = Text {
            model: &file.model,
            external: &file.external,
            digests: &Default::default(),
            describe: &describe,
        }
        .to_string();
        assert!(text.ends_with('\n'));
    })
}

/// Shapes and counts, or reasons why not.
fn inferred(bytes: &[u8]) -> bool {
    with(bytes, |file| {
        let inference = infer(&file.model, &Bindings::new());
        for fact in inference.values.values() {
            let dims = fact.dims.as_deref().unwrap_or_default();
            assert!(dims.iter().all(|d| d.number().is_none_or(|n| n >= 0)), "{}", fact.describe());
            assert!(fact.elements.as_ref().is_none_or(|e| fact.count().is(e.len() as i64)));
        }
        let audit = tally(&file.model, &inference);
        for by in [By::Op, By::Node, By::Block, By::Scope { depth: 2 }] {
            let _ = groups(&audit, by);
        }
        let _ = (inference.contradictions(), inference.highest_rank(), explain(&audit), audit.findings("x"));
        let _ = memory::peak(&file.model, &inference);
        let text = budget::write(&audit, "x", &bytes.len().into());
        assert!(text.parse::<Budget>().is_ok(), "{text}");
    })
}

/// The file against every profile.
fn linted(bytes: &[u8]) -> bool {
    with(bytes, |file| {
        let inference = infer(&file.model, &Bindings::new());
        for profile in &PROFILES {
            let lint = lint::lint(&file.model, &inference, profile);
            // A partition is of taken nodes; those of a body that is taken with its node are in none.
            assert!(lint.taken <= lint.nodes && lint.partitions.iter().sum::<usize>() <= lint.taken);
        }
    })
}

/// Which EMO it is, with its weights; what constants decide, whatever it is.
fn recovered(bytes: &[u8]) -> bool {
    with(bytes, |file| {
        let plain = OnnxFile {
            model: lower::lower(&file.model, &Bindings::new()).into_owned(),
            bytes: file.bytes.clone(),
            external: file.external.clone(),
        };
        for file in [file, &plain] {
            let inference = infer_file(file, &Bindings::new());
            match recognise(&inference) {
                Ok(recognition) => drop(recover(file, &inference, &recognition)),
                Err(departure) => assert!(departure.matched <= departure.layers),
            }
            let constants = Constants::new(file);
            let nodes = file.model.graph.iter().flat_map(|graph| &graph.node);
            for name in nodes.flat_map(|node| &node.input) {
                let _ = (constants.tensor(name), constants.grain(name));
            }
            let _ = claim::check(&inference, &MODELS[0]);
        }
        let _ = identity::Identity::read(&file.model);
    })
}

/// Elements of a tensor that is evaluated here, at most: no operator takes long on so few.
const MOST_ELEMENTS: usize = 1 << 12;

/// A small graph, in every rounding; what an engine would be given of it.
fn evaluated(bytes: &[u8]) -> bool {
    with(bytes, |file| {
        let open = |port: Port| (port.name, port.dims.into_iter().map(|dim| dim.unwrap_or(2)).collect());
        let inputs: Vec<(String, Vec<usize>)> = Ports::of(&file.model).inputs.into_iter().map(open).collect();
        let count = |dims: &[usize]| dims.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim));
        if inputs.iter().any(|(_, dims)| count(dims).is_none_or(|n| n > MOST_ELEMENTS)) {
            return;
        }
        let Ok(concrete) = Concrete::new(file, &inputs) else { return };
        for form in [Form::Written, Form::Plain, Form::Typed] {
            let _ = concrete.cut(&[], &[], form);
        }
        let Ok(evaluator) = Evaluator::new(&concrete, &[], &[]) else { return };
        let evaluator = evaluator.at_most(MOST_ELEMENTS);
        let fed: Vec<ArrayD<f32>> = inputs.iter().map(|(_, dims)| ramp(dims)).collect();
        let noise =
            Noise { seed: 1, spared: Default::default(), arithmetic: true, singles: true, saturates: true };
        for rounding in [Rounding::Exact, Rounding::Written, Rounding::Noise(&noise)] {
            let _ = evaluator.run(&fed, rounding);
        }
    })
}

/// Small numbers of either sign, whole ones among them.
fn ramp(dims: &[usize]) -> ArrayD<f32> {
    let mut at = 0_u8;
    ArrayD::from_shape_simple_fn(dims, || {
        at = at.wrapping_add(37);
        f32::from(at % 9) / 2.0 - 1.0
    })
}

/// Gives the path of a file that holds the bytes to `run`.
fn at<T>(bytes: &[u8], name: &str, run: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().expect("a folder for a file");
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("room for a file");
    // What was written just now is waited for before it is read.
    let past = SystemTime::now() - Duration::from_secs(60);
    fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(past)).expect("a file");
    run(&path)
}

/// A checkpoint of the two tensors that the corpora have, or why it is none.
fn loaded(bytes: &[u8], name: &str) -> bool {
    let parameter = |name: &str, shape: &[usize]| Parameter { name: name.to_owned(), shape: shape.to_vec() };
    let expected = [parameter("head.bias", &[2]), parameter("head.weight", &[2, 3])];
    at(bytes, name, |path| {
        let _ = fits(path, &expected);
        Weights::load(&Spec::File(path.to_owned()), &expected).is_ok()
    })
}

/// Arrays: NumPy's, one or an archive of them, or ONNX's own.
fn array(bytes: &[u8]) -> bool {
    let port = |name: &str| Port { name: name.to_owned(), dtype: Default::default(), dims: Vec::new() };
    let ports = Ports { inputs: vec![port("x")], outputs: vec![port("y")] };
    let name = match bytes {
        [b'P', b'K', ..] => "x.npz",
        [0x93, ..] => "x.npy",
        _ => "input_0.pb",
    };
    at(bytes, name, |path| {
        let path = if name.ends_with(".pb") { path.parent().unwrap_or(path) } else { path };
        data::read(path, &ports).is_ok()
    })
}

/// A picture as a network of few pixels takes it.
fn picture(bytes: &[u8]) -> bool {
    at(bytes, "x.png", |path| data::image(path, (8, 8)).is_ok())
}

/// A manifest, which is itself after it was written.
fn manifest(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(manifest) = Manifest::parse(text) else { return false };
    let again = Manifest::parse(&manifest.text()).expect("what is written is read again");
    assert!(again == manifest);
    true
}

/// A budget, and a file that is held to it.
fn limits(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(budget) = text.parse::<Budget>() else { return false };
    let audit = emo_verifier::audit::audit(&emo_proto::ModelProto::default(), &Bindings::new());
    let _ = budget::violations(&budget, &audit, "x", &1_usize.into());
    true
}

/// A network that reads back from its own file, or an error.
fn network(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(model) = own::read(text, "x") else { return false };
    let again = own::write(&model).and_then(|text| own::read(&text, "x"));
    assert_eq!(again.as_ref(), Ok(&model));
    assert!(model.build(&emo_exporter::target::Target::new(&PROFILES[0])).is_ok());
    true
}
