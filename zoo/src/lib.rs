//! Releases, and the command line `emo`.

pub mod cli;
