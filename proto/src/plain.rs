//! Names that others chose, made harmless to whoever reads them.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character is none that is read, but one that moves a cursor, ends a line or turns the text around it.
pub fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // direction
        | '\u{2028}' | '\u{2029}' // ends of lines and paragraphs
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}') // nothing that is seen
        || c.is_control()
}

/// The text with every such character written as an escape: `\n`, `\u{1b}`.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, |c, escaped| escaped.extend(c.escape_debug()))
}

/// The text of a JSON document with its hidden characters as JSON escapes them; its own lines stay.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    // Line ends that a string holds are escaped already.
    let hidden = |c| c != '\n' && is_hidden(c);
    escaped(text, hidden, |c, escaped| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    })
}

/// Lines as they are, hidden characters within them as [`plain`] writes them.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_hidden(c), |c, escaped| escaped.extend(c.escape_debug()))
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match hidden(c) {
            true => write(c, &mut escaped),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_written_out() {
        let rows = [
            ("stage3.1/Größe 模型", "stage3.1/Größe 模型", "stage3.1/Größe 模型"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb", "a\\u001b[2Jb"),
            ("a\nb\r\0", "a\\nb\\r\\0", "a\nb\\u000d\\u0000"),
            ("\u{202e}gpj\u{2066}", "\\u{202e}gpj\\u{2066}", "\\u202egpj\\u2066"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}", "\\u009b31m\\u007f"),
            ("\u{e0041}", "\\u{e0041}", "\\udb40\\udc41"),
        ];
        for (text, written, in_json) in rows {
            assert_eq!(plain(text), written);
            assert_eq!(json(text), in_json);
            assert_eq!(lines(text), written.replace("\\n", "\n"));
        }
    }
}
