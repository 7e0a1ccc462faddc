//! A graph and what is known of it before it runs: shapes, types, constants, and the work of every node.

pub mod cost;
pub mod fact;
pub(crate) mod hash;
pub mod infer;
pub mod ops;
pub mod real;
pub(crate) mod recent;
pub mod schema;
pub mod sym;
pub(crate) mod typed;
