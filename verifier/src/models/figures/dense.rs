//! The figures of detectors and segmenters.
//!
//! Sources: the tables of the official READMEs, logs and papers (zhangzjn/EMO, commit 27d9b40; zhangzjn/EMOv2, commit
//! 582a96f; arXiv 2301.01146, 2412.06674). Parameters are sums over the logs' lists of shapes. What the tables call
//! FLOPs was counted with two tools: mmcv's counter for the first paper's models, and mmengine's, which counts as fvcore
//! does, for the second's.

use serde::Serialize;

/// What a published accuracy measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Mean average precision of boxes on COCO's validation images, per cent.
    BoxAp,
    /// Mean intersection over union on ADE20K's validation images, per cent.
    MeanIou,
}

impl Metric {
    /// As a table's header spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Metric::BoxAp => "AP",
            Metric::MeanIou => "mIoU",
        }
    }
}

/// How published FLOPs were counted, at the head's own size: no logits are resized to the input's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counter {
    /// mmcv's, in which batch norms across several processors are no batch norms: all but those of `plain`.
    Mmcv {
        /// What the names of the batch norms that it counts begin with.
        #[serde(skip)]
        plain: &'static [&'static str],
    },
    /// fvcore's convention, and so many operations of resizes to the same size, which no file of ours has.
    Fvcore { resizes: u64 },
    /// A mean over pictures of many sizes, which no single size gives.
    Pictures,
}

impl Counter {
    /// As a table's column spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Counter::Mmcv { .. } => "mmcv",
            Counter::Fvcore { .. } => "fvcore",
            Counter::Pictures => "pictures",
        }
    }
}

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Dense {
    pub model: &'static str,
    /// Millions of parameters, as printed.
    pub params: &'static str,
    /// Billions of FLOPs, as printed.
    pub flops: &'static str,
    pub metric: Metric,
    pub accuracy: f64,
    /// Height and width of the input that FLOPs were counted for.
    pub size: (usize, usize),
    pub counter: Counter,
    pub exact_params: u64,
    /// Parameters of the auxiliary head that training alone has, where `params` has them too.
    pub auxiliary: u64,
    /// By `counter`; `None` where it is a mean over pictures.
    pub exact_flops: Option<u64>,
}

/// Rows of one head and one tool.
struct Table {
    metric: Metric,
    size: (usize, usize),
    counter: fn(usize) -> Counter,
    /// Model, parameters, FLOPs, accuracy, exactly: parameters, those of the auxiliary head, FLOPs.
    rows: &'static [(&'static str, &'static str, &'static str, f64, [u64; 3])],
}

const SMALL: (usize, usize) = (320, 320);
const SEGMENTED: (usize, usize) = (512, 512);
const LARGE: (usize, usize) = (800, 1344);

/// Nothing but the detectors' own head and neck was trained without synchronised batch norms.
const DETECTOR: Counter = Counter::Mmcv { plain: &["neck.", "bbox_head."] };
const SEGMENTER: Counter = Counter::Mmcv { plain: &[] };
const FVCORE: Counter = Counter::Fvcore { resizes: 0 };

/// Operations of `maps` bilinear resizes of so many channels to the size of the largest map, 128 × 128.
const fn resizes(maps: u64, channels: u64) -> Counter {
    Counter::Fvcore { resizes: maps * channels * 128 * 128 * 4 }
}

const TABLES: &[Table] = &[
    Table {
        metric: Metric::BoxAp,
        size: SMALL,
        counter: |_| DETECTOR,
        rows: &[
            ("ssdlite-emo-1m", "2.3M", "0.6G", 22.0, [2_311_980, 0, 587_267_498]),
            ("ssdlite-emo-2m", "3.3M", "0.9G", 25.2, [3_342_716, 0, 971_433_946]),
            ("ssdlite-emo-5m", "6.0M", "1.8G", 27.9, [6_076_540, 0, 1_849_469_946]),
        ],
    },
    Table {
        metric: Metric::BoxAp,
        size: LARGE,
        counter: |_| SEGMENTER,
        rows: &[
            ("retinanet-emo-1m", "10.4M", "163G", 34.4, [10_479_244, 0, 163_759_954_816]),
            ("retinanet-emo-2m", "11.5M", "167G", 36.2, [11_555_644, 0, 167_660_641_648]),
            ("retinanet-emo-5m", "14.4M", "178G", 38.9, [14_440_508, 0, 178_110_272_944]),
        ],
    },
    Table {
        metric: Metric::MeanIou,
        size: SEGMENTED,
        counter: |_| SEGMENTER,
        rows: &[
            ("deeplabv3-emo-1m", "5.6M", "2.4G", 33.5, [5_429_806, 223_382, 2_463_875_928]),
            ("deeplabv3-emo-2m", "6.9M", "3.5G", 35.3, [6_651_614, 315_542, 3_503_840_520]),
            ("deeplabv3-emo-5m", "10.3M", "5.8G", 37.8, [9_948_126, 407_702, 5_844_556_720]),
            ("pspnet-emo-1m", "4.3M", "2.1G", 33.2, [4_151_342, 223_382, 2_105_676_888]),
            ("pspnet-emo-2m", "5.5M", "3.1G", 34.5, [5_242_078, 315_542, 3_106_221_576]),
            ("pspnet-emo-5m", "8.5M", "5.3G", 38.2, [8_178_142, 407_702, 5_338_533_040]),
            ("semantic-fpn-emo-1m", "5.2M", "22.5G", 34.2, [5_280_302, 0, 22_549_814_360]),
            ("semantic-fpn-emo-2m", "6.2M", "23.5G", 37.3, [6_282_974, 0, 23_543_625_224]),
            ("semantic-fpn-emo-5m", "8.9M", "25.8G", 40.4, [8_969_182, 0, 25_831_343_280]),
        ],
    },
    Table {
        metric: Metric::BoxAp,
        size: SMALL,
        counter: |_| FVCORE,
        rows: &[
            ("ssdlite-emo2-1m", "2.4M", "0.7G", 22.3, [2_409_088, 0, 734_343_152]),
            ("ssdlite-emo2-2m", "3.3M", "1.2G", 26.0, [3_349_556, 0, 1_225_165_952]),
            ("ssdlite-emo2-5m", "6.0M", "2.4G", 29.6, [6_094_132, 0, 2_474_258_752]),
            ("ssdlite-emo2-20m", "21.2M", "9.1G", 33.1, [21_213_780, 0, 9_144_153_152]),
        ],
    },
    Table {
        metric: Metric::BoxAp,
        size: LARGE,
        counter: |_| Counter::Pictures,
        rows: &[
            ("retinanet-emo2-1m", "10.5M", "142G", 36.9, [10_597_616, 0, 0]),
            ("retinanet-emo2-2m", "11.5M", "146G", 39.3, [11_562_484, 0, 0]),
            ("retinanet-emo2-5m", "14.4M", "158G", 41.5, [14_458_100, 0, 0]),
            ("retinanet-emo2-20m", "29.8M", "220G", 43.8, [29_831_444, 0, 0]),
        ],
    },
    Table {
        metric: Metric::MeanIou,
        size: SEGMENTED,
        counter: |_| FVCORE,
        rows: &[
            ("deeplabv3-emo2-1m", "5.6M", "3.3G", 34.6, [5_606_546, 0, 3_343_969_024]),
            ("deeplabv3-emo2-2m", "6.6M", "5.0G", 36.8, [6_658_454, 0, 5_015_654_912]),
            ("deeplabv3-emo2-5m", "9.9M", "9.1G", 39.8, [9_965_718, 0, 9_117_311_488]),
            ("deeplabv3-emo2-20m", "26.0M", "31.6G", 43.3, [26_062_006, 0, 31_629_558_272]),
            ("pspnet-emo2-1m", "4.2M", "2.9G", 33.6, [4_278_930, 0, 2_971_524_352]),
            ("pspnet-emo2-2m", "5.2M", "4.6G", 35.7, [5_248_918, 0, 4_618_572_800]),
            ("pspnet-emo2-5m", "8.1M", "8.6G", 39.1, [8_195_734, 0, 8_611_824_640]),
            ("pspnet-emo2-20m", "23.6M", "30.9G", 43.4, [23_636_662, 0, 30_926_971_904]),
        ],
    },
    Table {
        metric: Metric::MeanIou,
        size: SEGMENTED,
        counter: |_| resizes(3, 128),
        rows: &[
            ("semantic-fpn-emo2-1m", "5.3M", "23.4G", 37.1, [5_371_026, 0, 23_459_037_440]),
            ("semantic-fpn-emo2-2m", "6.2M", "25.1G", 39.9, [6_289_814, 0, 25_105_809_408]),
            ("semantic-fpn-emo2-5m", "8.9M", "29.1G", 42.3, [8_986_774, 0, 29_154_467_840]),
            ("semantic-fpn-emo2-20m", "23.9M", "51.5G", 46.8, [23_995_574, 0, 51_551_289_344]),
        ],
    },
    Table {
        metric: Metric::MeanIou,
        size: SEGMENTED,
        counter: |row| resizes(1, if row == 0 { 180 } else { 288 }),
        rows: &[
            ("segformer-emo2-1m", "1.4M", "5.0G", 37.0, [1_499_234, 0, 5_027_305_728]),
            ("segformer-emo2-2m", "2.6M", "10.3G", 40.2, [2_676_118, 0, 10_381_656_064]),
            ("segformer-emo2-5m", "5.3M", "14.4G", 43.0, [5_378_454, 0, 14_443_880_448]),
            // mmengine printed 20.400M first, and that was cut.
            ("segformer-emo2-20m", "20.4M", "36.8G", 47.3, [20_399_798, 0, 36_862_984_192]),
        ],
    },
];

/// Every row.
pub fn all() -> impl Iterator<Item = Dense> {
    TABLES.iter().flat_map(|table| {
        table.rows.iter().enumerate().map(|(at, row)| {
            let &(model, params, flops, accuracy, [exact_params, auxiliary, exact_flops]) = row;
            Dense {
                model,
                params,
                flops,
                metric: table.metric,
                accuracy,
                size: table.size,
                counter: (table.counter)(at),
                exact_params,
                auxiliary,
                exact_flops: (exact_flops > 0).then_some(exact_flops),
            }
        })
    })
}

/// The figures of the model called `ssdlite-emo-1m`, if it was published.
#[must_use]
pub fn published(model: &str) -> Option<Dense> {
    all().find(|row| row.model == model)
}

#[cfg(test)]
mod tests {
    use emo_exporter::encode::outline;
    use emo_exporter::models::{DENSE, Model, Task};
    use emo_exporter::profile::Profile;
    use emo_exporter::rewrite::Kind;
    use emo_exporter::target::{Output, Target};

    use super::*;
    use crate::cost::Work;
    use crate::infer::{Bindings, NodeFacts, infer};
    use crate::sym::Expr;

    /// Two figures were printed otherwise than by cutting off what follows the first digit.
    const OTHERWISE: [(&str, &str, u64); 2] =
        [("ssdlite-emo-1m", "0.6G", 587_267_498), ("segformer-emo2-20m", "20.4M", 20_399_798)];

    fn prints(model: &str, printed: &str, exact: u64) -> bool {
        let (number, unit) = printed.split_at(printed.len() - 1);
        let unit = if unit == "M" { 1_000_000 } else { 1_000_000_000 };
        let cut = match number.contains('.') {
            true => format!("{}.{}", exact / unit, exact % unit * 10 / unit),
            false => (exact / unit).to_string(),
        };
        cut == number || OTHERWISE.contains(&(model, printed, exact))
    }

    #[test]
    fn exact_figures_print_as_published() {
        for row in all() {
            assert!(prints(row.model, row.params, row.exact_params + row.auxiliary), "{}", row.model);
            let flops = row.exact_flops;
            assert!(flops.is_none_or(|flops| prints(row.model, row.flops, flops)), "{}", row.model);
        }
    }

    #[test]
    fn every_model_but_backbones_has_a_row() {
        let named = |model: &&Model| model.task() != Task::Features;
        let names: Vec<&str> = DENSE.iter().filter(named).map(|model| &*model.name).collect();
        let mut rows: Vec<&str> = all().map(|row| row.model).collect();
        rows.sort_unstable();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        assert_eq!(rows, sorted);
    }

    /// FLOPs of the model as the row's tool counts them: the file of the reference target, at the head's own size, with
    /// the means that no operator pools as the tool would have seen them. `None` where a mean over pictures is published.
    fn counted(row: &Dense, model: &Model) -> Option<u64> {
        let output = (model.task() == Task::Segment).then_some(Output::LogitsSmall);
        let target = Target { size: row.size, output, ..model.target(Profile::reference()) };
        let graph = model.build(&target).unwrap();
        let file = outline(&graph, target.opset, &[]).unwrap().model;
        let inference = infer(&file, &Bindings::new());
        let count = |expr: &Expr| expr.number().unwrap_or(0);
        let pools = || graph.rewrites.iter().filter(|rewrite| rewrite.kind == Kind::Pool);
        let flops = match row.counter {
            Counter::Fvcore { resizes } => {
                let file: i64 = inference.nodes.iter().map(|node| count(&node.cost.fvcore)).sum();
                file + pools().map(|pool| pool.fvcore).sum::<i64>() + resizes as i64
            }
            Counter::Mmcv { plain } => {
                let counted = |node: &&NodeFacts| {
                    let norm = matches!(&*node.work, Work::BatchNorm { .. });
                    !norm || plain.iter().any(|start| node.node.name().starts_with(start))
                };
                let file: i64 =
                    inference.nodes.iter().filter(counted).map(|node| count(&node.cost.mmcv)).sum();
                // Windows count as pools there already.
                file + pools().filter(|pool| pool.macs != 0).map(|pool| pool.fvcore).sum::<i64>()
            }
            Counter::Pictures => return None,
        };
        u64::try_from(flops).ok()
    }

    /// The reference target's files count, under each row's convention, to the digit.
    #[test]
    fn files_count_as_published() {
        let mut wrong = Vec::new();
        for row in all() {
            let model = Model::named(row.model).unwrap();
            let parameters = model.parameters().into_iter();
            // Statistics of norms are no parameters.
            let learnt = parameters.filter(|p| !p.name.contains(".running_"));
            let params: usize = learnt.map(|p| p.shape.iter().product::<usize>()).sum();
            let found = (params as u64, counted(&row, model));
            if found != (row.exact_params, row.exact_flops) {
                wrong.push(format!("{}: {found:?}, expected {row:?}", row.model));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
