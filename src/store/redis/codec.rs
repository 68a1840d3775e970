//! How a record lies in Redis (contract: S-6).
//!
//! | bytes | what |
//! | --- | --- |
//! | 16 | version |
//! | 4 | replays, which are counted in place and are covered by no check |
//! | 1 | format |
//! | | header: flags 1, state 1, keep 8 (ms), lease 8 (ms), running 8 (ms), reason 1, status 2, body 4, name's length 2, name |
//! | 8 | check of the header |
//! | | payload: fingerprint 32, and of a completed record the answer ([`Stored`]'s bytes); or these, sealed |
//! | 8 | check of everything |
//!
//! Integers are big-endian. A check is the beginning of a BLAKE3 hash over the record's id, too: a value that was moved to
//! another record is no record. The header is plain, so that listings read the first [`PEEK`] bytes only.

#[cfg(any(test, fuzzing))]
mod properties;

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};

#[cfg(any(test, fuzzing))]
pub(crate) use self::properties::hold;
use super::seal::Seals;
use crate::{
    config::secrets::Secrets,
    rule::{Cell, Fingerprint, Record, RecordId, RouteName, Stored, UnknownReason, Version},
    store::{State, Write},
};

/// Bytes of a value that hold its header, if its route's name is no longer than [`NAME_PEEKED`].
pub(super) const PEEK: usize = VERSION + REPLAYS + 1 + FIXED + NAME_PEEKED + CHECK;
/// Longer names are refused in the configuration.
const NAME_PEEKED: usize = 256;

const FORMAT: u8 = 1;
const VERSION: usize = 16;
const REPLAYS: usize = 4;
/// The header less the name.
const FIXED: usize = 1 + 1 + 8 + 8 + 8 + 1 + 2 + 4 + 2;
const CHECK: usize = 8;
const FINGERPRINT: usize = 32;
/// Where the format stands.
const BEGIN: usize = VERSION + REPLAYS;

const SEALED: u8 = 1;
const KEPT: u8 = 2;

/// Turns records into bytes and back.
#[derive(Debug)]
pub(super) struct Codec {
    seals: Option<Seals>,
}

/// Why a value is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damaged {
    /// It is too short, or says what no record says.
    #[error("it is not a record of Oncegate's")]
    Foreign,
    /// Another Oncegate wrote it.
    #[error("it is of format {0}, which a newer Oncegate writes")]
    NewerFormat(u8),
    /// Bytes were changed, or it is another record's.
    #[error("its checksum does not fit")]
    Checksum,
    /// It cannot be opened.
    #[error("it is sealed, and no secret of store.secret_file opens it")]
    Sealed,
}

/// A record, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) version: Version,
    pub(super) replays: u32,
    /// How long it was to be kept when it was written.
    pub(super) keep: Duration,
    pub(super) route: RouteName,
    pub(super) record: Record<Stored>,
}

/// What stands in a value's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) version: Version,
    /// How long it was to be kept when it was written.
    pub(super) keep: Duration,
    pub(super) route: RouteName,
    pub(super) written: Written,
    /// Of the answer; 0 where there is none.
    status: u16,
}

/// The state that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    InFlight { lease: Duration },
    Completed,
    Unknown { reason: UnknownReason },
}

impl Summary {
    /// The owner's lease, where there is an owner.
    pub(super) fn lease(&self) -> Option<Duration> {
        match self.written {
            Written::InFlight { lease } => Some(lease),
            Written::Completed | Written::Unknown { .. } => None,
        }
    }

    /// Since it was written, of a record that is kept for so long yet.
    pub(super) fn age(&self, left: Duration) -> Duration {
        self.keep.saturating_sub(left)
    }

    /// Whether the lease of an owner is over.
    pub(super) fn has_lapsed(&self, left: Duration) -> bool {
        self.lease().is_some_and(|lease| self.age(left) >= lease)
    }

    /// What is known of a record whose payload cannot be read: neither fingerprint nor answer.
    pub(super) fn without_payload(self, left: Duration) -> Cell<Stored> {
        let age = self.age(left);
        let Self { version, keep: _, route, written, status } = self;
        let fingerprint = Fingerprint([0; FINGERPRINT]);
        let record = match written {
            Written::InFlight { lease } => Record::InFlight { fingerprint, lease, running: Duration::ZERO },
            Written::Completed => {
                Record::Completed { fingerprint, response: Stored::not_kept(status, &http::HeaderMap::new()) }
            }
            Written::Unknown { reason } => {
                Record::Unknown { fingerprint, reason, status: (status != 0).then_some(status) }
            }
        };
        Cell { version, age, left, route, record }
    }

    /// The state that it reads as at this age (contract: R-18).
    pub(super) fn state(&self, age: Duration) -> State {
        match self.written {
            Written::InFlight { lease } if age < lease => State::InFlight,
            Written::InFlight { .. } | Written::Unknown { .. } => State::Unknown,
            Written::Completed => State::Completed,
        }
    }
}

/// The header as it stands.
struct Header {
    flags: u8,
    state: u8,
    keep: Duration,
    lease: Duration,
    running: Duration,
    reason: u8,
    status: u16,
    route: RouteName,
    /// Where its check begins.
    end: usize,
}

const IN_FLIGHT: u8 = 0;
const COMPLETED: u8 = 1;
const UNKNOWN: u8 = 2;

impl Codec {
    /// Writes records in the clear.
    pub(super) fn plain() -> Self {
        Self { seals: None }
    }

    /// Seals what it writes by the first of these secrets, and opens by all; what is in the clear is read as well.
    pub(super) fn sealed(secrets: &Secrets) -> Self {
        Self { seals: Some(Seals::new(secrets)) }
    }

    /// A value that was never replayed.
    pub(super) fn encode(&self, id: &RecordId, version: Version, write: &Write) -> Vec<u8> {
        let nothing = Bytes::new();
        let (state, lease, running, reason, status, answer) = match &write.record {
            Record::InFlight { lease, running, .. } => (IN_FLIGHT, *lease, *running, 0, 0, &nothing),
            Record::Completed { response, .. } => {
                (COMPLETED, Duration::ZERO, Duration::ZERO, 0, response.status(), response.as_bytes())
            }
            Record::Unknown { reason, status, .. } => {
                (UNKNOWN, Duration::ZERO, Duration::ZERO, number(*reason), status.unwrap_or(0), &nothing)
            }
        };
        let (kept, body) = match &write.record {
            Record::Completed { response, .. } if response.is_kept() => (KEPT, response.body_bytes()),
            Record::InFlight { .. } | Record::Completed { .. } | Record::Unknown { .. } => (0, 0),
        };
        let name = write.route.0.as_bytes();
        let name = &name[..name.len().min(usize::from(u16::MAX))];
        let sealing = self.seals.as_ref().map_or(0, |_| Seals::MORE);
        let mut value =
            Vec::with_capacity(BEGIN + 1 + FIXED + name.len() + 2 * CHECK + FINGERPRINT + answer.len() + sealing);
        value.put_slice(&version.0);
        value.put_u32(0);
        value.put_u8(FORMAT);
        value.put_u8(kept | if self.seals.is_some() { SEALED } else { 0 });
        value.put_u8(state);
        value.put_u64(milliseconds(write.keep));
        value.put_u64(milliseconds(lease));
        value.put_u64(milliseconds(running));
        value.put_u8(reason);
        value.put_u16(status);
        value.put_u32(u32::try_from(body).unwrap_or(u32::MAX));
        value.put_u16(u16::try_from(name.len()).expect("cut to fit"));
        value.put_slice(name);
        let header_check = check("header", id, &value);
        value.put_slice(&header_check);
        let payload = value.len();
        value.put_slice(&write.record.fingerprint().0);
        value.put_slice(answer);
        if let Some(seals) = &self.seals {
            seals.seal(id, &mut value, payload);
        }
        let whole_check = check("record", id, &value);
        value.put_slice(&whole_check);
        value
    }

    /// Reads a value; the answer shares its allocation unless it was sealed.
    pub(super) fn decode(&self, id: &RecordId, value: Bytes) -> Result<Decoded, Damaged> {
        let header = Header::read(id, &value)?;
        let payload = header.end + CHECK;
        let end = value.len().checked_sub(CHECK).filter(|end| *end >= payload).ok_or(Damaged::Foreign)?;
        if check("record", id, &value[..end]) != value[end..] {
            return Err(Damaged::Checksum);
        }
        let version = version_of(&value);
        let replays = (&value[VERSION..BEGIN]).get_u32();
        let mut payload = if header.flags & SEALED == 0 {
            value.slice(payload..end)
        } else {
            let seals = self.seals.as_ref().ok_or(Damaged::Sealed)?;
            seals.open(id, &value[..end], payload).ok_or(Damaged::Sealed)?
        };
        if payload.len() < FINGERPRINT {
            return Err(Damaged::Foreign);
        }
        let fingerprint = payload.split_to(FINGERPRINT);
        let fingerprint = Fingerprint(fingerprint.as_ref().try_into().expect("32 bytes"));
        let record = match header.state {
            IN_FLIGHT => Record::InFlight { fingerprint, lease: header.lease, running: header.running },
            COMPLETED => {
                let response = Stored::decode(payload).map_err(|_| Damaged::Foreign)?;
                Record::Completed { fingerprint, response }
            }
            UNKNOWN => {
                let status = (header.status != 0).then_some(header.status);
                Record::Unknown { fingerprint, reason: reason(header.reason)?, status }
            }
            _ => return Err(Damaged::Foreign),
        };
        Ok(Decoded { version, replays, keep: header.keep, route: header.route, record })
    }

    /// Reads a value's beginning.
    pub(super) fn peek(&self, id: &RecordId, start: &[u8]) -> Result<Summary, Damaged> {
        let Header { state, keep, lease, reason: why, route, status, .. } = Header::read(id, start)?;
        let written = match state {
            IN_FLIGHT => Written::InFlight { lease },
            COMPLETED => Written::Completed,
            UNKNOWN => Written::Unknown { reason: reason(why)? },
            _ => return Err(Damaged::Foreign),
        };
        Ok(Summary { version: version_of(start), keep, route, written, status })
    }
}

impl Header {
    fn read(id: &RecordId, value: &[u8]) -> Result<Self, Damaged> {
        let mut rest = value.get(BEGIN..).ok_or(Damaged::Foreign)?;
        let format = rest.try_get_u8().map_err(|_| Damaged::Foreign)?;
        if format != FORMAT {
            return Err(if format > FORMAT { Damaged::NewerFormat(format) } else { Damaged::Foreign });
        }
        if rest.len() < FIXED {
            return Err(Damaged::Foreign);
        }
        let (flags, state) = (rest.get_u8(), rest.get_u8());
        let [keep, lease, running] = [(); 3].map(|()| Duration::from_millis(rest.get_u64()));
        let (reason, status, _body) = (rest.get_u8(), rest.get_u16(), rest.get_u32());
        let length = usize::from(rest.get_u16());
        let end = BEGIN + 1 + FIXED + length;
        let name = rest.get(..length).ok_or(Damaged::Foreign)?;
        if value.get(end..end + CHECK).ok_or(Damaged::Foreign)? != check("header", id, &value[..end]) {
            return Err(Damaged::Checksum);
        }
        let route = RouteName(String::from_utf8_lossy(name).into());
        Ok(Self { flags, state, keep, lease, running, reason, status, route, end })
    }
}

/// Of everything but the replays.
fn check(what: &str, id: &RecordId, value: &[u8]) -> [u8; CHECK] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"oncegate redis ");
    hasher.update(what.as_bytes());
    hasher.update(&id.0);
    hasher.update(&value[..VERSION]);
    hasher.update(&value[BEGIN..]);
    let mut check = [0; CHECK];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK]);
    check
}

fn version_of(value: &[u8]) -> Version {
    Version(value[..VERSION].try_into().expect("a value with a header has a version"))
}

fn number(reason: UnknownReason) -> u8 {
    match reason {
        UnknownReason::Lost => 0,
        UnknownReason::TimedOut => 1,
        UnknownReason::Answered => 2,
        UnknownReason::Lapsed => 3,
        UnknownReason::Drained => 4,
    }
}

fn reason(wanted: u8) -> Result<UnknownReason, Damaged> {
    UnknownReason::ALL.into_iter().find(|reason| number(*reason) == wanted).ok_or(Damaged::Foreign)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
