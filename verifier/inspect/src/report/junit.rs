//! JUnit's XML, as Jenkins and most continuous integration read it.

use std::fmt::Write as _;

use super::{Report, Subject};
use crate::finding::{Finding, Severity};
use crate::{audit, budget, check, lint};

/// A suite a file. A case of its own for every error, so that each is counted and shown; one
/// that passes where there is none; what is no error is the suite's output.
#[must_use]
pub fn junit(report: &Report) -> String {
    let (mut tests, mut failures, mut errors) = (0, 0, 0);
    let mut suites = String::new();
    for subject in &report.subjects {
        let count =
            |undecided: bool| error_findings(subject).filter(|f| is_undecided(f) == undecided).count();
        let (failed, undecided) = (count(false), count(true));
        let cases = (failed + undecided).max(1);
        (tests, failures, errors) = (tests + cases, failures + failed, errors + undecided);
        let _ = writeln!(
            suites,
            r#"  <testsuite name="{}" tests="{cases}" failures="{failed}" errors="{undecided}" skipped="0">"#,
            escape(&subject.name)
        );
        suites += &suite(report.command, subject);
        suites += "  </testsuite>\n";
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"emo {}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\">\n\
         {suites}</testsuites>\n",
        escape(report.command)
    )
}

fn error_findings(subject: &Subject) -> impl Iterator<Item = &Finding> {
    subject.findings.iter().filter(|finding| finding.severity == Severity::Error)
}

/// What could not be decided is an error in JUnit's words, what does not hold a failure.
fn is_undecided(finding: &Finding) -> bool {
    [audit::UNCOUNTED, budget::UNDECIDED, check::UNDECIDED, lint::UNDECIDED].contains(&finding.code)
}

fn suite(command: &str, subject: &Subject) -> String {
    let mut text = String::new();
    let class = escape(&subject.name);
    for finding in error_findings(subject) {
        let element = if is_undecided(finding) { "error" } else { "failure" };
        let name = [finding.code, finding.place.as_str()].join(" ");
        let message = escape(&finding.message);
        let _ = writeln!(text, r#"    <testcase classname="{class}" name="{}">"#, escape(name.trim_end()));
        let _ = writeln!(
            text,
            r#"      <{element} type="{}" message="{message}">{message}</{element}>"#,
            finding.code
        );
        text += "    </testcase>\n";
    }
    if text.is_empty() {
        let _ = writeln!(text, r#"    <testcase classname="{class}" name="{}"/>"#, escape(command));
    }
    let mut output = format!("{}\n", subject.headline);
    for finding in subject.findings.iter().filter(|finding| finding.severity != Severity::Error) {
        let _ = writeln!(
            output,
            "{}[{}] {}: {}",
            finding.severity.name(),
            finding.code,
            finding.place,
            finding.message
        );
    }
    let _ = writeln!(text, "    <system-out>{}</system-out>", escape(&output));
    text
}

/// XML 1.0 has no form for most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\t' | '\n' | '\r' => {
                let _ = write!(escaped, "&#{};", u32::from(c));
            }
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
