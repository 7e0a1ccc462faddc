//! What a file tells of the machine that wrote it.

use std::collections::BTreeMap;

use emo_proto::StringStringEntryProto;

use super::{Check, Findings, Severity, Subject};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "private-path",
        severity: Severity::Warning,
        what: "no text in the file holds a path of the machine that wrote it",
        run: |s, f| report(s, f, path_in, "a path of the machine that wrote it"),
    },
    Check {
        code: "stack-trace",
        severity: Severity::Warning,
        what: "no text in the file holds a stack trace of the program that wrote it",
        run: |s, f| report(s, f, trace_in, "a stack trace of the program that wrote it"),
    },
];

/// Folders whose contents are a user's or a machine's own.
const FOLDERS: [&str; 11] =
    ["home", "Users", "root", "mnt", "tmp", "var", "opt", "usr", "data", "workspace", "private"];

/// Every text that is there for readers: where it stands, and the text.
fn texts<'a>(s: &Subject<'a>) -> Vec<(String, &'a str)> {
    fn props<'a>(of: &str, props: &'a [StringStringEntryProto]) -> Vec<(String, &'a str)> {
        props.iter().map(|entry| (format!("{of} metadata {:?}", entry.key()), entry.value())).collect()
    }
    let doc = |of: &str| format!("{of} doc_string");
    let mut texts = vec![(doc("model"), s.model.doc_string())];
    texts.extend(props("model", &s.model.metadata_props));
    for (_, graph) in s.graphs() {
        texts.push((doc("graph"), graph.doc_string()));
        texts.extend(props("graph", &graph.metadata_props));
        for value in graph.input.iter().chain(&graph.output).chain(&graph.value_info) {
            texts.push((doc("value"), value.doc_string()));
            texts.extend(props("value", &value.metadata_props));
        }
        for tensor in &graph.initializer {
            texts.push((doc("initializer"), tensor.doc_string()));
            texts.extend(props("initializer", &tensor.metadata_props));
        }
    }
    for function in &s.model.functions {
        texts.push((doc("function"), function.doc_string()));
        texts.extend(props("function", &function.metadata_props));
    }
    for (.., node) in s.nodes() {
        // There may be a million of them, most without a word.
        texts.extend(Some((doc("node"), node.doc_string())).filter(|(_, text)| !text.is_empty()));
        texts.extend(props("node", node.metadata_props()));
    }
    texts
}

/// One finding a kind of text: an exporter writes hundreds of one kind.
fn report(s: &Subject, f: &mut Findings, find: fn(&str) -> Option<&str>, what: &str) {
    let mut found: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for (place, text) in texts(s) {
        if let Some(hit) = find(text) {
            found.entry(place).or_insert((0, hit)).0 += 1;
        }
    }
    for (place, (count, hit)) in found {
        let times = if count == 1 { String::new() } else { format!(" in {count} texts") };
        f.add(
            place,
            format!("expected nothing of the kind, found {what}{times}, such as {hit:?}; export without it"),
        );
    }
}

/// An absolute path of a user or a machine: `/home/ada/net.py`, `C:\Users\ada`.
fn path_in(text: &str) -> Option<&str> {
    let end = |from: usize| {
        let stop = text[from..].find(|c: char| c.is_whitespace() || "\"'`,;:()<>".contains(c));
        stop.map_or(text.len(), |stop| from + stop)
    };
    for (at, _) in text.match_indices('/') {
        // Within a path, a name or an address it starts nothing.
        let before = text[..at].chars().next_back();
        let starts = before.is_none_or(|c| !(c.is_alphanumeric() || "/.:_-~%".contains(c)));
        let rest = &text[at + 1..];
        let folder = FOLDERS.iter().any(|folder| {
            rest.strip_prefix(folder)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|rest| !rest.is_empty())
        });
        if starts && folder {
            return Some(&text[at..end(at)]);
        }
    }
    let drive = text.match_indices(":\\").find_map(|(at, _)| {
        let letter = text[..at].chars().next_back()?;
        letter.is_ascii_alphabetic().then(|| (at - 1, at + 2))
    });
    drive.map(|(from, after)| &text[from..end(after)])
}

/// A line of a Python traceback.
fn trace_in(text: &str) -> Option<&str> {
    let marks = ["Traceback (most recent call last)", "File \""];
    text.lines()
        .map(str::trim)
        .find(|line| line.starts_with(marks[0]) || (line.starts_with(marks[1]) && line.contains("\", line ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_traces_are_told_from_names() {
        for (text, path) in [
            ("made by /home/ada/net.py:12", Some("/home/ada/net.py")),
            ("File \"/Users/ada/x.py\", line 3, in forward", Some("/Users/ada/x.py")),
            ("C:\\Users\\ada\\net.pth", Some("C:\\Users\\ada\\net.pth")),
            ("https://example.org/home/ada", None),
            ("/layer1/conv/Conv_output_0", None),
            ("torch/home/x", None),
            ("/home/", None),
            ("", None),
        ] {
            assert_eq!(path_in(text), path, "{text}");
        }
        assert_eq!(trace_in("x\n  File \"net.py\", line 3, in f\n"), Some("File \"net.py\", line 3, in f"));
        assert_eq!(trace_in("File \"net.py\" is read"), None);
    }
}
