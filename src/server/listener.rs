//! A bound socket, shared by the workers.

use std::{io, net::SocketAddr, os::unix::net as unix, path::Path, sync::Arc};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    stream::Stream,
    unix_socket::{self, SocketFile},
};
use crate::{config::settled::Address, tcp};

/// Connections that the kernel completes and queues before we accept them; `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

/// A bound, listening socket. Clones accept from the same queue, so no connection is lost when one worker ends.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
}

#[derive(Debug)]
enum Bound {
    Tcp(std::net::TcpListener),
    /// The file goes with the last clone.
    Unix(Arc<SocketFile>, unix::UnixListener),
}

impl Listener {
    /// Binds and listens. `SO_REUSEADDR` is set, so that a restart need not wait for old connections to be forgotten;
    /// `SO_REUSEPORT` is not, so that a second process on the same port is an error and no queue dies with a worker.
    ///
    /// A Unix socket that nobody listens on any more is replaced. Its file goes when the last clone does.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `listen`: the address is taken, is not ours, or needs a privilege.
    pub fn bind(address: &Address) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => Bound::Tcp(bind_tcp(*address)?),
            Address::Unix(path) => {
                let (file, listener) = unix_socket::bind(path, None, BACKLOG)?;
                Bound::Unix(Arc::new(file), listener)
            }
        };
        Ok(Self { socket })
    }

    /// Where clients connect: with the port that the system chose, if the configured one was 0.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn local(&self) -> io::Result<Address> {
        match &self.socket {
            Bound::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Bound::Unix(_, listener) => {
                let address = listener.local_addr()?;
                Ok(Address::Unix(address.as_pathname().unwrap_or_else(|| Path::new("")).to_owned()))
            }
        }
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let socket = match &self.socket {
            Bound::Tcp(listener) => Bound::Tcp(listener.try_clone()?),
            Bound::Unix(file, listener) => Bound::Unix(Arc::clone(file), listener.try_clone()?),
        };
        Ok(Self { socket })
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

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    tcp::keep_alive(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listening socket within a runtime.
pub(super) enum Registered {
    Tcp(tokio::net::TcpListener),
    Unix {
        /// First, so that it goes before connections are refused.
        _file: Arc<SocketFile>,
        listener: tokio::net::UnixListener,
    },
}

impl Registered {
    /// # Cancel safety
    /// No connection is lost when the future is dropped.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| Stream::tcp(stream, peer)),
            Self::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Stream::unix(stream)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_an_error() {
        let first = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
        let second = Listener::bind(&first.local().unwrap());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_file_of_a_unix_socket_goes_with_the_last_worker() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = Listener::bind(&Address::Unix(path.clone())).unwrap();
        assert_eq!(first.local().unwrap(), Address::Unix(path.clone()));
        let second = first.try_clone().unwrap();
        drop(first);
        assert!(unix::UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }
}
