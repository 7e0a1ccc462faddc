//! What a file's bytes tell: every field of an entry that needs no run and nobody's word.

use emo_exporter::models::Model;
use emo_proto::file::OnnxFile;
use emo_proto::{Error, ModelProto, Result};
use emo_verifier::audit::{self, Audit, tally};
use emo_verifier::finding::Outcome;
use emo_verifier::identity::Identity;
use emo_verifier::image::Image;
use emo_verifier::infer::{Bindings, Inference, infer};
use emo_verifier::models::claim::{self, Claim};
use emo_verifier::sym::Expr;
use emo_verifier::written::{count, findings};
use sha2::{Digest as _, Sha256};

use super::about;
use super::entry::{
    Account, Claimed, Costs, Entry, Extent, Input, Metadata, NOT_STATED, Port, Ports, Provenance, SCHEMA,
    TOOL,
};
use super::lint::lint;
use super::recipe::Recipe;

/// The first release of ONNX that knows an opset: `onnx.helper.VERSION_TABLE`.
const RELEASES: [(i64, &str); 25] = [
    (1, "1.0"),
    (5, "1.1"),
    (6, "1.1.2"),
    (7, "1.2"),
    (8, "1.3"),
    (9, "1.4.1"),
    (10, "1.5.0"),
    (11, "1.6.0"),
    (12, "1.7.0"),
    (13, "1.8.0"),
    (14, "1.9.0"),
    (15, "1.10.0"),
    (16, "1.11.0"),
    (17, "1.12.0"),
    (18, "1.13.0"),
    (19, "1.14.0"),
    (20, "1.15.0"),
    (21, "1.16.0"),
    (22, "1.17.0"),
    (23, "1.18.0"),
    (24, "1.19.0"),
    (25, "1.20.0"),
    (26, "1.21.0"),
    (27, "1.22.0"),
    (28, "1.23.0"),
];

/// Small letters, two a byte.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// The entry of a file that this project wrote, but for what a run shows; and what contradicts it in the file.
///
/// # Errors
/// It is no file of this project's.
pub fn written(file: &OnnxFile, weights: Provenance) -> Result<(Entry, Vec<String>)> {
    let identity = Identity::read(&file.model)?;
    let (audit, claim) = count(&file.model, &identity);
    let found = findings(&file.model, &identity, &audit, &claim);
    let found = found.into_iter().filter(|finding| finding.outcome() != Outcome::Pass);
    let mut against: Vec<String> = found.map(|f| format!("{}: {}", f.code, f.message)).collect();
    match weights.origin() {
        Some(origin) if origin.to_string() == identity.weights => {}
        _ => against
            .push(format!("expected other weights: the file says that its own are {}", identity.weights)),
    }
    let recipe = Recipe::of(&identity, weights.clone())?;
    let free = infer(&file.model, &Bindings::new());
    let mut entry = plain(file, &identity.model.name, &recipe.path(), &audit, &free)?;
    entry.profile = Some(identity.profile.name.to_owned());
    entry.claim = Some(claimed(&identity.model.name, &claim, &entry));
    let own = identity.profile.name;
    if let Some(broken) = entry.lint.get(own).filter(|lint| lint.violations > 0) {
        against.push(format!("{} nodes break the rules of the target {own}", broken.violations));
    }
    if weights.seed().is_some() {
        entry.metadata.tags.push("untrained".to_owned());
        entry.metadata.tags.sort_unstable();
    }
    entry.weights = weights;
    about::describe(&mut entry, &identity.model);
    about::interface(&mut entry, &identity.model, identity.output);
    entry.tool = format!("{} {}", file.model.producer_name(), file.model.producer_version());
    entry.command = Some(recipe.command());
    Ok((entry, against))
}

/// The entry of anybody's file called `name` that claims to be a `model`, or nothing; but for what a run shows.
///
/// # Errors
/// The file has no name that a manifest takes, or no opset.
pub fn third_party(
    file: &OnnxFile,
    name: &str,
    path: &str,
    model: Option<&Model>,
) -> Result<(Entry, Vec<String>)> {
    let free = infer(&file.model, &Bindings::new());
    let audit = tally(&file.model, &infer(&file.model, &one_image(&file.model, &free)));
    let mut entry = plain(file, name, path, &audit, &free)?;
    let mut against = Vec::new();
    if let Some(model) = model {
        let found = claim::check(&free, model);
        if let Some(reason) = found.reason.as_ref().filter(|_| !found.holds) {
            against.push(reason.clone());
        }
        entry.claim = Some(claimed(name, &found, &entry));
        // The windows are what the file shows and not what somebody says.
        about::describe(&mut entry, &Model::told(&found.model).unwrap_or_else(|| model.clone()));
    }
    Ok((entry, against))
}

/// A claim as it is recorded, beside the counts of the file's entry.
fn claimed(model: &str, claim: &Claim, entry: &Entry) -> Claimed {
    // Figures of another input or head say nothing of this file.
    let published = claim.published.as_ref().filter(|_| !claim.holds || claim.reason.is_none());
    let account = |file: Option<u64>, total: Option<i64>, published: Option<&str>| {
        let (file, model) = (file.unwrap_or(0), total.and_then(|t| u64::try_from(t).ok()).unwrap_or(0));
        let folded = model.cast_signed().saturating_sub(file.cast_signed());
        Account { file, folded, model, published: published.map(str::to_owned) }
    };
    // FLOPs of a detector or a segmenter were published under other conventions, or without the last resize.
    let params = published.map(|p| p.params).or_else(|| claim.dense.map(|dense| dense.params));
    Claimed {
        model: model.to_owned(),
        parameters: account(entry.parameters, claim.params, params),
        fvcore: account(entry.costs.fvcore, claim.fvcore, published.map(|p| p.flops)),
        holds: claim.holds,
    }
}

/// The fields that need no claim: costs from `audit`, of one image; the interface from `inference`, with every free
/// extent free, for an entry tells it as the file has it.
fn plain(file: &OnnxFile, model: &str, path: &str, audit: &Audit, inference: &Inference) -> Result<Entry> {
    let opset = audit
        .opsets
        .get("ai.onnx")
        .copied()
        .ok_or_else(|| Error::new("expected an opset of ONNX's, found none"))?;
    let newest = RELEASES[RELEASES.len() - 1];
    let (_, release) = RELEASES.into_iter().find(|(version, _)| *version >= opset).unwrap_or(newest);
    let free = tally(&file.model, inference);
    let figure = |count: &Expr| count.count().filter(|_| !audit.is_lower_bound());
    let cost = &audit.totals.cost;
    let tags = Model::named(model).map_or(Vec::new(), about::tags);
    Ok(Entry {
        schema: SCHEMA.to_owned(),
        model: model.to_owned(),
        model_path: path.to_owned(),
        onnx_version: release.to_owned(),
        opset_version: opset,
        metadata: Metadata {
            model_sha: sha256(&file.bytes),
            model_bytes: file.bytes.len() as u64,
            tags: tags.into_iter().map(str::to_owned).collect(),
            io_ports: Ports { inputs: ports(&free.inputs), outputs: ports(&free.outputs) },
        },
        task: None,
        definition: None,
        window: None,
        profile: None,
        dtype: dtype(audit),
        input: image(&free.inputs, inference),
        preprocessing: None,
        classes: None,
        published: None,
        parameters: figure(&audit.totals.params),
        costs: Costs {
            macs: figure(&cost.macs),
            flops: figure(&cost.flops),
            fvcore: figure(&cost.fvcore),
            mmcv: figure(&cost.mmcv),
        },
        claim: None,
        numerics: None,
        lint: lint(&file.model, inference),
        weights: Provenance::own(),
        license: NOT_STATED.to_owned(),
        paper: None,
        source: None,
        tool: TOOL.to_owned(),
        command: None,
    })
}

fn port(port: &audit::Port) -> Port {
    let extent = |extent: &Expr| match extent.count() {
        Some(n) => Extent::Size(n),
        None => Extent::Name(extent.to_string()),
    };
    Port {
        name: port.name.clone(),
        shape: port.shape.as_ref().map(|shape| shape.iter().map(extent).collect()),
        r#type: format!("tensor({})", port.dtype),
        meaning: None,
    }
}

fn ports(ports: &[audit::Port]) -> Vec<Port> {
    ports.iter().map(port).collect()
}

/// The image that a file takes: its one input of four axes, one of which has three channels.
fn image(inputs: &[audit::Port], inference: &Inference) -> Option<Input> {
    let [port] = inputs else { return None };
    let fact = inference.values.get(port.name.as_str())?;
    let image = Image::of(fact)?;
    let [n, _, h, w] = image.extents(fact.dims.as_deref().ok()?).filter(|[_, three, ..]| three.is(3))?;
    let layout = if image.axes == Image::FLOATS.axes { "NCHW" } else { "NHWC" };
    Some(Input { layout: layout.to_owned(), batch: n.count(), height: h.count()?, width: w.count()? })
}

/// One for every free extent that stands first in an input: the batch.
fn one_image(model: &ModelProto, free: &Inference) -> Bindings {
    let shapes = model
        .graph
        .iter()
        .flat_map(audit::inputs)
        .filter_map(|input| free.values.get(input.name())?.dims.as_ref().ok());
    let batches = shapes.filter_map(|shape| shape.first()).flat_map(Expr::symbols);
    batches.map(|name| (name.to_string(), 1)).collect()
}

/// The element type that most of the file's elements have.
fn dtype(audit: &Audit) -> String {
    let by_type = audit.stored.by_type.iter();
    let most = by_type.max_by_key(|stored| stored.elements.count().unwrap_or(0));
    match most.map(|stored| stored.dtype.as_str()) {
        Some("float") => "f32".to_owned(),
        Some("float16") => "f16".to_owned(),
        Some("bfloat16") => "bf16".to_owned(),
        Some("double") => "f64".to_owned(),
        Some(other) => other.to_owned(),
        None => "none".to_owned(),
    }
}
