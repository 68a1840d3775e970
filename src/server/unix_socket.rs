//! A Unix socket and its file, which the system leaves behind when the socket goes.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Binds and listens, for who may write to the file: the given mode, or what the process's mask leaves. A socket that
/// nobody listens on any more is replaced.
///
/// # Errors
///
/// The path is taken, or not to be had by this user.
pub(crate) fn bind(path: &Path, mode: Option<u32>, backlog: i32) -> io::Result<(SocketFile, UnixListener)> {
    match bind_once(path, mode, backlog) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            fs::remove_file(path)?;
            bind_once(path, mode, backlog)
        }
        bound => bound,
    }
}

fn bind_once(path: &Path, mode: Option<u32>, backlog: i32) -> io::Result<(SocketFile, UnixListener)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::at(path)?;
    if let Some(mode) = mode {
        // Before it listens nobody can connect: there is no moment in which the socket is open to others.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(backlog)?;
    Ok((file, socket.into()))
}

/// A socket's file, removed with its socket: left behind, it would name a server that is no more.
#[derive(Debug)]
pub(crate) struct SocketFile {
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
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_abandoned_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = bind(&path, None, 1).unwrap();
        assert_eq!(bind(&path, None, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a process that was killed leaves its socket");
        drop(bind(&path, None, 1).unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(bind(&path, None, 1).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_socket_goes_with_its_listener_unless_it_is_a_successors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(bind(&path, None, 1).unwrap());
        assert!(!path.exists());
        let first = bind(&path, None, 1).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = bind(&path, None, 1).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
    }
}
