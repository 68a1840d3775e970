//! temp
use crate::{
    config::secrets::Secrets,
    rule::{Fingerprint, Record, RecordId, RouteName, Stored, UnknownReason, Version},
    store::{State, Write},
};
use bytes::{BufMut, Bytes};
use std::time::Duration;
pub(super) const PEEK: usize = 512;
#[derive(Debug)]
pub(super) struct Codec;
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Damaged {
    #[error("foreign")]
    Foreign,
}
#[derive(Debug, Clone)]
pub(super) enum Written {
    InFlight { lease: Duration, running: Duration },
    Completed { status: u16, kept: bool, body_bytes: u32 },
    Unknown { reason: UnknownReason },
}
#[derive(Debug, Clone)]
pub(super) struct Summary {
    pub(super) version: Version,
    pub(super) replays: u32,
    pub(super) keep: Duration,
    pub(super) route: RouteName,
    pub(super) written: Written,
}
impl Summary {
    pub(super) fn lease(&self) -> Option<Duration> {
        match &self.written {
            Written::InFlight { lease, .. } => Some(*lease),
            _ => None,
        }
    }
    pub(super) fn state(&self, age: Duration) -> State {
        match &self.written {
            Written::InFlight { lease, .. } if age < *lease => State::InFlight,
            Written::Completed { .. } => State::Completed,
            _ => State::Unknown,
        }
    }
}
pub(super) struct Decoded {
    pub(super) version: Version,
    pub(super) replays: u32,
    pub(super) keep: Duration,
    pub(super) route: RouteName,
    pub(super) record: Record<Stored>,
}
impl Codec {
    pub(super) fn plain() -> Self {
        Self
    }
    pub(super) fn sealed(_: &Secrets) -> Self {
        Self
    }
    pub(super) fn encode(&self, _id: &RecordId, version: Version, write: &Write) -> Vec<u8> {
        let mut v = Vec::new();
        v.put_slice(&version.0);
        v.put_u32(0);
        v.put_u64(write.keep.as_millis() as u64);
        v.put_u8(write.route.0.len() as u8);
        v.put_slice(write.route.0.as_bytes());
        v.put_slice(&write.record.fingerprint().0);
        match &write.record {
            Record::InFlight { lease, running, .. } => {
                v.put_u8(0);
                v.put_u64(lease.as_millis() as u64);
                v.put_u64(running.as_millis() as u64)
            }
            Record::Completed { response, .. } => {
                v.put_u8(1);
                v.put_slice(response.as_bytes())
            }
            Record::Unknown { reason, status, .. } => {
                v.put_u8(2);
                v.put_u8(UnknownReason::ALL.iter().position(|r| r == reason).unwrap() as u8);
                v.put_u16(status.unwrap_or(0));
            }
        }
        v
    }
    pub(super) fn decode(&self, _id: &RecordId, value: Bytes) -> Result<Decoded, Damaged> {
        let b = &value;
        if b.len() < 70 {
            return Err(Damaged::Foreign);
        }
        let r = 29 + b[28] as usize;
        if b.len() < r + 33 {
            return Err(Damaged::Foreign);
        }
        let fingerprint = Fingerprint(b[r..r + 32].try_into().unwrap());
        let rest = value.slice(r + 33..);
        let u = |at: usize| u64::from_be_bytes(rest[at..at + 8].try_into().unwrap());
        let record = match b[r + 32] {
            0 => Record::InFlight {
                fingerprint,
                lease: Duration::from_millis(u(0)),
                running: Duration::from_millis(u(8)),
            },
            1 => {
                Record::Completed { fingerprint, response: Stored::decode(rest.clone()).map_err(|_| Damaged::Foreign)? }
            }
            2 => Record::Unknown {
                fingerprint,
                reason: UnknownReason::ALL[rest[0] as usize],
                status: Some(u16::from_be_bytes([rest[1], rest[2]])).filter(|s| *s > 0),
            },
            _ => return Err(Damaged::Foreign),
        };
        Ok(Decoded {
            version: Version(b[..16].try_into().unwrap()),
            replays: u32::from_be_bytes(b[16..20].try_into().unwrap()),
            keep: Duration::from_millis(u64::from_be_bytes(b[20..28].try_into().unwrap())),
            route: RouteName(std::str::from_utf8(&b[29..r]).unwrap().into()),
            record,
        })
    }
    pub(super) fn peek(&self, id: &RecordId, start: &[u8]) -> Result<Summary, Damaged> {
        let d = self.decode(id, Bytes::copy_from_slice(start))?;
        Ok(Summary {
            version: d.version,
            replays: d.replays,
            keep: d.keep,
            route: d.route,
            written: match d.record {
                Record::InFlight { lease, running, .. } => Written::InFlight { lease, running },
                Record::Completed { response, .. } => {
                    Written::Completed { status: response.status(), kept: true, body_bytes: 0 }
                }
                Record::Unknown { reason, .. } => Written::Unknown { reason },
            },
        })
    }
}
