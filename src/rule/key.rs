//! The idempotency key: where it is looked for and what may be one (contract: R-4).
//!
//! [`search`] looks at the head alone; where it says [`Search::NeedsBody`], [`search_body`] does the whole ordered
//! search again with the body at hand, or [`search_past_body`] when the body is too large to look at. A source that is
//! there but cannot be read as one key is malformed, and ends the search: guessing would run a request twice.

mod field;
mod json;
mod pairs;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod shadow;

use std::{borrow::Cow, fmt, time::Duration};

use super::{
    fingerprint::fingerprint,
    head::Head,
    identity::{self, IdKey},
    media,
    policy::{KeyFormat, KeySource, Policy},
};

pub use self::shadow::{Shadow, shadowed};
pub(super) use self::{
    field::trim_ows,
    pairs::{Once, cookie, only},
};

/// How many bytes a key may have.
pub const KEY_BYTES_MAX: usize = 255;

/// An idempotency key and where it came from. It may be a secret: never stored, logged or put in a metric.
#[derive(Clone, PartialEq, Eq)]
pub struct Key<'a> {
    /// The source that yielded it.
    pub source: &'a KeySource,
    /// The key. Of a composite: its parts, each after its length. Of a content source: the fingerprint.
    pub bytes: Cow<'a, [u8]>,
    /// The window of a content source.
    pub content: Option<Duration>,
}

impl<'a> Key<'a> {
    /// A key as an operator names it, by the source that would have yielded it.
    #[must_use]
    pub fn named(source: &'a KeySource, bytes: &'a [u8]) -> Self {
        Self { source, bytes: Cow::Borrowed(bytes), content: None }
    }

    /// A composite key of these parts, in the order of its sources.
    #[must_use]
    pub fn joined<'p>(source: &'a KeySource, parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut bytes = Vec::with_capacity(128);
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Self { source, bytes: Cow::Owned(bytes), content: None }
    }
}

/// What a client's own writing of a key stands for where `source` is looked at: in a header field, quotes and escapes
/// are not part of it. What no key can be written as there stands for itself.
#[must_use]
pub fn as_written<'a>(source: &KeySource, written: &'a [u8]) -> Cow<'a, [u8]> {
    match source {
        KeySource::Header(_) => field::value(written).unwrap_or(Cow::Borrowed(written)),
        KeySource::Query(_)
        | KeySource::Json(_)
        | KeySource::Form(_)
        | KeySource::Composite(_)
        | KeySource::Content { .. } => Cow::Borrowed(written),
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may be a secret.
        f.debug_struct("Key").field("source", &label(self.source)).field("bytes", &self.bytes.len()).finish()
    }
}

/// Whether a request of this policy can have these bytes for a key, or for a part of a composite one.
///
/// # Errors
///
/// [`KeyError::Malformed`] when none can.
pub fn possible(policy: &Policy, bytes: &[u8]) -> Result<(), KeyError> {
    checked(Cow::Borrowed(bytes)).and_then(|bytes| fits(policy.key_format, &bytes))
}

/// What the head alone says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Search<'a> {
    /// This is the key.
    Found(Key<'a>),
    /// The next source to look at is in the body.
    NeedsBody,
    /// The request has no key.
    Absent,
}

/// Why a request's key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is something where the key should be, but it is not one key.
    #[error("{0}")]
    Malformed(
        /// What is wrong with it, without quoting it.
        &'static str,
    ),
}

/// Looks for the key in the head.
///
/// # Errors
///
/// [`KeyError::Malformed`] when the first source that is there breaks R-4.
pub fn search<'a>(policy: &'a Policy, head: &Head<'a>) -> Result<Search<'a>, KeyError> {
    for source in &policy.key {
        match read(policy, source, head, Body::Unread)? {
            Part::Found(key) => return Ok(Search::Found(key)),
            Part::NeedsBody => return Ok(Search::NeedsBody),
            Part::Absent => {}
        }
    }
    Ok(Search::Absent)
}

/// Looks for the key in the head and the whole body. A content source needs `id_key` for its fingerprint.
///
/// # Errors
///
/// [`KeyError::Malformed`] when the first source that is there breaks R-4.
pub fn search_body<'a>(
    policy: &'a Policy,
    head: &Head<'a>,
    body: &'a [u8],
    id_key: &IdKey,
) -> Result<Option<Key<'a>>, KeyError> {
    first(policy, head, Body::Whole(body, *id_key))
}

/// Looks for the key in the head when the body is larger than `max_request_body`: body sources yield none.
///
/// # Errors
///
/// [`KeyError::Malformed`] when the first source that is there breaks R-4.
pub fn search_past_body<'a>(policy: &'a Policy, head: &Head<'a>) -> Result<Option<Key<'a>>, KeyError> {
    first(policy, head, Body::TooLarge)
}

/// A source as the configuration writes it: `header:idempotency-key`.
#[must_use]
pub fn label(source: &KeySource) -> Cow<'static, str> {
    match source {
        KeySource::Header(name) if name == "idempotency-key" => Cow::Borrowed("header:idempotency-key"),
        KeySource::Header(name) => Cow::Owned(format!("header:{name}")),
        KeySource::Query(name) => Cow::Owned(format!("query:{name}")),
        KeySource::Json(pointer) => Cow::Owned(format!("json:{pointer}")),
        KeySource::Form(field) => Cow::Owned(format!("form:{field}")),
        KeySource::Composite(parts) => Cow::Owned(parts.iter().map(label).collect::<Vec<_>>().join("+")),
        KeySource::Content { window } => Cow::Owned(format!("content:{}", humantime::format_duration(*window))),
    }
}

/// How much of the body can be looked at.
#[derive(Clone, Copy)]
enum Body<'b> {
    Unread,
    TooLarge,
    Whole(&'b [u8], IdKey),
}

/// What one source yields.
enum Part<T> {
    Found(T),
    NeedsBody,
    Absent,
}

type Value<'a> = Part<Cow<'a, [u8]>>;

fn first<'a>(policy: &'a Policy, head: &Head<'a>, body: Body<'a>) -> Result<Option<Key<'a>>, KeyError> {
    for source in &policy.key {
        if let Part::Found(key) = read(policy, source, head, body)? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

fn read<'a>(
    policy: &'a Policy,
    source: &'a KeySource,
    head: &Head<'a>,
    body: Body<'a>,
) -> Result<Part<Key<'a>>, KeyError> {
    let key = |bytes| Key { source, bytes, content: None };
    match source {
        KeySource::Header(_) | KeySource::Query(_) | KeySource::Json(_) | KeySource::Form(_) => {
            Ok(simple(policy, source, head, body)?.map(key))
        }
        KeySource::Composite(parts) => composite(policy, source, parts, head, body),
        KeySource::Content { window } => Ok(content(policy, source, *window, head, body)),
    }
}

/// Reads every part, so that a malformed one is found wherever it stands, then asks for all of them.
fn composite<'a>(
    policy: &'a Policy,
    source: &'a KeySource,
    parts: &'a [KeySource],
    head: &Head<'a>,
    body: Body<'a>,
) -> Result<Part<Key<'a>>, KeyError> {
    let mut found = Vec::with_capacity(parts.len());
    let (mut needs_body, mut absent) = (false, false);
    for part in parts {
        match simple(policy, part, head, body)? {
            Part::Found(bytes) => found.push(bytes),
            Part::NeedsBody => needs_body = true,
            Part::Absent => absent = true,
        }
    }
    Ok(match (absent, needs_body) {
        (true, _) => Part::Absent,
        (false, true) => Part::NeedsBody,
        (false, false) => Part::Found(Key::joined(source, found.iter().map(AsRef::as_ref))),
    })
}

/// Two equal requests are one, if it can be told whose they are and there is something to be equal.
fn content<'a>(
    policy: &'a Policy,
    source: &'a KeySource,
    window: Duration,
    head: &Head<'a>,
    body: Body<'a>,
) -> Part<Key<'a>> {
    if !identity::has_scope(policy, head) {
        return Part::Absent;
    }
    match body {
        Body::Unread => Part::NeedsBody,
        Body::TooLarge | Body::Whole([], _) => Part::Absent,
        Body::Whole(body, id_key) => {
            let bytes = Cow::Owned(fingerprint(&id_key, policy, head, body).0.to_vec());
            Part::Found(Key { source, bytes, content: Some(window) })
        }
    }
}

fn simple<'a>(policy: &Policy, source: &'a KeySource, head: &Head<'a>, body: Body<'a>) -> Result<Value<'a>, KeyError> {
    let value = match source {
        KeySource::Header(name) => Part::from(field::read(head.headers, name)?),
        KeySource::Query(name) => Part::from(pairs::key(head.query.unwrap_or_default().as_bytes(), name)?),
        KeySource::Json(pointer) => in_body(head, body, media::is_json, |body| json::read(body, pointer))?,
        KeySource::Form(name) => in_body(head, body, media::is_form, |body| pairs::key(body, name))?,
        KeySource::Composite(_) | KeySource::Content { .. } => {
            debug_assert!(false, "a composite holds neither a composite nor a content source");
            Part::Absent
        }
    };
    match &value {
        Part::Found(bytes) => fits(policy.key_format, bytes)?,
        Part::NeedsBody | Part::Absent => {}
    }
    Ok(value)
}

fn in_body<'a>(
    head: &Head<'_>,
    body: Body<'a>,
    fits: impl Fn(&[u8]) -> bool,
    read: impl FnOnce(&'a [u8]) -> Result<Option<Cow<'a, [u8]>>, KeyError>,
) -> Result<Value<'a>, KeyError> {
    if !media::content_type(head.headers).is_some_and(fits) {
        return Ok(Part::Absent);
    }
    match body {
        Body::Unread => Ok(Part::NeedsBody),
        Body::TooLarge => Ok(Part::Absent),
        Body::Whole(body, _) => Ok(Part::from(read(body)?)),
    }
}

impl<T> Part<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Part<U> {
        match self {
            Self::Found(value) => Part::Found(f(value)),
            Self::NeedsBody => Part::NeedsBody,
            Self::Absent => Part::Absent,
        }
    }
}

impl<T> From<Option<T>> for Part<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Self::Found)
    }
}

/// Checks what every key must be, from wherever: 1 to 255 bytes of visible ASCII or space.
fn checked(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, KeyError> {
    if bytes.is_empty() {
        Err(KeyError::Malformed("the key is empty"))
    } else if bytes.len() > KEY_BYTES_MAX {
        Err(KeyError::Malformed("the key is longer than 255 bytes"))
    } else if !bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        Err(KeyError::Malformed("the key has bytes other than visible ASCII"))
    } else {
        Ok(bytes)
    }
}

/// `key_format`, which each part of a composite must have too.
fn fits(format: KeyFormat, bytes: &[u8]) -> Result<(), KeyError> {
    match format {
        KeyFormat::Any => Ok(()),
        KeyFormat::Uuid if is_uuid(bytes) => Ok(()),
        KeyFormat::Uuid => Err(KeyError::Malformed("the key is not a UUID")),
    }
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests;
