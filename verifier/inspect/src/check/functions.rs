//! Functions of the model: well formed, not recursive, called as they are defined.

use emo_proto::{AttributeProto, FunctionProto};

use super::subject::{Callee, name_of};
use super::{Check, Findings, Severity, Subject};
use crate::hash::{HashMap, HashSet};
use crate::schema;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "function-unnamed",
        severity: Severity::Error,
        what: "a function has a name and, from IR version 8 on, says its domain",
        run: |s, f| {
            for (index, function) in s.model.functions.iter().enumerate() {
                if function.name().is_empty() {
                    f.add(format!("function {index}"), "expected a name of the function, found none");
                }
                if function.domain.is_none() && s.model.ir_version() >= 8 {
                    f.add(place(function), "expected the domain of the function, found none");
                }
            }
        },
    },
    Check {
        code: "function-duplicate",
        severity: Severity::Error,
        what: "no two functions have one domain, name and overload",
        run: |s, f| {
            let mut seen = HashSet::default();
            for function in &s.model.functions {
                if !seen.insert((function.domain(), function.name(), function.overload())) {
                    f.add(
                        place(function),
                        "expected one function of this name, found another; give it an overload",
                    );
                }
            }
        },
    },
    Check {
        code: "function-signature",
        severity: Severity::Error,
        what: "a function's inputs, outputs and attributes have names of their own",
        run: signature,
    },
    Check {
        code: "function-recursive",
        severity: Severity::Error,
        what: "no function calls itself, directly or through others, and calls nest 100 deep at most",
        run: recursive,
    },
    Check {
        code: "function-opset",
        severity: Severity::Error,
        what: "an operator means the same under the operator sets of the function and of the model",
        run: opset,
    },
    Check {
        code: "function-call",
        severity: Severity::Error,
        what: "a call gives no more operands, and takes no more outputs, than the function has",
        run: call,
    },
    Check {
        code: "function-unused",
        severity: Severity::Note,
        what: "a node calls a function of the model",
        run: |s, f| {
            let called: HashSet<_> =
                s.nodes().map(|(.., node)| (node.domain(), node.op_type(), node.overload())).collect();
            for function in &s.model.functions {
                if !called.contains(&(function.domain(), function.name(), function.overload())) {
                    f.add(place(function), "expected a node that calls it, found none; drop it");
                }
            }
        },
    },
];

/// Deeper calls are held to be a trap, as `onnx.checker` does.
const MOST_CALLS: usize = 100;

fn place(function: &FunctionProto) -> String {
    format!("function {}", name_of(function))
}

fn signature(s: &Subject, f: &mut Findings) {
    for function in &s.model.functions {
        let attributes = function.attribute.iter().map(String::as_str);
        let with_default = function.attribute_proto.iter().map(AttributeProto::name);
        let lists: [(&str, Vec<&str>); 3] = [
            ("input", function.input.iter().map(String::as_str).collect()),
            ("output", function.output.iter().map(String::as_str).collect()),
            ("attribute", attributes.chain(with_default).collect()),
        ];
        for (role, names) in lists {
            let mut seen = HashSet::default();
            for name in names.into_iter().filter(|name| !seen.insert(*name)) {
                f.add(
                    place(function),
                    format!("expected one {role} {name:?}, found another; rename or drop it"),
                );
            }
        }
    }
}

/// Each function with the functions that it or a body in it calls.
fn calls<'a>(s: &Subject<'a>) -> HashMap<*const FunctionProto, Vec<&'a FunctionProto>> {
    let mut calls: HashMap<_, Vec<_>> = HashMap::default();
    for (scope, _, _, node) in s.nodes() {
        let key = (node.domain(), node.op_type(), node.overload());
        if let (Some(caller), Some(callee)) = (scope.function, s.functions.get(&key)) {
            calls.entry(std::ptr::from_ref(caller)).or_default().push(*callee);
        }
    }
    calls
}

/// A depth-first search with its own stack: chains of calls may be long.
fn recursive(s: &Subject, f: &mut Findings) {
    let calls = calls(s);
    let callees =
        |function: &FunctionProto| calls.get(&std::ptr::from_ref(function)).map_or(&[][..], Vec::as_slice);
    let mut done = HashSet::default();
    for root in &s.model.functions {
        let mut path: Vec<(&FunctionProto, usize)> = vec![(root, 0)];
        while let Some((function, next)) = path.last_mut() {
            let function = *function;
            let Some(callee) =
                callees(function).get(*next).filter(|_| !done.contains(&std::ptr::from_ref(function)))
            else {
                done.insert(std::ptr::from_ref(function));
                path.pop();
                continue;
            };
            *next += 1;
            let cycle = path.iter().position(|(open, _)| std::ptr::eq(*open, *callee));
            if let Some(start) = cycle {
                let names: Vec<_> = path[start..].iter().map(|(f, _)| name_of(f)).collect();
                let chain = names.join(", which calls ");
                f.add(place(callee), format!("expected no recursion, found {chain}, which calls it again"));
            } else if path.len() >= MOST_CALLS {
                f.add(
                    place(callee),
                    format!("expected calls that nest {MOST_CALLS} deep at most, found deeper ones"),
                );
                return;
            } else {
                path.push((callee, 0));
            }
        }
    }
}

fn opset(s: &Subject, f: &mut Findings) {
    // The model's imports, the highest of each domain, then the first that a function adds for another.
    let mut model: HashMap<&str, i64> = HashMap::default();
    for set in &s.model.opset_import {
        let version = model.entry(schema::canonical(set.domain())).or_insert(set.version());
        *version = set.version().max(*version);
    }
    for set in s.model.functions.iter().flat_map(|function| &function.opset_import) {
        model.entry(schema::canonical(set.domain())).or_insert(set.version());
    }
    for (scope, _, index, node) in s.nodes().filter(|(scope, ..)| scope.function.is_some()) {
        let domain = schema::canonical(node.domain());
        let (Some(inner), Some(&outer)) = (scope.opset(node.domain()), model.get(domain)) else { continue };
        let since = |opset| schema::find(domain, node.op_type(), opset).map(|schema| schema.since);
        if inner != outer && since(inner) != since(outer) {
            f.add(
                scope.place(index),
                format!(
                    "expected {} to mean the same in {domain} {outer} of the model and {inner} of the \
                     function, \
                     found two versions; import one operator set in both",
                    node.op_type()
                ),
            );
        }
    }
}

fn call(s: &Subject, f: &mut Findings) {
    for (scope, at, index, node) in s.nodes() {
        let Callee::Function(function) = s.callee(at, index) else { continue };
        for (role, most, found) in [
            ("operands", function.input.len(), node.input.len()),
            ("outputs", function.output.len(), node.output.len()),
        ] {
            if found > most {
                f.add(scope.place(index), format!("expected {most} {role} at most, found {found}"));
            }
        }
    }
}
