//! A bound socket, shared by the workers.

use std::{io, net::SocketAddr, os::unix::net as unix, path::Path};

use socket2::{Domain, Protocol, Socket, Type};

use super::stream::Stream;
use crate::config::settled::Address;

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
    Unix(unix::UnixListener),
}

impl Listener {
    /// Binds and listens. `SO_REUSEADDR` is set, so that a restart need not wait for old connections to be forgotten;
    /// `SO_REUSEPORT` is not, so that a second process on the same port is an error and no queue dies with a worker.
    ///
    /// A Unix socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `listen`: the address is taken, is not ours, or needs a privilege.
    pub fn bind(address: &Address) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => Bound::Tcp(bind_tcp(*address)?),
            Address::Unix(path) => Bound::Unix(bind_unix(path)?),
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
            Bound::Unix(listener) => {
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
            Bound::Unix(listener) => Bound::Unix(listener.try_clone()?),
        };
        Ok(Self { socket })
    }

    /// Hands the socket to the runtime that this is called in.
    pub(super) fn register(self) -> io::Result<Registered> {
        match self.socket {
            Bound::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Registered::Tcp),
            Bound::Unix(listener) => tokio::net::UnixListener::from_std(listener).map(Registered::Unix),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<unix::UnixListener> {
    let bound = bind_unix_once(path);
    let taken = bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    if taken && is_abandoned(path) {
        std::fs::remove_file(path)?;
        return bind_unix_once(path);
    }
    bound
}

fn bind_unix_once(path: &Path) -> io::Result<unix::UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket's file outlives its process. Only one that refuses connections may be replaced: neither another server's,
/// nor a file that is no socket.
fn is_abandoned(path: &Path) -> bool {
    unix::UnixStream::connect(path).is_err_and(|error| {
        error.kind() == io::ErrorKind::ConnectionRefused
            && std::fs::symlink_metadata(path)
                .is_ok_and(|file| std::os::unix::fs::FileTypeExt::is_socket(&file.file_type()))
    })
}

/// A listening socket within a runtime.
pub(super) enum Registered {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Registered {
    /// # Cancel safety
    /// No connection is lost when the future is dropped.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| Stream::tcp(stream, peer)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::unix(stream)),
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
    fn an_abandoned_unix_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::Unix(directory.path().join("socket"));
        let first = Listener::bind(&address).unwrap();
        assert_eq!(first.local().unwrap(), address);
        assert_eq!(Listener::bind(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        Listener::bind(&address).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&Address::Unix(path.clone())).is_err());
        assert_eq!(std::fs::read(path).unwrap(), b"precious");
    }
}
