//! The configuration from outside: every error as it is shown, every key, every file in `config/`, reloads, routes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "config/changes.rs"]
mod changes;
#[path = "config/check.rs"]
mod check;
#[path = "config/errors.rs"]
mod errors;
#[path = "config/files.rs"]
mod files;
#[path = "config/keys.rs"]
mod keys;
#[path = "config/routes.rs"]
mod routes;

use oncegate::config::{self, Config, Errors, Loaded, Overrides};

/// An environment that has one name.
fn env(name: &str) -> Option<String> {
    (name == "NINE").then(|| "9".to_owned())
}

fn parse(text: &str) -> Result<Loaded, Errors> {
    config::parse("oncegate.toml", text, &Overrides::default(), &env)
}

/// The configuration of a text that is sound.
fn sound(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}")).config
}

/// A text that is sound, and ends where routes may follow.
const BASE: &str = "[upstreams.api]\nurl = \"http://127.0.0.1:9000\"\n[defaults]\nscope = [\"header:authorization\"]\n";
