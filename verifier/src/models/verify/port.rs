//! A classifier's interface, and what it is run on.

use emo_exporter::models::Task;
use emo_exporter::target::Output;
use emo_proto::ModelProto;
use emo_proto::file::OnnxFile;

use super::detections;
use crate::audit::inputs;
use crate::fact::Fact;
use crate::image::Image;
use crate::infer::{Bindings, Inference, NodeFacts, declared};
use crate::models::layers::Place;
use crate::models::recognise::Recognition;
use crate::sym::Expr;

/// Height and width of inputs where neither the file nor the caller says.
const SIDE: usize = 224;

/// The image input of a file.
pub struct Port {
    pub name: String,
    pub image: Image,
    /// `None` where it is free.
    pub batch: Option<usize>,
    pub size: (usize, usize),
    /// The sizes of free axes as the file is judged with them.
    pub bindings: Bindings,
}

impl Port {
    /// The only input, images `[N, 3, H, W]` or `[N, H, W, 3]`.
    #[must_use]
    pub fn of(model: &ModelProto, dims: &Bindings) -> Option<Self> {
        let graph = model.graph.as_ref()?;
        let mut ports = inputs(graph);
        let (input, None) = (ports.next()?, ports.next()) else { return None };
        let fact = declared(input, dims);
        let image = Image::of(&fact)?;
        let free = |axis: usize, extent: &Expr, default: usize| match extent.count() {
            Some(n) => (Some(n as usize), n as usize, None),
            None => (None, default, Some((format!("{}.{}", input.name(), image.axes[axis]), default as i64))),
        };
        let [n, three, h, w] = image.extents(fact.dims.as_deref().ok()?)?;
        let axes = [free(0, n, 1), free(1, three, 3), free(2, h, SIDE), free(3, w, SIDE)];
        let size = (axes[2].1, axes[3].1);
        let mut bindings = dims.clone();
        bindings.extend(axes.iter().filter_map(|(.., bound)| bound.clone()));
        Some(Self { name: input.name().to_owned(), image, batch: axes[0].0, size, bindings })
    }
}

/// The outputs of a file in the order in which `recognition`'s model has its own, and what they are.
///
/// # Errors
/// It lacks one, or gives what is not judged: what was expected.
pub fn outputs(
    file: &OnnxFile,
    inference: &Inference,
    port: &Port,
    recognition: &Recognition,
) -> Result<(Vec<String>, Output), String> {
    let model = &recognition.model;
    let found: Vec<&str> =
        file.model.graph.iter().flat_map(|g| &g.output).map(emo_proto::ValueInfoProto::name).collect();
    let fact = |name: &str| inference.values.get(name);
    let extent = |name: &str, axis: usize| {
        fact(name).and_then(|fact| fact.dims.as_ref().ok()?.get(axis)?.count()).map(|n| n as usize)
    };
    match (model.task(), &found[..]) {
        (Task::Classify, _) => {
            let count = (port.batch.unwrap_or(1) * model.classes) as u64;
            let is_logits =
                |name: &&&str| fact(name).is_some_and(|fact| fact.count().count().is_none_or(|n| n == count));
            let logits = found.iter().find(is_logits).ok_or("expected an output [N, classes], found none")?;
            Ok((vec![(*logits).to_owned()], Output::Logits))
        }
        (Task::Segment, [output]) => {
            // Labels may be floats too, of one number a pixel.
            let rank = fact(output).and_then(|fact| fact.dims.as_ref().ok()).map(Vec::len);
            let flat = rank == Some(3) || extent(output, 1) == Some(1) && model.classes > 1;
            let logits = fact(output).is_some_and(Fact::is_float) && !flat;
            let whole = (extent(output, 2), extent(output, 3)) == (Some(port.size.0), Some(port.size.1));
            let gives = match (logits, whole) {
                (false, _) => Output::Labels,
                (true, true) => Output::Logits,
                (true, false) => Output::LogitsSmall,
            };
            Ok((vec![(*output).to_owned()], gives))
        }
        (Task::Detect, [a, b]) if extent(a, 2) == Some(4) || extent(b, 2) == Some(4) => {
            let boxes_first = extent(a, 2) == Some(4);
            let (boxes, scores) = if boxes_first { (a, b) } else { (b, a) };
            Ok((vec![(*boxes).to_owned(), (*scores).to_owned()], Output::Decoded))
        }
        (Task::Detect, _) if inference.nodes.iter().any(|n| n.node.op_type() == detections::OPERATOR) => {
            Ok((detections::outputs(&found, |name| given(file, inference, name))?, Output::Nms))
        }
        _ => Ok((behind_last_layers(inference, recognition, &found)?, Output::Raw)),
    }
}

/// What is known of an output: by inference, and where that does not tell its extents, by what it declares.
pub fn given(file: &OnnxFile, inference: &Inference, name: &str) -> Option<Fact> {
    let known = inference.values.get(name).filter(|fact| fact.dims.is_ok());
    let output = || file.model.graph.iter().flat_map(|g| &g.output).find(|output| output.name() == name);
    known.cloned().or_else(|| Some(declared(output()?, &Bindings::new())))
}

/// The outputs that stand behind the model's last layers, in its order: what they are called says nothing.
fn behind_last_layers(
    inference: &Inference,
    recognition: &Recognition,
    found: &[&str],
) -> Result<Vec<String>, String> {
    let Recognition { model, plan, places, .. } = recognition;
    let place = |name: &str| {
        let writes = |node: &NodeFacts| node.path.is_empty() && node.node.output.iter().any(|o| o == name);
        inference.nodes.iter().position(writes).map(|index| &places[index])
    };
    let of = |expected: &Place| {
        found.iter().find(|name| place(name) == Some(expected)).map(|name| (*name).to_owned())
    };
    let all: Option<Vec<String>> = plan.outputs.iter().map(of).collect();
    all.ok_or_else(|| {
        let (expected, found) = (plan.outputs.len(), found.join(", "));
        format!(
            "expected the {expected} outputs of {model}, one behind each of its last layers, found {found}"
        )
    })
}
