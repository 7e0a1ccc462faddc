//! Any model: shapes and counts, or reasons why not; within bounded time.
#![no_main]

use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_verifier::infer::{Bindings, infer};

libfuzzer_sys::fuzz_target!(|bytes: Vec<u8>| {
    let Ok(file) = OnnxFile::from_bytes(bytes.into(), External::none()) else { return };
    let inference = infer(&file.model, &Bindings::new());
    let _ = emo_verifier::recognise::recognise(&inference);
});
