//! Writes the EMO mobile vision models as ONNX, without Python.
//!
//! A model is one function over a typed graph builder ([`models`]); a target decides
//! how each layer is spelled and what is folded ([`target`]); weights come from a published
//! checkpoint or a formula ([`weights`]); [`export`] turns the three into bytes.
//!
//! ```
//! use emo_exporter::models::Model;
//! use emo_exporter::profile::Profile;
//! use emo_exporter::target::Target;
//! use emo_exporter::weights::Spec;
//!
//! let model = Model::named("emo-1m").unwrap();
//! let target = Target::new(Profile::named("portable").unwrap());
//! let export = emo_exporter::export(model, &target, &Spec::Formula(0))?;
//! assert_eq!(export.graph.outputs.len(), 1);
//! assert!(export.bytes.len() > 5_000_000);
//! # Ok::<(), emo_proto::Error>(())
//! ```

pub mod builder;
pub mod encode;
mod folded;
pub mod graph;
pub mod layer;
pub mod models;
pub mod op;
pub mod pass;
pub mod profile;
pub mod rewrite;
mod shape;
pub mod target;
pub mod weights;

use emo_proto::Result;

use crate::graph::Graph;
use crate::models::{Model, Task, own};
use crate::target::Target;
use crate::weights::{Origin, Spec, Weights};

/// Keys of a file's metadata.
pub mod metadata {
    pub const MODEL: &str = "emo.model";
    /// The file that describes a network of one's own, as [`own`](crate::models::own) writes it; absent where
    /// the model is a published one.
    pub const DEFINITION: &str = "emo.definition";
    pub const PROFILE: &str = "emo.profile";
    pub const VERSION: &str = "emo.version";
    pub const WEIGHTS: &str = "emo.weights";
    /// What leaves a dense model's file: an [`Output`](crate::target::Output)'s name.
    pub const OUTPUT: &str = "emo.output";
    /// How pictures become a dense model's inputs, a line each: size, keep_ratio, multiple, channels, mean, deviation.
    pub const INPUT: &str = "emo.input";
    /// How many classes a dense model tells apart.
    pub const CLASS_COUNT: &str = "emo.class_count";
    /// What the published classes are called, by commas, in the order of their numbers.
    pub const CLASSES: &str = "emo.classes";
    /// A line a rewrite, as [`Rewrite`](crate::rewrite::Rewrite) displays it; absent where there is none.
    pub const REWRITES: &str = "emo.rewrites";
}

/// A model as it was asked for: its graph, its weights and its file.
#[derive(Debug)]
pub struct Export {
    pub graph: Graph,
    pub weights: Weights,
    pub bytes: Vec<u8>,
}

/// Builds the graph, reads the weights, writes the bytes.
///
/// # Errors
/// The target is out of bounds, or the weights are not those of the model.
pub fn export(model: &Model, target: &Target, weights: &Spec) -> Result<Export> {
    // A target that is out of bounds is refused before a file is read.
    let graph = model.build(target)?;
    write(model, target, graph, Weights::load(weights, &model.parameters())?)
}

/// The same with weights that are at hand.
///
/// # Errors
/// The target is out of bounds, or a weight that it needs is missing.
pub fn export_with(model: &Model, target: &Target, weights: Weights) -> Result<Export> {
    write(model, target, model.build(target)?, weights)
}

/// The file of untrained weights without them: what there is to count, in no time.
///
/// # Errors
/// The target is out of bounds.
pub fn outline(model: &Model, target: &Target) -> Result<encode::Outline> {
    let graph = model.build(target)?;
    let origin = Origin::Formula { seed: 0 };
    encode::outline(&graph, target.opset, &properties(model, target, &graph, &origin))
}

fn write(model: &Model, target: &Target, graph: Graph, weights: Weights) -> Result<Export> {
    let properties = properties(model, target, &graph, weights.origin());
    let bytes = encode::encode(&graph, target.opset, &properties, &weights)?;
    Ok(Export { graph, weights, bytes })
}

fn properties(model: &Model, target: &Target, graph: &Graph, origin: &Origin) -> Vec<(&'static str, String)> {
    let rewrites: Vec<String> = graph.rewrites.iter().map(ToString::to_string).collect();
    let mut properties = vec![
        (metadata::MODEL, model.to_string()),
        (metadata::PROFILE, target.profile.name.to_owned()),
        (metadata::VERSION, encode::VERSION.to_owned()),
        (metadata::WEIGHTS, origin.to_string()),
    ];
    properties.extend(model.interface(target));
    if let Some(definition) = own::definition(model) {
        properties.push((metadata::DEFINITION, definition));
    }
    if model.task() != Task::Classify {
        properties.push((metadata::CLASS_COUNT, model.classes.to_string()));
    }
    if !rewrites.is_empty() {
        properties.push((metadata::REWRITES, rewrites.join("\n")));
    }
    properties
}
