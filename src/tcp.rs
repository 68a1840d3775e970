//! What is asked of every TCP connection, on either side. A leaf.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// A connection that was silent for so long is asked whether its other end is still there,
const ASK_AFTER: Duration = Duration::from_secs(60);
/// again and again,
const ASK_EVERY: Duration = Duration::from_secs(15);
/// so many times, before it is taken to be gone.
const ASK_TIMES: u32 = 4;

/// Has the system notice an other end that is gone without a word: a machine that lost its power, a gateway that forgot
/// the connection. Tunnels may be silent for as long as they like, and nothing else would tell. Accepted connections
/// inherit it from their listener.
///
/// # Errors
///
/// Those of `setsockopt`.
pub fn keep_alive<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_EVERY).with_retries(ASK_TIMES);
    socket.into().set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_is_accepted_is_kept_alive_as_its_listener_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        keep_alive(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), ASK_AFTER);
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), ASK_EVERY);
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), ASK_TIMES);
    }
}
