//! What a run of a file shows, beside a reference that all files of a model share.

use emo_exporter::models::{Model, Task};
use emo_exporter::weights::Weights;
use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result};
use emo_verifier::compare::{FLOAT32, FLOAT32_DEEP, Tolerance};
use emo_verifier::earned::MOST_EARNED;
use emo_verifier::probe;
use emo_verifier::reference::Reference;
use emo_verifier::runtime::{ENGINES, Engine, Runtime as _, Tract};
use emo_verifier::truth::{Row, Truth};
use emo_verifier::verify::probes::{Probed, probes};
use emo_verifier::verify::{FEWEST, PROBES};
use rayon::prelude::*;

use super::checkpoints::Checkpoints;
use super::entry::{Numerics, upper_bound};
use super::recipe::Recipe;

fn near(recorded: f64, measured: f64) -> bool {
    recorded <= measured * SPREAD && measured <= recorded * SPREAD
}

/// Shows what is being done while it is.
pub trait Watch: Sync {
    fn during(&self, what: &str, work: &mut dyn FnMut());
}

/// Does `work` while `watch` shows `what`.
pub fn during<T>(watch: &dyn Watch, what: &str, work: impl FnOnce() -> T) -> T {
    let (mut work, mut result) = (Some(work), None);
    watch.during(what, &mut || result = work.take().map(|work| work()));
    result.expect("who watches lets the work be done")
}

/// A model's weights, and what the f64 reference gives with them.
pub struct Evidence {
    pub weights: Weights,
    truth: Option<Truth>,
}

/// The name of what files of a model and its weights have in common.
#[must_use]
pub fn key(recipe: &Recipe) -> String {
    let origin = recipe.weights.origin().map_or(String::new(), |origin| origin.to_string());
    format!("{:?} with {origin}", recipe.model)
}

impl Evidence {
    /// What all files of the recipe's model and weights share; `None` where `checkpoints` lack the weights. Without a
    /// `run` the weights alone.
    ///
    /// # Errors
    /// The weights are not those of the model.
    pub fn of(
        recipe: &Recipe,
        checkpoints: &Checkpoints,
        run: bool,
        watch: &dyn Watch,
    ) -> Result<Option<Self>> {
        let Some(weights) = checkpoints.supply(recipe) else { return Ok(None) };
        let truth = match run {
            true => Some(during(watch, &format!("{}, the reference", recipe.model.name), || {
                truth(recipe, &weights)
            })?),
            false => None,
        };
        Ok(Some(Self { weights, truth }))
    }

    /// Runs a file of the weights on the probes; `None` where no run was asked for.
    ///
    /// # Errors
    /// The engine does not take the file, or its logits have no measure.
    pub fn numerics(&self, file: &OnnxFile) -> Result<Option<Numerics>> {
        let Some(truth) = &self.truth else { return Ok(None) };
        let tolerance = truth.tolerance();
        let measured = truth.measure(file, &Tract, tolerance);
        let measured = measured.map_err(|failure| Error::new(failure.to_string()))?;
        if let Some((row, reason)) = measured.iter().find_map(|row| Some((row, row.reason.as_ref()?))) {
            return Err(Error::new(reason).at("logits").at(&row.name));
        }
        Ok(Some(Numerics::new(Tract.name(), tolerance, &measured)))
    }
}

/// Inputs that a file of the model is run on, and those that a run has at least: a detector or a segmenter has a value
/// for each pixel to be wrong in.
#[must_use]
pub fn inputs(model: &Model) -> usize {
    if model.task() == Task::Classify { PROBES } else { FEWEST }
}

/// The reference's outputs, input by input side by side.
fn truth(recipe: &Recipe, weights: &Weights) -> Result<Truth> {
    let model = &recipe.model;
    let reference = Reference::new(model, weights)?;
    let probes = probes(inputs(model), Some(1), recipe.target.size);
    let rows = probes.into_par_iter().map(|probe| Row::new(&reference, probe));
    let rows = rows.collect::<Result<_>>()?;
    Ok(Truth::new(reference, rows, model.task()))
}

/// How far the figures of two runs may be apart, as a factor: processors differ in an engine's last bits. Half of an
/// upper bound of two digits is no more than 0.55 of what it bounds, so that no half and no double passes.
const SPREAD: f64 = 1.75;

impl Numerics {
    /// What is recorded of the rows of a run.
    #[must_use]
    pub fn new(runtime: &str, tolerance: &Tolerance, rows: &[Probed]) -> Self {
        let largest = |figures: &mut dyn Iterator<Item = f64>| figures.fold(0.0, f64::max);
        let max_abs = |row: &Probed| row.difference.map_or(f64::INFINITY, |d| d.max_abs);
        Self {
            runtime: runtime.to_owned(),
            probes: rows.iter().map(|row| row.name.clone()).collect(),
            tolerance: tolerance.name.to_owned(),
            bound: upper_bound(tolerance.bound),
            max_abs: upper_bound(largest(&mut rows.iter().map(max_abs))),
            of_largest: upper_bound(largest(&mut rows.iter().map(Probed::unexplained))),
            holds: !rows.is_empty() && rows.iter().all(|row| row.within(tolerance)),
        }
    }

    /// The fields in which a run made anew shows something else than what is recorded, with both sides.
    #[must_use]
    pub fn refuted(&self, measured: &Self) -> Vec<(&'static str, String, String)> {
        let exact = [
            ("numerics.runtime", self.runtime == measured.runtime),
            ("numerics.probes", self.probes == measured.probes),
            ("numerics.tolerance", self.tolerance == measured.tolerance),
            ("numerics.bound", near(self.bound, measured.bound)),
            ("numerics.holds", self.holds == measured.holds),
            ("numerics.max_abs", near(self.max_abs, measured.max_abs)),
            ("numerics.of_largest", near(self.of_largest, measured.of_largest)),
        ];
        let side = |numerics: &Self, field: &str| {
            let value = serde_json::to_value(numerics).unwrap_or_default();
            field
                .split_once('.')
                .and_then(|(_, name)| value.get(name))
                .map_or(String::new(), ToString::to_string)
        };
        let differing = exact.into_iter().filter(|(_, equal)| !equal);
        differing.map(|(field, _)| (field, side(self, field), side(measured, field))).collect()
    }

    /// What contradicts itself in a record of a run: no byte of a file tells it.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        let Some(tolerance) = Tolerance::named(&self.tolerance) else {
            return Some(format!("expected a tolerance of emo's, found {:?}", self.tolerance));
        };
        if Engine::named(&self.runtime).is_none() {
            let engines: Vec<_> = ENGINES.iter().map(|engine| engine.name).collect();
            return Some(format!("expected a run in {}, found {:?}", engines.join(" or "), self.runtime));
        }
        // As they are numbered, so that an input has one name.
        let numbered = |n: &str| n.parse::<u64>().is_ok_and(|number| number.to_string() == n);
        let known = |probe: &String| {
            probe.strip_prefix("noise-").is_some_and(numbered)
                || probe == probe::OWN_NOISE
                || probe::PROBES.iter().any(|row| row.name == probe)
        };
        let figure = |x: f64| x.is_finite() && x >= 0.0 && upper_bound(x) == x;
        // f32 has one bound; what a coarser file is allowed is what it earns.
        let earned = match tolerance.name == FLOAT32.name {
            true => [FLOAT32.bound, FLOAT32_DEEP.bound].contains(&self.bound),
            false => figure(self.bound) && (FLOAT32.bound..=upper_bound(MOST_EARNED)).contains(&self.bound),
        };
        if !earned {
            Some(format!("expected a bound that {} can have, found {:e}", tolerance.name, self.bound))
        } else if self.probes.is_empty() || !self.probes.iter().all(known) {
            Some(format!("expected inputs that emo knows, found {:?}", self.probes))
        } else if !figure(self.max_abs) || !figure(self.of_largest) {
            Some(format!("expected errors of two digits, found {:e} and {:e}", self.max_abs, self.of_largest))
        } else if !self.holds || upper_bound(self.bound) < self.of_largest {
            Some(format!("expected an error within {:e}, found {:e}", self.bound, self.of_largest))
        } else {
            None
        }
    }
}
