//! Attributes: their form, and what the operator's schema says of them.

use std::collections::HashSet;

use emo_proto::AttributeProto;
use emo_proto::attribute_proto::AttributeType;

use super::operators::{Place, schemas};
use super::{Check, Findings, Severity, Subject};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "attribute-unnamed",
        severity: Severity::Error,
        what: "an attribute has a name",
        run: |s, f| {
            for (place, _) in attributes(s).filter(|(_, attribute)| attribute.name().is_empty()) {
                f.add(place, "expected a name of the attribute, found none");
            }
        },
    },
    Check {
        code: "duplicate-attribute",
        severity: Severity::Error,
        what: "a node has an attribute once",
        run: |s, f| {
            for (scope, _, index, node) in s.nodes().filter(|(.., node)| node.attribute.len() > 1) {
                let mut seen = HashSet::new();
                for attribute in node.attribute.iter().filter(|a| !seen.insert(a.name())) {
                    f.add(
                        scope.place(index),
                        format!("expected the attribute {} once, found it again; drop one", attribute.name()),
                    );
                }
            }
        },
    },
    Check {
        code: "attribute-untyped",
        severity: Severity::Error,
        what: "from IR version 2 on an attribute says its type",
        run: |s, f| {
            for (place, a) in attributes(s).filter(|(_, a)| s.model.ir_version() >= 2 && a.r#type.is_none()) {
                let type_ = payloads(a).first().map_or("the type of its value", |kind| kind.as_str_name());
                f.add(place, format!("expected {} to say its type, found none; set {type_}", a.name()));
            }
        },
    },
    Check {
        code: "attribute-payload",
        severity: Severity::Error,
        what: "an attribute has one value, of the type that it says",
        run: payload,
    },
    Check {
        code: "attribute-reference",
        severity: Severity::Error,
        what: "an attribute that refers to one of the function has no value, and the function has that one",
        run: reference,
    },
    Check {
        code: "unknown-attribute",
        severity: Severity::Error,
        what: "an operator knows the attributes that its node has",
        run: |s, f| {
            for (place, node, schema) in schemas(s).filter(|(.., schema)| !schema.open) {
                let known = |name: &str| schema.attributes.iter().any(|a| a.name == name);
                // Names that start so are private to tools.
                for a in node.attribute.iter().filter(|a| !known(a.name()) && !a.name().starts_with("__")) {
                    let hint = super::suggestion(a.name(), schema.attributes.iter().map(|a| a.name));
                    let operator = format!("{} of operator set {}", node.op_type(), schema.since);
                    f.add(place, format!("expected an attribute of {operator}, found {}{hint}", a.name()));
                }
            }
        },
    },
    Check {
        code: "missing-attribute",
        severity: Severity::Error,
        what: "a node has the attributes that its operator requires",
        run: |s, f| {
            for (place, node, schema) in schemas(s) {
                for a in schema.attributes.iter().filter(|a| a.required) {
                    if !node.attribute.iter().any(|b| b.name() == a.name) {
                        let (name, kind) = (a.name, a.kind.as_str_name());
                        f.add(place, format!("expected the attribute {name} ({kind}), found none; set it"));
                    }
                }
            }
        },
    },
    Check {
        code: "mistyped-attribute",
        severity: Severity::Error,
        what: "an attribute has the type that its operator gives it",
        run: mistyped,
    },
];

/// Every attribute of every node, with the node's place.
fn attributes<'s, 'a>(s: &'s Subject<'a>) -> impl Iterator<Item = (Place<'s, 'a>, &'a AttributeProto)> {
    s.nodes().flat_map(|(scope, at, index, node)| {
        node.attribute.iter().map(move |attribute| (Place { scope, at, index }, attribute))
    })
}

/// The types whose fields an attribute has filled.
fn payloads(a: &AttributeProto) -> Vec<AttributeType> {
    use AttributeType::*;
    let filled = [
        (Float, a.f.is_some()),
        (Int, a.i.is_some()),
        (String, a.s.is_some()),
        (Tensor, a.t.is_some()),
        (Graph, a.g.is_some()),
        (SparseTensor, a.sparse_tensor.is_some()),
        (TypeProto, a.tp.is_some()),
        (Floats, !a.floats.is_empty()),
        (Ints, !a.ints.is_empty()),
        (Strings, !a.strings.is_empty()),
        (Tensors, !a.tensors.is_empty()),
        (Graphs, !a.graphs.is_empty()),
        (SparseTensors, !a.sparse_tensors.is_empty()),
        (TypeProtos, !a.type_protos.is_empty()),
    ];
    filled.into_iter().filter(|(_, filled)| *filled).map(|(kind, _)| kind).collect()
}

fn payload(s: &Subject, f: &mut Findings) {
    for (place, a) in attributes(s) {
        let (name, payloads) = (a.name(), payloads(a));
        if payloads.len() > 1 {
            let names: Vec<_> = payloads.iter().map(AttributeType::as_str_name).collect();
            f.add(place, format!("expected one value of {name}, found {}; keep one", names.join(" and ")));
            continue;
        }
        let Ok(said) = AttributeType::try_from(a.r#type.unwrap_or_default()) else {
            f.add(
                place,
                format!(
                    "expected a type of the schema for {name}, found number {}",
                    a.r#type.unwrap_or_default()
                ),
            );
            continue;
        };
        match payloads.first() {
            Some(kind) if a.r#type.is_some() && *kind != said => {
                let (said, kind) = (said.as_str_name(), kind.as_str_name());
                f.add(
                    place,
                    format!("expected a value of {name} of the type {said} that it says, found {kind}"),
                );
            }
            None if a.ref_attr_name().is_empty() && needs_payload(said) => {
                f.add(
                    place,
                    format!("expected a value of {name}, found none; set its {}", said.as_str_name()),
                );
            }
            _ => {}
        }
    }
}

/// Numbers, strings and lists that are absent are zero or empty; messages are not.
fn needs_payload(kind: AttributeType) -> bool {
    use AttributeType::*;
    match kind {
        Tensor | Graph | SparseTensor | TypeProto => true,
        Undefined | Float | Int | String => false,
        Floats | Ints | Strings | Tensors | Graphs | SparseTensors | TypeProtos => false,
    }
}

fn reference(s: &Subject, f: &mut Findings) {
    for (scope, _, index, node) in s.nodes() {
        for a in node.attribute.iter().filter(|a| !a.ref_attr_name().is_empty()) {
            let (name, target) = (a.name(), a.ref_attr_name());
            let message = match scope.function {
                _ if !payloads(a).is_empty() => {
                    format!("expected no value of {name}, which refers to {target}, found one; drop it")
                }
                None => {
                    format!("expected a value of {name}, found a reference to {target} outside of a function")
                }
                Some(function) => {
                    let plain = function.attribute.iter().map(String::as_str);
                    let known: Vec<_> =
                        plain.chain(function.attribute_proto.iter().map(AttributeProto::name)).collect();
                    if known.contains(&target) {
                        continue;
                    }
                    let hint = super::suggestion(target, known.into_iter());
                    format!("expected {name} to refer to an attribute of the function, found {target}{hint}")
                }
            };
            f.add(scope.place(index), message);
        }
    }
}

fn mistyped(s: &Subject, f: &mut Findings) {
    for (place, node, schema) in schemas(s) {
        for a in &node.attribute {
            let Some(expected) = schema.attributes.iter().find(|b| b.name == a.name()) else { continue };
            // Before IR version 2 attributes say no type; their payload does.
            let said = a.r#type.and_then(|kind| AttributeType::try_from(kind).ok());
            let Some(found) = said.or_else(|| payloads(a).first().copied()) else { continue };
            if found != expected.kind {
                let (expected, found) = (expected.kind.as_str_name(), found.as_str_name());
                let operator = format!("{} of operator set {}", node.op_type(), schema.since);
                f.add(place, format!("expected {} of {operator} as {expected}, found {found}", a.name()));
            }
        }
    }
}
