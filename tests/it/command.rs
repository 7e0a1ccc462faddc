//! The command `emo`, run as a user runs it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

pub const EMO: &str = env!("CARGO_BIN_EXE_emo-under-test");

/// Runs `emo` in `folder`: exit code, stdout, stderr.
pub fn emo(folder: &TempDir, arguments: &[&str]) -> (i32, String, String) {
    emo_with(folder, arguments, &[])
}

/// Runs `emo` with what it refuses: exit code 2, nothing on stdout, every one of `words` on stderr.
pub fn refused(folder: &TempDir, arguments: &[&str], words: &[&str]) {
    let (code, stdout, stderr) = emo(folder, arguments);
    assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?}: expected {word:?} in: {stderr}");
    }
}

/// The same with variables of the environment; those that change a report are not inherited.
pub fn emo_with(folder: &TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(EMO);
    command.args(arguments).current_dir(folder.path());
    for name in ["COLUMNS", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The JSON of a request that ends with `code`; it keeps the committed schema.
pub fn json_of(folder: &TempDir, code: i32, arguments: &[&str]) -> Value {
    let (found, stdout, stderr) = emo(folder, &[arguments, &["--format", "json"]].concat());
    assert_eq!(found, code, "{arguments:?}: {stdout}{stderr}");
    let value: Value = serde_json::from_str(&stdout).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../verifier/schemas").join(arguments[0]);
    let schema = fs::read_to_string(path.with_extension("json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let errors: Vec<String> =
        schema.iter_errors(&value).map(|e| format!("{} {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{arguments:?}: {errors:#?}");
    value
}
