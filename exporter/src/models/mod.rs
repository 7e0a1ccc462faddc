//! The published models.

pub mod emo;
mod image;
pub mod mmb;
