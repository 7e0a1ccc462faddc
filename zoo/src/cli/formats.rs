//! The formats of reports.

use clap::ValueEnum;
use emo_verifier::report::{self, Report};
use serde_json::Value;

use super::advice;
use super::output::json;
use super::streams::style;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For a terminal, or a log
    #[default]
    Text,
    /// Versioned; its schemas are in verifier/schemas
    Json,
    /// A comment on a pull request
    Markdown,
    /// Exact counts for a spreadsheet
    Csv,
    /// Test results, as Jenkins reads them
    Junit,
    /// SARIF 2.1.0, as code scanning reads it
    Sarif,
    /// Annotations of GitHub Actions
    Github,
}

impl Format {
    /// The report in this format; `data` is its JSON.
    pub fn write(self, report: &Report, data: impl FnOnce() -> Value) -> anyhow::Result<String> {
        if self == Format::Json {
            return json(&advice::document(data()));
        }
        // Before any format lays the names out, none of them does anything but be read.
        let report = &advice::report(report.plain());
        Ok(match self {
            Format::Json => json(&advice::document(data()))?,
            Format::Text => report::text(report, style()),
            Format::Markdown => report::markdown(report),
            Format::Csv => report::csv(report),
            Format::Junit => report::junit(report),
            Format::Sarif => report::sarif(report),
            Format::Github => report::github(report),
        })
    }
}

/// The JSON of several files; of one it is that file's.
pub fn of_files(mut documents: Vec<Value>) -> Value {
    if documents.len() == 1 { documents.remove(0) } else { Value::Array(documents) }
}
