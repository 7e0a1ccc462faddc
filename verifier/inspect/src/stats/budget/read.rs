//! Reads a budget, and says what is wrong with one.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use emo_proto::{Error, Result, file};
use serde_json::{Map, Value};

use super::{Budget, Limit, Range};

impl FromStr for Budget {
    type Err = Error;

    /// Reads TOML; JSON where the text begins with a brace.
    fn from_str(text: &str) -> Result<Self> {
        let value: Value = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|cause| Error::new(format!("not a JSON budget: {cause}")))?
        } else {
            let cause =
                |cause: toml::de::Error| Error::new(format!("not a TOML budget: {}", one_line(&cause)));
            toml::from_str(text).map_err(cause)?
        };
        match &value {
            Value::Object(table) => budget(table),
            other => Err(Error::new(format!("expected a table of limits, found {other}"))),
        }
    }
}

/// Bytes of a budget.
const LARGEST: u64 = 1 << 20;

impl Budget {
    /// Reads the budget at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or holds a key or a value that is no limit.
    pub fn open(path: &Path) -> Result<Self> {
        file::text(path, LARGEST)?.parse().map_err(|error: Error| error.at(path.display()))
    }
}

/// A parser's message and its place, without the picture of the line.
fn one_line(cause: &toml::de::Error) -> String {
    cause.to_string().lines().filter(|line| !line.contains('|')).collect::<Vec<_>>().join(": ")
}

fn budget(table: &Map<String, Value>) -> Result<Budget> {
    let keys = Limit::ALL.map(Limit::key);
    let others = ["ir_version", "opset", "operators", "scopes"];
    let known: Vec<&str> = keys.into_iter().chain(others).collect();
    let mut budget = Budget { limits: limits(table, &Limit::ALL, &known)?, ..Budget::default() };
    for (key, value) in table {
        let at = |error: Error| error.at(key);
        match key.as_str() {
            "ir_version" => budget.ir_version = range(value).map_err(at)?,
            "opset" => budget.opset = range(value).map_err(at)?,
            "operators" => {
                let lists = object(value).map_err(at)?;
                known_keys(lists, &["allow", "deny"]).map_err(at)?;
                let list = |key: &str| lists.get(key).map(names).transpose().map_err(|e| at(e.at(key)));
                budget.allow = list("allow")?.map(|names| names.into_iter().collect());
                budget.deny = list("deny")?.unwrap_or_default().into_iter().collect();
            }
            "scopes" => {
                let known = Limit::OF_SCOPES.map(Limit::key);
                for (scope, value) in object(value).map_err(at)? {
                    let limits = object(value).and_then(|table| limits(table, &Limit::OF_SCOPES, &known));
                    budget.scopes.insert(scope.clone(), limits.map_err(|e| at(e.at(scope)))?);
                }
            }
            _ => {}
        }
    }
    Ok(budget)
}

/// The limits in `table`, whose keys must be `known`.
fn limits(table: &Map<String, Value>, limits: &[Limit], known: &[&str]) -> Result<BTreeMap<Limit, u64>> {
    known_keys(table, known)?;
    let found = limits.iter().filter_map(|limit| Some((*limit, table.get(limit.key())?)));
    found
        .map(|(limit, value)| {
            let number = value.as_u64().ok_or_else(|| {
                Error::new(format!("expected a whole number, found {value}")).at(limit.key())
            })?;
            Ok((limit, number))
        })
        .collect()
}

fn known_keys(table: &Map<String, Value>, known: &[&str]) -> Result<()> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Error::new(match nearest(key, known.iter().copied()) {
            Some(near) => format!("there is no limit {key}; did you mean {near}?"),
            None => format!("there is no limit {key}; there are {}", known.join(", ")),
        })),
    }
}

/// Letters of a name that may be a slip of another: comparing takes its length times the other's.
const LONGEST_SLIP: usize = 100;

/// The name that `name` may be a slip of.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |other: &str| (strsim::normalized_damerau_levenshtein(name, other) * 1000.0) as u32;
    let likely = known.filter(|_| name.len() <= LONGEST_SLIP).max_by_key(|other| likeness(other));
    likely.filter(|other| likeness(other) >= 600)
}

fn object(value: &Value) -> Result<&Map<String, Value>> {
    value.as_object().ok_or_else(|| Error::new(format!("expected a table, found {value}")))
}

fn names(value: &Value) -> Result<Vec<String>> {
    let names = value.as_array().and_then(|list| {
        list.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
    });
    names.ok_or_else(|| Error::new(format!("expected a list of operators, found {value}")))
}

/// `{ min = 13, max = 20 }`, or the maximum alone.
fn range(value: &Value) -> Result<Range> {
    let number = |value: &Value| {
        value.as_i64().ok_or_else(|| Error::new(format!("expected a whole number, found {value}")))
    };
    let Value::Object(table) = value else { return Ok(Range { min: None, max: Some(number(value)?) }) };
    known_keys(table, &["min", "max"])?;
    let bound = |key: &str| table.get(key).map(number).transpose().map_err(|e| e.at(key));
    Ok(Range { min: bound("min")?, max: bound("max")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_say_the_same() {
        let toml = "params = 10\nopset = { min = 13, max = 20 }\nir_version = 8\n\
                    [operators]\ndeny = [\"Einsum\"]\n[scopes.\"stage3.1\"]\nmacs = 5\n";
        let json = r#"{ "params": 10, "opset": { "min": 13, "max": 20 }, "ir_version": 8,
                        "operators": { "deny": ["Einsum"] }, "scopes": { "stage3.1": { "macs": 5 } } }"#;
        let budget: Budget = toml.parse().unwrap();
        assert_eq!(budget, json.parse().unwrap());
        assert_eq!(budget.opset, Range { min: Some(13), max: Some(20) });
        assert_eq!(budget.scopes["stage3.1"][&Limit::Macs], 5);
    }

    #[test]
    fn a_long_name_is_compared_with_nothing() {
        let start = std::time::Instant::now();
        let name = "p".repeat(1 << 19);
        let message = format!("{name} = 1").parse::<Budget>().unwrap_err().to_string();
        assert!(message.starts_with("there is no limit ppp") && message.contains("; there are params"));
        assert!(start.elapsed() < std::time::Duration::from_secs(1), "{:?}", start.elapsed());
    }

    #[test]
    fn mistakes_are_told() {
        for (text, message) in [
            ("parms = 1", "there is no limit parms; did you mean params?"),
            ("params = \"1M\"", "params: expected a whole number, found \"1M\""),
            ("params = -1", "params: expected a whole number, found -1"),
            (
                "[scopes.a]\nfile_sise = 1",
                "scopes: a: there is no limit file_sise; there are params, macs, flops, fvcore, mmcv",
            ),
            ("[operators]\ndenny = []", "operators: there is no limit denny; did you mean deny?"),
            ("opset = { min = 1, mx = 2 }", "opset: there is no limit mx; did you mean max?"),
            (
                "[operators]\nallow = \"Conv\"",
                "operators: allow: expected a list of operators, found \"Conv\"",
            ),
        ] {
            assert_eq!(text.parse::<Budget>().unwrap_err().to_string(), message);
        }
    }
}
