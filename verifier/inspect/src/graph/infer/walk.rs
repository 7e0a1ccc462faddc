//! The walk itself: scopes, and a visit a node.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use emo_proto::tensor::External;
use emo_proto::tensor_proto::DataType;
use emo_proto::text::label;
use emo_proto::{
    FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto, ValueInfoProto,
};

use super::{Bindings, Body, Inference, NOWHERE, NodeFacts, Outputs, Said, Values, declared, order, source};
use crate::cost::{Cost, Work};
use crate::fact::{Fact, Kind};
use crate::ops::{self, Arguments, Ctx, Why};
use crate::recent::Recent;
use crate::sym::Expr;

/// Visits to nodes of bodies and functions, beyond which a file is held to be a trap: for each node that the
/// file has, beyond, and ever.
const MOST_VISITS: [usize; 3] = [16, 1 << 15, 1 << 18];
/// Bytes of names and paths that are as dear as a visit.
const NAMES: usize = 256;
/// Bodies within bodies, beyond what protobuf lets a file nest.
const MOST_SCOPES: usize = 64;
/// Axes, beyond which no engine goes.
const MOST_AXES: usize = 255;
/// Elements and formulas, by their weight, that are followed in a graph: for each node, and beyond.
const FOLLOWED: (usize, usize) = (64, 1 << 22);
/// What an item of a sequence weighs beside an element.
const ITEM: usize = 8;

pub(super) type Opsets<'a> = Rc<HashMap<&'a str, i64>>;

/// Where names have a meaning.
pub(super) struct Scope<'a> {
    pub values: Values<'a>,
    /// Parameters of a function that its caller leaves out.
    pub absent: HashSet<&'a str>,
    /// Whether the names around are seen: in bodies, not in functions.
    pub captures: bool,
    pub opsets: Opsets<'a>,
    pub arguments: Rc<Arguments<'a>>,
    pub path: Arc<str>,
    /// How often its nodes run.
    pub multiplicity: Expr,
    /// Which entry of a body this is; 0 is the main graph.
    pub id: usize,
    /// The node that is visited, by index.
    pub at: usize,
}

pub(super) struct Walk<'a, 'e> {
    pub external: &'e External,
    pub functions: HashMap<(&'a str, &'a str, &'a str), &'a FunctionProto>,
    /// The functions that are being called, the innermost last.
    pub calls: Vec<*const FunctionProto>,
    pub scopes: Vec<Scope<'a>>,
    pub found: Inference<'a>,
    /// Constants by the address of the message that makes them: one that is met again is the same.
    known: HashMap<*const (), Fact>,
    /// Bodies that were entered.
    entered: usize,
    /// Visits to nodes of bodies that are left.
    left: usize,
    most: usize,
    /// Elements and parts of formulas that are left to follow.
    follow: usize,
    /// The last facts, works and costs that were new.
    facts: Recent<Fact>,
    works: Recent<Work>,
    costs: Recent<Cost>,
    /// An extent that is not followed.
    unfollowed: Expr,
    /// What most nodes do, and what it costs.
    free: Arc<Work>,
    nothing: Arc<Cost>,
}

pub(super) fn walk<'a>(model: &'a ModelProto, external: &External, bindings: &Bindings) -> Inference<'a> {
    let graph = model.graph.as_ref();
    let found = Inference {
        values: Values::default(),
        nodes: Vec::with_capacity(graph.map_or(0, |graph| graph.node.len())),
        constants: Vec::new(),
        sources: Vec::new(),
        bodies: Vec::new(),
        by_scope: HashMap::new(),
        dead: Vec::new(),
        graph,
        operands: Vec::new(),
    };
    let functions =
        model.functions.iter().map(|f| ((domain(f.domain()), f.name(), f.overload()), f)).collect();
    let most = most_visits(model);
    let mut walk = Walk {
        external,
        functions,
        calls: Vec::new(),
        scopes: Vec::new(),
        found,
        known: HashMap::new(),
        entered: 0,
        left: most,
        most,
        follow: FOLLOWED.1 + FOLLOWED.0 * graph.map_or(0, |graph| graph.node.len()),
        facts: Recent::default(),
        works: Recent::default(),
        costs: Recent::default(),
        unfollowed: Expr::unknown("more formulas than the graph has nodes for"),
        free: Arc::default(),
        nothing: Arc::default(),
    };
    if let Some(graph) = graph {
        walk.scopes.push(Scope {
            values: Values::with_capacity(graph.input.len() + graph.initializer.len() + graph.node.len()),
            absent: HashSet::new(),
            captures: false,
            opsets: opsets(&model.opset_import),
            arguments: Rc::default(),
            path: "".into(),
            multiplicity: 1.into(),
            id: 0,
            at: 0,
        });
        for input in &graph.input {
            let mut fact = declared(input, bindings);
            // An input that no tensor can be is unknown; the node that needs it says so.
            let _ = walk.bound(&mut fact);
            let fact = walk.shared(&[], fact);
            walk.scope().values.insert(input.name(), fact);
        }
        walk.constants(graph);
        walk.nodes(&graph.node);
        walk.found.values = walk.scopes.pop().map(|scope| scope.values).unwrap_or_default();
    }
    let by_scope = walk.found.bodies.iter().enumerate().map(|(index, body)| (body.scope, index)).collect();
    walk.found.by_scope = by_scope;
    walk.found.find_weights();
    walk.found
}

/// Visits to what nodes hold and call: in proportion to the file, which may be small and multiply.
fn most_visits(model: &ModelProto) -> usize {
    fn count(nodes: &[NodeProto]) -> usize {
        let attributes = nodes.iter().flat_map(|node| &node.attribute);
        let bodies = attributes.flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs));
        nodes.len() + bodies.map(|body| count(&body.node)).sum::<usize>()
    }
    let [each, more, most] = MOST_VISITS;
    let graph = model.graph.iter().map(|graph| count(&graph.node)).sum::<usize>();
    let nodes = graph + model.functions.iter().map(|function| count(&function.node)).sum::<usize>();
    (each * nodes + more).min(most.max(2 * nodes))
}

/// `ai.onnx` is another name for the domain without one.
pub(super) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

pub(super) fn opsets(imports: &[OperatorSetIdProto]) -> Opsets<'_> {
    let mut opsets = HashMap::new();
    for set in imports {
        // A domain that is imported several times is bound to the highest version.
        let version = opsets.entry(domain(set.domain())).or_insert(set.version());
        *version = set.version().max(*version);
    }
    Rc::new(opsets)
}

/// How a node was seen, before it has a place in the list.
pub(super) struct Visit {
    pub outputs: Vec<Fact>,
    pub work: Work,
    pub problem: Option<String>,
    pub note: Option<String>,
    /// Whether the operands contradict the node.
    pub impossible: bool,
}

/// What a node holds or calls.
#[derive(Clone, Copy)]
pub(super) enum Held<'a> {
    Graph(&'a GraphProto),
    Function(&'a FunctionProto),
}

impl<'a> Held<'a> {
    fn nodes(self) -> &'a [NodeProto] {
        match self {
            Held::Graph(graph) => &graph.node,
            Held::Function(function) => &function.node,
        }
    }

    fn value_info(self) -> &'a [ValueInfoProto] {
        match self {
            Held::Graph(graph) => &graph.value_info,
            Held::Function(function) => &function.value_info,
        }
    }

    fn graph(self) -> Option<&'a GraphProto> {
        if let Held::Graph(graph) = self { Some(graph) } else { None }
    }

    fn function(self) -> Option<&'a FunctionProto> {
        if let Held::Function(function) = self { Some(function) } else { None }
    }
}

impl<'a> Walk<'a, '_> {
    pub(super) fn scope(&mut self) -> &mut Scope<'a> {
        self.scopes.last_mut().expect("there is a scope as long as nodes are visited")
    }

    pub(super) fn lookup(&self, name: &str) -> Option<Arc<Fact>> {
        self.placed(name).1
    }

    /// What is known of a value, and its place in the scope that has it.
    fn placed(&self, name: &str) -> (u32, Option<Arc<Fact>>) {
        for scope in self.scopes.iter().rev() {
            if let Some((place, fact)) = scope.values.shared(name) {
                return (place as u32, Some(fact.clone()));
            }
            if scope.absent.contains(name) {
                return (NOWHERE, None);
            }
            if !scope.captures {
                break;
            }
        }
        let why = format!("{name} is not written before it is read");
        (NOWHERE, Some(Arc::new(Fact::unknown(DataType::Undefined, &why))))
    }

    /// Initializers of a graph.
    fn constants(&mut self, graph: &'a GraphProto) {
        for tensor in &graph.initializer {
            let fact = self.constant(std::ptr::from_ref(tensor).cast(), tensor.name(), |walk| {
                Ctx::tensor_in(tensor, walk.external)
            });
            self.scope().values.insert(tensor.name(), Arc::new(fact));
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |values| values.name());
            let fact = self.constant(std::ptr::from_ref(sparse).cast(), name, |_| dense(sparse));
            self.scope().values.insert(name, Arc::new(fact));
        }
    }

    /// The constant that a message makes, however often the walk comes by.
    fn constant(&mut self, message: *const (), name: &str, fact: impl FnOnce(&Self) -> Fact) -> Fact {
        if let Some(known) = self.known.get(&message) {
            return known.clone();
        }
        let mut fact = fact(self);
        let _ = self.bound(&mut fact);
        let fact = self.found.constant(name, fact);
        self.known.insert(message, fact.clone());
        fact
    }

    fn nodes(&mut self, nodes: &'a [NodeProto]) {
        match order(nodes) {
            None => nodes.iter().for_each(|node| self.visit(node)),
            Some(sorted) => sorted.into_iter().for_each(|node| self.visit(node)),
        }
    }

    /// Walks what a node holds, in a scope of its own; the facts of `outputs`, in order.
    pub(super) fn enter(
        &mut self,
        scope: Scope<'a>,
        held: Held<'a>,
        outputs: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<Fact>, Why> {
        if self.scopes.len() >= MOST_SCOPES {
            return Err(format!("bodies nest deeper than {MOST_SCOPES}"));
        }
        let nodes = held.nodes();
        // A body that is too large is not even looked at: it may be entered as often as there are nodes.
        let left = self.left.checked_sub(nodes.len()).and_then(|left| {
            let names = nodes.iter().map(|node| scope.path.len() + label(node).len()).sum::<usize>();
            left.checked_sub(names / NAMES)
        });
        self.left = left.ok_or_else(|| {
            format!("its bodies and functions come to more than {} nodes when written out", self.most)
        })?;
        let (around, holder) = (self.scope().id, self.scope().at);
        self.entered += 1;
        let start = self.found.nodes.len();
        let call = held.function().map(|function| (function, (*scope.arguments).clone()));
        self.scopes.push(Scope { id: self.entered, ..scope });
        if let Held::Graph(graph) = held {
            self.constants(graph);
        }
        self.nodes(nodes);
        let absent = || Fact::unknown(DataType::Undefined, "an operand that is left out");
        let facts = outputs.map(|name| self.lookup(name).map_or_else(absent, Arc::unwrap_or_clone)).collect();
        if let Some(Scope { path, id: scope, values, .. }) = self.scopes.pop() {
            let nodes = start..self.found.nodes.len();
            let (graph, value_info) = (held.graph(), held.value_info());
            let body = Body { path, scope, around, holder, nodes, call, graph, value_info, values };
            self.found.bodies.push(body);
        }
        Ok(facts)
    }

    fn visit(&mut self, node: &'a NodeProto) {
        let operand = |name: &String| if name.is_empty() { (NOWHERE, None) } else { self.placed(name) };
        let (places, inputs): (Vec<u32>, Vec<_>) = node.input.iter().map(operand).unzip();
        let operands = self.found.operands.len();
        if self.scope().id == 0 {
            self.found.operands.extend(places);
            self.found.operands.resize(operands + node.input.len() + node.output.len(), NOWHERE);
        }
        let scope = self.scope();
        let opset = scope.opsets.get(domain(node.domain())).copied().unwrap_or(0);
        let (path, multiplicity, scope_id) = (scope.path.clone(), scope.multiplicity.clone(), scope.id);
        let arguments = scope.arguments.clone();

        // A body's nodes come after their node.
        let at = self.found.nodes.len();
        self.scope().at = at;
        self.found.nodes.push(NodeFacts {
            node,
            path,
            scope: scope_id,
            opset,
            outputs: Outputs::default(),
            work: self.free.clone(),
            multiplicity,
            operands: operands as u32,
            cost: self.nothing.clone(),
            said: None,
            quantised: false,
            impossible: false,
        });

        let ctx = Ctx {
            node,
            opset,
            inputs: &inputs,
            arguments: &arguments,
            external: self.external,
            blind: Cell::new(false),
        };
        let called = self.function(node);
        let row = if called.is_some() { None } else { ops::find(node.domain(), node.op_type()) };
        let mut visit = match (called, row) {
            (Some(function), _) => self.call(node, &inputs, function),
            (None, Some(row)) => self.control(node, row, &ctx).unwrap_or_else(|| rule(row, &ctx)),
            (None, None) => Visit::failed(unknown_operator(node)),
        };
        let reason = visit.problem.clone().unwrap_or_else(|| format!("{} does not say", label(node)));
        visit.outputs.resize(node.output.len(), Fact::unknown(DataType::Undefined, &reason));
        for output in &mut visit.outputs {
            if let Err(why) = self.bound(output) {
                visit.problem.get_or_insert(why);
            }
        }
        self.trace(node, &inputs, &mut visit.outputs);

        let facts = &mut self.found.nodes[at];
        if !matches!(visit.work, Work::Free) {
            let cost = Cost::of(&visit.work);
            let reasons = cost.reasons();
            if visit.problem.is_none() && !reasons.is_empty() {
                visit.problem = Some(reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
            }
            facts.cost = self.costs.shared(cost.times(&facts.multiplicity));
            facts.work = self.works.shared(visit.work);
        }
        if row.is_some() {
            facts.quantised = inputs.first().and_then(Option::as_deref).is_some_and(source::is_quantised);
        }
        if visit.problem.is_some() || visit.note.is_some() {
            facts.said = Some(Box::new(Said { problem: visit.problem, note: visit.note, ..Said::default() }));
        }
        facts.impossible = visit.impossible;
        let outputs: Outputs = visit.outputs.into_iter().map(|fact| self.shared(&inputs, fact)).collect();
        for (index, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let scope = self.scope();
            let (place, is_main) = (scope.values.insert(name, outputs[index].clone()), scope.id == 0);
            if is_main {
                self.found.operands[operands + node.input.len() + index] = place as u32;
            }
        }
        self.found.nodes[at].outputs = outputs;
    }

    /// The fact, or the same of an operand or a recent node: most values of a graph are alike.
    fn shared(&mut self, inputs: &[Option<Arc<Fact>>], fact: Fact) -> Arc<Fact> {
        match inputs.iter().flatten().find(|known| ***known == fact) {
            Some(known) => known.clone(),
            None => self.facts.shared(fact),
        }
    }

    /// Holds a fact to what a tensor can be, and the walk to memory in proportion to the graph.
    fn bound(&mut self, fact: &mut Fact) -> Result<(), Why> {
        if let Kind::Sequence(sequence) = &fact.kind {
            let items = sequence.items.as_ref().map_or(0, Vec::len);
            match self.follow.checked_sub(ITEM * items) {
                Some(left) => self.follow = left,
                None => *fact = Fact::sequence(sequence.item.clone(), None),
            }
        }
        let Ok(dims) = &fact.dims else { return Ok(()) };
        let refused = if dims.len() > MOST_AXES {
            Some(format!("expected {MOST_AXES} axes at most, found {}", dims.len()))
        } else {
            let negative = dims.iter().find(|dim| dim.number().is_some_and(|n| n < 0));
            negative.map(|_| format!("expected extents of 0 or more, found {dims:?}"))
        };
        if let Some(why) = refused {
            *fact = Fact::unknown(fact.dtype, &why);
            return Err(why);
        }
        let elements = fact.elements.as_deref().unwrap_or_default();
        let formulas = dims.iter().chain(elements).map(Expr::weight).sum::<usize>();
        let size = formulas + elements.len() + fact.reals.as_ref().map_or(0, |reals| reals.len());
        match self.follow.checked_sub(size) {
            Some(left) => self.follow = left,
            None => {
                let dim = |dim: &Expr| match dim {
                    Expr::Number(_) => dim.clone(),
                    Expr::Formula(_) => self.unfollowed.clone(),
                };
                *fact = Fact::new(fact.dtype, dims.iter().map(dim).collect());
            }
        }
        Ok(())
    }

    /// Outputs that constants alone decide are made of the same constants. What turns a shape or a
    /// quantised tensor into a float one makes a constant of its own.
    fn trace(&mut self, node: &'a NodeProto, inputs: &[Option<Arc<Fact>>], outputs: &mut [Fact]) {
        let constant = inputs.iter().flatten().all(|fact| fact.source.is_some());
        match node.op_type() {
            "Constant" | "ConstantOfShape" | "DequantizeLinear" if constant => {
                for (name, output) in node.output.iter().zip(outputs).take(1) {
                    let fact = self.constant(std::ptr::from_ref(node).cast(), name, |_| output.clone());
                    output.source = fact.source;
                }
            }
            _ if !constant || outputs.is_empty() => {}
            _ => {
                let source = self.found.computed(inputs);
                outputs.iter_mut().for_each(|output| output.source = source);
            }
        }
    }
}

impl Visit {
    pub(super) fn failed(why: Why) -> Self {
        Self { problem: Some(why), ..Self::free(Vec::new()) }
    }

    pub(super) fn free(outputs: Vec<Fact>) -> Self {
        Self { outputs, work: Work::Free, problem: None, note: None, impossible: false }
    }
}

/// Asks the row. A rule that fails for what is not known before the graph runs leaves unknown
/// outputs, which are a problem only where something is to be counted.
pub(super) fn rule(row: &ops::Row, ctx: &Ctx) -> Visit {
    let outputs = match (row.rule)(ctx) {
        Ok(outputs) => outputs,
        Err(why) if ctx.blind.get() => {
            vec![Fact::unknown(DataType::Undefined, &why); ctx.node.output.len()]
        }
        Err(why) => return Visit { impossible: true, ..Visit::failed(why) },
    };
    match (row.work)(ctx, &outputs) {
        Ok(work) => Visit { work, ..Visit::free(outputs) },
        Err(why) => Visit { problem: Some(why), ..Visit::free(outputs) },
    }
}

fn unknown_operator(node: &NodeProto) -> Why {
    let domain = match domain(node.domain()) {
        "" => "ai.onnx",
        domain => domain,
    };
    format!("{} of {domain} is no operator that is known here, nor a function of the model", node.op_type())
}

/// A sparse constant is the dense one.
fn dense(sparse: &SparseTensorProto) -> Fact {
    let dtype = sparse.values.as_ref().and_then(|values| DataType::try_from(values.data_type()).ok());
    Fact::new(dtype.unwrap_or(DataType::Undefined), sparse.dims.iter().map(|&d| d.into()).collect())
}
