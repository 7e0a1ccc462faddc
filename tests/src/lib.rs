//! What tests share: goldens, checkpoints that tests write, the command under test.

pub mod golden;
pub mod mutate;
pub mod onnx;
pub mod safetensors;
pub mod torch_save;

use emo_exporter::Export;
use emo_exporter::models::{Definition, MODELS, Model};
use emo_exporter::profile::Profile;
use emo_exporter::target::Target;
use emo_exporter::weights::Spec;
use emo_proto::Result;
use std::path::{Path, PathBuf};

/// A file of `../shared`. A test that needs one says `#[cfg_attr(not(shared), ignore = "…")]`, so that it shows as
/// skipped where that folder is absent, and fails where `EMO_REQUIRE_FIXTURES=1` is set.
///
/// # Panics
///
/// If it is absent.
#[must_use]
pub fn fixture(relative: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(relative);
    assert!(path.exists(), "expected the fixture {}, found none", path.display());
    path
}

/// Other toolchains' files of EMO-1M that are right, in `../shared/third_party`.
pub const RIGHT_THIRD_PARTY: [&str; 6] = [
    "emo_1m_torchscript_op13",
    "emo_1m_torchscript_op17_dynamic",
    "emo_1m_dynamo_op18",
    "emo_1m_einops_torchscript_op17",
    "emo_1m_dynamo_op20_onnxslim",
    "emo_1m_fp16",
];

/// Those that are wrong.
pub const WRONG_THIRD_PARTY: [&str; 2] = ["wrong_tiles", "wrong_bn_eps"];

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

/// The published models of the first family, of which most tests need no more.
pub fn emos() -> impl Iterator<Item = &'static Model> {
    MODELS.iter().filter(|model| matches!(model.definition, Definition::Emo(_)))
}

/// The same, and the smallest of every other family.
#[must_use]
pub fn families() -> Vec<&'static Model> {
    let others = ["emo2-1m", "mobilenetv2-100", "deit-tiny"].into_iter().filter_map(Model::named);
    emos().chain(others).collect()
}

/// A model, and what it is written for.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub model: &'static Model,
    pub target: Target,
}

impl Order {
    #[must_use]
    pub fn new(model: &'static Model, profile: &'static Profile) -> Self {
        Self { model, target: Target::new(profile) }
    }

    /// By their names.
    ///
    /// # Panics
    /// If nothing is called so.
    #[must_use]
    pub fn named(model: &str, profile: &str) -> Self {
        let model = Model::named(model).unwrap_or_else(|| panic!("no model is called {model}"));
        Self::new(model, Profile::named(profile).unwrap_or_else(|| panic!("no profile is called {profile}")))
    }

    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Target)) -> Self {
        change(&mut self.target);
        self
    }

    /// # Errors
    /// The target does not take it, or the weights are another model's.
    pub fn export(&self, weights: &Spec) -> Result<Export> {
        emo_exporter::export(self.model, &self.target, weights)
    }
}
