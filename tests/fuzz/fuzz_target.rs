//! One fuzz target: the row of the table that is called as this binary is.
#![no_main]

use std::alloc::System;
use std::sync::LazyLock;

#[path = "targets.rs"]
mod targets;

/// Beyond so many bytes at once the process ends, which is a finding.
const MOST_MEMORY: usize = 500 << 20;

#[global_allocator]
static ALLOCATOR: cap::Cap<System> = cap::Cap::new(System, MOST_MEMORY);

static TARGET: LazyLock<&targets::Target> = LazyLock::new(|| {
    let name = env!("CARGO_BIN_NAME");
    targets::TARGETS.iter().find(|target| target.name == name).expect("a row for each binary")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (TARGET.run)(bytes);
});
