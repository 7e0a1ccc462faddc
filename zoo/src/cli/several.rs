//! One error for several.

use std::fmt;

/// What several files have to say, an error each.
#[derive(Debug)]
pub struct Several(pub Vec<String>);

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Several {}
