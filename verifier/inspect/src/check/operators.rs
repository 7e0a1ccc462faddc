//! Nodes against the schemas of their operators.

use emo_proto::NodeProto;

use super::subject::{Callee, Scope};
use super::{Check, Findings, Severity, Subject, UNDECIDED};
use crate::schema::{self, Formals, Mark, Schema};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "operator-missing",
        severity: Severity::Error,
        what: "a node names its operator",
        run: |s, f| {
            for (scope, _, index, _) in s.nodes().filter(|(.., node)| node.op_type().is_empty()) {
                f.add(scope.place(index), "expected an op_type, found none");
            }
        },
    },
    Check {
        code: "node-empty",
        severity: Severity::Error,
        what: "a node has an input or an output",
        run: |s, f| {
            for (scope, _, index, _) in
                s.nodes().filter(|(.., node)| node.input.is_empty() && node.output.is_empty())
            {
                f.add(scope.place(index), "expected an input or an output, found neither; drop the node");
            }
        },
    },
    Check {
        code: "unknown-operator",
        severity: Severity::Error,
        what: "an operator of a domain of the specification is in the imported operator set",
        run: unknown_operator,
    },
    Check {
        code: UNDECIDED,
        severity: Severity::Open,
        what: "an operator of another domain is a function of the file or known here; whether it is \
         legal cannot be told",
        run: |s, f| {
            for (scope, at, index, node) in s.nodes() {
                if let Callee::Foreign = s.callee(at, index) {
                    let (domain, name) = (node.domain(), node.op_type());
                    f.add(
                        scope.place(index),
                        format!(
                            "expected a schema or a function of {domain}::{name}, found none; its \
                         node is not judged"
                        ),
                    );
                }
            }
        },
    },
    Check {
        code: "deprecated-operator",
        severity: Severity::Error,
        what: "an operator is not withdrawn in the imported operator set",
        run: |s, f| {
            for (place, node, schema) in schemas(s).filter(|(.., schema)| schema.deprecated) {
                let (name, since) = (node.op_type(), schema.since);
                f.add(
                    place,
                    format!(
                        "expected an operator in use, found {name}, withdrawn by operator set {since}{}",
                        replacement(name)
                    ),
                );
            }
        },
    },
    Check {
        code: "experimental-operator",
        severity: Severity::Warning,
        what: "an operator was not an experiment that the specification has dropped",
        run: |s, f| {
            for (scope, _, index, node) in s.nodes().filter(|(.., node)| is_experimental(node)) {
                f.add(
                    scope.place(index),
                    format!(
                        "expected an operator of the specification, found {}, an experiment; \
                     runtimes may not have it",
                        node.op_type()
                    ),
                );
            }
        },
    },
    Check {
        code: "runtime-operator",
        severity: Severity::Warning,
        what: "an operator of a domain of the specification is one of the specification's",
        run: |s, f| {
            for (scope, _, index, node) in s.nodes().filter(|(.., node)| s.is_runtimes(node)) {
                f.add(
                    scope.place(index),
                    format!(
                        "expected an operator of the specification, found {}, which ONNX Runtime alone \
                         has in this domain; other runtimes and onnx's checker refuse it",
                        node.op_type()
                    ),
                );
            }
        },
    },
    Check {
        code: "wrong-inputs",
        severity: Severity::Error,
        what: "a node has as many inputs as its operator takes, none of the required ones absent",
        run: |s, f| {
            for (place, node, schema) in schemas(s) {
                arity(f, &place, "input", &node.input, &schema.inputs);
            }
        },
    },
    Check {
        code: "wrong-outputs",
        severity: Severity::Error,
        what: "a node has as many outputs as its operator gives, none of the required ones absent",
        run: |s, f| {
            for (place, node, schema) in schemas(s) {
                arity(f, &place, "output", &node.output, &schema.outputs);
            }
        },
    },
    Check {
        code: "random-operator",
        severity: Severity::Warning,
        what: "the same input gives the same output",
        run: |s, f| {
            for (scope, _, index, node) in s.nodes() {
                let random =
                    schema::canonical(node.domain()) == "ai.onnx" && RANDOM.contains(&node.op_type());
                if random && !node.attribute.iter().any(|a| a.name() == "seed") {
                    f.add(
                        scope.place(index),
                        "expected a seed, found none, so that no two runs agree; set it, or feed the \
                         numbers in",
                    );
                }
            }
        },
    },
    Check {
        code: "training-mode",
        severity: Severity::Warning,
        what: "Dropout and BatchNormalization are in inference mode",
        run: training_mode,
    },
];

const RANDOM: [&str; 6] =
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];

/// Operators that files of the first operator sets may have and no schema describes.
const EXPERIMENTAL: [&str; 11] = [
    "ATen",
    "Affine",
    "ConstantFill",
    "Crop",
    "DynamicSlice",
    "GRUUnit",
    "GivenTensorFill",
    "ImageScaler",
    "ParametricSoftplus",
    "Scale",
    "ScaledTanh",
];

fn is_experimental(node: &NodeProto) -> bool {
    schema::canonical(node.domain()) == "ai.onnx" && EXPERIMENTAL.contains(&node.op_type())
}

/// Each node that a schema describes, with its place.
pub(super) fn schemas<'s, 'a>(
    s: &'s Subject<'a>,
) -> impl Iterator<Item = (Place<'s, 'a>, &'a NodeProto, &'static Schema)> {
    s.nodes().filter_map(|(scope, at, index, node)| match s.callee(at, index) {
        Callee::Schema(schema) => Some((Place { scope, at, index }, node, schema)),
        _ => None,
    })
}

/// A node's place, put into words when something is found there.
#[derive(Clone, Copy)]
pub(super) struct Place<'s, 'a> {
    pub scope: &'s Scope<'a>,
    pub at: usize,
    pub index: usize,
}

impl From<Place<'_, '_>> for String {
    fn from(place: Place) -> Self {
        place.scope.place(place.index)
    }
}

fn unknown_operator(s: &Subject, f: &mut Findings) {
    for (scope, at, index, node) in s.nodes().filter(|(.., n)| !is_experimental(n) && !n.op_type().is_empty())
    {
        let Callee::Missing = s.callee(at, index) else { continue };
        let (domain, name) = (schema::canonical(node.domain()), node.op_type());
        let opset = scope.opset(node.domain()).unwrap_or(0);
        let hint = match schema::versions(domain, name).first() {
            Some(first) => format!("; it came with operator set {}: import that one or a newer", first.since),
            None => super::suggestion(name, schema::names(domain)),
        };
        f.add(
            scope.place(index),
            format!("expected an operator of {domain} {opset}, found {name}, which it does not have{hint}"),
        );
    }
}

/// What took the place of a withdrawn operator.
fn replacement(name: &str) -> &'static str {
    match name {
        "Upsample" => "; use Resize",
        "Scatter" => "; use ScatterElements",
        "GroupNormalization" => "; import operator set 21, which has it anew",
        "TreeEnsembleClassifier" | "TreeEnsembleRegressor" => "; use TreeEnsemble",
        _ => "; use what took its place",
    }
}

fn arity(f: &mut Findings, place: &Place, role: &str, names: &[String], formals: &Formals) {
    // Those of a variadic formal may be counted up to its bound only by the counts.
    if !formals.counts.allow(names.len()) {
        f.add(*place, format!("expected {} {role}s, found {}", formals.counts, names.len()));
    }
    for (index, name) in names.iter().enumerate() {
        match formals.list.get(index) {
            Some(formal) if name.is_empty() && formal.mark == Mark::Required => {
                f.add(*place, format!("expected the {role} {} ({index}), found it absent", formal.name));
            }
            _ => {}
        }
    }
}

fn training_mode(s: &Subject, f: &mut Findings) {
    for (scope, at, index, node) in s.nodes() {
        let Callee::Schema(schema) = s.callee(at, index) else { continue };
        let flag =
            |name: &str| node.attribute.iter().find(|a| a.name() == name).map(emo_proto::AttributeProto::i);
        let training = match (node.op_type(), schema.since) {
            ("BatchNormalization", 14..) => flag("training_mode").is_some_and(|mode| mode != 0),
            ("BatchNormalization", _) => node.output.len() > 1,
            ("Dropout", 12..) => node.input.get(2).is_some_and(|name| s.is_true(at, index, name)),
            ("Dropout", ..7) => flag("is_test").unwrap_or(0) == 0,
            _ => false,
        };
        if training {
            f.add(
                scope.place(index),
                "expected inference mode, found training mode; export the model after eval()",
            );
        }
    }
}
