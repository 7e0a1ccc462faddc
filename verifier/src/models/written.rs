//! The verdict on a file of ours: its counts against the published ones, its function
//! against the reference.

use std::collections::BTreeSet;

use bytes::Bytes;
use emo_exporter::weights::{Weights, formula};
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_proto::{Error, ModelProto, Result};
use ndarray::{Array4, ArrayD};
use serde::Serialize;

use crate::audit::{Audit, audit};
use crate::compare::{Difference, FLOAT16, FLOAT32, Tolerance, compare, top1};
use crate::identity::Identity;
use crate::image::Image;
use crate::infer::Bindings;
use crate::models::figures::{Published, published};
use crate::probe::runnable;
use crate::reference::Reference;
use crate::runtime::Runtime;

/// Images in the probe of a file whose batch is free.
const FREE_BATCH: usize = 3;
/// Seed of the probe: the formula's input, as in the goldens.
const PROBE_SEED: u64 = 0;

/// A count of the file, of what rewriting removed (or, where negative, added), and of the published model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    pub file: u64,
    pub removed: i64,
    /// `None` where nothing is published for this input size or class count.
    pub published: Option<u64>,
}

impl Reconciled {
    #[must_use]
    pub fn total(&self) -> u64 {
        self.file.saturating_add_signed(self.removed)
    }

    #[must_use]
    pub fn holds(&self) -> bool {
        self.published.is_none_or(|published| published == self.total())
    }
}

/// The file's counts beside the published ones.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    pub params: Reconciled,
    pub macs: Reconciled,
    pub fvcore: Reconciled,
    pub published: Option<&'static Published>,
    pub holds: bool,
}

/// The engine's answer beside the reference's.
#[derive(Debug, Clone, Serialize)]
pub struct Numerics {
    pub runtime: &'static str,
    /// Shape of the probe, `[N, 3, H, W]`; its elements are the formula's.
    pub probe: Vec<usize>,
    pub tolerance: Tolerance,
    #[serde(flatten)]
    pub difference: Difference,
    /// Images whose largest logit agrees, of how many.
    pub top1: (usize, usize),
    pub holds: bool,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub code: &'static str,
    pub message: String,
}

/// Counts `model` at batch 1 where its batch is free, and sets them beside the published ones.
#[must_use]
pub fn count(model: &ModelProto, identity: &Identity) -> (Audit, Claim) {
    let audit = audit(model, &Bindings::from([("batch".to_owned(), 1)]));
    let published = published(&identity.model.name).filter(|_| identity.is_published());
    let sum = |of: fn(&emo_exporter::rewrite::Rewrite) -> i64| {
        identity.rewrites.iter().map(of).fold(0, i64::saturating_add)
    };
    let totals = &audit.totals;
    let reconciled = |file: &crate::sym::Expr, removed, published| Reconciled {
        file: file.count().unwrap_or(0),
        removed,
        published,
    };
    let params = reconciled(&totals.params, sum(|r| r.parameters), published.map(|p| p.exact_params));
    let macs = reconciled(&totals.cost.macs, sum(|r| r.macs), published.map(|p| p.exact_macs));
    let fvcore = reconciled(&totals.cost.fvcore, sum(|r| r.fvcore), published.map(|p| p.exact_fvcore));
    let printed = published.is_none_or(|p| p.prints(params.total(), fvcore.total()));
    let holds = printed && audit.uncounted.is_empty() && [&params, &macs, &fvcore].iter().all(|c| c.holds());
    (audit, Claim { params, macs, fvcore, published, holds })
}

/// Runs the file and the reference on one probe.
///
/// # Errors
/// The engine does not take the file, or the weights are not those of the model.
pub fn numerics(
    bytes: &Bytes,
    identity: &Identity,
    weights: &Weights,
    runtime: &dyn Runtime,
) -> Result<Numerics> {
    let Probe { input, normalised } = Probe::of(identity)?;
    let file = OnnxFile::from_bytes(bytes.clone(), External::none())?;
    let shape = input.shape().to_vec();
    let mut session = runtime.prepare(&file, &[(input_name(&file.model), shape.clone())], &[])?;
    let outputs = session.run(&[input])?;
    let truth = Reference::new(&identity.model, weights)?.logits(&normalised, None);
    let tolerance = if identity.half { FLOAT16 } else { FLOAT32 };
    let candidate: Vec<f32> = outputs.iter().flatten().copied().collect();
    let difference = compare(&candidate, &truth).map_err(|e| e.at("logits"))?;
    Ok(Numerics {
        runtime: runtime.name(),
        probe: shape,
        tolerance,
        difference,
        top1: top1(&candidate, &truth, identity.model.classes),
        holds: tolerance.admits(&difference),
    })
}

/// What a file of ours is run on, and what the reference makes of it.
#[derive(Debug, Clone)]
pub struct Probe {
    /// As the file takes it: `[N, 3, H, W]` normalised, or the bytes of images `[N, H, W, 3]`.
    pub input: ArrayD<f32>,
    /// `[N, 3, H, W]`.
    pub normalised: Array4<f64>,
}

impl Probe {
    /// The formula's input, within ±√3; of an image that spread over 0 to 255.
    ///
    /// # Errors
    /// It is too large to run here.
    pub fn of(identity: &Identity) -> Result<Self> {
        let batch = identity.batch.unwrap_or(FREE_BATCH);
        let (height, width) = identity.size;
        let shape = [batch, 3, height, width];
        runnable(&shape)
            .map_err(|error| Error::new(format!("{error}; such a file is written without running it")))?;
        let noise = Array4::from_shape_vec(shape, formula::input(&shape, PROBE_SEED)).map_err(Error::new)?;
        let (image, input) = match identity.image {
            false => (Image::FLOATS, noise),
            true => {
                (Image::BYTES, noise.mapv(|x| ((f64::from(x) / 3_f64.sqrt() + 1.0) * 127.5).round() as f32))
            }
        };
        let input = image.lay(input.into_dyn());
        let normalised = image.map(&input).ok_or_else(|| Error::new("expected an input of four axes"))?;
        Ok(Self { input, normalised })
    }
}

/// What a file of ours calls its one input.
fn input_name(model: &ModelProto) -> String {
    model.graph.iter().flat_map(|g| &g.input).map(|i| i.name().to_owned()).next().unwrap_or_default()
}

/// Everything in `identity` and `audit` that contradicts the profile or the published model.
#[must_use]
pub fn findings(model: &ModelProto, identity: &Identity, audit: &Audit, claim: &Claim) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |code, message| findings.push(Finding { code, message });
    for node in &audit.uncounted {
        find("uncounted", format!("{} {}: {}", node.operator, node.node, node.reason));
    }
    for (code, what, count) in [
        ("params-differ", "parameters", &claim.params),
        ("macs-differ", "multiply-adds", &claim.macs),
        ("fvcore-differ", "FLOPs (fvcore)", &claim.fvcore),
    ] {
        if let Some(published) = count.published.filter(|_| !count.holds()) {
            let (file, removed) = (count.file, count.removed);
            find(code, format!("expected {published} {what}, found {file} in the file and {removed} folded"));
        }
    }
    if audit.highest_rank > HIGHEST_RANK {
        find(
            "rank",
            format!("expected tensors of rank {HIGHEST_RANK} at most, found {}", audit.highest_rank),
        );
    }
    if let Err(difference) = state_dict(model, identity) {
        find("initializers", difference);
    }
    let opset = emo_exporter::profile::Opset::version(identity.opset);
    match opset {
        Some(opset) if opset.ir_version == identity.ir_version => {}
        _ => find(
            "opset",
            format!(
                "opset {} with ir_version {} is no pair that emo writes",
                identity.opset, identity.ir_version
            ),
        ),
    }
    findings
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

/// Every profile stays within the rank that all runtimes take.
const HIGHEST_RANK: usize = 4;
