//! What a judge has to say of a file: one shape for every check, claim, budget and report.

use emo_proto::plain::brief;
use serde::Serialize;

/// How a question about a file ended, in one order for all commands: the worst of several is that of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// What was asked holds.
    Pass,
    /// It cannot be decided: something is not known, or an engine lacks what the file needs.
    Undecided,
    /// It does not hold.
    Fail,
    /// The input cannot be read.
    Unreadable,
}

impl Outcome {
    /// `pass`, `undecided`, `fail` or `unreadable`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Undecided => "undecided",
            Self::Fail => "fail",
            Self::Unreadable => "unreadable",
        }
    }

    /// What a process ends with.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Unreadable => 2,
            Self::Undecided => 3,
        }
    }

    /// Of several.
    #[must_use]
    pub fn worst(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().max().unwrap_or(Self::Pass)
    }

    /// What findings come to.
    #[must_use]
    pub fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        Self::worst(findings.into_iter().map(Finding::outcome))
    }
}

/// The code of a file that is no ONNX model.
pub const UNREADABLE: &str = "unreadable";

/// The code of a question that stays open.
pub const UNDECIDED: &str = "undecided";

/// What a finding does to the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Legal, and most likely a mistake.
    Warning,
    /// It keeps open what was asked: nobody can say whether it holds.
    Open,
    /// The file breaks a rule, or does not hold what was asked of it.
    Error,
}

impl Severity {
    /// `note`, `warning`, `open` or `error`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Open => "open",
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
    /// What it alone comes to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.severity {
            Severity::Note | Severity::Warning => Outcome::Pass,
            Severity::Open => Outcome::Undecided,
            Severity::Error if self.code == UNREADABLE => Outcome::Unreadable,
            Severity::Error => Outcome::Fail,
        }
    }

    /// The same with the hidden characters of its texts escaped.
    #[must_use]
    pub fn plain(&self) -> Self {
        let text = |text: &String| brief(text).into_owned();
        let (place, message) = (text(&self.place), text(&self.message));
        Self { place, message, file: self.file.as_ref().map(text), ..self.clone() }
    }
}
