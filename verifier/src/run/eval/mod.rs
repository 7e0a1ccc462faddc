//! Every operator in f64: what a file says, without an engine. [`Evaluator`](crate::runtime::Evaluator) runs graphs of them.
//!
//! A row an operator, by family. It is slow beside an engine, and has none of an engine's optimiser: what a fused,
//! quantised or 16-bit graph computes is written here once more, from the operators' definitions.

mod attention;
mod call;
mod control;
mod conv;
mod detection;
mod einsum;
mod elementwise;
mod index;
mod linear;
mod microsoft;
mod movement;
mod node;
mod normalise;
mod pool;
mod quantised;
mod recurrent;
mod reduce;
mod resize;
mod round;
mod table;
mod value;
mod window;

pub(crate) use call::Call;
pub(crate) use node::{constant_node, finish};
pub use round::{Noise, Rounding};
pub(crate) use round::{Step, is_coarse, range};
pub(crate) use table::find;
pub(crate) use value::{MOST_ELEMENTS, Value, limited};

/// Why an operator has no value: what it expected and what it found.
pub(crate) type Why = String;

#[cfg(test)]
mod tests;
