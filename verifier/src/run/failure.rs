//! Why a graph does not run: its own fault, or the engine's.

use std::fmt;

use emo_proto::Error;

/// Why a graph does not run. Only the first is an answer about the file; the others leave it undecided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The request or the file is wrong.
    Wrong(Error),
    /// The engine lacks an operator, or the form of it that a node asks for.
    Lacking {
        runtime: &'static str,
        /// Behind its domain where that is not ONNX's own: `com.microsoft.FusedConv`.
        operator: String,
        /// Its name, or its first output where it has none.
        node: String,
    },
    /// The engine fails at a graph in which nothing is known to be wrong.
    Refused { runtime: &'static str, why: Error },
}

impl Failure {
    pub(crate) fn wrong(message: impl fmt::Display) -> Self {
        Failure::Wrong(Error::new(message))
    }

    /// The same with its place in front.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        match self {
            Failure::Wrong(error) => Failure::Wrong(error.at(place)),
            Failure::Refused { runtime, why } => Failure::Refused { runtime, why: why.at(place) },
            lacking @ Failure::Lacking { .. } => lacking,
        }
    }

    /// Whether another engine may do better.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        match self {
            Failure::Wrong(_) => false,
            Failure::Lacking { .. } | Failure::Refused { .. } => true,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Wrong(error) => error.fmt(f),
            Failure::Lacking { runtime, operator, node } => {
                write!(f, "{runtime} has no {operator}, which node {node} is; try another runtime")
            }
            Failure::Refused { runtime, why } => write!(f, "{runtime}: {why}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Wrong(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Wrong(error) => error,
            other => Error::new(other),
        }
    }
}
