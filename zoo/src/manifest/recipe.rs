//! How a file is written again: its model, profile, opset and weights.

use emo_exporter::models::{DENSE, MODELS, Model, own};
use emo_exporter::profile::{Opset, Profile};
use emo_exporter::target::{Output, Target};
use emo_exporter::weights::Weights;
use emo_proto::{Error, Result};
use emo_verifier::identity::Identity;

use super::Manifest;
use super::about;
use super::entry::{Entry, Provenance, TOOL};

/// A published model, as it is built: its published size, classes and outputs, one image, float32.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    pub model: Model,
    pub target: Target,
    pub weights: Provenance,
}

impl Recipe {
    #[must_use]
    pub fn new(model: Model, profile: &'static Profile, opset: &'static Opset, weights: Provenance) -> Self {
        let target = Target { opset, ..model.target(profile) };
        Self { model, target, weights }
    }

    /// Of a file that says what it is.
    ///
    /// # Errors
    /// No build writes such a file.
    pub fn of(identity: &Identity, weights: Provenance) -> Result<Self> {
        // A network of one's own has the classes that its definition says.
        let classes = Model::named(&identity.model.name).unwrap_or(&identity.model).classes;
        let interface = |(height, width): (usize, usize), batch: &str, classes: usize, output: Output| {
            let output = output.name();
            format!("[{batch}, 3, {height}, {width}] → {output} of {classes} classes")
        };
        let (size, output) = (identity.model.published_size(), identity.model.output_forms()[0]);
        let batch = identity.batch.map_or("N".to_owned(), |n| n.to_string());
        let built = interface(size, "1", classes, output);
        let found = interface(identity.size, &batch, identity.model.classes, identity.output);
        if found != built {
            return Err(Error::new(format!("expected {built}, as a build writes, found {found}")));
        }
        let opset = opset(identity.opset)?;
        Ok(Self::new(identity.model.clone(), identity.profile, opset, weights))
    }

    /// Of an entry that a build recorded.
    ///
    /// # Errors
    /// It names a model, a profile or an opset that this version does not have.
    pub fn read(entry: &Entry) -> Result<Self> {
        let model = model(entry)?;
        let profile = entry.profile.as_deref().unwrap_or_default();
        let profile = Profile::named(profile).ok_or_else(|| {
            Error::new(format!("expected a profile of emo's, found {profile:?}")).at("profile")
        })?;
        Ok(Self::new(model, profile, opset(entry.opset_version)?, entry.weights.clone()))
    }

    /// Where the file goes, in the store's folder. What is untrained says so in its name.
    #[must_use]
    pub fn path(&self) -> String {
        let Target { profile, opset, .. } = self.target;
        let (model, profile, opset) = (&self.model.name, profile.name, opset.version);
        let untrained = self.weights.seed().map_or(String::new(), |seed| format!("_formula-{seed}"));
        let window = self.model.other_window().map_or(String::new(), |side| format!("_window{side}"));
        format!("{model}/{model}{window}_{profile}_opset{opset}{untrained}.onnx")
    }

    /// The command that writes the file again. A checkpoint has no name here: its digest is in the entry.
    #[must_use]
    pub fn command(&self) -> String {
        self.spelled("target")
    }

    /// The same as older entries have it, which called targets profiles.
    #[must_use]
    pub fn older_command(&self) -> String {
        self.spelled("profile")
    }

    fn spelled(&self, target: &str) -> String {
        let Target { profile, opset, .. } = self.target;
        let weights = match self.weights.seed() {
            Some(seed) => format!("formula:{seed}"),
            None => "CHECKPOINT".to_owned(),
        };
        // The definition of a network of one's own is in the entry: as a file it is called after the network.
        let suffix = if self.model.is_own() { ".toml" } else { "" };
        let window = self.model.other_window().map_or(String::new(), |side| format!("window {side} --"));
        format!(
            "emo export {}{suffix} --{window}{target} {} --opset {} --weights {weights}",
            self.model.name, profile.name, opset.version
        )
    }

    /// Whether an entry is what this recipe would record, so that an unchanged file needs no work.
    #[must_use]
    pub fn is_of(&self, entry: &Entry) -> bool {
        let mut told = entry.clone();
        about::describe(&mut told, &self.model);
        about::interface(&mut told, &self.model, self.model.output_forms()[0]);
        entry.tool == TOOL
            && Self::read(entry).is_ok_and(|recipe| recipe == *self)
            && entry.numerics.is_some()
            && told == *entry
    }

    /// The weights of a formula; `None` where they are a checkpoint's.
    #[must_use]
    pub fn formula(&self) -> Option<Weights> {
        let parameters = self.model.parameters();
        self.weights.seed().map(|seed| Weights::formula(seed, &parameters))
    }
}

/// The model of an entry: a published one, with the windows that it tells, or that of its definition.
///
/// # Errors
/// This version has no such model, or the definition is none, or another model's; it has no such windows.
pub fn model(entry: &Entry) -> Result<Model> {
    let unknown = |found: &str| Error::new(format!("expected a model of emo's, found {found:?}")).at("model");
    let Some(lines) = &entry.definition else {
        let model = Model::named(&entry.model).ok_or_else(|| unknown(&entry.model))?;
        return entry.window.map_or_else(|| Ok(model.clone()), |side| model.windowed(side));
    };
    let model = own::read(&lines.join("\n"), "definition")?;
    if model.name == entry.model && model.is_own() { Ok(model) } else { Err(unknown(&model.name)) }
}

/// The published models, and the networks of one's own that entries define.
#[must_use]
pub fn models(manifest: &Manifest) -> Vec<Model> {
    let mut models: Vec<Model> = MODELS.iter().chain(&*DENSE).cloned().collect();
    for model in manifest.entries().filter_map(|entry| model(entry).ok()).filter(Model::is_own) {
        if !models.contains(&model) {
            models.push(model);
        }
    }
    models
}

fn opset(version: i64) -> Result<&'static Opset> {
    Opset::version(version)
        .ok_or_else(|| Error::new(format!("expected an opset of emo's, found {version}")).at("opset_version"))
}
