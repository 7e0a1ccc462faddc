//! Memory maps of files that somebody else may change meanwhile.
//!
//! A map shares its pages with the file. Whoever shortens the file takes pages away, and the next access is a
//! signal; whoever writes to it changes what has been judged already. The signal ends the process with a message,
//! and [`settled`] says, before anything is told or written, whether a file is still the one that was opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use memmap2::Mmap;

use crate::plain::plain;
use crate::{Error, Result};

/// What changes with a file: two equal stamps are one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Device, inode and the time of the last change of any kind, which no program can set.
    #[cfg(unix)]
    system: (u64, u64, i64, i64),
}

/// What a file's times tell apart at least: a kernel's tick.
const TICK: Duration = Duration::from_millis(10);
/// Ticks that a file which is being written to is waited for.
const PATIENCE: u32 = 100;

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            system: {
                use std::os::unix::fs::MetadataExt as _;
                (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
            },
        }
    }

    /// Of an opened file, once a later change would show.
    pub fn settling(file: &File) -> io::Result<Self> {
        let mut stamp = Self::of(&file.metadata()?);
        for _ in 0..PATIENCE {
            if stamp.would_tell() {
                break;
            }
            std::thread::sleep(TICK);
            stamp = Self::of(&file.metadata()?);
        }
        Ok(stamp)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is a file at `path` with this stamp.
    pub fn is_of(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| Self::of(&metadata) == *self)
    }

    /// A change within the tick of the last one would not.
    fn would_tell(&self) -> bool {
        let now = SystemTime::now();
        self.modified.and_then(|then| now.duration_since(then).ok()).is_none_or(|age| age > TICK)
    }
}

/// A file that is mapped, by the address of its first byte.
#[derive(Debug)]
struct Mapped {
    bytes: usize,
    path: PathBuf,
    stamp: Stamp,
}

#[derive(Debug, Default)]
struct Table {
    mapped: BTreeMap<usize, Mapped>,
    /// Files that had changed when their map ended.
    changed: BTreeSet<PathBuf>,
}

static TABLE: Mutex<Table> = Mutex::new(Table { mapped: BTreeMap::new(), changed: BTreeSet::new() });

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mapped {
    fn has_changed(&self) -> bool {
        !self.stamp.is_of(&self.path)
    }
}

struct Map(Mmap);

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let ended = table().mapped.remove(&self.0.as_ptr().addr());
        if let Some(ended) = ended.filter(Mapped::has_changed) {
            table().changed.insert(ended.path);
        }
    }
}

/// Whether every file that was mapped holds what it held when it was opened: what was found out is true of it.
///
/// For a program to ask before it tells or writes anything.
///
/// # Errors
/// One was written to, cut short, replaced or deleted.
pub fn settled() -> Result<()> {
    let table = table();
    let now = table.mapped.values().filter(|mapped| mapped.has_changed()).map(|mapped| &mapped.path);
    match now.chain(&table.changed).min() {
        Some(path) => Err(changed(path)),
        None => Ok(()),
    }
}

/// What is said of a file that does not hold still.
pub fn changed(path: &Path) -> Error {
    Error::new(
        "expected a file that nobody writes to, found that it was changed while it was read; try again",
    )
    .at(path.display())
}

/// The bytes of an opened file, which is at `path`, as a map.
pub fn map(file: &File, path: &Path) -> io::Result<Bytes> {
    let stamp = Stamp::settling(file)?;
    if stamp.bytes == 0 {
        return Ok(Bytes::new()); // some systems refuse an empty mapping
    }
    #[cfg(unix)]
    fault::guard();
    #[expect(unsafe_code, reason = "a read-only mapping; what others do to the file is caught")]
    let mapping = unsafe { Mmap::map(file)? };
    let mapped = Mapped { bytes: mapping.len(), path: path.to_owned(), stamp };
    table().mapped.insert(mapping.as_ptr().addr(), mapped);
    Ok(Bytes::from_owner(Map(mapping)))
}

/// Bytes of a piece: a multiple of every page and every element.
const PIECE: usize = 1 << 24;

/// Bytes, a piece at a time. Behind each piece of a mapped file its pages are given back, so that tens of gigabytes are
/// read in the memory of a few pieces.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut read: Option<&[u8]> = None;
    let mut rest = bytes.chunks(PIECE);
    std::iter::from_fn(move || {
        if let Some(read) = read.take().filter(|read| read.len() == PIECE) {
            release(read);
        }
        read = rest.next();
        read
    })
}

/// Gives the pages of a part of a map back; whoever reads them again gets them from the file. Other memory stays.
pub(crate) fn release(bytes: &[u8]) {
    let start = bytes.as_ptr().addr();
    let is_mapped = table()
        .mapped
        .range(..=start)
        .next_back()
        .is_some_and(|(first, mapped)| start + bytes.len() <= first + mapped.bytes);
    #[cfg(unix)]
    if is_mapped {
        fault::release(bytes);
    }
    #[cfg(not(unix))]
    let _ = is_mapped;
}

/// What happens when a page of a map is gone.
#[cfg(unix)]
mod fault {
    #![expect(unsafe_code, reason = "no safe code hears of a page that is gone")]

    use std::sync::Once;

    use super::{TABLE, plain};

    /// Lets an access behind the end of a file end the process with a message, as any other error does.
    pub fn guard() {
        static ONCE: Once = Once::new();
        // SAFETY: the action is initialised whole, and the handler has the signature that SA_SIGINFO asks for.
        ONCE.call_once(|| unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        });
    }

    /// Gives the whole pages of a part of a read-only map of a file back.
    pub fn release(bytes: &[u8]) {
        /// No page that a system has is larger.
        const PAGE: usize = 1 << 16;
        let skipped = bytes.as_ptr().align_offset(PAGE).min(bytes.len());
        let whole = (bytes.len() - skipped) / PAGE * PAGE;
        let start = bytes[skipped..].as_ptr().cast_mut();
        // SAFETY: the range lies in a shared map that nobody writes to, so that dropping its pages loses nothing. What
        // the system refuses stays.
        unsafe {
            libc::madvise(start.cast(), whole, libc::MADV_DONTNEED);
        }
    }

    /// Runs where an access to memory failed: the thread holds no lock of the table, whose holders read no map.
    extern "C" fn handler(_: libc::c_int, info: *const libc::siginfo_t, _: *const libc::c_void) {
        // SAFETY: the kernel passes the description of this signal.
        let address = unsafe { (*info).si_addr() }.addr();
        let path = TABLE.try_lock().ok().and_then(|table| {
            let (start, mapped) = table.mapped.range(..=address).next_back()?;
            (address - start < mapped.bytes.next_multiple_of(1 << 16))
                .then(|| format!("{}: ", plain(&mapped.path.to_string_lossy())))
        });
        let path = path.unwrap_or_default();
        let text = format!(
            "error: {path}expected a file that nobody writes to, found that it was cut short, or that its disk \
             failed, while it was read; try again\n"
        );
        // SAFETY: the bytes are alive; what cannot be written can be told nowhere. Nothing of the process runs on.
        unsafe {
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::_exit(2);
        }
    }
}
