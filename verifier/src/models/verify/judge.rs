//! Whether a recognised file computes what it should, and what is wrong where it does not.

use emo_exporter::target::Output;
use emo_exporter::weights::Weights;
use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result};

use super::beside::{BlockVerdict, Divergence};
use super::probes::{self, Bench, Probe};
use super::rounding::{self, Earned};
use super::structure::Seen;
use super::weights::TensorDifference;
use super::{Outcome, Verdict, cause};
use crate::compare::{Difference, Tolerance};
use crate::finding::{Finding, Severity};
use crate::infer::Inference;
use crate::models::recognise::Recognition;
use crate::models::recover::Recovered;
use crate::reference::Reference;
use crate::runtime::{Concrete, Exact, Failure, Own, Runtime as _};

/// What is needed to tell why a file's numbers are wrong.
pub struct Judge<'a> {
    pub file: &'a OnnxFile,
    pub inference: &'a Inference<'a>,
    pub recognition: &'a Recognition,
    /// Holds the file to the tolerance that was asked for.
    pub bench: Bench<'a>,
    /// What the file's own arithmetic lets it be off by: beyond it, something is wrong and not just rounded.
    pub earned: Earned,
    /// What its structure shows already.
    pub seen: &'a [Seen],
}

impl Judge<'_> {
    /// Runs the file with the weights that it should hold, or its own.
    ///
    /// # Errors
    /// The weights are not those of the model.
    pub fn judge(
        &self,
        mut verdict: Verdict,
        recovered: &Recovered,
        expected: Option<&Weights>,
        probes: &[Probe],
    ) -> Result<Verdict> {
        let reference = |weights| Reference::new(&self.recognition.model, weights);
        let truth = reference(expected.unwrap_or(&recovered.weights))?;
        verdict.probes = match self.bench.run(&truth, probes) {
            Ok(probed) => probed,
            Err(failure) => return Ok(failed(verdict, failure)),
        };
        if verdict.probes.is_empty() {
            return Ok(verdict.undecided("expected inputs to run the file on, found none".to_owned()));
        }
        if verdict.probes.iter().all(|probe| probe.boxes.is_some_and(|boxes| boxes.boxes == 0)) {
            let reason =
                "no test input has a box above the threshold of scores; give pictures that show something";
            return Ok(verdict.undecided(reason.to_owned()));
        }
        let fair = self.fair();
        if verdict.probes.iter().any(|probe| !probe.within(&fair))
            && let Some(probed) = self.second_opinion(&truth, probes)
        {
            verdict.findings.insert(0, engine_differs(verdict.runtime));
            (verdict.probes, verdict.runtime) = (probed, Own.name());
        }
        let differences = || verdict.probes.iter().filter_map(|p| p.difference);
        verdict.max_abs = differences().map(|d| d.max_abs).reduce(f64::max);
        verdict.max_relative = differences().map(|d| d.relative()).reduce(f64::max);
        let within = |p: &&probes::Probed| p.within(&fair);
        let wrong = verdict.probes.iter().find(|p| !within(p));
        let differing = verdict.weights.iter().flat_map(|w| &w.differing).next().cloned();

        // The function that the file computes with its own weights, apart from what it rounds.
        let function = reference(&recovered.weights)?;
        let own_weights = expected.is_none();
        let departs = match self.departs(&function, probes, wrong, own_weights) {
            Ok(departs) => departs,
            Err(failure) => return Ok(failed(verdict, failure)),
        };
        let clean = self.seen.is_empty() && differing.is_none();
        if let (None, None, true) = (wrong, departs, clean) {
            let holds = verdict.probes.iter().all(|p| p.holds);
            if holds && self.earned.whole.bound <= self.bench.tolerance.bound {
                verdict.verdict = Outcome::Pass;
                return Ok(verdict);
            }
            let (demanded, own) = (self.bench.tolerance.name, self.earned.whole.name);
            let reason =
                format!("{demanded} was demanded, and the file is in {own}, whose rounding is beyond it");
            return Ok(verdict.fail(cause::PRECISION, None, reason));
        }
        let against_reference = verdict.probes.iter().filter(|p| !p.recorded).all(|p| within(&p));
        if let Some(wrong) = wrong.filter(|_| against_reference && clean && departs.is_none()) {
            let why =
                wrong.difference.map_or(String::new(), |d| format!(", they are off by {:.1e}", d.max_abs));
            let reason =
                format!("the file gives the reference's logits, and not those of {}{why}", wrong.name);
            return Ok(verdict.fail(cause::OUTPUTS, None, reason));
        }
        if let Some(probe) = departs {
            match self.blocks(&function, probe) {
                Ok(blocks) => verdict.blocks = blocks,
                Err(failure) => return Ok(failed(verdict, failure)),
            }
            if verdict.blocks.iter().all(|block| block.holds)
                && let Some((block, cause, what)) = self.explain_boxes(&function, probe)?
            {
                let named = cause::named(cause).map_or("", |cause| cause.what);
                return Ok(verdict.fail(cause, Some(block), format!("{named}; {what}")));
            }
        } else if let Some(wrong) = wrong.filter(|_| clean && self.earned.coarse) {
            let ports = (self.bench.port.name.as_str(), self.bench.outputs.as_slice());
            let saturated = match rounding::saturated(self.file, ports, probes) {
                Ok(saturated) => saturated,
                Err(failure) => return Ok(failed(verdict, failure)),
            };
            let within = |d: Difference| d.relative() <= saturated;
            if verdict.probes.iter().all(|probe| probe.difference.is_some_and(within)) {
                let reason = saturates(wrong, &self.earned.whole);
                return Ok(verdict.undecided(reason));
            }
            let reason = rounds_too_much(wrong, &self.earned.whole);
            return Ok(verdict.fail(cause::ROUNDING, None, reason));
        }
        let holds = departs.is_none();
        Ok(self.blame(verdict, differing, holds))
    }

    /// The tolerance that was asked for, or the file's own where that is wider.
    fn fair(&self) -> Tolerance {
        let (asked, own) = (*self.bench.tolerance, self.earned.whole);
        if asked.bound < own.bound { own } else { asked }
    }

    /// The first input on which the file, with its own weights and without its rounding, is not the `function`.
    fn departs<'p>(
        &self,
        function: &Reference,
        probes: &'p [Probe],
        wrong: Option<&probes::Probed>,
        own_weights: bool,
    ) -> Result<Option<&'p Probe>, Failure> {
        let of =
            |w: &probes::Probed, p: &Probe| w.name.strip_suffix(", recorded").unwrap_or(&w.name) == p.name;
        if self.earned.coarse {
            let function_of = Bench {
                file: self.file,
                runtime: &Exact,
                tolerance: &self.earned.function,
                ..self.bench.clone()
            };
            let probed = function_of.run(function, probes)?;
            let found = probed.iter().filter(|p| !p.recorded).find(|p| !p.holds);
            return Ok(found.and_then(|found| probes.iter().find(|p| of(found, p))));
        }
        let Some(wrong) = wrong else { return Ok(None) };
        let probe = probes.iter().find(|p| of(wrong, p));
        if own_weights {
            return Ok(probe.filter(|_| !wrong.recorded));
        }
        let Some(probe) = probe else { return Ok(None) };
        let bench = Bench { tolerance: &self.earned.whole, ..self.bench.clone() };
        let holds = bench.run(function, std::slice::from_ref(probe)).is_ok_and(|p| p.iter().all(|p| p.holds));
        Ok((!holds).then_some(probe))
    }

    /// What our own evaluation gives in place of an engine that is far from the truth, if that agrees with the truth: then
    /// the engine is wrong, and not the file.
    fn second_opinion(&self, truth: &Reference, probes: &[Probe]) -> Option<Vec<probes::Probed>> {
        if self.bench.runtime.name() == Own.name() {
            return None;
        }
        let own = Bench { file: self.file, runtime: &Own, ..self.bench.clone() };
        let probed = own.run(truth, probes).ok()?;
        probed.iter().all(|probe| probe.within(&self.fair())).then_some(probed)
    }

    fn blocks(&self, reference: &Reference, probe: &Probe) -> Result<Vec<BlockVerdict>, Failure> {
        let shape = probe.input.shape().to_vec();
        let port = self.bench.port;
        let model = Concrete::new(self.file, &[(port.name.clone(), shape)])?;
        // What labels and boxes are decided from is what is compared: they are no output.
        let (form, outputs) = match self.bench.gives {
            Output::Labels => (Output::Logits, [].as_slice()),
            Output::Nms => (Output::Raw, [].as_slice()),
            gives => (gives, self.bench.outputs.as_slice()),
        };
        let divergence = Divergence {
            inference: self.inference,
            recognition: self.recognition,
            reference,
            model: &model,
            runtime: if self.earned.coarse { &Exact } else { self.bench.runtime },
            tolerance: if self.earned.coarse { &self.earned.function } else { &self.earned.whole },
            ports: (&port.name, outputs),
            form: form.name(),
        };
        let input =
            port.image.map(&probe.input).ok_or_else(|| Error::new("expected an input [N, 3, H, W]"))?;
        divergence.blocks(&probe.input, &input)
    }

    /// The part of what keeps boxes that is wrong, and why, where all before it is right.
    fn explain_boxes(
        &self,
        reference: &Reference,
        probe: &Probe,
    ) -> Result<Option<(String, &'static str, String)>> {
        let Some(suppression) = self.bench.suppression else { return Ok(None) };
        let input = self.bench.port.image.map(&probe.input);
        let mut found = None;
        let answered = self.bench.each(&[probe], |_, answer| {
            found = input
                .as_ref()
                .and_then(|input| suppression.explain(&answer, reference, input, self.bench.tolerance));
        });
        // It ran before.
        answered.map_err(|failure| Error::new(failure.to_string()))?;
        Ok(found)
    }

    /// Names the block and the cause of what does not hold.
    fn blame(&self, verdict: Verdict, differing: Option<TensorDifference>, function_holds: bool) -> Verdict {
        let is = |own: &str, block: &str| {
            block.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let rank =
            |block: &str| verdict.blocks.iter().position(|b| is(&b.block, block)).unwrap_or(usize::MAX);
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
        match wrong.alone.unwrap_or(wrong.passed_on) {
            error if error.is_finite() => {
                format!("{what}; the block is off by {error:.1e} of its largest value, {later}")
            }
            _ => format!("{what}; the block gives another number of values, {later}"),
        }
    }
}

/// The finding where an engine alone is far from the truth.
fn engine_differs(engine: &str) -> Finding {
    Finding {
        code: ENGINE,
        severity: Severity::Warning,
        place: String::new(),
        message: format!(
            "expected {engine} to give what the file's operators are defined to give, found other logits; by our own \
             evaluation in f64 the file is right"
        ),
        file: None,
    }
}

/// The code of an engine that computes a right file wrong.
pub const ENGINE: &str = "engine-differs";

/// Why a file whose function is right may be right on other inputs than these.
fn saturates(wrong: &probes::Probed, earned: &Tolerance) -> String {
    format!(
        "the function is right where nothing is rounded, and rounding explains {:.1e} of the largest logit, less than {} \
         shows: ranges of integers are too small for this input, and may fit the pictures that they were calibrated on; \
         give such pictures",
        earned.bound, wrong.name
    )
}

/// Why a file whose function is right is wrong all the same.
fn rounds_too_much(wrong: &probes::Probed, earned: &Tolerance) -> String {
    let found = match &wrong.difference {
        Some(d) => format!("they are off by {:.1e} of the largest on {}", d.relative(), wrong.name),
        None => format!("on {}, {}", wrong.name, wrong.reason.as_deref().unwrap_or("they have no measure")),
    };
    format!(
        "the function is right where nothing is rounded, and what the file rounds to moves its logits by {:.1e} of the \
         largest at most: {found}; a scale or a range is too small for the values",
        earned.bound
    )
}

/// The verdict on a file that an engine does not take.
fn failed(verdict: Verdict, failure: Failure) -> Verdict {
    match failure {
        Failure::Wrong(error) => verdict.fail(cause::UNRUNNABLE, None, error.to_string()),
        other => verdict.undecided(other.to_string()),
    }
}
