//! The names that arguments take, from the tables that have them; what is none of them is told all that there are.

use std::ffi::OsStr;
use std::path::Path;

use clap::builder::{PossibleValue, TypedValueParser};
use emo_exporter::models::{DENSE, MODELS, Model, own};
use emo_exporter::profile::{OPSETS, Opset, PROFILES, Profile};
use emo_exporter::target::Output;
use emo_verifier::compare::{TOLERANCES, Tolerance};
use emo_verifier::runtime::{ENGINES, Engine};

/// The rows of a table by name: help lists them.
#[derive(Clone)]
pub struct Named<T: 'static> {
    what: &'static str,
    find: fn(&str) -> Result<Option<T>, String>,
    all: fn() -> Vec<String>,
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Named<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        // Of its own, since a parser outlives what it parses.
        let Self { what, find, all } = self.clone();
        let parse = move |name: &str| {
            let unknown = || format!("expected {what} {}, found {name}", out_of(all(), name));
            find(name)?.ok_or_else(unknown)
        };
        parse.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let all = (self.all)();
        // More than a reader would look through: `emo list` has them with their figures.
        let few = all.len() <= SPELLED;
        few.then(|| {
            Box::new(all.into_iter().map(PossibleValue::new)) as Box<dyn Iterator<Item = PossibleValue>>
        })
    }
}

/// Names that are told all; of more the nearest.
const SPELLED: usize = 20;
const NEAREST: usize = 3;

fn out_of(mut all: Vec<String>, name: &str) -> String {
    if all.len() <= SPELLED {
        return format!("out of {}", all.join(", "));
    }
    all.sort_by(|a, b| strsim::jaro_winkler(b, name).total_cmp(&strsim::jaro_winkler(a, name)));
    format!("of emo list (the nearest are {})", all[..NEAREST].join(", "))
}

/// A published model, or the file of a network of one's own.
pub fn model() -> Named<Model> {
    Named { what: "a TOML file that describes a model, or a model", find: published_or_own, all: models }
}

pub fn target() -> Named<&'static Profile> {
    let all = || PROFILES.iter().map(|profile| profile.name.to_owned()).collect();
    Named { what: "a target", find: |name| Ok(Profile::named(name)), all }
}

pub fn opset() -> Named<&'static Opset> {
    let all = || OPSETS.iter().map(|opset| opset.version.to_string()).collect();
    Named { what: "an opset", find: |text| Ok(text.parse().ok().and_then(Opset::version)), all }
}

pub fn output() -> Named<Output> {
    let all = || Output::ALL.map(|output| output.name().to_owned()).to_vec();
    Named { what: "an output", find: |name| Ok(Output::named(name)), all }
}

pub fn engine() -> Named<&'static Engine> {
    let all = || ENGINES.iter().map(|engine| engine.name.to_owned()).collect();
    Named { what: "a runtime", find: |name| Ok(Engine::named(name)), all }
}

pub fn tolerance() -> Named<&'static Tolerance> {
    let all = || TOLERANCES.iter().map(|tolerance| tolerance.name.to_owned()).collect();
    Named { what: "a tolerance", find: |name| Ok(Tolerance::named(name)), all }
}

fn models() -> Vec<String> {
    MODELS.iter().chain(&*DENSE).map(|model| model.name.to_string()).collect()
}

fn published_or_own(name: &str) -> Result<Option<Model>, String> {
    let path = Path::new(name);
    let is_toml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    match Model::named(name) {
        Some(model) => Ok(Some(model.clone())),
        None if is_toml || path.exists() => own::open(path).map(Some).map_err(|error| error.to_string()),
        None => Ok(None),
    }
}
