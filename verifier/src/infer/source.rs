//! Constants, and what is made of them alone.

use std::sync::Arc;

use super::{Constant, Inference};
use crate::fact::Fact;
use crate::ops::Row;
use crate::sym::Expr;
use emo_proto::NodeProto;
use emo_proto::tensor_proto::DataType;

/// Where a value comes from that constants alone decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A constant, by index.
    Constant(usize),
    /// Computed from these sources, each older than this one.
    Computed(Vec<usize>),
}

impl Inference<'_> {
    /// A new constant.
    pub(super) fn constant(&mut self, name: &str, fact: Fact) -> Fact {
        let fact = Fact { source: Some(self.sources.len()), ..fact };
        self.sources.push(Source::Constant(self.constants.len()));
        let parameters = fact.count();
        self.constants.push(Constant {
            name: name.to_owned(),
            fact: fact.clone(),
            is_weight: false,
            parameters,
        });
        fact
    }

    /// The source of what is computed from `inputs`, if constants alone decide it.
    pub(super) fn computed(&mut self, inputs: &[Option<Arc<Fact>>]) -> Option<usize> {
        let mut parts = Vec::new();
        for input in inputs.iter().flatten() {
            parts.push(input.source?);
        }
        parts.dedup();
        match parts.as_slice() {
            [] => None,
            [one] => Some(*one),
            _ => {
                self.sources.push(Source::Computed(parts));
                Some(self.sources.len() - 1)
            }
        }
    }

    /// Gives each constant behind a weight operand to the first node that reads it as such.
    ///
    /// A lone number is no parameter: it scales, it is not learnt. Nor is an integer, unless it is
    /// a quantised number: of 8 bits or fewer, or a bias of 32 beside these.
    pub(super) fn find_weights(&mut self) {
        let mut seen = vec![false; self.sources.len()];
        for node in &mut self.nodes {
            let Some(weighed) = &mut node.weighed else { continue };
            let mut open: Vec<(usize, bool)> = weighed.reads.iter().map(|&source| (source, true)).collect();
            while let Some((source, direct)) = open.pop() {
                // A source that was seen has given its constants away.
                if std::mem::replace(&mut seen[source], true) {
                    continue;
                }
                match &self.sources[source] {
                    Source::Computed(parts) => open.extend(parts.iter().map(|&part| (part, false))),
                    &Source::Constant(index) => {
                        let Constant { fact, is_weight, parameters, .. } = &mut self.constants[index];
                        let integer = is_quantised(fact) || node.quantised && fact.dtype == DataType::Int32;
                        if fact.rank() != Some(0) && (fact.is_float() || direct && integer) {
                            *is_weight = true;
                            if let Some(packed) = packed(node.node).filter(|_| is_quantised(fact)) {
                                *parameters = packed;
                            }
                            weighed.weights.push(index);
                        }
                    }
                }
            }
            weighed.weights.sort_unstable();
        }
    }
}

/// The parameters of a matrix of few bits that is packed into bytes: attributes tell its extents.
fn packed(node: &NodeProto) -> Option<Expr> {
    let extent = |name: &str| node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.i);
    match node.op_type() {
        "MatMulNBits" | "MatMulBnb4" => Some(Expr::Number(extent("K")?) * extent("N")?),
        _ => None,
    }
}

/// Whether the elements are integers of 8 bits or fewer.
pub(super) fn is_quantised(fact: &Fact) -> bool {
    fact.is_integer() && emo_proto::tensor::bits(fact.dtype) <= Some(8)
}

/// The sources of a row's weight operands. What constants alone decide reads none: it computes one.
pub(super) fn reads(row: &Row, inputs: &[Option<Arc<Fact>>]) -> Vec<usize> {
    if inputs.iter().flatten().all(|fact| fact.source.is_some()) {
        return Vec::new();
    }
    row.weights.iter().filter_map(|&i| inputs.get(i)?.as_ref()?.source).collect()
}
