//! The facts of what a node writes: of most nodes one, which needs no list.

use std::ops::Deref;
use std::sync::Arc;

use crate::fact::Fact;

#[derive(Debug)]
pub enum Outputs {
    One(Arc<Fact>),
    Many(Box<[Arc<Fact>]>),
}

impl Default for Outputs {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}

impl Deref for Outputs {
    type Target = [Arc<Fact>];

    fn deref(&self) -> &[Arc<Fact>] {
        match self {
            Self::One(fact) => std::slice::from_ref(fact),
            Self::Many(facts) => facts,
        }
    }
}

impl FromIterator<Arc<Fact>> for Outputs {
    fn from_iter<I: IntoIterator<Item = Arc<Fact>>>(facts: I) -> Self {
        let mut facts = facts.into_iter();
        match (facts.next(), facts.next()) {
            (None, _) => Self::default(),
            (Some(one), None) => Self::One(one),
            (Some(one), Some(two)) => Self::Many([one, two].into_iter().chain(facts).collect()),
        }
    }
}
