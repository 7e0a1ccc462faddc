//! The models' forward passes in f64, written from their papers: the witness that shares nothing with the exporter
//! but a model's row and its weights' names.
//!
//! Two engines that run the same wrong graph agree with each other; they do not agree with this module. It
//! therefore favours the published formulas over speed and over sharing, and a block can be run alone, on any
//! input, to find where a candidate starts to differ.
//!
//! A network is a list of named parts, each of which takes the image or what parts before it gave: the blocks of its
//! backbone one behind the other, then the levels of a neck and the branches of a head. A family is a file that makes
//! them of a row, and a line in [`Reference::new`].

mod attention;
mod classifier;
mod convolution;
mod deit;
mod dense;
mod emo;
mod emo2;
mod mistake;
mod mobilenetv2;
mod ops;
mod parts;
mod resize;
mod scope;

use std::borrow::Cow;

use emo_exporter::models::emo::Stage;
use emo_exporter::models::{Definition, Model};
use emo_exporter::weights::Weights;
use emo_proto::{Error, Result};
use ndarray::{Array4, ArrayD, ArrayView4, Axis, concatenate};

pub use mistake::{Mistake, Rounding};
pub use parts::{Block, Map, Source};
use parts::{Named, OfImage, Part, Parts};
use scope::Scope;

/// What a network gives, by the name that it has in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub name: Cow<'static, str>,
    /// [N, …]
    pub value: ArrayD<f64>,
}

/// A model with its weights, ready to run.
pub struct Reference {
    parts: Parts,
    /// The smallest side of an input, in pixels.
    smallest_side: usize,
}

impl Reference {
    /// The network of `model` with the published names' `weights`, widened to f64. The number of classes is
    /// the length of the classifier's bias.
    ///
    /// # Errors
    ///
    /// A weight is missing or has another shape than the model's; the error carries its name.
    pub fn new(model: &Model, weights: &Weights) -> Result<Self> {
        let root = Scope::root(weights);
        let parts = match &model.definition {
            Definition::Emo(network) => emo::load(network, &root)?,
            Definition::Emo2(network) => emo2::load(network, &root)?,
            Definition::MobileNetV2(network) => mobilenetv2::load(network, &root)?,
            Definition::Deit(network) => deit::load(network, &root)?,
            Definition::Dense(network) => dense::load(network, &root)?,
        };
        Ok(Self { parts, smallest_side: model.smallest_side() })
    }

    /// The blocks from the input on, each of which takes the map that the one before it gave.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.parts.list[..self.parts.blocks]
    }

    /// All parts: the blocks, then those of the neck and the head, each behind those that it takes.
    #[must_use]
    pub fn parts(&self) -> &[Block] {
        &self.parts.list
    }

    /// What a file may give, as the command line spells it; the default first.
    pub fn forms(&self) -> impl Iterator<Item = &'static str> {
        self.parts.forms.iter().map(|(name, _)| *name)
    }

    /// What a form's outputs are, in order.
    ///
    /// # Errors
    ///
    /// The model has no such form.
    pub fn sources(&self, form: &str) -> Result<Vec<Source>> {
        Ok(self.form(form)?.iter().map(|(_, source)| *source).collect())
    }

    /// The outputs of the default form for an `input` [N, 3, H, W], with a mistake in all that can make it; shows
    /// every part's output to `on_part` before it is dropped.
    ///
    /// # Panics
    ///
    /// If `input` has not 3 channels or a side is below the model's smallest.
    pub fn outputs_with(
        &self,
        input: Array4<f64>,
        mistake: Option<Mistake>,
        on_part: impl FnMut(&Block, &Map),
    ) -> Vec<Output> {
        require(&input, self.smallest_side);
        self.run(&self.parts.forms[0].1, &input.into_dyn(), &[], mistake, on_part)
    }

    /// The outputs of the default form for an `input` [N, 3, H, W], with a mistake in all that can make it.
    ///
    /// # Panics
    ///
    /// As [`Self::outputs_with`], or if there is no image.
    #[must_use]
    pub fn outputs(&self, input: &Array4<f64>, mistake: Option<Mistake>) -> Vec<Output> {
        self.image_by_image(&self.parts.forms[0].1, input, mistake)
    }

    /// As [`Self::outputs`], of another of [`Self::forms`].
    ///
    /// # Errors
    ///
    /// The model has no such form.
    ///
    /// # Panics
    ///
    /// As [`Self::outputs`].
    pub fn outputs_as(
        &self,
        form: &str,
        input: &Array4<f64>,
        mistake: Option<Mistake>,
    ) -> Result<Vec<Output>> {
        Ok(self.image_by_image(self.form(form)?, input, mistake))
    }

    /// The outputs of a form from `image` [N, 3, H, W] and what some of the [parts](Self::parts) gave, by their
    /// positions, with a mistake in all else that can make it. An image of which only the size is read may be any.
    ///
    /// # Errors
    ///
    /// The model has no such form.
    ///
    /// # Panics
    ///
    /// If what is known has not the shapes of this network.
    pub fn outputs_from(
        &self,
        form: &str,
        image: &Map,
        known: &[(usize, &Map)],
        mistake: Option<Mistake>,
    ) -> Result<Vec<Output>> {
        Ok(self.run(self.form(form)?, image, known, mistake, |_, _| ()))
    }

    fn form(&self, name: &str) -> Result<&Named> {
        let form = self.parts.forms.iter().find(|(form, _)| *form == name);
        form.map(|(_, outputs)| outputs).ok_or_else(|| {
            let forms: Vec<_> = self.forms().collect();
            Error::new(format!("expected {}, found {name}", forms.join(" or "))).at("output")
        })
    }

    /// One image's outputs after the other's: none depends on another, and the maps of one are large enough.
    fn image_by_image(&self, form: &Named, input: &Array4<f64>, mistake: Option<Mistake>) -> Vec<Output> {
        require(input, self.smallest_side);
        let outputs =
            |image: ArrayView4<f64>| self.run(form, &image.to_owned().into_dyn(), &[], mistake, |_, _| ());
        let images: Vec<Vec<Output>> = input.axis_chunks_iter(Axis(0), 1).map(outputs).collect();
        let all = |(position, first): (usize, &Output)| {
            let values: Vec<_> = images.iter().map(|outputs| outputs[position].value.view()).collect();
            let value = concatenate(Axis(0), &values).expect("images of one size have outputs of one shape");
            Output { name: first.name.clone(), value }
        };
        images.first().expect("an input of one image at least").iter().enumerate().map(all).collect()
    }

    fn run(
        &self,
        form: &Named,
        image: &Map,
        known: &[(usize, &Map)],
        mistake: Option<Mistake>,
        on_part: impl FnMut(&Block, &Map),
    ) -> Vec<Output> {
        let wanted: Vec<Source> = form.iter().map(|(_, source)| *source).collect();
        let values = self.parts.run(image, &wanted, known, mistake, on_part);
        let named = form.iter().zip(values);
        named.map(|((name, _), value)| Output { name: name.clone(), value }).collect()
    }

    /// The elements of a classifier's one output, as [`Self::outputs`].
    ///
    /// # Panics
    ///
    /// As [`Self::outputs`].
    #[must_use]
    pub fn logits(&self, input: &Array4<f64>, mistake: Option<Mistake>) -> Vec<f64> {
        self.outputs(input, mistake).into_iter().flat_map(|output| output.value).collect()
    }

    /// How much of an error means over the pixels of a map explain, as a share of the largest logit: what the
    /// `logits` of `input` change by when these means are summed in f32. Where a map is flat, as that of a white
    /// picture is, thousands of roundings go the same way, and one more operator rounds than a tolerance counts.
    ///
    /// # Panics
    ///
    /// As [`Self::outputs`].
    #[must_use]
    pub fn single_sums(&self, input: &Array4<f64>, logits: &[f64]) -> f64 {
        let rounded = self.logits(input, Some(Mistake::SingleSums)).into_iter();
        let change = rounded.zip(logits).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
        let peak = logits.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        if peak > 0.0 { change / peak } else { 0.0 }
    }

    /// Whether a part behind the blocks has what a mistake is in.
    #[must_use]
    pub fn head_can_make(&self, mistake: Mistake) -> bool {
        self.parts()[self.parts.blocks..].iter().any(|part| part.can_make(mistake))
    }
}

/// The stem and the stages of a network, how many channels the stem has, and the rows of the stages.
fn backbone<'a>(definition: &'a Definition, scope: &Scope) -> Result<(Vec<Block>, usize, &'a [Stage])> {
    match definition {
        Definition::Emo(network) => Ok((emo::backbone(network, scope)?, network.stem, &network.stages)),
        Definition::Emo2(network) => Ok((emo2::backbone(network, scope)?, network.stem, &network.stages)),
        Definition::MobileNetV2(_) | Definition::Deit(_) | Definition::Dense(_) => {
            Err(Error::new("expected a backbone of stages, found another family's network"))
        }
    }
}

fn require(input: &Array4<f64>, smallest: usize) {
    let (_, channels, height, width) = input.dim();
    assert!(
        channels == 3 && height.min(width) >= smallest,
        "expected an input of 3 channels and sides from {smallest} up, found {:?}",
        input.shape()
    );
}
