//! Tables as text: the first column to the left, numbers to the right.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use emo_proto::plain::plain;

/// Words in lines of so many columns at most.
pub fn wrapped(words: &[&str], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < width => *line += &format!(" {word}"),
            _ => lines.push((*word).to_owned()),
        }
    }
    lines
}

/// A table without rules; lines are indented by one blank.
#[must_use]
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let cells = |row: Vec<String>| {
        let cell = |(i, text): (usize, String)| match i {
            0 => Cell::new(plain(&text)),
            _ => Cell::new(plain(&text)).set_alignment(CellAlignment::Right),
        };
        row.into_iter().enumerate().map(cell).collect::<Vec<_>>()
    };
    table.add_row(cells(header.iter().map(ToString::to_string).collect()));
    rows.into_iter().for_each(|row| {
        table.add_row(cells(row));
    });
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
