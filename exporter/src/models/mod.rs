//! The models: what is computed, whatever it is written for.
//!
//! A family is a module that knows how to build its rows, and one line in [`Definition`].

pub mod deit;
pub mod emo;
pub mod emo2;
mod image;
pub mod mmb;
pub mod mobilenetv2;
pub mod own;
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

use crate::builder::Builder;
use crate::graph::{Graph, Value};
use crate::layer::Form;
use crate::pass;
use crate::profile::Profile;
use crate::target::Target;
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

/// Its name, with the side of its windows where these are not the published ones.
impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.other_window().map_or(Ok(()), |window| write!(f, "{WINDOW}{window}"))
    }
}

/// What a network is made of, by family.
#[derive(Debug, Clone, PartialEq)]
pub enum Definition {
    Emo(emo::Network),
    Emo2(emo2::Network),
    MobileNetV2(mobilenetv2::Network),
    Deit(deit::Network),
}

fn bounded(window: usize) -> Result<()> {
    let (least, most) = (WINDOWS.start(), WINDOWS.end());
    let refuse =
        || Error::new(format!("expected {least} to {most} tokens a side, found {window}")).at("window");
    if WINDOWS.contains(&window) { Ok(()) } else { Err(refuse()) }
}

/// The published models, family by family.
pub static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let mut models: Vec<Model> = emo::published().into();
    models.extend(emo2::published());
    models.extend(mobilenetv2::published());
    models.extend(deit::published());
    models
});

/// The outputs of a network by name, in the order in which a file has them.
pub type Outputs = Vec<(&'static str, Value)>;

impl Model {
    /// The published model called `name` (`emo-1m`), if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.name == name)
    }

    /// Whether it is a network of somebody's own, whose file is [`own::write`]'s, and no published one.
    #[must_use]
    pub fn is_own(&self) -> bool {
        Self::named(&self.name).is_none()
    }

    /// The model that [`Display`](fmt::Display) tells as `text`: `emo2-5m`, or `emo2-5m, window 8`.
    #[must_use]
    pub fn told(text: &str) -> Option<Self> {
        match text.split_once(WINDOW) {
            Some((name, window)) => Some(Self::named(name)?.with_window(window.parse().ok()?)),
            None => Self::named(text).cloned(),
        }
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
        match &mut model.definition {
            Definition::Emo(network) => emo::set_window(&mut network.stages, window),
            Definition::Emo2(network) => emo::set_window(&mut network.stages, window),
            Definition::MobileNetV2(_) | Definition::Deit(_) => {}
        }
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
            Definition::MobileNetV2(_) | Definition::Deit(_) => Vec::new(),
        }
    }

    /// The stem's channels and the stages, of families that are made of them.
    #[must_use]
    pub fn stages(&self) -> Option<(usize, &[emo::Stage])> {
        match &self.definition {
            Definition::Emo(network) => Some((network.stem, &network.stages)),
            Definition::Emo2(network) => Some((network.stem, &network.stages)),
            Definition::MobileNetV2(_) | Definition::Deit(_) => None,
        }
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
        match &self.definition {
            Definition::Emo(network) => emo::smallest_side(&network.stages),
            Definition::Emo2(network) => emo::smallest_side(&network.stages),
            Definition::MobileNetV2(network) => network.smallest_side(),
            Definition::Deit(network) => network.side,
        }
    }

    /// Height and width of the images that the model was published for, in pixels.
    #[must_use]
    pub fn published_side(&self) -> usize {
        224
    }

    /// The Meta Mobile Blocks with their names, in order.
    #[must_use]
    pub fn blocks(&self) -> Vec<(String, Block)> {
        match &self.definition {
            Definition::Emo(network) => network.blocks(),
            Definition::Emo2(network) => network.blocks(),
            Definition::MobileNetV2(network) => network.blocks(),
            Definition::Deit(network) => network.blocks(),
        }
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
        if !(1..=MOST_CLASSES).contains(&self.classes) {
            let found = self.classes;
            return Err(Error::new(format!("expected 1 to {MOST_CLASSES}, found {found}")).at("classes"));
        }
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
        for (name, value) in self.outputs(&mut b, input, target.form())? {
            b.output(value, name);
        }
        let mut graph = b.finish();
        pass::run(&mut graph, target);
        Ok(graph)
    }

    fn outputs(&self, b: &mut Builder, x: Value, form: Form) -> Result<Outputs> {
        match &self.definition {
            Definition::Emo(network) => network.build(b, x, self.classes, form),
            Definition::Emo2(network) => network.build(b, x, self.classes, form),
            Definition::MobileNetV2(network) => network.build(b, x, self.classes, form),
            Definition::Deit(network) => network.build(b, x, self.classes, form),
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
