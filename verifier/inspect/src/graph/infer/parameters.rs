//! Which constants are parameters of the model: told by how each is used and made.
//!
//! A weight of a layer is one. A constant that meets data elsewhere is one if it was stored as weights
//! are: many exporters keep what they make themselves in `Constant` nodes, apart from what the model
//! learnt. Where one keeps both in one place, what is added and multiplied is a parameter unless the
//! nodes around show what else it is: a mask, a table of rotations, a scale.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::ops::Deref;

use emo_proto::tensor_proto::DataType;

use super::reasons::{LONE, MADE, OTHER, SCALE, STATISTICS};
use super::source::{is_quantised, packed};
use super::uses::{SHOWN, Uses};
use super::{Constant, Inference, Source};
use crate::ops;

/// How a value is made that constants and shapes alone decide.
enum Made {
    /// Of shapes, or of functions that no parameter goes through.
    Nothing,
    Constant(usize),
    /// Of these, each older.
    Several(Vec<usize>),
    /// By a function that parameters are given to keep them in bounds: Exp, Sigmoid.
    Bounded(usize),
}

/// Operators whose results hold nothing that was learnt.
const TABLES: [&str; 12] = [
    "Shape",
    "Size",
    "Range",
    "ConstantOfShape",
    "Sin",
    "Cos",
    "EyeLike",
    "OneHot",
    "NonZero",
    "RandomNormal",
    "RandomUniform",
    "Multinomial",
];
/// Operators whose weights are weights whatever they work on.
const LAYERS: [&str; 6] =
    ["Conv", "ConvTranspose", "BatchNormalization", "LayerNormalization", "GroupNormalization", "LSTM"];
const BOUNDED: [&str; 4] = ["Exp", "Sigmoid", "Softplus", "Tanh"];
/// Operators that combine all their operands; others move the elements of the first.
const COMBINING: [&str; 13] =
    ["Add", "Sub", "Mul", "Div", "Pow", "Sum", "Max", "Min", "Concat", "MatMul", "Gemm", "Where", "Einsum"];
/// Operators that are no layers: what was learnt meets data here as what an exporter made does.
pub(super) const PLAIN: [&str; 10] =
    ["Add", "Mul", "Sum", "Concat", "Sub", "Div", "Pow", "Max", "Min", "Where"];
/// Those that parameters are met in where nothing tells them from what an exporter made.
const LIKELY: [&str; 4] = ["Add", "Mul", "Sum", "Concat"];

/// A constant's value that a node reads beside data.
struct Read {
    node: usize,
    operand: usize,
    made: usize,
}

/// The constants behind a value: index, whether it is read as it is, whether through a bound.
type Behind = Vec<(usize, bool, bool)>;

impl Inference<'_> {
    /// Gives each constant that is a parameter to the first node that reads it as such, and says what
    /// the others are.
    pub(super) fn find_weights(&mut self) {
        if self.constants.is_empty() {
            return;
        }
        let (reads, made) = self.met();
        self.name_makers();
        let apart = self.keeps_apart(&reads, &made);
        // Most files of a million nodes need none of it.
        let uses = LazyCell::new(|| Uses::of(self));
        let mut biases = Vec::new();
        let mut decided = Vec::new();
        for read in &reads {
            for (index, direct, bounded) in behind(&made, read.made) {
                let how = self.judge(read, index, (direct, bounded), apart, &uses);
                if direct
                    && how.is_ok()
                    && self.nodes[read.node].node.op_type() == "Add"
                    && uses.biases(self, read.node)
                {
                    biases.push(index);
                }
                decided.push(((read.node, read.operand), index, how));
            }
        }
        for ((node, operand), index, how) in decided {
            match how {
                Ok(packs) => self.give((node, operand), index, packs),
                Err(why) if !self.constants[index].is_weight => {
                    self.constants[index].left_out.get_or_insert(why);
                }
                Err(_) => {}
            }
        }
        biases.into_iter().for_each(|index| self.constants[index].is_bias_of_scores = true);
        for said in self.nodes.iter_mut().filter_map(|facts| facts.said.as_mut()) {
            said.weights.sort_unstable();
        }
    }

    fn give(&mut self, (node, operand): (usize, usize), index: usize, packs: bool) {
        let Self { nodes, constants, .. } = self;
        let (facts, constant) = (&mut nodes[node], &mut constants[index]);
        constant.readers += 1;
        if std::mem::replace(&mut constant.is_weight, true) {
            return;
        }
        if let Some(parameters) = packed(facts.node, &constant.fact, operand).filter(|_| packs) {
            constant.parameters = parameters;
        }
        constant.left_out = None;
        facts.said.get_or_insert_default().weights.push(index);
    }

    /// Every place where a constant meets data, and how what is read there is made.
    fn met(&self) -> (Vec<Read>, Vec<Made>) {
        let mut made = vec![Made::Nothing];
        let of_constants: Vec<usize> = (0..self.constants.len()).map(|_| 0).collect();
        let mut names = Names { values: HashMap::new(), constants: of_constants, found: self };
        let mut reads = Vec::new();
        let functions =
            self.bodies.iter().filter_map(|b| b.call.as_ref().map(|(f, _)| (b.holder, *f, b.scope)));
        let functions: HashMap<usize, _> = functions.map(|(holder, f, scope)| (holder, (f, scope))).collect();
        for (index, facts) in self.nodes.iter().enumerate() {
            let operands: Vec<Option<Option<usize>>> = facts
                .node
                .input
                .iter()
                .map(|name| (!name.is_empty()).then(|| names.of(facts.scope, name, &mut made)))
                .collect();
            if let Some((function, scope)) = functions.get(&index) {
                for (parameter, operand) in function.input.iter().zip(&operands) {
                    if let Some(Some(at)) = operand {
                        names.values.insert((*scope, parameter), *at);
                    }
                }
                continue;
            }
            if operands.iter().flatten().all(Option::is_some) {
                // A layer is one on a table, too.
                if LAYERS.contains(&facts.node.op_type()) {
                    let weights =
                        operands.iter().enumerate().skip(1).filter_map(|(i, at)| Some((i, (*at)??)));
                    reads.extend(weights.filter(|(_, at)| *at > 0).map(|(operand, made)| Read {
                        node: index,
                        operand,
                        made,
                    }));
                }
                let result = self.result(index, &operands, &mut names, &mut made);
                for name in facts.node.output.iter().filter(|name| !name.is_empty()) {
                    names.values.insert((facts.scope, name), result);
                }
            } else if matches!(facts.node.op_type(), "Shape" | "Size") {
                names.values.extend(facts.node.output.iter().map(|name| ((facts.scope, name.as_str()), 0)));
            } else {
                let known = operands.iter().enumerate().filter_map(|(i, at)| Some((i, (*at)??)));
                reads.extend(known.filter(|(_, at)| *at > 0).map(|(operand, made)| Read {
                    node: index,
                    operand,
                    made,
                }));
            }
        }
        (reads, made)
    }

    /// How the outputs of a node are made that reads no data.
    fn result(
        &self,
        index: usize,
        operands: &[Option<Option<usize>>],
        names: &mut Names,
        made: &mut Vec<Made>,
    ) -> usize {
        let facts = &self.nodes[index];
        let operator = facts.node.op_type();
        // A constant, or what makes one of quantised numbers.
        let own = facts.outputs.first().and_then(|fact| fact.source);
        if let Some(Source::Constant(constant)) = own.map(|source| &self.sources[source])
            && matches!(operator, "Constant" | "DequantizeLinear")
        {
            return names.constant(*constant, made);
        }
        if TABLES.contains(&operator) || matches!(operator, "Conv" | "ConvTranspose" | "LSTM") {
            return 0;
        }
        let mut parts: Vec<usize> =
            operands.iter().flatten().flatten().copied().filter(|&at| at > 0).collect();
        if !COMBINING.contains(&operator) {
            parts = operands.first().copied().flatten().flatten().filter(|&at| at > 0).into_iter().collect();
        }
        parts.dedup();
        let step = match (parts.as_slice(), BOUNDED.contains(&operator)) {
            ([], _) => return 0,
            (&[one], false) if !COMBINING.contains(&operator) => return one,
            (&[one], true) => Made::Bounded(one),
            _ => Made::Several(parts),
        };
        made.push(step);
        made.len() - 1
    }

    /// Says which constants a node makes.
    fn name_makers(&mut self) {
        for facts in &self.nodes {
            let operator = ["Constant", "ConstantOfShape", "DequantizeLinear"];
            let operator = operator.into_iter().find(|name| *name == facts.node.op_type());
            if let Some(source) = facts.outputs.first().and_then(|fact| fact.source)
                && operator.is_some()
                && let Source::Constant(index) = self.sources[source]
            {
                self.constants[index].made_by = operator;
            }
        }
    }

    /// Whether most of what layers read are tensors of the file, and `Constant` nodes hold other floats.
    fn keeps_apart(&self, reads: &[Read], made: &[Made]) -> Apart {
        let (mut stored, mut nodes) = (0_u64, 0_u64);
        for read in reads.iter().filter(|read| self.layer(read).is_some()) {
            for (index, ..) in behind(made, read.made) {
                let count = self.constants[index].fact.count().count().unwrap_or(0);
                match self.constants[index].made_by {
                    Some("Constant") => nodes = nodes.saturating_add(count),
                    _ => stored = stored.saturating_add(count),
                }
            }
        }
        let floats = self.constants.iter().any(|c| c.made_by == Some("Constant") && c.fact.is_float());
        Apart { weights: stored > nodes, floats: stored > nodes && floats }
    }

    /// The row of a node that reads an operand as a layer reads its weights.
    fn layer(&self, read: &Read) -> Option<&'static ops::Row> {
        let node = self.nodes[read.node].node;
        let row = ops::find(node.domain(), node.op_type())?;
        (row.weights.contains(&read.operand) && !PLAIN.contains(&node.op_type())).then_some(row)
    }

    /// Whether a convolution has a tensor of the file beside what it reads there: a layer is learnt as a whole, and
    /// simplifiers leave one half of it in a node.
    fn is_beside_stored(&self, read: &Read) -> bool {
        let facts = &self.nodes[read.node];
        let stored = |name: &String| {
            let source =
                self.values.get(name).and_then(|fact| fact.source).map(|source| &self.sources[source]);
            matches!(source, Some(&Source::Constant(index)) if self.constants[index].made_by.is_none())
        };
        facts.node.op_type() == "Conv"
            && facts.path.is_empty()
            && facts.node.input.iter().enumerate().any(|(i, name)| i > 0 && i != read.operand && stored(name))
    }

    /// Whether a constant is a parameter where it is read, and whether its bytes may hold several
    /// numbers; else what it is.
    fn judge<'u>(
        &'u self,
        read: &Read,
        index: usize,
        (direct, bounded): (bool, bool),
        apart: Apart,
        uses: &dyn Deref<Target = Uses<'u>>,
    ) -> Result<bool, &'static str> {
        let facts = &self.nodes[read.node];
        let fact = &self.constants[index].fact;
        let layer = self.layer(read).is_some();
        let operator = facts.node.op_type();
        if operator == "BatchNormalization" && matches!(read.operand, 3 | 4) {
            return Err(STATISTICS);
        }
        if !fact.is_float() {
            let integer = is_quantised(fact) || facts.quantised && fact.dtype == DataType::Int32;
            return if layer && direct && integer { Ok(true) } else { Err(OTHER) };
        }
        match self.constants[index].made_by {
            Some("ConstantOfShape") => return Err(MADE),
            Some("Constant") if apart.weights && !(layer && self.is_beside_stored(read)) => return Err(MADE),
            _ => {}
        }
        // A lone number that is kept in bounds, or apart from the exporter's, is learnt.
        let learnt = bounded || apart.floats && self.constants[index].made_by.is_none();
        let shown =
            SHOWN.contains(&operator).then(|| uses.shows(self, read.node, read.operand, fact)).flatten();
        match shown {
            Some(SCALE) if learnt => {}
            Some(why) => return Err(why),
            None => {}
        }
        let lone = fact.rank() == Some(0);
        match layer {
            true if lone && !apart.floats => Err(LONE),
            true => Ok(false),
            false if !PLAIN.contains(&operator) => Err(OTHER),
            false if apart.floats => Ok(false),
            false if !LIKELY.contains(&operator) => Err(OTHER),
            false if lone && !bounded => Err(LONE),
            false => Ok(false),
        }
    }
}

impl Constant {
    /// What it is: as a parameter that is no float initializer, or as a constant that is no parameter.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (self.is_weight, self.made_by) {
            (false, _) => self.left_out.unwrap_or(UNREAD),
            (true, Some("DequantizeLinear")) => "quantised tensors, as nodes dequantise them",
            (true, Some(_)) => "floats of Constant nodes",
            (true, None) if !self.fact.is_float() => "quantised tensors",
            (true, None) => "tensors of bodies and sparse ones",
        }
    }
}

/// What no node reads beside data.
const UNREAD: &str = "tensors that meet no data";

/// Whether a file tells what was learnt from what its exporter made.
#[derive(Clone, Copy)]
struct Apart {
    /// `Constant` nodes hold none of the weights.
    weights: bool,
    /// There are such nodes that hold floats.
    floats: bool,
}

/// What names mean as far as constants and shapes alone decide it.
struct Names<'f, 'a> {
    values: HashMap<(usize, &'f str), usize>,
    /// The step of each constant; 0 where there is none yet.
    constants: Vec<usize>,
    found: &'f Inference<'a>,
}

impl Names<'_, '_> {
    fn constant(&mut self, index: usize, made: &mut Vec<Made>) -> usize {
        if self.constants[index] == 0 {
            made.push(Made::Constant(index));
            self.constants[index] = made.len() - 1;
        }
        self.constants[index]
    }

    /// How a value is made; `None` where data decide it.
    fn of(&mut self, scope: usize, name: &str, made: &mut Vec<Made>) -> Option<usize> {
        let mut at = scope;
        loop {
            if let Some(step) = self.values.get(&(at, name)) {
                return Some(*step);
            }
            let body = self.found.body(at);
            let values = body.map_or(&self.found.values, |body| &body.values);
            if let Some(fact) = values.get(name) {
                return match self.found.sources.get(fact.source?)? {
                    Source::Constant(index) => Some(self.constant(*index, made)),
                    Source::Computed(_) => Some(0),
                };
            }
            match body {
                Some(body) if body.call.is_none() => at = body.around,
                _ => return None,
            }
        }
    }
}

/// The constants that a value is made of.
fn behind(made: &[Made], at: usize) -> Behind {
    let mut seen = std::collections::HashSet::new();
    let mut open = vec![(at, true, false)];
    let mut found = Vec::new();
    while let Some((at, direct, bounded)) = open.pop() {
        if !seen.insert(at) {
            continue;
        }
        match &made[at] {
            Made::Nothing => {}
            Made::Constant(index) => found.push((*index, direct, bounded)),
            Made::Several(parts) => open.extend(parts.iter().map(|&part| (part, false, bounded))),
            Made::Bounded(part) => open.push((*part, false, true)),
        }
    }
    found
}
