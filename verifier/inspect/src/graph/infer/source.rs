//! Constants, and what is made of them alone.

use std::sync::Arc;

use super::{Constant, Inference};
use crate::fact::Fact;
use crate::ops::numbers_in;
use crate::sym::Expr;
use emo_proto::NodeProto;

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
            readers: 0,
            left_out: None,
            is_bias_of_scores: false,
            made_by: None,
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
}

/// The parameters of a tensor of few bits that is packed into bytes: attributes tell how.
pub(super) fn packed(node: &NodeProto, fact: &Fact, operand: usize) -> Option<Expr> {
    let extent = |name: &str| node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.i);
    match node.op_type() {
        "MatMulNBits" | "MatMulBnb4" | "MatMulPacked" | "MatMulNBitsMlp" => {
            Some(Expr::Number(extent("K")?) * extent("N")?)
        }
        _ => Some(fact.count() * numbers_in(node, fact.dtype, operand)),
    }
}

/// Whether the elements are integers of 8 bits or fewer.
pub(super) fn is_quantised(fact: &Fact) -> bool {
    fact.is_integer() && emo_proto::tensor::bits(fact.dtype) <= Some(8)
}
