//! Reads any ONNX file without running it: what it costs, whether it is valid, what a runtime would make of it.
//!
//! It knows no model and no engine. Its rooms, from below: [`mod@graph`] and its analysis, [`mod@report`]s, [`mod@stats`],
//! [`mod@check`]s, and [`mod@lint`], which holds a file to the row of a target.
//!
//! ```
//! use emo_inspect::audit::audit;
//! use emo_proto::ModelProto;
//!
//! let audit = audit(&ModelProto::default(), &Default::default());
//! assert_eq!(audit.totals.params.count(), Some(0));
//! ```

pub mod check;
pub mod graph;
pub mod lint;
pub mod report;
pub mod stats;

pub use graph::{cost, fact, infer, ops, real, schema, sym};
pub(crate) use graph::{hash, recent, typed};
pub use report::finding;
pub use stats::{audit, budget, diff, memory, plot};
