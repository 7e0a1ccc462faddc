//! Findings and figures of files, for people, for pull requests and for machines.
//!
//! A [`Report`] is what a command found out, in no format yet; [`text`], [`markdown`],
//! [`csv`], [`junit`], [`sarif`] and [`github`] write it. JSON is each command's own, its
//! schemas are in `schemas/`.

mod csv;
mod figure;
pub mod finding;
mod github;
mod junit;
mod markdown;
mod sarif;
mod text;

use std::borrow::Cow;
use std::collections::HashMap;

use emo_proto::plain::{brief, plain};

use crate::finding::{Finding, Outcome, Severity};
use crate::sym::Expr;

pub use csv::csv;
pub use figure::{bytes, compact, counted, figure, thousands};
pub use github::github;
pub use junit::junit;
pub use markdown::markdown;
pub use sarif::sarif;
pub use text::{COLOURS, Style, text};

/// What a command has to say.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The command, as the user calls it: `audit`.
    pub command: &'static str,
    pub subjects: Vec<Subject>,
}

/// What it has to say of a file.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// The file as the user named it.
    pub name: String,
    /// The most important of it in a line, the name left out.
    pub headline: String,
    /// Names and values, a line each.
    pub facts: Vec<(&'static str, String)>,
    pub tables: Vec<Table>,
    pub findings: Vec<Finding>,
}

/// Rows of counts, the first column their names.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub title: String,
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<Cell>>,
    /// What is to be said of rows that are left out; empty where none are.
    pub note: String,
}

/// A cell: exact where a machine reads it, readable where a person does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Text(String),
    Count(Expr),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<usize> for Cell {
    fn from(n: usize) -> Self {
        Cell::Count(n.into())
    }
}

impl From<&Expr> for Cell {
    fn from(count: &Expr) -> Self {
        Cell::Count(count.clone())
    }
}

impl Cell {
    /// As a person reads it.
    #[must_use]
    pub fn readable(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Count(count) => figure(count),
        }
    }

    /// As it is.
    #[must_use]
    pub fn exact(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Count(count) => count.to_string(),
        }
    }
}

impl Report {
    /// The same with the hidden characters of names and messages escaped, each text a line: what is written of it
    /// does nothing to a terminal, and no name is taken for a line of the report.
    #[must_use]
    pub fn plain(&self) -> Self {
        Self { command: self.command, subjects: self.subjects.iter().map(Subject::plain).collect() }
    }
}

/// An owned text, hidden characters escaped, none longer than anybody reads.
fn owned(text: &str) -> String {
    brief(text).into_owned()
}

impl Table {
    fn plain(&self) -> Self {
        let cell = |cell: &Cell| match cell {
            Cell::Text(text) => Cell::Text(owned(text)),
            Cell::Count(count) => match plain(&count.to_string()) {
                Cow::Borrowed(_) => Cell::Count(count.clone()),
                Cow::Owned(text) => Cell::Text(text),
            },
        };
        let rows = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        Self { title: owned(&self.title), header: self.header.clone(), rows, note: owned(&self.note) }
    }
}

impl Subject {
    fn plain(&self) -> Self {
        Self {
            name: owned(&self.name),
            headline: owned(&self.headline),
            facts: self.facts.iter().map(|(name, value)| (*name, owned(value))).collect(),
            tables: self.tables.iter().map(Table::plain).collect(),
            findings: self.findings.iter().map(Finding::plain).collect(),
        }
    }

    /// How many findings are this severe.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// What its findings come to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::of(&self.findings)
    }
}

/// Findings with one code and one message as the first of them, with the number of the others:
/// what nobody wants to read a thousand times.
fn merged(findings: &[Finding]) -> Vec<(&Finding, usize)> {
    let mut merged: Vec<(&Finding, usize)> = Vec::new();
    let mut index = HashMap::new();
    for finding in findings {
        let at = *index.entry((finding.severity, finding.code, &finding.message)).or_insert(merged.len());
        match merged.get_mut(at) {
            Some((_, others)) => *others += 1,
            None => merged.push((finding, 0)),
        }
    }
    merged
}

/// A finding's place, and how many others there are like it.
fn place((finding, others): (&Finding, usize)) -> String {
    let more = match others {
        0 => String::new(),
        1 => " and 1 more place".to_owned(),
        n => format!(" and {n} more places"),
    };
    format!("{}{more}", finding.place)
}
