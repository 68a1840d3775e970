//! The Oncegate of the demo: the real one, in this process, configured by a text as a file would be.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use tokio::task;

use crate::{
    cli::{
        Exit, Failure,
        run::{self, Running, Start},
    },
    config::{self, Overrides, settled::Address},
};

/// A running Oncegate before an API.
pub(super) struct Front {
    /// Where clients connect.
    pub(super) address: SocketAddr,
    running: Running,
    token: TokenFile,
}

impl Front {
    /// Puts Oncegate before the API.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(super) async fn start(api: SocketAddr) -> Result<Self, Failure> {
        let token = TokenFile::new().map_err(|error| broken("the file of its admin token", error))?;
        let text = configuration(api, &token);
        let loaded = config::parse("demo.toml", &text, &Overrides::default(), &|_| None).map_err(|errors| {
            broken(
                "its own configuration",
                errors.iter().map(config::Diagnostic::summary).collect::<Vec<_>>().join("; "),
            )
        })?;
        let start = Start { loaded, source: None, signals: false };
        let running = task::spawn_blocking(|| run::start(start)).await.expect("starting does not panic")?;
        match running.data {
            Address::Tcp(address) => Ok(Self { address, running, token }),
            Address::Unix(_) => unreachable!("the configuration says TCP"),
        }
    }

    /// Where operators connect.
    pub(super) fn admin(&self) -> &Address {
        &self.running.admin
    }

    /// The file of their token.
    pub(super) fn token_file(&self) -> &Path {
        &self.token.path
    }

    /// Drains it, and waits for its end.
    pub(super) async fn stop(self) {
        let Self { address: _, running, token } = self;
        running.stop();
        // How many exchanges were left is no matter here: all clients have ended.
        let _ = task::spawn_blocking(|| running.wait()).await;
        drop(token);
    }
}

fn broken(what: &str, why: impl ToString) -> Failure {
    Failure::new(Exit::Failure, format!("the demo's Oncegate cannot start: {what}"), why.to_string(), "")
}

fn configuration(api: SocketAddr, token: &TokenFile) -> String {
    format!(
        r#"
        [server]
        listen = "127.0.0.1:0"

        [admin]
        listen = "127.0.0.1:0"
        token_file = {token:?}

        [log]
        level = "error"
        access = false

        [upstreams.payments]
        url = "http://{api}"

        [defaults]
        scope = ["header:authorization"]

        [[routes]]
        name = "charges"
        path = "/v1/charges"
        "#,
        token = token.path,
    )
}

/// A token that was drawn for this process, in a directory that nobody else can enter; removed when dropped.
struct TokenFile {
    dir: PathBuf,
    path: PathBuf,
}

impl TokenFile {
    fn new() -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("oncegate-demo-{:08x}", getrandom::u32()?));
        DirBuilder::new().mode(0o700).create(&dir)?;
        let file = Self { path: dir.join("token"), dir };
        let token = format!("{:016x}{:016x}\n", getrandom::u64()?, getrandom::u64()?);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file.path)?.write_all(token.as_bytes())?;
        Ok(file)
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        // Of a temporary directory there is nothing more to say.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
