//! Names: written once, before they are read, and read by someone.

use emo_proto::NodeProto;

use super::{Check, Findings, Severity, Subject};
use crate::hash::{HashMap, HashSet};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "graph-unnamed",
        severity: Severity::Error,
        what: "a graph has a name",
        run: |s, f| {
            for (scope, _) in s.graphs().filter(|(_, graph)| graph.name().is_empty()) {
                f.add(scope.path.clone(), "expected a name of the graph, found none; give it any");
            }
        },
    },
    Check {
        code: "value-unnamed",
        severity: Severity::Error,
        what: "inputs, outputs and initializers have names",
        run: value_unnamed,
    },
    Check {
        code: "redefined",
        severity: Severity::Error,
        what: "a name is written once, and not again in a body that sees it (single assignment)",
        run: redefined,
    },
    Check {
        code: "out-of-order",
        severity: Severity::Error,
        what: "a node comes after those that it reads, so that the graph has no cycle",
        run: |s, f| {
            for &(at, index, name) in &s.unresolved {
                let scope = &s.scopes[at];
                if let Some(writer) = scope.written.get(name).and_then(|written| written.checked_sub(1)) {
                    let what =
                        format!("expected {name:?} to be written before, found it written by the later");
                    f.add(
                        scope.place(index),
                        format!("{what} {}; sort the nodes, or break the cycle", scope.place(writer)),
                    );
                }
            }
        },
    },
    Check {
        code: "undefined",
        severity: Severity::Error,
        what: "a node reads what an input, an initializer or a node writes",
        run: undefined,
    },
    Check {
        code: "output-undefined",
        severity: Severity::Error,
        what: "the graph itself writes its outputs",
        run: |s, f| {
            for scope in &s.scopes {
                for name in scope.outputs.iter().filter(|name| !scope.written.contains_key(*name)) {
                    f.add(
                        scope.value("output", name),
                        "expected a node, an input or an initializer of this graph that writes it, \
                         found none",
                    );
                }
            }
        },
    },
    Check {
        code: "duplicate-initializer",
        severity: Severity::Error,
        what: "no two initializers of a graph have one name",
        run: duplicate_initializer,
    },
    Check {
        code: "initializer-no-input",
        severity: Severity::Error,
        what: "before IR version 4 an initializer is an input too",
        run: |s, f| {
            for (scope, graph) in s.graphs().filter(|_| (1..4).contains(&s.model.ir_version())) {
                let inputs: HashSet<_> = scope.inputs.iter().copied().collect();
                for tensor in graph.initializer.iter().filter(|t| !inputs.contains(t.name())) {
                    f.add(
                        scope.value("initializer", tensor.name()),
                        "expected an input of the same name before ir_version 4, found none; set \
                         ir_version to 4",
                    );
                }
            }
        },
    },
    Check {
        code: "input-default",
        severity: Severity::Note,
        what: "an initializer that is also an input may be replaced by a caller, so runtimes fold \
         nothing into it",
        run: |s, f| {
            for (scope, graph) in s.graphs().filter(|_| s.model.ir_version() >= 4) {
                let inputs: HashSet<_> = scope.inputs.iter().copied().collect();
                for tensor in graph.initializer.iter().filter(|t| inputs.contains(t.name())) {
                    f.add(
                        scope.value("input", tensor.name()),
                        "expected an input or an initializer, found both; drop the input if it is a constant",
                    );
                }
            }
        },
    },
    Check {
        code: "shadowed",
        severity: Severity::Warning,
        what: "an input or initializer of a body has a name of its own",
        run: |s, f| {
            for scope in &s.scopes {
                let Some((at, index)) = scope.parent else { continue };
                for (name, _) in in_order(&scope.written).filter(|(_, written)| *written == 0) {
                    if s.definition(at, index, name).is_some() {
                        f.add(
                            scope.value("value", name),
                            "expected a name that the graph around does not use, found one that it \
                             does; rename it",
                        );
                    }
                }
            }
        },
    },
    Check {
        code: "duplicate-output",
        severity: Severity::Warning,
        what: "a graph lists an output once",
        run: |s, f| {
            for scope in s.scopes.iter().filter(|scope| scope.graph.is_some()) {
                for name in repeated(scope.outputs.iter().copied()) {
                    f.add(scope.value("output", name), "expected it once, found it again; drop one");
                }
            }
        },
    },
    Check {
        code: "duplicate-node-name",
        severity: Severity::Warning,
        what: "a node's name is its own, so that messages and profiles can point to it",
        run: |s, f| {
            for scope in &s.scopes {
                let names = scope.nodes.iter().map(NodeProto::name).filter(|name| !name.is_empty());
                for name in repeated(names) {
                    f.add(
                        scope.value("node", name),
                        "expected a name of its own, found it again; rename one",
                    );
                }
            }
        },
    },
    Check {
        code: "unnamed-nodes",
        severity: Severity::Note,
        what: "a node has a name, so that messages and profiles can point to it",
        run: |s, f| {
            for scope in &s.scopes {
                let unnamed = scope.nodes.iter().filter(|node| node.name().is_empty()).count();
                if unnamed > 0 {
                    let all = scope.nodes.len();
                    f.add(
                        scope.path.clone(),
                        format!("expected named nodes, found {unnamed} of {all} without"),
                    );
                }
            }
        },
    },
    Check {
        code: "unused-input",
        severity: Severity::Warning,
        what: "a node reads an input of the model",
        run: |s, f| {
            let Some(scope) = s.scopes.first().filter(|scope| scope.is_main()) else { return };
            let graph = scope.graph.into_iter().flat_map(|graph| &graph.initializer);
            let initialized: HashSet<_> = graph.map(emo_proto::TensorProto::name).collect();
            for name in scope.inputs.iter().filter(|name| !initialized.contains(*name)) {
                if !s.read[0].contains(name) {
                    f.add(scope.value("input", name), "expected a node that reads it, found none; drop it");
                }
            }
        },
    },
    Check {
        code: "unused-initializer",
        severity: Severity::Warning,
        what: "a node reads an initializer",
        run: |s, f| {
            for (scope, read) in s.scopes.iter().zip(&s.read) {
                let initializers = scope.graph.into_iter().flat_map(|graph| &graph.initializer);
                for tensor in initializers.filter(|tensor| !read.contains(tensor.name())) {
                    f.add(
                        scope.value("initializer", tensor.name()),
                        format!(
                            "expected a node that reads it, found none; drop its {:?} elements",
                            tensor.dims
                        ),
                    );
                }
            }
        },
    },
    Check {
        code: "dead-node",
        severity: Severity::Warning,
        what: "what a node writes reaches an output",
        run: dead_node,
    },
];

/// Among more names the nearest one would take too long to find.
const MOST_NAMES: usize = 1 << 12;

fn value_unnamed(s: &Subject, f: &mut Findings) {
    let message = "expected a name, found none; every value needs one that nothing else has";
    for (scope, graph) in s.graphs() {
        let sparse = graph.sparse_initializer.iter().map(|t| t.values.as_ref().map_or("", |v| v.name()));
        let roles: [(&str, Vec<&str>); 4] = [
            ("input", scope.inputs.clone()),
            ("output", scope.outputs.clone()),
            ("initializer", graph.initializer.iter().map(emo_proto::TensorProto::name).collect()),
            ("sparse initializer", sparse.collect()),
        ];
        for (role, names) in roles {
            for index in (0..names.len()).filter(|&index| names[index].is_empty()) {
                f.add(scope.value(&format!("{role} {index}"), ""), message);
            }
        }
    }
}

fn redefined(s: &Subject, f: &mut Findings) {
    for (at, scope) in s.scopes.iter().enumerate() {
        if scope.graph.is_some() {
            for name in repeated(scope.inputs.iter().copied()) {
                f.add(scope.value("input", name), "expected an input of this name once, found it again");
            }
        }
        let mut seen: HashMap<&str, usize> = HashMap::default();
        for (index, node) in scope.nodes.iter().enumerate() {
            for name in node.output.iter().map(String::as_str).filter(|name| !name.is_empty()) {
                let again = seen.insert(name, index).map(|first| scope.place(first));
                let before = again.or_else(|| writer_before(s, at, name));
                if let Some(writer) = before {
                    f.add(
                        scope.place(index),
                        format!(
                            "expected {name:?} to be written once, found it written by {writer} \
                         too; rename one"
                        ),
                    );
                }
            }
        }
    }
}

/// What, other than a node of the same scope, has written a name that a node writes again.
fn writer_before(s: &Subject, at: usize, name: &str) -> Option<String> {
    let scope = &s.scopes[at];
    if scope.written.get(name) == Some(&0) {
        return Some("an input or an initializer".to_owned());
    }
    let (outer, outer_index) = scope.parent?;
    let (within, written) = s.definition(outer, outer_index, name)?;
    let writer = written.checked_sub(1).map(|writer| s.scopes[within].place(writer));
    Some(writer.unwrap_or_else(|| "the graph around".to_owned()))
}

fn undefined(s: &Subject, f: &mut Findings) {
    for &(at, index, name) in &s.unresolved {
        let scope = &s.scopes[at];
        if scope.written.contains_key(name) {
            continue; // out of order
        }
        let hint = match scope.function {
            Some(_) => "; a function sees its inputs and nothing outside".to_owned(),
            None if f.is_full() || scope.written.len() > MOST_NAMES => String::new(),
            None => super::suggestion(name, scope.written.keys().copied()),
        };
        f.add(
            scope.place(index),
            format!(
                "expected a value {name:?}, which an input, initializer or node before writes, \
             found none{hint}"
            ),
        );
    }
}

fn duplicate_initializer(s: &Subject, f: &mut Findings) {
    for (scope, graph) in s.graphs() {
        let sparse = graph.sparse_initializer.iter().filter_map(|t| t.values.as_ref());
        for name in repeated(graph.initializer.iter().chain(sparse).map(emo_proto::TensorProto::name)) {
            f.add(
                scope.value("initializer", name),
                "expected one of this name, found another; drop or rename it",
            );
        }
    }
}

/// Nodes from which no output can be reached, following reads backwards through bodies.
fn dead_node(s: &Subject, f: &mut Findings) {
    let mut live: Vec<Vec<bool>> = s.scopes.iter().map(|scope| vec![false; scope.nodes.len()]).collect();
    let mut wanted: Vec<(usize, usize, &str)> = Vec::new();
    for (at, scope) in s.scopes.iter().enumerate().filter(|(_, scope)| scope.parent.is_none()) {
        wanted.extend(scope.outputs.iter().map(|name| (at, scope.nodes.len(), *name)));
    }
    while let Some((at, index, name)) = wanted.pop() {
        // What is read before it is written is alive too.
        let later = || s.scopes[at].written.get(name).map(|written| (at, *written));
        let Some((at, written)) = s.definition(at, index, name).or_else(later) else { continue };
        let Some(writer) = written.checked_sub(1) else { continue };
        if std::mem::replace(&mut live[at][writer], true) {
            continue;
        }
        wanted.extend(s.scopes[at].nodes[writer].input.iter().map(|name| (at, writer, name.as_str())));
        for &body in s.bodies(at, writer) {
            let scope = &s.scopes[body];
            wanted.extend(scope.outputs.iter().map(|name| (body, scope.nodes.len(), *name)));
        }
    }
    for (scope, at, index, node) in s.nodes() {
        let in_dead_body = scope.parent.is_some_and(|(outer, node)| !live[outer][node]);
        if !live[at][index] && !in_dead_body {
            let outputs = node.output.join(", ");
            f.add(
                scope.place(index),
                format!("expected {outputs} to reach an output, found that it does not; drop it"),
            );
        }
    }
}

/// Names that come more than once, each as often as it comes again.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = HashSet::default();
    names.filter(|name| !name.is_empty() && !seen.insert(*name)).collect()
}

/// The entries sorted, for a deterministic report.
fn in_order<'a>(written: &HashMap<&'a str, usize>) -> impl Iterator<Item = (&'a str, usize)> {
    let mut entries: Vec<_> = written.iter().map(|(name, at)| (*name, *at)).collect();
    entries.sort_unstable();
    entries.into_iter()
}
