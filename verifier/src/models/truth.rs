//! The reference's logits on inputs, computed once for every file of a model and its weights.

use std::sync::OnceLock;

use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result};

use crate::compare::Tolerance;
use crate::image::Image;
use crate::infer::Bindings;
use crate::reference::Reference;
use crate::runtime::{Failure, Runtime};
use crate::verify::port::Port;
use crate::verify::probes::{Bench, Probe, Probed};

/// Inputs with the logits that a right file gives for them.
pub struct Truth {
    reference: Reference,
    rows: Vec<Row>,
}

/// An input of normalised images, and what the reference makes of it.
#[derive(Debug, Clone)]
pub struct Row {
    probe: Probe,
    logits: Vec<f64>,
    /// [`Reference::single_sums`] of it, once a file has needed it.
    single_sums: OnceLock<f64>,
}

impl Row {
    /// Runs the reference; rows are independent of one another, so a caller may make them side by side.
    ///
    /// # Errors
    /// The input is no `[N, 3, H, W]`.
    pub fn new(reference: &Reference, probe: Probe) -> Result<Self> {
        let map = Image::FLOATS.map(&probe.input);
        let map = map.ok_or_else(|| Error::new("expected an input [N, 3, H, W]").at(&probe.name))?;
        let logits = reference.logits(&map, None);
        Ok(Self { probe, logits, single_sums: OnceLock::new() })
    }
}

impl Truth {
    /// `rows` are the `reference`'s.
    #[must_use]
    pub fn new(reference: Reference, rows: Vec<Row>) -> Self {
        Self { reference, rows }
    }

    /// Runs a file of normalised images on every input.
    ///
    /// # Errors
    /// The engine does not take the file.
    pub fn measure(
        &self,
        file: &OnnxFile,
        runtime: &dyn Runtime,
        tolerance: &Tolerance,
    ) -> Result<Vec<Probed>, Failure> {
        let port = Port::of(&file.model, &Bindings::new());
        let port = port.ok_or_else(|| Error::new("expected an input of images, found another interface"))?;
        let images = self.rows.first().map_or(1, |row| row.probe.input.shape()[0].max(1));
        let classes = self.rows.first().map_or(1, |row| row.logits.len() / images);
        let bench = Bench::new(file, &port, classes, runtime, tolerance)?;
        let probes: Vec<&Probe> = self.rows.iter().map(|row| &row.probe).collect();
        let rows = self.rows.iter().zip(bench.answers(&probes)?);
        let probed = rows.flat_map(|(row, answer)| {
            let explain = |logits: &[f64]| *row.single_sums.get_or_init(|| self.single_sums(row, logits));
            bench.rows(&row.probe, &answer, row.logits.clone(), explain)
        });
        Ok(probed.collect())
    }

    fn single_sums(&self, row: &Row, logits: &[f64]) -> f64 {
        let map = Image::FLOATS.map(&row.probe.input);
        map.map_or(0.0, |map| self.reference.single_sums(&map, logits))
    }
}
