//! Progress on stderr, silent where stderr is no terminal.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// A spinner that says what is being done; it is gone when dropped.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a valid template"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub fn step(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
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
        let line = self.lines.insert_before(&self.all, ProgressBar::new_spinner());
        line.set_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a valid template"));
        line.set_message(what.to_owned());
        line.enable_steady_tick(Duration::from_millis(100));
        let result = work();
        line.finish_and_clear();
        self.all.inc(1);
        result
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.all.finish_and_clear();
    }
}
