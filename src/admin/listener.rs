//! The admin socket.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net as unix,
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};

use super::access::Peer;
use crate::config::settled::Address;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

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
                let (file, listener) = bind_unix(path)?;
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

fn bind_unix(path: &Path) -> io::Result<(SocketFile, unix::UnixListener)> {
    match bind_unix_once(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            fs::remove_file(path)?;
            bind_unix_once(path)
        }
        bound => bound,
    }
}

fn bind_unix_once(path: &Path) -> io::Result<(SocketFile, unix::UnixListener)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::at(path)?;
    // Before it listens nobody can connect: there is no moment in which the socket is open to others.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok((file, socket.into()))
}

/// A socket's file, removed with its socket: left behind, it would name a server that is no more.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: which file it is, whatever is at the path by now.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: Self::identity(path)? })
    }

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // In a rolling restart the successor's socket may be there already.
        if Self::identity(&self.path).is_ok_and(|found| found == self.identity) {
            // One that cannot be removed is replaced by whoever binds next.
            _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket's file outlives its process. Only one that refuses connections may be replaced: neither another server's,
/// nor a file that is no socket.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && unix::UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
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
    use super::*;

    #[test]
    fn a_unix_socket_is_its_owners_and_replaces_only_an_abandoned_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let address = Address::Unix(path.clone());
        let first = Listener::bind(&address).unwrap();
        assert_eq!(first.local(), address);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Listener::bind(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(unix::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a process that was killed leaves its socket");
        drop(Listener::bind(&address).unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&address).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_unix_socket_goes_with_its_listener_unless_it_is_a_successors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let address = Address::Unix(path.clone());
        drop(Listener::bind(&address).unwrap());
        assert!(!path.exists());
        let first = Listener::bind(&address).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = Listener::bind(&address).unwrap();
        drop(first);
        assert!(unix::UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn the_port_that_was_drawn_is_told_and_is_taken() {
        let first = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
        let Address::Tcp(address) = first.local() else { panic!("a TCP socket") };
        assert_ne!(address.port(), 0);
        assert_eq!(Listener::bind(&first.local()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
