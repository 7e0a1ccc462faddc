//! Checkpoints of every kind into weights, and what cannot be one into an error.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use emo_exporter::models::Model;
use emo_exporter::weights::{Origin, Parameter, Spec, Weights, fits, formula};
use emo_tests::torch_save::{Checkpoint, Dtype, Object, View};
use emo_tests::{fixture, safetensors};
use proptest::prelude::*;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

const FLOATS: [Dtype; 4] = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16];
/// Both formats of `torch.save`.
const FORMATS: [fn(&Checkpoint) -> Vec<u8>; 2] = [Checkpoint::zip, Checkpoint::legacy];

/// A network small enough to list.
fn small() -> Vec<Parameter> {
    let shapes: [(&str, &[usize]); 5] = [
        ("stage0.0.convs.0.0.weight", &[4, 3, 3, 3]),
        ("stage0.0.convs.0.1.running_var", &[4]),
        ("norm.norm.weight", &[7]),
        ("head.weight", &[5, 7]),
        ("head.bias", &[5]),
    ];
    shapes.map(|(name, shape)| Parameter { name: name.to_owned(), shape: shape.to_vec() }).into()
}

/// The state dict of `parameters` under the formula, a prefix before each name.
fn checkpoint(parameters: &[Parameter], prefix: &str, dtype: Dtype, seed: u64) -> Checkpoint {
    let names: Vec<String> = parameters.iter().map(|p| format!("{prefix}{}", p.name)).collect();
    let tensors = parameters.iter().zip(&names);
    Checkpoint::state_dict(
        dtype,
        tensors.map(|(p, name)| (name.as_str(), &p.shape[..], formula::tensor(&p.name, &p.shape, seed))),
    )
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn load(&self, bytes: &[u8], expected: &[Parameter]) -> emo_proto::Result<Weights> {
        load(&self.write("net.pth", bytes), expected)
    }

    /// The error that loading gives, which must name the file.
    fn refuse(&self, bytes: &[u8], expected: &[Parameter]) -> String {
        let error = self.load(bytes, expected).expect_err("these are no weights").to_string();
        assert!(error.starts_with(&self.0.path().join("net.pth").display().to_string()), "{error}");
        error
    }
}

fn load(path: &Path, expected: &[Parameter]) -> emo_proto::Result<Weights> {
    Weights::load(&Spec::File(path.to_owned()), expected)
}

/// Bit for bit the formula's tensors, rounded to `dtype`.
#[track_caller]
fn assert_formula(weights: &Weights, expected: &[Parameter], dtype: Dtype, seed: u64) {
    assert_eq!(weights.names().count(), expected.len());
    for Parameter { name, shape } in expected {
        let tensor = weights.get(name).unwrap();
        assert_eq!(&tensor.dims, shape, "{name}");
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let formula = dtype.round(formula::tensor(name, shape, seed));
        assert_eq!(bits(tensor.f32s().unwrap()), bits(formula), "{name}");
    }
}

fn entry(weights: &Weights) -> Option<&str> {
    match weights.origin() {
        Origin::File { entry, .. } => entry.as_deref(),
        Origin::Formula { .. } => None,
    }
}

#[test]
fn formats_types_entries_and_prefixes() {
    let (folder, expected) = (Folder::new(), small());
    for write in FORMATS {
        for dtype in FLOATS {
            let plain = checkpoint(&expected, "", dtype, 3);
            let weights = folder.load(&write(&plain), &expected).unwrap();
            assert_formula(&weights, &expected, dtype, 3);
            assert_eq!(entry(&weights), None);
        }
        for key in ["net_E", "net", "state_dict", "model", "model_ema", "state_dict_ema"] {
            for prefix in ["", "module.", "backbone.", "module.backbone.", "backbone.module."] {
                let nested = checkpoint(&expected, prefix, Dtype::F32, 4).nested(key);
                let weights = folder.load(&write(&nested), &expected).unwrap();
                assert_formula(&weights, &expected, Dtype::F32, 4);
                assert_eq!(entry(&weights), Some(key));
            }
        }
    }
}

#[test]
fn the_averaged_network_is_preferred_and_no_other_read() {
    let (folder, expected) = (Folder::new(), small());
    for write in FORMATS {
        let mut both = checkpoint(&expected, "", Dtype::F32, 5);
        let spoilt = both.storage(Dtype::F32, vec![f32::NAN; 5]);
        let net = Object::Dict(vec![("head.bias".into(), Object::Tensor(View::contiguous(spoilt, &[5])))]);
        both.root = Object::Dict(vec![("net".into(), net), ("net_E".into(), both.root)]);
        let weights = folder.load(&write(&both), &expected).unwrap();
        assert_formula(&weights, &expected, Dtype::F32, 5);
        assert_eq!(entry(&weights), Some("net_E"));
    }
}

#[test]
fn strides_offsets_and_shared_storages() {
    let folder = Folder::new();
    let views: [(&str, View, &[f32]); 5] = [
        ("whole", View::contiguous(0, &[2, 3]), &[0., 1., 2., 3., 4., 5.]),
        ("transposed", view(0, &[3, 2], &[1, 3]), &[0., 3., 1., 4., 2., 5.]),
        ("offset", view(2, &[2, 2], &[3, 1]), &[2., 3., 5., 6.]),
        ("every_second", view(1, &[3], &[2]), &[1., 3., 5.]),
        ("expanded", view(4, &[2, 2], &[0, 1]), &[4., 5., 4., 5.]),
    ];
    let expected: Vec<_> =
        views.iter().map(|(name, v, _)| Parameter { name: (*name).into(), shape: v.shape.clone() }).collect();
    let mut shared = Checkpoint::state_dict(Dtype::F32, []);
    shared.storage(Dtype::F32, (0..7).map(|i| i as f32).collect());
    shared.root = Object::StateDict(
        views.iter().map(|(name, view, _)| ((*name).to_owned(), Object::Tensor(view.clone()))).collect(),
    );
    for write in FORMATS {
        let weights = folder.load(&write(&shared), &expected).unwrap();
        for (name, _, values) in &views {
            assert_eq!(weights.get(name).unwrap().f32s().unwrap(), *values, "{name}");
        }
    }
}

fn view(offset: usize, shape: &[usize], strides: &[usize]) -> View {
    View { storage: 0, offset, shape: shape.to_vec(), strides: strides.to_vec() }
}

#[test]
fn the_counts_of_batches_are_ignored() {
    let (folder, expected) = (Folder::new(), small());
    for write in FORMATS {
        let mut counted = checkpoint(&expected, "", Dtype::F32, 0);
        let count = counted.storage(Dtype::I64, vec![1000.0]);
        let Object::StateDict(entries) = &mut counted.root else { unreachable!() };
        let name = "stage0.0.convs.0.1.num_batches_tracked".to_owned();
        entries.push((name, Object::Tensor(View::contiguous(count, &[]))));
        assert_formula(&folder.load(&write(&counted), &expected).unwrap(), &expected, Dtype::F32, 0);
    }
}

/// A safetensors file of `parameters` under the formula.
fn safetensors(parameters: &[Parameter], dtype: Dtype, seed: u64) -> Vec<u8> {
    let tensor = |p: &Parameter| formula::tensor(&p.name, &p.shape, seed);
    safetensors::write(dtype, parameters.iter().map(|p| (p.name.as_str(), &p.shape[..], tensor(p))))
}

#[test]
fn safetensors_of_every_type_under_any_name() {
    let (folder, expected) = (Folder::new(), small());
    for dtype in FLOATS {
        let weights = folder.load(&safetensors(&expected, dtype, 6), &expected).unwrap();
        assert_formula(&weights, &expected, dtype, 6);
    }
}

/// The payload begins wherever the header ends.
#[test]
fn safetensors_at_any_alignment() {
    let (folder, expected) = (Folder::new(), small());
    let file = safetensors(&expected, Dtype::F32, 6);
    let (length, rest) = file.split_first_chunk().unwrap();
    let (header, payload) = rest.split_at(u64::from_le_bytes(*length) as usize);
    for padding in 0..4 {
        let length = (header.len() + padding) as u64;
        let shifted = [&length.to_le_bytes(), header, &b"   "[..padding], payload].concat();
        assert_formula(&folder.load(&shifted, &expected).unwrap(), &expected, Dtype::F32, 6);
    }
}

/// A training run's file, written by PyTorch: the averaged network has seed 0, the other 1.
#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn a_real_checkpoint_holds_the_formula_bit_for_bit() {
    let path = fixture("third_party/emo_1m_train.pth");
    let expected = Model::named("emo-1m").unwrap().parameters();
    let weights = load(&path, &expected).unwrap();
    assert_formula(&weights, &expected, Dtype::F32, 0);
    assert_eq!(entry(&weights), Some("net_E"));

    let folder = Folder::new();
    let renamed = folder.write("net.pth", &without_averages(&std::fs::read(&path).unwrap()));
    let weights = load(&renamed, &expected).unwrap();
    assert_formula(&weights, &expected, Dtype::F32, 1);
    assert_eq!(entry(&weights), Some("net"));

    let other = Model::named("emo-2m").unwrap().parameters();
    assert!(fits(&path, &expected) && !fits(&path, &other));
    let error = load(&path, &other).unwrap_err().to_string();
    assert!(error.contains("36 missing, 0 unexpected, 122 misshapen"), "{error}");
    assert!(
        error.contains(
            "misshapen: stage3.0.proj.conv.weight: expected [120, 288, 1, 1], found [80, 288, 1, 1]"
        )
    );
}

/// The same archive, its entry `net_E` under a name of no meaning.
fn without_averages(file: &[u8]) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(file)).unwrap();
    let mut copy = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if let Some(at) = bytes.windows(5).position(|name| name == b"net_E") {
            bytes[at..at + 5].copy_from_slice(b"other");
        }
        copy.start_file(entry.name().unwrap().into_owned(), SimpleFileOptions::default()).unwrap();
        copy.write_all(&bytes).unwrap();
    }
    copy.finish().unwrap().into_inner()
}

#[test]
fn files_that_are_no_checkpoint() {
    let (folder, expected) = (Folder::new(), small());
    let good = checkpoint(&expected, "", Dtype::F32, 0);
    let (zip, legacy) = (good.zip(), good.legacy());
    let tensors = safetensors(&expected, Dtype::F32, 0);
    let empty = Checkpoint { root: Object::Dict(vec![("epoch".into(), Object::Int(300))]), ..good.clone() };
    let big = Checkpoint { big_endian: true, ..good.clone() };
    let integers = checkpoint(&expected, "", Dtype::I64, 0);
    let cases: [(&str, &[u8], &str); 16] = [
        ("empty", b"", "found an empty file"),
        ("text", b"Lorem ipsum dolor sit amet", "expected a checkpoint of torch.save or a safetensors file"),
        ("page", b"<!DOCTYPE html><html>", "the download failed"),
        ("pointer", b"version https://git-lfs.github.com/spec/v1", "run git lfs pull"),
        ("onnx", b"\x08\x08\x12\x07pytorch", "ONNX"),
        ("truncated zip", &zip[..zip.len() / 2], "truncated"),
        ("truncated legacy pickle", &legacy[..200], "truncated"),
        ("truncated legacy storage", &legacy[..legacy.len() - 1], "beyond the end of the file"),
        ("truncated safetensors header", &tensors[..50], "truncated"),
        ("truncated safetensors payload", &tensors[..tensors.len() - 1], "truncated"),
        ("pickle of numbers", b"\x80\x02}X\x05\0\0\0epochM\x2c\x01s.", "no tensor"),
        ("zip without tensors", &empty.zip(), "no tensor"),
        (
            "zip of something else",
            &ZipWriter::new(Cursor::new(Vec::new())).finish().unwrap().into_inner(),
            "data.pkl",
        ),
        ("big-endian zip", &big.zip(), "ig-endian"),
        ("big-endian legacy", &big.legacy(), "ig-endian"),
        (
            "integers",
            &integers.zip(),
            "head.bias: expected elements of type f16, bf16, f32 or f64, found I64",
        ),
    ];
    for (what, bytes, message) in cases {
        let error = folder.refuse(bytes, &expected);
        assert!(error.contains(message), "{what}: {error}");
    }

    let absent = load(&folder.0.path().join("absent.pth"), &expected).unwrap_err().to_string();
    assert!(absent.contains("absent.pth"), "{absent}");
    let directory = load(folder.0.path(), &expected).unwrap_err().to_string();
    assert!(directory.contains(&folder.0.path().display().to_string()), "{directory}");
}

#[test]
fn code_is_named_and_never_run() {
    let (folder, expected) = (Folder::new(), small());
    let proof = folder.0.path().join("proof");
    let call =
        Object::Call { module: "posix", name: "system", argument: format!("touch {}", proof.display()) };
    let good = checkpoint(&expected, "", Dtype::F32, 0);
    let root = Checkpoint { root: call.clone(), ..good.clone() };
    let beside = Checkpoint {
        root: Object::Dict(vec![("net".into(), good.root.clone()), ("hook".into(), call)]),
        ..good
    };
    for file in [root.zip(), root.legacy(), beside.zip(), beside.legacy()] {
        let error = folder.refuse(&file, &expected);
        assert!(error.contains("posix.system") && error.contains("nothing of it was run"), "{error}");
    }
    for (pickle, name) in [
        (&b"cos\nsystem\n(S'true'\ntR."[..], "os.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R0}.", "builtins.eval"),
    ] {
        let error = folder.refuse(pickle, &expected);
        assert!(error.contains(name), "{error}");
    }
    assert!(!proof.exists());
}

#[test]
fn numbers_that_are_not_finite() {
    let folder = Folder::new();
    let expected = [Parameter { name: "head.bias".into(), shape: vec![3] }];
    for (value, dtype) in [(f32::NAN, Dtype::F32), (f32::INFINITY, Dtype::Bf16), (1e6, Dtype::F16)] {
        let spoilt = Checkpoint::state_dict(dtype, [("head.bias", &[3][..], vec![0.0, value, 0.0])]);
        let error = folder.refuse(&spoilt.zip(), &expected);
        assert!(
            error.contains("head.bias: expected finite numbers") && error.ends_with("at element 1"),
            "{error}"
        );
    }
}

#[test]
fn every_difference_is_listed() {
    let (folder, expected) = (Folder::new(), small());
    let mut other = expected.clone();
    other[0].name = "stage0.0.conv.0.0.weight".into();
    other[2].shape = vec![8];
    let error = folder.refuse(&checkpoint(&other, "module.", Dtype::F32, 0).zip(), &expected);
    for line in [
        "1 missing, 1 unexpected, 1 misshapen",
        "missing: stage0.0.convs.0.0.weight (nearest: stage0.0.conv.0.0.weight)",
        "unexpected: stage0.0.conv.0.0.weight",
        "misshapen: norm.norm.weight: expected [7], found [8]",
    ] {
        assert!(error.contains(line), "{error}");
    }

    let mut classes = expected.clone();
    (classes[3].shape, classes[4].shape) = (vec![10, 7], vec![10]);
    let path = folder.write("ten.pth", &checkpoint(&classes, "", Dtype::F32, 0).zip());
    assert!(load(&path, &expected).unwrap_err().to_string().ends_with("it has 10 classes: ask for as many"));
    assert!(fits(&path, &classes) && !fits(&path, &expected));
}

/// Equal content has equal weights and origins, whatever the file's name.
#[test]
fn origins_tell_content_alone() {
    let (folder, expected) = (Folder::new(), small());
    let bytes = checkpoint(&expected, "", Dtype::F32, 0).nested("model").zip();
    let origins: Vec<_> = ["a.pth", "b.bin"]
        .map(|name| load(&folder.write(name, &bytes), &expected).unwrap().origin().to_string())
        .into();
    assert_eq!(origins[0], origins[1]);
    assert!(
        origins[0].starts_with(&format!("model of a file ({} bytes, sha256 ", bytes.len())),
        "{}",
        origins[0]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Damage gives weights or an error, and never wrong shapes.
    #[test]
    fn damaged_files(
        format in 0..3usize,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        truncate: bool,
    ) {
        let (folder, expected) = (Folder::new(), small());
        let good = checkpoint(&expected, "", Dtype::F16, 0);
        let mut bytes = match format {
            0 => good.zip(),
            1 => good.legacy(),
            _ => safetensors(&expected, Dtype::F16, 0),
        };
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(weights) = folder.load(&bytes, &expected) {
            let shapes: BTreeMap<_, _> =
                expected.iter().map(|p| (p.name.as_str(), weights.get(&p.name).unwrap().dims.clone())).collect();
            prop_assert!(expected.iter().all(|p| shapes[p.name.as_str()] == p.shape));
        }
    }
}
