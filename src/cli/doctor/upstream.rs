//! Whether the upstreams can be reached.

use std::io;

use tokio::net::{TcpStream, UnixStream};

use super::Report;
use crate::{
    clock,
    config::settled::{Upstream, UpstreamTarget},
};

/// Connects to every URL of an upstream as a request would, within `connect_timeout`.
pub(super) async fn examine(upstream: &Upstream, report: &mut Report) {
    let subject = format!("upstream {}", upstream.name);
    for url in &upstream.urls {
        let begun = clock::now();
        let (place, connected) = match &url.target {
            UpstreamTarget::Tcp(host, port) => {
                let connected = within(upstream, TcpStream::connect((host.as_str(), *port))).await.map(drop);
                (if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }, connected)
            }
            UpstreamTarget::Unix(path) => {
                let connected = within(upstream, UnixStream::connect(path)).await.map(drop);
                (format!("unix:{}", path.display()), connected)
            }
        };
        let milliseconds = begun.elapsed().as_secs_f64() * 1_000.0;
        let tls = if url.tls { "; its certificate was not looked at" } else { "" };
        match connected {
            Ok(()) => report.ok(&subject, format!("{place} takes connections ({milliseconds:.1} ms){tls}")),
            Err(error) => report.failure(&subject, format!("{place}: {error}"), remedy(&error)),
        }
    }
}

async fn within<T>(upstream: &Upstream, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let limit = upstream.connect_timeout;
    tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within connect_timeout ({limit:?})")))
    })
}

fn remedy(error: &io::Error) -> &'static str {
    const REMEDIES: [(io::ErrorKind, &str); 4] = [
        (io::ErrorKind::ConnectionRefused, "start it, or mend the port in its url"),
        (io::ErrorKind::TimedOut, "look for a firewall between here and there, or raise connect_timeout"),
        (io::ErrorKind::NotFound, "start it, or mend the path in its url"),
        (io::ErrorKind::PermissionDenied, "let this user connect to it"),
    ];
    // What is left are failed name look-ups, in the main.
    let other = "mend the host in its url, or the name service of this machine";
    REMEDIES.iter().find(|(kind, _)| *kind == error.kind()).map_or(other, |(_, remedy)| remedy)
}
