//! For a terminal, or a log.

use std::fmt::Write as _;

use emo_proto::plain::elided;

use super::{Cell, Report, Subject, Table};
use crate::finding::Severity;

/// How text is laid out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    pub colour: bool,
    /// Columns that there are; long names are shortened where a table is wider. `None` where
    /// nobody counts.
    pub width: Option<usize>,
}

/// What a piece of text is, and so how it is coloured.
#[derive(Debug, Clone, Copy)]
enum Role {
    Title,
    Faint,
    Severity(Severity),
}

/// All that a report colours with, as a terminal takes it: between `ESC [` and `m`.
pub const COLOURS: [&str; 6] = ["0", "1", "2", "1;31", "1;33", "1;36"];

/// Findings beyond this many are for machines.
const MOST_FINDINGS: usize = 50;
/// A name is not shortened below this many characters.
const SHORTEST: usize = 16;
/// A column is no wider: the blanks behind every other name would be as many.
const WIDEST: usize = 200;
const GAP: &str = "  ";

/// Every subject in turn: its headline, its facts, its tables, its findings.
#[must_use]
pub fn text(report: &Report, style: Style) -> String {
    let subjects = report.subjects.iter().map(|subject| style.subject(subject));
    subjects.collect::<Vec<_>>().join("\n")
}

impl Style {
    fn subject(self, subject: &Subject) -> String {
        let mut text = String::new();
        let name = self.paint(&subject.name, Role::Title);
        let _ = writeln!(text, "{}", [name.as_str(), &subject.headline].join(GAP).trim_end());
        let widest = subject.facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in &subject.facts {
            let name = self.paint(&format!("{name:widest$}"), Role::Faint);
            let _ = writeln!(text, "{name}{GAP}{value}");
        }
        for table in subject.tables.iter().filter(|table| !table.rows.is_empty()) {
            let _ = write!(text, "\n{}", self.table(table));
        }
        if !subject.findings.is_empty() {
            text.push('\n');
        }
        let merged = super::merged(&subject.findings);
        for &(finding, others) in merged.iter().take(MOST_FINDINGS) {
            let code = format!("{}[{}]", finding.severity.name(), finding.code);
            let code = self.paint(&code, Role::Severity(finding.severity));
            let place = super::place((finding, others));
            let place = if place.is_empty() { place } else { format!(" {place}") };
            let _ = writeln!(text, "{code}{place}: {}", finding.message);
        }
        if let Some(more) = merged.len().checked_sub(MOST_FINDINGS).filter(|&more| more > 0) {
            let _ = writeln!(text, "… and {more} more findings, all of them in JSON");
        }
        text
    }

    /// The first column to the left, figures to the right, notes in the last to the left.
    fn table(self, table: &Table) -> String {
        let header = table.header.iter().map(ToString::to_string).collect();
        let rows = table.rows.iter().map(|row| row.iter().map(Cell::readable).collect());
        let mut rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
        let columns = table.header.len();
        let width = |rows: &[Vec<String>], column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..columns).map(|column| width(&rows, column)).collect();
        let is_prose = |column| table.rows.iter().all(|row| matches!(row.get(column), Some(Cell::Text(_))));
        let prose: Vec<bool> = (0..columns).map(is_prose).collect();
        for column in (0..columns).filter(|&column| prose[column]) {
            widths[column] = widths[column].min(WIDEST);
            let whole = widths.iter().sum::<usize>() + GAP.len() * columns.saturating_sub(1);
            let (excess, width) = (whole.saturating_sub(self.width.unwrap_or(whole)), widths[column]);
            widths[column] = width.saturating_sub(excess).max(SHORTEST.min(width));
            // Nobody counts: a name that is longer than the others' room sticks out.
            let cells =
                rows.iter_mut().filter_map(|row| row.get_mut(column)).filter(|_| self.width.is_some());
            cells.for_each(|cell| *cell = elided(cell, widths[column]).into_owned());
        }
        let mut text = String::new();
        for (i, row) in rows.iter().enumerate() {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                if prose[column] { format!("{cell}{pad}") } else { format!("{pad}{cell}") }
            });
            let line = cells.collect::<Vec<_>>().join(GAP);
            let line = line.trim_end();
            let _ = match i {
                0 => writeln!(text, "{}", self.paint(line, Role::Faint)),
                _ => writeln!(text, "{line}"),
            };
        }
        if !table.note.is_empty() {
            let _ = writeln!(text, "{}", self.paint(&table.note, Role::Faint));
        }
        text
    }

    fn paint(self, text: &str, role: Role) -> String {
        let code = match role {
            _ if !self.colour => return text.to_owned(),
            Role::Title => "1",
            Role::Faint => "2",
            Role::Severity(Severity::Error) => "1;31",
            Role::Severity(Severity::Warning | Severity::Open) => "1;33",
            Role::Severity(Severity::Note) => "1;36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_the_terminal() {
        let name = "a.rather.long.module.path.of.a.node";
        let row = vec![Cell::from(name), Cell::Count(1_361_168.into())];
        let table = Table {
            title: String::new(),
            header: vec!["node", "params"],
            rows: vec![row],
            ..Table::default()
        };
        let style = |width| Style { colour: false, width };
        assert_eq!(style(None).table(&table), format!("{:35}     params\n{name}  1,361,168\n", "node"));
        assert_eq!(
            style(Some(30)).table(&table),
            format!("{:19}     params\na.rather.…of.a.node  1,361,168\n", "node")
        );
    }
}
