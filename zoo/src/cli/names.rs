//! The names that arguments take, from the tables that have them; what is none of them is told all that there are.

use std::ffi::OsStr;
use std::path::Path;

use clap::builder::{PossibleValue, TypedValueParser};
use emo_exporter::models::{DENSE, MODELS, Model, own};
use emo_exporter::profile::{OPSETS, Opset, PROFILES, Profile};
use emo_exporter::target::Output;
use emo_verifier::compare::{TOLERANCES, Tolerance};
use emo_verifier::runtime::{ENGINES, Engine};

use crate::pattern::{self, SPELLED, near};

/// The rows of a table by name: help lists them.
#[derive(Clone)]
pub struct Named<T: 'static> {
    what: &'static str,
    find: fn(&str) -> Result<Option<T>, String>,
    all: fn() -> Vec<String>,
}

/// What a name or a pattern means of a table: a row or several.
#[derive(Debug, Clone)]
pub struct Chosen<T>(Vec<T>);

/// All that was chosen, in the order in which it was asked for.
pub fn all<T: Clone>(chosen: &[Chosen<T>]) -> Vec<T> {
    chosen.iter().flat_map(|Chosen(rows)| rows).cloned().collect()
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
            let all = all();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let unknown = || format!("expected {what} {}, found {name}", near(&all, name));
            find(name)?.ok_or_else(unknown)
        };
        parse.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let all = (self.all)();
        // Of more, `emo list` has them with their figures.
        let few = all.len() <= SPELLED;
        few.then(|| {
            Box::new(all.into_iter().map(PossibleValue::new)) as Box<dyn Iterator<Item = PossibleValue>>
        })
    }
}

const MODEL: &str = "a TOML file that describes a model, or a model of emo list";

/// A published model, or the file of a network of one's own.
pub fn model() -> Named<Model> {
    Named { what: MODEL, find: published_or_own, all: models }
}

/// The same, or a pattern of published models' names.
pub fn several_models() -> Named<Chosen<Model>> {
    let find = |text: &str| match Path::new(text).exists() {
        // A file may be called anything.
        true => Ok(published_or_own(text)?.map(|model| Chosen(vec![model]))),
        false => several(text, &models(), MODEL, published_or_own, |name| Model::named(name).cloned()),
    };
    Named { what: MODEL, find, all: models }
}

pub fn target() -> Named<&'static Profile> {
    Named { what: "a target", find: |name| Ok(Profile::named(name)), all: targets }
}

/// A target, or a pattern of their names.
pub fn several_targets() -> Named<Chosen<&'static Profile>> {
    let find =
        |text: &str| several(text, &targets(), "a target", |name| Ok(Profile::named(name)), Profile::named);
    Named { what: "a target", find, all: targets }
}

/// What `text` means: by `one` where it is a name, of `names` all that match where it is a pattern.
fn several<T>(
    text: &str,
    names: &[String],
    what: &str,
    one: impl Fn(&str) -> Result<Option<T>, String>,
    named: impl Fn(&str) -> Option<T>,
) -> Result<Option<Chosen<T>>, String> {
    if !pattern::is_pattern(text) {
        return Ok(one(text)?.map(|row| Chosen(vec![row])));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = pattern::matching(text, &names, what).map_err(|error| error.to_string())?;
    Ok(Some(Chosen(found.into_iter().filter_map(named).collect())))
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

fn targets() -> Vec<String> {
    PROFILES.iter().map(|profile| profile.name.to_owned()).collect()
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
