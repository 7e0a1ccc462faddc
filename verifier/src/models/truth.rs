//! The reference's outputs on inputs, computed once for every file of a model and its weights.

use std::sync::OnceLock;

use emo_exporter::models::Task;
use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result};
use ndarray::ArrayD;

use crate::compare::{FLOAT32, FLOAT32_DEEP, Tolerance};
use crate::image::Image;
use crate::infer::Bindings;
use crate::reference::Reference;
use crate::runtime::{Failure, Runtime};
use crate::verify::port::Port;
use crate::verify::probes::{Bench, Probe, Probed, first_of, values};

/// Inputs with the outputs that a right file gives for them.
pub struct Truth {
    reference: Reference,
    rows: Vec<Row>,
    task: Task,
}

/// An input of normalised images, and what the reference makes of it.
#[derive(Debug, Clone)]
pub struct Row {
    probe: Probe,
    outputs: Vec<ArrayD<f64>>,
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
        let gives = first_of(reference);
        let outputs = values(reference, gives, &map);
        let outputs =
            outputs.ok_or_else(|| Error::new(format!("expected a model that gives {}", gives.name())))?;
        Ok(Self { probe, outputs, single_sums: OnceLock::new() })
    }
}

impl Truth {
    /// `rows` are the `reference`'s.
    #[must_use]
    pub fn new(reference: Reference, rows: Vec<Row>, task: Task) -> Self {
        Self { reference, rows, task }
    }

    /// What a file in f32 is held to.
    #[must_use]
    pub fn tolerance(&self) -> &'static Tolerance {
        if self.task == Task::Classify { &FLOAT32 } else { &FLOAT32_DEEP }
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
        let bench = Bench::new(file, &port, first_of(&self.reference), runtime, tolerance)?;
        let probes: Vec<&Probe> = self.rows.iter().map(|row| &row.probe).collect();
        let (mut rows, mut probed) = (self.rows.iter(), Vec::new());
        bench.each(&probes, |probe, answer| {
            let Some(row) = rows.next() else { return };
            let explain = |logits: &[f64]| *row.single_sums.get_or_init(|| self.single_sums(row, logits));
            probed.extend(bench.rows(probe, &answer, &row.outputs, explain));
        })?;
        Ok(probed)
    }

    fn single_sums(&self, row: &Row, logits: &[f64]) -> f64 {
        let map = Image::FLOATS.map(&row.probe.input);
        map.map_or(0.0, |map| self.reference.single_sums(&map, logits))
    }
}
