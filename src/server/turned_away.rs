//! Connections that are closed before any request on them is looked at: why, and one log line for many of them.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::clock::{self, Instant};

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

/// Between two log lines for one reason: connections can be opened faster than lines are of use.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Tells of connections that were turned away.
#[derive(Debug, Default)]
pub(super) struct Teller([Mutex<Told>; TurnedAway::ALL.len()]);

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    untold: u64,
}

impl Teller {
    /// Writes a line, or counts one that would come too soon after the last.
    pub(super) fn tell(&self, why: TurnedAway, peer: Option<SocketAddr>, detail: &dyn fmt::Display) {
        let Some(untold) = self.turn(why) else { return };
        let peer = peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string());
        tracing::warn!(reason = why.as_str(), peer, untold, "a connection was turned away: {detail}");
    }

    /// How many went untold, when it is time for a line.
    fn turn(&self, why: TurnedAway) -> Option<u64> {
        let now = clock::now();
        let mut told = self.0[why as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_some_and(|at| now - at < TELL_AFTER) {
            told.untold += 1;
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_of_a_kind_are_one_line() {
        let teller = Teller::default();
        assert_eq!(teller.turn(TurnedAway::ProxyHeader), Some(0));
        assert_eq!(teller.turn(TurnedAway::ProxyHeader), None);
        assert_eq!(teller.turn(TurnedAway::ProxyHeader), None);
        assert_eq!(teller.turn(TurnedAway::MaxConnections), Some(0), "another reason has a line of its own");
        tokio::time::advance(TELL_AFTER).await;
        assert_eq!(teller.turn(TurnedAway::ProxyHeader), Some(2));
        assert_eq!(teller.turn(TurnedAway::ProxyHeader), None);
    }
}
