//! Operator schemas: facts of the public specification, read from `schemas.txt`.
//!
//! `schemas.py` writes that file from the pinned `onnx` package and describes its lines;
//! `tests/peers/checker.py` fails where it is stale.

use std::sync::LazyLock;

use emo_proto::attribute_proto::AttributeType;

use crate::hash::HashMap;

/// A set of types, a bit each: see [`type_name`].
pub type Types = u128;

/// One version of an operator.
#[derive(Debug)]
pub struct Schema {
    /// The operator set that brought this version.
    pub since: i64,
    pub deprecated: bool,
    /// Whether nodes may have attributes that the schema does not list.
    pub open: bool,
    pub inputs: Formals,
    pub outputs: Formals,
    pub attributes: Vec<Attribute>,
}

/// The inputs, or the outputs, of an operator.
#[derive(Debug)]
pub struct Formals {
    pub counts: Counts,
    pub list: Vec<Formal>,
}

/// How many inputs or outputs a node may have; absent ones in between count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counts {
    Range(usize, Option<usize>),
    Only(Vec<usize>),
}

#[derive(Debug)]
pub struct Formal {
    pub name: &'static str,
    pub mark: Mark,
    /// The type variable, or the type itself; formals of one variable have one type.
    pub variable: &'static str,
    pub types: Types,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Required,
    Optional,
    /// Any number, all of one type.
    Variadic,
    /// Any number, each of its own type.
    Heterogeneous,
}

#[derive(Debug)]
pub struct Attribute {
    pub name: &'static str,
    pub kind: AttributeType,
    pub required: bool,
}

impl Formals {
    /// The formal of an actual input or output; the last one takes all that follow.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Formal> {
        self.list.get(index).or_else(|| self.list.last().filter(|f| f.mark.is_variadic()))
    }
}

impl Mark {
    #[must_use]
    pub const fn is_variadic(self) -> bool {
        matches!(self, Self::Variadic | Self::Heterogeneous)
    }
}

impl Counts {
    #[must_use]
    pub fn allow(&self, count: usize) -> bool {
        match self {
            Self::Range(low, high) => count >= *low && high.is_none_or(|high| count <= high),
            Self::Only(counts) => counts.contains(&count),
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Range(low, None) => write!(f, "at least {low}"),
            Self::Range(low, Some(high)) if low == high => write!(f, "{low}"),
            Self::Range(low, Some(high)) => write!(f, "{low} to {high}"),
            Self::Only(counts) => {
                let words: Vec<_> = counts.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(" or "))
            }
        }
    }
}

/// The versions of an operator, oldest first; empty where the specification has none.
#[must_use]
pub fn versions(domain: &str, name: &str) -> &'static [Schema] {
    let domain = TABLE.operators.get(canonical(domain));
    domain.and_then(|operators| operators.get(name)).map_or(&[], Vec::as_slice)
}

/// The version of an operator that an operator set has.
#[must_use]
pub fn find(domain: &str, name: &str, opset: i64) -> Option<&'static Schema> {
    versions(domain, name).iter().rev().find(|schema| schema.since <= opset)
}

/// The operators that a domain has had.
pub fn names(domain: &str) -> impl Iterator<Item = &'static str> + use<> {
    TABLE.operators.get(canonical(domain)).into_iter().flat_map(HashMap::keys).copied()
}

/// The newest known operator set of a domain of the specification.
#[must_use]
pub fn newest(domain: &str) -> Option<i64> {
    TABLE.domains.get(canonical(domain)).copied()
}

/// The domain's one name: `ai.onnx` for ONNX's own, which most files leave empty.
#[must_use]
pub fn canonical(domain: &str) -> &str {
    if domain.is_empty() { "ai.onnx" } else { domain }
}

/// The bit of a type in [`Types`].
#[must_use]
pub fn type_bit(name: &str) -> Option<usize> {
    TABLE.numbers.get(name).copied()
}

/// The type of a bit: `tensor(float)`, `seq(tensor(int64))`.
#[must_use]
pub fn type_name(bit: usize) -> &'static str {
    TABLE.types.get(bit).copied().unwrap_or("?")
}

/// The types of a set, for a message: a few by name, more by number.
#[must_use]
pub fn describe(types: Types) -> String {
    let names: Vec<_> = (0..128).filter(|bit| types >> bit & 1 == 1).map(type_name).collect();
    match names.as_slice() {
        [] => "no type".to_owned(),
        [rest @ .., last] if names.len() <= 6 && !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        [first, second, third, ..] if names.len() > 6 => {
            format!("{first}, {second}, {third} or {} more types", names.len() - 3)
        }
        _ => names.join(", "),
    }
}

#[derive(Default)]
struct Table {
    domains: HashMap<&'static str, i64>,
    types: Vec<&'static str>,
    numbers: HashMap<&'static str, usize>,
    sets: Vec<Types>,
    operators: HashMap<&'static str, HashMap<&'static str, Vec<Schema>>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table::default();
    for line in include_str!("schemas.txt").lines().filter(|line| !line.starts_with('#')) {
        table.read(line).unwrap_or_else(|| unreachable!("schemas.txt is tested whole: {line}"));
    }
    table
});

impl Table {
    fn read(&mut self, line: &'static str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        if kind == "op" {
            return self.operator(rest);
        }
        let (first, second) = rest.split_once(' ')?;
        match kind {
            "domain" => {
                self.domains.insert(first, second.parse().ok()?);
            }
            "type" => {
                self.numbers.insert(second, self.types.len());
                self.types.push(second);
            }
            "set" => self.sets.push(Types::from_str_radix(second, 16).ok()?),
            _ => return None,
        }
        Some(())
    }

    fn operator(&mut self, line: &'static str) -> Option<()> {
        let mut parts = line.split('|').map(str::trim);
        let mut head = parts.next()?.split(' ');
        let (domain, name) = (head.next()?, head.next()?);
        let (since, flags) = (head.next()?.parse().ok()?, head.next()?);
        let (inputs, outputs) = (parts.next()?, parts.next()?);
        let variable = |pair: &'static str| -> Option<(&'static str, Types)> {
            let (name, set) = pair.split_once('=')?;
            Some((name, *self.sets.get(set.parse::<usize>().ok()?)?))
        };
        let variables: HashMap<_, _> =
            parts.next()?.split_whitespace().map(variable).collect::<Option<_>>()?;
        let attribute = |word: &'static str| {
            let (name, kind) = word.split_once(':')?;
            let required = kind.ends_with('!');
            let kind = AttributeType::from_str_name(kind.trim_end_matches('!'))?;
            Some(Attribute { name, kind, required })
        };
        let schema = Schema {
            since,
            deprecated: flags.contains('d'),
            open: flags.contains('u'),
            inputs: self.formals(inputs, &variables)?,
            outputs: self.formals(outputs, &variables)?,
            attributes: parts
                .next()
                .unwrap_or("")
                .split_whitespace()
                .map(attribute)
                .collect::<Option<_>>()?,
        };
        self.operators.entry(domain).or_default().entry(name).or_default().push(schema);
        Some(())
    }

    fn formals(&self, part: &'static str, variables: &HashMap<&str, Types>) -> Option<Formals> {
        let mut words = part.split(' ');
        let counts = counts(words.next()?)?;
        let formal = |word: &'static str| {
            let (mark, word) = match word.as_bytes().first()? {
                b'?' => (Mark::Optional, &word[1..]),
                b'*' => (Mark::Variadic, &word[1..]),
                b'+' => (Mark::Heterogeneous, &word[1..]),
                _ => (Mark::Required, word),
            };
            let (name, variable) = word.split_once(':')?;
            let fixed = || self.numbers.get(variable).map(|bit| 1 << bit);
            let types = variables.get(variable).copied().or_else(fixed)?;
            Some(Formal { name, mark, variable, types })
        };
        Some(Formals { counts, list: words.map(formal).collect::<Option<_>>()? })
    }
}

fn counts(word: &str) -> Option<Counts> {
    if word.contains(',') {
        let counts = word.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        return Some(Counts::Only(counts));
    }
    let (low, high) = match word.split_once('-') {
        Some((low, "")) => (low, None),
        Some((low, high)) => (low, Some(high.parse().ok()?)),
        None => (word, Some(word.parse().ok()?)),
    };
    Some(Counts::Range(low.parse().ok()?, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        let lines = include_str!("schemas.txt").lines().filter(|line| line.starts_with("op "));
        let read: usize = TABLE.operators.values().flat_map(HashMap::values).map(Vec::len).sum();
        assert_eq!((lines.count(), TABLE.domains.len()), (read, 4));
        for versions in TABLE.operators.values().flat_map(HashMap::values) {
            assert!(versions.is_sorted_by(|a, b| a.since < b.since));
        }
    }

    #[test]
    fn an_operator_set_has_the_last_version_before_it() {
        let since = |opset| find("", "Gelu", opset).map(|schema| schema.since);
        assert_eq!([since(19), since(20), since(28)], [None, Some(20), Some(20)]);
        let conv = find("ai.onnx", "Conv", 17).unwrap();
        assert_eq!((conv.since, conv.inputs.counts.clone()), (11, Counts::Range(2, Some(3))));
        assert_eq!(describe(conv.inputs.list[0].types), "tensor(double), tensor(float) or tensor(float16)");
        assert_eq!(find("", "BatchNormalization", 15).unwrap().outputs.counts, Counts::Only(vec![1, 3]));
        assert_eq!((newest(""), newest("com.example")), (Some(28), None));
    }
}
