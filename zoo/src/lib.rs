//! Releases with their evidence ([`manifest`]), and the command line `emo`.

pub mod cli;
pub mod manifest;
