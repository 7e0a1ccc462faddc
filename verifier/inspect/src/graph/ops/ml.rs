//! `ai.onnx.ml`: classical models, whose numbers stand in attributes.

use std::sync::Arc;

use emo_proto::tensor_proto::DataType;

use super::elementwise::{like, same};
use super::{Ctx, Row, Why};
use crate::cost::Work;
use crate::fact::{Fact, Kind};
use crate::sym::Expr;

pub(super) const ROWS: &[Row] = &[
    Row::free("ArrayFeatureExtractor", array_feature_extractor),
    Row::free("Binarizer", same),
    Row::free("CastMap", cast_map),
    Row::free("CategoryMapper", category_mapper),
    Row::free("DictVectorizer", dict_vectorizer),
    Row::free("FeatureVectorizer", feature_vectorizer),
    Row::free("Imputer", same),
    Row::free("LabelEncoder", label_encoder),
    Row { name: "LinearClassifier", rule: classifier, work: linear, weights: &[] },
    Row { name: "LinearRegressor", rule: |ctx| regressor(ctx, "targets"), work: linear, weights: &[] },
    Row::free("Normalizer", to_float),
    Row::free("OneHotEncoder", one_hot_encoder),
    Row { name: "SVMClassifier", rule: svm_classifier, work: svm, weights: &[] },
    Row { name: "SVMRegressor", rule: |ctx| regressor(ctx, ""), work: svm, weights: &[] },
    Row::free("Scaler", to_float),
    Row::free("TreeEnsemble", |ctx| Ok(vec![Fact { dtype: ctx.dtype(0)?, ..target(ctx, "n_targets")? }])),
    Row::free("TreeEnsembleClassifier", classifier),
    Row::free("TreeEnsembleRegressor", |ctx| regressor(ctx, "n_targets")),
    Row::free("ZipMap", zip_map),
];

fn to_float(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    Ok(vec![like(ctx.input(0)?, DataType::Float)])
}

/// Samples of `[N, features]`; one of `[features]`.
fn samples(ctx: &Ctx) -> Result<Expr, Why> {
    match ctx.dims(0)? {
        [] => Err("expected [N, features], found a number".to_owned()),
        [_] => Ok(1.into()),
        [samples, ..] => Ok(samples.clone()),
    }
}

/// The labels of a classifier: how many, and their type.
fn labels(ctx: &Ctx) -> Result<(usize, DataType), Why> {
    for ints in ["classlabels_int64s", "classlabels_ints"] {
        if let Some(labels) = ctx.ints(ints).filter(|labels| !labels.is_empty()) {
            return Ok((labels.len(), DataType::Int64));
        }
    }
    match ctx.attribute("classlabels_strings").map(|a| a.strings.len()) {
        Some(labels) if labels > 0 => Ok((labels, DataType::String)),
        _ => Err("expected labels of the classes, found none".to_owned()),
    }
}

fn classes(ctx: &Ctx, scores: usize, dtype: DataType) -> Result<Vec<Fact>, Why> {
    let scored = ctx.shaped(DataType::Float, || Ok(vec![samples(ctx)?, scores.into()]))?;
    Ok(vec![ctx.shaped(dtype, || Ok(vec![samples(ctx)?]))?, scored])
}

/// A label for each sample, and the scores of all classes.
fn classifier(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let (labels, dtype) = labels(ctx)?;
    classes(ctx, labels, dtype)
}

/// Without probabilities a kernel machine scores pairs of classes.
fn svm_classifier(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let (labels, dtype) = labels(ctx)?;
    let given = |name: &str| ctx.floats(name).is_some_and(|values| !values.is_empty());
    let pairs = given("support_vectors") && !given("prob_a") && labels > 2;
    classes(ctx, if pairs { labels.saturating_mul(labels - 1) / 2 } else { labels }, dtype)
}

fn regressor(ctx: &Ctx, targets: &str) -> Result<Vec<Fact>, Why> {
    Ok(vec![target(ctx, targets)?])
}

fn target(ctx: &Ctx, targets: &str) -> Result<Fact, Why> {
    ctx.shaped(DataType::Float, || Ok(vec![samples(ctx)?, ctx.int(targets, 1).into()]))
}

/// A multiply-add for each coefficient and sample.
fn linear(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    products(ctx, "coefficients")
}

/// A multiply-add for each number of the support vectors, or of the planes where there are none;
/// kernels and the decision over them are not counted.
fn svm(ctx: &Ctx, _: &[Fact]) -> Result<Work, Why> {
    let vectors = ctx.floats("support_vectors").is_some_and(|vectors| !vectors.is_empty());
    products(ctx, if vectors { "support_vectors" } else { "coefficients" })
}

fn products(ctx: &Ctx, weights: &str) -> Result<Work, Why> {
    let weights: Expr = ctx.floats(weights).map_or(0, <[f32]>::len).into();
    Ok(Work::Linear { macs: &samples(ctx)? * &weights, bias: 0.into() })
}

/// `x: [N, F]`, indices `y` → `[N, as many as y]`.
fn array_feature_extractor(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let picked = ctx.input(1)?.count();
        Ok(match ctx.dims(0)? {
            [before @ .., _] if !before.is_empty() => before.iter().cloned().chain([picked]).collect(),
            _ => vec![1.into(), picked],
        })
    };
    Ok(vec![ctx.shaped(ctx.dtype(0)?, dims)?])
}

fn cast_map(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = match ctx.text("cast_to").unwrap_or("TO_FLOAT") {
        "TO_STRING" => DataType::String,
        "TO_INT64" => DataType::Int64,
        _ => DataType::Float,
    };
    let entries = match ctx.text("map_form") {
        Some("SPARSE") => ctx.int("max_map", 1).into(),
        _ => Expr::unknown("how many entries a map has is known only when the graph runs"),
    };
    Ok(vec![Fact::new(dtype, vec![1.into(), entries])])
}

fn category_mapper(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = if ctx.dtype(0)? == DataType::String { DataType::Int64 } else { DataType::String };
    Ok(vec![like(ctx.input(0)?, dtype)])
}

fn dict_vectorizer(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dtype = match &ctx.input(0)?.kind {
        Kind::Map(_, value) => value.dtype,
        _ => DataType::Undefined,
    };
    let strings = ctx.attribute("string_vocabulary").map_or(0, |a| a.strings.len());
    let words = ctx.ints("int64_vocabulary").map_or(0, <[i64]>::len).max(strings);
    Ok(vec![Fact::new(dtype, vec![1.into(), words.into()])])
}

fn feature_vectorizer(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let dims = || {
        let features = match ctx.ints("inputdimensions") {
            Some(dimensions) => dimensions.iter().map(|&n| Expr::Number(n)).sum(),
            None => {
                let last = |i| ctx.dims(i).map(|dims| dims.last().cloned().unwrap_or(1.into()));
                (0..ctx.inputs.len()).map(last).collect::<Result<Vec<_>, _>>()?.into_iter().sum()
            }
        };
        Ok(vec![samples(ctx)?, features])
    };
    Ok(vec![ctx.shaped(DataType::Float, dims)?])
}

/// The type of the values that stand for the keys; in the first opset strings become numbers,
/// and numbers strings.
fn label_encoder(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let values = [
        ("values_int64s", DataType::Int64),
        ("values_floats", DataType::Float),
        ("values_strings", DataType::String),
    ];
    let tensor = ctx.attribute("values_tensor").and_then(|a| a.t.as_ref());
    let listed = values.into_iter().find(|(name, _)| ctx.attribute(name).is_some()).map(|(_, dtype)| dtype);
    match tensor.map(|t| DataType::try_from(t.data_type()).unwrap_or(DataType::Undefined)).or(listed) {
        Some(dtype) => Ok(vec![like(ctx.input(0)?, dtype)]),
        None => category_mapper(ctx),
    }
}

/// One axis more than the input, over the categories.
fn one_hot_encoder(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let strings = ctx.attribute("cats_strings").map_or(0, |a| a.strings.len());
    let categories = ctx.ints("cats_int64s").map_or(0, <[i64]>::len).max(strings);
    let dims = || Ok(ctx.dims(0)?.iter().cloned().chain([categories.into()]).collect());
    Ok(vec![ctx.shaped(DataType::Float, dims)?])
}

/// For each sample a map from label to score.
fn zip_map(ctx: &Ctx) -> Result<Vec<Fact>, Why> {
    let map = Kind::Map(labels(ctx)?.1, Arc::new(Fact::scalar(DataType::Float)));
    Ok(vec![Fact::sequence(Fact::of_kind(map), None)])
}
