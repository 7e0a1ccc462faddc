//! What exact rewrites took out of a published model, or put in: data, so that an audit of the file
//! ends at the published figures.

use std::fmt;
use std::str::FromStr;

use emo_proto::{Error, Result};

/// What an exact rewrite removed from the published model; what it added is negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    pub kind: Kind,
    /// The module that is gone, or whose work shrank: `stage1.0.norm`.
    pub what: String,
    /// The module that does its work now: `stage1.0.v.conv`.
    pub into: String,
    /// Learnable parameters fewer in the file.
    pub parameters: i64,
    /// Multiply-adds fewer, for the whole (or a free batch's single) input.
    pub macs: i64,
    /// Fewer in fvcore's count: multiply-adds, 2 per element of a batch norm, 5 of a layer norm,
    /// 1 of what is pooled.
    pub fvcore: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A batch norm folded into a convolution.
    Norm,
    /// The attention scale folded into q.
    Scale,
    /// A pointwise convolution that skips the tokens that only pad a window.
    Padding,
    /// A layer norm spelled out, or the part of one that was folded into what reads it.
    LayerNorm,
    /// Two pointwise convolutions in a row made one.
    Merge,
    /// A mean over the map written as pooling, which fvcore counts, or pooling written as a mean.
    Pool,
    /// A resize written as products.
    Resize,
    /// An image of bytes normalised in the file.
    Image,
    /// A layer scale folded into the projection before it.
    LayerScale,
    /// A pointwise convolution over maps side by side, taken apart and done before they are resized.
    Split,
    /// Attention in several patterns of windows that are the same: computed once and multiplied.
    Pattern,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Kind::Norm,
        Kind::Scale,
        Kind::Padding,
        Kind::LayerNorm,
        Kind::Merge,
        Kind::Pool,
        Kind::Resize,
        Kind::Image,
        Kind::LayerScale,
        Kind::Split,
        Kind::Pattern,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Norm => "norm",
            Kind::Scale => "scale",
            Kind::Padding => "padding",
            Kind::LayerNorm => "layer-norm",
            Kind::Merge => "merge",
            Kind::Pool => "pool",
            Kind::Resize => "resize",
            Kind::Image => "image",
            Kind::LayerScale => "layer-scale",
            Kind::Split => "split",
            Kind::Pattern => "pattern",
        }
    }

    /// What `n` of this kind are, in a report.
    #[must_use]
    pub fn describe(self, n: usize) -> String {
        let (what, done) = match self {
            Kind::Norm => ("batch norm", "folded into convolutions"),
            Kind::Scale => ("attention scale", "folded into q"),
            Kind::Padding => ("value convolution", "spared padded tokens"),
            Kind::LayerNorm => ("layer norm", "spelled out or folded"),
            Kind::Merge => ("pair", "of convolutions made one"),
            Kind::Pool => ("mean", "written as pooling"),
            Kind::Resize => ("resize", "written as products"),
            Kind::Image => ("image", "normalised in the file"),
            Kind::LayerScale => ("layer scale", "folded into projections"),
            Kind::Split => ("layer", "over maps side by side done before they are resized"),
            Kind::Pattern => ("attention", "computed once for all patterns of windows"),
        };
        format!("{n} {what}{} {done}", if n == 1 { "" } else { "s" })
    }
}

/// `norm stage1.0.norm -> stage1.0.v.conv: 48 params, 0 MACs, 602112 fvcore`
impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, what, into, parameters, macs, fvcore } = self;
        let kind = kind.name();
        write!(f, "{kind} {what} -> {into}: {parameters} params, {macs} MACs, {fvcore} fvcore")
    }
}

impl FromStr for Rewrite {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let parse = || {
            let (modules, counts) = line.rsplit_once(": ")?;
            let (kind, modules) = modules.split_once(' ')?;
            let (what, into) = modules.split_once(" -> ")?;
            let mut counts = counts.split(", ").zip([" params", " MACs", " fvcore"]);
            let mut count = || counts.next().and_then(|(count, unit)| count.strip_suffix(unit)?.parse().ok());
            Some(Self {
                kind: Kind::ALL.into_iter().find(|k| k.name() == kind)?,
                what: what.to_owned(),
                into: into.to_owned(),
                parameters: count()?,
                macs: count()?,
                fvcore: count()?,
            })
        };
        parse().ok_or_else(|| {
            let shape = "KIND MODULE -> MODULE: N params, N MACs, N fvcore";
            Error::new(format!("expected a rewrite `{shape}`, found {line:?}"))
        })
    }
}

impl Rewrite {
    /// A rewrite that leaves the counts as they are.
    pub(crate) fn free(kind: Kind, what: String, into: String) -> Self {
        Self { kind, what, into, parameters: 0, macs: 0, fvcore: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_as_it_is_written() {
        for kind in Kind::ALL {
            let free = Rewrite::free(kind, "stage1.0.norm".to_owned(), "stage1.0.v.conv".to_owned());
            let rewrite = Rewrite { parameters: 48, macs: -1, fvcore: 602_112, ..free };
            assert_eq!(rewrite.to_string().parse::<Rewrite>().unwrap(), rewrite);
        }
        let names: std::collections::HashSet<_> = Kind::ALL.map(Kind::name).into();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
