//! Any ONNX file, run: engines, inputs, comparison, tolerances, and two files held against one another. It knows no model.

#[cfg(feature = "engines")]
pub mod against;
pub mod boxes;
pub mod compare;
pub mod constants;
#[cfg(feature = "data")]
pub mod data;
pub mod earned;
pub mod eval;
pub mod failure;
pub mod image;
pub mod lower;
#[cfg(feature = "engines")]
pub mod opinion;
pub mod path;
pub mod plain;
pub mod probe;
pub mod quiet;
#[cfg(feature = "engines")]
pub mod range;
pub mod runtime;
pub mod tolerance;
