//! What a file of ours says of itself, held to what its graph shows: the counts that its structure accounts for, its
//! target's promises, its function beside the reference.

use std::collections::BTreeSet;

use emo_exporter::profile::Opset;
use emo_exporter::target::Output;
use emo_exporter::weights::{Weights, formula};
use emo_proto::file::OnnxFile;
use emo_proto::{Error, ModelProto, Result};
use ndarray::{ArrayD, IxDyn};

use super::claim::{self, Claim};
use super::plan::Count;
use crate::audit::{Audit, tally};
use crate::finding::{Finding, Severity};
use crate::identity::Identity;
use crate::image::Image;
use crate::infer::{Bindings, infer};
use crate::probe::runnable;
use crate::reference::Reference;
use crate::runtime::Runtime;
use crate::verify::port::Port;
use crate::verify::probes::{Bench, Probe, Probed};

/// Images in the test input of a file whose batch is free.
const FREE_BATCH: usize = 3;
/// Seed of the test input: the formula's, as in the goldens.
const PROBE_SEED: u64 = 0;
/// Every profile stays within the rank that all runtimes take.
const HIGHEST_RANK: usize = 4;

/// Counts `model` at batch 1 where its batch is free, and accounts for what is not there as the model has it.
#[must_use]
pub fn count(model: &ModelProto, identity: &Identity) -> (Audit, Claim) {
    let inference = infer(model, &Bindings::from([("batch".to_owned(), 1)]));
    (tally(model, &inference), claim::check(&inference, &identity.model))
}

/// Runs the file and the reference on one input.
///
/// # Errors
/// The engine does not take the file, its answer has no measure, or the weights are not those of the model.
pub fn numerics(
    file: &OnnxFile,
    identity: &Identity,
    weights: &Weights,
    runtime: &dyn Runtime,
) -> Result<Probed> {
    let probe = probe(identity)?;
    let lacking = |what: &str| Error::new(format!("expected {what}, found none"));
    let port = Port::of(&file.model, &Bindings::new()).ok_or_else(|| lacking("an input of images"))?;
    let bench = Bench::new(file, &port, identity.output, runtime, identity.tolerance())?;
    let reference = Reference::new(&identity.model, weights)?;
    let row = bench.run(&reference, &[probe])?.pop().ok_or_else(|| lacking("an answer"))?;
    match row.reason {
        Some(reason) => Err(Error::new(reason).at("logits")),
        None => Ok(row),
    }
}

/// What a file of ours is run on: the formula's input, within ±√3; of an image that spread over 0 to 255.
///
/// # Errors
/// It is too large to run here.
pub fn probe(identity: &Identity) -> Result<Probe> {
    let (height, width) = identity.size;
    let shape = [identity.batch.unwrap_or(FREE_BATCH), 3, height, width];
    runnable(&shape)
        .map_err(|error| Error::new(format!("{error}; such a file is written without running it")))?;
    let noise = ArrayD::from_shape_vec(IxDyn(&shape), formula::input(&shape, PROBE_SEED));
    let noise = noise.map_err(Error::new)?;
    let input = match identity.image {
        false => noise,
        true => {
            Image::BYTES.lay(noise.mapv(|x| ((f64::from(x) / 3_f64.sqrt() + 1.0) * 127.5).round() as f32))
        }
    };
    Ok(Probe { name: format!("formula {PROBE_SEED}"), input, recorded: None })
}

/// Everything in the file that contradicts its target, its own words or the model.
#[must_use]
pub fn findings(model: &ModelProto, identity: &Identity, audit: &Audit, claim: &Claim) -> Vec<Finding> {
    let uncounted = audit.findings("").into_iter().map(|finding| Finding { file: None, ..finding });
    let rows = [
        ("claim", contradicted(identity, claim)),
        ("rewrites", misrecorded(identity, audit, claim)),
        ("rank", rank(audit)),
        ("initializers", state_dict(model, identity).err()),
        ("opset", opset(identity)),
    ];
    let finding = |(code, message): (&'static str, Option<String>)| {
        let (severity, place, message) = (Severity::Error, String::new(), message?);
        Some(Finding { code, severity, place, message, file: None })
    };
    uncounted.chain(rows.into_iter().filter_map(finding)).collect()
}

/// Why the file is not the model that it says it is, by its structure.
fn contradicted(identity: &Identity, claim: &Claim) -> Option<String> {
    let said = identity.model.to_string();
    match claim.holds {
        false => claim.reason.clone(),
        true if claim.model != said => {
            Some(format!("expected {said}, as the file says, found {}", claim.model))
        }
        true => None,
    }
}

/// What the writer recorded of its rewrites is what the structure shows: two witnesses that know nothing of each other.
fn misrecorded(identity: &Identity, audit: &Audit, claim: &Claim) -> Option<String> {
    // A file whose last resize is left to who reads it has nothing to record of that: the account names it.
    if identity.output == Output::LogitsSmall {
        return None;
    }
    // Parameters are there once, work is done for every image.
    let images = identity.batch.unwrap_or(1) as i64;
    let model = Count {
        params: claim.params?,
        macs: claim.macs?.saturating_mul(images),
        fvcore: claim.fvcore?.saturating_mul(images),
    };
    let number = |expr: &crate::sym::Expr| expr.count().map_or(0, u64::cast_signed);
    let (totals, removed) = (&audit.totals, identity.removed());
    let [params, macs, fvcore] = [&totals.params, &totals.cost.macs, &totals.cost.fvcore].map(number);
    let file = Count { params, macs, fvcore };
    (file + removed != model).then(|| {
        format!("expected {model}, as the structure shows, found {file} in the file and {removed} recorded as folded")
    })
}

fn rank(audit: &Audit) -> Option<String> {
    let found = audit.highest_rank;
    (found > HIGHEST_RANK).then(|| format!("expected tensors of rank {HIGHEST_RANK} at most, found {found}"))
}

fn opset(identity: &Identity) -> Option<String> {
    let Identity { opset, ir_version, .. } = identity;
    let known = Opset::version(*opset).is_some_and(|known| known.ir_version == *ir_version);
    (!known).then(|| format!("opset {opset} with ir_version {ir_version} is no pair that emo writes"))
}

/// The reference profile's initializers are the published state dict, name for name.
fn state_dict(model: &ModelProto, identity: &Identity) -> Result<(), String> {
    if identity.profile.forms.fold {
        return Ok(());
    }
    let parameters = identity.model.parameters();
    let expected: BTreeSet<(&str, Vec<i64>)> =
        parameters.iter().map(|p| (p.name.as_str(), p.shape.iter().map(|&d| d as i64).collect())).collect();
    let initializers = model.graph.iter().flat_map(|g| &g.initializer);
    let found: BTreeSet<_> = initializers.map(|i| (i.name(), i.dims.clone())).collect();
    match expected.symmetric_difference(&found).next() {
        None => Ok(()),
        Some((name, dims)) if found.contains(&(*name, dims.clone())) => {
            Err(format!("expected the published state dict alone, found {name} {dims:?} too"))
        }
        Some((name, dims)) => {
            Err(format!("expected {name} {dims:?} of the published state dict, found none"))
        }
    }
}
