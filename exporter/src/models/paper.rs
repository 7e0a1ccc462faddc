//! Where a family was published.

use super::Model;

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

impl Model {
    /// The paper that published it; `None` of a network of somebody's own.
    #[must_use]
    pub fn paper(&self) -> Option<&'static Paper> {
        (!self.is_own()).then(|| self.definition.paper())
    }
}
