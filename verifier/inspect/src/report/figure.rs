//! Numbers and formulas as people read them.

use crate::sym::Expr;

/// From this many digits on, a number in a formula is rounded.
const LONG: usize = 7;

/// A number in groups of three digits, a formula with its large numbers rounded:
/// `1,361,168`, `2.61e8·batch`.
#[must_use]
pub fn figure(count: &Expr) -> String {
    match count.number() {
        Some(n) if n < 0 => format!("-{}", thousands(n.unsigned_abs())),
        Some(n) => thousands(n.unsigned_abs()),
        None => compact(&count.to_string()),
    }
}

/// `1 node`, `1,200 nodes`.
#[must_use]
pub fn counted(n: usize, what: &str) -> String {
    format!("{} {what}{}", thousands(n as i128), if n == 1 { "" } else { "s" })
}

/// A formula with every number of seven digits or more rounded to three.
#[must_use]
pub fn compact(formula: &str) -> String {
    let mut text = String::with_capacity(formula.len());
    let mut rest = formula;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let digits = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (number, after) = from.split_at(digits);
        text += before;
        // Digits within a name belong to it.
        let within = text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.'));
        match number.parse::<u64>() {
            Ok(n) if number.len() >= LONG && !within => text += &scientific(n),
            _ => text += number,
        }
        rest = after;
    }
    text + rest
}

/// `260843664` as `2.61e8`.
fn scientific(n: u64) -> String {
    let text = format!("{:.2e}", n as f64);
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
        }
        None => text,
    }
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

/// Bytes in the unit that suits them, a thousand to the next: `5.54 MB`.
#[must_use]
pub fn bytes(count: &Expr) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    let Some(n) = count.count() else { return format!("{} bytes", figure(count)) };
    if n < 1000 {
        return format!("{n} bytes");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    // What would be printed as a thousand is one of the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        let batch = &Expr::symbol("batch");
        let cases = [
            (Expr::Number(1_361_168), "1,361,168"),
            (Expr::Number(-1000), "-1,000"),
            (batch * 260_843_664, "2.61e8·batch"),
            (batch * 1_200_000_000, "1.2e9·batch"),
            (&(batch * 1_000_000) + 123, "1e6·batch + 123"),
            (&Expr::symbol("x1234567890") * 999_999, "999999·x1234567890"),
        ];
        for (count, expected) in cases {
            assert_eq!(figure(&count), expected);
        }
    }

    #[test]
    fn bytes_have_units() {
        for (n, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.00 kB"),
            (5_537_302, "5.54 MB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (12_345_678_901, "12.3 GB"),
        ] {
            assert_eq!(bytes(&Expr::Number(n)), text);
        }
    }
}
