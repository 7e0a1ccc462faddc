//! What a judge has to say of a file: one shape for every check, claim, budget and report.

use emo_proto::plain::brief;
use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Legal, and most likely a mistake.
    Warning,
    /// The file breaks a rule, or does not hold what was asked of it.
    Error,
}

impl Severity {
    /// `note`, `warning` or `error`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that is not as it should be, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable, kebab-case: what reports group by and `--allow` names.
    pub code: &'static str,
    pub severity: Severity,
    /// The node, value or tensor within the file: `node "conv" (Conv)`; empty for the file as a whole.
    pub place: String,
    /// What was expected, what was found, what to do next; lower case, no full stop.
    pub message: String,
    /// The file as the user named it; `None` for one that has no name.
    pub file: Option<String>,
}

impl Finding {
    /// The same with the hidden characters of its texts escaped.
    #[must_use]
    pub fn plain(&self) -> Self {
        let text = |text: &String| brief(text).into_owned();
        let (place, message) = (text(&self.place), text(&self.message));
        Self { place, message, file: self.file.as_ref().map(text), ..self.clone() }
    }
}
