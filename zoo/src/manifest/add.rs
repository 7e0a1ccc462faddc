//! Files that others wrote, taken in with what the judge found.

use std::path::Path;

use emo_exporter::models::Model;
use emo_exporter::weights::{Spec, Weights};
use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result};
use emo_verifier::audit::storage;
use emo_verifier::compare::Tolerance;
use emo_verifier::models::windows::other_window;
use emo_verifier::runtime::Tract;
use emo_verifier::verify::cause::NOT_EMO;
use emo_verifier::verify::{Outcome, Request, Verdict, verify};

use super::build::{Made, record};
use super::entry::{Entry, NOT_STATED, Numerics, Provenance};
use super::facts::third_party;
use super::guard::LARGEST_FILE;
use super::{Store, decode};

/// What is said of a file that no byte of it tells.
#[derive(Debug, Clone, Default)]
pub struct Statement {
    /// The model that it is said to be.
    pub claim: Option<Model>,
    /// The weights that it is said to hold; without, any weights in the model's function pass.
    pub weights: Option<Spec>,
    pub license: Option<String>,
    /// Where it came from.
    pub source: Option<String>,
}

/// How a file fared.
#[derive(Debug)]
pub enum Added {
    /// Its entry, recorded.
    Taken(Box<Entry>),
    /// It is there already, byte for byte.
    Known(String),
    /// Its claim does not hold, in the verifier's words.
    Refused(String),
    /// Neither its claim nor the opposite can be shown.
    Undecided(String),
}

/// Judges the file at `path` and records it in the store, which is locked.
///
/// # Errors
/// The file cannot be read, keeps weights beside itself or has a name that no manifest takes, another file has its place, or the statement's
/// weights cannot be read.
pub fn add(store: &Store, path: &Path, statement: &Statement) -> Result<Added> {
    let mut manifest = store.manifest_or_new()?;
    // By its bytes alone: the store takes single files. A copy, so that what is judged is what is stored.
    let file =
        decode(emo_proto::file::read(path, LARGEST_FILE)?).map_err(|error| error.at(path.display()))?;
    if let Some(location) = storage(&file.model).external.first() {
        let why =
            format!("expected weights inside the file, found some in {location:?}; save it as one file");
        return Err(Error::new(why).at(path.display()));
    }
    // Which published model it is, its layers tell; of one's own they are held to what is said.
    let own = statement.claim.clone().filter(Model::is_own);
    let request = Request { model: own, weights: statement.weights.clone(), ..Request::default() };
    let verdict = verify(&file, None, &request, &Tract).map_err(|error| error.at(path.display()))?;
    let model = match judged(path, &verdict, statement) {
        Ok(model) => model,
        Err(refusal) => return Ok(refusal),
    };
    let (entry, against) = describe(path, &file, &verdict, model.as_ref(), statement)?;
    if let Some(reason) = against.into_iter().next() {
        return Ok(Added::Refused(reason));
    }
    // What emo built is told better by its build than by its bytes.
    let built =
        manifest.entries().find(|e| e.command.is_some() && e.metadata.model_sha == entry.metadata.model_sha);
    if let Some(built) = built {
        return Ok(Added::Known(built.model_path.clone()));
    }
    if let Some(before) = manifest.get(&entry.model_path) {
        if before.metadata.model_sha == entry.metadata.model_sha && *before == entry {
            return Ok(Added::Known(entry.model_path));
        }
        if before.metadata.model_sha != entry.metadata.model_sha {
            let why =
                "expected a new file, found another one of this name in the manifest; give it another name";
            return Err(Error::new(why).at(entry.model_path));
        }
    }
    record(store, &mut manifest, Made { entry: entry.clone(), bytes: file.bytes, against: Vec::new() })?;
    Ok(Added::Taken(Box::new(entry)))
}

/// The model that the file is, or `None` where it neither is nor claims to be one.
fn judged(path: &Path, verdict: &Verdict, statement: &Statement) -> Result<Option<Model>, Added> {
    let words = words(verdict);
    match (verdict.verdict, &statement.claim) {
        (Outcome::Pass, Some(claim)) if claim.is_own() => Ok(Some(claim.clone())),
        (Outcome::Pass, claim) => {
            let found = verdict.model.as_deref().and_then(Model::told);
            let Some((claim, found)) = claim.as_ref().zip(found.as_ref()) else { return Ok(found) };
            if claim.name != found.name {
                return Err(Added::Refused(format!("expected {claim}, found {found}")));
            }
            match other_window(found, Some(claim)) {
                Some(reason) => Err(Added::Refused(reason)),
                None => Ok(Some(found.clone())),
            }
        }
        (Outcome::Fail, None) if verdict.cause == Some(NOT_EMO) && !says_otherwise(path) => Ok(None),
        (Outcome::Fail | Outcome::Unreadable, _) => Err(Added::Refused(words)),
        (Outcome::Undecided, _) => Err(Added::Undecided(words)),
    }
}

/// Whether the file's name is a published model's: a manifest would list it as one.
fn says_otherwise(path: &Path) -> bool {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    stem.is_some_and(|stem| Model::named(&stem).is_some())
}

fn describe(
    path: &Path,
    file: &OnnxFile,
    verdict: &Verdict,
    model: Option<&Model>,
    statement: &Statement,
) -> Result<(Entry, Vec<String>)> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".onnx").unwrap_or(&name);
    let folder = model.map_or(stem, |model| &model.name);
    let place = format!("{folder}/{stem}.onnx");
    super::guard::path(&place, folder).map_err(|error| error.at(path.display()))?;
    let (mut entry, against) = third_party(file, folder, &place, model)?;
    if model.is_some() {
        entry.numerics = Some(numerics(verdict));
    }
    if let Some(spec) = &statement.weights {
        entry.weights = provenance(spec, model, verdict.classes)?;
    }
    entry.license = statement.license.clone().unwrap_or_else(|| NOT_STATED.to_owned());
    entry.source.clone_from(&statement.source);
    Ok((entry, against))
}

/// What a run of the file, which is a published model or the given one of one's own, shows today, and in the verifier's
/// words why it does not pass, if it does not.
///
/// # Errors
/// The weights cannot be read, or the engine does not take the file.
pub fn measured(
    file: &OnnxFile,
    own: Option<Model>,
    weights: Option<Spec>,
) -> Result<(Numerics, Option<String>)> {
    let verdict = verify(file, None, &Request { model: own, weights, ..Request::default() }, &Tract)?;
    let against = (verdict.verdict != Outcome::Pass).then(|| words(&verdict));
    Ok((numerics(&verdict), against))
}

fn numerics(verdict: &Verdict) -> Numerics {
    let (name, bound) = (verdict.tolerance.unwrap_or_default(), verdict.bound.unwrap_or(f64::INFINITY));
    let tolerance = Tolerance { name, bound, why: "" };
    let recorded = Numerics::new(verdict.runtime, &tolerance, &verdict.probes);
    Numerics { holds: verdict.verdict == Outcome::Pass, ..recorded }
}

/// A verdict and its reason.
fn words(verdict: &Verdict) -> String {
    let reason = verdict.reason.clone().unwrap_or_default();
    match verdict.cause {
        Some(cause) => format!("{} {cause}: {reason}", verdict.verdict.name()),
        None => format!("{}: {reason}", verdict.verdict.name()),
    }
}

/// Where the weights came from that the file was held to.
fn provenance(spec: &Spec, model: Option<&Model>, classes: Option<usize>) -> Result<Provenance> {
    match model.zip(classes) {
        Some((model, classes)) => {
            Ok(Provenance::from(Weights::load(spec, &model.with_classes(classes).parameters())?.origin()))
        }
        None => Ok(Provenance::own()),
    }
}
