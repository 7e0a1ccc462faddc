//! A comment on a pull request.

use std::fmt::Write as _;

use super::{Report, Subject, Table};
use crate::finding::{Outcome, Severity};

/// Rows of a table beyond this many are left out: a comment is bounded, and read by people.
const MOST_ROWS: usize = 200;

/// A section a file, its tables folded away.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let of = |outcome| report.subjects.iter().filter(|subject| subject.outcome() == outcome).count();
    let failing = of(Outcome::Fail) + of(Outcome::Unreadable);
    let verdict = match (failing, of(Outcome::Undecided), report.subjects.len()) {
        (0, 0, 1) => "holds".to_owned(),
        (0, _, 1) => "cannot be decided".to_owned(),
        (_, _, 1) => "does not hold".to_owned(),
        (0, 0, n) => format!("{n} files hold"),
        (0, open, n) => format!("{open} of {n} files cannot be decided"),
        (failing, _, n) => format!("{failing} of {n} files do not hold"),
    };
    let sections: Vec<String> = report.subjects.iter().map(section).collect();
    format!("### emo {}: {verdict}\n\n{}", report.command, sections.join("\n"))
}

fn section(subject: &Subject) -> String {
    let mark = match subject.outcome() {
        Outcome::Pass => "✅",
        Outcome::Undecided => "❔",
        Outcome::Fail | Outcome::Unreadable => "❌",
    };
    let mut text = format!("#### {mark} {}\n\n", code(&subject.name));
    if !subject.headline.is_empty() {
        let _ = writeln!(text, "{}\n", escape(&subject.headline));
    }
    let merged = super::merged(&subject.findings);
    for &(finding, others) in merged.iter().take(MOST_ROWS) {
        let mark = match finding.severity {
            Severity::Error => "❌",
            Severity::Open => "❔",
            Severity::Warning => "⚠️",
            Severity::Note => "ℹ️",
        };
        let place = super::place((finding, others));
        let place = if place.is_empty() { place } else { format!(" {}", escape(&place)) };
        let _ = writeln!(text, "- {mark} **{}**{place}: {}", finding.code, escape(&finding.message));
    }
    if let Some(more) = merged.len().checked_sub(MOST_ROWS).filter(|&more| more > 0) {
        let _ = writeln!(text, "- … and {more} more");
    }
    if !merged.is_empty() {
        text.push('\n');
    }
    if !subject.facts.is_empty() {
        text += "| | |\n|---|---|\n";
        for (name, value) in &subject.facts {
            let _ = writeln!(text, "| {} | {} |", escape(name), escape(value));
        }
        text.push('\n');
    }
    subject.tables.iter().filter(|table| !table.rows.is_empty()).for_each(|t| text += &folded(t));
    text
}

fn folded(table: &Table) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = format!("<details><summary>{}</summary>\n\n", escape(&table.title));
    text += &line(table.header.iter().map(|cell| escape(cell)).collect());
    let rule = |i| if i == 0 { "---" } else { "---:" };
    text += &line((0..table.header.len()).map(|i| rule(i).to_owned()).collect());
    for row in table.rows.iter().take(MOST_ROWS) {
        text += &line(row.iter().map(|cell| escape(&cell.readable())).collect());
    }
    if let Some(more) = table.rows.len().checked_sub(MOST_ROWS).filter(|&more| more > 0) {
        let _ = writeln!(text, "\n… and {more} more");
    }
    if !table.note.is_empty() {
        let _ = writeln!(text, "\n{}", escape(&table.note));
    }
    text + "\n</details>\n\n"
}

/// As code; a backtick within is replaced, for a table cell cannot hold it.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', "'").replace('\n', " "))
}

/// Text that stays text: no markup, no table cell's end, no mention of a person.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => escaped.extend(['\\', c]),
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '@' => escaped += "@\u{200b}",
            '\n' | '\r' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
