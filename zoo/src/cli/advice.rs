//! What the command line adds to the messages of libraries, which know no flags.

use emo_verifier::report::Report;
use serde_json::Value;

/// What an error asks for in words, and how it is asked for here.
const OF_ERRORS: [(&str, &str); 9] = [
    ("a fixed batch", "--batch N"),
    ("one image a run", "--batch 1"),
    ("the target portable", "--target portable"),
    ("float32 works", "--dtype f32"),
    ("float32 holds it", "--dtype f32"),
    ("ask for as many", "--classes N"),
    ("ask for one thread", "--threads 1"),
    ("without running it", "--no-verify"),
    ("name its file", "--ort-library FILE"),
];

/// The same of findings and of errors.
const OF_ALL: [(&str, &str); 5] = [
    ("try another runtime", "--runtime NAME"),
    ("give the open sizes", "--dim NAME=N or --input NAME=SHAPE"),
    ("give the sizes of", "--dim NAME=N"),
    ("it can be written again", "--rebuild, or emo zoo build"),
    ("give its folder", "--weights-dir DIR"),
];

/// An error with the flags that it asks for.
pub fn error(message: &str) -> String {
    with(OF_ERRORS.iter().chain(&OF_ALL), message)
}

/// A report whose findings name the flags that they ask for.
pub fn report(mut report: Report) -> Report {
    for finding in report.subjects.iter_mut().flat_map(|subject| &mut subject.findings) {
        finding.message = with(OF_ALL.iter(), &finding.message);
    }
    report
}

/// A document whose findings do.
pub fn document(mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = document(item.take())),
        Value::Object(fields) => {
            let is_finding = fields.contains_key("code") && fields.contains_key("severity");
            for (name, field) in fields {
                *field = match field.take() {
                    Value::String(message) if is_finding && name == "message" => {
                        with(OF_ALL.iter(), &message).into()
                    }
                    field => document(field),
                };
            }
        }
        _ => {}
    }
    value
}

fn with<'a>(rows: impl Iterator<Item = &'a (&'static str, &'static str)>, message: &str) -> String {
    rows.fold(message.to_owned(), |message, (words, flag)| {
        message.replacen(words, &format!("{words} ({flag})"), 1)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn texts(folder: &Path) -> String {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| if path.is_dir() { texts(&path) } else { fs::read_to_string(path).unwrap() })
            .collect()
    }

    #[test]
    fn an_error_gets_its_flags() {
        let message = "ncnn takes no free batch; one image a run, or the target portable, works";
        let told = "ncnn takes no free batch; one image a run (--batch 1), or the target portable (--target \
                    portable), works";
        assert_eq!(error(message), told);
        assert_eq!(error("expected a file"), "expected a file");
    }

    #[test]
    fn every_row_is_said_by_a_library() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folders = ["exporter/src", "verifier/inspect/src", "verifier/src", "zoo/src/manifest"];
        let said: String = folders.iter().map(|folder| texts(&root.join(folder))).collect();
        // "works" stands behind what a row of the table of targets proposes.
        for (words, flag) in OF_ERRORS.iter().chain(&OF_ALL) {
            assert!(said.contains(words.trim_end_matches(" works")), "{flag}: nothing says {words:?}");
        }
    }
}
