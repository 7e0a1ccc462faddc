//! Writes the EMO mobile vision models as ONNX, without Python.
//!
//! A model is one function over a typed graph builder ([`models::emo`]); a profile decides
//! how each layer is spelled and what is folded ([`profile`]); weights come from a published
//! checkpoint or a formula ([`weights`]); [`export`] turns the three into bytes.
//!
//! ```
//! use emo_exporter::models::emo::{Request, Variant};
//! use emo_exporter::profile::Profile;
//! use emo_exporter::weights::Spec;
//!
//! let variant = Variant::named("emo-1m").unwrap();
//! let request = Request::new(variant, Profile::named("portable").unwrap());
//! let export = emo_exporter::export(&request, &Spec::Formula(0))?;
//! assert_eq!(export.graph.outputs.len(), 1);
//! assert!(export.bytes.len() > 5_000_000);
//! # Ok::<(), emo_proto::Error>(())
//! ```

pub mod builder;
pub mod encode;
pub mod fold;
pub mod graph;
pub mod half;
pub mod layer;
pub mod models;
pub mod op;
pub mod profile;
mod shape;
pub mod weights;

use emo_proto::Result;

use crate::graph::Graph;
use crate::models::emo::{self, Request};
use crate::weights::{Spec, Weights};

/// Keys of a file's metadata.
pub mod metadata {
    pub const MODEL: &str = "emo.model";
    pub const PROFILE: &str = "emo.profile";
    pub const VERSION: &str = "emo.version";
    pub const WEIGHTS: &str = "emo.weights";
    /// A line a rewrite, as [`Rewrite`](crate::fold::Rewrite) displays it; absent where there is none.
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
/// The request is out of bounds, or the weights are not those of the model.
pub fn export(request: &Request, weights: &Spec) -> Result<Export> {
    // A request that is out of bounds is refused before a file is read.
    let graph = emo::build(request)?;
    write(request, graph, Weights::load(weights, &request.variant.parameters(request.classes))?)
}

/// The same with weights that are at hand.
///
/// # Errors
/// The request is out of bounds, or a weight that it needs is missing.
pub fn export_with(request: &Request, weights: Weights) -> Result<Export> {
    write(request, emo::build(request)?, weights)
}

fn write(request: &Request, graph: Graph, weights: Weights) -> Result<Export> {
    let bytes = encode::encode(&graph, request.opset, &properties(request, &graph, &weights), &weights)?;
    Ok(Export { graph, weights, bytes })
}

fn properties(request: &Request, graph: &Graph, weights: &Weights) -> Vec<(&'static str, String)> {
    let rewrites: Vec<String> = graph.rewrites.iter().map(ToString::to_string).collect();
    let mut properties = vec![
        (metadata::MODEL, request.variant.name.to_owned()),
        (metadata::PROFILE, request.profile.name.to_owned()),
        (metadata::VERSION, encode::VERSION.to_owned()),
        (metadata::WEIGHTS, weights.origin().to_string()),
    ];
    if !rewrites.is_empty() {
        properties.push((metadata::REWRITES, rewrites.join("\n")));
    }
    properties
}
