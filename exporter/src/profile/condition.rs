//! The permitted operators of a row, and what is asked of a node that uses one.

use emo_proto::tensor_proto::DataType;

/// Which operators a runtime takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operators {
    /// All of ONNX's.
    Any { source: &'static str },
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

/// What a runtime asks of a node. An operand that is absent, and a fact that is not known, break none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// The operand's element type is one of these.
    Types { operand: usize, types: &'static [DataType] },
    /// The operand has this many axes at least and at most.
    Rank { operand: usize, lowest: usize, highest: usize },
    /// The operand is an initializer or the value of a `Constant` node.
    Constant { operand: usize },
    /// No extent of the operand is negative or free.
    Fixed { operand: usize },
    /// The elements of a constant integer operand are none below zero.
    NonNegative { operand: usize },
    /// The integer attribute has one of these values; `default` where it is absent.
    Int { attribute: &'static str, default: i64, values: &'static [i64] },
    /// The float attribute has this value; absent is as well.
    Float { attribute: &'static str, value: f32 },
    /// The text attribute has one of these values; `default` where it is absent.
    Text { attribute: &'static str, default: &'static str, values: &'static [&'static str] },
    /// The results' extents on the attribute `axis` are equal.
    EqualParts,
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

/// What a row has against a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Violation {
    /// The operator is on no list of the row.
    Operator {
        op: String,
    },
    Condition {
        condition: &'static Condition,
        source: &'static str,
    },
    Rank {
        rank: usize,
        highest: usize,
        source: &'static str,
    },
}

impl super::Profile {
    /// The conditions on an operator and their source; `None` where the row does not take it.
    #[must_use]
    pub fn conditions(&self, domain: &str, op: &str) -> Option<(&'static [Condition], &'static str)> {
        let domain = if domain == "ai.onnx" { "" } else { domain };
        match self.operators {
            Operators::Any { source } => domain.is_empty().then_some((&[], source)),
            Operators::Listed(list) => {
                // A constant is data, whatever a list says of operators.
                let plain = domain.is_empty() && (op == "Constant" || list.plain().any(|word| word == op));
                let permit = list.when.iter().find(|p| p.domain == domain && p.op == op);
                permit.map(|p| (p.when, p.source)).or(plain.then_some((&[], list.source)))
            }
        }
    }

    /// Everything that the row has against a node: its operator, its conditions, its ranks.
    #[must_use]
    pub fn judge(&self, node: &NodeFacts) -> Vec<Violation> {
        let mut violations = Vec::new();
        match self.conditions(node.domain, node.op) {
            None => violations.push(Violation::Operator { op: node.op.to_owned() }),
            Some((conditions, source)) => {
                let broken = conditions.iter().filter(|c| !c.holds(node));
                violations.extend(broken.map(|condition| Violation::Condition { condition, source }));
            }
        }
        let (highest, source) = (self.rank.rank, self.rank.source);
        let values = node.operands.iter().flatten().chain(&node.results);
        let rank = values.filter_map(|o| o.shape.as_ref()).map(Vec::len).max();
        if let Some(rank) = rank.filter(|&rank| rank > highest) {
            violations.push(Violation::Rank { rank, highest, source });
        }
        violations
    }
}

impl Condition {
    /// Whether `node` meets it.
    #[must_use]
    pub fn holds(&self, node: &NodeFacts) -> bool {
        let operand = |index: usize| node.operands.get(index).and_then(Option::as_ref);
        let attribute = |name: &str| node.attributes.iter().find(|(n, _)| *n == name).map(|(_, a)| a);
        match self {
            Condition::Types { operand: index, types } => {
                operand(*index).and_then(|o| o.dtype).is_none_or(|t| types.contains(&t))
            }
            Condition::Rank { operand: index, lowest, highest } => operand(*index)
                .and_then(|o| o.shape.as_ref())
                .is_none_or(|s| (*lowest..=*highest).contains(&s.len())),
            Condition::Constant { operand: index } => operand(*index).is_none_or(|o| o.constant),
            Condition::Fixed { operand: index } => {
                operand(*index).and_then(|o| o.shape.as_ref()).is_none_or(|s| s.iter().all(Option::is_some))
            }
            Condition::NonNegative { operand: index } => operand(*index)
                .and_then(|o| o.integers.as_ref())
                .is_none_or(|integers| integers.iter().all(|&i| i >= 0)),
            Condition::Int { attribute: name, default, values } => match attribute(name) {
                Some(Attribute::Int(value)) => values.contains(value),
                Some(_) => false,
                None => values.contains(default),
            },
            Condition::Float { attribute: name, value } => match attribute(name) {
                Some(Attribute::Float(found)) => found == value,
                Some(_) => false,
                None => true,
            },
            Condition::Text { attribute: name, default, values } => match attribute(name) {
                Some(Attribute::Text(value)) => values.contains(&value.as_str()),
                Some(_) => false,
                None => values.contains(default),
            },
            Condition::EqualParts => {
                let shapes: Option<Vec<_>> = node.results.iter().map(|r| r.shape.as_ref()).collect();
                shapes.is_none_or(|shapes| shapes.windows(2).all(|pair| pair[0] == pair[1]))
            }
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
    ("Gelu", "x/√2, Erf, +1, ·x, ·½, which runtimes fuse"),
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
