//! Where a family was published.

use super::{Definition, Model, deit, emo, emo2, mobilenetv2};

/// A paper, and the code that came with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paper {
    pub title: &'static str,
    /// Where and when it appeared.
    pub venue: &'static str,
    pub url: &'static str,
    /// The repository of the code whose names the weights have.
    pub source: &'static str,
}

impl Definition {
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
}

impl Model {
    /// The paper that published it; `None` of a network of somebody's own.
    #[must_use]
    pub fn paper(&self) -> Option<&'static Paper> {
        (!self.is_own()).then(|| self.definition.paper())
    }
}
