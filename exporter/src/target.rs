//! What a file is written for.

use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};

use crate::graph::Dim;
use crate::layer::Form;
use crate::profile::{Allow, MostImages, Opset, Opsets, Profile};

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

    /// How layers are spelled for it.
    pub(crate) fn form(&self) -> Form {
        Form { profile: self.profile, opset: self.opset, half: self.dtype == DataType::Float16 }
    }
}
