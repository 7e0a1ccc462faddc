//! Builds that do not end: killed, or on a full disk.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use emo_zoo::manifest::MANIFEST;
use tempfile::TempDir;

use super::{SMALL, build, built, digests, findings, manifest_of};
use crate::command::EMO;

/// SIGKILL at random moments: what a manifest names is whole at any time, and the end is that of a build that
/// nobody disturbed.
#[test]
fn a_killed_build_goes_on_where_it_stopped() {
    const KILLS: u32 = 20;
    let expected = digests(&built().path().join("zoo"));
    let mut folder = TempDir::new().unwrap();
    let start = Instant::now();
    assert_eq!(build(&folder, &[]).0, 0);
    let mut whole = start.elapsed();
    assert_eq!(digests(&folder.path().join("zoo")), expected);
    folder = TempDir::new().unwrap();

    // A multiplicative generator: the moments are the same in every run.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let (mut kills, mut recorded) = (0, 0);
    for turn in 0..4 * KILLS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let share = (seed >> 32) as f64 / f64::from(u32::MAX);
        let recorded_before = fs::read(folder.path().join("zoo").join(MANIFEST)).ok();
        let mut child = Command::new(EMO)
            .args(["zoo", "build", "--out", "zoo"])
            .args(SMALL)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let wait = |child: &mut Child, until: &dyn Fn() -> bool| {
            while !until() && child.try_wait().unwrap().is_none() {
                thread::sleep(Duration::from_millis(1));
            }
        };
        // Any moment, or one soon after a file was recorded: a busy machine gets on in these.
        let (from, moment) = if turn % 2 == 0 {
            (Instant::now(), whole.mul_f64(share))
        } else {
            let manifest = folder.path().join("zoo").join(MANIFEST);
            wait(&mut child, &|| fs::read(&manifest).ok() != recorded_before);
            (Instant::now(), whole.mul_f64(share / 8.0))
        };
        wait(&mut child, &|| from.elapsed() >= moment);
        let finished = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        kills += u32::from(!finished);
        if folder.path().join("zoo").join(MANIFEST).exists() {
            recorded += 1;
            let whole = findings(&folder, i32::from(leftovers(&folder, &expected)), &[]);
            assert!(whole.iter().all(|[_, code, _]| code == "stray"), "{whole:?}");
        }
        if kills == KILLS {
            break;
        }
        if finished {
            // The machine is less busy than it was.
            whole = whole.min(from.elapsed());
            assert_eq!(digests(&folder.path().join("zoo")), expected);
            folder = TempDir::new().unwrap();
        }
    }
    assert!(kills == KILLS && recorded > 0, "{kills} kills, {recorded} with a manifest");
    assert_eq!(build(&folder, &[]).0, 0);
    assert_eq!(digests(&folder.path().join("zoo")), expected);
}

/// Whether a killed build left what no manifest names yet.
fn leftovers(folder: &TempDir, expected: &BTreeMap<PathBuf, String>) -> bool {
    let named: Vec<_> = manifest_of(folder)
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["model_path"].as_str().unwrap().into())
        .collect();
    let there = digests(&folder.path().join("zoo"));
    there
        .keys()
        .any(|path| !named.contains(path) && path != Path::new(MANIFEST) || !expected.contains_key(path))
}

/// A file system with room for one file: it is recorded, the other refused, and with more room the build ends as
/// if nothing had been.
#[test]
fn a_full_disk_loses_nothing() {
    let expected = digests(&built().path().join("zoo"));
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("disk")).unwrap();
    let build = format!("{EMO} zoo build --out disk {}", SMALL.join(" "));
    let script = format!(
        "mount -t tmpfs -o size=8m tmpfs disk || exit 77; {build}; code=$?; cp -r disk zoo; exit $code"
    );
    let output =
        Command::new("unshare").args(["--mount", "bash", "-c", &script]).current_dir(folder.path()).output();
    match output {
        Ok(output) if output.status.code() == Some(2) => {
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(stderr.contains("cannot write"), "{stderr}");
            let there = digests(&folder.path().join("zoo"));
            assert!(there.keys().all(|path| expected.contains_key(path)), "{there:?}");
            assert_eq!(findings(&folder, 0, &[]), Vec::<[String; 3]>::new());
            assert_eq!(manifest_of(&folder).as_array().unwrap().len(), 1);
        }
        // Who may not mount has a limit on the size of files, which no model fits.
        _ => {
            let script = format!("trap '' XFSZ; ulimit -f 1000; exec {build}");
            let output =
                Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
            assert_eq!(output.status.code(), Some(2));
            assert!(!folder.path().join("disk").join(MANIFEST).exists());
            fs::rename(folder.path().join("disk"), folder.path().join("zoo")).unwrap();
        }
    }
    assert_eq!(self::build(&folder, &[]).0, 0);
    assert_eq!(digests(&folder.path().join("zoo")), expected);
}
