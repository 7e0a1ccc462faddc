//! A network of one's own: EMO's blocks with other numbers, as a TOML file says them.
//!
//! ```toml
//! name = "emo-nano"
//! stem = 16
//! classes = 100
//! head = "deeplabv3"    # a detector or a segmenter on four stages; a classifier where it is not there
//!
//! [[stages]]            # two to six; each halves the map
//! depth = 3
//! dim = 64
//! expansion = 3.0       # the first block doubles it
//! kernel = 5
//! norm = "layer"        # or "batch"
//! activation = "gelu"   # or "silu"
//! attention = true      # in the blocks after the first; false where it is not there
//! head_dim = 16
//! window = 7
//! ```

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

use emo_proto::{Error, Result, file};
use toml::Spanned;
use toml::de::DeValue;

use super::dense::{self, Head, LARGE, SEGMENTED, SMALL};
use super::emo::{Network, Stage};
use super::mmb::Attention;
use super::toml_file::{Section, Source};
use super::{Definition, MOST_CLASSES, Model, WINDOWS};
use crate::layer::{Act, Norm};

/// Bytes of a file, far beyond six stages.
const LARGEST: u64 = 1 << 16;

/// Keys of the file and of a stage, in the order in which they are written.
const KEYS: [&str; 5] = ["name", "stem", "classes", "head", "stages"];
const OF_A_STAGE: [&str; 9] =
    ["depth", "dim", "expansion", "kernel", "norm", "activation", "attention", "head_dim", "window"];

/// What a norm and an activation are called.
const NORMS: [(&str, Norm); 2] = [("batch", Norm::Batch), ("layer", Norm::Layer)];
const ACTIVATIONS: [(&str, Act); 2] = [("silu", Act::Silu), ("gelu", Act::Gelu)];

/// What stands on the stages, by name, and the size of its input where nobody says another.
const HEADS: [(&str, (Published, Sizes)); 6] = [
    ("ssdlite", (|| Head::Ssdlite, &[SMALL])),
    ("retinanet", (|| Head::RetinaNet, &[LARGE])),
    ("deeplabv3", (|| Head::DeepLabV3, &[SEGMENTED])),
    ("pspnet", (|| Head::PspNet, &[SEGMENTED])),
    ("semantic-fpn", (|| Head::SemanticFpn, &[SEGMENTED])),
    // As wide as it was published on all backbones but the smallest.
    ("segformer", (|| Head::SegFormer { channels: 288 }, &[SEGMENTED])),
];

type Published = fn() -> Head;
type Sizes = &'static [(usize, usize)];

/// Stages that heads stand on.
const UNDER_A_HEAD: usize = 4;

/// Far beyond any use, and far below what overflows a count.
const STAGES: RangeInclusive<usize> = 2..=6;
const CHANNELS: RangeInclusive<usize> = 1..=8192;
const DEPTH: RangeInclusive<usize> = 1..=64;
const KERNEL: RangeInclusive<usize> = 1..=31;
const LARGEST_EXPANSION: f64 = 64.0;
/// Elements of all weights: protobuf's files end at 2 GiB.
const MOST_PARAMETERS: usize = 500_000_000;
/// Letters of a name, which files and folders get too.
const LONGEST_NAME: usize = 64;

/// The network that the file at `path` describes.
///
/// # Errors
/// The file cannot be read, or describes none: with its path and line, what was expected and what was found.
pub fn open(path: &Path) -> Result<Model> {
    read(&file::text(path, LARGEST)?, &path.display().to_string())
}

/// The network that `text` describes; `place` is what errors call the text.
///
/// A published model's name belongs to that model: it stands only with the model's own numbers, and is that model.
///
/// # Errors
/// The text describes none: with `place` and the line, what was expected and what was found.
pub fn read(text: &str, place: &str) -> Result<Model> {
    let source = Source { text, place };
    if text.len() as u64 > LARGEST {
        let why = format!("expected {LARGEST} bytes of text at most, found {}", text.len());
        return Err(source.refuse(&(0..0), why));
    }
    let root = source.parse()?;
    let top = Section::new(source, root.get_ref(), 0..0, &KEYS)?;
    let (at_name, name) = top.string("name")?;
    let stem = top.whole("stem", CHANNELS)?;
    let classes = top.whole("classes", 1..=MOST_CLASSES)?;
    let sections = stages(source, &top)?;
    let stages = sections.iter().map(stage).collect::<Result<Vec<_>>>()?;
    expanded(&sections, stem, &stages)?;
    let definition = match top.find("head") {
        None => Definition::Emo(Network { stem, stages }),
        Some(_) if stages.len() != UNDER_A_HEAD => {
            let why = format!("stages: expected {UNDER_A_HEAD} under a head, found {}", stages.len());
            return Err(source.refuse(&top.get("stages")?.span(), why));
        }
        Some(_) => {
            let (head, sizes) = top.one_of("head", &HEADS)?;
            let backbone = Box::new(Definition::Emo(Network { stem, stages }));
            Definition::Dense(dense::Network { backbone, head: head(), sizes })
        }
    };
    let published = || super::MODELS.iter().chain(&*super::DENSE);
    let own = |name: &str| !published().any(|model| model.name.eq_ignore_ascii_case(name));
    let model = match Model::named(name) {
        Some(published) if published.definition == definition => published.with_classes(classes),
        _ if !own(name) => {
            let why = format!(
                "name: expected a name of the network's own, found {name}, whose published numbers are others"
            );
            return Err(source.refuse(&at_name, why));
        }
        _ => {
            named(name).map_err(|why| source.refuse(&at_name, format!("name: {why}")))?;
            Model { name: name.to_owned().into(), title: name.to_owned().into(), classes, definition }
        }
    };
    bounded(&model, &top, &sections)?;
    Ok(model)
}

/// The stages' tables.
fn stages<'a, 'i>(source: Source<'a>, top: &Section<'a, 'i>) -> Result<Vec<Section<'a, 'i>>> {
    let list = top.get("stages")?;
    let Some(tables) = list.get_ref().as_array() else {
        return Err(top.expected("stages", "a table [[stages]] for each stage", list));
    };
    if !STAGES.contains(&tables.len()) {
        let (least, most) = STAGES.into_inner();
        let place = tables.get(most).map_or(list.span(), Spanned::span);
        let why = format!("stages: expected {least} to {most}, found {}", tables.len());
        return Err(source.refuse(&place, why));
    }
    let section = |value: &'a Spanned<DeValue<'i>>| match value.get_ref() {
        DeValue::Table(table) => Section::new(source, table, value.span(), &OF_A_STAGE),
        _ => Err(top.expected("stages", "a table of a stage", value)),
    };
    tables.iter().map(section).collect()
}

fn stage(section: &Section) -> Result<Stage> {
    let depth = section.whole("depth", DEPTH)?;
    let dim = section.whole("dim", CHANNELS)?;
    let expansion = section.number("expansion", LARGEST_EXPANSION)?;
    let kernel = section.whole("kernel", KERNEL)?;
    if kernel.is_multiple_of(2) {
        return Err(section.expected("kernel", "an odd number", section.get("kernel")?));
    }
    let norm = section.one_of("norm", &NORMS)?;
    let act = section.one_of("activation", &ACTIVATIONS)?;
    let attention = match section.flag("attention")? {
        true => Some(attention(section, dim)?),
        false => {
            for key in ["head_dim", "window"] {
                if let Some(value) = section.find(key) {
                    return Err(section.expected(key, "attention = true beside it, or no such key", value));
                }
            }
            None
        }
    };
    Ok(Stage { depth, dim, expansion, kernel, norm, act, attention })
}

fn attention(section: &Section, dim: usize) -> Result<Attention> {
    let head_dim = section.whole("head_dim", CHANNELS)?;
    if !dim.is_multiple_of(head_dim) {
        let what = format!("a number that divides the {dim} channels of dim");
        return Err(section.expected("head_dim", &what, section.get("head_dim")?));
    }
    Ok(Attention { head_dim, window: Some(section.whole("window", WINDOWS)?) })
}

/// Every block has a channel at least to expand to.
fn expanded(sections: &[Section], stem: usize, stages: &[Stage]) -> Result<()> {
    let dims_in = std::iter::once(stem).chain(stages.iter().map(|stage| stage.dim));
    for ((section, stage), dim_in) in sections.iter().zip(stages).zip(dims_in) {
        let first = dim_in as f64 * 2.0 * stage.expansion;
        let later = stage.dim as f64 * stage.expansion;
        if first < 1.0 || (stage.depth > 1 && later < 1.0) {
            let what = format!("a factor that leaves a channel at least of {}", dim_in.min(stage.dim));
            return Err(section.expected("expansion", &what, section.get("expansion")?));
        }
    }
    Ok(())
}

/// What a file may be called on any system, and what a folder of releases takes.
fn named(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = name.len() <= LONGEST_NAME && name.chars().all(plain);
    if fits && ends(name.chars().next()) && ends(name.chars().last()) {
        return Ok(());
    }
    Err(format!(
        "expected 1 to {LONGEST_NAME} letters, digits and '.', '_' or '-' between them, found {}",
        super::toml_file::shown(&format!("{name:?}"))
    ))
}

/// Whether one file holds the weights; blames what has the most of them.
fn bounded(model: &Model, top: &Section, sections: &[Section]) -> Result<()> {
    let parameters = model.parameters();
    let of = |prefix: &str| {
        let own = parameters.iter().filter(|parameter| parameter.name.starts_with(prefix));
        own.map(|parameter| parameter.shape.iter().product::<usize>()).sum::<usize>()
    };
    let total = of("");
    if total <= MOST_PARAMETERS {
        return Ok(());
    }
    let why = format!("expected {MOST_PARAMETERS} parameters in all at most, found {total}");
    let mut parts = vec![(of("stage0."), top, "stem"), (of("head."), top, "classes")];
    parts.extend(
        sections.iter().enumerate().map(|(i, section)| (of(&format!("stage{}.", i + 1)), section, "dim")),
    );
    match parts.into_iter().max_by_key(|(parameters, ..)| *parameters) {
        Some((_, section, key)) => {
            Err(section.source.refuse(&section.get(key)?.span(), format!("{key}: {why}")))
        }
        None => Err(Error::new(why)),
    }
}

/// The file that describes `model`, which [`read`] reads back.
///
/// # Errors
/// The model is not made of EMO's blocks alone.
pub fn write(model: &Model) -> Result<String> {
    let other = || Error::new("expected a network of EMO's blocks, found another family's").at(&model.name);
    let (network, head) = match &model.definition {
        Definition::Emo(network) => (network, None),
        Definition::Dense(dense::Network { backbone, head, .. }) => match &**backbone {
            Definition::Emo(network) => (network, Some(head)),
            _ => return Err(other()),
        },
        _ => return Err(other()),
    };
    let mut text =
        format!("name = \"{}\"\nstem = {}\nclasses = {}\n", model.name, network.stem, model.classes);
    if let Some(head) = head {
        let row = HEADS.iter().find(|(_, (published, _))| published() == *head).ok_or_else(other)?;
        let _ = writeln!(text, "head = \"{}\"", row.0);
    }
    for stage in &network.stages {
        let Stage { depth, dim, expansion, kernel, .. } = stage;
        let norm = called(&NORMS, stage.norm);
        let activation = called(&ACTIVATIONS, stage.act);
        let _ = write!(
            text,
            "\n[[stages]]\ndepth = {depth}\ndim = {dim}\nexpansion = {expansion:?}\nkernel = {kernel}\n\
             norm = \"{norm}\"\nactivation = \"{activation}\"\n"
        );
        if let Some(Attention { head_dim, window }) = stage.attention {
            let window = window.ok_or_else(other)?;
            let _ = write!(text, "attention = true\nhead_dim = {head_dim}\nwindow = {window}\n");
        }
    }
    Ok(text)
}

/// The file of a network that has a name of its own; a published one is told by its name.
#[must_use]
pub fn definition(model: &Model) -> Option<String> {
    write(model).ok().filter(|_| model.is_own())
}

/// What the row of `value` is called.
fn called<T: PartialEq + Copy>(rows: &[(&'static str, T)], value: T) -> &'static str {
    rows.iter().find(|(_, row)| *row == value).map_or("", |(name, _)| name)
}
