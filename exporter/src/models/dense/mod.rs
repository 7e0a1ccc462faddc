//! Detectors and segmenters: a backbone, and a head on its maps.
//!
//! A backbone is a network of stages; a head takes the maps of any. Which head was published on which backbone, with
//! which windows, is a row of the backbone's family. Mask R-CNN is none of them: its regions are known only when the
//! file runs.
//!
//! Sources: the published configurations and logs of EMO and EMOv2; the modules are mmdetection's and
//! mmsegmentation's, and so are the names.

mod aspp;
pub mod boxes;
mod classes;
mod fpn;
mod nms;
mod psp;
pub mod retinanet;
mod segformer;
mod semantic_fpn;
pub mod ssdlite;
#[cfg(test)]
mod tests;

use std::ops::Range;

use emo_proto::Result;

use boxes::Coder;

use super::{Definition, Model, Outputs, Task};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Act, Conv, Form, Linear};
use crate::target::{Output, Target};

/// Classes of COCO.
pub const COCO: usize = 80;
/// Classes of ADE20K.
pub const ADE20K: usize = 150;

/// Height and width of published inputs, in pixels.
pub(super) const SMALL: (usize, usize) = (320, 320);
pub(super) const SEGMENTED: (usize, usize) = (512, 512);
pub(super) const LARGE: (usize, usize) = (800, 1344);

/// A backbone and what stands on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// A network of stages, without its classifier.
    pub backbone: Box<Definition>,
    pub head: Head,
    /// Heights and widths of the inputs that it was published for, in pixels.
    pub sizes: &'static [(usize, usize)],
}

/// What stands on a backbone's maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// Nothing: the maps of these stages are the outputs; 0 is the stem.
    Maps {
        stages: Vec<usize>,
    },
    Ssdlite,
    RetinaNet,
    DeepLabV3,
    PspNet,
    SemanticFpn,
    SegFormer {
        channels: usize,
    },
}

/// What a head is called, and what it is for.
struct About {
    /// Before a model's name; behind it where there is no head.
    name: &'static str,
    title: &'static str,
    task: Task,
}

impl Head {
    /// No head: the maps of the four stages.
    pub(super) fn maps() -> Self {
        Head::Maps { stages: (1..=4).collect() }
    }

    fn about(&self) -> About {
        let (name, title, task) = match self {
            Head::Maps { .. } => ("backbone", "backbone", Task::Features),
            Head::Ssdlite => ("ssdlite", "SSDLite", Task::Detect),
            Head::RetinaNet => ("retinanet", "RetinaNet", Task::Detect),
            Head::DeepLabV3 => ("deeplabv3", "DeepLabv3", Task::Segment),
            Head::PspNet => ("pspnet", "PSPNet", Task::Segment),
            Head::SemanticFpn => ("semantic-fpn", "Semantic FPN", Task::Segment),
            Head::SegFormer { .. } => ("segformer", "SegFormer", Task::Segment),
        };
        About { name, title, task }
    }

    /// The head on `backbone`, published for these `sizes`.
    fn on(&self, backbone: &Model, sizes: &'static [(usize, usize)]) -> Model {
        let About { name, title, task } = self.about();
        let (name, title) = match self {
            Head::Maps { .. } => (format!("{}-{name}", backbone.name), format!("{} {title}", backbone.title)),
            _ => (format!("{name}-{}", backbone.name), format!("{title}-{}", backbone.title)),
        };
        let classes = match task {
            Task::Detect => COCO,
            Task::Segment => ADE20K,
            Task::Classify | Task::Features => 0,
        };
        let network = Network { backbone: Box::new(backbone.definition.clone()), head: self.clone(), sizes };
        Model { name: name.into(), title: title.into(), classes, definition: Definition::Dense(network) }
    }
}

/// The models of a family's rows: a head, the variants that it was published on, the side of their windows, the
/// sizes of the input.
pub(super) fn models(
    variants: &[Model],
    rows: impl IntoIterator<Item = (Head, Range<usize>, usize, &'static [(usize, usize)])>,
) -> Vec<Model> {
    let row = |(head, range, window, sizes): (Head, Range<usize>, usize, _)| {
        let backbones = variants[range].iter().map(|variant| variant.with_window(window));
        backbones.map(|backbone| head.on(&backbone, sizes)).collect::<Vec<_>>()
    };
    rows.into_iter().flat_map(row).collect()
}

/// How pictures become inputs, as the published pipelines have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pictures {
    /// Whether a picture keeps its ratio, the rest of the input being zeros to the right and below.
    pub keep_ratio: bool,
    /// What the sides of an input are multiples of.
    pub multiple: usize,
}

impl Network {
    /// What the `classes` are called, where they are the published ones: by commas, in their order.
    #[must_use]
    pub fn class_names(&self, classes: usize) -> Option<&'static str> {
        match self.task() {
            Task::Detect => (classes == COCO).then_some(classes::COCO),
            Task::Segment => (classes == ADE20K).then_some(classes::ADE20K),
            Task::Classify | Task::Features => None,
        }
    }

    /// How pictures become its inputs.
    #[must_use]
    pub fn pictures(&self) -> Pictures {
        match self.head {
            Head::Ssdlite => Pictures { keep_ratio: false, multiple: 1 },
            Head::RetinaNet => Pictures { keep_ratio: true, multiple: 32 },
            _ => Pictures { keep_ratio: true, multiple: 1 },
        }
    }

    #[must_use]
    pub fn task(&self) -> Task {
        self.head.about().task
    }

    /// What the published names of the backbone's weights begin with.
    #[must_use]
    pub fn prefix(&self) -> &'static str {
        if self.task() == Task::Features { "" } else { "backbone" }
    }

    /// What may be asked for, the default first.
    #[must_use]
    pub fn outputs(&self) -> &'static [Output] {
        match self.task() {
            Task::Features | Task::Classify => &[Output::Raw],
            Task::Detect => &[Output::Raw, Output::Decoded, Output::Nms],
            Task::Segment => &[Output::Logits, Output::LogitsSmall, Output::Labels],
        }
    }

    /// `x: [N, 3, H, W]` → the maps of the chosen stages, the levels' scores and deltas, or logits or labels.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub(super) fn build(
        &self,
        b: &mut Builder,
        x: Value,
        classes: usize,
        target: &Target,
    ) -> Result<Outputs> {
        let form = target.form();
        let (.., height, width) = b.feature_map(x)?;
        let maps = b.within(self.prefix(), |b| self.backbone.features(b, x, form))?;
        let stages = &maps[1..];
        let logits = match &self.head {
            Head::Maps { stages } => {
                let chosen = maps.iter().enumerate().filter(|(i, _)| stages.contains(i));
                return Ok(chosen.map(|(i, &map)| (format!("stage{i}").into(), map)).collect());
            }
            Head::Ssdlite => {
                let levels = ssdlite::build(b, stages, classes, form)?;
                return detected(b, levels, &ssdlite::CODER, classes, target);
            }
            Head::RetinaNet => {
                let levels = retinanet::build(b, stages, classes, form)?;
                return detected(b, levels, &retinanet::CODER, classes, target);
            }
            Head::DeepLabV3 => aspp::build(b, stages, classes, form)?,
            Head::PspNet => psp::build(b, stages, classes, form)?,
            Head::SemanticFpn => semantic_fpn::build(b, stages, classes, form)?,
            Head::SegFormer { channels } => segformer::build(b, stages, *channels, classes, form)?,
        };
        segmented(b, logits, [height, width], target)
    }
}

/// Logits of the head's size as what was asked for.
fn segmented(b: &mut Builder, logits: Value, size: [usize; 2], target: &Target) -> Result<Outputs> {
    let (output, form) = (target.output, target.form());
    if output == Some(Output::LogitsSmall) {
        return Ok(vec![("logits".into(), logits)]);
    }
    let logits = b.within("logits", |b| layer::resize_logits(b, logits, size, form))?;
    if output != Some(Output::Labels) {
        return Ok(vec![("logits".into(), logits)]);
    }
    Ok(vec![("labels".into(), layer::labels(b, logits)?)])
}

/// What a detector gives of each level.
struct Levels {
    /// `[N, anchors·classes, h, w]`
    scores: Vec<Value>,
    /// `[N, anchors·4, h, w]`
    deltas: Vec<Value>,
}

/// Scores and deltas of all levels as what was asked for: raw in the order of mmdetection's outputs.
fn detected(
    b: &mut Builder,
    levels: Levels,
    coder: &Coder,
    classes: usize,
    target: &Target,
) -> Result<Outputs> {
    match target.output {
        Some(Output::Decoded) => {
            let [boxes, scores] = boxes::decode(b, &levels, coder, classes, target.size)?;
            return Ok(vec![("boxes".into(), boxes), ("scores".into(), scores)]);
        }
        Some(Output::Nms) => return nms::build(b, &levels, coder, classes, target),
        _ => {}
    }
    let named = |name: &'static str, values: Vec<Value>| {
        values.into_iter().enumerate().map(move |(i, value)| (format!("{name}{i}").into(), value))
    };
    Ok(named("scores", levels.scores).chain(named("deltas", levels.deltas)).collect())
}

/// mmcv's module of a convolution, a batch norm of this ε, and an activation; a convolution without norm has a bias.
fn module(b: &mut Builder, x: Value, conv: Conv, norm: Option<f64>, act: Act, form: Form) -> Result<Value> {
    let norm = norm.map(|epsilon| ("bn", epsilon));
    let linear = Linear { name: "conv", bias: norm.is_none(), norm, act: Some("") };
    layer::convolve(b, x, &linear, conv, act, form)
}

/// The same without norm and activation.
fn plain(b: &mut Builder, x: Value, conv: Conv, form: Form) -> Result<Value> {
    let linear = Linear { name: "conv", bias: true, norm: None, act: None };
    layer::convolve(b, x, &linear, conv, Act::Relu, form)
}

/// The convolution to classes at the end of mmsegmentation's heads.
fn conv_seg(b: &mut Builder, x: Value, classes: usize) -> Result<Value> {
    b.within("conv_seg", |b| layer::conv(b, x, &Conv::pointwise(classes).biased()))
}

/// A 3×3 convolution to `out` channels.
fn three(out: usize) -> Conv {
    Conv { kernel: 3, ..Conv::pointwise(out) }
}
