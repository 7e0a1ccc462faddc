//! ONNX files as bytes: the messages of the public schema, tensors, external data.
//!
//! An ONNX file is one protobuf message, [`ModelProto`]. [`file::open`] maps it and decodes it
//! without copying its weights; [`tensor::Tensor`] reads a weight wherever the file keeps it;
//! [`file::write_atomic`] writes a file whole or not at all. Nothing here knows a model, a runtime
//! or a terminal.
//!
//! Third-party files are hostile: every length is checked before it is trusted, external data
//! never leaves the model's folder, and what is wrong is an [`Error`] that names its place.
//!
//! # The shapes of a model's weights
//!
//! ```
//! use emo_proto::{GraphProto, Message, ModelProto, file, tensor::Tensor};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("model.onnx");
//! // Any ONNX file will do; this one holds a single weight.
//! let weight = Tensor::from_f32(vec![2, 3], vec![0.0, 0.5, 1.0, 1.5, 2.0, 2.5])?;
//! let graph = GraphProto { initializer: vec![weight.encode("fc.weight")], ..Default::default() };
//! let model = ModelProto { graph: Some(graph), ..Default::default() };
//! file::write_atomic(&path, &model.encode_to_vec())?;
//!
//! let onnx = file::open(&path)?;
//! let mut shapes = Vec::new();
//! for proto in onnx.model.graph.iter().flat_map(|graph| &graph.initializer) {
//!     let tensor = Tensor::decode(proto, &onnx.external)?;
//!     shapes.push(format!("{} {} {:?}", proto.name(), tensor.dtype.as_str_name(), tensor.dims));
//! }
//! assert_eq!(shapes, ["fc.weight FLOAT [2, 3]"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod decode;
mod error;
mod external;
pub mod file;
mod map;
mod node;
/// The messages of the ONNX schema, generated from `onnx.proto`.
#[rustfmt::skip]
pub mod onnx;
mod packed;
pub mod plain;
pub mod tensor;
pub mod text;
mod typed;
mod wire;
mod write;

pub use bytes::Bytes;
pub use error::{Error, Result};
pub use node::{NodeProto, Operator, Rare, RareFields};
pub use onnx::*;
pub use prost::Message;
