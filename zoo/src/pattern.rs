//! Names that may be patterns: the one way in which lists of models and targets are asked for.

use emo_proto::{Error, Result};
use glob::Pattern;

/// Names that are told all, since nobody would look through more; of more the nearest.
pub const SPELLED: usize = 20;
const NEAREST: usize = 3;

/// Whether `text` can mean several names.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Those of `names` that a name or a pattern means, where `*` stands for anything: at least one.
///
/// # Errors
/// It means none: the nearest; it is no pattern.
pub fn matching<'a>(text: &str, names: &[&'a str], what: &str) -> Result<Vec<&'a str>> {
    let pattern = Pattern::new(text).map_err(|error| {
        let (at, why) = (error.pos, error.msg);
        Error::new(format!("expected {what} or a pattern of names, found {text:?}: {why}, at {at}"))
    })?;
    let found: Vec<&str> = names.iter().copied().filter(|name| pattern.matches(name)).collect();
    if found.is_empty() {
        return Err(Error::new(format!("expected {what} {}, found {text}", near(names, text))));
    }
    Ok(found)
}

/// All of few names, or those of many that are the nearest to `name`.
#[must_use]
pub fn near(names: &[&str], name: &str) -> String {
    if names.len() <= SPELLED {
        return format!("out of {}", names.join(", "));
    }
    // What stands for anything is like nothing.
    let plain: String = name.chars().filter(|c| !"*?[]!".contains(*c)).collect();
    let mut names = names.to_vec();
    names.sort_by(|a, b| strsim::jaro_winkler(b, &plain).total_cmp(&strsim::jaro_winkler(a, &plain)));
    format!("(the nearest are {})", names[..NEAREST].join(", "))
}
