//! The first place where two files part.
//!
//! Both run with every value of their main graphs as an output. A value of one is matched to a value of the other
//! when their elements agree, in whatever order of axes, so that names, layouts and the exporters' spellings do
//! not matter. What is spelled in another way has no counterpart inside, but comes to a value that has one: a
//! value is wrong when neither it nor anything that follows from it has a counterpart. The first node that
//! makes such a value of right ones is the place.

use std::collections::{HashMap, HashSet};

use emo_proto::NodeProto;
use emo_proto::file::OnnxFile;
use emo_proto::text::label;
use ndarray::ArrayD;
use serde::Serialize;

use super::matching::{Order, Value};
use crate::audit::{Sizes, scope};
use crate::infer::{Inference, infer_file};
use crate::opinion;
use crate::run::plain::captured;
use crate::runtime::{Concrete, Failure, Runtime};

/// A node of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name, or its operator and output where it has none.
    pub node: String,
    pub operator: String,
    /// The module path, as its writer tells it; empty where nothing does.
    pub scope: String,
    /// The value that it writes.
    pub value: String,
}

/// Where the judged file leaves the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    #[serde(flatten)]
    pub node: Node,
    /// The node of the other file whose value has no counterpart, where one is made of the same operands.
    pub counterpart: Option<Node>,
    /// How far the nearest value behind it that both files have is off, as a share of the largest; `None` where
    /// none can be laid beside another.
    pub error: Option<f64>,
    /// Values before it that the other file has too.
    pub agree: usize,
    /// Values of the judged file that were compared.
    pub values: usize,
    /// On which inputs.
    pub probe: String,
}

impl Place {
    /// `/encoder/Softmax (Softmax, in encoder), where the other has …`
    pub fn describe(&self) -> String {
        let named = |node: &Node| {
            let scope = if node.scope.is_empty() { String::new() } else { format!(" in {}", node.scope) };
            format!("{} ({}){scope}", node.node, node.operator)
        };
        let other = self.counterpart.as_ref().map(|other| format!(", where the other has {}", named(other)));
        let error = self.error.map(|error| format!(", off by {error:.1e}"));
        let (here, other, error) = (named(&self.node), other.unwrap_or_default(), error.unwrap_or_default());
        format!("{here}{other}{error}; {} of {} values before it agree", self.agree, self.values)
    }
}

/// One file on one run.
pub struct Side<'a> {
    nodes: Vec<&'a NodeProto>,
    writers: HashMap<&'a str, usize>,
    values: HashMap<&'a str, Value>,
    inputs: Vec<&'a str>,
    pub arrays: HashMap<&'a str, ArrayD<f32>>,
    constant: HashSet<&'a str>,
}

/// Elements of all values that are kept.
const MOST_ELEMENTS: usize = 1 << 27;

impl<'a> Side<'a> {
    /// Every value of `file` for `fed`, the inputs called `inputs`.
    ///
    /// # Errors
    /// The engine does not take the graph with its inner values as outputs.
    pub fn record(
        file: &'a OnnxFile,
        inputs: &[&'a str],
        fed: &[ArrayD<f32>],
        engine: &dyn Runtime,
    ) -> Result<Self, Failure> {
        let ports: Vec<(String, Vec<usize>)> = inputs
            .iter()
            .zip(fed)
            .map(|(name, array)| ((*name).to_owned(), array.shape().to_vec()))
            .collect();
        let concrete = Concrete::new(file, &ports)?;
        let extents = |array: &ArrayD<f32>| array.shape().iter().map(|&n| n as i64).collect();
        let given = inputs.iter().zip(fed).map(|(name, array)| ((*name).to_owned(), extents(array)));
        let sizes = Sizes { inputs: given.collect(), ..Sizes::default() };
        let names: Vec<String> = ports.into_iter().map(|(name, _)| name).collect();
        let inference = infer_file(file, &sizes.bindings(&file.model)?);
        let nodes: Vec<&NodeProto> =
            inference.nodes.iter().filter(|node| node.path.is_empty()).map(|node| node.node).collect();
        let written = nodes.iter().flat_map(|node| &node.output).map(String::as_str);
        let (wanted, constant) = measured(written, &inference, &concrete);
        let asked: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        let found = opinion::values(engine, &concrete, &names, fed, &asked)?;
        let arrays: HashMap<&str, ArrayD<f32>> =
            wanted.into_iter().zip(found).chain(inputs.iter().copied().zip(fed.iter().cloned())).collect();
        let values = arrays.iter().filter_map(|(&name, array)| Some((name, Value::of(array)?))).collect();
        let writers = nodes.iter().enumerate().flat_map(|(i, node)| {
            node.output.iter().filter(|name| !name.is_empty()).map(move |name| (name.as_str(), i))
        });
        let writers = writers.collect();
        Ok(Self { nodes, writers, values, inputs: inputs.to_vec(), arrays, constant })
    }

    /// The inputs with the shapes that they have.
    pub fn fed(&self) -> Vec<(String, Vec<usize>)> {
        self.inputs.iter().map(|&name| (name.to_owned(), self.arrays[name].shape().to_vec())).collect()
    }

    /// The first node whose value is another than that of the same file in another engine.
    pub fn parts_from(&self, other: &Side, bound: f64) -> Option<String> {
        let apart = |name: &String| {
            let pair = self.values.get(name.as_str()).zip(other.values.get(name.as_str()));
            pair.is_some_and(|(a, b)| a.error(b).is_some_and(|error| error > bound))
        };
        self.nodes.iter().find(|node| node.output.iter().any(apart)).map(|node| label(node))
    }

    fn operands(&self, node: &'a NodeProto) -> Vec<&'a str> {
        let mut names: Vec<&str> = node.input.iter().map(String::as_str).collect();
        captured(node, &mut names);
        names.retain(|name| !name.is_empty() && !self.constant.contains(name));
        names
    }

    fn describe(&self, index: usize) -> Node {
        let node = self.nodes[index];
        let weights = node.input.iter().map(String::as_str).filter(|name| !self.writers.contains_key(name));
        Node {
            node: label(node),
            operator: node.op_type().to_owned(),
            scope: scope(node, weights).into_owned(),
            value: node.output.first().cloned().unwrap_or_default(),
        }
    }
}

/// The values that a run tells, and those that no input moves.
fn measured<'a>(
    written: impl Iterator<Item = &'a str>,
    inference: &Inference<'a>,
    concrete: &Concrete,
) -> (Vec<&'a str>, HashSet<&'a str>) {
    let settled = |fact: &crate::fact::Fact| {
        let numbers = fact.elements.as_ref().is_some_and(|e| e.iter().all(|e| e.number().is_some()));
        fact.source.is_some() || numbers || fact.reals.is_some()
    };
    let constant: HashSet<&str> =
        inference.values.iter().filter(|(_, fact)| settled(fact)).map(|(name, _)| name).collect();
    let (mut wanted, mut seen, mut elements) = (Vec::new(), HashSet::new(), 0);
    for name in written.filter(|name| !name.is_empty() && !constant.contains(name)) {
        let tells = inference.values.get(name).is_some_and(|fact| {
            fact.is_tensor() && (fact.is_float() || fact.is_integer() || fact.dtype == BOOL)
        });
        let count = concrete.shape(name).map(|shape| shape.iter().product::<usize>());
        let Some(count) = count.filter(|&n| n > 0 && tells && elements + n <= MOST_ELEMENTS) else {
            continue;
        };
        if seen.insert(name) {
            elements += count;
            wanted.push(name);
        }
    }
    (wanted, constant)
}

const BOOL: emo_proto::tensor_proto::DataType = emo_proto::tensor_proto::DataType::Bool;

/// The counterparts of a side's values.
struct Matches<'a> {
    /// In the same order of elements where there is such a one.
    found: HashMap<&'a str, (&'a str, Order)>,
    /// Values that have a counterpart, or from which one follows, or nothing but right ones.
    right: HashSet<&'a str>,
}

impl<'a> Matches<'a> {
    fn of(side: &Side<'a>, other: &Side<'a>, ports: &HashMap<&'a str, &'a str>, bound: f64) -> Self {
        let mut by_size: HashMap<usize, Vec<&str>> = HashMap::new();
        // In the order of the graph, so that of equal values the first is taken.
        let order = other.nodes.iter().flat_map(|node| &node.output).map(String::as_str);
        for name in other.inputs.iter().copied().chain(order) {
            if let Some(value) = other.values.get(name) {
                by_size.entry(value.len()).or_default().push(name);
            }
        }
        let mut found: HashMap<&str, (&str, Order)> = HashMap::new();
        for (&name, value) in &side.values {
            let candidates = by_size.get(&value.len()).into_iter().flatten();
            let orders = candidates.filter_map(|&c| Some((c, value.is(other.values.get(c)?, bound)?)));
            let mut best: Option<(&str, Order)> = None;
            for (candidate, order) in orders {
                if best.is_none_or(|(_, before)| order < before) {
                    best = Some((candidate, order));
                }
                if order == Order::Same {
                    break;
                }
            }
            found.extend(best.map(|best| (name, best)));
        }
        found.extend(side.inputs.iter().map(|&input| (input, (ports[input], Order::Same))));
        let right = right(side, &found);
        Self { found, right }
    }

    /// The nodes that make wrong values of right ones, in the order in which they run.
    fn starts(&self, side: &Side<'a>) -> Vec<usize> {
        let wrong =
            |name: &&String| side.values.contains_key(name.as_str()) && !self.right.contains(name.as_str());
        let is_start = |node: &&'a NodeProto| {
            node.output.iter().any(|name| wrong(&name))
                && side.operands(node).iter().all(|name| self.right.contains(name))
        };
        (0..side.nodes.len()).filter(|&i| is_start(&side.nodes[i])).collect()
    }
}

fn right<'a>(side: &Side<'a>, found: &HashMap<&'a str, (&'a str, Order)>) -> HashSet<&'a str> {
    let mut right: HashSet<&str> = found.keys().copied().collect();
    let mut open: Vec<&str> = right.iter().copied().filter(|name| side.values.contains_key(name)).collect();
    while let Some(name) = open.pop() {
        let Some(&writer) = side.writers.get(name) else { continue };
        let node = side.nodes[writer];
        open.extend(side.operands(node).into_iter().filter(|operand| right.insert(operand)));
    }
    // What cannot be measured is as right as what it is made of.
    for &node in &side.nodes {
        if side.operands(node).iter().all(|operand| right.contains(operand)) {
            let unmeasured = node.output.iter().filter(|name| !side.values.contains_key(name.as_str()));
            right.extend(unmeasured.map(String::as_str));
        }
    }
    right
}

/// The first place where `own` leaves `other`; `ports` pairs the inputs' names. `off` is how far the outputs are
/// from one another and `bound` what roundings explain of it, both as a share of the largest value.
pub fn first<'a>(
    own: &Side<'a>,
    other: &Side<'a>,
    ports: &[(&'a str, &'a str)],
    (off, bound): (f64, f64),
    probe: &str,
) -> Option<(Place, Piece<'a>)> {
    let there: HashMap<&str, &str> = ports.iter().copied().collect();
    let back: HashMap<&str, &str> = ports.iter().map(|&(own, other)| (other, own)).collect();
    // Right values are off by roundings, which grow along the path; a mistake is seldom a thousandth
    // of what becomes of it.
    let loose = (off * 1e-3).clamp(2.0 * bound, 1e-4_f64.max(2.0 * bound));
    [loose, bound / 4.0].into_iter().find_map(|bound| {
        let matches = Matches::of(own, other, &there, bound);
        let start = *matches.starts(own).first()?;
        let reverse = Matches::of(other, own, &back, bound);
        let counterpart = counterpart(own, other, &matches, &reverse, start);
        let piece = piece(own, other, (&matches, &reverse), start, counterpart);
        let error =
            piece.expected.and_then(|name| own.values.get(piece.output)?.error(other.values.get(name)?));
        let (start, counterpart) =
            moved(own, other, &matches, start, counterpart).unwrap_or((start, counterpart));
        let before = own.nodes[..start].iter().flat_map(|node| &node.output);
        let agree = before.filter(|name| {
            matches.found.contains_key(name.as_str()) && own.values.contains_key(name.as_str())
        });
        let place = Place {
            node: own.describe(start),
            counterpart: counterpart.map(|index| other.describe(index)),
            error,
            agree: agree.count(),
            values: own.values.len(),
            probe: probe.to_owned(),
        };
        Some((place, piece))
    })
}

/// The node of the other file that has no counterpart either and reads what the node `start` reads, or else the
/// first that has none.
fn counterpart<'a>(
    own: &Side<'a>,
    other: &Side<'a>,
    matches: &Matches<'a>,
    reverse: &Matches<'a>,
    start: usize,
) -> Option<usize> {
    let starts = reverse.starts(other);
    let read: HashSet<&str> =
        own.operands(own.nodes[start]).iter().filter_map(|name| Some(matches.found.get(name)?.0)).collect();
    let reads = |&&index: &&usize| other.operands(other.nodes[index]).iter().any(|name| read.contains(name));
    let same = |&&index: &&usize| other.nodes[index].op_type() == own.nodes[start].op_type();
    let both = starts.iter().find(|index| reads(index) && same(index));
    both.or_else(|| starts.iter().find(reads)).or(starts.first()).copied()
}

/// The node that lays an operand of `start` in another order than its counterpart reads it, where both compute the
/// same of it: what is wrong is the order. With it the node that writes the operand there.
fn moved<'a>(
    own: &Side<'a>,
    other: &Side<'a>,
    matches: &Matches<'a>,
    start: usize,
    counterpart: Option<usize>,
) -> Option<(usize, Option<usize>)> {
    let theirs = other.nodes[counterpart?];
    if theirs.op_type() != own.nodes[start].op_type() {
        return None;
    }
    let reads = other.operands(theirs);
    let turned = |name: &&str| matches!(matches.found.get(*name), Some((_, Order::Other)));
    let mut open: Vec<&str> = own.operands(own.nodes[start]);
    open.retain(|name| turned(name) && reads.contains(&matches.found[name].0));
    let mut first: Option<(usize, Option<usize>)> = None;
    while let Some(name) = open.pop() {
        let Some(&writer) = own.writers.get(name) else { continue };
        if first.is_none_or(|(first, _)| writer < first) {
            first = Some((writer, other.writers.get(matches.found[name].0).copied()));
        }
        open.extend(own.operands(own.nodes[writer]).into_iter().filter(turned));
    }
    first
}

/// The smallest part of the judged file that shows the difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Right values, from which it starts.
    pub inputs: Vec<&'a str>,
    pub output: &'a str,
    /// The value of the other file that is the right one.
    pub expected: Option<&'a str>,
}

/// How many values behind the place are looked at for a pair that can be compared.
const NEAR: usize = 48;

fn piece<'a>(
    own: &Side<'a>,
    other: &Side<'a>,
    (matches, reverse): (&Matches<'a>, &Matches<'a>),
    start: usize,
    counterpart: Option<usize>,
) -> Piece<'a> {
    let first = |side: &Side<'a>, index: usize| -> Option<&'a str> {
        side.nodes[index].output.iter().map(String::as_str).find(|name| side.values.contains_key(name))
    };
    let direct = counterpart.and_then(|index| {
        let same = other.nodes[index].op_type() == own.nodes[start].op_type();
        let pair = (first(own, start)?, first(other, index)?);
        let comparable = own.arrays[pair.0].shape() == other.arrays[pair.1].shape();
        (same && comparable).then_some(pair)
    });
    // Spelled in other ways, the two come to values of one shape behind the place: the nearest are taken.
    let near = || {
        let behind = |side: &Side<'a>, matches: &Matches<'a>, from: usize| -> Vec<&'a str> {
            let outputs = side.nodes[from..].iter().flat_map(|node| &node.output).map(String::as_str);
            let wrong = |name: &&str| side.values.contains_key(name) && !matches.right.contains(name);
            outputs.filter(wrong).take(NEAR).collect()
        };
        let (mine, theirs) = (behind(own, matches, start), behind(other, reverse, counterpart?));
        let pairs = mine.iter().flat_map(|&a| theirs.iter().map(move |&b| (a, b)));
        let distance = |&(a, b): &(&'a str, &'a str)| {
            let same = own.arrays[a].shape() == other.arrays[b].shape();
            own.values[a].error(&other.values[b]).filter(|_| same)
        };
        let measured = pairs.filter_map(|pair| Some((pair, distance(&pair)?)));
        measured.filter(|(_, d)| *d < 1.0).min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(pair, _)| pair)
    };
    let (output, expected) = match direct.or_else(near) {
        Some((output, expected)) => (output, Some(expected)),
        None => (first(own, start).unwrap_or_default(), None),
    };
    // Back to values that are right and that were measured.
    let (mut inputs, mut seen, mut open) = (Vec::new(), HashSet::from([output]), vec![output]);
    while let Some(name) = open.pop() {
        let start = name != output && matches.found.contains_key(name) && own.arrays.contains_key(name);
        match own.writers.get(name).filter(|_| !start) {
            Some(&writer) => {
                open.extend(own.operands(own.nodes[writer]).into_iter().filter(|name| seen.insert(name)));
            }
            None => inputs.push(name),
        }
    }
    inputs.sort_unstable();
    Piece { inputs, output, expected }
}
