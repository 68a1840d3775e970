//! The command line (contract: section 3): what each command takes, and which module does it.
//!
//! Results go to stdout, errors and logs to stderr; an error says what happened, why, and what to do. Colour is for
//! terminals only.

mod args;
pub mod check;
mod columns;
pub mod demo;
pub mod doctor;
pub mod explain;
mod failure;
mod output;
mod pages;
pub mod records;
pub mod run;
pub mod schema;

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode};

use clap::{
    Parser, Subcommand,
    builder::{
        Styles,
        styling::{AnsiColor, Style},
    },
};

use self::output::{put, say};
pub use self::{
    args::{CHECK_EXAMPLES, CheckArgs, ConfigFile, ConfigFlag, RUN_EXAMPLES, RunArgs},
    failure::{Exit, Failure},
};

use crate::config;

const STYLES: Styles = Styles::styled()
    .header(Style::new().bold())
    .usage(Style::new().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Green.on_default());

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "oncegate",
    version,
    about = "Oncegate: an idempotency reverse proxy. Put it in front of any HTTP API, and POST becomes safe to retry",
    long_about = "Oncegate is an idempotency reverse proxy. Put it in front of any HTTP API: a request that \
                  carries an Idempotency-Key is sent on at most once, and every retry of it gets the first \
                  one's answer. Everything else passes unchanged.",
    after_help = "Try it:\n  oncegate demo\n  oncegate run --upstream http://127.0.0.1:9000\n\n\
                  Exit codes: 0 ok, 64 usage, 69 cannot bind or reach, 78 bad configuration,\n1 anything else.",
    max_term_width = 80,
    styles = STYLES,
    arg_required_else_help = true,
    subcommand_required = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),

    /// Show what Oncegate is for: payments with and without it, side by side
    #[command(after_help = "Examples:\n  oncegate demo\n  oncegate demo --seed 7 --keep-running\n\n\
                            Exits 1 if Oncegate let a customer be charged twice.")]
    Demo(demo::Args),

    /// Check a configuration: every error at once, or its routes and warnings
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),

    /// Explain what would happen to a request, and why; sends nothing
    #[command(
        after_help = "Examples:\n  oncegate explain oncegate.toml POST http://api.example.com/v1/charges \\\n    \
                            -H 'Idempotency-Key: order-1' --data '{\"amount\": 1999}'\n\n\
                            Keys, scope values and bodies are never shown."
    )]
    Explain(explain::Args),

    /// Look at what a configuration relies on: store, upstreams, limits, secrets
    #[command(after_help = "Example:\n  oncegate doctor oncegate.toml\n\n\
                            Exits 69 when something failed; each line says what to do.")]
    Doctor(doctor::Args),

    /// List, show, find, resolve and forget the records of a running Oncegate
    #[command(after_help = records::EXAMPLES)]
    Records(records::Args),

    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = "Example:\n  oncegate schema > oncegate.schema.json")]
    Schema,

    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  oncegate completions bash > /etc/bash_completion.d/oncegate")]
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },

    /// Print the manual, or write one page for each command
    #[command(after_help = "Examples:\n  oncegate man | man -l -\n  oncegate man /usr/local/share/man/man1")]
    Man {
        /// Where to write oncegate.1, oncegate-run.1 and so on; without it, all goes to stdout
        dir: Option<PathBuf>,
    },
}

impl Command {
    /// Does it.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self {
            Self::Run(args) => run::run(args),
            Self::Demo(args) => demo::run(&args),
            Self::Check(args) => check(args),
            Self::Explain(args) => explain::run(args),
            Self::Doctor(args) => doctor::run(args),
            Self::Records(args) => records::run(args),
            Self::Schema => written(schema::run(&mut io::stdout()).map(|()| 0)),
            Self::Completions { shell } => pages::completions(shell),
            Self::Man { dir } => pages::manual(dir.as_deref()),
        }
    }
}

/// Parses the command line; help, version and errors are printed here, with the exit code they ask for.
///
/// # Errors
///
/// The exit code, when there is nothing more to do.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(args).map_err(|error| {
        // A closed pipe is no reason for another exit code.
        let _ = error.print();
        // Help and version that were asked for go to stdout and are no errors.
        if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() }
    })
}

/// The environment, for `${NAME}` in a configuration.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Says what is wrong with a configuration: with `json` as `check --json` does, on stdout.
fn refuse_config(errors: &config::Errors, json: bool) -> Result<ExitCode, Failure> {
    match json {
        true => put(format_args!("{:#}\n", check::refusal([errors])))?,
        false => say(errors.render(true)),
    }
    Ok(Exit::Config.into())
}

fn check(CheckArgs { config, against, json }: CheckArgs) -> ExitCode {
    let file = match config.path() {
        Ok(file) => file,
        Err(failure) => return failure.report(),
    };
    // These streams drop colour where no terminal would show it.
    let (mut out, mut err) = (anstream::stdout(), anstream::stderr());
    written(check::run(&file, against.as_deref(), json, true, &environment, &mut out, &mut err))
}

/// The exit code of a command that has written its results, or could not.
pub(crate) fn written(code: io::Result<u8>) -> ExitCode {
    match code {
        Ok(code) => code.into(),
        // A reader that has seen enough, as in `oncegate man | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok.into(),
        Err(error) => output::unwritten(&error).report(),
    }
}
