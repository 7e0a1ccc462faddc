//! What a recognised file's rounding lets its logits be off by.

use emo_proto::file::OnnxFile;

use super::probes::Probe;
use crate::compare::{FLOAT32, Tolerance};
use crate::earned::{self, Disturbed, MOST_EARNED, Run};
use crate::eval::Rounding;
use crate::finding::{Finding, Severity};
use crate::runtime::{Concrete, Evaluator, Failure};

/// What a file is held to where nobody demands more, or less.
#[derive(Debug, Clone, Copy)]
pub struct Earned {
    /// Of the outputs, by the name of the coarsest type on their way.
    pub whole: Tolerance,
    /// Of the function that the file computes when nothing is rounded: how far lone constants of a coarse type, as an ε
    /// or the √2 of a GELU, may move it.
    pub function: Tolerance,
    /// Whether anything is coarser than f32.
    pub coarse: bool,
}

/// What `file`, whose input and outputs are `ports`, earns on inputs of the first shape among `probes`. `own` is the
/// coarsest type on its way, `plain` what f32 is allowed; `weights` says whether its weights' rounding counts.
///
/// # Errors
/// The file is coarser than f32 and has an operator that is not evaluated in f64.
pub fn earned(
    file: &OnnxFile,
    ports: (&str, &[String]),
    probes: &[Probe],
    (own, plain): (&Tolerance, &Tolerance),
    weights: bool,
) -> Result<Earned, Failure> {
    if own == &FLOAT32 {
        return Ok(Earned { whole: *plain, function: *plain, coarse: false });
    }
    let Some(first) = probes.first() else {
        return Ok(Earned { whole: *own, function: *plain, coarse: true });
    };
    let draws = Draws::of(file, ports, first, probes)?;
    let whole = plain.bound + draws.share(if weights { Disturbed::All } else { Disturbed::Arithmetic })?;
    let function = plain.bound + draws.share(Disturbed::Numbers)?;
    Ok(Earned {
        whole: Tolerance { bound: whole, ..*own },
        function: Tolerance { bound: function, ..FLOAT32 },
        coarse: true,
    })
}

/// What ranges of integers that are too small for these inputs let the outputs be off by, which other inputs may fit:
/// between what is earned and this, a file is neither right nor wrong.
///
/// # Errors
/// As [`earned`].
pub fn saturated(file: &OnnxFile, ports: (&str, &[String]), probes: &[Probe]) -> Result<f64, Failure> {
    let Some(first) = probes.first() else { return Ok(0.0) };
    Ok(FLOAT32.bound + Draws::of(file, ports, first, probes)?.share(Disturbed::Saturated)?)
}

/// Inputs of one shape, and what comes out where nothing is rounded.
struct Draws<'a> {
    file: &'a OnnxFile,
    evaluator: Evaluator,
    runs: Vec<Run<'a>>,
}

impl<'a> Draws<'a> {
    /// Inputs at most; each is disturbed once.
    const MOST: usize = 4;

    fn of(
        file: &'a OnnxFile,
        (input, outputs): (&str, &[String]),
        first: &Probe,
        probes: &'a [Probe],
    ) -> Result<Self, Failure> {
        let shape = first.input.shape();
        let input = input.to_owned();
        let model = Concrete::new(file, &[(input.clone(), shape.to_vec())])?;
        let evaluator = Evaluator::new(&model, &[input], outputs)?;
        let alike = probes.iter().map(|p| &p.input).filter(|i| i.shape() == shape).take(Self::MOST);
        let mut runs = Vec::new();
        for input in alike {
            let inputs = std::slice::from_ref(input);
            runs.push(Run { inputs, exact: evaluator.run(inputs, Rounding::Exact)? });
        }
        Ok(Self { file, evaluator, runs })
    }

    /// As a share of the largest value of an output.
    fn share(&self, disturbed: Disturbed) -> Result<f64, Failure> {
        let shares = earned::earned(&self.evaluator, &self.file.model, &self.runs, disturbed)?;
        Ok(shares.into_iter().fold(0.0, f64::max))
    }
}

/// The code of a file whose rounding explains nearly anything.
pub const TOO_COARSE: &str = "too-coarse";

/// Keeps the verdict open on a file that rounds so much that its outputs tell little.
#[must_use]
pub fn too_coarse(earned: &Earned) -> Option<Finding> {
    let Tolerance { name, bound, .. } = earned.whole;
    (bound > MOST_EARNED).then(|| Finding {
        code: TOO_COARSE,
        severity: Severity::Open,
        place: String::new(),
        message: format!(
            "expected rounding that leaves the outputs what they are, found {name} that may move them by {bound:.1e} of \
             the largest; the function is right where nothing is rounded, and how much is lost only pictures tell"
        ),
        file: None,
    })
}
