//! What tests share: goldens, checkpoints that tests write, the command under test.

pub mod golden;
pub mod mutate;
pub mod onnx;
pub mod safetensors;
pub mod torch_save;

use std::path::{Path, PathBuf};

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped(relative: &str) {
    eprintln!("skipped: the fixture {relative} is absent");
}

/// A file of `../shared`, or `None` where that folder is absent: such a test skips, and says
/// so. Where `EMO_REQUIRE_FIXTURES=1` is set a missing file is a failure.
///
/// # Panics
///
/// If the file is missing and fixtures are required.
#[must_use]
pub fn fixture(relative: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(relative);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("EMO_REQUIRE_FIXTURES").is_ok_and(|v| v == "1");
    assert!(!required, "expected the fixture {}, found none", path.display());
    skipped(relative);
    None
}

/// Other toolchains' files of EMO-1M that are right, in `../shared/third_party`.
pub const RIGHT_STRANGERS: [&str; 6] = [
    "emo_1m_torchscript_op13",
    "emo_1m_torchscript_op17_dynamic",
    "emo_1m_dynamo_op18",
    "emo_1m_einops_torchscript_op17",
    "emo_1m_dynamo_op20_onnxslim",
    "emo_1m_fp16",
];

/// Those that are wrong.
pub const WRONG_STRANGERS: [&str; 2] = ["wrong_tiles", "wrong_bn_eps"];

/// A table of `tests/data`, as JSON.
///
/// # Panics
///
/// If it cannot be read.
#[must_use]
pub fn table(name: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
