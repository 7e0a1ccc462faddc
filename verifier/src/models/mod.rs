//! The models that we know: what is expected of a file, and which model a file is.
//!
//! No layer is listed here by hand. What a model consists of is read off the graph that the exporter builds for it with
//! nothing folded ([`plan`]), by the same walk that reads a third-party file ([`layers`]), and the two are matched along
//! the data ([`recognise`]).

pub mod claim;
pub mod figures;
mod found;
pub mod identity;
pub mod layers;
pub mod plan;
pub mod recognise;
pub mod recover;
pub mod reference;
#[cfg(feature = "engines")]
pub mod truth;
#[cfg(feature = "engines")]
pub mod verify;
pub mod windows;
#[cfg(feature = "engines")]
pub mod written;
