//! What a file is written for.

use std::collections::BTreeSet;

use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};

use crate::graph::{Dim, Graph};
use crate::layer::Form;
use crate::profile::{Allow, MostImages, Opset, Opsets, PROFILES, Profile};

/// Largest side of an input, far beyond any use and far below what overflows a count.
pub const LARGEST_SIDE: usize = 1 << 14;
/// Most images a run, for the same reason.
pub const LARGEST_BATCH: usize = 1 << 16;

/// The extent of the batch axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    Fixed(usize),
    /// Known only when the file runs.
    Dynamic,
}

impl Batch {
    pub(crate) fn dim(self) -> Dim {
        match self {
            Batch::Fixed(n) => Dim::Fixed(n),
            Batch::Dynamic => Dim::Batch(1),
        }
    }
}

/// What leaves the file; which of them a model has is [`Model::output_forms`](crate::models::Model::output_forms).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// What the last layers give: scores and deltas of each level, or maps.
    Raw,
    /// Boxes in pixels and scores of all anchors.
    Decoded,
    /// The best boxes, none of which overlaps a better one of its class: boxes, scores, labels, how many there are.
    Nms,
    /// Logits of classes; of a segmenter those of every pixel of the input.
    Logits,
    /// Logits of every cell of a segmenter's own map.
    LogitsSmall,
    /// The class of every pixel, as bytes.
    Labels,
}

impl Output {
    pub const ALL: [Self; 6] =
        [Output::Raw, Output::Decoded, Output::Nms, Output::Logits, Output::LogitsSmall, Output::Labels];

    /// The row called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|output| output.name() == name)
    }

    /// As the command line spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Output::Raw => "raw",
            Output::Decoded => "decoded",
            Output::Nms => "nms",
            Output::Logits => "logits",
            Output::LogitsSmall => "logits-small",
            Output::Labels => "labels",
        }
    }
}

/// Which boxes [`Output::Nms`] keeps; the published thresholds where they are not said.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Suppression {
    /// Scores are above it; 0 at least.
    pub score_threshold: Option<f32>,
    /// Boxes of a class overlap better ones by no more of their union.
    pub iou_threshold: Option<f32>,
    /// How many there are at most.
    pub most: Option<usize>,
}

/// What a model is written for: a runtime's row, and the interface and types of the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    pub profile: &'static Profile,
    pub opset: &'static Opset,
    /// Height and width of the input, in pixels.
    pub size: (usize, usize),
    pub batch: Batch,
    /// Of weights and computation: `Float` or `Float16`. Input and output are float32 either way.
    pub dtype: DataType,
    /// Whether the input is an image of bytes, `[N, H, W, 3]` RGB, normalised in the file.
    pub image_input: bool,
    /// What leaves the file; the model's own default where it is not said.
    pub output: Option<Output>,
    /// Of detectors.
    pub suppression: Suppression,
}

impl Target {
    /// What most files are written for: 224 × 224 pixels, batch 1, float32, the profile's opset.
    #[must_use]
    pub fn new(profile: &'static Profile) -> Self {
        Self {
            profile,
            opset: profile.default_opset(),
            size: (224, 224),
            batch: Batch::Fixed(1),
            dtype: DataType::Float,
            image_input: false,
            output: None,
            suppression: Suppression::default(),
        }
    }

    /// Whether the sizes are within bounds, and the profile allows the rest.
    ///
    /// # Errors
    /// The first that is not, with what was expected.
    pub(crate) fn check(&self) -> Result<()> {
        let (height, width) = self.size;
        if [height, width].iter().any(|side| !(1..=LARGEST_SIDE).contains(side)) {
            let why = format!("expected sides from 1 to {LARGEST_SIDE} pixels, found {height}x{width}");
            return Err(Error::new(why).at("input size"));
        }
        if let Batch::Fixed(n) = self.batch
            && !(1..=LARGEST_BATCH).contains(&n)
        {
            return Err(Error::new(format!("expected 1 to {LARGEST_BATCH} images, found {n}")).at("batch"));
        }
        self.accept()
    }

    /// Whether the profile's row allows it.
    ///
    /// # Errors
    /// It does not: the message says why, by which source, and what is nearest.
    pub fn accept(&self) -> Result<()> {
        let opset = self.opset.version;
        let Opsets { versions, source } = self.profile.opsets;
        if !versions.contains(&opset) {
            let versions: Vec<_> = versions.iter().map(ToString::to_string).collect();
            let (name, versions) = (self.profile.name, versions.join(" or "));
            let why = format!("the target {name} is written in opset {versions} ({source}), not in {opset}");
            return Err(Error::new(why).at("opset"));
        }
        if self.batch == Batch::Dynamic {
            self.profile.free_batch.check("free batch", self.profile.name).map_err(|e| e.at("batch"))?;
        }
        if let Some(MostImages { images, because, source, instead }) = self.profile.most_images
            && let Batch::Fixed(found) = self.batch
            && found > images
        {
            let refusal = Allow::No { because, source, instead };
            refusal.check(&format!("batch of {found}"), self.profile.name).map_err(|e| e.at("batch"))?;
        }
        if self.dtype == DataType::Float16 {
            self.profile.half.check("float16 file", self.profile.name).map_err(|e| e.at("dtype"))?;
        }
        if self.image_input {
            self.profile
                .image_input
                .check("image of bytes", self.profile.name)
                .map_err(|e| e.at("image input"))?;
        }
        Ok(())
    }

    /// Whether the row lists every operator of a graph that gives `output`.
    ///
    /// # Errors
    /// It does not: the message says which, by which source, and which targets do.
    pub(crate) fn take(&self, graph: &Graph, output: Output) -> Result<()> {
        let lists = |profile: &Profile, op: &str| profile.conditions("", op).is_some();
        let ops = || graph.nodes.iter().map(|node| node.op.onnx_name());
        let missing: BTreeSet<&str> = ops().filter(|op| !lists(self.profile, op)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = Vec::from_iter(missing).join(", ");
        let others = PROFILES.iter().filter(|profile| ops().all(|op| lists(profile, op)));
        let others: Vec<&str> = others.map(|profile| profile.name).collect();
        let (name, output, source) = (self.profile.name, output.name(), self.profile.operators.source());
        let why = format!(
            "the target {name} takes no {missing}, which {output} needs ({source}); of the targets {} take it",
            others.join(", ")
        );
        Err(Error::new(why).at("output"))
    }

    /// How layers are spelled for it.
    pub(crate) fn form(&self) -> Form {
        Form { profile: self.profile, opset: self.opset, half: self.dtype == DataType::Float16 }
    }
}
