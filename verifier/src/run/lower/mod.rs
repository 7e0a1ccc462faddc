//! Fused and integer operators written as the ones that they stand for.
//!
//! ONNX Runtime's optimiser and quantisers write a sum of operators as one: `QLinearConv` is by definition a
//! convolution of dequantised operands whose result is quantised again, `FusedMatMul` a product of transposed
//! factors. Written out, what reads graphs (recognition, recovery, the first divergence) needs to know the plain
//! operators alone. The function is the same, and so are the places at which it rounds to integers.

mod fused;
mod quantised;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use emo_proto::attribute_proto::AttributeType;
use emo_proto::tensor::Tensor;
use emo_proto::{AttributeProto, GraphProto, ModelProto, NodeProto};

use crate::infer::{Bindings, infer};

/// An operator, and the nodes that one of it stands for; `None` where the node asks for something that has no plain
/// spelling here, and stays.
struct Row {
    operator: &'static str,
    domain: &'static str,
    plain: fn(&mut Writer, &NodeProto) -> Option<()>,
}

const MICROSOFT: &str = "com.microsoft";

const ROWS: &[Row] = &[
    Row { operator: "FusedConv", domain: MICROSOFT, plain: fused::conv },
    Row { operator: "FusedGemm", domain: MICROSOFT, plain: fused::gemm },
    Row { operator: "FusedMatMul", domain: MICROSOFT, plain: fused::matmul },
    Row { operator: "ConvInteger", domain: "", plain: quantised::integer_product },
    Row { operator: "MatMulInteger", domain: "", plain: quantised::integer_product },
    Row { operator: "DynamicQuantizeMatMul", domain: MICROSOFT, plain: quantised::dynamic_matmul },
    Row { operator: "MatMulIntegerToFloat", domain: MICROSOFT, plain: quantised::matmul_to_float },
    Row { operator: "QLinearConv", domain: "", plain: quantised::conv },
    Row { operator: "QLinearMatMul", domain: "", plain: quantised::matmul },
    Row { operator: "QGemm", domain: MICROSOFT, plain: quantised::gemm },
    Row { operator: "QLinearAdd", domain: MICROSOFT, plain: quantised::binary },
    Row { operator: "QLinearMul", domain: MICROSOFT, plain: quantised::binary },
    Row { operator: "QLinearSigmoid", domain: MICROSOFT, plain: quantised::unary },
    Row { operator: "QLinearLeakyRelu", domain: MICROSOFT, plain: quantised::unary },
    Row { operator: "QLinearSoftmax", domain: MICROSOFT, plain: quantised::unary },
    Row { operator: "QLinearAveragePool", domain: MICROSOFT, plain: quantised::unary },
    Row { operator: "QLinearGlobalAveragePool", domain: MICROSOFT, plain: quantised::unary },
    Row { operator: "QLinearReduceMean", domain: MICROSOFT, plain: quantised::unary },
    Row { operator: "QLinearConcat", domain: MICROSOFT, plain: quantised::concat },
];

fn row(node: &NodeProto) -> Option<&'static Row> {
    let domain = if node.domain() == "ai.onnx" { "" } else { node.domain() };
    ROWS.iter().find(|row| row.operator == node.op_type() && row.domain == domain)
}

/// The model with every node of the table in plain operators; borrowed where there is none. Bodies and functions
/// stay as they are.
#[must_use]
pub fn lower<'a>(model: &'a ModelProto, bindings: &Bindings) -> Cow<'a, ModelProto> {
    let Some(graph) = model.graph.as_ref().filter(|graph| graph.node.iter().any(|n| row(n).is_some())) else {
        return Cow::Borrowed(model);
    };
    let inference = infer(model, bindings);
    let ranks = inference.values.iter().filter_map(|(name, fact)| Some((name, fact.rank()?))).collect();
    let mut writer = Writer::new(graph, ranks);
    for (at, node) in graph.node.iter().enumerate() {
        if writer.gone.contains(&at) {
            continue;
        }
        let before = writer.nodes.len();
        if row(node).and_then(|row| (row.plain)(&mut writer, node)).is_none() {
            writer.nodes.truncate(before);
            writer.nodes.push(node.clone());
        }
    }
    let Writer { nodes, tensors, .. } = writer;
    let mut lowered = model.clone();
    if let Some(graph) = &mut lowered.graph {
        graph.node = nodes;
        graph.initializer.extend(tensors);
    }
    Cow::Owned(lowered)
}

/// The graph as it is written anew.
struct Writer<'a> {
    graph: &'a GraphProto,
    ranks: HashMap<&'a str, usize>,
    /// The nodes that read a value, and the one that writes it, by index.
    readers: HashMap<&'a str, Vec<usize>>,
    writers: HashMap<&'a str, usize>,
    outputs: HashSet<&'a str>,
    nodes: Vec<NodeProto>,
    tensors: Vec<emo_proto::TensorProto>,
    /// Nodes that are part of one before them, by index.
    gone: HashSet<usize>,
    /// No name of the graph begins with it.
    mark: String,
    fresh: usize,
}

impl<'a> Writer<'a> {
    fn new(graph: &'a GraphProto, ranks: HashMap<&'a str, usize>) -> Self {
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut writers = HashMap::new();
        for (at, node) in graph.node.iter().enumerate() {
            node.input.iter().for_each(|name| readers.entry(name).or_default().push(at));
            node.output.iter().for_each(|name| {
                writers.entry(name.as_str()).or_insert(at);
            });
        }
        let outputs = graph.output.iter().map(emo_proto::ValueInfoProto::name).collect();
        Self {
            graph,
            ranks,
            readers,
            writers,
            outputs,
            nodes: Vec::new(),
            tensors: Vec::new(),
            gone: HashSet::new(),
            mark: mark(graph),
            fresh: 0,
        }
    }

    /// The only node that reads a value, if it is one that the graph does not give out.
    fn sole_reader(&self, value: &str) -> Option<(usize, &'a NodeProto)> {
        match self.readers.get(value).map(Vec::as_slice) {
            Some(&[at]) if !self.outputs.contains(value) => Some((at, &self.graph.node[at])),
            _ => None,
        }
    }

    fn writer(&self, value: &str) -> Option<&'a NodeProto> {
        self.writers.get(value).map(|&at| &self.graph.node[at])
    }

    /// A value of its own.
    fn value(&mut self) -> String {
        self.fresh += 1;
        format!("{}{}", self.mark, self.fresh)
    }

    /// A constant of one float.
    fn number(&mut self, x: f32) -> Option<String> {
        let name = self.value();
        self.tensors.push(Tensor::from_f32(Vec::new(), vec![x]).ok()?.encode(&name));
        Some(name)
    }

    /// Adds a node that stands for `of`, and whose name says so; returns what it writes.
    fn node(&mut self, of: &NodeProto, operator: &str, inputs: &[&str], with: Vec<AttributeProto>) -> String {
        let output = self.value();
        self.write(of, operator, inputs, &output, with);
        output
    }

    /// The same for a given output.
    fn write(
        &mut self,
        of: &NodeProto,
        operator: &str,
        inputs: &[&str],
        output: &str,
        with: Vec<AttributeProto>,
    ) {
        self.nodes.push(NodeProto {
            name: Some(of.name().to_owned()),
            op_type: Some(operator.into()),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: with,
            ..NodeProto::default()
        });
    }
}

/// A text that no name of the graph starts with: names behind it are new.
pub(crate) fn mark(graph: &GraphProto) -> String {
    fn longest(graph: &GraphProto) -> usize {
        let tildes = |name: &str| name.bytes().take_while(|&b| b == b'~').count();
        let declared = graph.input.iter().map(|v| tildes(v.name()));
        let constants = graph.initializer.iter().map(|t| tildes(t.name()));
        let sparse = graph.sparse_initializer.iter().flat_map(|s| &s.values).map(|t| tildes(t.name()));
        let values = graph.node.iter().flat_map(|n| &n.output).map(|name| tildes(name));
        let bodies = graph
            .node
            .iter()
            .flat_map(|n| &n.attribute)
            .flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs));
        let names = declared.chain(constants).chain(sparse).chain(values);
        names.chain(bodies.map(longest)).max().unwrap_or(0)
    }
    "~".repeat(longest(graph) + 1)
}

/// The value that an operand of a node names; `None` where it is left out.
fn operand(node: &NodeProto, index: usize) -> Option<&str> {
    node.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
}

/// The attributes of a node that are among `names`.
fn attributes(node: &NodeProto, names: &[&str]) -> Vec<AttributeProto> {
    node.attribute.iter().filter(|a| names.contains(&a.name())).cloned().collect()
}

fn integer(node: &NodeProto, name: &str, default: i64) -> i64 {
    node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.i).unwrap_or(default)
}

fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.f).unwrap_or(default)
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int.into()),
        i: Some(value),
        ..AttributeProto::default()
    }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Ints.into()),
        ints: values.iter().map(|&v| v as i64).collect(),
        ..AttributeProto::default()
    }
}
