//! What tensors refuse, and what survives a round trip.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use emo_proto::tensor::{DataType, External, Tensor};
use emo_proto::tensor_proto::{DataLocation, Segment};
use emo_proto::{Bytes, Message, ModelProto, TensorProto};
use proptest::collection::vec;
use proptest::prelude::*;

const ELEMENTS: &[u8] = include_bytes!("data/elements.onnx");

/// A sound tensor named `w`, to be spoiled.
fn proto(dtype: DataType, dims: &[i64]) -> TensorProto {
    let (name, data_type, dims) = (Some("w".to_owned()), Some(dtype.into()), dims.to_vec());
    TensorProto { name, data_type, dims, ..TensorProto::default() }
}

#[test]
fn contradictions_are_errors_that_name_the_tensor() {
    let raw = |bytes: &'static [u8]| Some(Bytes::from_static(bytes));
    let float = |dims: &[i64]| proto(DataType::Float, dims);
    let typed = |dtype, values: &[i32]| TensorProto { int32_data: values.to_vec(), ..proto(dtype, &[1]) };
    let cases = [
        (TensorProto { raw_data: raw(&[0; 7]), ..float(&[2]) }, "expected 8 bytes for FLOAT [2], found 7"),
        (TensorProto { raw_data: raw(&[0; 9]), ..float(&[2]) }, "expected 8 bytes for FLOAT [2], found 9"),
        (float(&[2]), "expected 8 bytes for FLOAT [2], found 0"),
        (TensorProto { float_data: vec![0.0; 3], ..float(&[2]) }, "expected 8 bytes for FLOAT [2], found 12"),
        (float(&[2, -1]), "expected a dimension of 0 or more, found -1"),
        (
            float(&[i64::MAX, 2]),
            "expected a tensor that fits in memory, found dimensions [9223372036854775807, 2]",
        ),
        (float(&[i64::MAX, i64::MAX, 0]), "expected a tensor that fits in memory"),
        (
            TensorProto { data_type: Some(29), ..float(&[]) },
            "expected an element type of the ONNX schema, found number 29",
        ),
        (TensorProto { data_type: None, ..float(&[]) }, "expected elements of a fixed size, found UNDEFINED"),
        (
            TensorProto { string_data: vec![b"a".to_vec()], ..proto(DataType::String, &[1]) },
            "expected elements of a fixed size, found STRING",
        ),
        (
            TensorProto { segment: Some(Segment::default()), ..float(&[]) },
            "expected a whole tensor, found a segment",
        ),
        (
            TensorProto { raw_data: raw(&[0; 4]), float_data: vec![0.0], ..float(&[1]) },
            "expected one payload, found both raw_data and float_data",
        ),
        (
            TensorProto { double_data: vec![0.0], float_data: vec![0.0], ..float(&[1]) },
            "expected one payload, found both float_data and double_data",
        ),
        (
            TensorProto {
                raw_data: raw(&[0; 4]),
                data_location: Some(DataLocation::External.into()),
                ..float(&[1])
            },
            "expected one payload, found both raw_data and external data",
        ),
        (
            TensorProto { double_data: vec![0.0], ..float(&[1]) },
            "expected the payload of FLOAT in float_data, found it in double_data",
        ),
        (
            TensorProto { data_location: Some(2), ..float(&[0]) },
            "expected a data location of the ONNX schema, found number 2",
        ),
        (typed(DataType::Int8, &[128]), "expected INT8 stored as -128 to 127, found 128"),
        (typed(DataType::Bool, &[2]), "expected BOOL stored as 0 to 1, found 2"),
        (typed(DataType::Float16, &[-1]), "expected FLOAT16 stored as 0 to 65535, found -1"),
        (typed(DataType::Int4, &[256]), "expected INT4 stored as 0 to 255, found 256"),
        (typed(DataType::Float6e2m3, &[64]), "expected FLOAT6E2M3 stored as 0 to 63, found 64"),
        (
            TensorProto { uint64_data: vec![1 << 32], ..proto(DataType::Uint32, &[1]) },
            "expected UINT32 stored as 0 to 4294967295, found 4294967296",
        ),
    ];
    for (proto, expected) in cases {
        let error = Tensor::decode(&proto, &External::none()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("tensor \"w\": {expected}")), "{error}");
    }
}

#[test]
fn lengths_are_checked_on_the_way_in() {
    let error = Tensor::from_f32(vec![2, 2], vec![0.0; 3]).unwrap_err().to_string();
    assert_eq!(error, "expected 16 bytes for FLOAT [2, 2], found 12");
    assert!(Tensor::from_i64(vec![], &[]).is_err());
    assert!(Tensor::new(DataType::String, vec![0], Bytes::new()).is_err());
    assert!(Tensor::new(DataType::Float, vec![usize::MAX, 0], Bytes::new()).is_err());
}

#[test]
fn scalars_and_empty_tensors() {
    let scalar = Tensor::from_i64(vec![], &[-7]).unwrap();
    assert_eq!((scalar.len(), scalar.i64s().unwrap()), (1, vec![-7]));
    let empty = Tensor::decode(&proto(DataType::Float, &[3, 0]), &External::none()).unwrap();
    assert!(empty.is_empty());
    assert_eq!(empty.f64s().unwrap(), [0.0; 0]);
}

#[test]
fn large_unsigned_integers_do_not_wrap() {
    let bytes = Bytes::copy_from_slice(&u64::MAX.to_le_bytes());
    let error = Tensor::new(DataType::Uint64, vec![1], bytes).unwrap().i64s().unwrap_err().to_string();
    assert_eq!(error, "expected at most 9223372036854775807, found 18446744073709551615");
}

/// Both views of every 16-bit float agree, so the narrower one loses nothing.
#[test]
fn sixteen_bit_floats_widen_exactly() {
    let bytes: Bytes = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for dtype in [DataType::Float16, DataType::Bfloat16] {
        let tensor = Tensor::new(dtype, vec![1 << 16], bytes.clone()).unwrap();
        for (double, single) in tensor.f64s().unwrap().into_iter().zip(tensor.f32s().unwrap()) {
            assert!(double == f64::from(single) || (double.is_nan() && single.is_nan()), "{double} {single}");
        }
    }
}

/// Through the bytes of a file, at any alignment.
fn round_trip(tensor: &Tensor, pad: usize) -> Tensor {
    let mut bytes = vec![0; pad];
    bytes.extend(tensor.encode("w").encode_to_vec());
    let proto = TensorProto::decode(Bytes::from(bytes).slice(pad..)).unwrap();
    assert_eq!(proto.name(), "w");
    Tensor::decode(&proto, &External::none()).unwrap()
}

/// Everything that a reader may ask of a tensor; none of it may panic.
fn read(proto: &TensorProto) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    if let Ok(tensor) = Tensor::decode(proto, &External::folder(&folder)) {
        let len = tensor.len();
        assert!(tensor.f64s().is_ok_and(|values| values.len() == len) || tensor.f64s().is_err());
        assert!(tensor.i64s().is_ok_and(|values| values.len() == len) || tensor.i64s().is_err());
        assert_eq!(round_trip(&tensor, 0).bytes(), tensor.bytes());
    }
}

fn read_model(bytes: Vec<u8>) {
    if let Ok(ModelProto { graph: Some(graph), .. }) = ModelProto::decode(Bytes::from(bytes)) {
        graph.initializer.iter().for_each(read);
    }
}

proptest! {
    #[test]
    fn floats_round_trip(bits in vec(any::<u32>(), 0..40), pad in 0_usize..4) {
        let values: Vec<f32> = bits.iter().copied().map(f32::from_bits).collect();
        let back = round_trip(&Tensor::from_f32(vec![1, bits.len()], values).unwrap(), pad);
        prop_assert_eq!(&back.dims, &[1, bits.len()]);
        let values: Vec<u32> = back.bytes().as_chunks().0.iter().copied().map(u32::from_le_bytes).collect();
        prop_assert_eq!(values, bits);
    }

    #[test]
    fn integers_round_trip(values in vec(any::<i64>(), 0..40), pad in 0_usize..8) {
        let back = round_trip(&Tensor::from_i64(vec![values.len()], &values).unwrap(), pad);
        prop_assert_eq!(back.i64s().unwrap(), values);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_model(bytes);
    }

    #[test]
    fn damaged_files_are_read_without_panic(
        damage in vec((0..ELEMENTS.len(), any::<u8>()), 1..20),
        end in 0..=ELEMENTS.len(),
    ) {
        let mut bytes = ELEMENTS.to_vec();
        for (place, byte) in damage {
            bytes[place] = byte;
        }
        read_model(bytes.clone());
        bytes.truncate(end);
        read_model(bytes);
    }

    #[test]
    fn damaged_tensors_are_read_without_panic(
        which in 0_usize..81,
        dims in vec(prop_oneof![-2_i64..8, any::<i64>()], 0..4),
        data_type in prop::option::of(-1..31),
        raw in prop::option::of(vec(any::<u8>(), 0..40)),
        ints in vec(any::<i32>(), 0..3),
        place in prop::option::of(-1..3),
    ) {
        let graph = ModelProto::decode(ELEMENTS).unwrap().graph.unwrap();
        let mut tensor = graph.initializer[which].clone();
        tensor.dims = dims;
        tensor.data_type = data_type.or(tensor.data_type);
        tensor.raw_data = raw.map(Bytes::from).or(tensor.raw_data);
        tensor.int32_data.extend(ints);
        tensor.data_location = place.or(tensor.data_location);
        read(&tensor);
    }
}
