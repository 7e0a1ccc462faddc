//! Graphs within nodes: as many inputs and outputs as the node around them gives and takes.

use emo_proto::NodeProto;
use emo_proto::tensor::DataType;

use super::{Check, Findings, Severity, Subject};
use crate::fact::Fact;
use crate::schema;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "body-signature",
        severity: Severity::Error,
        what: "a body has as many inputs as its node feeds it and as many outputs as the node writes",
        run: signature,
    },
    Check {
        code: "body-type",
        severity: Severity::Error,
        what: "branches give values of one type, and what a loop carries keeps its type",
        run: types,
    },
];

/// Inputs and outputs that the body of a node must have; `None` where the specification leaves it open.
fn expected(node: &NodeProto, opset: i64) -> Option<(usize, usize)> {
    if schema::canonical(node.domain()) != "ai.onnx" {
        return None;
    }
    let (inputs, outputs) = (node.input.len(), node.output.len());
    Some(match node.op_type() {
        "If" => (0, outputs),
        // The counter and the condition come first; the condition goes on.
        "Loop" => (inputs.max(2), outputs + 1),
        // The first version has the lengths of sequences as an operand.
        "Scan" if opset < 9 => (inputs.saturating_sub(1), outputs),
        "Scan" | "SequenceMap" => (inputs, outputs),
        _ => return None,
    })
}

fn signature(s: &Subject, f: &mut Findings) {
    for (scope, at, index, node) in s.nodes().filter(|(.., node)| !node.attribute.is_empty()) {
        let opset = scope.opset(node.domain()).unwrap_or(0);
        let Some((inputs, outputs)) = expected(node, opset) else { continue };
        for &body in s.bodies(at, index) {
            let body = &s.scopes[body];
            for (role, expected, found) in
                [("inputs", inputs, body.inputs.len()), ("outputs", outputs, body.outputs.len())]
            {
                if expected != found {
                    f.add(
                        body.path.clone(),
                        format!("expected a body of {expected} {role} in {}, found {found}", node.op_type()),
                    );
                }
            }
        }
    }
}

/// A place where two values must be of one type: what it is, one, the other.
type Pair<'s> = (String, Option<&'s Fact>, Option<&'s Fact>);

fn types(s: &Subject, f: &mut Findings) {
    for (scope, at, index, node) in
        s.nodes().filter(|(.., node)| schema::canonical(node.domain()) == "ai.onnx")
    {
        let output = |body: usize, i: usize| {
            let scope = &s.scopes[body];
            scope.outputs.get(i).and_then(|name| s.fact(body, scope.nodes.len(), name))
        };
        let operand = |i: usize| node.input.get(i).and_then(|name| s.fact(at, index, name));
        let carried = |states: usize, first_input: usize, first_output: usize, body: usize| -> Vec<Pair> {
            let pair = |i| (format!("state {i}"), operand(first_input + i), output(body, first_output + i));
            (0..states).map(pair).collect()
        };
        let pairs: Vec<Pair> = match (node.op_type(), s.bodies(at, index)) {
            ("If", &[one, other]) => (0..node.output.len())
                .map(|i| (format!("output {i}"), output(one, i), output(other, i)))
                .collect(),
            ("Loop", &[body]) => carried(node.input.len().saturating_sub(2), 2, 1, body),
            ("Scan", &[body]) if scope.opset("").is_some_and(|opset| opset >= 9) => {
                let scanned = node
                    .attribute
                    .iter()
                    .find(|a| a.name() == "num_scan_inputs")
                    .map_or(0, emo_proto::AttributeProto::i);
                let scanned = usize::try_from(scanned).unwrap_or(0);
                carried(node.input.len().saturating_sub(scanned), 0, 0, body)
            }
            _ => continue,
        };
        for (what, one, other) in pairs {
            if let (Some(one), Some(other)) = (one, other)
                && differ(one, other)
            {
                let (one, other) = (one.describe(), other.describe());
                f.add(
                    scope.place(index),
                    format!("expected {what} of one type, found {one} and {other}; add a Cast"),
                );
            }
        }
    }
}

/// Tensors of two element types, both known.
fn differ(one: &Fact, other: &Fact) -> bool {
    let known = |fact: &Fact| fact.is_tensor() && fact.dtype != DataType::Undefined;
    known(one) && known(other) && one.dtype != other.dtype
}
