//! A row a target: which opsets it takes, which form each layer has, what is folded.

/// How a model is spelled for a family of runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    pub name: &'static str,
    pub summary: &'static str,
    /// Batch norms go into the convolutions beside them, the attention scale into q.
    pub fold: bool,
    /// Windows are put back and their padding cut off before the value convolution, which
    /// is pointwise, rather than after it: fewer channels move, padded tokens cost nothing.
    pub unpartition_first: bool,
}

pub const PROFILES: [Profile; 2] = [
    Profile {
        name: "reference",
        summary: "nothing folded: the initializers are the published state dict",
        fold: false,
        unpartition_first: false,
    },
    Profile {
        name: "portable",
        summary: "rank 4 at most, norms and attention scale folded",
        fold: true,
        unpartition_first: true,
    },
];

/// An opset that every profile can be written in, and what it brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opset {
    pub version: i64,
    /// The lowest file format version that may declare the opset (`onnx.helper`'s table).
    pub ir_version: i64,
    /// Whether GELU is an operator; it is spelled with Erf otherwise.
    pub gelu: bool,
    /// Whether a reduction takes its axes as an operand instead of an attribute.
    pub reduce_axes_operand: bool,
}

pub const OPSETS: [Opset; 2] = [
    Opset { version: 17, ir_version: 8, gelu: false, reduce_axes_operand: false },
    Opset { version: 20, ir_version: 9, gelu: true, reduce_axes_operand: true },
];

impl Profile {
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|p| p.name == name)
    }
}

impl Opset {
    #[must_use]
    pub fn version(version: i64) -> Option<&'static Self> {
        OPSETS.iter().find(|o| o.version == version)
    }
}
