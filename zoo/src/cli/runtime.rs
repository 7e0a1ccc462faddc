//! The runtime that files are run in, as verify and bench ask for it.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::anyhow;
use emo_verifier::runtime::{Engine, Options, Runtime};

use super::names;

#[derive(Debug, clap::Args)]
pub struct RuntimeArgs {
    /// tract, ort for ONNX Runtime, or f64 for our own evaluation [default: tract, or ort where its library is named]
    #[arg(
        long,
        value_parser = names::engine(),
        default_value = "tract",
        default_value_if("ort_library", clap::builder::ArgPredicate::IsPresent, "ort"),
        hide_default_value = true
    )]
    runtime: &'static Engine,
    /// The library of ONNX Runtime [default: ORT_DYLIB_PATH, or that of an installed Python package]
    #[arg(long, value_name = "FILE")]
    ort_library: Option<PathBuf>,
}

impl RuntimeArgs {
    /// Without `threads` the runtime decides.
    pub fn open(&self, threads: Option<usize>) -> anyhow::Result<Box<dyn Runtime>> {
        if let (Some(path), other @ ("tract" | "f64")) = (&self.ort_library, self.runtime.name) {
            return Err(anyhow!("--ort-library {}: expected --runtime ort, found {other}", path.display()));
        }
        let options = Options { threads, ort_library: self.ort_library.clone() };
        (self.runtime.open)(&options).map_err(|failure| anyhow!("{failure}"))
    }

    /// As another process takes them.
    pub fn arguments(&self) -> Vec<OsString> {
        let library = self.ort_library.iter().flat_map(|path| ["--ort-library".into(), path.into()]);
        ["--runtime".into(), self.runtime.name.into()].into_iter().chain(library).collect()
    }
}
