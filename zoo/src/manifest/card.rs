//! A model's card as Hugging Face shows it: a README with front matter, its figures from the manifest.

use std::fmt::Write as _;

use emo_exporter::models::{Model, Paper, Task};
use emo_verifier::report::thousands;

use super::about;
use super::entry::{Account, Claimed, Entry, NOT_STATED, Numerics, Provenance};

mod running;

/// The card of the model whose files `entries` are, which are some.
#[must_use]
pub fn card(model: &str, entries: &[&Entry]) -> String {
    let title = Model::named(model).map_or(model, |known| &known.title);
    let mut text = front_matter(entries);
    let _ = writeln!(text, "# {title}\n");
    text += &introduction(model, title, entries);
    text += &files(entries);
    text += &published(entries);
    text += &evidence(entries);
    text += &digests(entries);
    text += &running::section(entries);
    text += &again(entries);
    text += &licence(entries);
    text
}

fn one<'a>(of: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<_> = of.collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn licences<'a>(entries: &[&'a Entry]) -> Vec<&'a str> {
    one(entries.iter().map(|entry| entry.license.as_str()))
}

/// The hub's names of tasks, and what they are in words.
const TASKS: [(Task, &str); 4] = [
    (Task::Classify, "for image classification"),
    (Task::Detect, "for object detection"),
    (Task::Segment, "for segmentation"),
    (Task::Features, "for the maps of a backbone"),
];

/// What the entries' model is for.
fn task(entries: &[&Entry]) -> Option<(Task, &'static str)> {
    let is_of = |task: Task| entries.iter().any(|entry| entry.task.as_deref() == Some(about::task(task)));
    TASKS.into_iter().find(|(task, _)| is_of(*task))
}

fn front_matter(entries: &[&Entry]) -> String {
    // Names of licences are the hub's own list; any other one is told by name.
    let name = match licences(entries).as_slice() {
        [stated] => slug(stated),
        _ => "several".to_owned(),
    };
    let mut text = format!("---\nlicense: other\nlicense_name: {name}\nlibrary_name: onnx\n");
    let tags = one(entries.iter().flat_map(|entry| entry.metadata.tags.iter().map(String::as_str)));
    if let Some((task, _)) = task(entries) {
        let _ = writeln!(text, "pipeline_tag: {}", about::task(task));
    }
    text += "tags:\n- onnx\n";
    for tag in tags {
        let _ = writeln!(text, "- {}", slug(tag));
    }
    text + "---\n\n"
}

/// Small letters, digits and hyphens: what needs no quotes in YAML, and what the hub takes for a name.
fn slug(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let slug: String = text.chars().map(plain).collect();
    // A name that begins with a letter is never a number to YAML.
    let slug = slug.trim_matches(['-', '.']);
    if slug.starts_with(|c: char| c.is_ascii_alphabetic()) { slug.to_owned() } else { format!("x-{slug}") }
}

/// A text as Markdown shows it: nothing in it is a link, a table's border or a tag.
fn plain(text: &str) -> String {
    let special = |c: char| "\\`*_[]<>|#&".contains(c);
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

fn introduction(model: &str, title: &str, entries: &[&Entry]) -> String {
    let mut text = String::new();
    let purpose = task(entries).map_or("", |(_, words)| words);
    let paper = Model::named(model).and_then(Model::paper);
    if let Some(paper) = paper.filter(|_| entries.iter().any(|entry| entry.paper.is_some())) {
        let Paper { title: name, venue, url, .. } = paper;
        let _ = writeln!(
            text,
            "{title} {purpose} as ONNX, a file for each kind of runtime. The model is from \"{name}\" ({venue}, {url}).\n"
        );
    } else if let Some(lines) = entries.iter().find_map(|entry| entry.definition.as_ref()) {
        let definition = lines.join("\n");
        let _ = writeln!(
            text,
            "{title} {purpose} as ONNX, a file for each kind of runtime. It is a network of \
             EMO's blocks that nobody published, by this definition, `{title}.toml`:\n\n\
             ```toml\n{definition}\n```\n"
        );
    } else {
        text += "An ONNX file that is no published EMO.\n\n";
    }
    if entries.iter().any(|entry| entry.weights.seed().is_some()) {
        text += "**The weights of the files that say `formula` are untrained**: they are computed from the names of \
                 the parameters, so that anybody can write the same bytes again. Such a file shows how fast it runs \
                 and what it costs, and recognises nothing.\n\n";
    }
    text
}

fn file_name(entry: &Entry) -> &str {
    entry.model_path.rsplit('/').next().unwrap_or(&entry.model_path)
}

fn table(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(text, "| {} |", header.join(" | "));
    let _ = writeln!(text, "|---{}|", "|---:".repeat(header.len() - 1));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text.push('\n');
}

fn files(entries: &[&Entry]) -> String {
    let figure = |n: Option<u64>| n.map_or("-".to_owned(), thousands);
    let row = |entry: &&Entry| {
        let lint = entry.profile.as_ref().and_then(|profile| entry.lint.get(profile));
        vec![
            format!("`{}`", file_name(entry)),
            entry.profile.clone().unwrap_or_else(|| "by others".to_owned()),
            entry.opset_version.to_string(),
            thousands(entry.metadata.model_bytes),
            figure(entry.parameters),
            figure(entry.costs.macs),
            figure(entry.costs.fvcore),
            lint.map_or("-".to_owned(), |lint| lint.partitions.to_string()),
        ]
    };
    let mut text = "## Files\n\n".to_owned();
    let header = ["file", "for", "opset", "bytes", "parameters", "MACs", "FLOPs (fvcore)", "partitions"];
    table(&mut text, &header, entries.iter().map(row));
    text += "Counts are of the file, for one image. MACs are multiply-adds of convolutions and matrix products; \
             FLOPs (fvcore) are one a multiply-add, two an element of a batch norm, five of a layer norm. \
             Partitions are what the runtime that the file is for would run it in: one is the whole.\n\n";
    text
}

/// What was published, and what explains where a file's own counts are others.
fn published(entries: &[&Entry]) -> String {
    let Some(p) = entries.iter().find_map(|entry| entry.published.as_ref()) else { return String::new() };
    let metric = METRICS.iter().find(|(name, _)| *name == p.metric).map_or(p.metric.as_str(), |row| row.1);
    let flops = p.exact_flops.map_or("-".to_owned(), thousands);
    let [height, width] = p.input;
    let mut text = "## Published figures\n\n".to_owned();
    let header = ["of the model with trained weights", "as printed", "exactly"];
    let rows = [
        ["parameters".to_owned(), plain(&p.parameters), thousands(p.exact_parameters)],
        [format!("FLOPs at {height} × {width} ({})", plain(&p.convention)), plain(&p.flops), flops],
        [plain(metric), format!("{:.1}", p.accuracy), "-".to_owned()],
    ];
    table(&mut text, &header, rows.into_iter().map(Vec::from));
    for note in &p.notes {
        let _ = writeln!(text, "- {}", plain(note));
    }
    text + "\n"
}

/// Accuracies, and what they are in words.
const METRICS: [(&str, &str); 3] = [
    ("top-1", "top-1 accuracy on ImageNet-1K, per cent"),
    ("box-ap", "average precision of boxes on COCO, per cent"),
    ("mean-iou", "mean intersection over union on ADE20K, per cent"),
];

fn word(holds: bool) -> &'static str {
    if holds { "holds" } else { "fails" }
}

fn evidence(entries: &[&Entry]) -> String {
    let mut text = "## Evidence\n\n".to_owned();
    let claims: Vec<_> = entries.iter().filter_map(|entry| Some((*entry, entry.claim.as_ref()?))).collect();
    if !claims.is_empty() {
        let parameters: fn(&Claimed) -> &Account = |claim| &claim.parameters;
        for (what, of) in [("parameters", parameters), ("FLOPs (fvcore)", |claim| &claim.fvcore)] {
            let row = |(entry, claim): &(&Entry, &Claimed)| {
                let Account { file, folded, model, published } = of(claim);
                let figures =
                    [i128::from(*file), (*folded).into(), (*model).into()].map(|n: i128| thousands(n));
                let mut row = vec![format!("`{}`", file_name(entry))];
                row.extend(figures);
                row.push(published.as_deref().map_or("-".to_owned(), plain));
                row.push(published.as_ref().map_or("-", |_| word(claim.holds)).to_owned());
                row
            };
            let header = [what, "in the file", "folded", "together", "published", ""];
            table(&mut text, &header, claims.iter().map(row));
        }
        text += "What is in the file and what folding took out of it are together the published model.\n\n";
    }
    let runs: Vec<_> = entries.iter().filter_map(|entry| Some((*entry, entry.numerics.as_ref()?))).collect();
    if !runs.is_empty() {
        let row = |(entry, n): &(&Entry, &Numerics)| {
            vec![
                format!("`{}`", file_name(entry)),
                plain(&n.runtime),
                n.probes.len().to_string(),
                format!("{:.1e}", n.max_abs),
                format!("{:.1e}", n.of_largest),
                format!("{:.0e} ({})", n.bound, plain(&n.tolerance)),
                word(n.holds).to_owned(),
            ]
        };
        let header = ["file", "runtime", "inputs", "error below", "of the largest value", "bound", ""];
        table(&mut text, &header, runs.iter().map(row));
        text += "Each file ran beside an independent implementation of the paper in float64.\n\n";
    }
    text
}

fn digests(entries: &[&Entry]) -> String {
    let mut text = "SHA-256, for `sha256sum --check`:\n\n```text\n".to_owned();
    for entry in entries {
        let _ = writeln!(text, "{}  {}", entry.metadata.model_sha, file_name(entry));
    }
    text + "```\n\n"
}

fn again(entries: &[&Entry]) -> String {
    let commands: Vec<_> = entries.iter().filter_map(|entry| entry.command.as_ref()).collect();
    if commands.is_empty() {
        return String::new();
    }
    let mut text =
        "## The same bytes again\n\nEach of these writes one of the files above, byte for byte:\n\n```sh\n"
            .to_owned();
    for command in commands {
        let _ = writeln!(text, "{command}");
    }
    text += "```\n\n";
    let checkpoints = entries.iter().filter_map(|entry| match &entry.weights {
        Provenance::Checkpoint(checkpoint) => Some(checkpoint),
        Provenance::Named { .. } => None,
    });
    let mut told = Vec::new();
    for checkpoint in checkpoints {
        let whose = match (&checkpoint.path, checkpoint.official) {
            (Some(path), true) => format!("the authors' `{path}`"),
            _ => "a checkpoint that the authors did not publish".to_owned(),
        };
        told.push(format!(
            "`CHECKPOINT` is {whose}, {} bytes, SHA-256 `{}`, git blob `{}`.\n\n",
            thousands(checkpoint.bytes),
            checkpoint.sha256,
            checkpoint.git_blob
        ));
    }
    told.dedup();
    text + &told.concat()
}

fn licence(entries: &[&Entry]) -> String {
    let mut text = "## Licence\n\n".to_owned();
    for licence in licences(entries) {
        let _ = match licence {
            NOT_STATED => writeln!(text, "The licence of the weights is not stated by their authors."),
            stated => writeln!(text, "As stated by its authors: {}.", plain(stated)),
        };
    }
    if let Some(source) = entries.iter().find_map(|entry| entry.source.as_ref()) {
        let _ = writeln!(text, "\nThe model's source: {}", plain(source));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_needs_no_quotes() {
        for (text, expected) in [
            ("not stated", "not-stated"),
            ("Apache-2.0", "apache-2.0"),
            ("12: {x}", "x-12---x"),
            ("---", "x-"),
            ("a\"b: c", "a-b--c"),
        ] {
            assert_eq!(slug(text), expected);
        }
        assert_eq!(plain("a|b_[c](d)"), "a\\|b\\_\\[c\\](d)");
    }
}
