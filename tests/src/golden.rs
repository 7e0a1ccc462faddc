//! The golden vectors of `data/goldens`: what PyTorch computed in f64 on formula weights.
//!
//! A golden holds all logits, and of every stage's feature map, or of a dense model's outputs, the shape, mean, population standard deviation,
//! largest magnitude, and every `stride`-th element with 9 significant digits.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use emo_exporter::models::{Model, own};
use emo_exporter::weights::formula;
use emo_verifier::compare::{Tolerance, compare};
use ndarray::Array4;
use serde::Deserialize;

/// The whole classifiers: four variants, a batch, maps that no window divides, and a network of one's own.
pub const CLASSIFICATION: [&str; 9] = [
    "emo_1m_224x224_b1",
    "emo_1m_224x224_b3",
    "emo_1m_256x320_b1",
    "emo_2m_224x224_b1",
    "emo_2m_448x448_b1",
    "emo_5m_200x131_b1",
    "emo_5m_224x224_b1",
    "emo_6m_224x224_b1",
    "emo_nano_224x224_b1",
];

/// The whole classifiers of the other families.
pub const FAMILIES: [&str; 8] = [
    "deit_tiny_patch16_224_224x224_b1",
    "emo2_1m_200x131_w7_b2",
    "emo2_1m_224x224_w7_b1",
    "emo2_20m_224x224_w7_b1",
    "emo2_2m_256x256_w8_b1",
    "emo2_5m_224x224_w7_b1",
    "emo2_5m_512x512_w8_b1",
    "mobilenetv2_100_224x224_b1",
];

/// What the levels of detectors give.
pub const DETECTORS: [&str; 9] = [
    "retinanet_emo2_1m_320x448",
    "retinanet_emo_1m_320x448",
    "retinanet_emo_2m_320x448",
    "retinanet_emo_5m_320x448",
    "ssdlite_emo2_1m_320x320",
    "ssdlite_emo2_5m_512x512",
    "ssdlite_emo_1m_320x320",
    "ssdlite_emo_2m_320x320",
    "ssdlite_emo_5m_320x320",
];

/// Logits of segmenters, at the input's size.
pub const SEGMENTERS: [&str; 13] = [
    "deeplabv3_emo2_5m_256x320",
    "deeplabv3_emo_1m_512x512",
    "deeplabv3_emo_2m_512x512",
    "deeplabv3_emo_5m_512x512",
    "pspnet_emo2_2m_320x256",
    "pspnet_emo_1m_512x512",
    "pspnet_emo_2m_512x512",
    "pspnet_emo_5m_512x512",
    "segformer_emo2_2m_512x512",
    "semantic_fpn_emo2_1m_256x256",
    "semantic_fpn_emo_1m_512x512",
    "semantic_fpn_emo_2m_512x512",
    "semantic_fpn_emo_5m_512x512",
];

/// Boxes and scores by mmdetection's own generators and coders.
pub const DECODED: [&str; 2] = ["decoded_retinanet_emo_1m_320x448", "decoded_ssdlite_emo_1m_320x320"];

/// The network of one's own that PyTorch computed too, by its file in `data`.
pub static NANO: LazyLock<Model> = LazyLock::new(|| own::open(&nano()).expect("the file is a network"));

/// Its file.
#[must_use]
pub fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/emo-nano.toml")
}

#[derive(Debug, Deserialize)]
pub struct Golden {
    model: String,
    /// Of the formula.
    pub seed: u64,
    /// [N, 3, H, W]
    pub input: [usize; 4],
    /// Side of the attention windows, where it says.
    window: Option<usize>,
    /// Learnable parameters, and FLOPs as fvcore counts them, where it says.
    pub params: Option<u64>,
    pub fvcore: Option<u64>,
    /// Of every stage's last block, of a classifier.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// [N, classes], of a classifier.
    #[serde(default)]
    logits: Vec<f64>,
    /// Of a dense model.
    #[serde(default)]
    pub outputs: Vec<Feature>,
}

#[derive(Debug, Deserialize)]
pub struct Feature {
    pub name: String,
    /// [N, C, H, W], or tokens [N, T, C]
    pub shape: Vec<usize>,
    mean: f64,
    std: f64,
    abs_max: f64,
    stride: usize,
    samples: Vec<f64>,
}

impl Golden {
    /// The golden called `name`, as in [`CLASSIFICATION`].
    ///
    /// # Panics
    ///
    /// If there is none or it cannot be read.
    #[must_use]
    pub fn load(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("data/goldens").join(name).with_extension("json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The model's row.
    ///
    /// # Panics
    ///
    /// If the golden's model is none of ours.
    #[must_use]
    pub fn variant(&self) -> &'static Model {
        let name = self.model.replace('_', "-");
        if name == NANO.name {
            return &NANO;
        }
        Model::named(&name).unwrap_or_else(|| panic!("no model is called {name}"))
    }

    /// The model, of whichever family, with the golden's windows.
    ///
    /// # Panics
    ///
    /// If the golden's model is none of ours.
    #[must_use]
    pub fn model(&self) -> Model {
        let name = match self.model.as_str() {
            "emo-nano" => return NANO.clone(),
            "deit_tiny_patch16_224" => "deit-tiny".to_owned(),
            name => name.replace('_', "-"),
        };
        let model = Model::named(&name).unwrap_or_else(|| panic!("no model is called {name}"));
        self.window.map_or_else(|| model.clone(), |window| model.with_window(window))
    }

    #[must_use]
    pub fn classes(&self) -> usize {
        self.logits.len() / self.input[0]
    }

    /// The formula's input.
    ///
    /// # Panics
    ///
    /// Never: the formula gives as many values as the shape holds.
    #[must_use]
    pub fn input(&self) -> Array4<f32> {
        Array4::from_shape_vec(self.input, formula::input(&self.input, self.seed))
            .expect("a value an element")
    }

    /// The feature map `data` of stage `stage` against the golden's: shape, samples, mean, standard deviation
    /// and largest magnitude, each error as a share of that magnitude. Gives the worst error.
    ///
    /// # Errors
    ///
    /// What differs by more than `tolerance`, and by how much; a NaN differs from everything.
    pub fn check(
        &self,
        stage: usize,
        data: &[f64],
        shape: &[usize],
        tolerance: &Tolerance,
    ) -> Result<f64, String> {
        self.check_map(&self.features[stage], data, shape, tolerance)
    }

    /// The same of the output at `position`.
    ///
    /// # Errors
    ///
    /// As [`Self::check`].
    pub fn check_output(
        &self,
        position: usize,
        data: &[f64],
        shape: &[usize],
        tolerance: &Tolerance,
    ) -> Result<f64, String> {
        self.check_map(&self.outputs[position], data, shape, tolerance)
    }

    fn check_map(
        &self,
        golden: &Feature,
        data: &[f64],
        shape: &[usize],
        tolerance: &Tolerance,
    ) -> Result<f64, String> {
        let place = format!("{} {}", self.model, golden.name);
        expect_shape(&place, shape, &golden.shape, data.len())?;
        let samples: Vec<f64> = data.iter().copied().step_by(golden.stride).collect();
        let of_samples = compare(&samples, &golden.samples).map_err(|e| format!("{place}: samples: {e}"))?;

        let mean = data.iter().sum::<f64>() / data.len() as f64;
        let variance = data.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / data.len() as f64;
        let abs_max = data.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        worst(
            &place,
            tolerance,
            [
                ("samples", of_samples.max_abs / golden.abs_max),
                ("mean", (mean - golden.mean).abs() / golden.abs_max),
                ("standard deviation", (variance.sqrt() - golden.std).abs() / golden.abs_max),
                ("largest magnitude", (abs_max - golden.abs_max).abs() / golden.abs_max),
            ],
        )
    }

    /// The logits `data` [N, classes] against the golden's: the largest error as a share of the largest |logit|.
    ///
    /// # Errors
    ///
    /// As [`Self::check`].
    pub fn check_logits(&self, data: &[f64], shape: &[usize], tolerance: &Tolerance) -> Result<f64, String> {
        let place = format!("{} logits", self.model);
        expect_shape(&place, shape, &[self.input[0], self.classes()], data.len())?;
        let difference = compare(data, &self.logits).map_err(|e| format!("{place}: {e}"))?;
        worst(&place, tolerance, [("all", difference.relative())])
    }
}

fn expect_shape(place: &str, found: &[usize], expected: &[usize], elements: usize) -> Result<(), String> {
    if found != expected || elements != expected.iter().product::<usize>() {
        return Err(format!(
            "{place}: expected shape {expected:?}, found {found:?} with {elements} elements"
        ));
    }
    Ok(())
}

/// The largest of `errors`, unless one is above the tolerance or is not a number.
fn worst<const N: usize>(
    place: &str,
    tolerance: &Tolerance,
    errors: [(&str, f64); N],
) -> Result<f64, String> {
    let mut worst = 0.0_f64;
    for (what, error) in errors {
        if error.is_nan() || error > tolerance.bound {
            let Tolerance { name, bound, .. } = tolerance;
            return Err(format!(
                "{place}: {what}: off by {error:.2e} of the largest value, {name} allows {bound:e}"
            ));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use emo_verifier::compare::FLOAT64;

    use super::*;

    /// A golden of the map 0, 1, … 7 and the logits 0, −4.
    fn ramp() -> (Golden, Vec<f64>) {
        let data: Vec<f64> = (0..8).map(f64::from).collect();
        let feature = Feature {
            name: "stage0".to_owned(),
            shape: vec![1, 2, 2, 2],
            mean: 3.5,
            std: 5.25_f64.sqrt(),
            abs_max: 7.0,
            stride: 3,
            samples: vec![0.0, 3.0, 6.0],
        };
        let logits = vec![0.0, -4.0];
        (
            Golden {
                model: "ramp".to_owned(),
                seed: 0,
                params: None,
                fvcore: None,
                input: [1, 3, 4, 4],
                window: None,
                features: vec![feature],
                logits,
                outputs: Vec::new(),
            },
            data,
        )
    }

    #[test]
    fn a_golden_accepts_its_own_values() {
        let (golden, data) = ramp();
        assert_eq!(golden.check(0, &data, &[1, 2, 2, 2], &FLOAT64), Ok(0.0));
        assert_eq!(golden.check_logits(&[0.0, -4.0], &[1, 2], &FLOAT64), Ok(0.0));
    }

    type Damage = fn(&mut Vec<f64>);

    #[test]
    fn every_figure_of_a_golden_can_refuse() {
        let (golden, data) = ramp();
        let shape = [1, 2, 2, 2];
        // Elements 1, 2, 4, 5 and 7 are no samples: only the figures over all elements see them.
        let cases: [(&str, Damage); 7] = [
            ("samples", |d| d[3] += 1e-6),
            ("mean", |d| d[1] += 1e-6),
            ("standard deviation", |d| (d[1], d[2]) = (d[1] - 1e-5, d[2] + 1e-5)),
            // Keeps the mean and the standard deviation.
            ("largest magnitude", |d| (d[7], d[5], d[4]) = (d[7] + 2e-7, d[5] - 6e-7, d[4] + 4e-7)),
            ("samples: expected finite numbers, found NaN", |d| d[3] = f64::NAN),
            ("mean: off by NaN", |d| d[1] = f64::NAN),
            ("with 7 elements", |d| d.truncate(7)),
        ];
        for (expected, damage) in cases {
            let mut damaged = data.clone();
            damage(&mut damaged);
            let message = golden.check(0, &damaged, &shape, &FLOAT64).expect_err(expected);
            assert!(message.contains(expected), "{message}");
        }
        assert!(golden.check(0, &data, &[1, 2, 4, 1], &FLOAT64).is_err());
        assert!(golden.check_logits(&[1e-7, -4.0], &[1, 2], &FLOAT64).is_err());
        assert!(golden.check_logits(&[f64::NAN, -4.0], &[1, 2], &FLOAT64).is_err());
    }
}
