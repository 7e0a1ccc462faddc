//! For a spreadsheet (RFC 4180): tables of one header are one table, and findings are one.

use super::{Cell, Report, Subject, Table};
use crate::finding::Finding;

/// What a finding is made of, in a table of its own.
const FINDINGS: [&str; 5] = ["file", "code", "severity", "place", "message"];

/// The rows of all tables, each with its file in front, then the findings; counts are exact. A blank line is before
/// every header but the first.
#[must_use]
pub fn csv(report: &Report) -> String {
    let tables = || report.subjects.iter().flat_map(|s| s.tables.iter().map(move |table| (s, table)));
    let mut headers: Vec<&[&str]> = Vec::new();
    for (_, table) in tables() {
        if !headers.contains(&table.header.as_slice()) {
            headers.push(&table.header);
        }
    }
    let mut blocks: Vec<String> = headers.into_iter().map(|header| block(header, tables())).collect();
    let findings: String =
        report.subjects.iter().flat_map(|s| s.findings.iter().map(|finding| row(s, finding))).collect();
    // Where there is no table, the header says that nothing was found.
    if !findings.is_empty() || blocks.is_empty() {
        blocks.push(line(FINDINGS.into_iter()) + &findings);
    }
    blocks.join("\r\n")
}

/// The tables of a header, as one.
fn block<'a>(header: &[&str], tables: impl Iterator<Item = (&'a Subject, &'a Table)>) -> String {
    let mut text = line(std::iter::once("file").chain(header.iter().copied()));
    for (subject, table) in tables.filter(|(_, table)| table.header == header) {
        for row in &table.rows {
            let cells: Vec<String> = row.iter().map(Cell::exact).collect();
            text += &line(std::iter::once(subject.name.as_str()).chain(cells.iter().map(String::as_str)));
        }
    }
    text
}

fn row(subject: &Subject, finding: &Finding) -> String {
    let Finding { code, severity, place, message, file } = finding;
    let file = file.as_deref().unwrap_or(&subject.name);
    line([file, code, severity.name(), place, message].into_iter())
}

fn line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let quoted = cells.map(|cell| match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    });
    quoted.collect::<Vec<_>>().join(",") + "\r\n"
}
