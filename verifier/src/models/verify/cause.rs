//! Known mistakes: what they are called, and how each is computed on purpose.

use serde::Serialize;

pub use crate::against::OUTPUTS;
use crate::compare::{Tolerance, compare};
use crate::reference::{Mistake, Rounding};

/// A mistake that exports of EMO are known to make.
#[derive(Debug, Clone, Copy)]
pub struct Cause {
    /// Stable, kebab-case: what reports call it.
    pub name: &'static str,
    pub what: &'static str,
    /// The changes of a block that are this mistake; none where only structure or weights show it.
    pub tries: &'static [Mistake],
}

pub const NOT_EMO: &str = "not-emo";
pub const UNRUNNABLE: &str = "unrunnable";
pub const OTHER_WINDOW: &str = "other-window";
pub const PRECISION: &str = "precision";
pub const ROUNDING: &str = "rounding";
pub const WEIGHTS: &str = "weights";
pub const UNKNOWN: &str = "unknown";
pub const NORM_EPSILON: &str = "norm-epsilon";
pub const TANH_GELU: &str = "tanh-gelu";
pub const EXCHANGED_QK: &str = "exchanged-qk";
pub const NO_LAYER_SCALE: &str = "no-layer-scale";
pub const NO_POSITION_EMBEDDING: &str = "no-position-embedding";
pub const CLASS_AGNOSTIC: &str = "class-agnostic";
pub const LABELS_FROM_ONE: &str = "labels-from-one";
pub const SUPPRESSION: &str = "suppression";
pub const BOX_ORDER: &str = "box-order";
pub const BACKGROUND_KEPT: &str = "background-kept";
pub const DILATION: &str = "dilation";
pub const RELU: &str = "relu";
pub const ATTENTION_SCALE: &str = "attention-scale";

/// Every cause of a failure.
pub const CAUSES: [Cause; 50] = [
    Cause { name: UNRUNNABLE, what: "the file breaks a rule without which nothing can run it", tries: &[] },
    Cause { name: NOT_EMO, what: "the layers along the data path are those of no known model", tries: &[] },
    Cause {
        name: OTHER_WINDOW,
        what: "the attention windows are not of the size that the model has",
        tries: &[],
    },
    Cause {
        name: PRECISION,
        what: "the file computes in a coarser type than the tolerance demands",
        tries: &[],
    },
    Cause {
        name: ROUNDING,
        what: "the function is EMO's, and the file loses more by rounding than its types have to",
        tries: &[],
    },
    Cause { name: WEIGHTS, what: "the function is EMO's, the weights are not the checkpoint's", tries: &[] },
    Cause {
        name: "tiles",
        what: "windows are contiguous tiles; EMO's are strided grids, (h1 n1) (w1 n2) -> n1 n2 h1 w1",
        tries: &[Mistake::Tiles],
    },
    Cause {
        name: NORM_EPSILON,
        what: "a norm's ε is not the published one",
        tries: &[
            Mistake::Epsilon(1e-5),
            Mistake::Epsilon(1e-6),
            Mistake::Epsilon(1e-3),
            Mistake::Epsilon(1e-12),
            Mistake::Epsilon(1e-2),
        ],
    },
    Cause {
        name: TANH_GELU,
        what: "GELU by its tanh approximation; EMO's is by erf",
        tries: &[Mistake::TanhGelu],
    },
    Cause {
        name: "sigmoid-gelu",
        what: "GELU as x·σ(1.702·x); EMO's is by erf",
        tries: &[Mistake::SigmoidGelu],
    },
    Cause {
        name: "no-skip",
        what: "the skip around the depthwise convolution is missing",
        tries: &[Mistake::NoSkip],
    },
    Cause {
        name: "no-shortcut",
        what: "the block's shortcut is missing",
        tries: &[Mistake::NoShortcut, Mistake::NoAttentionShortcut, Mistake::NoFeedForwardShortcut],
    },
    Cause {
        name: NO_LAYER_SCALE,
        what: "the factor of each channel behind the projection, ls.gamma, is missing",
        tries: &[Mistake::NoLayerScale],
    },
    Cause {
        name: ATTENTION_SCALE,
        what: "scores are not scaled by 1/√head_dim before the softmax",
        tries: &[Mistake::NoScale],
    },
    Cause {
        name: EXCHANGED_QK,
        what: "queries and keys have changed places",
        tries: &[Mistake::ExchangedQueriesKeys],
    },
    Cause {
        name: "no-value-activation",
        what: "the activation behind the value projection is missing",
        tries: &[Mistake::BareValue],
    },
    Cause {
        name: "no-local-activation",
        what: "the SiLU behind the depthwise convolution is missing",
        tries: &[Mistake::BareLocal],
    },
    Cause { name: "no-squeeze-excite", what: "the squeeze-excite is missing", tries: &[Mistake::NoGate] },
    Cause {
        name: "masked-padding",
        what: "the softmax leaves out tokens that pad a window; EMO masks nothing",
        tries: &[Mistake::MaskedPadding],
    },
    Cause {
        name: "late-padding",
        what: "windows are padded behind the projection to q and k; EMO pads before it",
        tries: &[Mistake::LatePadding],
    },
    Cause {
        name: "zero-padded-values",
        what: "tokens that pad a window have the value 0; EMOv2's have what the projection makes of 0",
        tries: &[Mistake::ZeroPaddedValues],
    },
    Cause { name: "no-attention", what: "the block does not attend", tries: &[Mistake::NoAttention] },
    Cause {
        name: "close-only",
        what: "the block attends in contiguous windows only; EMOv2 adds what strided ones give",
        tries: &[Mistake::CloseOnly],
    },
    Cause {
        name: "remote-only",
        what: "the block attends in strided windows only; EMOv2 adds what contiguous ones give",
        tries: &[Mistake::RemoteOnly],
    },
    Cause {
        name: "concatenated-windows",
        what: "half of the channels are of strided windows and half of contiguous ones; EMOv2 adds the two",
        tries: &[Mistake::Concatenated { close_first: false }, Mistake::Concatenated { close_first: true }],
    },
    Cause {
        name: "value-before-attention",
        what: "the value projection and its activation come before the attention; EMO's come behind it",
        tries: &[Mistake::ValueBeforeAttention],
    },
    Cause {
        name: "value-after-attention",
        what: "the value projection and its activation come behind the attention; EMOv2's come before it",
        tries: &[Mistake::ValueAfterAttention],
    },
    Cause { name: RELU, what: "ReLU without a bound; the published one is ReLU6", tries: &[Mistake::Relu] },
    Cause {
        name: NO_POSITION_EMBEDDING,
        what: "tokens lack the embedding of their positions",
        tries: &[Mistake::NoPosition],
    },
    Cause {
        name: "mean-pooled",
        what: "the classifier reads a mean over tokens; the published one reads the class token",
        tries: &[Mistake::MeanPooled { class_token: false }, Mistake::MeanPooled { class_token: true }],
    },
    Cause {
        name: "corner-aligned",
        what: "a map is resized bilinearly between its corners; the published resize is between pixels' centres",
        tries: &[Mistake::CornerAligned],
    },
    Cause {
        name: "nearest-rounding",
        what: "a map is resized to pixels that another rounding gives; the published one rounds down from corners",
        tries: &[
            Mistake::Nearest(Rounding::Centres),
            Mistake::Nearest(Rounding::CentresUp),
            Mistake::Nearest(Rounding::Half),
            Mistake::Nearest(Rounding::Up),
        ],
    },
    Cause {
        name: "exchanged-levels",
        what: "levels or branches are joined in another order than the published one",
        tries: &[Mistake::ReversedLevels, Mistake::FirstLast],
    },
    Cause {
        name: DILATION,
        what: "a branch's convolution has another dilation than the published one",
        tries: &[
            Mistake::Dilation(1),
            Mistake::Dilation(2),
            Mistake::Dilation(6),
            Mistake::Dilation(12),
            Mistake::Dilation(18),
            Mistake::Dilation(24),
            Mistake::Dilation(36),
        ],
    },
    Cause {
        name: "stride",
        what: "a convolution has another stride, or bins of a pooled map are windows of one stride",
        tries: &[Mistake::Stride(1), Mistake::StridedPool],
    },
    Cause {
        name: "shifted-anchors",
        what: "anchors are off by half a stride",
        tries: &[Mistake::ShiftedAnchors],
    },
    Cause {
        name: "no-variances",
        what: "deltas are not scaled by the coder's deviations",
        tries: &[Mistake::NoVariance],
    },
    Cause {
        name: "scores",
        what: "scores are a softmax where the published ones are a sigmoid, or the reverse",
        tries: &[Mistake::OtherScores],
    },
    Cause {
        name: "background-first",
        what: "the first class is taken for the background; the published one is the last",
        tries: &[Mistake::BackgroundFirst],
    },
    Cause {
        name: BACKGROUND_KEPT,
        what: "the background is one of the classes; the published boxes are of the others alone",
        tries: &[Mistake::BackgroundKept],
    },
    Cause {
        name: "exchanged-axes",
        what: "boxes are top, left, bottom, right; the published order is left, top, right, bottom",
        tries: &[Mistake::ExchangedAxes],
    },
    Cause {
        name: "normalised-boxes",
        what: "boxes are in shares of the image's sides; the published ones are in pixels",
        tries: &[Mistake::NormalisedBoxes],
    },
    Cause {
        name: "boxes-by-sides",
        what: "boxes are a point, a width and a height; the published ones are two corners",
        tries: &[Mistake::Centres, Mistake::CornerAndSides],
    },
    Cause {
        name: CLASS_AGNOSTIC,
        what: "a box drops those of other classes too; the published suppression is class by class",
        tries: &[],
    },
    Cause {
        name: LABELS_FROM_ONE,
        what: "classes are counted from 1; the published ones are counted from 0",
        tries: &[],
    },
    Cause {
        name: SUPPRESSION,
        what: "other boxes are kept than suppression with the file's own thresholds keeps",
        tries: &[],
    },
    Cause { name: BOX_ORDER, what: "boxes do not stand in the order of their scores", tries: &[] },
    Cause {
        name: "exchanged-channels",
        what: "the image's channels are reversed: BGR is read as RGB",
        tries: &[Mistake::ExchangedChannels],
    },
    Cause {
        name: OUTPUTS,
        what: "two files give different outputs, or a file others than were recorded",
        tries: &[],
    },
    Cause { name: UNKNOWN, what: "none of the known mistakes gives what the file gives", tries: &[] },
];

/// The row of a cause.
#[must_use]
pub fn named(name: &str) -> Option<&'static Cause> {
    CAUSES.iter().find(|cause| cause.name == name)
}

/// A mistake that gives a file's values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Explained {
    pub cause: &'static str,
    /// The largest error that remains, as a share of the largest value.
    pub remains: f64,
}

/// The cause whose outcome is nearest to `found`, if one is within `tolerance` and far nearer than the
/// truth is, `without`. A mistake that cannot be made has no outcome.
pub fn explain(
    found: &[f32],
    without: f64,
    tolerance: &Tolerance,
    outcome: impl Fn(Mistake) -> Option<Vec<f64>>,
) -> Option<Explained> {
    /// A mistake explains nothing that is nearly as far from the file as the truth.
    const NEARER: f64 = 0.25;
    let tries = CAUSES.iter().flat_map(|cause| cause.tries.iter().map(|&mistake| (cause.name, mistake)));
    let remains = tries.filter_map(|(cause, mistake)| {
        let difference = compare(found, &outcome(mistake)?).ok()?;
        Some(Explained { cause, remains: difference.relative() })
    });
    let best = remains.min_by(|a, b| a.remains.total_cmp(&b.remains))?;
    let bound = tolerance.bound.min(NEARER * without);
    (best.remains <= bound).then_some(best)
}
