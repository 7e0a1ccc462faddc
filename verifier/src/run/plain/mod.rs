//! A file made plain for an engine: at given shapes, functions written out, shape arithmetic computed, f32 at both ends.

mod afford;
mod coarse;
mod concrete;
mod dequantise;
mod fold;
mod inline;
mod value;
mod widen;

use std::collections::HashSet;

use emo_proto::{NodeProto, TensorProto, ValueInfoProto};

pub(crate) use coarse::coarse;
pub use concrete::{Concrete, Cut, Form};

/// The names that the bodies of a node read from around it.
pub(crate) fn captured<'g>(node: &'g NodeProto, found: &mut Vec<&'g str>) {
    for body in node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs)) {
        let mut own: HashSet<&str> = body.input.iter().map(ValueInfoProto::name).collect();
        own.extend(body.initializer.iter().map(TensorProto::name));
        own.extend(body.sparse_initializer.iter().filter_map(|s| Some(s.values.as_ref()?.name())));
        own.extend(body.node.iter().flat_map(|n| &n.output).map(String::as_str));
        let mut reads: Vec<&str> = body.output.iter().map(ValueInfoProto::name).collect();
        for node in &body.node {
            reads.extend(node.input.iter().map(String::as_str));
            captured(node, &mut reads);
        }
        found.extend(reads.into_iter().filter(|name| !name.is_empty() && !own.contains(name)));
    }
}
