//! Published figures and how they were rounded.
//!
//! Sources: the official repositories' READMEs and training logs (zhangzjn/EMO, commit
//! 27d9b40; zhangzjn/EMOv2, commit 582a96f), and for EMOv2-20M and 50M its paper (arXiv
//! 2412.06674). The exact integers are the official module's parameter count and fvcore's
//! count of it at 224 × 224, batch 1, 1000 classes; every row of the published per-module
//! tables follows from them.

pub mod dense;

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

pub const PUBLISHED: [Published; 9] = [
    row("emo-1m", "1.3M", "261M", 71.5, [1_361_168, 260_843_664, 255_237_672]),
    row("emo-2m", "2.3M", "439M", 75.1, [2_377_472, 439_363_064, 431_917_024]),
    row("emo-5m", "5.1M", "903M", 78.4, [5_108_848, 902_583_776, 892_224_000]),
    row("emo-6m", "6.1M", "961M", 79.0, [6_168_496, 960_752_512, 950_250_048]),
    row("emo2-1m", "1.4M", "285M", 72.3, [1_460_844, 284_756_712, 279_936_484]),
    row("emo2-2m", "2.3M", "487M", 75.8, [2_384_312, 487_454_824, 480_811_600]),
    row("emo2-5m", "5.1M", "1035M", 79.4, [5_126_440, 1_035_473_760, 1_025_113_984]),
    row("emo2-20m", "20.1M", "4.0G", 83.3, [20_195_208, 4_017_165_376, 3_997_004_032]),
    row("emo2-50m", "49.8M", "8.8G", 84.1, [49_815_560, 8_804_167_168, 8_767_262_720]),
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
fn print_params(params: u64) -> String {
    format!("{}.{}M", params / 1_000_000, params % 1_000_000 / 100_000)
}

impl Published {
    /// Whether counts print as the paper prints them: FLOPs rounded, to millions or to tenths of billions.
    #[must_use]
    pub fn prints(&self, params: u64, fvcore: u64) -> bool {
        let flops = match self.flops.ends_with('G') {
            true => format!("{:.1}G", fvcore as f64 / 1e9),
            false => format!("{}M", (fvcore + 500_000) / 1_000_000),
        };
        print_params(params) == self.params && flops == self.flops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_figures_print_as_published() {
        for p in PUBLISHED {
            assert!(p.prints(p.exact_params, p.exact_fvcore), "{}", p.model);
        }
    }
}
