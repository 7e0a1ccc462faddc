//! Tables as text: the first column to the left, numbers to the right.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

/// A table without rules; lines are indented by one blank.
#[must_use]
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let cells = |row: Vec<String>| {
        let cell = |(i, text)| match i {
            0 => Cell::new(text),
            _ => Cell::new(text).set_alignment(CellAlignment::Right),
        };
        row.into_iter().enumerate().map(cell).collect::<Vec<_>>()
    };
    table.add_row(cells(header.iter().map(ToString::to_string).collect()));
    rows.into_iter().for_each(|row| {
        table.add_row(cells(row));
    });
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn thousands(n: impl Into<i128>) -> String {
    let n = n.into();
    let digits = n.unsigned_abs().to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3 + 1);
    if n < 0 {
        grouped.push('-');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_grouped_by_three() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_361_168, "1,361,168")] {
            assert_eq!(super::thousands(n), text);
        }
    }
}
