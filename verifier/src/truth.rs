//! The reference's logits on the probes, computed once for every file of a model and its weights.

use emo_exporter::models::emo::Variant;
use emo_exporter::weights::Weights;
use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result};
use ndarray::{ArrayD, Axis};

use crate::compare::{Tolerance, compare};
use crate::reference::Reference;
use crate::runtime::{Failure, Runtime};
use crate::verify::probes::{map, probes};

/// Inputs with the logits that a right file gives for them.
#[derive(Debug, Clone)]
pub struct Truth {
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
struct Row {
    probe: String,
    /// `[N, 3, H, W]`
    input: ArrayD<f32>,
    logits: Vec<f64>,
}

/// A file's largest errors over all probes.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub probes: Vec<String>,
    /// Largest error of a logit.
    pub max_abs: f64,
    /// The same as a share of the largest logit of its input: what a tolerance bounds.
    pub of_largest: f64,
}

impl Truth {
    /// Of the table's probes for a fixed `batch` of images of `size`, height and width in pixels.
    ///
    /// # Errors
    /// The weights are not those of the variant.
    pub fn new(variant: &Variant, weights: &Weights, batch: usize, size: (usize, usize)) -> Result<Self> {
        let reference = Reference::new(variant, weights)?;
        let rows = probes(crate::verify::PROBES, Some(batch), size).into_iter().map(|probe| {
            let input = map(&probe.input)
                .ok_or_else(|| Error::new("expected an input [N, 3, H, W]").at(&probe.name))?;
            // Image by image: none depends on another, and the maps of one are large enough.
            let images = input.axis_chunks_iter(Axis(0), 1);
            let logits = images.flat_map(|image| reference.forward(image.to_owned())).collect();
            Ok(Row { probe: probe.name, input: probe.input, logits })
        });
        Ok(Self { rows: rows.collect::<Result<_>>()? })
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
            measured.of_largest = measured.of_largest.max(difference.relative());
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
