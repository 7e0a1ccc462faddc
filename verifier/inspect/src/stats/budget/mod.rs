//! Limits that a file keeps or breaks.
//!
//! A budget is a TOML or a JSON file; every key is optional:
//!
//! ```toml
//! params = 1_400_000            # at most, as every plain number here
//! macs = 260_000_000            # flops, fvcore, mmcv likewise
//! file_size = 6_000_000         # bytes, data beside the model included
//! peak_memory = 4_000_000       # bytes of activations
//! highest_rank = 4
//! ir_version = 8
//! opset = { min = 13, max = 20 }
//!
//! [operators]
//! allow = ["Conv", "Mul", "Sigmoid"]    # nothing else
//! deny = ["Einsum", "com.microsoft.Gelu"]
//!
//! [scopes."stage3.1"]
//! macs = 10_000_000             # params, macs, flops, fvcore, mmcv
//! ```

mod read;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::{Audit, By, Counts, Part, Stored, estimate, groups};
use crate::finding::{Finding, Severity};
use crate::report::{bytes, figure, thousands};
use crate::sym::Expr;

pub use write::{HEADROOM, write};

/// The limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budget {
    pub limits: BTreeMap<Limit, u64>,
    pub ir_version: Range,
    pub opset: Range,
    /// `None` allows every operator.
    pub allow: Option<BTreeSet<String>>,
    pub deny: BTreeSet<String>,
    /// By module path.
    pub scopes: BTreeMap<String, BTreeMap<Limit, u64>>,
}

/// A figure that is limited from above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    Params,
    Macs,
    Flops,
    Fvcore,
    Mmcv,
    FileSize,
    PeakMemory,
    HighestRank,
}

/// Versions from one to another, either of them free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    pub min: Option<i64>,
    pub max: Option<i64>,
}

impl Limit {
    pub const ALL: [Limit; 8] = [
        Limit::Params,
        Limit::Macs,
        Limit::Flops,
        Limit::Fvcore,
        Limit::Mmcv,
        Limit::FileSize,
        Limit::PeakMemory,
        Limit::HighestRank,
    ];
    /// Those that a part of a model has, too.
    pub const OF_SCOPES: [Limit; 5] = [Limit::Params, Limit::Macs, Limit::Flops, Limit::Fvcore, Limit::Mmcv];

    /// The key in a budget.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Limit::Params => "params",
            Limit::Macs => "macs",
            Limit::Flops => "flops",
            Limit::Fvcore => "fvcore",
            Limit::Mmcv => "mmcv",
            Limit::FileSize => "file_size",
            Limit::PeakMemory => "peak_memory",
            Limit::HighestRank => "highest_rank",
        }
    }

    /// The figure of `audit`, or why it cannot be said.
    fn of(self, audit: &Audit, file_size: &Expr) -> Result<Expr, String> {
        Ok(match self {
            Limit::FileSize => file_size.clone(),
            Limit::HighestRank => audit.highest_rank.into(),
            Limit::PeakMemory => match (&audit.peak_memory.bytes, &audit.peak_memory.reason) {
                (Some(bytes), _) => bytes.clone(),
                (None, reason) => return Err(reason.clone().unwrap_or_default()),
            },
            _ => self.of_counts(&audit.totals).cloned().unwrap_or_default(),
        })
    }

    fn of_counts(self, counts: &Counts) -> Option<&Expr> {
        let figures = counts.figures();
        figures.into_iter().find(|(name, _)| *name == self.key()).map(|(_, count)| count)
    }

    /// Whether nodes that are not counted may add to it.
    fn is_counted(self) -> bool {
        Self::OF_SCOPES.contains(&self)
    }
}

impl Range {
    fn contains(self, n: i64) -> bool {
        self.min.is_none_or(|min| min <= n) && self.max.is_none_or(|max| n <= max)
    }

    fn describe(self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) if min == max => format!("{min}"),
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("{min} at least"),
            (None, Some(max)) => format!("{max} at most"),
            (None, None) => "any".to_owned(),
        }
    }
}

/// Everything in which a file breaks `budget`, or may break it: `file_size` is in bytes.
///
/// A limit that a total breaks although not everything could be counted is broken all the
/// same; one that it keeps is undecided.
#[must_use]
pub fn violations(budget: &Budget, audit: &Audit, file: &str, file_size: &Expr) -> Vec<Finding> {
    let mut judge = Judge { audit, file, findings: Vec::new() };
    for (&limit, &most) in &budget.limits {
        let found = limit.of(audit, file_size);
        judge.limit("", limit, most, found, || suspects(limit, audit));
    }
    judge.versions(budget);
    judge.operators(budget);
    judge.scopes(budget);
    judge.findings
}

struct Judge<'a> {
    audit: &'a Audit,
    file: &'a str,
    findings: Vec<Finding>,
}

/// The code of a limit that does not hold.
pub const BROKEN: &str = "budget";
/// The code of a limit of which nobody can say whether it holds.
pub const UNDECIDED: &str = "budget-undecided";

impl Judge<'_> {
    fn find(&mut self, code: &'static str, place: &str, message: String) {
        let (place, file) = (place.to_owned(), Some(self.file.to_owned()));
        let severity = if code == UNDECIDED { Severity::Open } else { Severity::Error };
        self.findings.push(Finding { code, severity, place, message, file });
    }

    fn limit(
        &mut self,
        scope: &str,
        limit: Limit,
        most: u64,
        found: Result<Expr, String>,
        suspects: impl Fn() -> Vec<String>,
    ) {
        let place =
            if scope.is_empty() { limit.key().to_owned() } else { format!("{scope}, {}", limit.key()) };
        let expected = format!("expected {} at most", thousands(most));
        let found = match found {
            Ok(found) => found,
            Err(reason) => {
                return self.find(UNDECIDED, &place, format!("{expected}, found no figure: {reason}"));
            }
        };
        let Some(n) = found.count() else {
            let symbols: Vec<String> = found.symbols().iter().map(ToString::to_string).collect();
            let (figure, symbols) = (figure(&found), symbols.join(", "));
            return self.find(
                UNDECIDED,
                &place,
                format!("{expected}, found {figure}; give the sizes of {symbols}"),
            );
        };
        let bound = limit.is_counted() && self.audit.is_lower_bound();
        if n > most {
            let (n, over) = (thousands(n), thousands(n - most));
            let least = if bound { "at least " } else { "" };
            let suspects = suspects();
            let look = match suspects.as_slice() {
                [] => String::new(),
                some => format!("; look at {}", some.join(", ")),
            };
            self.find(BROKEN, &place, format!("{expected}, found {least}{n}, {over} too many{look}"));
        } else if bound {
            let n = thousands(n);
            let uncounted = self.audit.uncounted.len();
            self.find(
                UNDECIDED,
                &place,
                format!("{expected}, found {n} and {uncounted} nodes that could not be counted"),
            );
        }
    }

    fn versions(&mut self, budget: &Budget) {
        let opset = self.audit.opsets.get("ai.onnx").copied().unwrap_or(0);
        for (key, range, found) in
            [("opset", budget.opset, opset), ("ir_version", budget.ir_version, self.audit.ir_version)]
        {
            if !range.contains(found) {
                self.find(BROKEN, key, format!("expected {}, found {found}", range.describe()));
            }
        }
    }

    fn operators(&mut self, budget: &Budget) {
        for (operator, n) in &self.audit.operators {
            let denied = budget.deny.contains(operator);
            let allowed = budget.allow.as_ref().is_none_or(|allow| allow.contains(operator));
            if denied || !allowed {
                let nodes = self.audit.parts.iter().filter(|part| *part.operator == **operator);
                let nodes: Vec<String> = nodes.take(SUSPECTS).map(|part| part.node.to_string()).collect();
                let why = if denied { "is denied" } else { "is not among those allowed" };
                let count = if *n == 1 { "1 node".to_owned() } else { format!("{n} nodes") };
                self.find(
                    BROKEN,
                    &format!("operator {operator}"),
                    format!("{why}, found {count}; look at {}", nodes.join(", ")),
                );
            }
        }
    }

    fn scopes(&mut self, budget: &Budget) {
        if budget.scopes.is_empty() {
            return;
        }
        let all = groups(self.audit, By::Scope { depth: usize::MAX });
        for (scope, limits) in &budget.scopes {
            let Some(group) = all.iter().find(|group| group.name == *scope) else {
                let names = all.iter().map(|group| group.name.as_str());
                let near = read::nearest(scope, names);
                let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                self.find(BROKEN, scope, format!("expected a module of this path, found none{hint}"));
                continue;
            };
            for (&limit, &most) in limits {
                let found = Ok(limit.of_counts(&group.counts).cloned().unwrap_or_default());
                let below = |part: &&Part| {
                    part.scope
                        .strip_prefix(scope.as_str())
                        .is_some_and(|r| r.is_empty() || r.starts_with('.'))
                };
                let parts = self.audit.parts.iter().filter(below);
                let named: Vec<_> = parts.map(|part| (&*part.node, &part.counts)).collect();
                self.limit(scope, limit, most, found, || largest(limit, &named));
            }
        }
    }
}

/// What to look at where a limit is broken, in number.
const SUSPECTS: usize = 3;

fn suspects(limit: Limit, audit: &Audit) -> Vec<String> {
    match limit {
        Limit::FileSize => {
            let mut stored = audit.stored.by_type.iter().collect::<Vec<_>>();
            stored.sort_by_key(|s| std::cmp::Reverse(estimate(&s.bytes)));
            let size = |s: &&Stored| format!("{} of {}", bytes(&s.bytes), s.dtype);
            stored.iter().take(SUSPECTS).map(size).collect()
        }
        Limit::PeakMemory => vec![audit.peak_memory.at.clone()],
        Limit::HighestRank => audit.highest_rank_at.iter().cloned().collect(),
        _ => {
            let named: Vec<_> = audit.parts.iter().map(|part| (&*part.node, &part.counts)).collect();
            largest(limit, &named)
        }
    }
}

/// The parts that have most of a figure, each with what it has.
fn largest(limit: Limit, parts: &[(&str, &Counts)]) -> Vec<String> {
    let figure_of = |counts: &Counts| limit.of_counts(counts).cloned().unwrap_or_default();
    let mut sorted: Vec<(&str, Expr)> = parts.iter().map(|(name, c)| (*name, figure_of(c))).collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(estimate(count)));
    let some = sorted.into_iter().filter(|(_, count)| !count.is(0)).take(SUSPECTS);
    some.map(|(name, count)| format!("{name} ({})", figure(&count))).collect()
}
