//! SSDLite.
//!
//! Sources: "SSD: Single Shot MultiBox Detector" (ECCV 2016, arXiv 1512.02325), section 2, with the separable
//! convolutions of MobileNetV2 (CVPR 2018, arXiv 1801.04381), section 6.2.

use emo_proto::Result;

use super::Level;
use super::decode::{self, Anchors, Scores};
use super::layer::{Layer, Sequence, Style};
use crate::models::reference::ops::Activation;
use crate::models::reference::parts::{Parts, Source};
use crate::models::reference::scope::Scope;

const STYLE: Style = Style { epsilon: 1e-3, activation: Activation::Relu6 };
/// Channels of the levels beyond the backbone's.
const EXTRA: [usize; 4] = [512, 256, 256, 128];

/// A level's anchors, in pixels.
struct Row {
    stride: f32,
    smallest: f32,
    largest: f64,
}

const ROWS: [Row; 6] = [
    Row { stride: 16.0, smallest: 48.0, largest: 100.0 },
    Row { stride: 32.0, smallest: 100.0, largest: 150.0 },
    Row { stride: 64.0, smallest: 150.0, largest: 202.0 },
    Row { stride: 107.0, smallest: 202.0, largest: 253.0 },
    Row { stride: 160.0, smallest: 253.0, largest: 304.0 },
    Row { stride: 320.0, smallest: 304.0, largest: 320.0 },
];
/// Heights to widths of the anchors behind the two squares.
const RATIOS: [f32; 4] = [1.0 / 2.0, 2.0, 1.0 / 3.0, 3.0];

/// `maps` are those of strides 16 and 32.
pub fn load(parts: &mut Parts, maps: &[Level], root: &Scope) -> Result<()> {
    let mut levels = maps.to_vec();
    for (index, outputs) in EXTRA.into_iter().enumerate() {
        let before = levels[levels.len() - 1];
        let (name, half) = (format!("neck.extra_layers.{index}"), outputs / 2);
        let scope = root.at(&name);
        let layers = vec![
            Layer::normed(&scope.at("0"), [before.channels, half], [1, 1], STYLE)?,
            Layer::depthwise(&scope.at("1.depthwise_conv"), half, 2, STYLE)?,
            Layer::normed(&scope.at("1.pointwise_conv"), [half, outputs], [1, 1], STYLE)?,
        ];
        let source = parts.push(name, Sequence(layers), [before.source]);
        levels.push(Level { source, channels: outputs });
    }
    let mut branch = |convs: &str| -> Result<Vec<Source>> {
        let part = |(index, level): (usize, &Level)| -> Result<Source> {
            let name = format!("bbox_head.{convs}.{index}");
            let scope = root.at(&name);
            let layers = vec![
                Layer::depthwise(&scope.at("0"), level.channels, 1, STYLE)?,
                Layer::plain(&scope.at("1"), level.channels, 1)?,
            ];
            Ok(parts.push(name, Sequence(layers), [level.source]))
        };
        levels.iter().enumerate().map(part).collect()
    };
    let scores = branch("cls_convs")?;
    let deltas = branch("reg_convs")?;
    let coder = anchors();
    let made = Scores { anchors: coder.of_a_cell(), background: true };
    decode::finish(parts, [&scores, &deltas], coder, made);
    Ok(())
}

/// Of a cell, around its middle: the small square, one between it and the large, then the small one's other ratios.
fn anchors() -> Anchors {
    let sides = |row: &Row| {
        let between = row.smallest * (row.largest / f64::from(row.smallest)).sqrt() as f32;
        let other = RATIOS.map(|ratio| [row.smallest * (1.0 / ratio.sqrt()), row.smallest * ratio.sqrt()]);
        [[row.smallest; 2], [between; 2]].into_iter().chain(other).collect()
    };
    Anchors {
        offset: 0.5,
        levels: ROWS.iter().map(|row| (row.stride, sides(row))).collect(),
        deviations: [0.1, 0.1, 0.2, 0.2],
    }
}
