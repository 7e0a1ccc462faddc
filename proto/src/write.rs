//! Writing whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::file::{folder, require_file};
use crate::{Error, Result};

/// Bytes that one call writes.
const PIECE: usize = 1 << 16;
/// How the name of a file that is not finished begins and ends.
const PART: (&str, &str) = (".emo-", ".part");

/// Writes `bytes` to `path` so that an interruption leaves the old file or the new one, and nothing else.
///
/// They go to a file without a name, to the disk, then under the target's name. Where a file system has no
/// nameless files, or a file is there to be replaced, they have another name for a moment; what a process that was
/// killed in it left is cleared away by the next one that writes there. A symbolic link keeps pointing to the file
/// that is replaced.
///
/// # Errors
/// When the folder does not exist or is none, when something other than a regular file has the
/// name, or when the disk refuses; names the path.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_io(path, bytes).map_err(|cause| Error::new(format!("cannot write: {cause}")).at(path.display()))
}

fn write_io(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(io::Error::other("the path names no file"));
    }
    // Through links, lest `/dev/stdout` or a shared model's link be replaced.
    let target = match fs::canonicalize(path) {
        Ok(target) => {
            require_file(&fs::metadata(&target)?)?;
            target
        }
        Err(_) => path.to_owned(), // there is none yet; what else is wrong shows below
    };
    let folder = folder(&target);
    if !fs::metadata(folder).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(io::Error::other(format!("there is no folder {}; create it first", folder.display())));
    }
    sweep(folder);
    #[cfg(target_os = "linux")]
    if nameless(folder, &target, bytes)? {
        return Ok(());
    }
    // The random name of the temporary file is kept out of every message.
    let mut temporary = part().tempfile_in(folder).map_err(|cause| io::Error::from(cause.kind()))?;
    fill(temporary.as_file_mut(), bytes)?;
    temporary.persist(&target).map_err(|failure| failure.error)?;
    Ok(())
}

/// What names a file that is not finished.
fn part() -> tempfile::Builder<'static, 'static> {
    let mut options = tempfile::Builder::new();
    options.prefix(PART.0).suffix(PART.1);
    // As for any new file; the user's umask narrows it.
    #[cfg(unix)]
    options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    options
}

/// Locked, so that nobody takes it for a leftover; in pieces: Linux caches what one call writes in units of its
/// size, and maps such a unit whole for a reader that wants a few bytes of it. An audit reads no weights.
fn fill(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let _ = file.try_lock(); // a file system without locks has leftovers
    for piece in bytes.chunks(PIECE) {
        file.write_all(piece)?;
    }
    file.sync_all()
}

/// Writes by a file that has no name before it is whole; `false` where the file system has none such.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path, target: &Path, bytes: &[u8]) -> io::Result<bool> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
    use rustix::io::Errno;

    let mode = Mode::from_raw_mode(0o666);
    let Ok(file) = open(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode) else {
        return Ok(false);
    };
    let mut file = File::from(file);
    fill(&mut file, bytes)?;
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |name: &Path| linkat(CWD, &own, CWD, name, AtFlags::SYMLINK_FOLLOW);
    match link(target) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => {
            let made = part().make_in(folder, |name| Ok(link(name)?))?;
            made.persist(target).map_err(|failure| failure.error)?;
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}

/// Clears away what processes that were killed left in a folder: files that nobody holds.
pub fn sweep(folder: &Path) {
    let parts = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(PART.0) && name.ends_with(PART.1)
    });
    for part in parts {
        let left = part.file_type().is_ok_and(|kind| kind.is_file())
            && File::open(part.path()).is_ok_and(|file| file.try_lock().is_ok());
        if left {
            // Somebody else may have been faster; a folder that refuses will say so when it is written to.
            let _ = fs::remove_file(part.path());
        }
    }
}
