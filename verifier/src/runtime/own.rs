//! Our own evaluation as an engine.

use ndarray::ArrayD;

use super::{Concrete, Failure, Runtime, Session};
use crate::eval::{Evaluator, NAME, Rounding};

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

impl Session for Evaluator {
    fn run(&mut self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, Failure> {
        let outputs = Evaluator::run(self, inputs, Rounding::Written)?;
        Ok(outputs.into_iter().map(|output| output.mapv(|x| x as f32)).collect())
    }
}
