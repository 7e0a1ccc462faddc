//! For a spreadsheet (RFC 4180): every table of every file under one header.

use super::{Cell, Report};

/// The rows of all tables, each with its file in front; counts are exact.
#[must_use]
pub fn csv(report: &Report) -> String {
    let tables =
        || report.subjects.iter().flat_map(|subject| subject.tables.iter().map(move |t| (subject, t)));
    let mut text = String::new();
    if let Some((_, table)) = tables().next() {
        text += &line(std::iter::once("file").chain(table.header.iter().copied()));
    }
    for (subject, table) in tables() {
        for row in &table.rows {
            let cells: Vec<String> = row.iter().map(Cell::exact).collect();
            text += &line(std::iter::once(subject.name.as_str()).chain(cells.iter().map(String::as_str)));
        }
    }
    text
}

fn line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let quoted = cells.map(|cell| match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    });
    quoted.collect::<Vec<_>>().join(",") + "\r\n"
}
