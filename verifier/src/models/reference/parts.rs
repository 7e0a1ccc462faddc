//! What a network is made of: named parts, each of which takes the image or what parts before it gave.

use std::borrow::Cow;

use ndarray::{ArrayD, Axis};

use super::Mistake;

/// What parts pass on, in standard (row-major) layout: a map [N, C, H, W], the tokens [N, T, C] of a Transformer, or
/// one of a network's outputs.
pub type Map = ArrayD<f64>;

/// The computation of a part that takes one map.
pub trait Part: Send + Sync {
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

/// The computation of a part that takes any number of maps; what is said of [`Part`] holds.
pub trait Junction: Send + Sync {
    fn forward(&self, maps: &[&Map], mistake: Option<Mistake>) -> Map;

    fn can_make(&self, mistake: Mistake) -> bool;

    fn normed(&self, x: &Map) -> Map {
        x.clone()
    }
}

impl<P: Part> Junction for P {
    fn forward(&self, maps: &[&Map], mistake: Option<Mistake>) -> Map {
        let [x] = maps else { panic!("expected one map, found {}", maps.len()) };
        Part::forward(self, x, mistake)
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        Part::can_make(self, mistake)
    }

    fn normed(&self, x: &Map) -> Map {
        Part::normed(self, x)
    }
}

/// What a part takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The network's input [N, 3, H, W].
    Image,
    /// What the part at this position gives.
    Part(usize),
}

/// A named part of a network: a block of a backbone, a level of a neck, a branch of a head.
pub struct Block {
    name: String,
    ends: Option<String>,
    takes: Vec<Source>,
    computation: Box<dyn Junction>,
}

impl Block {
    /// One that takes what the part before it gave.
    pub(super) fn new(name: impl Into<String>, part: impl Part + 'static) -> Self {
        Self { name: name.into(), ends: None, takes: Vec::new(), computation: Box::new(part) }
    }

    pub(super) fn ending(self, stage: impl Into<String>) -> Self {
        Self { ends: Some(stage.into()), ..self }
    }

    /// The published module path: `stage3.4`; of what is no module, what it computes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The published module path of the stage whose output is this block's, if it is the last of one: `stage3`.
    #[must_use]
    pub fn ends(&self) -> Option<&str> {
        self.ends.as_deref()
    }

    /// What it takes, in order.
    #[must_use]
    pub fn takes(&self) -> &[Source] {
        &self.takes
    }

    /// The part's output for its inputs.
    ///
    /// # Panics
    ///
    /// If these are not as many, or have not the channels that it takes.
    #[must_use]
    pub fn forward(&self, maps: &[&Map]) -> Map {
        self.forward_with(maps, None)
    }

    /// As [`Self::forward`], with a mistake; one in what the part has not got changes nothing.
    ///
    /// # Panics
    ///
    /// As [`Self::forward`].
    #[must_use]
    pub fn forward_with(&self, maps: &[&Map], mistake: Option<Mistake>) -> Map {
        self.computation.forward(maps, mistake)
    }

    /// Whether the part has what a mistake is in.
    #[must_use]
    pub fn can_make(&self, mistake: Mistake) -> bool {
        self.computation.can_make(mistake)
    }

    /// The block's input `x` behind the norm that the block begins with.
    #[must_use]
    pub fn normed(&self, x: &Map) -> Map {
        self.computation.normed(x)
    }
}

/// Outputs by their names in a file, and what they are.
pub type Named = Vec<(Cow<'static, str>, Source)>;

/// What a family makes of a row.
pub struct Parts {
    /// In an order in which each comes behind those that it takes.
    pub list: Vec<Block>,
    /// How many of them, from the first on, each take what the one before gave.
    pub blocks: usize,
    /// What a file may give, by what asks for it; the default first.
    pub forms: Vec<(&'static str, Named)>,
}

impl Parts {
    /// Blocks in a row, the first of which takes the image.
    pub fn chain(mut blocks: Vec<Block>) -> Self {
        for (position, block) in blocks.iter_mut().enumerate() {
            block.takes = vec![position.checked_sub(1).map_or(Source::Image, Source::Part)];
        }
        Self { blocks: blocks.len(), list: blocks, forms: Vec::new() }
    }

    /// Blocks in a row, and a head on the last that gives logits.
    pub fn classifier(blocks: Vec<Block>, head: impl Part + 'static) -> Self {
        let mut parts = Self::chain(blocks);
        let last = parts.list.len().checked_sub(1).map_or(Source::Image, Source::Part);
        let logits = parts.push("head", head, [last]);
        parts.forms = vec![("logits", vec![("logits".into(), logits)])];
        parts
    }

    /// A part behind all others.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        computation: impl Junction + 'static,
        takes: impl Into<Vec<Source>>,
    ) -> Source {
        let block =
            Block { name: name.into(), ends: None, takes: takes.into(), computation: Box::new(computation) };
        self.list.push(block);
        Source::Part(self.list.len() - 1)
    }

    /// Puts `module` before the names of all parts.
    pub fn within(mut self, module: &str) -> Self {
        for block in &mut self.list {
            block.name = format!("{module}.{}", block.name);
            block.ends = block.ends.take().map(|stage| format!("{module}.{stage}"));
        }
        self
    }

    /// What each stage gives, in order.
    pub fn stages(&self) -> Vec<Source> {
        let ends = self.list.iter().enumerate().filter(|(_, block)| block.ends.is_some());
        ends.map(|(position, _)| Source::Part(position)).collect()
    }

    /// Runs what `wanted` needs and what is not `known`, by the position of its part; shows what each part gave to
    /// `on_part`. A map that nothing takes any more is dropped.
    pub fn run(
        &self,
        image: &Map,
        wanted: &[Source],
        known: &[(usize, &Map)],
        mistake: Option<Mistake>,
        mut on_part: impl FnMut(&Block, &Map),
    ) -> Vec<Map> {
        let given = |position: usize| known.iter().find(|(at, _)| *at == position).map(|(_, map)| *map);
        // The last reader of each part that is needed; one that is wanted is read at the end.
        let mut reader = vec![None; self.list.len()];
        for source in wanted {
            if let Source::Part(position) = *source {
                reader[position] = Some(self.list.len());
            }
        }
        for position in (0..self.list.len()).rev() {
            if reader[position].is_none() || given(position).is_some() {
                continue;
            }
            for source in &self.list[position].takes {
                if let Source::Part(at) = *source {
                    reader[at] = reader[at].or(Some(position));
                }
            }
        }
        let mut made: Vec<Option<Map>> = self.list.iter().map(|_| None).collect();
        for (position, block) in self.list.iter().enumerate() {
            if reader[position].is_none() || given(position).is_some() {
                continue;
            }
            let take = |source: &Source| match *source {
                Source::Image => image,
                Source::Part(at) => {
                    given(at).or(made[at].as_ref()).expect("parts come behind what they take")
                }
            };
            let maps: Vec<&Map> = block.takes.iter().map(take).collect();
            let map = block.forward_with(&maps, mistake);
            on_part(block, &map);
            made[position] = Some(map);
            for (map, reader) in made.iter_mut().zip(&reader) {
                if *reader == Some(position) {
                    *map = None;
                }
            }
        }
        let give = |source: &Source| match *source {
            Source::Image => image.clone(),
            Source::Part(at) => given(at).or(made[at].as_ref()).expect("what is wanted was made").clone(),
        };
        wanted.iter().map(give).collect()
    }
}

/// A part that takes an image, whose channels may be in another order.
pub struct OfImage<P>(pub P);

impl<P: Part> Part for OfImage<P> {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        if mistake != Some(Mistake::ExchangedChannels) {
            return self.0.forward(x, mistake);
        }
        let mut exchanged = x.view();
        exchanged.invert_axis(Axis(1));
        self.0.forward(&exchanged.as_standard_layout().into_owned(), None)
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        mistake == Mistake::ExchangedChannels || self.0.can_make(mistake)
    }

    fn normed(&self, x: &Map) -> Map {
        self.0.normed(x)
    }
}
