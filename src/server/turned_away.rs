//! Connections that are closed before any request on them is looked at: why, and one log line for many of them.

use std::{fmt, net::SocketAddr};

use crate::clock::Sparing;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal $detail:literal $answer:literal;)+) => {
        /// Why a connection is closed unheard: a value of the `reason` label of `refused_total`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum TurnedAway {
            $($(#[doc = $doc])+ $name,)+
        }

        impl TurnedAway {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            const fn row(self) -> (&'static str, &'static str, &'static str) {
                match self {
                    $(Self::$name => ($label, $detail, $answer),)+
                }
            }
        }
    };
}

reasons! {
    /// `max_connections` are open.
    MaxConnections = "max-connections" "`max_connections` are open" "503 and close; within TLS, close";
    /// Its address, or its IPv6 network of 64 bits, has `max_connections_per_address` open.
    MaxConnectionsPerAddress = "max-connections-per-address" "its address has `max_connections_per_address` open"
        "503 and close; within TLS, close";
    /// It had to begin with a PROXY header, and did not, or not in time.
    ProxyHeader = "proxy-header" "it has no PROXY header" "close";
    /// Its TLS handshake failed, or took longer than `header_timeout`; not when the client just left.
    TlsHandshake = "tls-handshake" "its TLS handshake failed" "a TLS alert, and close";
}

impl TurnedAway {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// What happened, in words.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        self.row().1
    }

    /// What becomes of the connection, in words.
    #[must_use]
    pub const fn answer(self) -> &'static str {
        self.row().2
    }
}

/// Tells of connections that were turned away: each reason has log lines of its own, and few of them.
#[derive(Debug, Default)]
pub(super) struct Teller([Sparing; TurnedAway::ALL.len()]);

impl Teller {
    /// Writes a line, or counts one that would come too soon after the last.
    pub(super) fn tell(&self, why: TurnedAway, peer: Option<SocketAddr>, detail: &dyn fmt::Display) {
        let Some(untold) = self.0[why as usize].turn() else { return };
        let peer = peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string());
        tracing::warn!(reason = why.as_str(), peer, untold, "a connection was turned away: {detail}");
    }
}
