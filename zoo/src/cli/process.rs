//! What a process may be denied, and that every denial is an exit code and a message.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::{fmt, io, thread};

use emo_proto::file::settled;
use rayon::{ThreadBuilder, ThreadPoolBuilder};

/// Prepares the process: threads as there can be had, signals as errors.
pub fn prepare() {
    #[cfg(unix)]
    signals::prepare();
    emo_verifier::runtime::silence_guarded_panics();
    hire();
}

/// Makes the threads that all work is shared by: as many as can be had, this one where there are none. Left to
/// itself, rayon panics at its first use where one of them cannot be started.
fn hire() {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let wanted = asked.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
    let (send, orders) = mpsc::channel::<ThreadBuilder>();
    let orders = Arc::new(Mutex::new(orders));
    let start = || {
        let orders = Arc::clone(&orders);
        let order = move || orders.lock().ok()?.recv().ok();
        thread::Builder::new().spawn(move || order().map(ThreadBuilder::run)).is_ok()
    };
    let started = (0..wanted).take_while(|_| start()).count();
    let pool = ThreadPoolBuilder::new().num_threads(started.max(1));
    // There is no other pool yet: this is called once, before any work.
    let _ = match started {
        0 => pool.use_current_thread().build_global(),
        _ => pool
            .spawn_handler(|thread| send.send(thread).map_err(|_| io::Error::other("no thread takes work")))
            .build_global(),
    };
}

/// What `work` finds out, if the files that it read are still what it was found out of. A panic is a mistake of ours,
/// unless a file was changed: then it is that.
///
/// # Errors
/// Those of `work`.
pub fn guarded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    settled()?;
    // The panic itself has been told where it happened.
    done.unwrap_or_else(|_| Err(Mistake.into()))
}

/// A panic.
#[derive(Debug)]
pub struct Mistake;

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is a mistake in emo and says nothing of the input; tell its makers what was run")
    }
}

impl std::error::Error for Mistake {}

#[cfg(unix)]
mod signals {
    #![expect(unsafe_code, reason = "signals have no safe form")]

    /// A file that may grow no more is an error of the write, and an abort one that has been told: the standard
    /// library and C++ say what memory they lack before they abort.
    pub fn prepare() {
        let set = |signal, handler| {
            // SAFETY: the handler makes one call that is allowed in a handler, or is the system's own.
            unsafe { libc::signal(signal, handler) };
        };
        set(libc::SIGXFSZ, libc::SIG_IGN);
        set(libc::SIGABRT, end as extern "C" fn(libc::c_int) as libc::sighandler_t);
    }

    extern "C" fn end(_: libc::c_int) {
        // SAFETY: ends the process; nothing of it runs on.
        unsafe { libc::_exit(2) }
    }
}
