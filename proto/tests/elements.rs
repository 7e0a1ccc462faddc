//! Every element type in every place, as the `onnx` package wrote them (`data/elements.py`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use emo_proto::file::{self, OnnxFile};
use emo_proto::tensor::{DataType, External, Tensor};

const FLOATS: [(&str, [f64; 5]); 12] = [
    ("FLOAT", [0.0, -0.0, 1.5, -2.25, f32::MAX as f64]),
    ("DOUBLE", [0.0, -0.0, 0.1, -1e300, 16777217.0]),
    ("FLOAT16", [0.0, -0.0, 1.5, -65504.0, 5.960464477539063e-08]),
    ("BFLOAT16", [0.0, -0.0, 1.5, -128.0, 1.0078125]),
    ("FLOAT8E4M3FN", [0.0, 1.0, -1.5, 448.0, -0.0]),
    ("FLOAT8E4M3FNUZ", [0.0, 1.0, -1.5, 240.0, 2.0]),
    ("FLOAT8E5M2", [0.0, 1.0, -1.5, 57344.0, -0.0]),
    ("FLOAT8E5M2FNUZ", [0.0, 1.0, -1.5, 57344.0, 2.0]),
    ("FLOAT8E8M0", [1.0, 2.0, 0.5, 4.0, 1024.0]),
    ("FLOAT4E2M1", [0.0, 1.0, -1.5, 6.0, 0.5]),
    ("FLOAT6E2M3", [0.0, 1.0, -1.5, 7.5, 0.125]),
    ("FLOAT6E3M2", [0.0, 1.0, -1.5, 28.0, 0.0625]),
];

const INTEGERS: [(&str, [i64; 5]); 13] = [
    ("INT8", [0, 1, -1, 127, -128]),
    ("INT16", [0, 1, -1, 32767, -32768]),
    ("INT32", [0, 1, -1, 2147483647, -2147483648]),
    ("INT64", [0, 1, -1, i64::MAX, i64::MIN]),
    ("UINT8", [0, 1, 2, 254, 255]),
    ("UINT16", [0, 1, 2, 65534, 65535]),
    ("UINT32", [0, 1, 2, 4294967294, 4294967295]),
    ("UINT64", [0, 1, 2, 4294967296, i64::MAX]),
    ("BOOL", [1, 0, 0, 1, 1]),
    ("UINT4", [0, 1, 2, 14, 15]),
    ("INT4", [0, 1, -1, 7, -8]),
    ("UINT2", [0, 1, 2, 3, 1]),
    ("INT2", [0, 1, -1, -2, 1]),
];

/// Types that keep their bytes and have no real numbers to give.
const OPAQUE: [&str; 2] = ["COMPLEX64", "COMPLEX128"];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn elements() -> OnnxFile {
    file::open(&data().join("elements.onnx")).unwrap()
}

fn read(onnx: &OnnxFile, name: &str) -> Tensor {
    let tensors = &onnx.model.graph.as_ref().unwrap().initializer;
    let tensor = tensors.iter().find(|tensor| tensor.name() == name).unwrap();
    Tensor::decode(tensor, &onnx.external).unwrap()
}

/// The tensor from all three places, which must agree.
fn read_all(onnx: &OnnxFile, dtype: &str) -> Tensor {
    let [typed, raw, external] =
        ["typed", "raw", "external"].map(|place| read(onnx, &format!("{dtype}/{place}")));
    assert_eq!(raw.dtype.as_str_name(), dtype);
    assert_eq!(raw.dims, [1, 5], "{dtype}");
    assert_eq!(raw.len(), 5, "{dtype}");
    assert_eq!(raw.bytes(), typed.bytes(), "{dtype}");
    assert_eq!(raw.bytes(), external.bytes(), "{dtype}");
    raw
}

#[test]
fn every_type_is_in_the_table() {
    let mut tested: Vec<_> = FLOATS.map(|row| row.0).to_vec();
    tested.extend(INTEGERS.map(|row| row.0));
    tested.extend(OPAQUE);
    tested.extend(["UNDEFINED", "STRING"]);
    for dtype in (0..).map_while(|number| DataType::try_from(number).ok()) {
        assert!(tested.contains(&dtype.as_str_name()), "{dtype:?}");
    }
}

#[test]
fn floats_equal_what_was_written() {
    let onnx = elements();
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for (dtype, expected) in FLOATS {
        let tensor = read_all(&onnx, dtype);
        assert_eq!(bits(&tensor.f64s().unwrap()), bits(&expected), "{dtype}");
        let rounded = expected.map(|value| value as f32);
        assert_eq!(tensor.f32s().unwrap(), rounded, "{dtype}");
        let error = tensor.i64s().unwrap_err().to_string();
        assert_eq!(error, format!("expected elements of an integer type or BOOL, found {dtype}"));
        let single = tensor.into_f32().unwrap();
        assert_eq!((single.dtype, single.f32s().unwrap()), (DataType::Float, rounded.to_vec()), "{dtype}");
    }
}

/// Each code of each type of 8 bits or less, as `data/codes.py` had it from ml_dtypes.
#[test]
fn every_code_of_a_small_float_equals_ml_dtypes() {
    let table = std::fs::read_to_string(data().join("codes.txt")).unwrap();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let dtype = DataType::from_str_name(words.next().unwrap()).unwrap();
        let expected: Vec<f32> = words.map(|w| f32::from_bits(u32::from_str_radix(w, 16).unwrap())).collect();
        let width = expected.len().ilog2() as usize;
        let mut bytes = vec![0_u8; expected.len() * width / 8];
        for (code, bit) in (0..expected.len()).flat_map(|code| (0..width).map(move |bit| (code, bit))) {
            let at = code * width + bit;
            bytes[at / 8] |= u8::from(code >> bit & 1 == 1) << (at % 8);
        }
        let tensor = Tensor::new(dtype, vec![expected.len()], bytes.into()).unwrap();
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        let found = tensor.f32s().unwrap();
        assert!(found.iter().zip(&expected).all(same), "{dtype:?}: {found:?}");
    }
}

#[test]
fn integers_equal_what_was_written() {
    let onnx = elements();
    for (dtype, expected) in INTEGERS {
        let tensor = read_all(&onnx, dtype);
        assert_eq!(tensor.i64s().unwrap(), expected, "{dtype}");
        let error = tensor.f64s().unwrap_err().to_string();
        assert_eq!(error, format!("expected elements of a float type, found {dtype}"));
    }
}

#[test]
fn other_types_keep_their_bytes() {
    let onnx = elements();
    for dtype in OPAQUE {
        let tensor = read_all(&onnx, dtype);
        assert!(tensor.f64s().is_err() && tensor.i64s().is_err() && tensor.into_f32().is_err(), "{dtype}");
    }
}

#[test]
fn payloads_are_shared_with_the_file() {
    let onnx = elements();
    let within = |bytes: &[u8]| onnx.bytes.as_ptr_range().contains(&bytes.as_ptr());
    let raw = read(&onnx, "FLOAT/raw");
    assert!(within(raw.bytes()));
    assert!(within(raw.encode("again").raw_data()));
    assert!(within(raw.into_f32().unwrap().bytes()));
    assert!(!within(read(&onnx, "FLOAT/typed").bytes()));

    // Two tensors of one external file come from one mapping.
    let [first, second] = ["FLOAT", "DOUBLE"].map(|dtype| read(&onnx, &format!("{dtype}/external")));
    let gap = second.bytes().as_ptr() as usize - first.bytes().as_ptr() as usize;
    assert_eq!(gap, first.bytes().len() + 1);
}

#[test]
fn external_data_needs_a_folder() {
    let onnx = OnnxFile::from_bytes(elements().bytes, External::none()).unwrap();
    let outside = onnx.model.graph.unwrap().initializer.swap_remove(2);
    let error = Tensor::decode(&outside, &onnx.external).unwrap_err().to_string();
    assert!(error.starts_with("tensor \"FLOAT/external\": external data \"elements.bin\": "), "{error}");
}
