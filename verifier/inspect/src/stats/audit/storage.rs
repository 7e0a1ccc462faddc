//! What a file stores, by element type: told by its headers, weights are never read.

use std::collections::{BTreeMap, BTreeSet};

use emo_proto::tensor::bits;
use emo_proto::tensor_proto::{DataLocation, DataType};
use emo_proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};
use serde::Serialize;

use crate::sym::Expr;

/// The tensors of one element type that a file holds, inside or beside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Stored {
    /// The type as ONNX spells it, in lower case: `float`, `int64`.
    pub dtype: String,
    pub tensors: usize,
    pub elements: Expr,
    /// The payload as raw data takes it.
    pub bytes: Expr,
}

/// Every tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Storage {
    pub bytes: Expr,
    pub by_type: Vec<Stored>,
    /// The files beside the model that hold some of the bytes.
    pub external: Vec<String>,
    /// The bytes that they hold.
    pub external_bytes: Expr,
}

/// Adds up the initializers, the constants of nodes and of function and branch bodies.
#[must_use]
pub fn storage(model: &ModelProto) -> Storage {
    let mut tally = Tally::default();
    model.graph.iter().for_each(|graph| tally.graph(graph));
    model.functions.iter().for_each(|function| tally.nodes(&function.node));
    let by_type = tally.by_type.into_iter().map(|(dtype, stored)| Stored { dtype, ..stored });
    let by_type: Vec<Stored> = by_type.collect();
    let bytes = by_type.iter().map(|s| s.bytes.clone()).sum();
    let external = tally.external.into_iter().map(str::to_owned).collect();
    Storage { bytes, by_type, external, external_bytes: tally.external_bytes }
}

#[derive(Default)]
struct Tally<'a> {
    by_type: BTreeMap<String, Stored>,
    external: BTreeSet<&'a str>,
    external_bytes: Expr,
}

impl<'a> Tally<'a> {
    fn graph(&mut self, graph: &'a GraphProto) {
        graph.initializer.iter().for_each(|tensor| self.tensor(tensor));
        graph.sparse_initializer.iter().for_each(|sparse| self.sparse(sparse));
        self.nodes(&graph.node);
    }

    fn nodes(&mut self, nodes: &'a [NodeProto]) {
        nodes.iter().flat_map(|node| &node.attribute).for_each(|attribute| self.attribute(attribute));
    }

    /// Bodies nest no deeper than the decoder lets messages nest.
    fn attribute(&mut self, attribute: &'a AttributeProto) {
        attribute.t.as_deref().into_iter().chain(&attribute.tensors).for_each(|tensor| self.tensor(tensor));
        attribute
            .sparse_tensor
            .as_deref()
            .into_iter()
            .chain(&attribute.sparse_tensors)
            .for_each(|s| self.sparse(s));
        attribute.g.as_deref().into_iter().chain(&attribute.graphs).for_each(|graph| self.graph(graph));
    }

    fn sparse(&mut self, sparse: &'a SparseTensorProto) {
        sparse.values.iter().chain(&sparse.indices).for_each(|tensor| self.tensor(tensor));
    }

    fn tensor(&mut self, tensor: &'a TensorProto) {
        let dtype = DataType::try_from(tensor.data_type()).unwrap_or(DataType::Undefined);
        let elements: Expr = tensor.dims.iter().map(|&dim| Expr::Number(dim)).product();
        let bytes = match (bits(dtype), dtype) {
            (Some(bits), _) => (&elements * bits as i64).ceil_div(&8.into()),
            (None, DataType::String) => tensor.string_data.iter().map(|s| Expr::from(s.len())).sum(),
            (None, _) => Expr::unknown("an unknown element type"),
        };
        let stored = self.by_type.entry(dtype.as_str_name().to_lowercase()).or_default();
        stored.tensors += 1;
        stored.elements = &stored.elements + &elements;
        stored.bytes = &stored.bytes + &bytes;
        if tensor.data_location() == DataLocation::External {
            let location = tensor.external_data.iter().find(|entry| entry.key() == "location");
            self.external.extend(location.map(emo_proto::StringStringEntryProto::value));
            self.external_bytes = &self.external_bytes + &bytes;
        }
    }
}
