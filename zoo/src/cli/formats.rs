//! The formats of reports, and the terminal that text is laid out for.

use std::io::IsTerminal as _;

use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use emo_verifier::report::{self, Report, Style};
use serde_json::Value;

use super::output::json;

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
        Ok(match self {
            Format::Text => report::text(report, style()),
            Format::Json => json(&data())?,
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

/// Colours and a width where stdout is a terminal; NO_COLOR, CLICOLOR_FORCE and COLUMNS are heeded.
fn style() -> Style {
    let stdout = std::io::stdout();
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || terminal_size::terminal_size_of(&stdout).map(|(width, _)| width.0.into());
    Style {
        colour: AutoStream::choice(&stdout) != ColorChoice::Never,
        width: columns.or_else(|| terminal().filter(|_| stdout.is_terminal())),
    }
}
