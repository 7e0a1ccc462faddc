//! What a file says of its values, against what the walk found.

use emo_proto::ValueInfoProto;
use emo_proto::tensor_proto::DataType;

use super::Inference;
use crate::fact::{Fact, Kind};
use crate::sym::Expr;
use crate::typed::of_type;

/// A value that is declared as what it cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The path of the body that the value lies in; empty in the main graph.
    pub path: String,
    pub value: String,
    /// Type and extents, as [`Fact::describe`] has them.
    pub declared: String,
    pub inferred: String,
}

impl Inference<'_> {
    /// Values whose declared type or shape differs from the inferred one, in the order of their
    /// declarations. A dimension with a name may be any number.
    #[must_use]
    pub fn contradictions(&self) -> Vec<Contradiction> {
        let mut found = Vec::new();
        let mut compare = |path: &str, declared: &ValueInfoProto, inferred: Option<&Fact>| {
            let (Some(r#type), Some(inferred)) = (&declared.r#type, inferred) else { return };
            let fact = of_type(r#type, declared.name());
            if contradicts(&fact, inferred) {
                found.push(Contradiction {
                    path: path.to_owned(),
                    value: declared.name().to_owned(),
                    declared: fact.describe(),
                    inferred: inferred.describe(),
                });
            }
        };
        for declared in self.graph.iter().flat_map(|graph| graph.value_info.iter().chain(&graph.output)) {
            compare("", declared, self.values.get(declared.name()));
        }
        for body in &self.bodies {
            let outputs = body.graph.iter().flat_map(|graph| &graph.output);
            for declared in body.value_info.iter().chain(outputs) {
                compare(&body.path, declared, body.values.get(declared.name()));
            }
        }
        found
    }
}

fn contradicts(declared: &Fact, inferred: &Fact) -> bool {
    let untyped = |fact: &Fact| matches!(fact.kind, Kind::Tensor) && fact.dtype == DataType::Undefined;
    if untyped(declared) || untyped(inferred) {
        return false;
    }
    match (&declared.kind, &inferred.kind) {
        (Kind::Tensor, Kind::Tensor) | (Kind::Sparse, Kind::Sparse) => {}
        (Kind::Sequence(a), Kind::Sequence(b)) => return contradicts(&a.item, &b.item),
        (Kind::Optional(a), Kind::Optional(b)) => return contradicts(a, b),
        (Kind::Map(k, a), Kind::Map(l, b)) => return k != l || contradicts(a, b),
        (Kind::Opaque, Kind::Opaque) => return false,
        _ => return true,
    }
    let differ = |(a, b): (&Expr, &Expr)| a.number().zip(b.number()).is_some_and(|(a, b)| a != b);
    declared.dtype != inferred.dtype
        || match (&declared.dims, &inferred.dims) {
            (Ok(a), Ok(b)) => a.len() != b.len() || a.iter().zip(b).any(differ),
            _ => false,
        }
}
