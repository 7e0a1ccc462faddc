//! Reading a manifest that anybody may have written.

use std::collections::HashSet;

use emo_proto::{Error, Result};
use serde_json::Value;

use super::entry::{Entry, Provenance, SCHEMA};

/// Bytes of a manifest.
pub const LARGEST_MANIFEST: u64 = 1 << 26;
/// Bytes of a file: protobuf's own limit.
pub const LARGEST_FILE: u64 = (1 << 31) - 1;
/// Bytes of any text in an entry.
const LONGEST_TEXT: usize = 1 << 12;
/// Bytes of a path.
const LONGEST_PATH: usize = 200;

/// Bytes of text for each value, at least: a list of zeros would take a hundred times its text.
const LEAST_TEXT: usize = 4;
/// And for each object, which takes as much as twenty others.
const LEAST_OBJECT: usize = 48;
/// Values that take little, whatever their text.
const FEW_VALUES: usize = 1 << 20;
const FEW_OBJECTS: usize = 1 << 16;

/// The entries of a manifest, each of them sound.
pub fn entries(text: &str) -> Result<Vec<Entry>> {
    let look = look(text);
    let most = |least: usize, few: usize| (text.len() / least).max(few);
    if look.values > most(LEAST_TEXT, FEW_VALUES) || look.objects > most(LEAST_OBJECT, FEW_OBJECTS) {
        return Err(Error::new("expected a list of entries, found one that is mostly empty values"));
    }
    // What is as builds write it is read once; of anything else is found out what is wrong.
    let entries = match serde_json::from_str::<Vec<Entry>>(text) {
        Ok(entries) if look.plain && entries.iter().all(|entry| entry.schema == SCHEMA) => entries,
        _ => doubted(text)?,
    };
    let mut seen = HashSet::new();
    for entry in &entries {
        sound(entry).map_err(|error| error.at(&entry.model_path))?;
        // Some file systems do not tell capitals from small letters.
        if !seen.insert(entry.model_path.to_ascii_lowercase()) {
            return Err(Error::new("expected one entry, found two").at(&entry.model_path));
        }
    }
    Ok(entries)
}

/// What a text in JSON looks like.
struct Look {
    /// Values, at most, and how many of them are objects.
    values: usize,
    objects: usize,
    /// Whether no text in it is too long or has more than quotes, slashes and backslashes escaped.
    plain: bool,
}

fn look(text: &str) -> Look {
    let mut look = Look { values: 0, objects: 0, plain: true };
    let mut bytes = text.bytes().enumerate();
    while let Some((start, byte)) = bytes.next() {
        match byte {
            b',' | b'[' => look.values += 1,
            b'{' => (look.values, look.objects) = (look.values + 1, look.objects + 1),
            b'"' => {
                while let Some((at, byte)) = bytes.next() {
                    match byte {
                        b'"' => {
                            look.plain &= at - start <= LONGEST_TEXT;
                            break;
                        }
                        b'\\' => look.plain &= matches!(bytes.next(), Some((_, b'"' | b'\\' | b'/'))),
                        // DEL, and what control characters beyond ASCII start with.
                        0x7f | 0xc2 => look.plain = false,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    look
}

/// The entries of a text that no build writes, or why they are none.
fn doubted(text: &str) -> Result<Vec<Entry>> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Error::new(format!("expected a manifest in JSON, found none: {error}")))?;
    let Value::Array(values) = &value else {
        return Err(Error::new(format!("expected a list of entries, found {}", kind(&value))));
    };
    for (index, value) in values.iter().enumerate() {
        plain(value).and_then(|()| version(value)).map_err(|error| error.at(name(value, index)))?;
    }
    // From the text, which a field that stands twice does not pass.
    let mut reader = serde_json::Deserializer::from_str(text);
    let entries: Vec<Entry> = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().clone();
        let index = match path.iter().next() {
            Some(serde_path_to_error::Segment::Seq { index }) => *index,
            _ => 0,
        };
        let field = path.to_string();
        let field = field.split_once("].").map_or(field.as_str(), |(_, field)| field).to_owned();
        let place = values.get(index).map_or_else(|| format!("entry {index}"), |value| name(value, index));
        Error::new(error.into_inner()).at(field).at(place)
    })?;
    Ok(entries)
}

/// Whether an entry that is to be recorded would be read again.
///
/// # Errors
/// It would not: a file from elsewhere may call its inputs anything.
#[cfg(feature = "engines")]
pub fn admit(entry: &Entry) -> Result<()> {
    let value = serde_json::to_value(entry).map_err(Error::new)?;
    plain(&value).and_then(|()| sound(entry)).map_err(|error| error.at(name(&value, 0)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What an entry is called in an error: its path, where it has one, made harmless.
fn name(value: &Value, index: usize) -> String {
    match value.get("model_path").and_then(Value::as_str) {
        Some(path) => path.chars().take(LONGEST_PATH).flat_map(char::escape_debug).collect(),
        None => format!("entry {index}"),
    }
}

/// No text of an entry moves a terminal's cursor or is endless.
fn plain(value: &Value) -> Result<()> {
    let text = |text: &str| {
        if text.len() > LONGEST_TEXT {
            return Err(Error::new(format!(
                "expected texts of {LONGEST_TEXT} bytes at most, found {}",
                text.len()
            )));
        }
        match text.chars().find(|c| c.is_control()) {
            Some(c) => Err(Error::new(format!("expected texts without control characters, found {c:?}"))),
            None => Ok(()),
        }
    };
    match value {
        Value::String(string) => text(string),
        Value::Array(values) => values.iter().try_for_each(plain),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            text(key)?;
            plain(value).map_err(|error| error.at(key))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn version(value: &Value) -> Result<()> {
    match value.get("schema") {
        Some(Value::String(schema)) if schema == SCHEMA => Ok(()),
        Some(other) => Err(Error::new(format!(
            "expected the version {SCHEMA:?}, found {other}; another version of emo may read it"
        ))
        .at("schema")),
        None if value.is_object() => {
            Err(Error::new(format!("expected the version {SCHEMA:?}, found none")).at("schema"))
        }
        None => Err(Error::new(format!("expected an entry, found {}", kind(value)))),
    }
}

fn sound(entry: &Entry) -> Result<()> {
    path(&entry.model_path, &entry.model)?;
    let digest = |name: &str, digest: &str, digits: usize| {
        let hex = digest.len() == digits && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match hex {
            true => Ok(()),
            false => {
                Err(Error::new(format!("expected {digits} small hexadecimal digits, found {digest:?}"))
                    .at(name))
            }
        }
    };
    digest("metadata.model_sha", &entry.metadata.model_sha, 64)?;
    if let Provenance::Checkpoint(checkpoint) = &entry.weights {
        digest("weights.sha256", &checkpoint.sha256, 64)?;
        digest("weights.git_blob", &checkpoint.git_blob, 40)?;
    }
    // Its fields say one thing: what the digest is of is official, or it is not.
    let weights = &entry.weights;
    if weights.origin().map_or_else(Provenance::own, |origin| Provenance::from(&origin)) != *weights {
        let why = "expected file, formula:SEED or a checkpoint as its digest tells it, found another origin";
        return Err(Error::new(why).at("weights"));
    }
    let bytes = entry.metadata.model_bytes;
    if !(1..=LARGEST_FILE).contains(&bytes) {
        return Err(Error::new(format!("expected 1 to {LARGEST_FILE} bytes, found {bytes}"))
            .at("metadata.model_bytes"));
    }
    Ok(())
}

/// `MODEL/FILE.onnx` in letters that no file system and no shell minds.
pub fn path(path: &str, model: &str) -> Result<()> {
    let refuse = |why: &str| Err(Error::new(format!("{why}, found {path:?}")).at("model_path"));
    if path.len() > LONGEST_PATH {
        return refuse(&format!("expected a path of {LONGEST_PATH} bytes at most"));
    }
    let part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(plain)
    };
    match path.split_once('/') {
        Some((folder, file)) if folder == model && part(folder) && part(file) && file.ends_with(".onnx") => {
            Ok(())
        }
        _ => refuse("expected MODEL/FILE.onnx, inside the folder, of letters, digits, '.', '_' and '-'"),
    }
}
