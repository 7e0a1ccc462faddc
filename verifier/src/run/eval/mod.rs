//! Our own evaluation of any graph, in f64: what a file says, without an engine.
//!
//! A row an operator, by family. It is slow beside an engine, and has none of an engine's optimiser: what a fused,
//! quantised or 16-bit graph computes is written here once more, from the operators' definitions.

mod attention;
mod call;
mod control;
mod conv;
mod einsum;
mod elementwise;
mod index;
mod linear;
mod microsoft;
mod movement;
mod normalise;
mod pool;
mod quantised;
mod recurrent;
mod reduce;
mod resize;
mod round;
mod run;
mod table;
mod value;
mod window;

pub(crate) use round::range;
pub use round::{Noise, Rounding};
pub use run::Evaluator;
pub(crate) use run::{NAME, coarse, constant_node};
pub(crate) use value::Value;

/// Why an operator has no value: what it expected and what it found.
type Why = String;

#[cfg(test)]
mod tests;
