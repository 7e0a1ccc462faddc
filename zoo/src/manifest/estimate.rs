//! What a build will take, told before its first file is written.

use std::time::Duration;

use emo_exporter::outline;
use emo_proto::Result;
use emo_verifier::audit::audit;
use emo_verifier::infer::Bindings;
use rayon::prelude::*;

use super::build::Plan;
use super::evidence::inputs;
use super::recipe::Recipe;

/// Seconds that one processor takes for what there is of an input's run, in the reference or in the engine, which take
/// about as long; and for each byte of a file, which is folded, written, hashed, read again, held to every target's rules.
/// A fit of the user and system time of builds of classifiers, backbones, detectors and segmenters on a server's
/// processor, all of which it tells to a tenth; other processors differ.
const MULTIPLY_ADD: f64 = 19e-12;
const ACTIVATION: f64 = 1.6e-9;
/// Of an output, which is compared.
const VALUE: f64 = 35e-9;
const BYTE: f64 = 5.6e-9;

/// What a plan is about to make.
#[derive(Debug, Clone, Default)]
pub struct Estimate {
    /// Paths with the bytes of files, which are about right: those of the first file of a model.
    pub files: Vec<(String, u64)>,
    /// What one processor needs.
    pub time: Duration,
}

impl Estimate {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Plan<'_> {
    /// What there is to do, from the graphs alone: no weight is read.
    ///
    /// # Errors
    /// A target does not take what is asked for.
    pub fn estimate(&self) -> Result<Estimate> {
        let groups = self.groups();
        let found: Vec<Estimate> = groups.par_iter().map(|group| of_model(group)).collect::<Result<_>>()?;
        let mut all = Estimate::default();
        for group in found {
            all.files.extend(group.files);
            all.time += group.time;
        }
        all.files.sort_unstable();
        Ok(all)
    }
}

/// Of the files of a model, one of which stands for all: folding takes out less than a hundredth.
fn of_model(group: &[&Recipe]) -> Result<Estimate> {
    let Some(first) = group.first() else { return Ok(Estimate::default()) };
    let outline = outline(&first.model, &first.target)?;
    let audit = audit(&outline.model, &Bindings::new());
    let shapes = audit.outputs.iter().filter_map(|port| port.shape.as_ref());
    let values: u64 =
        shapes.map(|shape| shape.iter().map(|extent| extent.count().unwrap_or(1)).product::<u64>()).sum();
    let count = |n: Option<u64>| n.unwrap_or(0) as f64;
    let macs = count(audit.totals.cost.macs.count());
    let work = macs * MULTIPLY_ADD + count(audit.activations.count()) * ACTIVATION + values as f64 * VALUE;
    let bytes = outline.bytes as u64;
    // The reference runs once, each file beside it.
    let run = inputs(&first.model) as f64 * work;
    let file = run + bytes as f64 * BYTE;
    let files: Vec<(String, u64)> = group.iter().map(|recipe| (recipe.path(), bytes)).collect();
    let time = Duration::from_secs_f64(run + file * files.len() as f64);
    Ok(Estimate { files, time })
}
