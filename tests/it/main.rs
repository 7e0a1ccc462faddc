//! What crosses crates: goldens, exported files, checkpoints, the command line, house rules.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cli;
mod exports;
mod goldens;
mod house;
mod profiles;
mod weights;
