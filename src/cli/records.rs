//! `oncegate records`: the operator's tool for the records of a running Oncegate, through its admin API.
//!
//! Nothing here touches the store: what may be done to a record is the server's to decide. Every change names the
//! version that was shown, so that it is refused when the record has moved on meanwhile.

mod ask;
mod bulk;
mod change;
mod client;
mod find;
mod show;
mod table;
mod target;

use std::{fmt, process::ExitCode};

use clap::Subcommand;
use serde_json::Value;

use self::{
    change::{ForgetArgs, ResolveArgs},
    client::Client,
    find::FindArgs,
    show::{ListArgs, ShowArgs},
};
use super::{Exit, Failure, say};

/// Arguments of `oncegate records`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// What can be done with records.
#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// List records, e.g. those that are unknown
    #[command(after_help = "Examples:\n  oncegate records list --state unknown\n  \
                            oncegate records list --route 'create charge' --older 1h --json")]
    List(ListArgs),

    /// Show one record
    #[command(after_help = "Example:\n  oncegate records show 0123456789abcdef\n\n\
                            ID is what a problem's `instance` ends with, or all 64 digits.")]
    Show(ShowArgs),

    /// Find the record of a request by what its client sent
    #[command(after_help = find::EXAMPLES)]
    Find(FindArgs),

    /// Say what came of unknown requests: one by its id, or all that match
    #[command(after_help = change::RESOLVE_EXAMPLES)]
    Resolve(ResolveArgs),

    /// Forget a record: its key is new again, and a retry runs the request again
    #[command(after_help = "Example:\n  oncegate records forget 0123456789abcdef\n\n\
                            A request that is under way is forgotten only with --force.")]
    Forget(ForgetArgs),
}

/// Examples of `oncegate records`.
pub const EXAMPLES: &str = "\
Examples:
  oncegate records list -c oncegate.toml --state unknown
  oncegate records show 0123456789abcdef --admin unix:/run/oncegate-admin.sock
  oncegate records resolve 0123456789abcdef --not-executed

The address and the token come from the flags, or from the configuration that
-c or ONCEGATE_CONFIG names.";

/// Does it.
pub fn run(args: Args) -> ExitCode {
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, "this cannot start", error.to_string(), ""))
        .and_then(|runtime| runtime.block_on(act(args.command)));
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

async fn act(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::List(args) => show::list(args).await,
        Command::Show(args) => show::show(args).await,
        Command::Find(args) => find::find(args).await,
        Command::Resolve(args) => change::resolve(args).await,
        Command::Forget(args) => change::forget(args).await,
    }
}

/// Writes results, and ends their line.
fn put(results: impl fmt::Display) -> Result<(), Failure> {
    super::put(format_args!("{results}\n"))
}

/// A record's member that is a text.
fn text<'v>(record: &'v Value, member: &str) -> &'v str {
    record[member].as_str().unwrap_or("-")
}

/// The first 16 digits of a record's id.
fn short(record: &Value) -> &str {
    let id = text(record, "id");
    id.get(..16).unwrap_or(id)
}
