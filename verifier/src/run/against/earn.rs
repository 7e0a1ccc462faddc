//! What the arithmetic of two files lets them be apart by.

use emo_proto::file::OnnxFile;

use super::Run;
use crate::compare::{FLOAT32, Tolerance};
use crate::earned::{self, Disturbed};
use crate::eval::Rounding;
use crate::infer::{Bindings, infer_file};
use crate::path::DataPath;
use crate::runtime::{Concrete, Evaluator, Failure};
use crate::tolerance::own_tolerance;

/// The tolerance of the coarsest type that anything between a file's inputs and outputs is rounded to.
pub fn coarsest(
    file: &OnnxFile,
    [inputs, outputs]: &[Vec<String>; 2],
    dims: &Bindings,
) -> &'static Tolerance {
    let inference = infer_file(file, dims);
    own_tolerance(&inference, &DataPath::between(&inference, inputs, outputs))
}

/// How far rounding, that of constants too, may move a file's outputs on a run, as a share of the largest value.
///
/// # Errors
/// The file has an operator that is not evaluated in f64.
pub fn share(file: &OnnxFile, [inputs, outputs]: &[Vec<String>; 2], run: &Run) -> Result<f64, Failure> {
    let shapes = inputs.iter().cloned().zip(run.inputs.iter().map(|input| input.shape().to_vec()));
    let model = Concrete::new(file, &shapes.collect::<Vec<_>>())?;
    let evaluator = Evaluator::new(&model, inputs, outputs)?;
    let exact = evaluator.run(&run.inputs, Rounding::Exact)?;
    let runs = [earned::Run { inputs: &run.inputs, exact }];
    let shares = earned::earned(&evaluator, &file.model, &runs, Disturbed::Singles)?;
    Ok(shares.into_iter().fold(0.0, f64::max))
}

/// What the outputs of both files earn together, by the name of the coarsest type.
pub fn earned(
    files: [&OnnxFile; 2],
    ports: [&[Vec<String>; 2]; 2],
    run: &Run,
    kind: &Tolerance,
) -> Tolerance {
    let mut bound = FLOAT32.bound;
    for (file, ports) in files.into_iter().zip(ports) {
        match share(file, ports, run) {
            Ok(share) if share.is_finite() => bound += share,
            // What is not evaluated here has its type's tolerance.
            _ => bound = bound.max(kind.bound),
        }
    }
    Tolerance { bound, ..*kind }
}
