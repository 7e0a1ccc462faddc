//! The command line: a file a subcommand.
//!
//! stdout is data, stderr is talk; a subcommand writes its data whole, at its end.

mod advice;
mod audit;
mod bench;
mod check;
mod diff;
mod dump;
mod export;
mod files;
mod formats;
mod lint;
mod list;
mod names;
mod output;
mod process;
mod progress;
mod runtime;
mod several;
mod show;
mod sizes;
mod streams;
mod table;
mod targets;
mod verify;
mod zoo;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use emo_proto::plain::plain;
use emo_verifier::finding::Outcome;
use emo_verifier::runtime::Failure;

use process::Mistake;

/// Writes EMO vision models as ONNX without Python, and judges ONNX files.
#[derive(Debug, Parser)]
#[command(name = "emo", bin_name = "emo", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Models with their published figures
    List(list::Args),
    /// What a model is made of, and its counts; several models side by side
    Show(show::Args),
    /// Write a model as ONNX and verify it
    Export(export::Args),
    /// Judge whether a file, whoever wrote it, is a known model and computes it
    Verify(verify::Args),
    /// Count any ONNX file: parameters, costs, memory; hold it to a budget
    Audit(audit::Args),
    /// Judge the structure of any ONNX file: what onnx.checker finds, and what it misses
    Check(check::Args),
    /// Judge what a runtime would make of any file: what it lacks, into how many partitions it cuts it
    Lint(lint::Args),
    /// What files are written for: what each runtime takes, by which source, how models are spelled for it
    #[command(alias = "profiles")]
    Targets(targets::Args),
    /// What changed from one file to another
    Diff(diff::Args),
    /// A graph as text, types and shapes inferred
    Dump(dump::Args),
    /// How fast an engine runs files, beside the first of them
    Bench(bench::Args),
    /// Releases with their evidence: build, check, list, show, diff, add, card
    Zoo(zoo::Args),
}

/// What a subcommand says on stdout, and how it ended. What cannot be served at all is an error.
type Said = anyhow::Result<(String, Outcome)>;

/// Parses the arguments of the process, runs the subcommand, prints.
#[must_use]
pub fn main() -> ExitCode {
    process::prepare();
    match streams::can_print().and_then(|()| serve()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            streams::complain(&error);
            // An engine's limits say nothing of the file, and our mistakes even less.
            let undecided = error.downcast_ref().is_some_and(Failure::is_undecided) || error.is::<Mistake>();
            ExitCode::from(if undecided { Outcome::Undecided } else { Outcome::Unreadable }.exit_code())
        }
    }
}

/// Serves the request that the arguments are, and says what came of it.
fn serve() -> anyhow::Result<u8> {
    let Cli { command } = match Cli::try_parse() {
        Ok(request) => request,
        Err(usage) => {
            // In words that do nothing to a terminal: a shell's pattern may have made them of files' names.
            let words = std::env::args_os().map(|word| plain(&word.to_string_lossy()).into_owned());
            let usage = Cli::try_parse_from(words).err().unwrap_or(usage);
            streams::explain(&usage)?;
            return Ok(u8::try_from(usage.exit_code()).unwrap_or(Outcome::Unreadable.exit_code()));
        }
    };
    let (data, outcome) = process::guarded(|| run(&command))?;
    streams::print(&data)?;
    Ok(outcome.exit_code())
}

fn run(command: &Command) -> Said {
    match command {
        Command::List(args) => list::run(args),
        Command::Show(args) => show::run(args),
        Command::Export(args) => export::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Check(args) => check::run(args),
        Command::Lint(args) => lint::run(args),
        Command::Targets(args) => targets::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Dump(args) => dump::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Zoo(args) => zoo::run(args),
    }
}

/// Every subcommand with its table of arguments, as the parser has it.
#[must_use]
pub fn commands() -> clap::Command {
    Cli::command()
}
