//! A TOML file table by table: each value with its bounds, each mistake with its line.

use std::ops::{Range, RangeInclusive};

use emo_proto::plain::plain;
use emo_proto::{Error, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Letters of a value that an error shows.
const SHOWN: usize = 60;
/// Letters of a key that may be a slip of another: comparing takes its length times the other's.
const LONGEST_SLIP: usize = 100;

/// A text and what errors call it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub text: &'a str,
    pub place: &'a str,
}

impl<'a> Source<'a> {
    pub fn parse(self) -> Result<Spanned<DeTable<'a>>> {
        DeTable::parse(self.text).map_err(|cause| {
            let words: Vec<&str> = cause.message().lines().collect();
            let why = format!("expected TOML, found a mistake: {}", words.join(", "));
            self.refuse(&cause.span().unwrap_or_default(), why)
        })
    }

    /// An error at the line where `span` starts.
    pub fn refuse(self, span: &Range<usize>, why: String) -> Error {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Error::new(why).at(format!("{}:{line}", self.place))
    }
}

/// As much of `text` as a line of an error holds, without what moves a cursor.
pub(super) fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", plain(&line[..end])),
        None => plain(line).into_owned(),
    }
}

/// A table whose keys are all known.
#[derive(Debug, Clone)]
pub(super) struct Section<'a, 'i> {
    pub source: Source<'a>,
    table: &'a DeTable<'i>,
    /// Where it starts.
    span: Range<usize>,
}

impl<'a, 'i> Section<'a, 'i> {
    /// # Errors
    /// The table has a key that is not of `known`.
    pub fn new(
        source: Source<'a>,
        table: &'a DeTable<'i>,
        span: Range<usize>,
        known: &[&str],
    ) -> Result<Self> {
        let unknown = table.keys().find(|key| !known.contains(&key.get_ref().as_ref()));
        if let Some(key) = unknown {
            let name = key.get_ref();
            let likeness = |other: &&str| (strsim::normalized_levenshtein(name, other) * 1000.0) as u32;
            let near = known.iter().copied().filter(|_| name.len() <= LONGEST_SLIP).max_by_key(likeness);
            let advice = match near.filter(|near| likeness(near) >= 500) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", known.join(", ")),
            };
            return Err(source.refuse(&key.span(), format!("expected no key {}; {advice}", shown(name))));
        }
        Ok(Self { source, table, span })
    }

    pub fn find(&self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.table.get(key)
    }

    pub fn get(&self, key: &str) -> Result<&'a Spanned<DeValue<'i>>> {
        self.find(key)
            .ok_or_else(|| self.source.refuse(&self.span, format!("expected a key {key}, found none")))
    }

    /// That `key` should be `what`, and is `value`.
    pub fn expected(&self, key: &str, what: &str, value: &Spanned<DeValue<'i>>) -> Error {
        let found = self.source.text.get(value.span()).unwrap_or_default();
        self.source.refuse(&value.span(), format!("{key}: expected {what}, found {}", shown(found)))
    }

    pub fn whole(&self, key: &str, bounds: RangeInclusive<usize>) -> Result<usize> {
        let value = self.get(key)?;
        let number =
            value.get_ref().as_integer().and_then(|n| usize::from_str_radix(n.as_str(), n.radix()).ok());
        number.filter(|number| bounds.contains(number)).ok_or_else(|| {
            let what = format!("a whole number from {} to {}", bounds.start(), bounds.end());
            self.expected(key, &what, value)
        })
    }

    /// A number above 0.
    pub fn number(&self, key: &str, most: f64) -> Result<f64> {
        let value = self.get(key)?;
        let number: Option<f64> = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64)
            }
            _ => None,
        };
        number
            .filter(|number| *number > 0.0 && *number <= most)
            .ok_or_else(|| self.expected(key, &format!("a number above 0, {most} at most"), value))
    }

    pub fn string(&self, key: &str) -> Result<(Range<usize>, &'a str)> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Ok((value.span(), text)),
            None => Err(self.expected(key, "a text in quotes", value)),
        }
    }

    /// Whether `key` is true; it may be left out.
    pub fn flag(&self, key: &str) -> Result<bool> {
        self.find(key).map_or(Ok(false), |value| {
            value.get_ref().as_bool().ok_or_else(|| self.expected(key, "true or false", value))
        })
    }

    pub fn one_of<T: Copy>(&self, key: &str, rows: &[(&str, T)]) -> Result<T> {
        let value = self.get(key)?;
        let name = value.get_ref().as_str();
        rows.iter().find(|(row, _)| Some(*row) == name).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<String> = rows.iter().map(|(row, _)| format!("\"{row}\"")).collect();
            self.expected(key, &names.join(" or "), value)
        })
    }
}
