//! Progress on stderr, silent where stderr is no terminal.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use emo_proto::plain::plain;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::streams::is_watched;

const SPINNER: &str = "{spinner} {msg} {elapsed}";

/// A spinner that says what is being done; it is gone when dropped.
pub struct Progress {
    bar: ProgressBar,
    /// Ends the thread that turns the spinner.
    _turning: Sender<()>,
}

impl Progress {
    pub fn new() -> Self {
        Self::of(ProgressBar::new_spinner())
    }

    fn of(bar: ProgressBar) -> Self {
        bar.set_style(ProgressStyle::with_template(SPINNER).expect("a valid template"));
        let turning = turn(&bar);
        Self { bar, _turning: turning }
    }

    pub fn step(&self, what: &str) {
        self.bar.set_message(plain(what).into_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Turns a spinner until what is returned is dropped. Nobody watches a log, and where no thread can be had it stands
/// still: the bar's own way would panic.
fn turn(bar: &ProgressBar) -> Sender<()> {
    let (send, ended) = channel();
    let bar = bar.clone();
    let turn = move || {
        while ended.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
            bar.tick();
        }
    };
    if is_watched() {
        let _ = thread::Builder::new().spawn(turn);
    }
    send
}

/// A bar for many things that are done side by side, and a line for each that is at work.
pub struct Bars {
    lines: MultiProgress,
    all: ProgressBar,
}

impl Bars {
    pub fn new(things: usize) -> Self {
        let lines = MultiProgress::new();
        let all = lines.add(ProgressBar::new(things as u64));
        all.set_style(ProgressStyle::with_template("{bar:30} {pos} of {len}").expect("a valid template"));
        Self { lines, all }
    }

    /// Shows `what` while `work` is done.
    pub fn during<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        let line = Progress::of(self.lines.insert_before(&self.all, ProgressBar::new_spinner()));
        line.step(what);
        let result = work();
        drop(line);
        self.all.inc(1);
        result
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.all.finish_and_clear();
    }
}
