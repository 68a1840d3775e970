//! A chunked body (RFC 9112 s7.1).

use memchr::memchr;

use super::{FIELDS_MAX, field};
use crate::server::refusal::Reason;

/// A chunk's size line with its extensions, which nobody uses and everybody parses differently.
const SIZE_LINE_MAX: usize = 256;
/// The last chunk's line with the trailer section.
const TRAILERS_MAX: usize = 8 * 1024;

/// Where in a chunked body we are.
#[derive(Debug)]
pub(super) enum Chunked {
    /// Before a size line.
    Size,
    /// That many bytes of data are left, never 0.
    Data(u64),
    /// Before the CR LF after a chunk's data.
    DataEnd,
    /// Within the trailer section. The last chunk's size line is let on with it, so that nobody takes a body for whole
    /// before that is certain.
    Trailers {
        /// Where the line begins that is not whole yet.
        line: usize,
        fields: usize,
    },
    /// Behind the body.
    Over,
}

impl Chunked {
    pub(super) const fn new() -> Self {
        Self::Size
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// How much of `rest` may go on; 0 when an element is not whole.
    pub(super) fn scan(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        match self {
            Self::Size => {
                let Some(line) = whole_line(rest, 0, SIZE_LINE_MAX, Reason::Chunk)? else { return Ok(0) };
                let size = size(line)?;
                let bytes = line.len() + 2;
                if size == 0 {
                    *self = Self::Trailers { line: bytes, fields: 0 };
                    return self.scan(rest);
                }
                *self = Self::Data(size);
                Ok(bytes)
            }
            Self::Data(left) => {
                let passed = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                *left -= passed as u64;
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                Ok(passed)
            }
            Self::DataEnd => match rest {
                [b'\r', b'\n', ..] => {
                    *self = Self::Size;
                    Ok(2)
                }
                [b'\r'] => Ok(0),
                _ => Err(Reason::Chunk),
            },
            Self::Trailers { line: start, fields } => loop {
                let Some(line) = whole_line(rest, *start, TRAILERS_MAX, Reason::Trailer)? else { return Ok(0) };
                *start += line.len() + 2;
                if line.is_empty() {
                    let bytes = *start;
                    *self = Self::Over;
                    return Ok(bytes);
                }
                *fields += 1;
                if *fields > FIELDS_MAX {
                    return Err(Reason::Trailer);
                }
                trailer(line)?;
            },
            Self::Over => Ok(0),
        }
    }
}

/// The line that begins at `start`, without its CR LF, once it is whole.
fn whole_line(rest: &[u8], start: usize, max: usize, reason: Reason) -> Result<Option<&[u8]>, Reason> {
    let end = memchr(b'\n', &rest[start..]).map(|at| start + at);
    if end.map_or(rest.len(), |end| end + 1) > max {
        return Err(reason);
    }
    let Some(end) = end else { return Ok(None) };
    rest[start..end].strip_suffix(b"\r").map(Some).ok_or(reason)
}

/// A size line: hexadecimal digits, then nothing or extensions, which are dropped.
fn size(line: &[u8]) -> Result<u64, Reason> {
    let (digits, extensions) = line.split_at(memchr(b';', line).unwrap_or(line.len()));
    if !(1..=15).contains(&digits.len()) {
        return Err(Reason::Chunk);
    }
    let visible = |&byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    if !extensions.iter().all(visible) {
        return Err(Reason::Chunk);
    }
    digits.iter().try_fold(0u64, |size, &byte| {
        let digit = char::from(byte).to_digit(16).ok_or(Reason::Chunk)?;
        Ok(size * 16 + u64::from(digit))
    })
}

/// A trailer field's line.
fn trailer(line: &[u8]) -> Result<(), Reason> {
    let field = field::parse(line).map_err(|_| Reason::Trailer)?;
    if may_be_trailer(field.name) { Ok(()) } else { Err(Reason::Trailer) }
}

/// Whether a field of that name may stand among trailers (RFC 9110 s6.5.1): whoever merges it into the header section must
/// not find there what frames, routes or authorises a request, or names it.
#[must_use]
pub fn may_be_trailer(name: &[u8]) -> bool {
    const NEVER: [&[u8]; 14] = [
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"content-type",
        b"host",
        b"connection",
        b"upgrade",
        b"te",
        b"trailer",
        b"expect",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"idempotency-key",
    ];
    !NEVER.iter().any(|never| name.eq_ignore_ascii_case(never)) && !field::looks_like_framing(name)
}
