//! An entry of a manifest: a released file and the evidence that it is what it claims to be.
//!
//! Fields that ONNX Hub's manifest has are called as there, so that its readers work.

use std::collections::BTreeMap;

use emo_exporter::weights::Origin;
use serde::{Deserialize, Serialize};

/// The version of the format, the same in every entry.
pub const SCHEMA: &str = "emo.zoo/1";
/// What wrote a file of this version, or takes one in.
pub const TOOL: &str = concat!("emo ", env!("CARGO_PKG_VERSION"));
/// What is recorded where nobody states a licence.
pub const NOT_STATED: &str = "not stated";

/// A released file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub schema: String,
    /// `emo-1m`, or a third party's name.
    pub model: String,
    /// From the manifest's folder, parted by `/`.
    pub model_path: String,
    /// The first release of ONNX that knows the opset.
    pub onnx_version: String,
    pub opset_version: i64,
    pub metadata: Metadata,
    /// What it is for, by the hub's name; `None` for a file that claims to be no model.
    pub task: Option<String>,
    /// The lines of the file that describes a network of one's own; `None` for any other model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Vec<String>>,
    /// Side of the attention windows, in tokens, where it is not the published one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// `None` for a file that this project did not write.
    pub profile: Option<String>,
    /// Of the weights: `f32`, `f16`, …
    pub dtype: String,
    /// `None` for a file that takes no image.
    pub input: Option<Input>,
    /// How a picture becomes the input; `None` for a file that this project did not write, as the classes.
    pub preprocessing: Option<Preprocessing>,
    /// `None` as well for a backbone alone.
    pub classes: Option<Classes>,
    /// Learnable parameters; `None` where they cannot be counted.
    pub parameters: Option<u64>,
    pub costs: Costs,
    /// `None` for what was not published.
    pub published: Option<Published>,
    /// `None` for a file that claims to be no published model.
    pub claim: Option<Claimed>,
    /// `None` for a file that claims to be no published model: there is nothing to hold it to.
    pub numerics: Option<Numerics>,
    /// By the profile that the file was held to.
    pub lint: BTreeMap<String, Lint>,
    pub weights: Provenance,
    pub license: String,
    pub paper: Option<String>,
    pub source: Option<String>,
    /// What wrote the file, or took it in.
    pub tool: String,
    /// Writes the file again, byte for byte; `None` for a third-party file.
    pub command: Option<String>,
}

/// ONNX Hub's metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// SHA-256 of the file, lower-case hexadecimal.
    pub model_sha: String,
    pub model_bytes: u64,
    pub tags: Vec<String>,
    pub io_ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// An input or output of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    pub name: String,
    /// `None` where the file does not even tell the number of axes.
    pub shape: Option<Vec<Extent>>,
    /// `tensor(float)`
    pub r#type: String,
    /// What an output of a file that this project wrote holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
}

/// A size, or the name of one that is free.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Extent {
    Size(u64),
    Name(String),
}

/// An image input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// `NCHW`, or `NHWC` for an image of bytes.
    pub layout: String,
    /// `None` where it is free.
    pub batch: Option<u64>,
    /// In pixels, as the width.
    pub height: u64,
    pub width: u64,
}

/// How a picture becomes an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// `RGB`
    pub channels: String,
    /// `crop`: the middle of the scaled picture; `stretch`: all of it, its ratio lost; `pad`: all of it, scaled to fit,
    /// with zeros to the right and below.
    pub fit: String,
    /// What an input's sides are multiples of.
    pub multiple: u64,
    /// Of red, green and blue, as shares of white; the zeros of padding are not normalised.
    pub mean: Vec<f64>,
    pub deviation: Vec<f64>,
}

/// The classes that a model tells apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    pub count: u64,
    /// Whose names they have, and in which order; `None` where nobody has given them any.
    pub names: Option<String>,
    /// Whether the file's metadata have the names, as `emo.classes`.
    pub in_file: bool,
}

/// What was published of a model, and how it was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// As printed: `5.6M`.
    pub parameters: String,
    pub flops: String,
    /// `fvcore`, `mmcv`, or `pictures`: a mean over pictures of many sizes.
    pub convention: String,
    /// Height and width of the image that FLOPs were counted for.
    pub input: [u64; 2],
    /// Of the model, without what training alone has.
    pub exact_parameters: u64,
    /// By the convention; `None` for a mean.
    pub exact_flops: Option<u64>,
    /// `top-1` on ImageNet-1K, `box-ap` on COCO, `mean-iou` on ADE20K; per cent.
    pub metric: String,
    pub accuracy: f64,
    /// What explains the figures.
    pub notes: Vec<String>,
}

/// Costs of one image, each called after its convention; `None` where something cannot be counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Multiply-adds of convolutions and matrix products.
    pub macs: Option<u64>,
    /// Two a multiply-add.
    pub flops: Option<u64>,
    /// As fvcore counts, and the paper.
    pub fvcore: Option<u64>,
    pub mmcv: Option<u64>,
}

/// What is recorded of a claim: the counts of a file beside the published ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claimed {
    pub model: String,
    pub parameters: Account,
    pub fvcore: Account,
    pub holds: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    pub file: u64,
    /// What folding took out, or put in where negative.
    pub folded: i64,
    pub model: u64,
    /// As the paper prints it; `None` where it prints none for this size or number of classes.
    pub published: Option<String>,
}

/// What a run of the file beside the f64 reference showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numerics {
    pub runtime: String,
    /// Names of the inputs that it ran on.
    pub probes: Vec<String>,
    pub tolerance: String,
    /// What the tolerance bounds: the largest error as a share of the largest logit.
    pub bound: f64,
    /// Upper bound of the largest error of a logit, two digits: a runtime's last bits differ between processors.
    pub max_abs: f64,
    /// The same as a share of the largest logit.
    pub of_largest: f64,
    pub holds: bool,
}

/// A file held to a profile's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lint {
    /// Nodes that the runtime would not take.
    pub violations: usize,
    /// Partitions that it would run, cut apart by those nodes.
    pub partitions: usize,
}

/// Where the weights came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, untagged)]
pub enum Provenance {
    Checkpoint(Checkpoint),
    /// `formula:SEED`, computed from the parameters' names, or `file`: the third party's own.
    Named {
        source: String,
    },
}

/// A checkpoint, known by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// `checkpoint`
    pub source: String,
    /// Whether it is one that the authors published, and `path` its place in their repository.
    pub official: bool,
    pub path: Option<String>,
    pub sha256: String,
    pub git_blob: String,
    pub bytes: u64,
    /// The checkpoint's entry that held the weights: `net_E`.
    pub entry: Option<String>,
}

impl Provenance {
    /// The third party's own.
    #[must_use]
    pub fn own() -> Self {
        Self::Named { source: "file".to_owned() }
    }

    /// The seed of untrained weights.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        match self {
            Self::Named { source } => source.strip_prefix("formula:")?.parse().ok(),
            Self::Checkpoint(_) => None,
        }
    }

    /// As the exporter knows it; `None` for third-party weights.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Self::Named { .. } => self.seed().map(|seed| Origin::Formula { seed }),
            Self::Checkpoint(c) => Some(Origin::File {
                sha256: c.sha256.clone(),
                git_blob: c.git_blob.clone(),
                bytes: c.bytes,
                official: Origin::official(&c.git_blob),
                entry: c.entry.clone(),
            }),
        }
    }
}

impl From<&Origin> for Provenance {
    fn from(origin: &Origin) -> Self {
        match origin {
            Origin::Formula { seed } => Self::Named { source: format!("formula:{seed}") },
            Origin::File { sha256, git_blob, bytes, official, entry } => Self::Checkpoint(Checkpoint {
                source: "checkpoint".to_owned(),
                official: official.is_some(),
                path: official.map(str::to_owned),
                sha256: sha256.clone(),
                git_blob: git_blob.clone(),
                bytes: *bytes,
                entry: entry.clone(),
            }),
        }
    }
}

/// The smallest number of two significant digits that is not below `x`, which is finite and not negative.
#[must_use]
pub fn upper_bound(x: f64) -> f64 {
    let rounded = format!("{x:.1e}");
    let value = |text: &str| text.parse::<f64>().unwrap_or(f64::INFINITY);
    if value(&rounded) >= x {
        return value(&rounded);
    }
    let Some((mantissa, exponent)) = rounded.split_once('e') else { return f64::INFINITY };
    let tenths = mantissa.replace('.', "").parse::<u64>().unwrap_or(u64::MAX - 1) + 1;
    value(&format!("{}.{}e{exponent}", tenths / 10, tenths % 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_two_digits_and_are_not_below() {
        let rows = [
            (0.0, 0.0),
            (1.0, 1.0),
            (6.2e-7, 6.2e-7),
            (6.21e-7, 6.3e-7),
            (6.29e-7, 6.3e-7),
            (9.91e-7, 1e-6),
            (9.99e-7, 1e-6),
            (1.000_001, 1.1),
            (123.4, 130.0),
        ];
        for (x, bound) in rows {
            assert_eq!(upper_bound(x), bound, "{x}");
        }
        for x in [1.8e-6, 0.1, 3.3e-300, 7.7e12] {
            assert_eq!(upper_bound(x), x);
            assert!(upper_bound(x * (1.0 + f64::EPSILON)) > x);
        }
    }

    #[test]
    fn provenance_is_what_the_exporter_knows() {
        let formula = Origin::Formula { seed: u64::MAX };
        let file = Origin::of_file(b"hello\n", Some("net_E".to_owned()));
        for origin in [formula, file] {
            let recorded = Provenance::from(&origin);
            assert_eq!(recorded.origin(), Some(origin));
            let json = serde_json::to_string(&recorded).unwrap();
            assert_eq!(serde_json::from_str::<Provenance>(&json).unwrap(), recorded);
        }
        assert_eq!(Provenance::own().origin(), None);
    }
}
