//! What a row allows to be asked for; a refusal says why, and the nearest thing that works.

use std::collections::BTreeSet;

use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};

use super::{PROFILES, Profile};
use crate::graph::Graph;
use crate::target::{Batch, Output, Target};

/// The operator sets that a runtime takes, the default first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opsets {
    pub versions: &'static [i64],
    pub source: &'static str,
}

/// Whether something may be asked for, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    Yes,
    No {
        because: &'static str,
        source: &'static str,
        /// The nearest thing that works.
        instead: &'static str,
    },
}

/// How many images a run may have at most, and why no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MostImages {
    pub images: usize,
    pub because: &'static str,
    pub source: &'static str,
    /// The nearest thing that works.
    pub instead: &'static str,
}

impl Allow {
    fn check(self, asked: &str, profile: &str) -> Result<()> {
        match self {
            Allow::Yes => Ok(()),
            Allow::No { because, source, instead } => {
                let comma = if instead.contains(',') { "," } else { "" };
                let why = format!("{because} ({source}); {instead}{comma} works");
                Err(Error::new(format!("the target {profile} takes no {asked}: {why}")))
            }
        }
    }
}

impl Profile {
    /// Whether the row allows the target.
    ///
    /// # Errors
    /// It does not: the message says why, by which source, and what is nearest.
    pub fn accept(&self, target: &Target) -> Result<()> {
        let opset = target.opset.version;
        let Opsets { versions, source } = self.opsets;
        if !versions.contains(&opset) {
            let versions: Vec<_> = versions.iter().map(ToString::to_string).collect();
            let (name, versions) = (self.name, versions.join(" or "));
            let why = format!("the target {name} is written in opset {versions} ({source}), not in {opset}");
            return Err(Error::new(why).at("opset"));
        }
        if target.batch == Batch::Dynamic {
            self.free_batch.check("free batch", self.name).map_err(|e| e.at("batch"))?;
        }
        if let Some(MostImages { images, because, source, instead }) = self.most_images
            && let Batch::Fixed(found) = target.batch
            && found > images
        {
            let refusal = Allow::No { because, source, instead };
            refusal.check(&format!("batch of {found}"), self.name).map_err(|e| e.at("batch"))?;
        }
        if target.dtype == DataType::Float16 {
            self.half.check("float16 file", self.name).map_err(|e| e.at("dtype"))?;
        }
        if target.image_input {
            self.image_input.check("image of bytes", self.name).map_err(|e| e.at("image input"))?;
        }
        Ok(())
    }

    /// Whether the row lists every operator of a graph that gives `output`.
    ///
    /// # Errors
    /// It does not: the message says which, by which source, and which targets do.
    pub(crate) fn take(&self, graph: &Graph, output: Output) -> Result<()> {
        let lists = |profile: &Self, op: &str| profile.conditions("", op).is_some();
        let ops = || graph.nodes.iter().map(|node| node.op.onnx_name());
        let missing: BTreeSet<&str> = ops().filter(|op| !lists(self, op)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = Vec::from_iter(missing).join(", ");
        let others = PROFILES.iter().filter(|profile| ops().all(|op| lists(profile, op)));
        let others: Vec<&str> = others.map(|profile| profile.name).collect();
        let (name, output, source) = (self.name, output.name(), self.operators.source());
        let why = format!(
            "the target {name} takes no {missing}, which {output} needs ({source}); of the targets {} take it",
            others.join(", ")
        );
        Err(Error::new(why).at("output"))
    }
}
