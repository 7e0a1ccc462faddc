//! The reference's logits on the probes, computed once for every file of a model and its weights.

use std::sync::OnceLock;

use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result};
use ndarray::{Array4, ArrayD};

use crate::compare::{FLOAT32, Tolerance, compare};
use crate::reference::Reference;
use crate::runtime::{Failure, Runtime};
use crate::verify::probes::{Probe, allowance};

/// Inputs of one shape with the logits that a right file gives for them.
pub struct Truth {
    reference: Reference,
    rows: Vec<Row>,
}

/// An input, and what the reference makes of it.
#[derive(Debug, Clone)]
pub struct Row {
    probe: String,
    /// `[N, 3, H, W]`
    input: ArrayD<f32>,
    logits: Vec<f64>,
    /// [`Reference::single_sums`] of it, once a file has needed it.
    single_sums: OnceLock<f64>,
}

/// A file's largest errors over all probes.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub probes: Vec<String>,
    /// Largest error of a logit.
    pub max_abs: f64,
    /// The same as a share of the largest logit of its input: what a tolerance bounds. Where it is beyond that of f32,
    /// less what means over a flat map explain.
    pub of_largest: f64,
}

impl Row {
    /// Runs the reference; rows are independent of one another, so a caller may make them side by side.
    ///
    /// # Errors
    /// The input is no `[N, 3, H, W]`.
    pub fn new(reference: &Reference, probe: Probe) -> Result<Self> {
        let Probe { name, input, .. } = probe;
        let logits = reference.logits(&map(&input).map_err(|error| error.at(&name))?, None);
        Ok(Self { probe: name, input, logits, single_sums: OnceLock::new() })
    }
}

fn map(input: &ArrayD<f32>) -> Result<Array4<f64>> {
    let map = input.mapv(f64::from).into_dimensionality();
    map.map_err(|error| Error::new(format!("expected an input [N, 3, H, W]: {error}")))
}

impl Truth {
    /// `rows` are the `reference`'s.
    #[must_use]
    pub fn new(reference: Reference, rows: Vec<Row>) -> Self {
        Self { reference, rows }
    }

    /// Runs a file whose one input is called `input` on every probe.
    ///
    /// # Errors
    /// The engine does not take the file, or what it gives has no measure.
    pub fn measure(&self, file: &OnnxFile, input: &str, runtime: &dyn Runtime) -> Result<Measured, Failure> {
        let shape = self.rows.first().map_or(Vec::new(), |row| row.input.shape().to_vec());
        let mut session = runtime.prepare(file, &[(input.to_owned(), shape)], &[])?;
        let mut measured = Measured { probes: Vec::new(), max_abs: 0.0, of_largest: 0.0 };
        for row in &self.rows {
            let outputs = session.run(std::slice::from_ref(&row.input))?;
            let answer: Vec<f32> = outputs.into_iter().flatten().collect();
            let difference =
                compare(&answer, &row.logits).map_err(|e| Failure::Wrong(e.at("logits").at(&row.probe)))?;
            measured.probes.push(row.probe.clone());
            measured.max_abs = measured.max_abs.max(difference.max_abs);
            let relative = difference.relative();
            let single_sums = |input| self.reference.single_sums(&input, &row.logits);
            let explain = || *row.single_sums.get_or_init(|| map(&row.input).map_or(0.0, single_sums));
            let explained = allowance(relative, &FLOAT32, explain);
            measured.of_largest = measured.of_largest.max((relative - explained).max(0.0));
        }
        Ok(measured)
    }
}

impl Measured {
    #[must_use]
    pub fn within(&self, tolerance: &Tolerance) -> bool {
        !self.probes.is_empty() && self.of_largest <= tolerance.bound
    }
}
