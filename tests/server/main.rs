//! The downstream side over real sockets: a server with an echoing handler, and raw clients.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod age;
mod corpus;
mod deadlines;
#[cfg(target_os = "linux")]
mod descriptors;
mod endings;
mod framing;
mod harness;
mod http2;
mod proxy_protocol;
mod tls;
mod tunnels;
