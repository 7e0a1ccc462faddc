//! JUnit's XML, as Jenkins and most continuous integration read it.

use std::fmt::Write as _;

use super::{Report, Subject};
use crate::finding::{Finding, Outcome};

/// A suite a file. A case of its own for all that fails or stays open, so that each is counted and
/// shown; one that passes where there is none; the other findings are the suite's output.
#[must_use]
pub fn junit(report: &Report) -> String {
    let (mut tests, mut failures, mut errors) = (0, 0, 0);
    let mut suites = String::new();
    for subject in &report.subjects {
        let count = |element: &str| cases(subject).filter(|(_, of)| *of == element).count();
        let (failed, undecided) = (count(FAILURE), count(ERROR));
        let all = (failed + undecided).max(1);
        (tests, failures, errors) = (tests + all, failures + failed, errors + undecided);
        let _ = writeln!(
            suites,
            r#"  <testsuite name="{}" tests="{all}" failures="{failed}" errors="{undecided}" skipped="0">"#,
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

/// What does not hold.
const FAILURE: &str = "failure";
/// What could not be decided, or read.
const ERROR: &str = "error";

/// The findings that are cases of their own, and JUnit's word for what they come to.
fn cases(subject: &Subject) -> impl Iterator<Item = (&Finding, &'static str)> {
    subject.findings.iter().filter_map(|finding| match finding.outcome() {
        Outcome::Pass => None,
        Outcome::Fail => Some((finding, FAILURE)),
        Outcome::Undecided | Outcome::Unreadable => Some((finding, ERROR)),
    })
}

fn suite(command: &str, subject: &Subject) -> String {
    let mut text = String::new();
    let class = escape(&subject.name);
    for (finding, element) in cases(subject) {
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
    for finding in subject.findings.iter().filter(|finding| finding.outcome() == Outcome::Pass) {
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
