//! Judges ONNX files: what they cost, whether they are what they claim to be.
//!
//! The judge reads bytes and trusts nothing that their writer says. [`audit`] counts any
//! file whose operators are in the table ([`ops`]); [`models::figures`] holds the published figures;
//! [`mod@reference`] computes EMO from the paper in f64, sharing no code with the exporter;
//! [`runtime`] runs files; [`compare`] measures and names tolerances.
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

pub mod compare;
pub mod constants;
#[cfg(feature = "data")]
pub mod data;
pub mod earned;
pub mod eval;
pub mod identity;
pub mod image;
pub mod lower;
pub mod models;
pub mod path;
pub mod probe;
#[cfg(feature = "engines")]
pub mod range;
pub mod reference;
pub mod runtime;
#[cfg(feature = "engines")]
pub mod truth;
#[cfg(feature = "engines")]
pub mod verify;
#[cfg(feature = "engines")]
pub mod written;

// What reads files without running them is a crate of its own, without engines and without models.
pub use emo_inspect::{
    audit, budget, check, cost, diff, fact, finding, infer, lint, memory, ops, plot, real, report, schema,
    sym,
};
