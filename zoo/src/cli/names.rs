//! The names that arguments take; what is none of them is told all that there are.

use emo_exporter::models::{MODELS, Model};
use emo_exporter::profile::{OPSETS, Opset, PROFILES, Profile};
use emo_verifier::compare::{TOLERANCES, Tolerance};
use emo_verifier::runtime::{ENGINES, Engine};

pub fn model(name: &str) -> Result<Model, String> {
    named("a model", name, Model::named(name).cloned(), MODELS.iter().map(|model| &model.name))
}

pub fn profile(name: &str) -> Result<&'static Profile, String> {
    named("a profile", name, Profile::named(name), PROFILES.iter().map(|profile| profile.name))
}

pub fn opset(text: &str) -> Result<&'static Opset, String> {
    let found = text.parse().ok().and_then(Opset::version);
    named("an opset", text, found, OPSETS.iter().map(|opset| opset.version))
}

pub fn engine(name: &str) -> Result<&'static Engine, String> {
    named("a runtime", name, Engine::named(name), ENGINES.iter().map(|engine| engine.name))
}

pub fn tolerance(name: &str) -> Result<&'static Tolerance, String> {
    named("a tolerance", name, Tolerance::named(name), TOLERANCES.iter().map(|tolerance| tolerance.name))
}

fn named<T>(
    what: &str,
    name: &str,
    found: Option<T>,
    all: impl Iterator<Item = impl ToString>,
) -> Result<T, String> {
    found.ok_or_else(|| {
        let all: Vec<String> = all.map(|name| name.to_string()).collect();
        format!("expected {what} out of {}, found {name}", all.join(", "))
    })
}
