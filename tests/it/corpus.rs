//! The fuzz targets' corpora, replayed: no input of theirs panics, here as under the fuzzer.

use std::fs;
use std::path::Path;

use emo_proto::file::OnnxFile;
use emo_proto::tensor::{External, Tensor};
use emo_verifier::recognise::recognise;

use crate::hostile::survive;

#[test]
fn corpora_decode_and_infer() {
    for (target, least) in [("decode", 20), ("infer", 200)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut models = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            let Ok(file) = OnnxFile::from_bytes(bytes.into(), External::none()) else { continue };
            for tensor in file.model.graph.iter().flat_map(|graph| &graph.initializer) {
                let _ = Tensor::decode(tensor, &file.external).map(|t| (t.f64s(), t.i64s()));
            }
            let inference = survive(&file.model);
            assert!(recognise(&inference).is_err(), "an operator case is no EMO");
            models += 1;
        }
        assert!(models >= least, "{target}: {models} models");
    }
}
