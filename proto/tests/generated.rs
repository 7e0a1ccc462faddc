//! `src/onnx.rs` is what protox and prost-build make of `onnx.proto`; `EMO_BLESS=1` rewrites it.

use std::{env, fs, path::Path};

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = protox::compile([root.join("onnx.proto")], [root]).expect("onnx.proto compiles");
    let out = tempfile::tempdir().expect("a temporary folder");
    prost_build::Config::new()
        .bytes([".onnx.TensorProto.raw_data"])
        // An attribute holds one of these at most, and a large graph has a million attributes.
        .boxed(".onnx.AttributeProto.t")
        .boxed(".onnx.AttributeProto.g")
        .boxed(".onnx.AttributeProto.tp")
        .boxed(".onnx.AttributeProto.sparse_tensor")
        // A large graph has a million nodes, and few of them have every field.
        .extern_path(".onnx.NodeProto", "crate::NodeProto")
        .out_dir(out.path())
        .compile_fds(schema)
        .expect("code is generated");
    let fresh = fs::read_to_string(out.path().join("onnx.rs")).expect("generated code");

    let committed = root.join("src/onnx.rs");
    if env::var_os("EMO_BLESS").is_some() {
        fs::write(&committed, &fresh).expect("src/onnx.rs is written");
    }
    let stale = fs::read_to_string(&committed).unwrap_or_default() != fresh;
    assert!(!stale, "src/onnx.rs is not what onnx.proto generates: run this test with EMO_BLESS=1");
}
