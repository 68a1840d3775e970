//! What is kept of a response: which fields (contract: R-19), and how it lies in memory.
//!
//! A [`Stored`] answer is one exact allocation of its own: the buffers that hyper hands out would stay pinned whole for
//! as long as a record lives. A replay shares that allocation, body and field values alike, and copies nothing.
//!
//! Layout, integers big-endian: status `u16`, flags `u8`, number of fields `u16`; for each field the length of its name
//! `u16`, of its value `u32`, then both; the body is the rest. The Redis codec carries the same bytes.

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::policy::Policy;

/// What is kept of a response: status, fields, body; or, where it was not kept, its status and `Location`; or, of one
/// that was only observed, its status.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    bytes: Bytes,
}

/// Bytes that are not a [`Stored`] response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a stored response")]
pub struct NotStored;

const KEPT: u8 = 1;
/// Observed: nothing is kept of it, and enforcing would have kept it.
const WOULD_KEEP: u8 = 2;
const FIXED: usize = 5;
const FIELD: usize = 6;

impl Stored {
    /// Keeps a whole response: its fields less those that R-19 leaves out, and its body, in parts.
    #[must_use]
    pub fn keep(policy: &Policy, status: u16, headers: &HeaderMap, body: &[Bytes]) -> Self {
        let connection = connection_names(headers);
        let fields: Vec<_> = headers.iter().filter(|(name, _)| is_kept(policy, &connection, name)).collect();
        Self::build(status, KEPT, &fields, body)
    }

    /// Keeps of a response that it came: its status and `Location`.
    #[must_use]
    pub fn not_kept(status: u16, headers: &HeaderMap) -> Self {
        let fields: Vec<_> =
            headers.get(header::LOCATION).map(|value| (&header::LOCATION, value)).into_iter().collect();
        Self::build(status, 0, &fields, &[])
    }

    /// Notes of a response that was only observed whether enforcing would have kept it (contract: R-24).
    #[must_use]
    pub fn observed(status: u16, would_keep: bool) -> Self {
        Self::build(status, if would_keep { WOULD_KEEP } else { 0 }, &[], &[])
    }

    fn build(status: u16, flags: u8, fields: &[(&HeaderName, &HeaderValue)], body: &[Bytes]) -> Self {
        let head: usize = fields.iter().map(|(name, value)| FIELD + name.as_str().len() + value.len()).sum();
        let length = FIXED + head + body.iter().map(Bytes::len).sum::<usize>();
        let mut bytes = Vec::with_capacity(length);
        bytes.put_u16(status);
        bytes.put_u8(flags);
        bytes.put_u16(u16::try_from(fields.len()).expect("a HeaderMap holds fewer than 32,768 fields"));
        for (name, value) in fields {
            bytes.put_u16(u16::try_from(name.as_str().len()).expect("a HeaderName is shorter than 65,536 bytes"));
            bytes.put_u32(u32::try_from(value.len()).expect("a head is bounded far below 4 GiB"));
            bytes.put_slice(name.as_str().as_bytes());
            bytes.put_slice(value.as_bytes());
        }
        body.iter().for_each(|part| bytes.put_slice(part));
        debug_assert_eq!(bytes.len(), length, "one exact allocation");
        Self { bytes: bytes.into() }
    }

    /// Takes encoded bytes.
    ///
    /// # Errors
    ///
    /// [`NotStored`] when they do not hold together.
    pub fn decode(bytes: Bytes) -> Result<Self, NotStored> {
        let stored = Self { bytes };
        if stored.bytes.len() < FIXED || !(100..=999).contains(&stored.status()) {
            return Err(NotStored);
        }
        let mut at = FIXED;
        for _ in 0..stored.count() {
            let (name, value, end) = stored.field_bounds(at).ok_or(NotStored)?;
            HeaderName::from_bytes(&stored.bytes[name]).map_err(|_| NotStored)?;
            HeaderValue::from_bytes(&stored.bytes[value]).map_err(|_| NotStored)?;
            at = end;
        }
        Ok(stored)
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The original status.
    #[must_use]
    pub fn status(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// Whether the response itself was kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.bytes[2] & KEPT != 0
    }

    /// Whether enforcing would have kept a response that was only observed.
    #[must_use]
    pub fn would_be_kept(&self) -> bool {
        self.bytes[2] & WOULD_KEEP != 0
    }

    fn count(&self) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[3], self.bytes[4]]))
    }

    fn field_bounds(&self, at: usize) -> Option<(std::ops::Range<usize>, std::ops::Range<usize>, usize)> {
        let lengths = self.bytes.get(at..at + FIELD)?;
        let name_bytes = usize::from(u16::from_be_bytes([lengths[0], lengths[1]]));
        let value_bytes = u32::from_be_bytes([lengths[2], lengths[3], lengths[4], lengths[5]]) as usize;
        let name = at + FIELD..at + FIELD + name_bytes;
        let value = name.end..name.end.checked_add(value_bytes)?;
        let end = value.end;
        (end <= self.bytes.len()).then_some((name, value, end))
    }

    /// The kept fields in order, and the body; the values share this answer's allocation.
    #[must_use]
    pub fn parts(&self) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::with_capacity(self.count() + 6);
        let mut at = FIXED;
        for _ in 0..self.count() {
            let (name, value, end) = self.field_bounds(at).expect("checked when it was made");
            let name = HeaderName::from_bytes(&self.bytes[name]).expect("checked when it was made");
            let value = HeaderValue::from_maybe_shared(self.bytes.slice(value)).expect("checked when it was made");
            headers.append(name, value);
            at = end;
        }
        (headers, self.bytes.slice(at..))
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        let end = (0..self.count()).try_fold(FIXED, |at, _| self.field_bounds(at).map(|(.., end)| end));
        self.bytes.len() - end.expect("checked when it was made")
    }

    /// The same answer, not kept: what remains when a full store drops its body (contract: R-21).
    #[must_use]
    pub fn without_body(&self) -> Self {
        Self::not_kept(self.status(), &self.parts().0)
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored").field("status", &self.status()).field("bytes", &self.bytes.len()).finish()
    }
}

/// Fields that end at one hop (RFC 9110 s7.6.1), beside those that `Connection` names.
pub const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The names that `Connection` lists, in lower case.
#[must_use]
pub fn connection_names(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Contract: R-19.
fn is_kept(policy: &Policy, connection: &[String], name: &HeaderName) -> bool {
    let text = name.as_str();
    !(HOP_BY_HOP.contains(name)
        || connection.iter().any(|named| named == text)
        || policy.drop_headers.contains(name)
        || text.starts_with("proxy-")
        || matches!(
            text,
            // A replay gets a fresh one from the server.
            "date"
                | "www-authenticate"
                | "authentication-info"
                | "alt-svc"
                | "server-timing"
                | "idempotency-status"
                | "idempotent-replayed"
        ))
}
