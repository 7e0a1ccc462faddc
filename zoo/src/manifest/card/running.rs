//! How a card's files are run.

use std::fmt::Write as _;

use emo_exporter::models::Task;

use super::super::entry::{Entry, Extent, Input, Port, Preprocessing};
use super::{file_name, plain, task};

/// How a file is run, with what is written in capitals to be filled in.
const ONNX_RUNTIME: &str = include_str!("onnxruntime.txt");
const TRACT: &str = include_str!("tract.txt");

/// How a picture becomes so many pixels, in words and in Python.
const FITS: [(&str, &str, &str); 3] = [
    ("crop", "cut from the middle of one that was scaled to 256 for 224", include_str!("fit_crop.txt")),
    ("stretch", "scaled whole, without its ratio", include_str!("fit_stretch.txt")),
    ("pad", "scaled to fit, with zeros to the right and below", include_str!("fit_pad.txt")),
];

/// What is done with the outputs.
fn example_of(task: Task) -> &'static str {
    match task {
        Task::Classify => include_str!("task_classify.txt"),
        Task::Detect => include_str!("task_detect.txt"),
        Task::Segment => include_str!("task_segment.txt"),
        Task::Features => include_str!("task_features.txt"),
    }
}

/// Logits as scores: where there is a class more than those that have names, classes exclude each other.
const SOFTMAX: &str = "scores = np.exp(scores - scores.max(1, keepdims=True))
    scores = (scores / scores.sum(1, keepdims=True))[:, :-1]";
const SIGMOID: &str = "scores = 1 / (1 + np.exp(-scores))";

/// A file that an example runs.
#[derive(Clone, Copy)]
struct Example<'a> {
    entry: &'a Entry,
    input: &'a Input,
    preprocessing: &'a Preprocessing,
}

/// The one for `profile` in the lowest opset, or the first.
fn example<'a>(entries: &[&'a Entry], profile: &str) -> Option<Example<'a>> {
    let takes_floats = |input: &&Input| input.layout == "NCHW";
    let with_input = || {
        entries.iter().filter_map(|&entry| {
            let (input, preprocessing) =
                (entry.input.as_ref().filter(takes_floats)?, entry.preprocessing.as_ref()?);
            Some(Example { entry, input, preprocessing })
        })
    };
    let of = |example: &Example| example.entry.profile.as_deref() == Some(profile);
    with_input().find(of).or_else(|| with_input().next())
}

/// The section of a card; nothing where no file is told how to feed.
pub fn section(entries: &[&Entry]) -> String {
    let Some((task, _)) = task(entries) else { return String::new() };
    let [example, tract] = ["ort-cpu", "tract"].map(|profile| example(entries, profile));
    let Some(example) = example else { return String::new() };
    let Some((_, words, fit)) = FITS.iter().find(|(name, ..)| *name == example.preprocessing.fit) else {
        return String::new();
    };
    let mut text = "## How to run it\n\n".to_owned();
    text += &interface(example, words);
    let python = ONNX_RUNTIME.replace("FIT", fit.trim_end()) + example_of(task);
    let python = fill(&without_names(example, &python), example);
    let _ = writeln!(
        text,
        "In ONNX Runtime, from Python (`pip install onnxruntime pillow`):\n\n```python\n{python}```\n"
    );
    if task == Task::Detect {
        let _ = writeln!(
            text,
            "`emo export {} --output decoded` writes a file that gives boxes in pixels, with `nms` in its place one \
             that gives those that are kept.\n",
            example.entry.model
        );
    }
    if let Some(example) = tract.filter(|_| task == Task::Classify) {
        let rust = fill(TRACT, example);
        let _ = writeln!(
            text,
            "In tract, from Rust (`cargo add tract-onnx`), `pixels` as above:\n\n```rust\n{rust}```\n"
        );
    }
    text
}

/// What goes in and what comes out.
fn interface(example: Example, fit: &str) -> String {
    let Example { entry, input, preprocessing } = example;
    let Input { height, width, .. } = input;
    let [mean, deviation] = [&preprocessing.mean, &preprocessing.deviation]
        .map(|rgb| rgb.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    let channels = plain(&preprocessing.channels);
    let mut text = format!(
        "The input is one {channels} image `[1, 3, {height}, {width}]`, scaled to 0…1, less the mean ({mean}), over the \
         deviation ({deviation}), {fit}. What comes out:\n\n"
    );
    for port in &entry.metadata.io_ports.outputs {
        let meaning = port.meaning.as_deref().map_or(String::new(), plain);
        let _ = writeln!(text, "- {} `{}`: {meaning}", plain(&port.name), shape(port));
    }
    if let Some(classes) = &entry.classes {
        let names = classes.names.as_deref().map_or("without names".to_owned(), plain);
        let place = if classes.in_file { ", in the file's metadata as `emo.classes`" } else { "" };
        let _ = writeln!(text, "\n{} classes: {names}{place}.", classes.count);
    }
    text + "\n"
}

fn extents(port: &Port) -> &[Extent] {
    port.shape.as_deref().unwrap_or_default()
}

fn shape(port: &Port) -> String {
    let extent = |extent: &Extent| match extent {
        Extent::Size(n) => n.to_string(),
        Extent::Name(name) => name.clone(),
    };
    format!("[{}]", extents(port).iter().map(extent).collect::<Vec<_>>().join(", "))
}

/// Without the names of classes where the file has none.
fn without_names(example: Example, python: &str) -> String {
    if example.entry.classes.as_ref().is_some_and(|classes| classes.in_file) {
        return python.to_owned();
    }
    let lines = python.lines().filter(|line| !line.starts_with("names = "));
    lines.map(|line| line.replace("names[label]", "label") + "\n").collect()
}

fn fill(text: &str, Example { entry, input, preprocessing }: Example) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let name = entry.metadata.io_ports.inputs.first().map_or("", |port| port.name.as_str());
    text.replace("SCORES", if has_background(entry) { SOFTMAX } else { SIGMOID })
        .replace("HEIGHT", &input.height.to_string())
        .replace("WIDTH", &input.width.to_string())
        .replace("MEAN", &format!("{:?}", preprocessing.mean))
        .replace("DEVIATION", &format!("{:?}", preprocessing.deviation))
        .replace("FILE", &quoted(file_name(entry)))
        .replace("INPUT", &quoted(name))
}

/// Whether a detector's scores are of one class more than there are.
fn has_background(entry: &Entry) -> bool {
    let channels = |start: &str| {
        let port = entry.metadata.io_ports.outputs.iter().find(|port| port.name.starts_with(start))?;
        match extents(port).get(1)? {
            Extent::Size(n) => Some(*n),
            Extent::Name(_) => None,
        }
    };
    let classes = entry.classes.as_ref().map_or(0, |classes| classes.count);
    let anchors = channels("deltas").unwrap_or(0) / 4;
    channels("scores").is_some_and(|channels| channels > anchors * classes)
}
