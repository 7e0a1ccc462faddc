//! The one error type of the library crates.

use std::fmt;

use crate::plain::plain;

/// What went wrong and where: `place: message`, lower case, no full stop.
///
/// A message says what was expected, what was found and what to do next; the
/// place is a file, a node or a tensor, added by whoever knows it with [`Error::at`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
}

/// The result of whatever can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a place.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string() }
    }

    /// The same error with its place in front.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        // Whoever chose the name does not choose what the reader's terminal does.
        Self { message: format!("{}: {}", plain(&place.to_string()), self.message) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
