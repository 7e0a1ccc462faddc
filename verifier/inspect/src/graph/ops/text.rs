//! Strings.

use emo_proto::tensor_proto::DataType;

use super::elementwise::{broadcast, like};
use super::{Ctx, Row, Why};
use crate::fact::Fact;
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row::free("RegexFullMatch", matches_pattern),
    Row::free("StringConcat", concat),
    Row::free("StringNormalizer", normalize),
    Row::free("StringSplit", split),
    Row::free("TfIdfVectorizer", tf_idf),
];

fn matches_pattern(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![like(ctx.input(0)?, DataType::Bool)])
}

fn concat(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![ctx.shaped(DataType::String, || broadcast(&[ctx.dims(0)?, ctx.dims(1)?]))?])
}

/// Stop words go: `[words]` or `[1, words]`, how many the data decide.
fn normalize(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let output = ctx.shaped(DataType::String, || {
        let kept = || Expr::unknown("how many words stay is known only when the graph runs");
        match ctx.dims(0)? {
            dims if ctx.attribute("stopwords").is_none_or(|a| a.strings.is_empty()) => Ok(dims.to_vec()),
            [_] => Ok(vec![kept()]),
            [one, _] => Ok(vec![one.clone(), kept()]),
            other => Err(format!("expected [words] or [1, words], found {other:?}")),
        }
    })?;
    Ok(vec![output])
}

/// The parts along a new axis, as long as the longest, and how many there are of each.
fn split(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let x = ctx.input(0)?;
    let parts = ctx.shaped(DataType::String, || {
        let longest = Expr::unknown("into how many parts a string falls is known only when the graph runs");
        Ok([ctx.dims(0)?, &[longest]].concat())
    })?;
    Ok(vec![parts, like(x, DataType::Int64)])
}

/// `[words]` or `[batch, words]`: a column an index.
fn tf_idf(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let indexes = ctx.ints("ngram_indexes").unwrap_or_default();
    let columns = indexes.iter().max().map_or(0, |&last| last.saturating_add(1));
    let output = ctx.shaped(DataType::Float, || match ctx.dims(0)? {
        [] | [_] => Ok(vec![columns.into()]),
        [batch, _] => Ok(vec![batch.clone(), columns.into()]),
        other => Err(format!("expected [words] or [batch, words], found {other:?}")),
    })?;
    Ok(vec![output])
}
