//! Names that move a terminal's cursor, turn its text around or pass for lines of a report.

use std::fs;

use emo_proto::plain::is_hidden;
use emo_proto::tensor::Tensor;
use emo_proto::{
    GraphProto, Message as _, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    ValueInfoProto,
};
use emo_zoo::cli::commands;
use tempfile::TempDir;

use super::REQUESTS;
use crate::command::emo_with;

/// Clears the screen, colours, sets the title, turns around, ends the line, goes back in it, and passes for a
/// command of GitHub's runner.
const NAME: &str = "w\x1b[2J\x1b[8m\x1b]0;t\x07\u{202e}\u{2066}\u{9b}31m\u{2028}\r\n::error::owned\n\x08\x7f";

fn hostile() -> ModelProto {
    let name = |what: &str| Some(format!("{what}{NAME}"));
    let node = |operator: &str, input: &str, output: &str| NodeProto {
        name: name(operator),
        op_type: Some(operator.into()),
        input: vec![format!("{input}{NAME}"), format!("weight{NAME}")],
        output: vec![format!("{output}{NAME}")],
        ..NodeProto::default()
    };
    let weight = Tensor::from_f32(vec![2], vec![f32::NAN, 1.0]).unwrap().encode(&format!("weight{NAME}"));
    let unread = Tensor::from_f32(vec![2], vec![0.0, 1.0]).unwrap().encode(&format!("unread{NAME}"));
    let value = |what: &str| ValueInfoProto { name: name(what), ..ValueInfoProto::default() };
    let entry = StringStringEntryProto { key: name("key"), value: name("value") };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![
            OperatorSetIdProto { version: Some(17), ..OperatorSetIdProto::default() },
            OperatorSetIdProto { domain: name("domain"), version: Some(1) },
        ],
        producer_name: name("producer"),
        metadata_props: vec![entry],
        graph: Some(GraphProto {
            name: name("graph"),
            node: vec![
                node("Add", "x", "y"),
                node(&format!("Odd{NAME}"), "y", "z"),
                node("Mul", "nothing", "z"),
            ],
            initializer: vec![weight, unread],
            input: vec![value("x")],
            output: vec![value("z")],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

/// Formats that a subcommand writes, as its parser lists them.
fn formats(request: &[&str]) -> Vec<String> {
    let mut command = commands();
    for word in request.iter().take(if request[0] == "zoo" { 2 } else { 1 }) {
        command = command.find_subcommand(word).unwrap().clone();
    }
    let format = command.get_arguments().find(|argument| argument.get_id() == "format").cloned();
    let values = format.map(|format| format.get_possible_values()).unwrap_or_default();
    values.iter().map(|value| value.get_name().to_owned()).collect()
}

/// No character does anything to who reads the text, but for line ends and our own colours.
fn harmless(text: &str, what: &str) {
    let text = text.replace("\r\n", "\n");
    let coloured = ["0", "1", "2", "1;31", "1;33", "1;36"];
    let text = coloured.iter().fold(text, |text, code| text.replace(&format!("\x1b[{code}m"), ""));
    let found = text.find(|c| c != '\n' && is_hidden(c));
    assert_eq!(found, None, "{what}: {:?}", &text[found.unwrap_or(0)..].chars().take(40).collect::<String>());
    assert!(!text.contains("\n::error::owned"), "{what}: {text}");
}

#[test]
fn no_name_does_anything_but_be_read() {
    let folder = TempDir::new().unwrap();
    let file = format!("it{}", NAME.replace('/', ""));
    for name in [file.as_str(), "other.onnx"] {
        fs::write(folder.path().join(name), hostile().encode_to_vec()).unwrap();
    }
    let mut written = 0;
    for request in REQUESTS.into_iter().filter(|request| request.contains(&"subject.onnx")) {
        let request: Vec<&str> =
            request.iter().map(|word| if *word == "subject.onnx" { &file } else { *word }).collect();
        for format in formats(&request) {
            for colour in ["0", "1"] {
                let arguments = [&request[..], &["--format", &format]].concat();
                let (_, stdout, stderr) = emo_with(&folder, &arguments, &[("CLICOLOR_FORCE", colour)]);
                let what = format!("{} as {format}", request[0]);
                harmless(&stdout, &what);
                harmless(&stderr, &what);
                written += usize::from(stdout.contains("owned"));
            }
        }
    }
    assert!(written > 20, "the names are in what is written: {written}");
}

/// Names in errors: of files that are not there, of options, of what a file lacks.
#[test]
fn no_error_is_a_weapon() {
    let folder = TempDir::new().unwrap();
    let option = format!("--{NAME}");
    for request in [
        &["audit", NAME][..],
        &["audit", &option],
        &["audit", "--claim", NAME, NAME],
        &["zoo", "check", NAME],
        &["export", NAME],
        &["zoo", "diff", NAME, NAME, "--fail-on", NAME],
    ] {
        let (code, stdout, stderr) = emo_with(&folder, request, &[]);
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert!(stderr.contains("owned"), "{stderr}");
        harmless(&stderr, &format!("{request:?}"));
    }
}
