//! Whether a recognised file computes what it should, and what is wrong where it does not.

use emo_exporter::weights::Weights;
use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result};

use super::divergence::{BlockVerdict, Divergence};
use super::probes::{self, Bench, Probe};
use super::structure::Seen;
use super::weights::TensorDifference;
use super::{Outcome, Verdict, cause};
use crate::compare::Tolerance;
use crate::infer::Inference;
use crate::recognise::Recognition;
use crate::recover::Recovered;
use crate::reference::Reference;
use crate::runtime::{Concrete, Failure};

/// What is needed to tell why a file's numbers are wrong.
pub struct Judge<'a> {
    pub file: &'a OnnxFile,
    pub inference: &'a Inference<'a>,
    pub recognition: &'a Recognition,
    /// Holds the file to the tolerance that was asked for.
    pub bench: Bench<'a>,
    /// That tolerance, or the file's own where it is coarser: beyond it, something is wrong and not just rounded.
    pub fair: &'static Tolerance,
    /// The tolerance of the type that the file computes in.
    pub own: &'static Tolerance,
    /// What its structure shows already.
    pub seen: &'a [Seen],
}

impl Judge<'_> {
    /// Runs the file with the weights that it should hold, or its own.
    ///
    /// # Errors
    /// The weights are not those of the variant.
    pub fn judge(
        &self,
        mut verdict: Verdict,
        recovered: &Recovered,
        expected: Option<&Weights>,
        probes: &[Probe],
    ) -> Result<Verdict> {
        let reference = |weights| Reference::new(self.recognition.variant, weights);
        let truth = reference(expected.unwrap_or(&recovered.weights))?;
        verdict.probes = match self.bench.run(&truth, probes) {
            Ok(probed) => probed,
            Err(failure) => return Ok(failed(verdict, failure)),
        };
        if verdict.probes.is_empty() {
            return Ok(verdict.undecided("expected inputs to run the file on, found none".to_owned()));
        }
        let differences = || verdict.probes.iter().filter_map(|p| p.difference);
        verdict.max_abs = differences().map(|d| d.max_abs).reduce(f64::max);
        verdict.max_relative = differences().map(|d| d.relative()).reduce(f64::max);
        let within = |p: &&probes::Probed| p.within(self.fair);
        let wrong = verdict.probes.iter().find(|p| !within(p));
        let differing = verdict.weights.iter().flat_map(|w| &w.differing).next().cloned();

        if wrong.is_none() && self.seen.is_empty() && differing.is_none() {
            let holds = verdict.probes.iter().all(|p| p.holds);
            if holds && self.own.bound <= self.bench.tolerance.bound {
                verdict.verdict = Outcome::Pass;
                return Ok(verdict);
            }
            let (demanded, own) = (self.bench.tolerance.name, self.fair.name);
            let reason =
                format!("{demanded} was demanded, and the file is in {own}, whose rounding is beyond it");
            return Ok(verdict.fail(cause::PRECISION, None, reason));
        }
        let against_reference = verdict.probes.iter().filter(|p| !p.recorded).all(|p| within(&p));
        if let Some(wrong) =
            wrong.filter(|_| against_reference && self.seen.is_empty() && differing.is_none())
        {
            let why =
                wrong.difference.map_or(String::new(), |d| format!(", they are off by {:.1e}", d.max_abs));
            let reason =
                format!("the file gives the reference's logits, and not those of {}{why}", wrong.name);
            return Ok(verdict.fail(cause::OUTPUTS, None, reason));
        }
        // With its own weights, so that what follows is of the function alone.
        let of =
            |w: &probes::Probed, p: &Probe| w.name.strip_suffix(", recorded").unwrap_or(&w.name) == p.name;
        let Some(probe) = probes.iter().find(|p| wrong.is_none_or(|w| of(w, p))) else {
            return Ok(verdict.undecided("expected inputs to run the file on, found none".to_owned()));
        };
        let function = reference(&recovered.weights)?;
        let function_holds = match expected {
            Some(_) => {
                let bench = Bench { tolerance: self.fair, ..self.bench };
                bench.run(&function, std::slice::from_ref(probe)).is_ok_and(|p| p.iter().all(|p| p.holds))
            }
            None => wrong.is_none(),
        };
        if !function_holds {
            match self.blocks(&function, probe) {
                Ok(blocks) => verdict.blocks = blocks,
                Err(failure) => return Ok(failed(verdict, failure)),
            }
        }
        Ok(self.blame(verdict, differing, function_holds))
    }

    fn blocks(&self, reference: &Reference, probe: &Probe) -> Result<Vec<BlockVerdict>, Failure> {
        let shape = probe.input.shape().to_vec();
        let port = self.bench.port;
        let model = Concrete::new(self.file, &[(port.name.clone(), shape)])?;
        let divergence = Divergence {
            inference: self.inference,
            recognition: self.recognition,
            reference,
            model: &model,
            runtime: self.bench.runtime,
            tolerance: self.fair,
            ports: (&port.name, self.bench.output),
        };
        let input =
            port.image.map(&probe.input).ok_or_else(|| Error::new("expected an input [N, 3, H, W]"))?;
        divergence.blocks(&probe.input, &input)
    }

    /// Names the block and the cause of what does not hold.
    fn blame(&self, verdict: Verdict, differing: Option<TensorDifference>, function_holds: bool) -> Verdict {
        let rank = |block: &str| verdict.blocks.iter().position(|b| b.block == block).unwrap_or(usize::MAX);
        let wrong = verdict.blocks.iter().find(|b| !b.holds);
        let seen = self.seen.first();
        let structural = match (seen, wrong) {
            (Some(seen), Some(wrong)) if rank(&wrong.block) < rank(&seen.block) => None,
            (seen, _) => seen,
        };
        if let Some(seen) = structural {
            let (cause, block, reason) = (seen.cause, seen.block.clone(), seen.finding.message.clone());
            let place = seen.finding.place.clone();
            return verdict.fail(cause, Some(block), format!("{place}: {reason}"));
        }
        if let Some(wrong) = wrong {
            let cause = wrong.cause.unwrap_or(cause::UNKNOWN);
            let (block, what) = (wrong.block.clone(), cause::named(cause).map_or("", |c| c.what));
            let reason = self.divergence_reason(&verdict, wrong, what);
            return verdict.fail(cause, Some(block), reason);
        }
        if let Some(tensor) = differing {
            let reason = format!("{} is not the checkpoint's: {}", tensor.tensor, tensor.what);
            return verdict.fail(tensor.cause, Some(tensor.block), reason);
        }
        let reason = match function_holds {
            true => {
                "the outputs are not those of the checkpoint, though no tensor differs by more than rounding"
            }
            false => {
                "the outputs differ, and every block holds on its own: errors add up beyond the tolerance"
            }
        };
        verdict.fail(cause::UNKNOWN, None, reason.to_owned())
    }

    fn divergence_reason(&self, verdict: &Verdict, wrong: &BlockVerdict, what: &str) -> String {
        let others = verdict.blocks.iter().filter(|b| !b.holds).count() - 1;
        let later = match others {
            0 => "every other block is right on its own".to_owned(),
            1 => "one later block is wrong on its own too".to_owned(),
            n => format!("{n} later blocks are wrong on their own too"),
        };
        let error = wrong.alone.unwrap_or(wrong.passed_on);
        format!("{what}; the block is off by {error:.1e} of its largest value, {later}")
    }
}

/// The verdict on a file that an engine does not take.
fn failed(verdict: Verdict, failure: Failure) -> Verdict {
    match failure {
        Failure::Wrong(error) => verdict.fail(cause::UNRUNNABLE, None, error.to_string()),
        other => verdict.undecided(other.to_string()),
    }
}
