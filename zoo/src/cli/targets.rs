//! `emo targets [NAME]`: the table that models are written by and files are linted by.

use std::fmt::Write as _;

use emo_exporter::profile::{Allow, Condition, MostImages, Operators, Opset, PROFILES, Profile};
use serde_json::{Value, json};

use super::output::{Format, json};
use super::table::{table, wrapped};
use super::{Outcome, Said, names};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One target, with all of its constraints
    #[arg(value_name = "NAME", value_parser = names::target())]
    name: Option<&'static Profile>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  emo targets         what each runtime takes
  emo targets coreml  one of them, with its sources";

pub fn run(args: &Args) -> Said {
    let text = match (args.format, args.name) {
        (Format::Text, None) => overview(),
        (Format::Text, Some(profile)) => detail(profile),
        (Format::Json, None) => json(&PROFILES.iter().map(document).collect::<Vec<_>>())?,
        (Format::Json, Some(profile)) => json(&document(profile))?,
    };
    Ok((text, Outcome::Pass))
}

fn overview() -> String {
    let row = |profile: &Profile| {
        let yes = |allow: Allow| if allow == Allow::Yes { "yes" } else { "no" }.to_owned();
        vec![
            profile.name.to_owned(),
            opsets(profile),
            profile.rank.rank.to_string(),
            yes(profile.free_batch),
            yes(profile.half),
            yes(profile.image_input),
            operators(profile).map_or_else(|| "any".to_owned(), |list| list.len().to_string()),
            profile.summary.to_owned(),
        ]
    };
    let header = ["target", "opset", "rank", "free batch", "float16", "image", "operators", ""];
    let rows: Vec<_> = PROFILES.iter().map(row).collect();
    // The last column is prose, and the table has numbers to the right.
    let widest = PROFILES.iter().map(|p| p.summary.chars().count()).max().unwrap_or(0);
    let padded = rows.into_iter().map(|mut row| {
        if let Some(summary) = row.last_mut() {
            *summary = format!("{summary:widest$}");
        }
        row
    });
    table(&header, padded)
}

/// Opsets, the default first.
fn opsets(profile: &Profile) -> String {
    let versions: Vec<_> = profile.opsets.versions.iter().map(ToString::to_string).collect();
    versions.join(", ")
}

/// The operators of a row that lists them, in their order, with what is asked of each and by whom.
fn operators(profile: &Profile) -> Option<Vec<(String, &'static [Condition], &'static str)>> {
    let Operators::Listed(list) = profile.operators else { return None };
    let plain = list.plain().map(|op| (op.to_owned(), [].as_slice(), list.source));
    let when = list.when.iter().map(|permit| {
        let domain = if permit.domain.is_empty() { String::new() } else { format!("{}.", permit.domain) };
        (format!("{domain}{}", permit.op), permit.when, permit.source)
    });
    let mut all: Vec<_> = plain.chain(when).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Some(all)
}

fn detail(profile: &Profile) -> String {
    let mut text = format!("{}: {}\n", profile.name, profile.summary);
    let mut section = |name: &str, lines: &[String]| {
        for (i, line) in lines.iter().enumerate() {
            let name = if i == 0 { name } else { "" };
            let _ = writeln!(text, "{}", format!("{name:12}{line}").trim_end());
        }
    };
    let sourced = |what: String, source: &str| vec![what, format!("  {source}")];
    section("opset", &sourced(opsets(profile), profile.opsets.source));
    section(
        "rank",
        &sourced(format!("{} at most{}", profile.rank.rank, taken(profile)), profile.rank.source),
    );
    for (name, allow) in
        [("free batch", profile.free_batch), ("float16", profile.half), ("image", profile.image_input)]
    {
        section(
            name,
            &match allow {
                Allow::Yes => vec!["yes".to_owned()],
                Allow::No { because, source, .. } => sourced(format!("no: {because}"), source),
            },
        );
    }
    if let Some(most) = profile.most_images {
        section("images", &sourced(format!("{} at most: {}", most.images, most.because), most.source));
    }
    let kept: Vec<_> = profile.float32.iter().map(|part| format!("{part:?}")).collect();
    if profile.half == Allow::Yes {
        let kept = if kept.is_empty() { "nothing but the ends".to_owned() } else { kept.join(", ") };
        section("", &[format!("float32 stays in {kept}")]);
    }
    for note in profile.notes {
        section("note", &[(*note).to_owned()]);
    }
    section("forms", &forms(profile));
    let source = profile.operators.source();
    match operators(profile) {
        None => section("operators", &sourced("any".to_owned(), source)),
        Some(list) => {
            section("operators", &sourced(list.len().to_string(), source));
            let plain: Vec<&str> =
                list.iter().filter(|(_, when, _)| when.is_empty()).map(|(op, ..)| op.as_str()).collect();
            let lines: Vec<String> = wrapped(&plain, WIDTH);
            section("", &lines);
            for (op, when, from) in list.iter().filter(|(_, when, _)| !when.is_empty()) {
                let when: Vec<_> = when.iter().map(ToString::to_string).collect();
                let from = if *from == source { String::new() } else { format!("  ({from})") };
                section("", &[format!("{op}: {}{from}", when.join("; "))]);
            }
        }
    }
    text
}

/// What the runtime takes beyond the rank that it should be given.
/// Of lists of words, in columns.
const WIDTH: usize = 88;

fn taken(profile: &Profile) -> String {
    match profile.rank.taken {
        taken if taken == profile.rank.rank => String::new(),
        usize::MAX => "; any is taken".to_owned(),
        taken => format!("; {taken} is taken"),
    }
}

/// A line a layer.
fn forms(profile: &Profile) -> Vec<String> {
    let text = format!("{:#?}", profile.forms);
    let inner = text.lines().skip(1).filter(|line| *line != "}");
    let lines: Vec<&str> = inner.map(|line| line.trim_end_matches(',')).collect();
    // What a form is made of stands on its line.
    let mut joined: Vec<String> = Vec::new();
    for line in lines {
        let depth = (line.len() - line.trim_start().len()) / 4;
        match joined.last_mut() {
            Some(last) if depth > 1 || line.trim() == "}" => {
                let glue = if last.ends_with('{') || line.trim() == "}" { " " } else { ", " };
                *last += &format!("{glue}{}", line.trim());
            }
            _ => joined.push(line.trim().to_owned()),
        }
    }
    joined
}

fn document(profile: &Profile) -> Value {
    let allow = |allow: Allow| match allow {
        Allow::Yes => json!({ "allowed": true }),
        Allow::No { because, source, instead } => {
            json!({ "allowed": false, "because": because, "source": source, "instead": instead })
        }
    };
    let listed = operators(profile).map(|list| {
        let operator = |(op, when, source): &(String, &[Condition], &str)| {
            let when: Vec<_> = when.iter().map(ToString::to_string).collect();
            json!({ "operator": op, "when": when, "source": source })
        };
        list.iter().map(operator).collect::<Vec<_>>()
    });
    let ir = |version: &i64| Opset::version(*version).map(|opset| opset.ir_version);
    let opset = |version: &i64| json!({ "opset": version, "ir_version": ir(version) });
    json!({
        "schema": "emo.profiles/1",
        "name": profile.name,
        "summary": profile.summary,
        "opsets": profile.opsets.versions.iter().map(opset).collect::<Vec<_>>(),
        "opsets_source": profile.opsets.source,
        "rank": {
            "highest": profile.rank.rank,
            "taken": Some(profile.rank.taken).filter(|&taken| taken != usize::MAX),
            "source": profile.rank.source,
        },
        "free_batch": allow(profile.free_batch),
        "most_images": profile.most_images.map(|most| {
            let MostImages { images, because, source, instead } = most;
            json!({ "images": images, "because": because, "source": source, "instead": instead })
        }),
        "float16": allow(profile.half),
        "float32_kept": profile.float32.iter().map(|part| format!("{part:?}")).collect::<Vec<_>>(),
        "image_input": allow(profile.image_input),
        "operators": listed,
        "operators_source": profile.operators.source(),
        "forms": forms(profile),
        "notes": profile.notes,
    })
}
