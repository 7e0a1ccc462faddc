//! Everything that a command needs, taken away from it.

use std::fs;
use std::thread;

use super::{REQUESTS, deprived, ground, orderly, rounds};

/// What is taken, by a line of shell, and the stream that is left to say so: exit codes are all that is left without.
const STREAMS: [(&str, bool, bool); 6] = [
    ("exec >&-", false, true),
    ("exec >/dev/full", false, true),
    ("exec 2>&-", true, false),
    ("exec 2>/dev/full", true, false),
    ("exec >&- 2>&-", false, false),
    ("exec >/dev/full 2>/dev/full", false, false),
];

/// A stack that no address space holds: no thread can be started.
const NO_THREADS: (&str, &str) = ("RUST_MIN_STACK", "70368744177664");

fn of_all(check: impl Fn(&[&str]) + Sync) {
    let halves = REQUESTS.split_at(REQUESTS.len() / 2);
    thread::scope(|scope| {
        for half in [halves.0, halves.1] {
            scope.spawn(|| half.iter().for_each(|request| check(request)));
        }
    });
}

#[test]
fn data_that_cannot_be_written_is_an_error_and_talk_is_not() {
    of_all(|request| {
        let folder = ground();
        for (taken, stdout, stderr) in STREAMS {
            let output = deprived(folder.path(), taken, &[], request);
            let what = format!("{request:?} after {taken}");
            let code = output.status.code();
            let said = String::from_utf8_lossy(&output.stderr);
            if stdout {
                assert!(matches!(code, Some(0 | 1)), "{what}: {code:?}");
                assert!(!output.stdout.is_empty(), "{what}");
            } else {
                assert_eq!(code, Some(2), "{what}: {said}");
                assert_eq!(stderr, said.contains("error: ") && said.contains("stdout"), "{what}: {said}");
            }
        }
    });
}

/// A mistake in the arguments, and help, are said by the same streams.
#[test]
fn usage_is_said_as_everything_is() {
    let folder = ground();
    let rows: [(&[&str], &str, i32); 6] = [
        (&["--help"], "exec >/dev/full", 2),
        (&["--help"], "exec >&-", 2),
        (&["--help"], "exec 2>/dev/full", 0),
        (&["--version"], "exec >/dev/full", 2),
        (&["audit"], "exec 2>/dev/full", 2),
        (&["audit", "absent.onnx"], "exec 2>/dev/full", 2),
    ];
    for (request, taken, code) in rows {
        let output = deprived(folder.path(), taken, &[], request);
        assert_eq!(output.status.code(), Some(code), "{request:?} after {taken}");
    }
}

/// A pipe that nobody reads any more ends as if somebody had.
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = ground();
    let piped = "set -o pipefail; \"$@\" | head -c 1; exit";
    let output = deprived(folder.path(), piped, &[], &["dump", "subject.onnx"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 1));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_threads_the_work_is_done_by_one() {
    of_all(|request| {
        let folder = ground();
        let with = deprived(folder.path(), "", &[], request);
        for made in ["made.onnx", "built", "added"] {
            let _ = fs::remove_file(folder.path().join(made));
            let _ = fs::remove_dir_all(folder.path().join(made));
        }
        let without = deprived(folder.path(), "", &[NO_THREADS], request);
        let stderr = String::from_utf8_lossy(&without.stderr);
        assert_eq!(without.status.code(), with.status.code(), "{request:?}: {stderr}");
        // Timings differ from run to run.
        assert!(request[0] == "bench" || without.stdout == with.stdout, "{request:?}");
    });
    let folder = ground();
    let several = ["audit", "subject.onnx", "other.onnx"];
    let output = deprived(folder.path(), "", &[NO_THREADS], &several);
    assert_eq!(orderly(&output, "several files"), 0);
}

/// Memory in KiB, beginning where the program itself is loaded; open files; sizes of files in KiB.
#[test]
fn too_little_of_anything_is_an_error() {
    let memory = [60_000, 75_000, 100_000, 150_000, 250_000, 400_000];
    let step = if rounds(1, 2) > 1 { 1 } else { 3 };
    let memory = memory.iter().step_by(step).map(|most| format!("ulimit -v {most}"));
    let others = ["ulimit -n 4", "ulimit -n 6", "ulimit -f 0", "ulimit -f 1000"].map(str::to_owned);
    let limits: Vec<String> = memory.chain(others).collect();
    of_all(|request| {
        let folder = ground();
        for taken in &limits {
            let output = deprived(folder.path(), taken, &[], request);
            orderly(&output, &format!("{request:?} after {taken}"));
        }
        let writes = ["made.onnx", "built", "added"].iter().any(|made| request.contains(made));
        if writes {
            for made in ["built", "added"] {
                let _ = fs::remove_dir_all(folder.path().join(made));
            }
            let output = deprived(folder.path(), "ulimit -f 100", &[], request);
            assert_eq!(output.status.code(), Some(2), "{request:?}");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(stderr.contains("cannot write: File too large"), "{request:?}: {stderr}");
        }
    });
}
