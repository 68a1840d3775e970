//! What commands take from the command line, where more than one command or another module needs it.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, Failure};

/// Names the configuration file where no argument does.
const CONFIG_VARIABLE: &str = "ONCEGATE_CONFIG";

/// The configuration file, for commands that need one: `FILE`, `-c FILE`, or `ONCEGATE_CONFIG`.
#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// The configuration, e.g. oncegate.toml; or -c, or ONCEGATE_CONFIG
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,

    #[command(flatten)]
    flag: ConfigFlag,
}

impl ConfigFile {
    /// The file's path.
    ///
    /// # Errors
    ///
    /// A usage error when nothing names it.
    pub fn path(self) -> Result<PathBuf, Failure> {
        let Self { file, flag } = self;
        file.or_else(|| flag.path()).ok_or_else(no_file)
    }
}

/// A configuration file where a command can do without one: `-c FILE`, or `ONCEGATE_CONFIG`.
#[derive(Debug, Clone, Args)]
pub struct ConfigFlag {
    /// The configuration, e.g. -c oncegate.toml; or ONCEGATE_CONFIG
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFlag {
    /// Whether the flag is there.
    pub(super) fn is_given(&self) -> bool {
        self.config.is_some()
    }

    /// What the flag names.
    pub(super) fn given(&self) -> Option<&PathBuf> {
        self.config.as_ref()
    }

    /// The file's path, if anything names one.
    #[must_use]
    pub fn path(self) -> Option<PathBuf> {
        self.config.or_else(|| {
            let named = std::env::var_os(CONFIG_VARIABLE);
            named.filter(|named| !named.is_empty()).map(PathBuf::from)
        })
    }
}

/// What a command says that needs a file when nothing names one.
pub(super) fn no_file() -> Failure {
    Failure::new(
        Exit::Usage,
        "no configuration file is named",
        "",
        "name one: FILE, -c FILE, or ONCEGATE_CONFIG in the environment",
    )
}

/// Arguments of `oncegate run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The configuration, if there is one.
    #[command(flatten)]
    pub config: ConfigFlag,

    /// Where the API is, e.g. --upstream http://127.0.0.1:9000; enough without a file
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,

    /// Where clients connect, e.g. --listen 127.0.0.1:8080 or unix:/run/oncegate.sock
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,

    /// Where health, metrics and records are, e.g. --admin 127.0.0.1:9464
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
}

/// Examples of `oncegate run`.
pub const RUN_EXAMPLES: &str = "\
Examples:
  oncegate run --upstream http://127.0.0.1:9000
  oncegate run -c oncegate.toml --listen 127.0.0.1:8080

Flags beat the file. Without a file: the defaults, records in this process's
memory, callers told apart by their Authorization field.
SIGHUP reloads the file; SIGTERM drains and ends.";

/// Arguments of `oncegate check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFile,

    /// Also list what would put live records out of reach, e.g. --against running.toml
    #[arg(long, value_name = "OLD")]
    pub against: Option<PathBuf>,

    /// Print JSON for scripts, e.g. oncegate check oncegate.toml --json | jq .errors
    #[arg(long)]
    pub json: bool,
}

/// Examples of `oncegate check`.
pub const CHECK_EXAMPLES: &str = "\
Examples:
  oncegate check oncegate.toml
  oncegate check new.toml --against running.toml

Exits 78 when the file is bad.";
