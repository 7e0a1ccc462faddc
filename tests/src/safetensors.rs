//! Safetensors files, to test with and to measure with.

use crate::torch_save::Dtype;

/// A file of a tensor of type `dtype` for each (name, shape, values), in the given order.
///
/// The length of a JSON header, the header, the elements.
pub fn write<'a>(
    dtype: Dtype,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], Vec<f32>)>,
) -> Vec<u8> {
    let kind = match dtype {
        Dtype::F64 => "F64",
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
        Dtype::I64 => "I64",
    };
    let (mut entries, mut payload) = (Vec::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = payload.len();
        payload.extend(dtype.bytes(&values));
        let end = payload.len();
        entries.push(format!(
            r#""{name}":{{"dtype":"{kind}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &payload].concat()
}
