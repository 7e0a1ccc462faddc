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

/// Characters of a text that anybody reads.
const LONGEST: usize = 2000;

/// The text so, without its middle where it is longer than anybody reads.
#[must_use]
pub fn brief(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST) {
        None => plain(text),
        Some(_) => Cow::Owned(plain(&elided(text, LONGEST)).into_owned()),
    }
}

/// The text with its middle left out, in so many characters: both ends of a path tell.
#[must_use]
pub fn elided(text: &str, width: usize) -> Cow<'_, str> {
    if text.char_indices().nth(width).is_none() {
        return Cow::Borrowed(text);
    }
    let kept = width.saturating_sub(1);
    let tail = kept / 2;
    let start = text.char_indices().nth(kept - tail).map_or(0, |(at, _)| at);
    let end = text.char_indices().rev().nth(tail.wrapping_sub(1)).map_or(text.len(), |(at, _)| at);
    Cow::Owned(format!("{}…{}", &text[..start], &text[end..]))
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
    fn long_texts_lose_their_middle() {
        for (text, width, expected) in [
            ("stage3.1.v.conv", 15, "stage3.1.v.conv"),
            ("stage3.1.v.conv", 9, "stag…conv"),
            ("größer", 4, "gr…r"),
            ("ab", 1, "…"),
        ] {
            assert_eq!(elided(text, width), expected);
        }
        let long = format!("start{}\nend", "n".repeat(1 << 20));
        assert!(brief(&long).starts_with("startnn") && brief(&long).ends_with("nn\\nend"));
        assert_eq!(brief(&long).chars().count(), LONGEST + 1, "the line end is two characters");
        assert_eq!(brief("a\nb"), "a\\nb");
    }

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
