//! Our own evaluation as an engine.

use ndarray::ArrayD;

use super::evaluator::{Evaluator, NAME};
use super::{Concrete, Failure, Runtime, Session};
use crate::eval::Rounding;

/// Our own evaluation, rounding as the file says.
#[derive(Debug, Clone, Copy)]
pub struct Own;

impl Runtime for Own {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ready(
        &self,
        model: &Concrete,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<Box<dyn Session>, Failure> {
        Ok(Box::new(Evaluator::new(model, inputs, outputs)?))
    }
}

/// Our own evaluation without any rounding: the function that a file computes, however coarse its types are.
#[derive(Debug, Clone, Copy)]
pub struct Exact;

impl Runtime for Exact {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ready(
        &self,
        model: &Concrete,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<Box<dyn Session>, Failure> {
        Ok(Box::new(Unrounded(Evaluator::new(model, inputs, outputs)?)))
    }
}

/// A part of a graph for [`Exact`].
struct Unrounded(Evaluator);

impl Session for Unrounded {
    fn run(&mut self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, Failure> {
        single(self.0.run(inputs, Rounding::Exact)?)
    }
}

impl Session for Evaluator {
    fn run(&mut self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, Failure> {
        single(Evaluator::run(self, inputs, Rounding::Written)?)
    }
}

fn single(outputs: Vec<ArrayD<f64>>) -> Result<Vec<ArrayD<f32>>, Failure> {
    Ok(outputs.into_iter().map(|output| output.mapv(|x| x as f32)).collect())
}
