//! One walk over a graph: the fact of every value, the work of every node.

use std::collections::{BTreeMap, HashMap};

use emo_proto::tensor_shape_proto::dimension;
use emo_proto::{ModelProto, NodeProto, TypeProto, ValueInfoProto, tensor_proto::DataType, type_proto};

use crate::cost::{Cost, Work};
use crate::fact::Fact;
use crate::ops::{self, Ctx};
use crate::sym::Expr;

/// Numbers for named dimensions: `batch` → 1.
pub type Bindings = BTreeMap<String, i64>;

/// A constant of the graph: an initializer, or the output of a `Constant` node.
#[derive(Debug, Clone)]
pub struct Constant {
    pub name: String,
    pub fact: Fact,
    /// Whether a weight operand reads it.
    pub is_weight: bool,
}

/// What is known of a node.
#[derive(Debug)]
pub struct NodeFacts<'a> {
    pub node: &'a NodeProto,
    pub outputs: Vec<Fact>,
    pub work: Work,
    pub cost: Cost,
    /// The constants that are parameters of this node and of none before, by index.
    pub weights: Vec<usize>,
    /// Why the node cannot be counted.
    pub problem: Option<String>,
}

/// Everything that the walk found, nodes in file order.
#[derive(Debug)]
pub struct Inference<'a> {
    pub values: HashMap<&'a str, Fact>,
    pub nodes: Vec<NodeFacts<'a>>,
    pub constants: Vec<Constant>,
}

/// Walks the main graph with the named dimensions that `bindings` fixes.
#[must_use]
pub fn infer<'a>(model: &'a ModelProto, bindings: &Bindings) -> Inference<'a> {
    let mut walk = Inference { values: HashMap::new(), nodes: Vec::new(), constants: Vec::new() };
    let Some(graph) = &model.graph else { return walk };
    for input in &graph.input {
        walk.values.insert(input.name(), declared(input, bindings));
    }
    for initializer in &graph.initializer {
        let fact = walk.constant(initializer.name(), Ctx::tensor(initializer));
        walk.values.insert(initializer.name(), fact);
    }
    let opsets: HashMap<&str, i64> =
        model.opset_import.iter().map(|set| (set.domain(), set.version())).collect();
    for node in &graph.node {
        let opset = opsets.get(node.domain()).copied().unwrap_or(0);
        walk.visit(node, opset);
    }
    walk
}

/// The fact that a graph input declares.
pub(crate) fn declared(input: &ValueInfoProto, bindings: &Bindings) -> Fact {
    let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &input.r#type else {
        return Fact::unknown(DataType::Undefined, "the input is no tensor");
    };
    let dtype = DataType::try_from(tensor.elem_type()).unwrap_or(DataType::Undefined);
    let Some(shape) = &tensor.shape else {
        return Fact::unknown(dtype, "the input declares no shape");
    };
    let dim = |(axis, dim): (usize, &emo_proto::tensor_shape_proto::Dimension)| match &dim.value {
        Some(dimension::Value::DimValue(n)) => Expr::Number(*n),
        Some(dimension::Value::DimParam(name)) if !name.is_empty() => {
            bindings.get(name).map_or_else(|| Expr::symbol(name), |&n| Expr::Number(n))
        }
        _ => Expr::symbol(&format!("{}.{axis}", input.name())),
    };
    Fact::new(dtype, shape.dim.iter().enumerate().map(dim).collect())
}

impl<'a> Inference<'a> {
    fn constant(&mut self, name: &str, fact: Fact) -> Fact {
        let fact = Fact { leaves: Some([self.constants.len()].into()), ..fact };
        self.constants.push(Constant { name: name.to_owned(), fact: fact.clone(), is_weight: false });
        fact
    }

    fn visit(&mut self, node: &'a NodeProto, opset: i64) {
        let undefined = |name: &str| Fact::unknown(DataType::Undefined, &format!("{name} is never written"));
        let operand = |name: &String| {
            (!name.is_empty())
                .then(|| self.values.get(name.as_str()).cloned().unwrap_or_else(|| undefined(name)))
        };
        let inputs: Vec<Option<Fact>> = node.input.iter().map(operand).collect();
        let ctx = Ctx { node, opset, inputs: &inputs };
        let row = ops::find(node.domain(), node.op_type());
        let ruled = match row {
            Some(row) => {
                (row.rule)(&ctx).and_then(|outputs| (row.work)(&ctx, &outputs).map(|work| (outputs, work)))
            }
            None => Err(format!("{} {} is no operator that is known here", node.domain(), node.op_type())),
        };
        let (mut outputs, work, mut problem) = match ruled {
            Ok((outputs, work)) => (outputs, work, None),
            Err(why) => (Vec::new(), Work::Free, Some(why)),
        };
        outputs
            .resize(node.output.len(), Fact::unknown(DataType::Undefined, &format!("after {}", node.name())));
        self.trace(node, &inputs, &mut outputs);
        let cost = Cost::of(&work);
        if problem.is_none() && !cost.fvcore.is_known() {
            let reasons: Vec<_> = cost.fvcore.reasons().iter().map(ToString::to_string).collect();
            problem = Some(reasons.join("; "));
        }
        let weights = row.map_or(Vec::new(), |row| self.weights(row, &inputs));
        for (name, fact) in node.output.iter().zip(&outputs) {
            self.values.insert(name, fact.clone());
        }
        self.nodes.push(NodeFacts { node, outputs, work, cost, weights, problem });
    }

    /// Outputs that constants alone decide are made of the same constants.
    fn trace(&mut self, node: &NodeProto, inputs: &[Option<Fact>], outputs: &mut [Fact]) {
        if node.op_type() == "Constant" {
            for (name, output) in node.output.iter().zip(outputs) {
                *output = self.constant(name, output.clone());
            }
            return;
        }
        let leaves: Option<Vec<usize>> = inputs.iter().flatten().try_fold(Vec::new(), |mut all, fact| {
            all.extend(fact.leaves.as_ref()?.iter());
            Some(all)
        });
        if let Some(leaves) = leaves.filter(|leaves| !leaves.is_empty()) {
            outputs.iter_mut().for_each(|o| o.leaves = Some(leaves.as_slice().into()));
        }
    }

    /// The float constants behind the row's weight operands that no node before read as such.
    /// A lone number is none: it scales, it is not learnt.
    fn weights(&mut self, row: &ops::Row, inputs: &[Option<Fact>]) -> Vec<usize> {
        let operands = row.weights.iter().filter_map(|&i| inputs.get(i)?.as_ref());
        let all_constant = inputs.iter().flatten().all(|fact| fact.leaves.is_some());
        let mut found = Vec::new();
        for &leaf in operands.filter(|_| !all_constant).filter_map(|fact| fact.leaves.as_deref()).flatten() {
            let constant = &mut self.constants[leaf];
            let lone = constant.fact.rank() == Some(0);
            if constant.fact.is_float() && !lone && !std::mem::replace(&mut constant.is_weight, true) {
                found.push(leaf);
            }
        }
        found
    }

    /// The highest rank of any value, and a value that has it.
    #[must_use]
    pub fn highest_rank(&self) -> Option<(usize, &'a str)> {
        let outputs = self.nodes.iter().flat_map(|n| n.node.output.iter().zip(&n.outputs));
        outputs.filter_map(|(name, fact)| Some((fact.rank()?, name.as_str()))).max_by_key(|(rank, _)| *rank)
    }
}
