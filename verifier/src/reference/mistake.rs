//! What exports of EMO are known to do wrong, as changes of a block.

use emo_exporter::layer::NORM_EPSILON;

/// A mistake that a block is computed with, on purpose: where the outcome is a file's, the mistake is the
/// file's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mistake {
    /// Windows are contiguous tiles of the map, not strided grids.
    Tiles,
    /// The norm before the block has another ε.
    Epsilon(f64),
    /// GELU by its tanh approximation.
    TanhGelu,
    /// GELU as x · σ(1.702 · x).
    SigmoidGelu,
    /// No activation behind the value projection.
    BareValue,
    /// No SiLU behind the depthwise convolution.
    BareLocal,
    /// No squeeze-excite.
    NoGate,
    /// The depthwise convolution lacks its skip.
    NoSkip,
    /// The block lacks its shortcut.
    NoShortcut,
    /// Scores are not scaled by 1/√`head_dim`.
    NoScale,
    /// Keys take the place of queries.
    ExchangedQueriesKeys,
    /// The softmax leaves out the tokens that pad a window.
    MaskedPadding,
    /// Windows are padded behind the projection to q and k, which then lack its bias there.
    LatePadding,
    /// The block does not attend.
    NoAttention,
    /// No mistake, but the most that an engine in f32 loses in a mean over a map: one pixel after the other.
    SingleSums,
}

/// The ε of a norm under a mistake.
pub(super) fn epsilon(mistake: Option<Mistake>) -> f64 {
    match mistake {
        Some(Mistake::Epsilon(epsilon)) => epsilon,
        _ => NORM_EPSILON,
    }
}
