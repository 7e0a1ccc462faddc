//! Detectors and segmenters.
//!
//! Sources: the configurations and logs that the papers of EMO and EMOv2 published with these models, on the modules of
//! mmdetection and mmsegmentation, whose papers each file names; the weights' names are theirs.

mod aspp;
mod decode;
mod fpn;
mod layer;
mod psp;
mod retinanet;
mod segformer;
mod segment;
mod semantic_fpn;
mod ssdlite;

use emo_exporter::models::dense::{Head, Network};
use emo_proto::{Error, Result};

use super::backbone;
use super::parts::{Named, Parts, Source};
use super::scope::Scope;

/// What a stage of the backbone gives, or a level of a neck.
#[derive(Clone, Copy)]
struct Level {
    source: Source,
    channels: usize,
}

/// Of the backbones that heads were published on.
const STAGES: usize = 4;

pub fn load(network: &Network, root: &Scope) -> Result<Parts> {
    let module = root.at("backbone");
    let scope = if matches!(network.head, Head::Maps { .. }) { root } else { &module };
    let (blocks, stem, stages) = backbone(&network.backbone, scope)?;
    let mut parts = Parts::chain(blocks);
    let channels = std::iter::once(stem).chain(stages.iter().map(|stage| stage.dim));
    let levels = parts.stages().into_iter().zip(channels);
    // The stem's map and each stage's, as the published indices count them.
    let maps: Vec<Level> = levels.map(|(source, channels)| Level { source, channels }).collect();
    if let Head::Maps { stages } = &network.head {
        let chosen = maps.iter().enumerate().filter(|(index, _)| stages.contains(index));
        let outputs = chosen.map(|(index, map)| (format!("stage{index}").into(), map.source)).collect();
        parts.forms = vec![("raw", outputs)];
        return Ok(parts);
    }
    if maps.len() <= STAGES {
        let why = format!("expected {STAGES} stages at least, found {}", maps.len() - 1);
        return Err(Error::new(why).at("backbone"));
    }
    let mut parts = parts.within("backbone");
    let (coarsest, added) = (maps[maps.len() - 1], &mut parts);
    let logits = match network.head {
        Head::Maps { .. } => return Ok(parts),
        Head::Ssdlite => return ssdlite::load(added, &maps[3..=STAGES], root).map(|()| parts),
        Head::RetinaNet => return retinanet::load(added, &maps[2..], root).map(|()| parts),
        Head::DeepLabV3 => aspp::load(added, coarsest, root)?,
        Head::PspNet => psp::load(added, coarsest, root)?,
        Head::SemanticFpn => semantic_fpn::load(added, &maps[1..], root)?,
        Head::SegFormer { channels } => segformer::load(added, &maps[1..], channels, root)?,
    };
    segment::finish(added, logits);
    Ok(parts)
}

/// `name` with the number of each of `sources`: `scores0`, `scores1`, …
fn numbered(name: &str, sources: &[Source]) -> Named {
    let number = |(index, &source)| (format!("{name}{index}").into(), source);
    sources.iter().enumerate().map(number).collect()
}
