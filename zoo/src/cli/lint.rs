//! `emo lint FILE…`: what a runtime would make of ONNX files, rule by rule of its profile.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use emo_exporter::profile::Profile;
use emo_proto::file::OnnxFile;
use emo_verifier::audit::Sizes;
use emo_verifier::finding::Finding;
use emo_verifier::infer::infer_file;
use emo_verifier::lint::{CODES, Code, Lint, Violation, lint};
use emo_verifier::report::{Cell, Report, Subject, Table, counted, thousands};
use serde_json::{Value, json};

use super::files::{Unreadable, each_read, expand};
use super::formats::{Format, of_files};
use super::names::Chosen;
use super::sizes::{SizeArgs, Unused};
use super::{Outcome, Said, names};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// ONNX files, or patterns of files: 'models/**/*.onnx'
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Targets to hold the files against, '*' for all; emo targets tells more of each
    #[arg(long, alias = "profile", required = true, value_name = "NAME", value_delimiter = ',', value_parser = names::several_targets())]
    target: Vec<Chosen<&'static Profile>>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Codes to leave out: lint-rank
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    allow: Vec<String>,
    #[command(flatten)]
    sizes: SizeArgs,
}

const EXAMPLES: &str = "\
Examples:
  emo lint model.onnx --target coreml
      what CoreML would refuse, and what to emit
  emo lint model.onnx --target nnapi,qnn --dim batch=1
      two targets, a size that is open";

/// A file against its profiles.
struct Linted {
    name: String,
    lints: Vec<Lint>,
    unused: Unused,
}

pub fn run(args: &Args) -> Said {
    args.allow.iter().try_for_each(|code| known(code))?;
    let sizes = args.sizes.sizes()?;
    let files = expand(&args.files)?;
    let linted = each_read(&files, |path, file| judge(path, file, &sizes, args))?;
    Unused::check(linted.iter().flatten().map(|file| &file.unused))?;
    let all = || linted.iter().flat_map(views);
    let text = args.format == Format::Text;
    let subject = |view: Result<View, &Unreadable>| match view {
        Ok(view) => view.subject(text),
        Err(unreadable) => unreadable.subject(),
    };
    let document = |view: Result<View, &Unreadable>| match view {
        Ok(view) => view.document(),
        Err(unreadable) => unreadable.document("emo.lint/1"),
    };
    let report = Report { command: "lint", subjects: all().map(subject).collect() };
    let text = args.format.write(&report, || of_files(all().map(document).collect()))?;
    Ok((text, Outcome::worst(all().map(|view| view.map_or(Outcome::Unreadable, View::verdict)))))
}

/// A file against each of its profiles, or why against none.
fn views(file: &Result<Linted, Unreadable>) -> Vec<Result<View<'_>, &Unreadable>> {
    match file {
        Ok(file) => file.lints.iter().map(|lint| Ok(View { file: &file.name, lint })).collect(),
        Err(unreadable) => vec![Err(unreadable)],
    }
}

fn judge(path: &Path, file: OnnxFile, sizes: &Sizes, args: &Args) -> anyhow::Result<Linted> {
    let name = path.display().to_string();
    let bindings = sizes.bindings(&file.model).with_context(|| name.clone())?;
    let inference = infer_file(&file, &bindings);
    let mut lints: Vec<Lint> =
        names::all(&args.target).iter().map(|profile| lint(&file.model, &inference, profile)).collect();
    for lint in &mut lints {
        lint.violations.retain(|violation| !args.allow.iter().any(|code| code == violation.code.name()));
    }
    drop(inference);
    let unused = Unused::of(sizes, &name, &file.model);
    // A large graph takes a while to fall apart, and the process ends soon.
    let OnnxFile { model, .. } = file;
    std::mem::forget(model);
    Ok(Linted { name, lints, unused })
}

/// A code that no rule has would be left out for nothing.
fn known(code: &str) -> anyhow::Result<()> {
    if CODES.iter().any(|(c, _)| c.name() == code) {
        return Ok(());
    }
    let codes: Vec<_> = CODES.iter().map(|(code, _)| code.name()).collect();
    Err(anyhow!("--allow: expected a code out of {}, found {code}", codes.join(", ")))
}

/// A file against a profile.
#[derive(Clone, Copy)]
struct View<'a> {
    file: &'a str,
    lint: &'a Lint,
}

/// Kinds of violations beyond this many are for machines.
const MOST_ROWS: usize = 50;

impl View<'_> {
    fn verdict(self) -> Outcome {
        match (self.lint.broken(), self.lint.open()) {
            (0, 0) => Outcome::Pass,
            (0, _) => Outcome::Undecided,
            _ => Outcome::Fail,
        }
    }

    fn word(self) -> &'static str {
        self.verdict().name()
    }

    fn headline(self) -> String {
        let (lint, profile) = (self.lint, self.lint.profile.name);
        let partitions = match lint.partitions.len() {
            0 => "no partition (1 expected)".to_owned(),
            1 => "1 partition".to_owned(),
            n => format!("{} (1 expected)", counted(n, "partition")),
        };
        let taken = format!("{} of {} taken", thousands(lint.taken as i128), counted(lint.nodes, "node"));
        let verdict = match (self.verdict(), lint.violating_nodes()) {
            (Outcome::Pass, _) => "no violations".to_owned(),
            (Outcome::Undecided, _) => format!("{} undecided", counted(lint.open(), "rule")),
            (_, 0) => counted(lint.broken(), "violation"),
            (_, nodes) => {
                format!("{} in {}", counted(lint.broken(), "violation"), counted(nodes, "node"))
            }
        };
        format!("{profile}: {verdict}, {partitions}, {taken}")
    }

    /// In text the table says it all; other formats have the findings one by one.
    fn subject(self, text: bool) -> Subject {
        let table = self.table(text);
        let findings = if text { Vec::new() } else { self.findings() };
        let facts = if text { self.rules() } else { Vec::new() };
        Subject {
            name: self.file.to_owned(),
            headline: self.headline(),
            facts,
            tables: vec![table],
            findings,
        }
    }

    fn findings(self) -> Vec<Finding> {
        let profile = self.lint.profile.name;
        let named = |finding| Finding { file: Some(self.file.to_owned()), ..finding };
        self.lint.violations.iter().map(|violation| named(violation.finding(profile))).collect()
    }

    /// What was broken, by rule and by what was found. In text, advice is given once.
    fn table(self, text: bool) -> Table {
        let mut last = None;
        let groups = self.lint.groups();
        let shown = if text { MOST_ROWS } else { groups.len() };
        let note = match groups.len().saturating_sub(shown) {
            0 => String::new(),
            more => format!("… and {more} more kinds, all of them with --format json"),
        };
        let rows = groups.into_iter().take(shown).map(|group| {
            let violation = group.first;
            let found = match violation.code {
                Code::Condition => format!("{}: {}", violation.operator, violation.found),
                _ => violation.found.clone(),
            };
            let instead = violation.instead.clone().unwrap_or_default();
            let again = text && !instead.is_empty() && last.as_ref() == Some(&instead);
            last = Some(instead.clone());
            vec![
                Cell::from(violation.code.name()),
                Cell::Text(found),
                Cell::from(group.count),
                Cell::from(violation.name.as_str()),
                Cell::Text(if again { "the same".to_owned() } else { instead }),
            ]
        });
        Table {
            title: format!("{}: what breaks its rules", self.lint.profile.name),
            header: vec!["rule", "found", "count", "first at", "emit instead"],
            rows: rows.collect(),
            note,
        }
    }

    /// The rules that were broken, who says so, and how much of the file the runtime takes.
    fn rules(self) -> Vec<(&'static str, String)> {
        let mut rules: Vec<(&'static str, String)> = Vec::new();
        for group in self.lint.groups() {
            let violation = group.first;
            let rule = (violation.code.name(), format!("{}: {}", violation.rule, violation.source));
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }

    /// The document that `verifier/schemas/lint.json` describes.
    fn document(self) -> Value {
        let lint = self.lint;
        json!({
            "schema": "emo.lint/1",
            "file": self.file,
            "profile": lint.profile.name,
            "verdict": self.word(),
            "violations": lint.broken(),
            "violating_nodes": lint.violating_nodes(),
            "undecided": lint.open(),
            "nodes": lint.nodes,
            "folded": lint.folded,
            "taken": lint.taken,
            "outside": lint.outside,
            "partitions": lint.partitions,
            "findings": lint.violations.iter().map(|violation| finding(violation, self)).collect::<Vec<_>>(),
        })
    }
}

/// A finding with what it is made of.
fn finding(violation: &Violation, view: View) -> Value {
    let mut value = json!(violation.finding(view.lint.profile.name));
    value["file"] = json!(view.file);
    for (name, part) in
        [("operator", &violation.operator), ("rule", &violation.rule), ("found", &violation.found)]
    {
        value[name] = json!(part);
    }
    value["source"] = json!(violation.source);
    value["instead"] = json!(violation.instead);
    value
}
