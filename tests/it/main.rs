//! What crosses crates: goldens, exported files, checkpoints, the command line, house rules.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod against;
mod audit;
mod bench;
mod boxes;
mod check;
mod check_runtimes;
mod claims;
mod cli;
mod coarse;
mod command;
mod corpus;
mod cost;
mod dense;
mod dump;
mod eval;
mod exports;
mod families;
mod fire;
mod goldens;
mod heads;
mod hostile;
mod house;
mod infer;
mod lint;
mod lint_command;
mod own;
mod own_profiles;
mod parameters;
mod profiles;
mod reexport;
mod runtime;
mod scale;
mod small_inputs;
mod snapshots;
mod tiny;
mod traps;
mod tricks;
mod verify;
mod verify_command;
mod weights;
mod zoo;
