//! One walk over a graph: the fact of every value, the work of every node.
//!
//! The walk enters what nodes hold: model-local functions at each call, the bodies of If, Loop,
//! Scan and SequenceMap. A node in a body has the path of that body and its multiplicity, how
//! often it runs; its cost is that of all turns. What the file says of its inner values and
//! outputs is not believed: [`Inference::contradictions`] lists where it is wrong.
//!
//! The file is a third party's: the walk visits a bounded number of nodes, bodies nest to a bounded
//! depth, and each node takes time in proportion to its own size.

mod claims;
mod control;
mod function;
mod order;
mod outputs;
mod parameters;
mod reasons;
mod source;
mod uses;
mod values;
mod walk;

pub use order::order;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_proto::tensor_proto::DataType;
use emo_proto::text::label;
use emo_proto::{FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};

pub use claims::Contradiction;
pub use outputs::Outputs;
pub use source::Source;
pub use values::Values;

use crate::cost::{Cost, Work};
use crate::fact::Fact;
use crate::hash::HashSet;
use crate::ops::Arguments;
use crate::sym::Expr;
use crate::typed::of_type;

/// Numbers for named dimensions: `batch` → 1. Axis 2 of the input `images` is `images.2`,
/// whatever the file calls it; the element of the input `rate`, an integer, is `rate`.
pub type Bindings = BTreeMap<String, i64>;

/// A constant of the graph: an initializer, or the output of a node that makes one.
#[derive(Debug, Clone)]
pub struct Constant {
    pub name: String,
    pub fact: Fact,
    /// Whether it is a parameter.
    pub is_weight: bool,
    /// How many operands of nodes read it as one.
    pub readers: usize,
    /// What it is where it meets data and is no parameter.
    pub left_out: Option<&'static str>,
    /// Whether scores of attention have it added to them.
    pub is_bias_of_scores: bool,
    /// The operator that makes it, if the file does not store it as a tensor.
    pub made_by: Option<&'static str>,
    /// How many parameters it holds as a weight: its elements, or what is packed into them.
    pub parameters: Expr,
}

/// What is known of a node.
#[derive(Debug)]
pub struct NodeFacts<'a> {
    pub node: &'a NodeProto,
    /// The bodies and functions that the node lies in, `loop_1/body/`; empty in the main graph.
    pub path: Arc<str>,
    /// Which entry of a body or function the node is part of; 0 in the main graph.
    pub scope: usize,
    /// Version of the operator set that the node belongs to.
    pub opset: i64,
    pub outputs: Outputs,
    /// What the node does each time that it runs.
    pub work: Arc<Work>,
    /// How often it runs.
    pub multiplicity: Expr,
    /// Where the places of its operands begin, for a node of the main graph.
    operands: u32,
    /// What it costs, all times together.
    pub cost: Arc<Cost>,
    /// What few nodes have.
    said: Option<Box<Said>>,
    /// Whether it computes on quantised numbers.
    quantised: bool,
    /// Whether its operands contradict it: then it cannot run.
    impossible: bool,
}

/// What is to be said of a node's count.
#[derive(Debug, Default)]
struct Said {
    /// The constants that are parameters of this node and of none before, by index.
    weights: Vec<usize>,
    problem: Option<String>,
    note: Option<String>,
}

impl NodeFacts<'_> {
    /// The constants that are parameters of this node and of none before, by index.
    #[must_use]
    pub fn weights(&self) -> &[usize] {
        self.said.as_ref().map_or(&[], |said| &said.weights)
    }

    /// Why the node cannot be counted.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.said.as_ref()?.problem.as_deref()
    }

    /// What was decided about it that a reader of its count should know.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.said.as_ref()?.note.as_deref()
    }

    /// The facts of what it writes.
    pub fn written(&self) -> impl Iterator<Item = &Fact> {
        self.outputs.iter().map(AsRef::as_ref)
    }

    /// Where the node is: its path and its name, or its operator and output where it has no name.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}{}", self.path, label(self.node))
    }
}

/// A graph within a node, or a function, each time that it is entered.
#[derive(Debug)]
pub struct Body<'a> {
    /// As the path of its nodes.
    pub path: Arc<str>,
    /// As the scope of its nodes.
    pub scope: usize,
    /// The scope of the node that holds or calls it.
    pub around: usize,
    /// That node, by index.
    pub holder: usize,
    /// Its own nodes and those of bodies within it, by index.
    pub nodes: Range<usize>,
    /// The function that it is, and the attributes that it is called with; `None` for a graph.
    pub call: Option<(&'a FunctionProto, Arguments<'a>)>,
    /// What declares its values; a function declares them in its own list.
    pub graph: Option<&'a GraphProto>,
    pub value_info: &'a [ValueInfoProto],
    pub values: Values<'a>,
}

/// Everything that the walk found; nodes in the order in which they run, a body's after its node.
#[derive(Debug)]
pub struct Inference<'a> {
    /// The values of the main graph.
    pub values: Values<'a>,
    pub nodes: Vec<NodeFacts<'a>>,
    pub constants: Vec<Constant>,
    /// What values are made of that constants alone decide.
    pub sources: Vec<Source>,
    pub bodies: Vec<Body<'a>>,
    /// Which body each scope is.
    by_scope: HashMap<usize, usize>,
    /// Nodes of branches that are never taken whose operands contradict them, and why.
    pub dead: Vec<(&'a NodeProto, String)>,
    graph: Option<&'a GraphProto>,
    /// The places of what the nodes of the main graph read and write, so that each name is looked up once.
    operands: Vec<u32>,
}

impl<'a> Inference<'a> {
    /// The main graph.
    #[must_use]
    pub fn graph(&self) -> Option<&'a GraphProto> {
        self.graph
    }
}
/// The place of a value that has none yet.
const NOWHERE: u32 = u32::MAX;

/// Walks a model with the named dimensions that `bindings` fixes.
#[must_use]
pub fn infer<'a>(model: &'a ModelProto, bindings: &Bindings) -> Inference<'a> {
    walk::walk(model, &External::none(), bindings)
}

/// The same for a file: shapes that it keeps in external data are read where they are there.
#[must_use]
pub fn infer_file<'a>(file: &'a OnnxFile, bindings: &Bindings) -> Inference<'a> {
    walk::walk(&file.model, &file.external, bindings)
}

/// The fact that a graph input declares.
pub fn declared(input: &ValueInfoProto, bindings: &Bindings) -> Fact {
    let Some(r#type) = &input.r#type else {
        return Fact::unknown(DataType::Undefined, "the input declares no type");
    };
    let fact = of_type(r#type, input.name());
    let axis = |axis: usize| bindings.get(&format!("{}.{axis}", input.name())).copied();
    let dims = match fact.dims {
        Ok(dims) => {
            let named = |name: &str| bindings.get(name).copied();
            let bound = |(i, dim): (usize, Expr)| axis(i).map_or_else(|| dim.with(&named), Expr::Number);
            Ok(dims.into_iter().enumerate().map(bound).collect())
        }
        // Extents that the caller gives for an input that declares none.
        Err(reason) => {
            let given: Vec<Expr> = (0..).map_while(axis).map(Expr::Number).collect();
            if given.is_empty() { Err(reason) } else { Ok(given) }
        }
    };
    let fact = Fact { dims, ..fact };
    let element = bindings.get(input.name()).filter(|_| fact.is_integer() || fact.dtype == DataType::Bool);
    let element = element.map(|&n| vec![n.into()]);
    fact.holding(element)
}

impl<'a> Inference<'a> {
    /// The body of a scope; none for the main graph.
    #[must_use]
    pub fn body(&self, scope: usize) -> Option<&Body<'a>> {
        self.by_scope.get(&scope).map(|&index| &self.bodies[index])
    }

    /// The place among `values`, those of its scope, of what a node reads.
    pub(crate) fn read_at(&self, facts: &NodeFacts, operand: usize, values: &Values) -> Option<usize> {
        self.place(facts, operand, &facts.node.input[operand], values)
    }

    /// The same of what it writes.
    pub(crate) fn written_at(&self, facts: &NodeFacts, output: usize, values: &Values) -> Option<usize> {
        self.place(facts, facts.node.input.len() + output, &facts.node.output[output], values)
    }

    fn place(&self, facts: &NodeFacts, index: usize, name: &str, values: &Values) -> Option<usize> {
        match facts.scope {
            0 => Some(self.operands[facts.operands as usize + index]).filter(|place| *place != NOWHERE),
            _ => None,
        }
        .map_or_else(|| values.position(name), |place| Some(place as usize))
    }

    /// The highest rank of any value, and a value that has it.
    #[must_use]
    pub fn highest_rank(&self) -> Option<(usize, &'a str)> {
        let outputs = self.nodes.iter().flat_map(|n| n.node.output.iter().zip(n.written()));
        outputs.filter_map(|(name, fact)| Some((fact.rank()?, name.as_str()))).max_by_key(|(rank, _)| *rank)
    }
}

/// Inputs that the graph does not give a value to itself.
pub fn inputs(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    let given: HashSet<&str> = graph.initializer.iter().map(emo_proto::TensorProto::name).collect();
    graph.input.iter().filter(move |input| !given.contains(input.name()))
}
