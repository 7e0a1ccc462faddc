//! The permitted operators of a row, and what is asked of a node that uses one.

use emo_proto::tensor_proto::DataType;

use super::HighestRank;

/// Which operators a runtime takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operators {
    /// All of these domains; the empty one is ONNX's own.
    Any { domains: &'static [&'static str], source: &'static str },
    /// Those of this list.
    Listed(&'static List),
}

/// The operators that a runtime's makers list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct List {
    pub source: &'static str,
    /// Those of ONNX's own domain that it takes as they are, in words.
    pub plain: &'static str,
    /// Those that it asks something of.
    pub when: &'static [Permit],
}

impl List {
    /// The operators of ONNX's own domain that the runtime takes as they are.
    pub fn plain(&self) -> impl Iterator<Item = &'static str> {
        self.plain.split_ascii_whitespace()
    }
}

/// An operator that a runtime takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Permit {
    /// Empty for ONNX's own.
    pub domain: &'static str,
    pub op: &'static str,
    /// All must hold.
    pub when: &'static [Condition],
    pub source: &'static str,
}

/// What a runtime asks of a node. An operand that is left out breaks none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// The operand's element type is one of these.
    Types { operand: usize, types: &'static [DataType] },
    /// The operand has this many axes at least and at most.
    Rank { operand: usize, lowest: usize, highest: usize },
    /// Constants alone decide the operand: an initializer, or what a runtime folds when it loads the file.
    Constant { operand: usize },
    /// No extent of the operand is negative or free.
    Fixed { operand: usize },
    /// The elements of an integer operand that is a constant are none below zero.
    NonNegative { operand: usize },
    /// The integer attribute has one of these values; `default` where it is absent.
    Int { attribute: &'static str, default: i64, values: &'static [i64] },
    /// The float attribute has this value; absent is as well.
    Float { attribute: &'static str, value: f32 },
    /// The text attribute has one of these values; `default` where it is absent.
    Text { attribute: &'static str, default: &'static str, values: &'static [&'static str] },
    /// The results' extents on the attribute `axis` are equal.
    EqualParts,
    /// Operands 0 and 1 have as many axes and, but for the last two, the same extents.
    SameBatch,
    /// One of the two holds.
    Either(&'static Condition, &'static Condition),
}

/// An attribute of a node, as far as conditions read it.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    Int(i64),
    Float(f32),
    Text(String),
    Other,
}

/// What is known of a node's operand or result.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Operand {
    pub dtype: Option<DataType>,
    /// `None` for an extent that is free; absent where not even the rank is known.
    pub shape: Option<Vec<Option<u64>>>,
    pub constant: bool,
    /// The elements of an integer constant, where they are at hand.
    pub integers: Option<Vec<i64>>,
}

/// A node of any file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeFacts<'a> {
    pub domain: &'a str,
    pub op: &'a str,
    pub attributes: Vec<(&'a str, Attribute)>,
    /// `None` where an optional operand is left out.
    pub operands: Vec<Option<Operand>>,
    pub results: Vec<Operand>,
}

/// A rule of a row that bears on a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The operator is on a list of the row.
    Operator { source: &'static str },
    /// One of the operator's conditions.
    Condition { condition: &'static Condition, source: &'static str },
    /// No value that the node reads or writes has more axes than the row's `rank`.
    Rank(HighestRank),
}

/// What a row has to say of a node: the rules that it breaks, and those that cannot be decided
/// for what is not known of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judgement {
    pub broken: Vec<Rule>,
    pub open: Vec<Rule>,
}

impl super::Profile {
    /// The conditions on an operator and their source; `None` where the row does not take it.
    #[must_use]
    pub fn conditions(&self, domain: &str, op: &str) -> Option<(&'static [Condition], &'static str)> {
        let domain = if domain == "ai.onnx" { "" } else { domain };
        match self.operators {
            Operators::Any { domains, source } => domains.contains(&domain).then_some((&[], source)),
            Operators::Listed(list) => {
                // A constant is data, whatever a list says of operators.
                let plain = domain.is_empty() && (op == "Constant" || list.plain().any(|word| word == op));
                let permit = list.when.iter().find(|p| p.domain == domain && p.op == op);
                permit.map(|p| (p.when, p.source)).or(plain.then_some((&[], list.source)))
            }
        }
    }

    /// Holds a node against the row: its operator, its conditions, its ranks.
    #[must_use]
    pub fn judge(&self, node: &NodeFacts) -> Judgement {
        let mut judgement = Judgement::default();
        let mut take = |rule: Rule, holds: Option<bool>| match holds {
            Some(true) => {}
            Some(false) => judgement.broken.push(rule),
            None => judgement.open.push(rule),
        };
        match self.conditions(node.domain, node.op) {
            None => take(Rule::Operator { source: self.operators.source() }, Some(false)),
            Some((conditions, source)) => {
                for condition in conditions {
                    take(Rule::Condition { condition, source }, condition.holds(node));
                }
            }
        }
        take(Rule::Rank(self.rank), node.rank().map_or(Some(true), |r| r.map(|r| r <= self.rank.rank)));
        judgement
    }
}

impl Operators {
    /// Who says which operators there are.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match self {
            Operators::Any { source, .. } => source,
            Operators::Listed(list) => list.source,
        }
    }
}

impl NodeFacts<'_> {
    /// Operands that are not left out, and results.
    pub fn values(&self) -> impl Iterator<Item = &Operand> {
        self.operands.iter().flatten().chain(&self.results)
    }

    fn operand(&self, index: usize) -> Option<&Operand> {
        self.operands.get(index)?.as_ref()
    }

    fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|(n, _)| *n == name).map(|(_, attribute)| attribute)
    }

    /// The highest rank of any operand or result; `Some(None)` where it may be higher than what is
    /// known, `None` where there are neither.
    fn rank(&self) -> Option<Option<usize>> {
        let ranks: Vec<Option<usize>> = self.values().map(|o| o.shape.as_ref().map(Vec::len)).collect();
        let highest = ranks.iter().flatten().max().copied();
        (!ranks.is_empty()).then(|| highest.filter(|_| ranks.iter().all(Option::is_some)))
    }
}

impl Condition {
    /// Whether `node` meets it; `None` where that depends on what is not known.
    #[must_use]
    pub fn holds(&self, node: &NodeFacts) -> Option<bool> {
        // An operand that is left out meets everything.
        let operand = |index: usize, meets: &dyn Fn(&Operand) -> Option<bool>| {
            node.operand(index).map_or(Some(true), meets)
        };
        match self {
            Condition::Types { operand: index, types } => {
                operand(*index, &|o| o.dtype.map(|dtype| types.contains(&dtype)))
            }
            Condition::Rank { operand: index, lowest, highest } => {
                operand(*index, &|o| o.shape.as_ref().map(|s| (*lowest..=*highest).contains(&s.len())))
            }
            Condition::Constant { operand: index } => operand(*index, &|o| Some(o.constant)),
            Condition::Fixed { operand: index } => {
                operand(*index, &|o| o.shape.as_ref().map(|s| s.iter().all(Option::is_some)))
            }
            Condition::NonNegative { operand: index } => {
                let elements =
                    |o: &Operand| o.integers.as_ref().map(|integers| integers.iter().all(|&i| i >= 0));
                operand(*index, &|o| if o.constant { elements(o) } else { Some(true) })
            }
            Condition::Int { attribute: name, default, values } => Some(match node.attribute(name) {
                Some(Attribute::Int(value)) => values.contains(value),
                Some(_) => false,
                None => values.contains(default),
            }),
            Condition::Float { attribute: name, value } => Some(match node.attribute(name) {
                Some(Attribute::Float(found)) => found == value,
                Some(_) => false,
                None => true,
            }),
            Condition::Text { attribute: name, default, values } => Some(match node.attribute(name) {
                Some(Attribute::Text(value)) => values.contains(&value.as_str()),
                Some(_) => false,
                None => values.contains(default),
            }),
            Condition::EqualParts => {
                let shapes: Option<Vec<_>> = node.results.iter().map(|r| r.shape.as_ref()).collect();
                shapes.map(|shapes| shapes.windows(2).all(|pair| pair[0] == pair[1]))
            }
            Condition::SameBatch => {
                let shape = |index: usize| Some(node.operand(index)?.shape.as_deref());
                let (Some(a), Some(b)) = (shape(0), shape(1)) else { return Some(true) };
                let batch = |shape: &'_ [Option<u64>]| shape[..shape.len().saturating_sub(2)].to_vec();
                a.zip(b).map(|(a, b)| a.len() == b.len() && batch(a) == batch(b))
            }
            Condition::Either(a, b) => match (a.holds(node), b.holds(node)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }

    /// What `node` has instead of what is asked, in words.
    #[must_use]
    pub fn found(&self, node: &NodeFacts) -> String {
        let operand = |index: &usize| node.operand(*index);
        let attribute = |name: &str| match node.attribute(name) {
            Some(Attribute::Int(value)) => format!("{name} = {value}"),
            Some(Attribute::Float(value)) => format!("{name} = {value}"),
            Some(Attribute::Text(value)) => format!("{name} = {value:?}"),
            Some(Attribute::Other) => format!("{name} of another type"),
            None => format!("no {name}"),
        };
        match self {
            Condition::Types { operand: index, .. } => match operand(index).and_then(|o| o.dtype) {
                Some(dtype) => dtype.as_str_name().to_lowercase(),
                None => "an unknown type".to_owned(),
            },
            Condition::Rank { operand: index, .. } => match operand(index).and_then(|o| o.shape.as_ref()) {
                Some(shape) => format!("rank {}", shape.len()),
                None => "an unknown rank".to_owned(),
            },
            Condition::Constant { .. } => "one computed as the graph runs".to_owned(),
            Condition::Fixed { operand: index } => match operand(index).map(|o| o.shape.is_some()) {
                Some(true) => "a free extent".to_owned(),
                _ => "an unknown shape".to_owned(),
            },
            Condition::NonNegative { operand: index } => {
                let integers = operand(index).and_then(|o| o.integers.as_ref());
                match integers.and_then(|integers| integers.iter().min()) {
                    Some(lowest) => lowest.to_string(),
                    None => "elements that are not known".to_owned(),
                }
            }
            Condition::Int { attribute: name, .. }
            | Condition::Float { attribute: name, .. }
            | Condition::Text { attribute: name, .. } => attribute(name),
            Condition::EqualParts => "parts of several sizes".to_owned(),
            Condition::SameBatch => "a product that broadcasts".to_owned(),
            Condition::Either(a, b) => {
                let (a, b) = (a.found(node), b.found(node));
                if a == b { a } else { format!("{a}, {b}") }
            }
        }
    }

    /// What to emit where a node does not meet it.
    #[must_use]
    pub fn instead(&self) -> String {
        match self {
            Condition::Types { .. } => "values of such a type throughout".to_owned(),
            Condition::Rank { .. } => "a Reshape before it and one after it".to_owned(),
            Condition::Constant { .. } => "an initializer".to_owned(),
            Condition::Fixed { .. } => "a fixed shape, from inputs of fixed shapes".to_owned(),
            Condition::NonNegative { .. } => "Slice where something is cut off".to_owned(),
            Condition::EqualParts => "a Slice for each part".to_owned(),
            Condition::SameBatch => "operands of one batch: Reshape, or Expand a constant".to_owned(),
            Condition::Either(a, _) => a.instead(),
            Condition::Int { .. } | Condition::Float { .. } | Condition::Text { .. } => self.to_string(),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Condition::Types { operand, types } => {
                let types: Vec<_> = types.iter().map(|t| t.as_str_name().to_lowercase()).collect();
                write!(f, "operand {operand} of type {}", types.join(" or "))
            }
            Condition::Rank { operand, lowest, highest } if lowest == highest => {
                write!(f, "operand {operand} of rank {highest}")
            }
            Condition::Rank { operand, lowest, highest } => {
                write!(f, "operand {operand} of rank {lowest} to {highest}")
            }
            Condition::Constant { operand } => write!(f, "a constant operand {operand}"),
            Condition::Fixed { operand } => write!(f, "an operand {operand} of fixed shape"),
            Condition::NonNegative { operand } => write!(f, "no element of operand {operand} below 0"),
            Condition::Int { attribute, values, .. } => {
                let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                write!(f, "{attribute} = {}", values.join(" or "))
            }
            Condition::Float { attribute, value } => write!(f, "{attribute} = {value}"),
            Condition::Text { attribute, values, .. } => {
                write!(f, "{attribute} = {}", values.join(" or "))
            }
            Condition::EqualParts => f.write_str("equal parts"),
            Condition::SameBatch => f.write_str("operands of the same batch"),
            Condition::Either(a, b) => write!(f, "{a} or {b}"),
        }
    }
}

/// What to emit instead of an operator that a row does not take; `None` where nothing is known.
#[must_use]
pub fn instead(op: &str) -> Option<&'static str> {
    INSTEAD.iter().find(|(name, _)| *name == op).map(|(_, advice)| *advice)
}

const INSTEAD: &[(&str, &str)] = &[
    ("Attention", "MatMul, Softmax, MatMul"),
    ("BatchNormalization", "nothing: fold it into the convolution beside it"),
    ("ConstantOfShape", "a constant of the shape, at a fixed batch"),
    ("Einsum", "Transpose and MatMul"),
    ("Erf", "Gelu (opset 20), or erf in Abs, Exp, Mul, Add, Div (Abramowitz and Stegun 7.1.26)"),
    ("Expand", "the broadcasting of the operator that reads it"),
    ("Flatten", "Reshape"),
    ("Gather", "Split, or slices of the weights before it"),
    ("Gelu", "x/√2, Erf, +1, ·x, ·½, which runtimes fuse; without Erf, that in Abs, Exp, Mul, Add, Div"),
    ("GlobalAveragePool", "ReduceMean over the last two axes"),
    ("HardSwish", "HardSigmoid and Mul"),
    ("LayerNormalization", "ReduceMean, Sub, Mul, ReduceMean, Add, Sqrt, Div over the channel axis"),
    ("Pad", "Concat with constant zeros, or a size whose maps divide by the window"),
    ("ReduceMean", "GlobalAveragePool"),
    ("Shape", "a fixed shape, or -1 in the target of Reshape"),
    ("SpaceToDepth", "Reshape, Transpose, Reshape of rank 4"),
    ("DepthToSpace", "Reshape, Transpose, Reshape of rank 4"),
    ("Swish", "Sigmoid and Mul"),
    ("Cast", "values of one type throughout"),
    ("Squeeze", "Reshape"),
    ("Unsqueeze", "Reshape"),
    ("Where", "arithmetic on constants, folded away"),
];
