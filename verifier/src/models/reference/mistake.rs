//! What exports are known to do wrong, as changes of a block.

/// A mistake that a block is computed with, on purpose: where the outcome is a file's, the mistake is the
/// file's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mistake {
    /// Windows are contiguous tiles of the map, not strided grids.
    Tiles,
    /// Of the two patterns of windows only the contiguous tiles.
    CloseOnly,
    /// Of the two patterns of windows only the strided grids.
    RemoteOnly,
    /// One half of the channels is from one pattern of windows, the other half from the other, and nothing is summed.
    Concatenated {
        /// Whether the first half is from the contiguous tiles.
        close_first: bool,
    },
    /// The norm before the block, or those behind its convolutions, has another ε.
    Epsilon(f64),
    /// GELU by its tanh approximation.
    TanhGelu,
    /// GELU as x · σ(1.702 · x).
    SigmoidGelu,
    /// ReLU for ReLU6.
    Relu,
    /// No activation behind the value projection.
    BareValue,
    /// No SiLU behind the depthwise convolution.
    BareLocal,
    /// No squeeze-excite.
    NoGate,
    /// The depthwise convolution lacks its skip.
    NoSkip,
    /// The block lacks its shortcut, or all of them.
    NoShortcut,
    /// The attention of a Transformer's block lacks its shortcut.
    NoAttentionShortcut,
    /// The feed-forward of a Transformer's block lacks its shortcut.
    NoFeedForwardShortcut,
    /// The block lacks its `LayerScale`.
    NoLayerScale,
    /// Scores are not scaled by 1/√`head_dim`.
    NoScale,
    /// Keys take the place of queries.
    ExchangedQueriesKeys,
    /// The value projection and its activation come before the attention that should come first.
    ValueBeforeAttention,
    /// The value projection and its activation come behind the attention that should mix what they give.
    ValueAfterAttention,
    /// The softmax leaves out the tokens that pad a window.
    MaskedPadding,
    /// Windows are padded behind the projections, which then lack their bias there.
    LatePadding,
    /// The value of a token that pads a window is 0, and not what the projection makes of 0.
    ZeroPaddedValues,
    /// The block does not attend.
    NoAttention,
    /// Tokens lack the embedding of their positions.
    NoPosition,
    /// The classifier reads a mean over tokens, not the class token.
    MeanPooled {
        /// Whether the class token is one of them.
        class_token: bool,
    },
    /// The image's channels in the reverse order: blue for red.
    ExchangedChannels,
    /// Bilinear resizing between corners, and not between the centres of pixels.
    CornerAligned,
    /// The nearest pixel by another rounding than down.
    Nearest(Rounding),
    /// A strided convolution has another stride.
    Stride(usize),
    /// A dilated convolution has another dilation.
    Dilation(usize),
    /// Bins of adaptive pooling are windows of one size, one distance apart.
    StridedPool,
    /// Maps that are to be joined are joined in the reverse order.
    ReversedLevels,
    /// The first of the maps that are to be joined comes last.
    FirstLast,
    /// Anchors lie half a stride further, or less far, than the published ones.
    ShiftedAnchors,
    /// Deltas are not scaled by the coder's deviations.
    NoVariance,
    /// Softmax for sigmoid, or sigmoid for softmax.
    OtherScores,
    /// The first of the classes is taken for the background, not the last.
    BackgroundFirst,
    /// The background is one of the classes.
    BackgroundKept,
    /// Boxes are top, left, bottom, right.
    ExchangedAxes,
    /// Boxes are in shares of the image's sides, not in pixels.
    NormalisedBoxes,
    /// Boxes are their centre and their sides, not their corners.
    Centres,
    /// Boxes are their left upper corner and their sides.
    CornerAndSides,
    /// No mistake, but the most that an engine in f32 loses in a mean over a map: one pixel after the other.
    SingleSums,
}

/// How else the nearest pixel may be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Up from the pixel's corner.
    Up,
    /// To the nearest corner, a half up.
    Half,
    /// To the nearest centre, a half down.
    Centres,
    /// The same, a half up: PyTorch's `nearest-exact`.
    CentresUp,
}

impl Mistake {
    /// The ε of a norm whose published one is given.
    pub(super) fn epsilon(this: Option<Self>, published: f64) -> f64 {
        match this {
            Some(Self::Epsilon(epsilon)) => epsilon,
            _ => published,
        }
    }

    /// Whether it is in how boxes are written down, and not in where they are.
    #[must_use]
    pub fn is_of_writing(self) -> bool {
        matches!(self, Self::ExchangedAxes | Self::NormalisedBoxes | Self::Centres | Self::CornerAndSides)
    }

    /// Whether this is another ε than a norm's published one.
    pub(super) fn is_of_norm(self, published: f64) -> bool {
        matches!(self, Self::Epsilon(epsilon) if epsilon != published)
    }
}
