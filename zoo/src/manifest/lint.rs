//! A file held to every profile.

use std::collections::{BTreeMap, HashSet};

use emo_exporter::profile::{Attribute, NodeFacts, Operand, PROFILES, Profile};
use emo_proto::attribute_proto::AttributeType;
use emo_proto::{AttributeProto, NodeProto};
use emo_verifier::fact::Fact;
use emo_verifier::infer::Inference;
use emo_verifier::sym::Expr;

use super::entry::Lint;

/// What every profile has against a file, by the profile's name.
#[must_use]
pub fn lint(inference: &Inference) -> BTreeMap<String, Lint> {
    PROFILES.iter().map(|profile| (profile.name.to_owned(), held_to(profile, inference))).collect()
}

/// What one profile has against a file.
#[must_use]
pub fn held_to(profile: &Profile, inference: &Inference) -> Lint {
    let constants: HashSet<&str> = inference.constants.iter().map(|c| c.name.as_str()).collect();
    // Constants are data: they neither break a rule nor begin a piece.
    let nodes = inference.nodes.iter().map(|n| n.node).filter(|node| node.op_type() != "Constant");
    let taken: Vec<bool> =
        nodes.map(|node| profile.judge(&facts(node, inference, &constants)).is_empty()).collect();
    Lint {
        violations: taken.iter().filter(|taken| !**taken).count(),
        partitions: taken.chunk_by(|a, b| a == b).filter(|run| run.first() == Some(&true)).count(),
    }
}

/// What a row sees of a node.
fn facts<'a>(node: &'a NodeProto, inference: &Inference, constants: &HashSet<&str>) -> NodeFacts<'a> {
    let operand = |name: &str, fact: &Fact| Operand {
        dtype: Some(fact.dtype),
        shape: fact.dims.as_ref().ok().map(|dims| dims.iter().map(Expr::count).collect()),
        constant: constants.contains(name),
        integers: fact.elements.as_ref().map(|e| e.iter().filter_map(Expr::number).collect()),
    };
    let known = |name: &String| Some(operand(name, inference.values.get(name.as_str())?));
    let attribute = |a: &'a AttributeProto| {
        let value = match a.r#type() {
            AttributeType::Int => Attribute::Int(a.i()),
            AttributeType::Float => Attribute::Float(a.f()),
            AttributeType::String => Attribute::Text(String::from_utf8_lossy(a.s()).into_owned()),
            _ => Attribute::Other,
        };
        (a.name(), value)
    };
    NodeFacts {
        domain: node.domain(),
        op: node.op_type(),
        attributes: node.attribute.iter().map(attribute).collect(),
        operands: node.input.iter().map(known).collect(),
        results: node.output.iter().filter_map(known).collect(),
    }
}
