//! Judges ONNX files: what they cost, whether they are what they claim to be.
//!
//! The judge reads bytes and trusts nothing that their writer says. It has two rooms: [`mod@run`] runs and compares any
//! file and knows no model; [`mod@models`] knows those that we know: [`models::figures`] holds the published figures,
//! [`mod@reference`] computes them from their papers in f64, sharing no code with the exporter, and [`verify`] gives the
//! verdict. What only reads a file ([`audit`], [`check`], [`lint`]) comes from the crate below.
//!
//! ```
//! use emo_exporter::models::Model;
//! use emo_exporter::target::Target;
//! use emo_exporter::{profile::Profile, weights::Spec};
//! use emo_proto::file::OnnxFile;
//!
//! let (model, target) = (Model::named("emo-1m").unwrap(), Target::new(Profile::reference()));
//! let export = emo_exporter::export(model, &target, &Spec::Formula(0))?;
//!
//! let file = OnnxFile::from_bytes(export.bytes.into(), emo_proto::tensor::External::none())?;
//! let audit = emo_verifier::audit::audit(&file.model, &Default::default());
//! assert_eq!(audit.totals.params.count(), Some(1_361_168));
//! assert_eq!(audit.totals.cost.fvcore.count(), Some(260_843_664));
//! # Ok::<(), emo_proto::Error>(())
//! ```

pub mod models;
pub mod run;

// What reads files without running them is a crate of its own, without engines and without models.
pub use emo_inspect::{
    audit, budget, check, cost, diff, fact, finding, infer, lint, memory, ops, plot, real, report, schema,
    sym,
};
pub use models::{identity, reference};
#[cfg(feature = "engines")]
pub use models::{truth, verify, written};
#[cfg(feature = "data")]
pub use run::data;
#[cfg(feature = "engines")]
pub use run::{against, opinion, range};
pub use run::{boxes, compare, constants, earned, eval, image, lower, path, probe, runtime, tolerance};
