//! How sending ends without an answer: proven unsent, or lost.

use std::{error::Error, io, path::PathBuf};

use super::screen::Untrusted;

/// Why there is no answer. The two variants are what a caller may do: a request that was never sent may be sent by
/// anybody; of a lost one nobody can say whether it was executed (contract: R-11).
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Proven: no byte of the request was handed to a connection, or HTTP/2 said that the stream was not processed.
    #[error("the request was not sent")]
    NeverSent(#[source] Unsent),
    /// Sent, or perhaps sent.
    #[error("the exchange was lost")]
    Lost(#[source] LostHow),
}

/// The proof that nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unsent {
    /// The upstream's name has no address.
    #[error("the name could not be looked up")]
    NameLookup(#[source] io::Error),
    /// Refused, unreachable, no such socket.
    #[error("no connection could be made")]
    Connect(#[source] io::Error),
    /// Look-up, connecting and TLS handshake together took longer than `connect_timeout`.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The TLS handshake failed.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// No connection became free within `queue_timeout`.
    #[error("no connection became free in time")]
    QueueTimeout,
    /// HTTP/2 REFUSED_STREAM, or a stream above GOAWAY's last id (RFC 9113 s8.7).
    #[error("the upstream refused the stream unprocessed")]
    Refused(#[source] hyper::Error),
    /// The request's own body failed before a byte of the request was handed to the connection.
    #[error("the request's body broke off before anything was written")]
    RequestBody(#[source] hyper::Error),
    /// The connection ended before a byte of the request was handed to it.
    #[error("the connection ended before anything was written")]
    Closed(#[source] hyper::Error),
}

impl Unsent {
    /// Whether connecting, rather than being answered, took too long: 504 in place of 502 (contract: R-12).
    #[must_use]
    pub fn is_connect_timeout(&self) -> bool {
        match self {
            Self::ConnectTimeout => true,
            Self::NameLookup(_)
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::QueueTimeout
            | Self::Refused(_)
            | Self::RequestBody(_)
            | Self::Closed(_) => false,
        }
    }
}

impl From<hyper::Error> for Unsent {
    fn from(error: hyper::Error) -> Self {
        if error.is_user() { Self::RequestBody(error) } else { Self::Closed(error) }
    }
}

/// How an exchange was lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LostHow {
    /// The connection broke before the answer's head.
    #[error("the connection broke before an answer")]
    Broken(#[source] hyper::Error),
    /// What came back was not HTTP.
    #[error("the answer was not valid HTTP")]
    Malformed(#[source] hyper::Error),
    /// The request's own body failed while it was being sent.
    #[error("the request's body broke off while it was sent")]
    RequestBody(#[source] hyper::Error),
}

impl From<hyper::Error> for LostHow {
    fn from(error: hyper::Error) -> Self {
        if error.is_user() {
            Self::RequestBody(error)
        } else if is_malformed(&error) {
            Self::Malformed(error)
        } else {
            Self::Broken(error)
        }
    }
}

/// Whether what came back was refused, by hyper or before it.
pub(super) fn is_malformed(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.is_parse() || io.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<Untrusted>())
}

/// An answer's body broke off: what was read of it is no whole answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerBroken {
    /// Its connection broke, or its framing is broken.
    #[error("the upstream's answer broke off")]
    Broken(#[from] hyper::Error),
    /// Its HTTP/2 stream ended before it did, without an error.
    #[error("the upstream's answer was cut off")]
    Cut,
}

/// Why an upstream cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file named under `tls` cannot be read.
    #[error("upstream {upstream}: cannot read {}", path.display())]
    File {
        /// Whose.
        upstream: String,
        /// Which.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// A file named under `tls` holds no certificate.
    #[error("upstream {upstream}: {} holds no certificate", path.display())]
    NoCertificate {
        /// Whose.
        upstream: String,
        /// Which.
        path: PathBuf,
    },
    /// The certificates or the key do not fit.
    #[error("upstream {upstream}: its TLS settings cannot be used")]
    Tls {
        /// Whose.
        upstream: String,
        /// Why.
        source: rustls::Error,
    },
    /// A name that no certificate can have.
    #[error("upstream {upstream}: {name:?} is no server name")]
    ServerName {
        /// Whose.
        upstream: String,
        /// What was given.
        name: String,
    },
}
