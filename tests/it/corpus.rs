//! The fuzz targets' corpora, replayed: what holds under the fuzzer holds here.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{set_hook, take_hook};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use targets::TARGETS;

/// The fuzzer's patience with one input.
const SOON: Duration = Duration::from_secs(20);
/// Bytes of an input, and of a corpus, which everybody downloads.
const LARGEST: u64 = 1 << 16;
const LARGEST_CORPUS: u64 = 300_000;

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn corpora_are_read_soon_and_without_a_panic() {
    // Also those that a guard turns into an error.
    let before = take_hook();
    set_hook(Box::new(move |panic| {
        PANICS.set(PANICS.get() + 1);
        before(panic);
    }));
    for target in TARGETS {
        let (mut inputs, mut read, mut total) = (0, 0, 0);
        for entry in fs::read_dir(fuzz().join("corpus").join(target.name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            total += bytes.len() as u64;
            assert!(bytes.len() as u64 <= LARGEST, "{}", path.display());
            let start = Instant::now();
            read += usize::from((target.run)(&bytes));
            inputs += 1;
            assert_eq!(PANICS.get(), 0, "{}", path.display());
            assert!(start.elapsed() < SOON, "{} took {:?}", path.display(), start.elapsed());
        }
        assert!(total <= LARGEST_CORPUS, "{}: {total} bytes", target.name);
        // Neither noise alone nor right files alone.
        assert!(read >= 3 && read < inputs, "{}: {read} of {inputs} are what it reads", target.name);
    }
}

#[test]
fn every_target_has_a_binary_and_a_corpus() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let binaries = manifest.split("[[bin]]").skip(1);
    let binaries: BTreeSet<&str> = binaries.map(|table| table.split('"').nth(1).unwrap()).collect();
    let folders = fs::read_dir(fuzz().join("corpus")).unwrap();
    let folders: BTreeSet<String> =
        folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let rows: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(rows, binaries);
    assert_eq!(rows, folders.iter().map(String::as_str).collect());
}
