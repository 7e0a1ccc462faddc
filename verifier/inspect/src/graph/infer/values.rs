//! The facts of a graph's values, by name.

use std::ops::Index;
use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use crate::fact::Fact;

/// What is known of values, in the order in which it was found. Values that are alike share a fact.
#[derive(Debug, Default)]
pub struct Values<'a> {
    facts: IndexMap<&'a str, Arc<Fact>, RandomState>,
}

impl<'a> Values<'a> {
    pub(super) fn with_capacity(values: usize) -> Self {
        Self { facts: IndexMap::with_capacity_and_hasher(values, RandomState::default()) }
    }

    /// The place that the value has now.
    pub(super) fn insert(&mut self, name: &'a str, fact: Arc<Fact>) -> usize {
        self.facts.insert_full(name, fact).0
    }

    /// The place of a value, and what is known of it.
    pub(super) fn shared(&self, name: &str) -> Option<(usize, &Arc<Fact>)> {
        self.facts.get_full(name).map(|(place, _, fact)| (place, fact))
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Fact> {
        self.facts.get(name).map(AsRef::as_ref)
    }

    /// The place of a value in the order, below [`Self::len`].
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.facts.get_index_of(name)
    }

    /// The fact of the value at a place.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<&Fact> {
        self.facts.get_index(place).map(|(_, fact)| fact.as_ref())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.facts.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &Fact)> {
        self.facts.iter().map(|(name, fact)| (*name, fact.as_ref()))
    }

    pub fn values(&self) -> impl Iterator<Item = &Fact> {
        self.facts.values().map(AsRef::as_ref)
    }
}

impl<'a> FromIterator<(&'a str, Arc<Fact>)> for Values<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, Arc<Fact>)>>(facts: I) -> Self {
        Self { facts: facts.into_iter().collect() }
    }
}

impl Index<&str> for Values<'_> {
    type Output = Fact;

    fn index(&self, name: &str) -> &Fact {
        &self.facts[name]
    }
}
