//! What many nodes have alike, kept once.

use std::collections::VecDeque;
use std::sync::Arc;

/// The last few that were new. A large graph repeats itself at a short distance, so that no map of all is needed.
#[derive(Debug)]
pub(crate) struct Recent<T>(VecDeque<Arc<T>>);

/// How many are looked at.
const LOOKED_AT: usize = 8;

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(VecDeque::with_capacity(LOOKED_AT))
    }
}

impl<T: PartialEq> Recent<T> {
    /// The one, or a recent one that is the same.
    pub(crate) fn shared(&mut self, one: T) -> Arc<T> {
        if let Some(known) = self.0.iter().find(|known| ***known == one) {
            return known.clone();
        }
        let one = Arc::new(one);
        if self.0.len() == LOOKED_AT {
            self.0.pop_front();
        }
        self.0.push_back(one.clone());
        one
    }
}
