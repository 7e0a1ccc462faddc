//! What a constant is that is no parameter, in words of a report.

pub(super) const MASK: &str = "masks of attention scores";
pub(super) const ROTATION: &str = "tables of rotations";
pub(super) const SCALE: &str = "scales of attention";
pub(super) const QUANTISATION: &str = "scales of quantisation";
pub(super) const INPUT: &str = "means and deviations of the input";
pub(super) const GROUPS: &str = "ones and zeros of norms that are written for groups";
pub(super) const DECODING: &str = "tables that outputs are decoded with";
pub(super) const STATISTICS: &str = "running statistics of norms";
pub(super) const LONE: &str = "lone numbers";
pub(super) const MADE: &str = "constants that the exporter made";
pub(super) const OTHER: &str = "bounds, scales and tables of other operators";
