//! What a row allows to be asked for; a refusal says why, and the nearest thing that works.

use emo_proto::{Error, Result};

/// The operator sets that a runtime takes, the default first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opsets {
    pub versions: &'static [i64],
    pub source: &'static str,
}

/// Whether something may be asked for, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    Yes,
    No {
        because: &'static str,
        source: &'static str,
        /// The nearest thing that works.
        instead: &'static str,
    },
}

/// How many images a run may have at most, and why no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MostImages {
    pub images: usize,
    pub because: &'static str,
    pub source: &'static str,
    /// The nearest thing that works.
    pub instead: &'static str,
}

impl Allow {
    pub(crate) fn check(self, asked: &str, profile: &str) -> Result<()> {
        match self {
            Allow::Yes => Ok(()),
            Allow::No { because, source, instead } => {
                let comma = if instead.contains(',') { "," } else { "" };
                let why = format!("{because} ({source}); {instead}{comma} works");
                Err(Error::new(format!("the target {profile} takes no {asked}: {why}")))
            }
        }
    }
}
