//! Who calls, and whether they may.

use std::{fmt, net::SocketAddr, path::Path};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use subtle::ConstantTimeEq as _;

use super::answer::Problem;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// An address, which anybody may have.
    Tcp(SocketAddr),
    /// The Unix socket, which only its owner may open.
    Unix,
}

/// Who makes a change, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    peer: Peer,
    /// The name of the file whose token was shown; never the token.
    token: Option<String>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.peer, &self.token) {
            (Peer::Unix, _) => f.write_str("unix"),
            (Peer::Tcp(address), Some(token)) => write!(f, "{token}@{address}"),
            (Peer::Tcp(address), None) => write!(f, "{address}"),
        }
    }
}

impl Caller {
    /// Somebody who asks for what is open to all.
    pub(super) fn anybody(peer: Peer) -> Self {
        Self { peer, token: None }
    }

    /// Lets in who shows the token, or comes by the Unix socket.
    ///
    /// # Errors
    ///
    /// 403 where no token is configured, 401 without the right one, 503 when it cannot be read.
    pub(super) async fn admit(peer: Peer, headers: &HeaderMap, token_file: Option<&Path>) -> Result<Self, Problem> {
        let file = match (peer, token_file) {
            (Peer::Unix, _) => return Ok(Self::anybody(peer)),
            (Peer::Tcp(_), Some(file)) => file,
            (Peer::Tcp(_), None) => {
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "No token is configured: set token_file under [admin], or listen on a unix: address.",
                ));
            }
        };
        let token = match tokio::fs::read(file).await {
            Ok(bytes) => bytes.trim_ascii().to_vec(),
            Err(error) => return Err(unreadable(file, &error.to_string())),
        };
        if token.is_empty() {
            return Err(unreadable(file, "it is empty"));
        }
        let shown = bearer(headers).ok_or_else(|| unauthorized("This needs the operators' token."))?;
        if bool::from(shown.ct_eq(&token)) {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
            Ok(Self { peer, token: name })
        } else {
            Err(unauthorized("This is not the operators' token."))
        }
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750 s2.1); the scheme in any case (RFC 9110 s11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (scheme, token) = line.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn unauthorized(detail: &str) -> Problem {
    let challenge = HeaderValue::from_static("Bearer realm=\"oncegate\"");
    Problem::new(StatusCode::UNAUTHORIZED, detail).field(header::WWW_AUTHENTICATE, challenge)
}

fn unreadable(file: &Path, why: &str) -> Problem {
    tracing::error!(file = %file.display(), why, "the admin token cannot be read: operators are turned away");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The operators' token cannot be read; the log says why.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Peer = Peer::Tcp(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7));

    async fn admit(file: &Path, authorization: &[&str]) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        for line in authorization {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(line).unwrap());
        }
        let admitted = Caller::admit(PEER, &headers, Some(file)).await;
        admitted.map(|caller| caller.to_string()).map_err(|problem| problem.into_response().status().as_u16())
    }

    #[tokio::test]
    async fn only_the_whole_token_is_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("night-shift");
        std::fs::write(&file, "s3cret\n").unwrap();
        for right in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret"] {
            assert_eq!(admit(&file, &[right]).await, Ok("night-shift@127.0.0.1:7".to_owned()), "{right}");
        }
        for wrong in ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret"] {
            assert_eq!(admit(&file, &[wrong]).await, Err(401), "{wrong}");
        }
        assert_eq!(admit(&file, &[]).await, Err(401));
        assert_eq!(admit(&file, &["Bearer s3cret", "Bearer s3cret"]).await, Err(401));
    }

    #[tokio::test]
    async fn a_new_token_holds_at_once_and_an_empty_one_lets_nobody_in() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        assert_eq!(admit(&file, &["Bearer "]).await, Err(503));
        std::fs::write(&file, " \n").unwrap();
        assert_eq!(admit(&file, &["Bearer "]).await, Err(503));
        std::fs::write(&file, "one").unwrap();
        assert!(admit(&file, &["Bearer one"]).await.is_ok());
        std::fs::write(&file, "two").unwrap();
        assert_eq!(admit(&file, &["Bearer one"]).await, Err(401));
        assert!(admit(&file, &["Bearer two"]).await.is_ok());
    }
}
