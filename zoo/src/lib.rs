//! Releases with their evidence ([`manifest`]), and the command line `emo`.

#[cfg(feature = "engines")]
pub mod cli;
pub mod manifest;
mod pattern;
