//! The command `emo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    emo_zoo::cli::main()
}
