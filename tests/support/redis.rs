//! Real Redis servers for tests: a [`Single`] one, a [`Sentinel`] set and a [`Cluster`], as processes on free ports of
//! the loopback with directories of their own.
//!
//! What is started here ends with the value that stands for it, on a panic too, and nothing else is ever ended. Starting
//! polls what the servers themselves say and never sleeps for luck. Every call blocks: within a runtime that has other
//! work to do, use `spawn_blocking` or `block_in_place`.
//!
//! The servers' own files (configuration, log, append-only file) are in their directories; a server that does not come up
//! panics with its log.
//!
//! A test binary takes part in this with
//!
//! ```text
//! #[path = "support/redis.rs"]
//! mod servers;
//! ```

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![allow(clippy::disallowed_methods, reason = "other processes are watched here: time is real")]
#![allow(unreachable_pub, reason = "a module of several test binaries")]

#[path = "redis/cluster.rs"]
mod cluster;
#[path = "redis/options.rs"]
mod options;
#[path = "redis/sentinel.rs"]
mod sentinel;
#[path = "redis/server.rs"]
mod server;
#[path = "redis/single.rs"]
mod single;

use std::time::{Duration, Instant};

pub(crate) use self::{
    cluster::Cluster,
    options::{Options, User},
    sentinel::Sentinel,
    server::Server,
    single::Single,
};

/// The longest that anything of Redis' may take that should happen by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether there is a Redis to start.
///
/// # Panics
///
/// Where there is none and `CI` is set: what is proven there must not depend on who forgot to install it.
pub(crate) fn is_installed() -> bool {
    let found = ["redis-server", "redis-cli"].iter().all(|program| {
        std::process::Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    assert!(found || std::env::var_os("CI").is_none(), "redis-server and redis-cli are not installed");
    if !found {
        eprintln!("skipped: redis-server and redis-cli are not installed");
    }
    found
}

/// Asks again until `check` holds.
///
/// # Panics
///
/// When it does not within [`PATIENCE`]; with what `check` last said.
#[track_caller]
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(instead) = check() {
        assert!(start.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {what}: {instead}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
