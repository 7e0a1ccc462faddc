//! A budget from a file that is as it should be.

use std::fmt::Write as _;

use emo_proto::plain::plain;

use super::Limit;
use crate::audit::{Audit, By, groups};
use crate::sym::Expr;

/// Per cent that every count and size may grow before the budget breaks.
pub const HEADROOM: u64 = 5;

/// The budget of a file, as TOML: counts and sizes with head-room, versions and operators as
/// they are. What is a formula or unknown gets no limit, and a line that says so.
#[must_use]
pub fn write(audit: &Audit, file: &str, file_size: &Expr) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "# Limits from {}, with {HEADROOM} % of head-room.", plain(file));
    for limit in Limit::ALL {
        let key = limit.key();
        let bound = limit.is_counted() && audit.is_lower_bound();
        let _ = match limit.of(audit, file_size) {
            Ok(_) if bound => writeln!(text, "# {key} = ?  not everything could be counted"),
            Ok(found) => match found.count() {
                Some(n) if limit == Limit::HighestRank => writeln!(text, "{key} = {n}"),
                Some(n) => writeln!(text, "{key} = {}", with_headroom(n)),
                None => {
                    writeln!(text, "# {key} = {}  depends on open sizes", plain(&found.to_string()))
                }
            },
            Err(reason) => writeln!(text, "# {key} = ?  {}", plain(&reason.to_string())),
        };
    }
    let _ = writeln!(text, "ir_version = {}", audit.ir_version);
    if let Some(opset) = audit.opsets.get("ai.onnx") {
        let _ = writeln!(text, "opset = {{ min = {opset}, max = {opset} }}");
    }
    let mut operators: Vec<String> = audit.operators.iter().map(|(name, _)| quoted(name)).collect();
    operators.sort();
    // A file without nodes may get none.
    let list: String = operators.iter().map(|operator| format!("\n  {operator},")).collect();
    let end = if list.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "\n[operators]\nallow = [{list}{end}]");
    if audit.is_lower_bound() {
        return text;
    }
    for group in
        groups(audit, By::Scope { depth: 1 }).into_iter().filter(|group| !group.name.starts_with('('))
    {
        let limits = [Limit::Params, Limit::Macs];
        let figures = limits.map(|limit| (limit, limit.of_counts(&group.counts).and_then(Expr::count)));
        let lines: String = figures
            .into_iter()
            .filter_map(|(limit, n)| {
                let n = n.filter(|&n| n > 0)?;
                Some(format!("{} = {}\n", limit.key(), with_headroom(n)))
            })
            .collect();
        if !lines.is_empty() {
            let _ = write!(text, "\n[scopes.{}]\n{lines}", quoted(&group.name));
        }
    }
    text
}

fn with_headroom(n: u64) -> u64 {
    n.saturating_add((u128::from(n) * u128::from(HEADROOM)).div_ceil(100).try_into().unwrap_or(u64::MAX))
}

/// A basic string of TOML: JSON's strings are such, but for one character.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
