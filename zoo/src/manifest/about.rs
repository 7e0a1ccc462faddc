//! What is known of an entry's model beside its file: what it is for, what its outputs mean, how pictures become its
//! input, what was published of it.

use emo_exporter::models::dense::{Head, Pictures};
use emo_exporter::models::{CLASSES, Definition, Model, Task, own};
use emo_exporter::target::Output;
use emo_verifier::image::{DEVIATION, MEAN};
use emo_verifier::models::figures::dense::{Counter, Metric};
use emo_verifier::models::figures::{dense, published};
use emo_verifier::report::thousands;

use super::entry::{Classes, Entry, Preprocessing, Published};

/// What a task is called: the hub's name of it.
#[must_use]
pub const fn task(task: Task) -> &'static str {
    match task {
        Task::Classify => "image-classification",
        Task::Detect => "object-detection",
        Task::Segment => "image-segmentation",
        Task::Features => "image-feature-extraction",
    }
}

/// What the hub finds a model by; a family that is not made of stages is another author's.
#[must_use]
pub fn tags(model: &Model) -> Vec<&'static str> {
    let tags = ["emo", task(model.task()), "vision"];
    tags.into_iter().filter(|tag| model.stages().is_some() || *tag != "emo").collect()
}

/// What an output means, by what the model is for, what leaves the file, and how the output's name begins. `LEVEL` is
/// the number behind that, `SIDE` the pixels that a cell of such a stage has on a side.
const MEANINGS: [(Task, Output, &str, &str); 13] = [
    (Task::Classify, Output::Logits, "logits", "a logit for each class"),
    (Task::Features, Output::Raw, "stage", "the map behind stage LEVEL, a cell for each SIDE × SIDE pixels"),
    (Task::Detect, Output::Raw, "scores", "logits of level LEVEL: at each cell, for each anchor, each class"),
    (Task::Detect, Output::Raw, "deltas", "level LEVEL: what moves each anchor, in x, y, width and height"),
    (Task::Detect, Output::Decoded, "boxes", "left, top, right and bottom, in pixels of the input"),
    (Task::Detect, Output::Decoded, "scores", "a score for each box and class"),
    (
        Task::Detect,
        Output::Nms,
        "boxes",
        "left, top, right and bottom of the boxes that are kept, the best first",
    ),
    (Task::Detect, Output::Nms, "scores", "the score of each box, 0 where there is none"),
    (Task::Detect, Output::Nms, "labels", "the class of each box, -1 where there is none"),
    (Task::Detect, Output::Nms, "count", "how many boxes are kept"),
    (Task::Segment, Output::Logits, "logits", "a logit for each class and pixel of the input"),
    (Task::Segment, Output::LogitsSmall, "logits", "a logit for each class and cell of the head's map"),
    (Task::Segment, Output::Labels, "labels", "the class of each pixel of the input"),
];

/// What the output called `name` means.
fn meaning(model: &Model, output: Output, name: &str) -> Option<String> {
    let row = |row: &&(Task, Output, &str, &str)| {
        (row.0, row.1) == (model.task(), output) && name.starts_with(row.2)
    };
    let (.., start, words) = MEANINGS.iter().find(row)?;
    let level: Option<u32> = name[start.len()..].parse().ok();
    let side = level.map_or(0, |stage| 2_u64 << stage.min(62));
    let words = words.replace("LEVEL", &name[start.len()..]).replace("SIDE", &side.to_string());
    // Classes exclude each other there.
    let background = output == Output::Raw && *start == "scores" && head(model) == Some(&Head::Ssdlite);
    Some(if background { words + ", the background last" } else { words })
}

fn head(model: &Model) -> Option<&Head> {
    match &model.definition {
        Definition::Dense(network) => Some(&network.head),
        _ => None,
    }
}

/// Of a file of anybody's that is `model`.
pub fn describe(entry: &mut Entry, model: &Model) {
    entry.task = Some(task(model.task()).to_owned());
    entry.definition = own::definition(model).map(|text| text.lines().map(str::to_owned).collect());
    entry.window = model.other_window();
    entry.published = entry.window.is_none().then(|| figures(&model.name)).flatten();
    entry.paper = model.paper().map(|paper| paper.url.to_owned());
}

/// The rest, of a file that this project wrote, and what leaves it.
pub fn interface(entry: &mut Entry, model: &Model, output: Output) {
    entry.source = model.paper().map(|paper| paper.source.to_owned());
    entry.preprocessing = Some(preprocessing(model));
    entry.classes = classes(model);
    for port in &mut entry.metadata.io_ports.outputs {
        port.meaning = meaning(model, output, &port.name);
    }
}

fn preprocessing(model: &Model) -> Preprocessing {
    let (fit, multiple) = match &model.definition {
        Definition::Dense(network) => match network.pictures() {
            Pictures { keep_ratio: true, multiple } => ("pad", multiple),
            Pictures { keep_ratio: false, multiple } => ("stretch", multiple),
        },
        _ => ("crop", 1),
    };
    Preprocessing {
        channels: "RGB".to_owned(),
        fit: fit.to_owned(),
        multiple: multiple as u64,
        mean: MEAN.to_vec(),
        deviation: DEVIATION.to_vec(),
    }
}

/// A network of one's own has the published classes where it has as many.
fn classes(model: &Model) -> Option<Classes> {
    let (source, in_file) = match &model.definition {
        Definition::Dense(network) => {
            let named = network.class_names(model.classes).is_some();
            let source = match network.task() {
                Task::Detect => "COCO's, in mmdetection's order",
                _ => "ADE20K's, in mmsegmentation's order",
            };
            (named.then_some(source), named)
        }
        _ => {
            let published = model.classes == CLASSES && !model.is_own();
            (published.then_some("ImageNet-1K's, in the order of their WordNet numbers"), false)
        }
    };
    (model.task() != Task::Features).then(|| Classes {
        count: model.classes as u64,
        names: source.map(str::to_owned),
        in_file,
    })
}

/// The published figures of the model called `name`, and what explains them.
fn figures(name: &str) -> Option<Published> {
    const FVCORE: &str =
        "fvcore counts one a multiply-add, two an element of a batch norm, five of a layer norm";
    const MMCV: &str =
        "mmcv counts no products of attention, and no batch norms that were synchronised in training";
    const HEAD: &str = "counted at the head's own size, before logits are resized to the input's";
    if let Some(row) = published(name) {
        return Some(Published {
            parameters: row.params.to_owned(),
            flops: row.flops.to_owned(),
            convention: "fvcore".to_owned(),
            input: [224, 224],
            exact_parameters: row.exact_params,
            exact_flops: Some(row.exact_fvcore),
            metric: "top-1".to_owned(),
            accuracy: row.top1,
            notes: vec![FVCORE.to_owned()],
        });
    }
    let row = dense::published(name)?;
    let mut notes = match row.counter {
        Counter::Mmcv { .. } => vec![MMCV.to_owned()],
        Counter::Fvcore { .. } => vec![FVCORE.to_owned()],
        Counter::Pictures => vec!["FLOPs are a mean over pictures, which no single size gives".to_owned()],
    };
    if row.metric == Metric::MeanIou {
        notes.push(HEAD.to_owned());
    }
    if let Counter::Fvcore { resizes: count @ 1.. } = row.counter {
        let count = thousands(count);
        notes.push(format!("{count} FLOPs are of resizes to the same size, which no file here has"));
    }
    if row.auxiliary > 0 {
        let count = thousands(row.auxiliary);
        notes.push(format!("the printed parameters have {count} more, of the auxiliary head of training"));
    }
    let (height, width) = row.size;
    Some(Published {
        parameters: row.params.to_owned(),
        flops: row.flops.to_owned(),
        convention: row.counter.name().to_owned(),
        input: [height as u64, width as u64],
        exact_parameters: row.exact_params,
        exact_flops: row.exact_flops,
        metric: metric(row.metric).to_owned(),
        accuracy: row.accuracy,
        notes,
    })
}

const fn metric(metric: Metric) -> &'static str {
    match metric {
        Metric::BoxAp => "box-ap",
        Metric::MeanIou => "mean-iou",
    }
}
