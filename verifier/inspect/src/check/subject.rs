//! The file as checks see it: every graph, body and function in one list, names resolved.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::weights::Weight;
use crate::hash::{HashMap, HashSet};
use crate::infer::{Bindings, Inference, infer_file};
use crate::ops;
use crate::schema::{self, Schema};

/// A decoded file, indexed for checks.
#[derive(Debug)]
pub struct Subject<'a> {
    pub file: &'a OnnxFile,
    pub model: &'a ModelProto,
    pub external: &'a External,
    /// Where the file lies; `None` for one in memory.
    pub folder: Option<&'a Path>,
    /// The main graph, then the bodies in it, then each function with the bodies in it; a scope
    /// comes after the one that it lies in.
    pub scopes: Vec<Scope<'a>>,
    pub functions: HashMap<Key<'a>, &'a FunctionProto>,
    /// Operands that nothing visible writes: scope, node, name.
    pub unresolved: Vec<(usize, usize, &'a str)>,
    /// Names that something reads, by the scope that defines them.
    pub read: Vec<HashSet<&'a str>>,
    children: HashMap<(usize, usize), Vec<usize>>,
    /// What each node of each scope calls: most checks ask.
    callees: Vec<Vec<Callee<'a>>>,
    inference: OnceLock<Inference<'a>>,
    environment: OnceLock<Environment>,
    weights: OnceLock<Vec<Weight>>,
}

/// Domain, name and overload of a function.
pub type Key<'a> = (&'a str, &'a str, &'a str);

/// A graph or a function's body.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Where it lies: empty for the main graph.
    pub path: String,
    /// `None` for a function.
    pub graph: Option<&'a GraphProto>,
    /// The function that it is or lies in.
    pub function: Option<&'a FunctionProto>,
    pub nodes: &'a [NodeProto],
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    /// Operator sets by domain.
    pub opsets: Arc<HashMap<&'a str, i64>>,
    /// The scope and the node that it lies in.
    pub parent: Option<(usize, usize)>,
    /// Where names are first written: 0 before all nodes, n + 1 by node n.
    pub written: HashMap<&'a str, usize>,
}

/// What a node calls.
#[derive(Debug, Clone, Copy)]
pub enum Callee<'a> {
    Schema(&'static Schema),
    Function(&'a FunctionProto),
    /// An operator that the op table knows and the specification does not.
    Known,
    /// The specification has no such operator at this operator set.
    Missing,
    /// Nobody here knows the domain.
    Foreign,
    /// No operator set of the domain is imported.
    NotImported,
}

impl<'a> Subject<'a> {
    #[must_use]
    pub fn new(file: &'a OnnxFile, folder: Option<&'a Path>) -> Self {
        let model = &file.model;
        let mut subject = Self {
            file,
            model,
            external: &file.external,
            folder,
            scopes: Vec::new(),
            functions: HashMap::default(),
            unresolved: Vec::new(),
            read: Vec::new(),
            children: HashMap::default(),
            callees: Vec::new(),
            inference: OnceLock::new(),
            environment: OnceLock::new(),
            weights: OnceLock::new(),
        };
        for f in &model.functions {
            subject.functions.entry((f.domain(), f.name(), f.overload())).or_insert(f);
        }
        if let Some(graph) = &model.graph {
            let mut opsets = opsets(&model.opset_import);
            if opsets.is_empty() && (1..3).contains(&model.ir_version()) {
                opsets.insert("", 1); // before operator sets there was one
            }
            subject.enter(Scope::of_graph(graph, String::new(), Arc::new(opsets), None, None));
        }
        for function in &model.functions {
            subject.enter(Scope::of_function(function));
        }
        subject.resolve();
        let called = |scope: &Scope<'a>| scope.nodes.iter().map(|node| subject.called(scope, node)).collect();
        subject.callees = subject.scopes.iter().map(called).collect();
        subject
    }

    /// Lists a scope and the bodies in it; protobuf's limit on nesting bounds the depth.
    fn enter(&mut self, scope: Scope<'a>) {
        let (at, nodes) = (self.scopes.len(), scope.nodes);
        self.scopes.push(scope);
        for (index, node) in nodes.iter().enumerate() {
            for (attribute, body) in node.attribute.iter().flat_map(bodies) {
                let scope = &self.scopes[at];
                let path = join(&scope.path, &format!("{}.{}", label(node, index), attribute.name()));
                let parent = Some((at, index));
                let body = Scope::of_graph(body, path, scope.opsets.clone(), scope.function, parent);
                self.children.entry((at, index)).or_default().push(self.scopes.len());
                self.enter(body);
            }
        }
    }

    fn resolve(&mut self) {
        let mut read = vec![HashSet::default(); self.scopes.len()];
        for (at, scope) in self.scopes.iter().enumerate() {
            for (index, node) in scope.nodes.iter().enumerate() {
                for name in node.input.iter().map(String::as_str).filter(|name| !name.is_empty()) {
                    match self.definition(at, index, name) {
                        Some((within, _)) => {
                            read[within].insert(name);
                        }
                        None => self.unresolved.push((at, index, name)),
                    }
                }
            }
            for name in &scope.outputs {
                if let Some((within, _)) = self.definition(at, scope.nodes.len(), name) {
                    read[within].insert(name);
                }
            }
        }
        self.read = read;
    }

    /// The scope that defines what node `index` of scope `at` sees under `name`, and where in
    /// it the name is written.
    #[must_use]
    pub fn definition(&self, at: usize, index: usize, name: &str) -> Option<(usize, usize)> {
        let (mut at, mut index) = (at, index);
        loop {
            let scope = &self.scopes[at];
            match scope.written.get(name) {
                Some(&written) if written <= index => return Some((at, written)),
                _ => (at, index) = scope.parent?,
            }
        }
    }

    /// Each node with the scope that it is in, the scope's index and its own.
    pub fn nodes(&self) -> impl Iterator<Item = (&Scope<'a>, usize, usize, &'a NodeProto)> {
        let scopes = self.scopes.iter().enumerate();
        scopes.flat_map(|(at, scope)| {
            scope.nodes.iter().enumerate().map(move |(index, node)| (scope, at, index, node))
        })
    }

    /// The graphs of the file with the path of each.
    pub fn graphs(&self) -> impl Iterator<Item = (&Scope<'a>, &'a GraphProto)> {
        self.scopes.iter().filter_map(|scope| Some((scope, scope.graph?)))
    }

    /// The bodies of a node.
    #[must_use]
    pub fn bodies(&self, at: usize, index: usize) -> &[usize] {
        self.children.get(&(at, index)).map_or(&[], Vec::as_slice)
    }

    /// Every dense tensor outside sparse ones, with its place.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &'a TensorProto)> {
        let initializers = self.graphs().flat_map(|(scope, graph)| {
            graph.initializer.iter().map(|tensor| (scope.value("initializer", tensor.name()), tensor))
        });
        let attributes = self.nodes().flat_map(|(scope, _, index, node)| {
            node.attribute
                .iter()
                .flat_map(|a| a.t.as_deref().into_iter().chain(&a.tensors).map(move |t| (a, t)))
                .map(move |(attribute, tensor)| {
                    (format!("{} attribute {}", scope.place(index), attribute.name()), tensor)
                })
        });
        initializers.chain(attributes)
    }

    /// What node `index` of scope `at` calls.
    #[must_use]
    pub fn callee(&self, at: usize, index: usize) -> Callee<'a> {
        self.callees[at][index]
    }

    fn called(&self, scope: &Scope<'a>, node: &NodeProto) -> Callee<'a> {
        let Some(opset) = scope.opset(node.domain()) else { return Callee::NotImported };
        if let Some(function) = self.functions.get(&(node.domain(), node.op_type(), node.overload())) {
            return Callee::Function(function);
        }
        match schema::find(node.domain(), node.op_type(), opset) {
            Some(schema) => Callee::Schema(schema),
            None if schema::newest(node.domain()).is_some() && !self.is_runtimes(node) => Callee::Missing,
            None if ops::find(node.domain(), node.op_type()).is_some() => Callee::Known,
            None => Callee::Foreign,
        }
    }

    /// Whether a node of a domain of the specification has an operator that only ONNX Runtime has there.
    #[must_use]
    pub fn is_runtimes(&self, node: &NodeProto) -> bool {
        schema::newest(node.domain()).is_some()
            && schema::versions(node.domain(), node.op_type()).is_empty()
            && ops::find(node.domain(), node.op_type()).is_some()
    }

    /// What the walk over the graph knows, all named dimensions free.
    pub fn inference(&self) -> &Inference<'a> {
        self.inference.get_or_init(|| infer_file(self.file, &Bindings::new()))
    }

    pub(super) fn environment(&self) -> &Environment {
        self.environment.get_or_init(|| environment(self))
    }

    pub(super) fn weights(&self) -> &[Weight] {
        self.weights.get_or_init(|| Weight::all(self))
    }
}

impl<'a> Scope<'a> {
    fn of_graph(
        graph: &'a GraphProto,
        path: String,
        opsets: Arc<HashMap<&'a str, i64>>,
        function: Option<&'a FunctionProto>,
        parent: Option<(usize, usize)>,
    ) -> Self {
        let inputs: Vec<_> = graph.input.iter().map(emo_proto::ValueInfoProto::name).collect();
        let dense = graph.initializer.iter().map(TensorProto::name);
        let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref()).map(TensorProto::name);
        let written = written(inputs.iter().copied().chain(dense).chain(sparse), &graph.node);
        let outputs = graph.output.iter().map(emo_proto::ValueInfoProto::name).collect();
        Self {
            path,
            graph: Some(graph),
            function,
            nodes: &graph.node,
            inputs,
            outputs,
            opsets,
            parent,
            written,
        }
    }

    fn of_function(function: &'a FunctionProto) -> Self {
        let inputs: Vec<_> = function.input.iter().map(String::as_str).collect();
        Self {
            path: format!("function {}", name_of(function)),
            graph: None,
            function: Some(function),
            nodes: &function.node,
            written: written(inputs.iter().copied(), &function.node),
            inputs,
            outputs: function.output.iter().map(String::as_str).collect(),
            opsets: Arc::new(opsets(&function.opset_import)),
            parent: None,
        }
    }

    #[must_use]
    pub fn is_main(&self) -> bool {
        self.parent.is_none() && self.function.is_none()
    }

    /// The operator set of a domain. ONNX's own may be imported under its full name.
    #[must_use]
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let named = self.opsets.get(domain);
        named.or_else(|| domain.is_empty().then(|| self.opsets.get("ai.onnx")).flatten()).copied()
    }

    /// `node "conv" (Conv)`, with the scope's path in front.
    #[must_use]
    pub fn place(&self, index: usize) -> String {
        let node = &self.nodes[index];
        let name = match node.name() {
            "" => format!("node {index}"),
            name => format!("node {name:?}"),
        };
        join(&self.path, &format!("{name} ({})", node.op_type()))
    }

    /// `input "x"`, with the scope's path in front.
    #[must_use]
    pub fn value(&self, role: &str, name: &str) -> String {
        join(&self.path, &format!("{role} {name:?}"))
    }
}

/// `domain::name`, and `:overload` where there is one.
#[must_use]
pub fn name_of(function: &FunctionProto) -> String {
    let overload = if function.overload().is_empty() { "" } else { ":" };
    format!("{}::{}{overload}{}", function.domain(), function.name(), function.overload())
}

/// The graphs that an attribute holds.
fn bodies(attribute: &AttributeProto) -> impl Iterator<Item = (&AttributeProto, &GraphProto)> {
    attribute.g.as_deref().into_iter().chain(&attribute.graphs).map(move |graph| (attribute, graph))
}

fn join(path: &str, rest: &str) -> String {
    if path.is_empty() { rest.to_owned() } else { format!("{path}: {rest}") }
}

fn label(node: &NodeProto, index: usize) -> String {
    match node.name() {
        "" => format!("{} {index}", node.op_type()),
        name => name.to_owned(),
    }
}

/// The highest import of a domain counts.
fn opsets(imports: &[emo_proto::OperatorSetIdProto]) -> HashMap<&str, i64> {
    let mut opsets = HashMap::default();
    for set in imports {
        let version = opsets.entry(set.domain()).or_insert(set.version());
        *version = set.version().max(*version);
    }
    opsets
}

fn written<'a>(before: impl Iterator<Item = &'a str>, nodes: &'a [NodeProto]) -> HashMap<&'a str, usize> {
    let outputs = nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| node.output.iter().map(move |name| (name.as_str(), index + 1)));
    let mut written = HashMap::default();
    written.reserve(nodes.len());
    for (name, at) in before.map(|name| (name, 0)).chain(outputs).filter(|(name, _)| !name.is_empty()) {
        written.entry(name).or_insert(at);
    }
    written
}

/// Where the walk keeps the facts of a scope's values: `None` for the main graph, else the body.
/// A scope that it never entered, or never in one way, has none.
pub(super) type Environment = Vec<Option<Option<usize>>>;

fn environment(s: &Subject) -> Environment {
    let bodies = s.inference().bodies.iter().enumerate();
    let bodies: HashMap<_, _> =
        bodies.filter_map(|(index, body)| Some((std::ptr::from_ref(body.graph?), index))).collect();
    let place = |scope: &Scope| match scope.graph {
        Some(_) if scope.is_main() => Some(None),
        Some(graph) => bodies.get(&std::ptr::from_ref(graph)).copied().map(Some),
        None => None,
    };
    s.scopes.iter().map(place).collect()
}
