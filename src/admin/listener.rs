//! The admin socket.

use std::{io, os::unix::net as unix};

use tokio::io::{AsyncRead, AsyncWrite};

use super::access::Peer;
use crate::{
    config::settled::Address,
    server::unix_socket::{self, SocketFile},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A Unix socket is its owner's alone: who may connect may do everything.
const MODE: u32 = 0o600;

/// A bound admin socket, before it is served.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    local: Address,
}

#[derive(Debug)]
enum Bound {
    Tcp(std::net::TcpListener),
    Unix(SocketFile, unix::UnixListener),
}

impl Listener {
    /// Binds. A Unix socket is for its owner alone; one that nobody listens on any more is replaced. Its file goes when
    /// the listener does.
    ///
    /// # Errors
    ///
    /// The address is taken, not of this machine, or not to be had by this user.
    pub fn bind(address: &Address) -> io::Result<Self> {
        let (socket, local) = match address {
            Address::Tcp(address) => {
                // The standard library sets SO_REUSEADDR, so that a restart does not wait for old connections.
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let local = Address::Tcp(listener.local_addr()?);
                (Bound::Tcp(listener), local)
            }
            Address::Unix(path) => {
                let (file, listener) = unix_socket::bind(path, Some(MODE), BACKLOG)?;
                (Bound::Unix(file, listener), address.clone())
            }
        };
        Ok(Self { socket, local })
    }

    /// Where it listens: the port that was drawn for port 0.
    #[must_use]
    pub fn local(&self) -> Address {
        self.local.clone()
    }

    /// Hands the socket to the runtime that this is called in.
    pub(super) fn register(self) -> io::Result<Registered> {
        match self.socket {
            Bound::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Registered::Tcp),
            Bound::Unix(file, listener) => {
                tokio::net::UnixListener::from_std(listener).map(|listener| Registered::Unix { _file: file, listener })
            }
        }
    }
}

/// The socket within a runtime.
pub(super) enum Registered {
    Tcp(tokio::net::TcpListener),
    Unix {
        /// First, so that it goes before connections are refused.
        _file: SocketFile,
        listener: tokio::net::UnixListener,
    },
}

/// A connection's bytes, whatever carries them.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

impl Registered {
    /// # Cancel safety
    ///
    /// No connection is lost when the future is dropped.
    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Wire>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are written whole; without this the last segment may wait for an acknowledgement.
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), Peer::Tcp(peer)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), Peer::Unix))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_unix_socket_is_its_owners() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let address = Address::Unix(path.clone());
        let listener = Listener::bind(&address).unwrap();
        assert_eq!(listener.local(), address);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
    }

    #[test]
    fn the_port_that_was_drawn_is_told_and_is_taken() {
        let first = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
        let Address::Tcp(address) = first.local() else { panic!("a TCP socket") };
        assert_ne!(address.port(), 0);
        assert_eq!(Listener::bind(&first.local()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
