//! `oncegate`: parse, dispatch, exit code. The commands are in [`oncegate::cli`].

use std::process::ExitCode;

use oncegate::cli;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(cli) => cli.command.run(),
        Err(exit) => exit,
    }
}
