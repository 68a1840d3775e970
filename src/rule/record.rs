//! What is known of a key: ids, fingerprints, versions, and the record's three states.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

/// Names a record: keyed BLAKE3-256 of authority, scope, route id and key (contract: R-5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub [u8; 32]);

impl RecordId {
    /// The first 16 hex digits: what problems, logs and operators quote.
    #[must_use]
    pub fn short(&self) -> ShortId {
        let mut short = [0; 8];
        short.copy_from_slice(&self.0[..8]);
        ShortId(short)
    }
}

/// The first 8 bytes of a [`RecordId`], shown as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortId(pub [u8; 8]);

/// Tells a retry from a misuse of the key: BLAKE3-256 over the route's parts (contract: R-6).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Names one write of a record. Drawn at random by the writer, never counted: a counter restarts when a key is freed,
/// and a writer whose reply was lost recognises its own write by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(pub [u8; 16]);

macro_rules! hex {
    ($($name:ident: $bytes:literal),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                let digits = text.as_bytes();
                if digits.len() != 2 * $bytes {
                    return Err(NotHex { digits: 2 * $bytes });
                }
                let mut bytes = [0; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    let high = (pair[0] as char).to_digit(16).ok_or(NotHex { digits: 2 * $bytes })?;
                    let low = (pair[1] as char).to_digit(16).ok_or(NotHex { digits: 2 * $bytes })?;
                    *byte = u8::try_from(high << 4 | low).expect("two hex digits fit a byte");
                }
                Ok(Self(bytes))
            }
        }
    )*};
}

hex!(RecordId: 32, ShortId: 8, Fingerprint: 32, Version: 16);

/// A text that should have been a number of hex digits and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {digits} hex digits")]
pub struct NotHex {
    digits: usize,
}

/// The name of a route, as metrics, logs and records show it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(pub Arc<str>);

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a key. No record: never seen, freed, or forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<R> {
    /// An owner holds the key; the upstream may have acted.
    InFlight {
        /// Of the request that is under way.
        fingerprint: Fingerprint,
        /// How long the owner may stay silent before the record reads as unknown.
        lease: Duration,
        /// How long the owner had been at work when it wrote this.
        running: Duration,
    },
    /// The request was executed.
    Completed {
        /// Of the request that was executed.
        fingerprint: Fingerprint,
        /// What is kept of its answer.
        response: R,
    },
    /// Nobody can say whether the request was executed.
    Unknown {
        /// Of the request that was sent.
        fingerprint: Fingerprint,
        /// Why nobody can say.
        reason: UnknownReason,
        /// The status of an answer that tells nothing (`unknown_on`).
        status: Option<u16>,
    },
}

impl<R> Record<R> {
    /// Of the request this record is about.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::InFlight { fingerprint, .. }
            | Self::Completed { fingerprint, .. }
            | Self::Unknown { fingerprint, .. } => *fingerprint,
        }
    }
}

/// Why a record is `unknown`; the `reason` label of metrics and the member of the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnknownReason {
    /// The connection to the upstream broke, or its answer was not valid.
    Lost,
    /// `outcome_timeout` passed.
    TimedOut,
    /// An answer came that cannot tell (`unknown_on`).
    Answered,
    /// The owner's lease lapsed.
    Lapsed,
    /// The drain ended before the exchange did.
    Drained,
}

impl UnknownReason {
    /// Every reason, in the order of the contract.
    pub const ALL: [Self; 5] = [Self::Lost, Self::TimedOut, Self::Answered, Self::Lapsed, Self::Drained];

    /// The word used in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::TimedOut => "timed_out",
            Self::Answered => "answered",
            Self::Lapsed => "lapsed",
            Self::Drained => "drained",
        }
    }
}

/// A record as the store returned it. Ages are by the store's own clock (contract: R-22).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell<R> {
    /// Which write this is.
    pub version: Version,
    /// Time since that write.
    pub age: Duration,
    /// Time until the store forgets the record.
    pub left: Duration,
    /// The route whose request wrote it.
    pub route: RouteName,
    /// The record.
    pub record: Record<R>,
}

/// What a swap must find in the store for it to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No record.
    Absent,
    /// The record as this write left it.
    Version(Version),
}
