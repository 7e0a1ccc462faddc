//! Versions: of the IR, of operator sets, and what they ask of each other.

use std::collections::{BTreeMap, HashSet};

use emo_proto::tensor::DataType;

use super::{Check, Findings, Severity, Subject};
use crate::schema;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "ir-version-missing",
        severity: Severity::Error,
        what: "a file says which IR version it has",
        run: |s, f| {
            if s.model.ir_version() < 1 {
                f.add(
                    "",
                    format!(
                        "expected an ir_version from 1 to {NEWEST_IR}, found {}; set it to the lowest \
                         that the operator sets allow",
                        s.model.ir_version()
                    ),
                );
            }
        },
    },
    Check {
        code: "ir-version-unknown",
        severity: Severity::Error,
        what: "an IR version is one of the specification",
        run: |s, f| {
            if s.model.ir_version() > NEWEST_IR {
                f.add(
                    "",
                    format!(
                        "expected an ir_version of {NEWEST_IR} at most, found {}; export again, or \
                         set it to the lowest that the operator sets allow",
                        s.model.ir_version()
                    ),
                );
            }
        },
    },
    Check {
        code: "ir-version-low",
        severity: Severity::Warning,
        what: "an IR version is at least the one that came with what the file uses",
        run: ir_version_low,
    },
    Check {
        code: "ir-version-high",
        severity: Severity::Note,
        what: "older runtimes refuse an IR version that is higher than the file needs",
        run: ir_version_high,
    },
    Check {
        code: "opset-missing",
        severity: Severity::Error,
        what: "a file of IR version 3 or more imports operator sets, an older one imports none",
        run: opset_missing,
    },
    Check {
        code: "opset-duplicate",
        severity: Severity::Note,
        what: "a domain's operator set is imported once; of several imports the highest binds",
        run: opset_duplicate,
    },
    Check {
        code: "opset-range",
        severity: Severity::Error,
        what: "the version of an operator set is a number from 1 on",
        run: |s, f| {
            for (place, domain, version) in imports(s) {
                if i32::try_from(version).map_or(true, |version| version < 1) {
                    f.add(
                        place,
                        format!(
                            "expected a version from 1 on for {domain}, found {version}; import the \
                             set that the nodes were written for"
                        ),
                    );
                }
            }
        },
    },
    Check {
        code: "opset-newer",
        severity: Severity::Warning,
        what: "an operator set is one that the known specification has",
        run: |s, f| {
            for (place, domain, version) in imports(s) {
                if let Some(newest) = schema::newest(domain).filter(|newest| version > *newest) {
                    f.add(
                        place,
                        format!(
                            "expected {domain} {newest} at most, found {version}; its nodes are \
                             judged by {newest}"
                        ),
                    );
                }
            }
        },
    },
    Check {
        code: "opset-unused",
        severity: Severity::Note,
        what: "an imported operator set has a node in the file",
        run: opset_unused,
    },
    Check {
        code: "domain-not-imported",
        severity: Severity::Error,
        what: "a node's domain is imported",
        run: domain_not_imported,
    },
    Check {
        code: "metadata-duplicate",
        severity: Severity::Error,
        what: "a key of the model's metadata comes once",
        run: |s, f| {
            let mut keys = HashSet::new();
            for entry in &s.model.metadata_props {
                if !keys.insert(entry.key()) {
                    f.add(
                        "",
                        format!("expected each metadata key once, found {:?} again; keep one", entry.key()),
                    );
                }
            }
        },
    },
];

const NEWEST_IR: i64 = emo_proto::Version::IrVersion as i64;

/// The IR version that came with an operator set: the first row that has reached the set
/// (`onnx.helper.VERSION_TABLE`; compared in `tests/peers/checker.py`).
const LOWEST_IR: [(&str, &[(i64, i64)]); 2] = [
    (
        "ai.onnx",
        &[
            (8, 3),
            (9, 4),
            (10, 5),
            (11, 6),
            (14, 7),
            (18, 8),
            (20, 9),
            (22, 10),
            (23, 11),
            (24, 12),
            (27, 13),
            (28, 14),
        ],
    ),
    ("ai.onnx.ml", &[(1, 3), (2, 6), (3, 8), (4, 9), (5, 10)]),
];

/// The IR version that came with an element type.
fn ir_of(dtype: i32) -> i64 {
    use DataType::*;
    match DataType::try_from(dtype).unwrap_or(Undefined) {
        Bfloat16 => 4,
        Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz => 9,
        Int4 | Uint4 => 10,
        Float4e2m1 => 11,
        Float8e8m0 => 12,
        Int2 | Uint2 => 13,
        Float6e2m3 | Float6e3m2 => 14,
        Undefined | String | Bool | Uint8 | Uint16 | Uint32 | Uint64 | Int8 | Int16 | Int32 | Int64 => 3,
        Float | Float16 | Double | Complex64 | Complex128 => 3,
    }
}

/// The lowest IR version that has all that the file makes use of, if its operator sets are known.
fn lowest_ir(s: &Subject) -> Option<i64> {
    let mut lowest = 3;
    // What no node uses asks nothing: runtimes that write files import every set that they have.
    let used = domains(s);
    for (_, domain, version) in imports(s).filter(|(place, d, _)| place.is_empty() && used.contains(d)) {
        let bound =
            |(place, name, other): (String, &str, i64)| place.is_empty() && name == domain && other > version;
        if imports(s).any(bound) {
            continue;
        }
        let Some((_, rows)) = LOWEST_IR.iter().find(|(name, _)| *name == domain) else { continue };
        let (_, ir) = rows.iter().find(|(newest, _)| version <= *newest)?;
        lowest = lowest.max(*ir);
    }
    let element_types = s.tensors().map(|(_, tensor)| ir_of(tensor.data_type()));
    let sparse = s.graphs().any(|(_, graph)| !graph.sparse_initializer.is_empty());
    let annotated = s.graphs().any(|(_, graph)| {
        let values = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
        !graph.metadata_props.is_empty() || values.into_iter().any(|value| !value.metadata_props.is_empty())
    });
    let nodes = || s.nodes().map(|(.., node)| node);
    let of_nodes = nodes().any(|node| !node.metadata_props().is_empty() || !node.overload().is_empty());
    let spread = nodes().any(|node| !node.device_configurations().is_empty());
    let features = [
        (sparse, 6),
        (!s.model.functions.is_empty(), 8),
        (annotated || of_nodes, 10),
        (spread || !s.model.configuration.is_empty(), 11),
    ];
    let features = features.into_iter().filter(|(used, _)| *used).map(|(_, ir)| ir);
    features.chain(element_types).max().map_or(Some(lowest), |ir| Some(lowest.max(ir)))
}

fn ir_version_low(s: &Subject, f: &mut Findings) {
    let ir = s.model.ir_version();
    if let Some(lowest) = lowest_ir(s).filter(|lowest| (3..*lowest).contains(&ir)) {
        f.add(
            "",
            format!(
                "expected an ir_version of {lowest}, which came with what the file uses, found \
             {ir}; set it to {lowest}"
            ),
        );
    }
}

fn ir_version_high(s: &Subject, f: &mut Findings) {
    let ir = s.model.ir_version();
    if let Some(lowest) = lowest_ir(s).filter(|lowest| *lowest < ir && ir <= NEWEST_IR) {
        f.add(
            "",
            format!(
                "expected an ir_version of {lowest}, which has all that the file uses, found \
             {ir}; lower it for runtimes that refuse newer ones"
            ),
        );
    }
}

fn opset_missing(s: &Subject, f: &mut Findings) {
    match (s.model.ir_version(), s.model.opset_import.is_empty()) {
        (3.., true) => f.add(
            "",
            "expected an import of an operator set, found none; import the set that the nodes \
                 were written for",
        ),
        (1..3, false) => f.add(
            "",
            format!(
                "expected no import of operator sets before ir_version 3, found {} at ir_version {}; \
                 raise ir_version",
                s.model.opset_import.len(),
                s.model.ir_version()
            ),
        ),
        _ => {}
    }
}

/// Every import: where, domain, version.
fn imports<'a>(s: &'a Subject) -> impl Iterator<Item = (String, &'a str, i64)> {
    let of_model = s.model.opset_import.iter().map(|set| (String::new(), set));
    let of_functions = s.model.functions.iter().flat_map(|function| {
        let place = format!("function {}", super::subject::name_of(function));
        function.opset_import.iter().map(move |set| (place.clone(), set))
    });
    of_model.chain(of_functions).map(|(place, set)| (place, schema::canonical(set.domain()), set.version()))
}

fn opset_duplicate(s: &Subject, f: &mut Findings) {
    let mut seen = BTreeMap::new();
    for (place, domain, version) in imports(s) {
        if let Some(first) = seen.insert((place.clone(), domain), version) {
            f.add(
                place,
                format!(
                    "expected one import of {domain}, found versions {first} and {version}; the higher \
                     binds, drop the other"
                ),
            );
        }
    }
}

/// The domains that nodes have.
fn domains<'s>(s: &'s Subject) -> HashSet<&'s str> {
    s.nodes().map(|(_, _, _, node)| schema::canonical(node.domain())).collect()
}

fn opset_unused(s: &Subject, f: &mut Findings) {
    let used = domains(s);
    for (_, domain, version) in imports(s).filter(|(place, ..)| place.is_empty()) {
        if !used.contains(domain) {
            f.add(
                "",
                format!(
                    "expected a node of {domain}, which is imported at {version}, found none; drop the import"
                ),
            );
        }
    }
}

fn domain_not_imported(s: &Subject, f: &mut Findings) {
    for (scope, _, index, node) in s.nodes() {
        if scope.opset(node.domain()).is_none() {
            let have: Vec<_> = scope.opsets.keys().map(|d| format!("{d:?}")).collect();
            let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
            f.add(
                scope.place(index),
                format!(
                    "expected an import of the domain {:?}, found {have}; import its operator set",
                    node.domain()
                ),
            );
        }
    }
}
