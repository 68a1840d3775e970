//! `oncegate completions` and `oncegate man`: generated from the command line's own definition.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::CommandFactory as _;

use super::{Cli, Exit, Failure};

/// Prints a completion script.
pub(super) fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "oncegate", &mut script);
    print(&script)
}

/// Prints the manual, or writes one page for each command into `dir`.
pub(super) fn manual(dir: Option<&Path>) -> ExitCode {
    let pages = pages();
    match dir {
        None => print(&pages.into_iter().flat_map(|(_, page)| page).collect::<Vec<_>>()),
        Some(dir) => match write(dir, &pages) {
            Ok(()) => Exit::Ok.into(),
            Err((path, error)) => Failure::new(
                Exit::Failure,
                format!("cannot write {}", path.display()),
                error.to_string(),
                "name a directory that can be written to",
            )
            .report(),
        },
    }
}

/// The main page and one for each command, by file name.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut command = Cli::command();
    command.build();
    let mut found = Vec::new();
    collect(&command, &mut found);
    found
}

fn collect(command: &clap::Command, found: &mut Vec<(String, Vec<u8>)>) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name.to_uppercase())
        .source(concat!("oncegate ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)
        .expect("a Vec takes every write");
    // What stands below a command's help is its examples.
    let page = String::from_utf8(page).expect("roff is text").replace(".SH EXTRA\n", ".SH EXAMPLES\n").into_bytes();
    found.push((format!("{name}.1"), page));
    // `help` shows what these pages say.
    let is_page = |command: &&clap::Command| !command.is_hide_set() && command.get_name() != "help";
    command.get_subcommands().filter(is_page).for_each(|command| collect(command, found));
}

fn write(dir: &Path, pages: &[(String, Vec<u8>)]) -> Result<(), (PathBuf, io::Error)> {
    fs::create_dir_all(dir).map_err(|error| (dir.to_owned(), error))?;
    for (name, page) in pages {
        let path = dir.join(name);
        fs::write(&path, page).map_err(|error| (path, error))?;
    }
    Ok(())
}

fn print(text: &[u8]) -> ExitCode {
    super::written(io::stdout().lock().write_all(text).map(|()| 0))
}
