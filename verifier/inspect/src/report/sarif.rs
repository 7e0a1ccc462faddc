//! SARIF 2.1.0 (OASIS), as code scanning reads it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Report;
use crate::finding::{Finding, Severity};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// One run; a result a finding, at its file and its place within.
#[must_use]
pub fn sarif(report: &Report) -> String {
    let findings =
        || report.subjects.iter().flat_map(|s| s.findings.iter().map(move |f| (s.name.as_str(), f)));
    let codes: BTreeSet<&str> = findings().map(|(_, finding)| finding.code).collect();
    let rules: Vec<Value> = codes.iter().map(|code| json!({ "id": code })).collect();
    let index = |code: &str| codes.iter().position(|c| *c == code).unwrap_or(0);
    let results: Vec<Value> = findings().map(|(file, f)| result(file, f, index(f.code))).collect();
    let driver = json!({
        "name": "emo",
        "version": env!("CARGO_PKG_VERSION"),
        "semanticVersion": env!("CARGO_PKG_VERSION"),
        "rules": rules,
    });
    let run = json!({
        "tool": { "driver": driver },
        "automationDetails": { "id": format!("emo/{}/", report.command) },
        "columnKind": "unicodeCodePoints",
        "results": results,
    });
    let log = json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": [run] });
    format!("{log:#}\n")
}

fn result(file: &str, finding: &Finding, rule: usize) -> Value {
    // What is open has no level (SARIF 2.1.0, section 3.27.9).
    let (kind, level) = match finding.severity {
        Severity::Error => ("fail", "error"),
        Severity::Open => ("open", "none"),
        Severity::Warning => ("fail", "warning"),
        Severity::Note => ("fail", "note"),
    };
    let mut location = json!({ "physicalLocation": { "artifactLocation": { "uri": uri(file) } } });
    if !finding.place.is_empty() {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": finding.place }]);
    }
    json!({
        "ruleId": finding.code,
        "ruleIndex": rule,
        "kind": kind,
        "level": level,
        "message": { "text": finding.message },
        "locations": [location],
    })
}

/// A relative reference, every byte that a URI does not take as it is escaped (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for &byte in path.replace('\\', "/").as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                uri.push(byte.into());
            }
            _ => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}
