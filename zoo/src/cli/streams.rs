//! What the command says: the one place that writes to stdout and stderr.
//!
//! Data that cannot be written is an error; talk that cannot be is lost, and its exit code tells.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::{AutoStream, ColorChoice};
use anyhow::{Context as _, anyhow};
use emo_proto::plain;
use emo_verifier::report::{COLOURS, Style};

use super::advice;
use super::several::Several;

/// Colours and a width where stdout is a terminal; NO_COLOR, CLICOLOR_FORCE and COLUMNS are heeded.
pub fn style() -> Style {
    let stdout = io::stdout();
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || terminal_size::terminal_size_of(&stdout).map(|(width, _)| width.0.into());
    Style {
        colour: AutoStream::choice(&stdout) != ColorChoice::Never,
        width: columns.or_else(|| terminal().filter(|_| stdout.is_terminal())),
    }
}

/// Whether anybody looks at what is said on stderr.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Says what a request was for, whole. What names in it do to a terminal is written out, whatever the format: JSON
/// has escaped it already, and the colours are our own.
///
/// # Errors
/// It cannot be written. A reader that has seen enough closes the pipe; that is no error.
pub fn print(data: &str) -> anyhow::Result<()> {
    write(&mut io::stdout().lock(), harmless(data, style().colour).as_bytes())
}

fn write(stdout: &mut impl Write, data: &[u8]) -> anyhow::Result<()> {
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to stdout"),
    }
}

/// Says something on the side, a line.
pub fn remark(line: &str) {
    // Where stderr takes nothing there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}", plain::plain(line));
}

/// Says what went wrong, a line each.
pub fn complain(error: &anyhow::Error) {
    let errors = match error.downcast_ref() {
        Some(Several(errors)) => errors.clone(),
        None => vec![format!("{error:#}")],
    };
    for error in errors {
        // A list's lines are indented, so that no name among them passes for an error.
        let advised = advice::error(error.trim_end());
        let lines: Vec<_> = advised.split("\n  ").map(plain::brief).collect();
        // Where stderr takes nothing there is nobody to tell.
        let _ = writeln!(io::stderr(), "error: {}", lines.join("\n  "));
    }
}

/// Says what the parser of arguments has to say: help on stdout, errors on stderr.
///
/// # Errors
/// Help cannot be written.
pub fn explain(usage: &clap::Error) -> anyhow::Result<()> {
    let text = usage.render();
    if usage.use_stderr() {
        let _ = write!(io::stderr(), "{}", plain::lines(&text.to_string()));
        return Ok(());
    }
    let text = if style().colour { text.ansi().to_string() } else { text.to_string() };
    write(&mut io::stdout().lock(), text.as_bytes())
}

/// Whether data can be said at all.
///
/// # Errors
/// Who called the command closed its stdout.
pub fn can_print() -> anyhow::Result<()> {
    match CLOSED.load(Ordering::Relaxed) {
        true => {
            Err(anyhow!("expected a stdout to write to, found it closed; /dev/null takes what nobody wants"))
        }
        false => Ok(()),
    }
}

/// Text of several lines whose hidden characters are escaped, but for line ends and, if there are to be any, the
/// colours of reports, whose names are escaped before they are coloured.
fn harmless(data: &str, colour: bool) -> String {
    let mut harmless = String::with_capacity(data.len());
    let mut rest = data;
    while let Some(at) = rest.find(|c| c != '\n' && plain::is_hidden(c)) {
        harmless.push_str(&rest[..at]);
        rest = &rest[at..];
        let own = if rest.starts_with("\r\n") { Some(2) } else { paint(rest).filter(|_| colour) };
        let end = own.unwrap_or_else(|| rest.chars().next().map_or(0, char::len_utf8));
        match own {
            Some(_) => harmless.push_str(&rest[..end]),
            None => harmless.push_str(&plain::plain(&rest[..end])),
        }
        rest = &rest[end..];
    }
    harmless + rest
}

/// The length of the colour of a report that a text begins with.
fn paint(text: &str) -> Option<usize> {
    let (code, _) = text.strip_prefix("\x1b[")?.split_once('m')?;
    COLOURS.contains(&code).then_some(code.len() + 3)
}

/// Whether stdout was closed when the process began. Before `main`, the standard library opens /dev/null in its
/// place, which takes everything and keeps nothing.
static CLOSED: AtomicBool = AtomicBool::new(false);

#[cfg(unix)]
mod before_main {
    #![expect(unsafe_code, reason = "no safe code runs before the standard library has begun")]

    use super::{CLOSED, Ordering};

    #[used]
    #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
    #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
    static LOOK: extern "C" fn() = {
        extern "C" fn look() {
            // SAFETY: asks for the flags of a descriptor, which may be none.
            let closed = unsafe { libc::fcntl(1, libc::F_GETFD) } == -1;
            CLOSED.store(closed, Ordering::Relaxed);
        }
        look
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_do_to_a_terminal_is_written_out() {
        let rows = [
            ("a\nb\r\n", false, "a\nb\r\n"),
            ("a\rb", false, "a\\rb"),
            ("\x1b[1mx\x1b[0m", true, "\x1b[1mx\x1b[0m"),
            ("\x1b[1mx\x1b[0m", false, "\\u{1b}[1mx\\u{1b}[0m"),
            ("\x1b[2Jx\x1b]0;m", true, "\\u{1b}[2Jx\\u{1b}]0;m"),
            ("\u{202e}\u{9b}2J", true, "\\u{202e}\\u{9b}2J"),
        ];
        for (text, colour, expected) in rows {
            assert_eq!(harmless(text, colour), expected, "{text:?}");
        }
    }
}
