//! A file against a profile: what a runtime would make of it.
//!
//! [`lint`] holds every node of a file, whoever wrote it, against the row that the exporter writes
//! by. Functions are written out and bodies entered; what constants alone decide is no node, for
//! runtimes compute it when they load the file. Causes are reported, not their consequences: a free
//! extent is a finding at the input that has it, not at each node behind it.

mod graph;
mod partitions;
mod violation;

use std::collections::BTreeSet;

use emo_exporter::profile::{Allow, MostImages, NodeFacts, Operand, Opset, Profile, Rule};
use emo_proto::tensor_proto::DataType;
use emo_proto::{GraphProto, ModelProto};

use crate::audit;
use crate::fact::Fact;
use crate::infer::Inference;
use crate::report::counted;
use graph::{Step, Steps};

pub use violation::{CODES, Code, Group, Violation};

/// The code of a rule that cannot be decided.
pub const UNDECIDED: &str = Code::Undecided.name();

/// What a row has to say of a file.
#[derive(Debug)]
pub struct Lint {
    pub profile: &'static Profile,
    /// Rules that are broken, and rules that cannot be decided; of the file, of its inputs, of its
    /// nodes in the order in which they run.
    pub violations: Vec<Violation>,
    /// Nodes that run, functions written out.
    pub nodes: usize,
    /// Nodes beside these that constants alone decide.
    pub folded: usize,
    /// Nodes that the runtime takes.
    pub taken: usize,
    /// The others, by path and name.
    pub outside: Vec<String>,
    /// The nodes of each partition that the runtime would cut the graph into.
    pub partitions: Vec<usize>,
}

/// Holds a file against a row; `inference` is that of `model`, with the sizes that are to be assumed.
#[must_use]
pub fn lint(model: &ModelProto, inference: &Inference, profile: &'static Profile) -> Lint {
    let Steps { list, folded } = Steps::of(inference);
    let mut violations = Vec::new();
    versions(model, profile, &mut violations);
    if let Some(graph) = &model.graph {
        inputs(graph, inference, profile, &mut violations);
    }
    let mut taken: Vec<bool> = list.iter().map(|step| node(step, profile, &mut violations)).collect();
    let partitions = partitions::partitions(&list, &mut taken);
    let outside = list.iter().zip(taken).filter(|(_, taken)| !taken).map(|(step, _)| step.facts.place());
    let outside: Vec<String> = outside.collect();
    let taken = list.len() - outside.len();
    Lint { profile, violations, nodes: list.len(), folded, taken, outside, partitions }
}

impl Lint {
    /// How many rules are broken, each as often as it is.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.violations.iter().filter(|violation| !violation.is_open()).count()
    }

    /// How many nodes break a rule.
    #[must_use]
    pub fn violating_nodes(&self) -> usize {
        let nodes =
            self.violations.iter().filter(|violation| !violation.is_open() && !violation.operator.is_empty());
        nodes.map(|violation| &violation.name).collect::<BTreeSet<_>>().len()
    }

    /// How many rules cannot be decided.
    #[must_use]
    pub fn open(&self) -> usize {
        self.violations.len() - self.broken()
    }
}

/// The file's versions against the newest that the row is written in.
fn versions(model: &ModelProto, profile: &Profile, violations: &mut Vec<Violation>) {
    let newest = profile.opsets.versions.iter().filter_map(|&version| Opset::version(version));
    let Some(newest) = newest.max_by_key(|opset| opset.version) else { return };
    let opsets = model.opset_import.iter().filter(|import| matches!(import.domain(), "" | "ai.onnx"));
    let found = opsets.map(emo_proto::OperatorSetIdProto::version).max();
    if let Some(found) = found.filter(|&found| found > newest.version) {
        violations.push(Violation {
            rule: format!("opset {} at most", newest.version),
            found: format!("opset {found}"),
            instead: Some(format!("the file in opset {}", newest.version)),
            ..Violation::of_file(Code::Opset, profile.opsets.source)
        });
    }
    if model.ir_version() > newest.ir_version {
        violations.push(Violation {
            rule: format!("ir_version {} at most", newest.ir_version),
            found: format!("ir_version {}", model.ir_version()),
            instead: Some("the lowest that the opset allows".to_owned()),
            ..Violation::of_file(Code::IrVersion, profile.opsets.source)
        });
    }
}

/// The inputs' shapes and types.
fn inputs(graph: &GraphProto, inference: &Inference, profile: &Profile, violations: &mut Vec<Violation>) {
    for input in audit::inputs(graph) {
        let Some(fact) = inference.values.get(input.name()) else { continue };
        let of =
            |code, source| Violation { name: input.name().to_owned(), ..Violation::of_file(code, source) };
        if let Allow::No { because, source, instead } = profile.free_batch {
            let rule = format!("fixed shapes: {because}");
            let instead = Some(instead.to_owned());
            match is_fixed(fact) {
                Some(true) => {}
                Some(false) => {
                    let found = fact.describe();
                    violations.push(Violation { rule, found, instead, ..of(Code::FreeShape, source) });
                }
                None => {
                    let found = "no shape".to_owned();
                    violations.push(Violation { rule, found, instead, ..of(Code::Undecided, source) });
                }
            }
        }
        if let Some(MostImages { images: most, because, source, instead }) = profile.most_images
            && images(fact).is_some_and(|images| images > most)
        {
            violations.push(Violation {
                rule: format!("{} at most: {because}", counted(most, "image")),
                found: fact.describe(),
                instead: Some(instead.to_owned()),
                ..of(Code::Batch, source)
            });
        }
        if let Allow::No { because, source, instead } = profile.image_input
            && fact.dtype == DataType::Uint8
        {
            violations.push(Violation {
                rule: format!("no bytes: {because}"),
                found: fact.describe(),
                instead: Some(instead.to_owned()),
                ..of(Code::Type, source)
            });
        }
    }
}

/// How many images an input of maps holds, `[N, C, H, W]` or `[N, H, W, C]`; `None` where it is open or the
/// input is of another rank.
fn images(fact: &Fact) -> Option<usize> {
    match fact.dims.as_deref().ok()? {
        [batch, _, _, _] => usize::try_from(batch.count()?).ok(),
        _ => None,
    }
}

/// Whether all extents are numbers; `None` where not even the rank is known.
fn is_fixed(fact: &Fact) -> Option<bool> {
    fact.dims.as_ref().ok().map(|dims| dims.iter().all(|dim| dim.count().is_some()))
}

/// Holds a node against the row; whether the runtime takes it.
fn node(step: &Step, profile: &Profile, violations: &mut Vec<Violation>) -> bool {
    let node = &step.node;
    let judgement = profile.judge(node);
    let mut taken = true;
    for rule in judgement.broken {
        taken &= !cuts(rule, node);
        violations.push(Violation::of_rule(step.facts, node, rule));
    }
    for rule in judgement.open {
        violations.push(Violation { code: Code::Undecided, ..Violation::of_rule(step.facts, node, rule) });
    }
    if let Allow::No { because, source, instead } = profile.half
        && node.values().any(|value| value.dtype == Some(DataType::Float16))
    {
        taken = false;
        violations.push(Violation {
            rule: format!("no float16: {because}"),
            found: "float16".to_owned(),
            instead: Some(instead.to_owned()),
            ..Violation::of_node(step.facts, Code::Type, source)
        });
    }
    if let Allow::No { because, source, .. } = profile.free_batch {
        let free = |shape: &Vec<Option<u64>>| shape.iter().any(Option::is_none);
        let is_free = |value: &Operand| value.shape.as_ref().is_some_and(free);
        taken &= !node.values().any(is_free);
        // What the values of the operands decide: the shapes behind it are its consequence.
        if node.results.iter().any(is_free) && !node.operands.iter().flatten().any(is_free) {
            violations.push(Violation {
                rule: format!("fixed shapes: {because}"),
                found: "extents that are decided as the graph runs".to_owned(),
                instead: Some("shapes that the inputs' decide".to_owned()),
                ..Violation::of_node(step.facts, Code::FreeShape, source)
            });
        }
    }
    taken
}

/// Whether a runtime leaves out a node that breaks the rule.
fn cuts(rule: Rule, node: &NodeFacts) -> bool {
    let ranks = || node.values().filter_map(|value| value.shape.as_ref()).map(Vec::len);
    match rule {
        Rule::Operator { .. } | Rule::Condition { .. } => true,
        Rule::Rank(highest) => ranks().any(|rank| rank > highest.taken),
    }
}
