//! The feature pyramid: maps of one width, each of which knows what the coarser ones saw.

use emo_proto::Result;

use super::{plain, three};
use crate::builder::Builder;
use crate::graph::Value;
use crate::layer::{self, Conv, Form};
use crate::op::Binary;

/// Channels of every level.
pub const CHANNELS: usize = 256;

/// A level a map, and `extra` ones on the coarsest map, each half as large as the one before it.
pub(super) fn build(b: &mut Builder, maps: &[Value], extra: usize, form: Form) -> Result<Vec<Value>> {
    let mut sums = Vec::with_capacity(maps.len());
    for (i, &map) in maps.iter().enumerate() {
        let lateral = Conv::pointwise(CHANNELS);
        sums.push(b.within(&format!("neck.lateral_convs.{i}"), |b| plain(b, map, lateral, form))?);
    }
    for i in (1..sums.len()).rev() {
        let (coarse, fine) = (sums[i], sums[i - 1]);
        sums[i - 1] = b.within(&format!("neck.top_down.{}", i - 1), |b| {
            let (.., height, width) = b.feature_map(fine)?;
            let coarse = layer::resize_nearest(b, coarse, [height, width], form)?;
            b.binary("add", Binary::Add, fine, coarse)
        })?;
    }
    let mut levels = Vec::with_capacity(maps.len() + extra);
    for (i, &sum) in sums.iter().enumerate() {
        levels.push(b.within(&format!("neck.fpn_convs.{i}"), |b| plain(b, sum, three(CHANNELS), form))?);
    }
    let mut x = maps[maps.len() - 1];
    for i in maps.len()..maps.len() + extra {
        let halved = Conv { stride: 2, ..three(CHANNELS) };
        x = b.within(&format!("neck.fpn_convs.{i}"), |b| plain(b, x, halved, form))?;
        levels.push(x);
    }
    Ok(levels)
}
