//! Published figures and how they were rounded.
//!
//! Source: the official repository's README and training logs (zhangzjn/EMO, commit
//! 27d9b40). The exact integers are the official module's parameter count and fvcore's
//! count of it at 224 × 224, batch 1, 1000 classes; every row of the four published
//! per-module tables follows from them.

use serde::Serialize;

/// The figures of a classifier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Published {
    /// As the command line spells the model: `emo-1m`.
    pub model: &'static str,
    /// Millions of parameters, as printed.
    pub params: &'static str,
    /// FLOPs under fvcore's convention, as printed.
    pub flops: &'static str,
    /// ImageNet-1K top-1 accuracy, per cent.
    pub top1: f64,
    pub exact_params: u64,
    pub exact_fvcore: u64,
    /// Multiply-adds of convolutions, matrix products and the classifier alone.
    pub exact_macs: u64,
}

pub const PUBLISHED: [Published; 4] = [
    row("emo-1m", "1.3M", "261M", 71.5, [1_361_168, 260_843_664, 255_237_672]),
    row("emo-2m", "2.3M", "439M", 75.1, [2_377_472, 439_363_064, 431_917_024]),
    row("emo-5m", "5.1M", "903M", 78.4, [5_108_848, 902_583_776, 892_224_000]),
    row("emo-6m", "6.1M", "961M", 79.0, [6_168_496, 960_752_512, 950_250_048]),
];

const fn row(
    model: &'static str,
    params: &'static str,
    flops: &'static str,
    top1: f64,
    [exact_params, exact_fvcore, exact_macs]: [u64; 3],
) -> Published {
    Published { model, params, flops, top1, exact_params, exact_fvcore, exact_macs }
}

/// The figures of the model called `emo-1m`, if it was published.
#[must_use]
pub fn published(model: &str) -> Option<&'static Published> {
    PUBLISHED.iter().find(|p| p.model == model)
}

/// Parameters as the paper prints them: millions, truncated to a tenth.
#[must_use]
pub fn print_params(params: u64) -> String {
    format!("{}.{}M", params / 1_000_000, params % 1_000_000 / 100_000)
}

/// Classification FLOPs as the paper prints them: millions, rounded.
#[must_use]
pub fn print_flops(fvcore: u64) -> String {
    format!("{}M", (fvcore + 500_000) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_figures_print_as_published() {
        for p in PUBLISHED {
            assert_eq!(print_params(p.exact_params), p.params, "{}", p.model);
            assert_eq!(print_flops(p.exact_fvcore), p.flops, "{}", p.model);
        }
    }
}
