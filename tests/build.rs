//! Tests that need the files of `../shared` are ignored, and so shown, where that folder is absent.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(shared)");
    println!("cargo::rerun-if-changed=../../shared/README.md");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=EMO_REQUIRE_FIXTURES");
    // Where fixtures are required such tests run, and fail without them.
    let required = std::env::var("EMO_REQUIRE_FIXTURES").is_ok_and(|value| value == "1");
    if required || Path::new("../../shared").is_dir() {
        println!("cargo::rustc-cfg=shared");
    }
}
