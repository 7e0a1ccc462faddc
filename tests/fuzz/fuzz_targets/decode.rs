//! Any bytes: a model or an error, every tensor of it elements or an error.
#![no_main]

use emo_proto::file::OnnxFile;
use emo_proto::tensor::{External, Tensor};

libfuzzer_sys::fuzz_target!(|bytes: Vec<u8>| {
    let Ok(file) = OnnxFile::from_bytes(bytes.into(), External::none()) else { return };
    for tensor in file.model.graph.iter().flat_map(|graph| &graph.initializer) {
        if let Ok(tensor) = Tensor::decode(tensor, &file.external) {
            let _ = (tensor.f64s(), tensor.i64s());
        }
    }
});
