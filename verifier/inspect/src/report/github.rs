//! Workflow annotations, as a step of GitHub Actions prints them.

use super::Report;
use crate::finding::Severity;

/// A line a finding; a file without any has a notice with its headline.
#[must_use]
pub fn github(report: &Report) -> String {
    let mut text = String::new();
    for subject in &report.subjects {
        let file = property(&subject.name);
        for finding in &subject.findings {
            let level = match finding.severity {
                Severity::Error => "error",
                Severity::Warning | Severity::Open => "warning",
                Severity::Note => "notice",
            };
            let title = property(&format!("emo {}: {}", report.command, finding.code));
            let place = if finding.place.is_empty() { String::new() } else { format!("{}: ", finding.place) };
            let open = if finding.severity == Severity::Open { "cannot be decided: " } else { "" };
            let message = data(&format!("{open}{place}{}", finding.message));
            text += &format!("::{level} file={file},title={title}::{message}\n");
        }
        if subject.findings.is_empty() {
            let title = property(&format!("emo {}", report.command));
            text += &format!("::notice file={file},title={title}::{}\n", data(&subject.headline));
        }
    }
    text
}

/// Escaped as the runner's command parser unescapes it.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
