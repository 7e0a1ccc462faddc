//! The models: what is computed, whatever it is written for.
//!
//! A family is a module that knows how to build its rows, and one line in [`Definition`].

pub mod deit;
pub mod dense;
pub mod emo;
pub mod emo2;
mod image;
pub mod mmb;
pub mod mobilenetv2;
pub mod own;
mod paper;
#[cfg(test)]
mod tests;
mod toml_file;

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};

use mmb::Block;

pub use paper::Paper;

use crate::builder::Builder;
use crate::graph::{Graph, Value};
use crate::layer::Form;
use crate::metadata;
use crate::pass;
use crate::profile::Profile;
use crate::target::{Output, Target};
use crate::weights::Parameter;

/// Classes of ImageNet-1K.
pub const CLASSES: usize = 1000;
/// Most classes: far beyond any use, and far below what overflows a count.
pub const MOST_CLASSES: usize = 1 << 20;

/// A network.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// As the command line spells it: `emo-1m`.
    pub name: Cow<'static, str>,
    /// As its paper spells it: `EMO-1M`.
    pub title: Cow<'static, str>,
    pub classes: usize,
    pub definition: Definition,
}

/// Sides of attention windows, in tokens: what anybody has a use for.
pub const WINDOWS: RangeInclusive<usize> = 1..=64;

/// Between a model's name and the side of its windows.
const WINDOW: &str = ", window ";

/// The same before the stages whose maps a backbone gives.
const STAGES: &str = ", stages ";

/// Its name, with the side of its windows and the stages of its maps where these are not the published ones.
impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(window) = self.other_window() {
            write!(f, "{WINDOW}{window}")?;
        }
        if let Some(stages) = self.other_maps() {
            let stages: Vec<String> = stages.iter().map(ToString::to_string).collect();
            write!(f, "{STAGES}{}", stages.join("+"))?;
        }
        Ok(())
    }
}

/// What a network is made of, by family.
#[derive(Debug, Clone, PartialEq)]
pub enum Definition {
    Emo(emo::Network),
    Emo2(emo2::Network),
    MobileNetV2(mobilenetv2::Network),
    Deit(deit::Network),
    Dense(dense::Network),
}

/// What a network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Classify,
    /// Maps, for whatever is to stand on them.
    Features,
    Detect,
    Segment,
}

fn bounded(window: usize) -> Result<()> {
    let (least, most) = (WINDOWS.start(), WINDOWS.end());
    let refuse =
        || Error::new(format!("expected {least} to {most} tokens a side, found {window}")).at("window");
    if WINDOWS.contains(&window) { Ok(()) } else { Err(refuse()) }
}

/// The published classifiers, family by family.
pub static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let mut models: Vec<Model> = emo::published().into();
    models.extend(emo2::published());
    models.extend(mobilenetv2::published());
    models.extend(deit::published());
    models
});

/// The published detectors and segmenters, and their backbones alone.
pub static DENSE: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let mut models = emo::dense();
    models.extend(emo2::dense());
    models
});

/// The outputs of a network by name, in the order in which a file has them.
pub type Outputs = Vec<(Cow<'static, str>, Value)>;

impl Definition {
    /// Gives attention windows another side, where there are windows.
    fn set_window(&mut self, window: usize) {
        match self {
            Definition::Emo(network) => emo::set_window(&mut network.stages, window),
            Definition::Emo2(network) => emo::set_window(&mut network.stages, window),
            Definition::Dense(network) => network.backbone.set_window(window),
            Definition::MobileNetV2(_) | Definition::Deit(_) => {}
        }
    }

    fn stages(&self) -> Option<(usize, &[emo::Stage])> {
        match self {
            Definition::Emo(network) => Some((network.stem, &network.stages)),
            Definition::Emo2(network) => Some((network.stem, &network.stages)),
            Definition::Dense(network) => network.backbone.stages(),
            Definition::MobileNetV2(_) | Definition::Deit(_) => None,
        }
    }

    fn smallest_side(&self) -> usize {
        match self {
            Definition::Emo(network) => emo::smallest_side(&network.stages),
            Definition::Emo2(network) => emo::smallest_side(&network.stages),
            Definition::MobileNetV2(network) => network.smallest_side(),
            Definition::Deit(network) => network.side,
            Definition::Dense(network) => network.backbone.smallest_side(),
        }
    }

    /// The paper of the family, of a dense model that of its backbone.
    fn paper(&self) -> &'static Paper {
        match self {
            Definition::Emo(_) => &emo::PAPER,
            Definition::Emo2(_) => &emo2::PAPER,
            Definition::MobileNetV2(_) => &mobilenetv2::PAPER,
            Definition::Deit(_) => &deit::PAPER,
            Definition::Dense(network) => network.backbone.paper(),
        }
    }

    fn blocks(&self) -> Vec<(String, Block)> {
        match self {
            Definition::Emo(network) => network.blocks(),
            Definition::Emo2(network) => network.blocks(),
            Definition::MobileNetV2(network) => network.blocks(),
            Definition::Deit(network) => network.blocks(),
            Definition::Dense(network) => {
                let path = |name: String| match network.prefix() {
                    "" => name,
                    prefix => format!("{prefix}.{name}"),
                };
                network.backbone.blocks().into_iter().map(|(name, block)| (path(name), block)).collect()
            }
        }
    }

    /// The maps behind the stem and behind each stage: what a head stands on.
    ///
    /// # Errors
    /// It is not made of stages; as every layer: a shape does not fit.
    fn features(&self, b: &mut Builder, x: Value, form: Form) -> Result<Vec<Value>> {
        match self {
            Definition::Emo(network) => network.features(b, x, form),
            Definition::Emo2(network) => network.features(b, x, form),
            Definition::MobileNetV2(_) | Definition::Deit(_) | Definition::Dense(_) => {
                Err(Error::new("expected a backbone of stages, found another family's network"))
            }
        }
    }
}

impl Model {
    /// The published model called `name` (`emo-1m`), if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        MODELS.iter().chain(&*DENSE).find(|model| model.name == name)
    }

    /// Whether it is a network of somebody's own, whose file is [`own::write`]'s, and no published one.
    #[must_use]
    pub fn is_own(&self) -> bool {
        Self::named(&self.name).is_none()
    }

    /// The model that [`Display`](fmt::Display) tells as `text`: `emo2-5m`, or `emo2-5m, window 8`.
    #[must_use]
    pub fn told(text: &str) -> Option<Self> {
        if let Some((model, stages)) = text.split_once(STAGES) {
            let stages: Vec<usize> =
                stages.split('+').map(|stage| stage.parse().ok()).collect::<Option<_>>()?;
            return Self::told(model)?.with_maps(&stages).ok();
        }
        match text.split_once(WINDOW) {
            Some((name, window)) => Some(Self::named(name)?.with_window(window.parse().ok()?)),
            None => Self::named(text).cloned(),
        }
    }

    /// The same backbone with the maps of these stages as outputs; 0 is the stem.
    ///
    /// # Errors
    /// It is no backbone alone, or has no such stage.
    pub fn with_maps(&self, chosen: &[usize]) -> Result<Self> {
        let mut model = self.clone();
        let last = self.stages().map_or(0, |(_, stages)| stages.len());
        let Definition::Dense(dense::Network { head: dense::Head::Maps { stages }, .. }) =
            &mut model.definition
        else {
            return Err(Error::new(format!("expected a backbone, found {}", self.name)).at("stages"));
        };
        let mut sorted = chosen.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.is_empty() || sorted.len() < chosen.len() || sorted.iter().any(|&stage| stage > last) {
            let why = format!("expected stages out of 0 to {last}, each once, found {chosen:?}");
            return Err(Error::new(why).at("stages"));
        }
        *stages = sorted;
        Ok(model)
    }

    /// The stages whose maps a backbone gives.
    fn maps(&self) -> Option<&[usize]> {
        match &self.definition {
            Definition::Dense(dense::Network { head: dense::Head::Maps { stages }, .. }) => Some(stages),
            _ => None,
        }
    }

    /// The same where they are not the published ones.
    fn other_maps(&self) -> Option<&[usize]> {
        self.maps().filter(|_| Self::named(&self.name).is_none_or(|named| named.maps() != self.maps()))
    }

    /// The same network with another number of classes.
    #[must_use]
    pub fn with_classes(&self, classes: usize) -> Self {
        Self { classes, ..self.clone() }
    }

    /// The same network with attention windows of another side, where it has windows.
    #[must_use]
    pub fn with_window(&self, window: usize) -> Self {
        let mut model = self.clone();
        model.definition.set_window(window);
        model
    }

    /// The same network with attention windows of a side that somebody asks for.
    ///
    /// # Errors
    /// It has no windows, or none of that side.
    pub fn windowed(&self, side: usize) -> Result<Self> {
        match self.window() {
            None => Err(Error::new("expected a model with windows").at(&self.name)),
            Some(_) => bounded(side).map(|()| self.with_window(side)),
        }
    }

    /// The sides of the windows that it was published with, for some size of the picture; a network of one's own has
    /// its own alone.
    #[must_use]
    pub fn published_windows(&self) -> Vec<usize> {
        match &self.definition {
            _ if self.is_own() => self.window().into_iter().collect(),
            Definition::Emo(_) => vec![emo::WINDOW],
            Definition::Emo2(_) => emo2::WINDOWS.to_vec(),
            Definition::Dense(_) => Self::named(&self.name).and_then(Self::window).into_iter().collect(),
            Definition::MobileNetV2(_) | Definition::Deit(_) => Vec::new(),
        }
    }

    /// The stem's channels and the stages, of families that are made of them.
    #[must_use]
    pub fn stages(&self) -> Option<(usize, &[emo::Stage])> {
        self.definition.stages()
    }

    /// Side of its attention windows, in tokens, where it has windows.
    #[must_use]
    pub fn window(&self) -> Option<usize> {
        self.blocks().iter().find_map(|(_, block)| block.mmb.operator.attention?.window)
    }

    /// The side of its windows where it is not the published model's.
    #[must_use]
    pub fn other_window(&self) -> Option<usize> {
        let published = Self::named(&self.name)?.window();
        self.window().filter(|_| self.window() != published)
    }

    /// The smallest side of an input, in pixels: every halving of the map has something to halve.
    #[must_use]
    pub fn smallest_side(&self) -> usize {
        self.definition.smallest_side()
    }

    /// What it is for.
    #[must_use]
    pub fn task(&self) -> Task {
        match &self.definition {
            Definition::Dense(network) => network.task(),
            Definition::Emo(_) | Definition::Emo2(_) | Definition::MobileNetV2(_) | Definition::Deit(_) => {
                Task::Classify
            }
        }
    }

    /// Heights and widths of the images that the model was published for, in pixels, the default first.
    #[must_use]
    pub fn published_sizes(&self) -> &'static [(usize, usize)] {
        match &self.definition {
            Definition::Dense(network) => network.sizes,
            Definition::Emo(_) | Definition::Emo2(_) | Definition::MobileNetV2(_) | Definition::Deit(_) => {
                &[(224, 224)]
            }
        }
    }

    /// The first of them.
    #[must_use]
    pub fn published_size(&self) -> (usize, usize) {
        self.published_sizes()[0]
    }

    /// What its files may give, the default first.
    #[must_use]
    pub fn output_forms(&self) -> &'static [Output] {
        match &self.definition {
            Definition::Dense(network) => network.outputs(),
            Definition::Emo(_) | Definition::Emo2(_) | Definition::MobileNetV2(_) | Definition::Deit(_) => {
                &[Output::Logits]
            }
        }
    }

    /// What its files for that runtime are written for unless more is asked: the published size, batch 1, float32.
    #[must_use]
    pub fn target(&self, profile: &'static Profile) -> Target {
        Target { size: self.published_size(), ..Target::new(profile) }
    }

    /// What a file's metadata tell of its input and its outputs, beside what all files tell: keys and values.
    pub(crate) fn interface(&self, target: &Target) -> Vec<(&'static str, String)> {
        let Definition::Dense(network) = &self.definition else { return Vec::new() };
        let dense::Pictures { keep_ratio, multiple } = network.pictures();
        let (height, width) = target.size;
        let mut pictures =
            format!("size {height}x{width}\nkeep_ratio {keep_ratio}\nmultiple {multiple}\nchannels RGB\n");
        pictures += &if target.image_input { "normalised in the file".to_owned() } else { image::said() };
        let output = target.output.unwrap_or(self.output_forms()[0]);
        let mut told = vec![(metadata::OUTPUT, output.name().to_owned()), (metadata::INPUT, pictures)];
        if let Some(names) = network.class_names(self.classes) {
            told.push((metadata::CLASSES, names.to_owned()));
        }
        told
    }

    /// The Meta Mobile Blocks with their names, in order.
    #[must_use]
    pub fn blocks(&self) -> Vec<(String, Block)> {
        self.definition.blocks()
    }

    /// The graph of the model as `target` wants it.
    ///
    /// # Errors
    /// A side, the batch or the number of classes is out of bounds, or the target does not allow it.
    pub fn build(&self, target: &Target) -> Result<Graph> {
        let smallest = self.smallest_side();
        let (height, width) = target.size;
        if height.min(width) < smallest {
            let why = format!("expected sides of {smallest} pixels at least, found {height}x{width}");
            return Err(Error::new(why).at("input size"));
        }
        if let Definition::Deit(network) = &self.definition
            && target.size != (network.side, network.side)
        {
            let side = network.side;
            let why = format!(
                "expected {side}x{side} pixels, each place has its embedding, found {height}x{width}"
            );
            return Err(Error::new(why).at("input size"));
        }
        let (classes, most) = (self.classes, MOST_CLASSES);
        match self.task() {
            Task::Features if classes > 0 => {
                return Err(Error::new(format!("expected none of maps, found {classes}")).at("classes"));
            }
            Task::Classify | Task::Detect | Task::Segment if !(1..=most).contains(&classes) => {
                return Err(Error::new(format!("expected 1 to {most}, found {classes}")).at("classes"));
            }
            _ => {}
        }
        let output = self.output(target)?;
        target.check()?;
        let blocks = self.blocks();
        let windows = blocks.iter().filter_map(|(_, block)| block.mmb.operator.attention?.window);
        windows.into_iter().try_for_each(bounded)?;
        let mut b = Builder::new(&self.name);
        let batch = target.batch.dim();
        let input = if target.image_input {
            image::input(&mut b, batch, target.size)?
        } else {
            b.input("input", [batch, 3.into(), height.into(), width.into()], DataType::Float)
        };
        for (name, value) in self.outputs(&mut b, input, output, target)? {
            b.output(value, &name);
        }
        let mut graph = b.finish();
        pass::run(&mut graph, target);
        // What a runtime lacks of the layers themselves is a finding of the lint, and no other output would be better.
        if output != self.output_forms()[0] {
            target.take(&graph, output)?;
        }
        Ok(graph)
    }

    /// What leaves the file for `target`.
    ///
    /// # Errors
    /// The model has no such output.
    fn output(&self, target: &Target) -> Result<Output> {
        let forms = self.output_forms();
        match target.output {
            None => Ok(forms[0]),
            Some(output) if forms.contains(&output) => Ok(output),
            Some(output) => {
                let forms: Vec<_> = forms.iter().map(|form| form.name()).collect();
                let why =
                    format!("expected {} of {}, found {}", forms.join(" or "), self.name, output.name());
                Err(Error::new(why).at("output"))
            }
        }
    }

    fn outputs(&self, b: &mut Builder, x: Value, output: Output, target: &Target) -> Result<Outputs> {
        let form = target.form();
        match &self.definition {
            Definition::Emo(network) => network.build(b, x, self.classes, form),
            Definition::Emo2(network) => network.build(b, x, self.classes, form),
            Definition::MobileNetV2(network) => network.build(b, x, self.classes, form),
            Definition::Deit(network) => network.build(b, x, self.classes, form),
            Definition::Dense(network) => {
                network.build(b, x, self.classes, &Target { output: Some(output), ..*target })
            }
        }
    }

    /// The float entries of the published state dict, running statistics included.
    ///
    /// # Panics
    /// If the definition is none that [`Model::build`] takes at its own size.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let graph =
            self.build(&Target::new(Profile::reference())).expect("every model has its published size");
        let constants = graph.constants().into_iter().map(|v| graph.value(v));
        constants
            .filter(|v| v.is_parameter())
            .map(|v| Parameter {
                name: v.name.clone(),
                shape: v.shape.0.iter().map(|d| d.at_batch_one()).collect(),
            })
            .collect()
    }
}
