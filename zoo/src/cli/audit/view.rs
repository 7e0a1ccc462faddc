//! An audit as a report and as JSON.

use std::collections::{BTreeMap, BTreeSet};

use emo_verifier::audit::{Account, Audit, By, Counts, Entry, Port, explain, groups};
use emo_verifier::models::claim::Claim;
use emo_verifier::report::{Cell, Subject, Table, bytes, counted, figure};
use emo_verifier::sym::Expr;
use serde_json::{Value, json};

use super::super::output::dense;
use super::Audited;

/// What is shown of an audit.
pub struct View {
    pub by: By,
    pub explain: bool,
    /// Every row and every column, for a machine.
    pub whole: bool,
}

impl View {
    pub fn subject(&self, file: &Audited) -> Subject {
        let mut tables = vec![self.groups(&file.audit)];
        if self.explain {
            tables.push(self.explanations(&file.audit));
            if self.whole {
                // A file of comma-separated values has one header.
                tables.remove(0);
            }
        }
        if let Some(claim) = file.claim.as_ref().filter(|_| !self.whole) {
            tables.push(account(claim));
        }
        Subject {
            name: file.name.clone(),
            headline: headline(&file.audit),
            facts: facts(&file.audit, &file.size),
            tables,
            findings: file.findings.clone(),
        }
    }

    fn groups(&self, audit: &Audit) -> Table {
        let groups = groups(audit, self.by);
        let all = groups.len();
        let counted = |counts: &Counts| self.whole || self.by != By::Node || *counts != Counts::default();
        let shown: Vec<_> = groups.into_iter().filter(|group| counted(&group.counts)).collect();
        let hidden = all - shown.len();
        let mut header = vec![self.by.name(), "operator", "nodes", "params", "macs"];
        header.extend(["flops", "fvcore", "mmcv", "activations"]);
        // What is the same in every row or follows from another column is left to machines.
        let redundant = |column: &str| match column {
            "operator" | "flops" | "mmcv" => self.by != By::Node || column != "operator",
            "nodes" => self.by == By::Node,
            _ => false,
        };
        let kept: Vec<usize> = (0..header.len()).filter(|&i| self.whole || !redundant(header[i])).collect();
        let rows: Vec<Vec<Cell>> = shown
            .iter()
            .map(|group| {
                let mut row = vec![Cell::from(group.name.as_str())];
                row.push(Cell::from(group.operator.as_deref().unwrap_or("")));
                row.push(group.nodes.into());
                row.extend(group.counts.figures().map(|(_, count)| Cell::from(count)));
                row.push(Cell::from(&group.activations));
                kept.iter().map(|&i| row[i].clone()).collect()
            })
            .collect();
        let header = kept.iter().map(|&i| header[i]).collect();
        let note = match hidden {
            0 => String::new(),
            n => format!("and {n} nodes that cost and hold nothing"),
        };
        Table { title: format!("by {}", self.by.name()), header, rows, note }
    }

    /// Operator by operator what each convention counts, and by which rule.
    fn explanations(&self, audit: &Audit) -> Table {
        let mut rows = Vec::new();
        for explanation in explain(audit) {
            for difference in explanation.differences() {
                let first = self.whole || difference.convention.name == "macs";
                let named = if first { explanation.operator.as_str() } else { "" };
                let work = if first { explanation.work } else { "" };
                let nodes = if first { Cell::from(explanation.nodes) } else { Cell::from("") };
                rows.push(vec![
                    Cell::from(named),
                    Cell::from(work),
                    nodes,
                    Cell::from(difference.convention.name),
                    Cell::from(difference.count),
                    Cell::Count(difference.beyond),
                    Cell::from(difference.how),
                ]);
            }
        }
        let header = vec!["operator", "work", "nodes", "convention", "count", "beyond macs", "rule"];
        Table { title: "why the conventions differ".to_owned(), header, rows, note: String::new() }
    }

    /// The document that `verifier/schemas/audit.json` describes.
    pub fn document(&self, file: &Audited) -> Value {
        let audit = &file.audit;
        let mut document = json!({
            "schema": "emo.audit/1",
            "file": file.name,
            "verdict": file.outcome().name(),
            "file_size": file.size,
            "ir_version": audit.ir_version,
            "opsets": audit.opsets,
            "inputs": audit.inputs,
            "outputs": audit.outputs,
            "nodes": audit.nodes,
            "totals": audit.totals,
            "lower_bound": audit.is_lower_bound(),
            "uncounted": audit.uncounted,
            "assumptions": audit.assumptions,
            "float_initializers": audit.float_initializers,
            "account": audit.account,
            "stored": audit.stored,
            "activations": audit.activations,
            "unknown_shapes": audit.unknown_shapes,
            "peak_memory": audit.peak_memory,
            "traffic": audit.traffic,
            "intensity": audit.intensity,
            "operators": audit.operators.iter().cloned().collect::<BTreeMap<_, _>>(),
            "ranks": audit.ranks,
            "highest_rank": audit.highest_rank,
            "by": self.by.name(),
            "groups": groups(audit, self.by),
            "findings": file.findings,
        });
        if let Some(claim) = &file.claim {
            document["claim"] = json!(claim);
        }
        if self.explain {
            document["explain"] = json!(explain(audit));
        }
        document
    }
}

/// What the file lacks of the claimed model, and that with it the counts are the published ones.
fn account(claim: &Claim) -> Table {
    let row = |name: &str, into: &str, counts: [Option<i64>; 3]| {
        let cell = |count: Option<i64>| count.map_or(Cell::from("-"), |n| Cell::Count(n.into()));
        [Cell::from(name), Cell::from(into)].into_iter().chain(counts.map(cell)).collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<Cell>> = claim
        .account
        .iter()
        .map(|entry| row(&entry.norm, &entry.into, [entry.params, entry.macs, entry.fvcore].map(Some)))
        .collect();
    rows.push(row("file and account", "", [claim.params, claim.macs, claim.fvcore]));
    if let Some(published) = &claim.published {
        let exact = [published.exact_params, published.exact_macs, published.exact_fvcore];
        let printed = format!("as {} and {}", published.params, published.flops);
        rows.push(row("published", &printed, exact.map(|n| i64::try_from(n).ok())));
    }
    let verdict = if claim.holds { "holds" } else { "does not hold" };
    let dense = claim.dense.map_or(String::new(), |published| dense(&published) + "; ");
    Table {
        title: format!("claim {}", claim.model),
        header: vec!["missing", "done by", "params", "macs", "fvcore"],
        rows,
        note: format!("{dense}the claim {} {verdict}", claim.model),
    }
}

/// Parameters, multiply-adds and FLOPs, each with the name of what it is.
fn headline(audit: &Audit) -> String {
    let least = if audit.is_lower_bound() { "at least " } else { "" };
    let Counts { params, cost } = &audit.totals;
    let [params, macs, fvcore] = [params, &cost.macs, &cost.fvcore].map(figure);
    format!("params {least}{params}  macs {least}{macs}  fvcore {least}{fvcore}")
}

/// Where the parameters and the float initializers part.
fn parameters(account: &Account) -> Vec<(&'static str, String)> {
    let entry =
        |e: &Entry| format!("{} of {} ({})", figure(&e.elements), e.what, counted(e.tensors, "tensor"));
    let of = |entries: &[Entry], sign: &str| {
        entries.iter().map(|e| format!(" {sign} {}", entry(e))).collect::<String>()
    };
    let mut facts = Vec::new();
    if !account.is_plain() {
        let (parameters, all) = (figure(&account.parameters), figure(&account.float_initializers));
        let (less, more) = (of(&account.left_out, "-"), of(&account.added, "+"));
        facts.push(("params", format!("{parameters} = {all} of float initializers{less}{more}")));
    }
    for note in &account.notes {
        facts.push((
            "module",
            format!("{} {} ({})", figure(&note.elements), note.what, counted(note.tensors, "tensor")),
        ));
    }
    facts
}

fn facts(audit: &Audit, size: &Expr) -> Vec<(&'static str, String)> {
    let least = |missing: bool| if missing { "at least " } else { "" };
    let bound = least(audit.is_lower_bound());
    let mut facts = vec![
        ("flops", format!("{bound}{} (two a multiply-add)", figure(&audit.totals.cost.flops))),
        ("mmcv", format!("{bound}{}", figure(&audit.totals.cost.mmcv))),
    ];
    facts.extend(parameters(&audit.account));
    let stored = &audit.stored;
    let types = stored.by_type.iter().map(|s| format!("{} of {}", bytes(&s.bytes), s.dtype));
    let types = types.collect::<Vec<_>>().join(", ");
    let beside = if stored.external.is_empty() {
        String::new()
    } else {
        format!("; {} beside the file", bytes(&stored.external_bytes))
    };
    let types = if types.is_empty() { types } else { format!(": {types}") };
    facts.push(("stored", format!("{} in a file of {}{types}{beside}", bytes(&stored.bytes), bytes(size))));
    let open = least(audit.unknown_shapes > 0);
    facts.push(("activations", format!("{open}{} elements written", figure(&audit.activations))));
    let peak = &audit.peak_memory;
    facts.push((
        "peak memory",
        match &peak.bytes {
            Some(most) if peak.at.is_empty() => format!("{} of activations", bytes(most)),
            Some(most) => {
                format!("{} of activations, at {} in {} order", bytes(most), peak.at, peak.order.name())
            }
            None => format!("unknown: {}", peak.reason.as_deref().unwrap_or("")),
        },
    ));
    if let Some(intensity) = audit.intensity {
        facts.push((
            "intensity",
            format!("{intensity:.2} flops a byte moved ({}{})", open, bytes(&audit.traffic)),
        ));
    }
    let ranks = audit.ranks.iter().map(|(rank, values)| format!("{values} of rank {rank}"));
    facts.push(("values", ranks.collect::<Vec<_>>().join(", ")));
    let opsets = audit.opsets.iter().map(|(domain, version)| format!("{domain} {version}"));
    let opsets = opsets.collect::<Vec<_>>().join(", ");
    facts.push(("opset", format!("{opsets}, ir_version {}, {} nodes", audit.ir_version, audit.nodes)));
    let ports = |ports: &[Port]| {
        ports.iter().map(|port| format!("{} {}", port.name, port.describe())).collect::<Vec<_>>().join(", ")
    };
    facts.push(("inputs", ports(&audit.inputs)));
    let Counts { cost, .. } = &audit.totals;
    let open = cost.macs.symbols().into_iter().chain(cost.fvcore.symbols()).collect::<BTreeSet<_>>();
    if !open.is_empty() {
        let dims = open.iter().map(|name| format!("--dim {name}=N")).collect::<Vec<_>>();
        facts.push(("open", format!("{} for numbers instead of formulas", dims.join(" "))));
    }
    facts.push(("outputs", ports(&audit.outputs)));
    facts.retain(|(_, value)| !value.is_empty());
    facts
}
