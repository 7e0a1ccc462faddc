//! Types and shapes: what is declared, what operators allow, what the walk over the graph finds.

use std::sync::LazyLock;

use emo_proto::tensor_proto::DataType;
use emo_proto::tensor_shape_proto::dimension::Value as Extent;
use emo_proto::type_proto::Value;
use emo_proto::{TypeProto, ValueInfoProto};

use super::operators::schemas;
use super::subject::Callee;
use super::{Check, Findings, Severity, Subject};
use crate::fact::{Fact, Kind};
use crate::hash::{HashMap, HashSet};
use crate::ops::Ctx;
use crate::schema::{self, Mark};
use crate::sym::Expr;
use crate::typed::of_type;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "value-type",
        severity: Severity::Error,
        what: "inputs and outputs of the model have a type: for tensors elements and a shape",
        run: |s, f| {
            for (scope, graph) in s.graphs().filter(|(scope, _)| scope.is_main()) {
                for (role, values) in [("input", &graph.input), ("output", &graph.output)] {
                    for value in values {
                        if let Err(why) = complete(value.r#type.as_ref()) {
                            f.add(scope.value(role, value.name()), why);
                        }
                    }
                }
            }
        },
    },
    Check {
        code: "element-type",
        severity: Severity::Error,
        what: "the element type that a value declares is one of the specification",
        run: |s, f| {
            for (place, value) in declarations(s) {
                if let Some(code) = value.r#type.as_ref().and_then(unknown_element) {
                    f.add(
                        place,
                        format!("expected an element type of the specification, found number {code}"),
                    );
                }
            }
        },
    },
    Check {
        code: "negative-extent",
        severity: Severity::Warning,
        what: "an extent is a number from 0 on, a name, or left open",
        run: |s, f| {
            for (place, value) in declarations(s) {
                let Some(Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|t| t.value.as_ref())
                else {
                    continue;
                };
                for (axis, dim) in tensor.shape.iter().flat_map(|shape| &shape.dim).enumerate() {
                    if let Some(Extent::DimValue(n)) = dim.value
                        && n < 0
                    {
                        f.add(
                            place.clone(),
                            format!("expected 0 or more on axis {axis}, found {n}; name it if it is free"),
                        );
                    }
                }
            }
        },
    },
    Check {
        code: "type-mismatch",
        severity: Severity::Error,
        what: "operands have types that the operator takes, and equal types where it asks for that",
        run: type_mismatch,
    },
    Check {
        code: "impossible-operands",
        severity: Severity::Error,
        what: "the shapes of a node's operands fit each other and its attributes",
        run: impossible_operands,
    },
    Check {
        code: "wrong-declaration",
        severity: Severity::Error,
        what: "the type and shape that a value declares are those that it has",
        run: |s, f| {
            for c in s.inference().contradictions() {
                let path = c.path.trim_end_matches('/');
                let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
                f.add(
                    format!("{path}value {:?}", c.value),
                    format!(
                        "expected {}, found it declared as {}; drop or mend the declaration",
                        c.inferred, c.declared
                    ),
                );
            }
        },
    },
    Check {
        code: "wrong-default",
        severity: Severity::Error,
        what: "an initializer has the type and shape of the input of its name",
        run: wrong_default,
    },
    Check {
        code: "stray-declaration",
        severity: Severity::Warning,
        what: "a declared value exists, and is declared once",
        run: stray_declarations,
    },
];

impl Subject<'_> {
    /// What is known of the value that node `index` of scope `at` sees under `name`.
    pub(super) fn fact(&self, at: usize, index: usize, name: &str) -> Option<&Fact> {
        let (within, _) = self.definition(at, index, name)?;
        let values = match self.environment()[within]? {
            None => &self.inference().values,
            Some(body) => &self.inference().bodies[body].values,
        };
        values.get(name)
    }

    /// Whether the value is known to be true, a number other than zero.
    pub(super) fn is_true(&self, at: usize, index: usize, name: &str) -> bool {
        let elements = self.fact(at, index, name).and_then(|fact| fact.elements.as_deref());
        elements.is_some_and(|e| e.iter().any(|e| e.number().is_some_and(|n| n != 0)))
    }
}

/// Every value that declares its type, with its place.
fn declarations<'s>(s: &'s Subject) -> impl Iterator<Item = (String, &'s ValueInfoProto)> {
    s.graphs().flat_map(|(scope, graph)| {
        let roles = [("input", &graph.input), ("output", &graph.output), ("value", &graph.value_info)];
        roles.into_iter().flat_map(move |(role, values)| {
            values.iter().map(move |value| (scope.value(role, value.name()), value))
        })
    })
}

/// Whether a type says all that the specification asks for.
fn complete(of: Option<&TypeProto>) -> Result<(), &'static str> {
    let tensor = |elements: Option<i32>, shape: bool| match elements {
        None | Some(0) => Err("expected an element type, found none; declare it"),
        Some(_) if !shape => {
            Err("expected a shape, found none; declare it, if need be without axes or with free ones")
        }
        Some(_) => Ok(()),
    };
    match of.and_then(|of| of.value.as_ref()) {
        None => Err("expected a type, found none; declare it"),
        Some(Value::TensorType(t)) => tensor(t.elem_type, t.shape.is_some()),
        Some(Value::SparseTensorType(t)) => tensor(t.elem_type, t.shape.is_some()),
        Some(Value::SequenceType(t)) if t.elem_type.is_none() => {
            Err("expected a type of the items, found none")
        }
        Some(Value::OptionalType(t)) if t.elem_type.is_none() => {
            Err("expected a type of the value, found none")
        }
        Some(Value::MapType(t)) if t.key_type.is_none() || t.value_type.is_none() => {
            Err("expected types of keys and values, found none")
        }
        Some(Value::OpaqueType(t)) if t.name().is_empty() => {
            Err("expected a name of the opaque type, found none")
        }
        Some(_) => Ok(()),
    }
}

/// An element type within `of` that no specification has.
fn unknown_element(of: &TypeProto) -> Option<i32> {
    let unknown = |code: i32| DataType::try_from(code).is_err().then_some(code);
    match of.value.as_ref()? {
        Value::TensorType(t) => unknown(t.elem_type()),
        Value::SparseTensorType(t) => unknown(t.elem_type()),
        Value::SequenceType(t) => unknown_element(t.elem_type.as_ref()?),
        Value::OptionalType(t) => unknown_element(t.elem_type.as_ref()?),
        Value::MapType(t) => unknown(t.key_type()).or_else(|| unknown_element(t.value_type.as_ref()?)),
        Value::OpaqueType(_) => None,
    }
}

/// A type as schemas spell it, with its bit if schemas have it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Type {
    Known(usize),
    Other(String),
}

impl Type {
    fn of(fact: &Fact) -> Option<Self> {
        if fact.is_tensor() {
            return TENSORS.get(usize::try_from(i32::from(fact.dtype)).ok()?)?.clone();
        }
        Some(Self::named(spelling(fact)?))
    }

    fn named(name: String) -> Self {
        schema::type_bit(&name).map_or(Self::Other(name), Self::Known)
    }

    fn name(&self) -> &str {
        match self {
            Self::Known(bit) => schema::type_name(*bit),
            Self::Other(name) => name,
        }
    }

    fn within(&self, types: schema::Types) -> bool {
        matches!(self, Self::Known(bit) if types >> bit & 1 == 1)
    }
}

/// The type of a tensor by the number of its element type.
static TENSORS: LazyLock<Vec<Option<Type>>> = LazyLock::new(|| {
    let numbers = (0..).map_while(|number| DataType::try_from(number).ok());
    numbers.map(|dtype| Some(Type::named(format!("tensor({})", element(dtype)?)))).collect()
});

/// How schemas spell an element type.
fn element(dtype: DataType) -> Option<String> {
    (dtype != DataType::Undefined).then(|| dtype.as_str_name().to_lowercase())
}

fn spelling(fact: &Fact) -> Option<String> {
    Some(match &fact.kind {
        Kind::Tensor => format!("tensor({})", element(fact.dtype)?),
        Kind::Sparse => format!("sparse_tensor({})", element(fact.dtype)?),
        Kind::Sequence(sequence) => format!("seq({})", spelling(&sequence.item)?),
        Kind::Optional(held) => format!("optional({})", spelling(held)?),
        // The values of a map are spelled by their element type.
        Kind::Map(key, value) => format!("map({},{})", element(*key)?, element(value.dtype)?),
        Kind::Opaque => return None,
    })
}

fn type_mismatch(s: &Subject, f: &mut Findings) {
    for (place, node, schema) in schemas(s) {
        let (at, index) = (place.at, place.index);
        // Each variable with the type and the name of the formal that bound it.
        let mut bound: Vec<(&str, Type, &str)> = Vec::new();
        let sides = [("input", &node.input, &schema.inputs), ("output", &node.output, &schema.outputs)];
        for (role, names, formals) in sides {
            // Outputs are written right after the node.
            let seen = index + usize::from(role == "output");
            let types = names.iter().map(|name| s.fact(at, seen, name).and_then(Type::of));
            for (i, found) in types.enumerate() {
                let (Some(found), Some(formal)) = (found, formals.at(i)) else { continue };
                let what = format_args!("{role} {} ({:?})", formal.name, names[i]);
                if !found.within(formal.types) {
                    let expected = schema::describe(formal.types);
                    f.add(
                        place,
                        format!("expected {what} to be {expected}, found {}; add a Cast", found.name()),
                    );
                } else if formal.mark != Mark::Heterogeneous {
                    let Some((_, first, name)) = bound.iter().find(|(of, ..)| *of == formal.variable) else {
                        bound.push((formal.variable, found, formal.name));
                        continue;
                    };
                    if *first != found {
                        let (first, found) = (first.name(), found.name());
                        f.add(
                            place,
                            format!("expected {what} to be {first} like {name}, found {found}; add a Cast"),
                        );
                    }
                }
            }
        }
    }
}

/// One finding a file: tools that leave such declarations leave hundreds.
fn stray_declarations(s: &Subject, f: &mut Findings) {
    let (mut missing, mut again) = (Vec::new(), Vec::new());
    for (scope, graph) in s.graphs() {
        let ends: HashSet<_> = scope.inputs.iter().chain(&scope.outputs).copied().collect();
        let mut seen = HashSet::default();
        for value in &graph.value_info {
            if !scope.written.contains_key(value.name()) {
                missing.push(scope.value("value", value.name()));
            } else if ends.contains(value.name()) || !seen.insert(value.name()) {
                again.push(scope.value("value", value.name()));
            }
        }
    }
    let Some(first) = missing.first().or(again.first()) else { return };
    let declarations =
        |list: &Vec<String>, what| (!list.is_empty()).then(|| format!("{} {what}", list.len()));
    let found = [declarations(&missing, "of no value"), declarations(&again, "of a value that has one")];
    let found = found.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    f.add(
        first.clone(),
        format!(
            "expected one declaration of each value that exists, found {found}; drop these, this is the first"
        ),
    );
}

/// Nodes whose rule refuses operands of which it knows all that it asks for.
fn impossible_operands(s: &Subject, f: &mut Findings) {
    let of_nodes = s.inference().nodes.iter().any(|facts| facts.problem().is_some());
    if !of_nodes && s.inference().dead.is_empty() {
        return;
    }
    let places: HashMap<_, _> =
        s.nodes().map(|(scope, at, index, node)| (std::ptr::from_ref(node), (scope, at, index))).collect();
    let mut said = HashSet::default();
    for facts in &s.inference().nodes {
        let Some(problem) = facts.problem() else { continue };
        let Some(&(scope, at, index)) = places.get(&std::ptr::from_ref(facts.node)) else { continue };
        let by_rule = matches!(s.callee(at, index), Callee::Schema(_) | Callee::Known)
            && crate::ops::find(facts.node.domain(), facts.node.op_type()).is_some()
            && !facts.node.attribute.iter().any(|a| a.g.is_some());
        let says = |fact: &Fact| fact.dims.as_ref().err().is_some_and(|why| **why == *problem);
        // What merely cannot be counted has outputs that are known.
        let refused = facts.written().all(says);
        let inherited = facts.node.input.iter().filter_map(|name| s.fact(at, index, name)).any(says);
        if by_rule && refused && !inherited && said.insert((std::ptr::from_ref(facts.node), problem)) {
            f.add(scope.place(index), problem);
        }
    }
    for (node, problem) in &s.inference().dead {
        let Some(&(scope, at, index)) = places.get(&std::ptr::from_ref(*node)) else { continue };
        if is_plain(s, at, index) && said.insert((std::ptr::from_ref(*node), problem)) {
            let why = format!("{problem}; the branch is never taken, but runtimes infer its shapes");
            f.add(scope.place(index), why);
        }
    }
}

/// Operators whose shapes depend on what an operand holds.
const BY_VALUE: [&str; 12] = [
    "Reshape",
    "Expand",
    "Resize",
    "Upsample",
    "Slice",
    "Tile",
    "Pad",
    "Range",
    "ConstantOfShape",
    "OneHot",
    "TopK",
    "Unsqueeze",
];
/// Nodes before one that are looked at.
const FAR: usize = 256;

/// Whether the shapes of a node's operands follow from declared ones without computing a shape: then
/// every engine that infers shapes has them.
fn is_plain(s: &Subject, at: usize, index: usize) -> bool {
    let mut open = vec![(at, index)];
    let mut seen = HashSet::default();
    while let Some((at, index)) = open.pop() {
        if !seen.insert((at, index)) {
            continue;
        }
        let node = &s.scopes[at].nodes[index];
        let constant = |name: &String| s.fact(at, index, name).is_some_and(|fact| fact.source.is_some());
        let fixed = seen.len() > 1 && node.input.iter().skip(1).all(constant);
        if seen.len() > FAR || BY_VALUE.contains(&node.op_type()) && !fixed {
            return false;
        }
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            if let Some((within, written @ 1..)) = s.definition(at, index, name) {
                open.push((within, written - 1));
            }
        }
    }
    true
}

fn wrong_default(s: &Subject, f: &mut Findings) {
    for (scope, graph) in s.graphs() {
        let inputs: HashMap<_, _> = graph.input.iter().map(|input| (input.name(), input)).collect();
        for tensor in &graph.initializer {
            let Some(of) = inputs.get(tensor.name()).and_then(|input| input.r#type.as_ref()) else {
                continue;
            };
            let (declared, found) = (of_type(of, tensor.name()), Ctx::tensor(tensor));
            if differ(&declared, &found) {
                f.add(
                    scope.value("initializer", tensor.name()),
                    format!(
                        "expected {} like the input of its name, found {}",
                        declared.describe(),
                        found.describe()
                    ),
                );
            }
        }
    }
}

/// Whether two dense tensors cannot be one; an extent with a name may be any number.
fn differ(a: &Fact, b: &Fact) -> bool {
    let differ = |(a, b): (&Expr, &Expr)| a.number().zip(b.number()).is_some_and(|(a, b)| a != b);
    let dims = match (&a.dims, &b.dims) {
        (Ok(a), Ok(b)) => a.len() != b.len() || a.iter().zip(b).any(differ),
        _ => false,
    };
    a.is_tensor() && b.is_tensor() && (a.dtype != b.dtype || dims)
}
