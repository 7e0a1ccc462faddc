//! The published models.

pub mod emo;
pub mod mmb;
