//! The models' forward passes in f64, written from their papers: the witness that shares nothing with the exporter
//! but a model's row and its weights' names.
//!
//! Two engines that run the same wrong graph agree with each other; they do not agree with this module. It
//! therefore favours the published formulas over speed and over sharing, and a block can be run alone, on any
//! input, to find where a candidate starts to differ.
//!
//! A network is a list of blocks, each of which takes what the one before it gave, and a head, which takes the maps
//! of some of them. A family is a file that makes both of a row, and a line in [`Reference::new`].

mod attention;
mod classifier;
mod deit;
mod emo;
mod emo2;
mod mistake;
mod mobilenetv2;
mod ops;
mod scope;

use emo_exporter::models::{Definition, Model};
use emo_exporter::weights::Weights;
use emo_proto::{Error, Result};
use ndarray::{Array2, Array4, ArrayD, ArrayView4, Axis, concatenate};

pub use mistake::Mistake;
use scope::Scope;

/// What blocks pass on, in standard (row-major) layout: a map [N, C, H, W], or the tokens [N, T, C] of a Transformer.
pub type Map = ArrayD<f64>;

/// What a network gives, by the name that it has in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub name: &'static str,
    /// [N, …]
    pub value: ArrayD<f64>,
}

impl Output {
    /// [N, classes]
    fn logits(value: Array2<f64>) -> Self {
        Self { name: "logits", value: value.into_dyn() }
    }
}

/// A model with its weights, ready to run.
pub struct Reference {
    parts: Parts,
    /// The smallest side of an input, in pixels.
    smallest_side: usize,
}

/// What a family makes of a row.
struct Parts {
    blocks: Vec<Block>,
    /// The positions of the blocks whose maps the head takes, in order.
    taps: Vec<usize>,
    head: Box<dyn Head>,
}

impl Parts {
    /// With a head that takes the last block's map.
    fn new(blocks: Vec<Block>, head: impl Head + 'static) -> Self {
        let taps = (0..blocks.len()).last().into_iter().collect();
        Self { blocks, taps, head: Box::new(head) }
    }
}

/// The computation of a block.
trait Part: Send + Sync {
    /// The part's output for its input, both in standard layout, with a mistake; one in what the part has not got
    /// changes nothing.
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map;

    /// Whether the part has what a mistake is in.
    fn can_make(&self, mistake: Mistake) -> bool;

    /// The part's input behind the norm that the part begins with.
    fn normed(&self, x: &Map) -> Map {
        x.clone()
    }
}

/// What follows the blocks.
trait Head: Send + Sync {
    /// The network's outputs for the maps that the head takes.
    fn outputs(&self, maps: &[Map], mistake: Option<Mistake>) -> Vec<Output>;

    /// Whether the head has what a mistake is in.
    fn can_make(&self, mistake: Mistake) -> bool;
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
            Definition::Dense(_) => {
                return Err(
                    Error::new("expected a classifier, found a model of another task").at(&model.name)
                );
            }
        };
        Ok(Self { parts, smallest_side: model.smallest_side() })
    }

    /// The blocks from the input on, each of which takes the map that the one before it gave.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.parts.blocks
    }

    /// The positions of the blocks whose maps the head takes, in order.
    #[must_use]
    pub fn taps(&self) -> &[usize] {
        &self.parts.taps
    }

    /// The outputs for an `input` [N, 3, H, W], with a mistake in all that can make it; shows every block's output
    /// to `on_block` before it is dropped.
    ///
    /// # Panics
    ///
    /// If `input` has not 3 channels or a side is below the model's smallest.
    pub fn outputs_with(
        &self,
        input: Array4<f64>,
        mistake: Option<Mistake>,
        mut on_block: impl FnMut(&Block, &Map),
    ) -> Vec<Output> {
        require(&input, self.smallest_side);
        let mut map = input.into_dyn();
        let mut tapped = Vec::new();
        for (position, block) in self.parts.blocks.iter().enumerate() {
            map = block.forward_with(&map, mistake);
            on_block(block, &map);
            if self.parts.taps.contains(&position) {
                tapped.push(map.clone());
            }
        }
        self.head_with(&tapped, mistake)
    }

    /// The outputs for an `input` [N, 3, H, W], one image's after the other's, with a mistake in all that can make it.
    /// Image by image: none depends on another, and the maps of one are large enough.
    ///
    /// # Panics
    ///
    /// As [`Self::outputs_with`], or if there is no image.
    #[must_use]
    pub fn outputs(&self, input: &Array4<f64>, mistake: Option<Mistake>) -> Vec<Output> {
        let outputs = |image: ArrayView4<f64>| self.outputs_with(image.to_owned(), mistake, |_, _| ());
        let images: Vec<Vec<Output>> = input.axis_chunks_iter(Axis(0), 1).map(outputs).collect();
        let all = |(position, first): (usize, &Output)| {
            let values: Vec<_> = images.iter().map(|outputs| outputs[position].value.view()).collect();
            let value = concatenate(Axis(0), &values).expect("images of one size have outputs of one shape");
            Output { name: first.name, value }
        };
        images.first().expect("an input of one image at least").iter().enumerate().map(all).collect()
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

    /// The outputs for the maps of the blocks at [`Self::taps`].
    ///
    /// # Panics
    ///
    /// If these are not as many, or not of their shapes.
    #[must_use]
    pub fn head(&self, maps: &[Map]) -> Vec<Output> {
        self.head_with(maps, None)
    }

    /// As [`Self::head`], with a mistake; one in what the head has not got changes nothing.
    ///
    /// # Panics
    ///
    /// As [`Self::head`].
    #[must_use]
    pub fn head_with(&self, maps: &[Map], mistake: Option<Mistake>) -> Vec<Output> {
        self.parts.head.outputs(maps, mistake)
    }

    /// Whether the head has what a mistake is in.
    #[must_use]
    pub fn head_can_make(&self, mistake: Mistake) -> bool {
        self.parts.head.can_make(mistake)
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

/// One of [`Reference::blocks`].
pub struct Block {
    name: String,
    ends: Option<String>,
    part: Box<dyn Part>,
}

impl Block {
    fn new(name: impl Into<String>, part: impl Part + 'static) -> Self {
        Self { name: name.into(), ends: None, part: Box::new(part) }
    }

    fn ending(self, stage: impl Into<String>) -> Self {
        Self { ends: Some(stage.into()), ..self }
    }

    /// The published module path: `stage3.4`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The published module path of the stage whose output is this block's, if it is the last of one: `stage3`.
    #[must_use]
    pub fn ends(&self) -> Option<&str> {
        self.ends.as_deref()
    }

    /// The block's output for its input `x`.
    ///
    /// # Panics
    ///
    /// If `x` has not the block's channels.
    #[must_use]
    pub fn forward(&self, x: &Map) -> Map {
        self.forward_with(x, None)
    }

    /// As [`Self::forward`], with a mistake; one in a part that the block has not got changes nothing.
    ///
    /// # Panics
    ///
    /// As [`Self::forward`].
    #[must_use]
    pub fn forward_with(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        self.part.forward(x, mistake)
    }

    /// Whether the block has the part that a mistake is in.
    #[must_use]
    pub fn can_make(&self, mistake: Mistake) -> bool {
        self.part.can_make(mistake)
    }

    /// The block's input `x` behind the norm that the block begins with.
    #[must_use]
    pub fn normed(&self, x: &Map) -> Map {
        self.part.normed(x)
    }
}
