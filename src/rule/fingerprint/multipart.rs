//! A `multipart/*` body, divided into its parts ([RFC 2046 s5.1.1](https://www.rfc-editor.org/rfc/rfc2046#section-5.1.1)).
//!
//! Read to the letter only: where two readers might find other parts, there are none.

use crate::rule::media;

/// One part: its header fields as sent, and what follows the empty line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) fields: &'a [u8],
    pub(super) bytes: &'a [u8],
}

/// The body's parts, without preamble and epilogue; `None` when the body is not well-formed.
pub(super) fn parts<'a>(content_type: &[u8], body: &'a [u8]) -> Option<Vec<Part<'a>>> {
    let delimiter = [b"\r\n--", boundary(content_type)?.as_slice()].concat();
    // The first delimiter may stand at the very beginning, without the line break that otherwise belongs to it.
    let mut rest = match body.strip_prefix(&delimiter[2..]) {
        Some(rest) => rest,
        None => split(body, &delimiter)?.1,
    };
    let mut parts = Vec::new();
    loop {
        rest = line_end(rest)?;
        let (part, after) = split_part(rest, &delimiter)?;
        parts.push(part);
        rest = after;
        if let Some(epilogue) = rest.strip_prefix(b"--") {
            let padded = epilogue.trim_ascii_start();
            let ends = padded.is_empty() || line_end(epilogue).is_some();
            return ends.then_some(parts);
        }
    }
}

/// The boundary, if there is exactly one that every reader would take (RFC 2046: 1 to 70 of a few characters).
fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let is_boundary = |parameter: &&[u8]| {
        let name = media::parameter_name(parameter);
        name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"boundary"))
    };
    let mut boundaries = media::parameters(content_type).filter(is_boundary);
    let (parameter, None) = (boundaries.next()?, boundaries.next()) else { return None };
    let name = media::parameter_name(parameter);
    let value = parameter.get(name.len()..)?.strip_prefix(b"=")?;
    let value = match value {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    };
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    let fits = name.len() == 8 && (1..=70).contains(&value.len()) && value.iter().all(allowed);
    (fits && !value.ends_with(b" ")).then(|| value.to_vec())
}

/// What follows the rest of a delimiter's line: white space, then a line break.
fn line_end(rest: &[u8]) -> Option<&[u8]> {
    let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest[padding..].strip_prefix(b"\r\n")
}

fn split_part<'a>(rest: &'a [u8], delimiter: &[u8]) -> Option<(Part<'a>, &'a [u8])> {
    // A part without fields begins with the empty line itself.
    if let Some(bytes) = rest.strip_prefix(b"\r\n") {
        // An empty part's line break may be its delimiter's.
        let (bytes, after) =
            if rest.starts_with(delimiter) { split(rest, delimiter)? } else { split(bytes, delimiter)? };
        return Some((Part { fields: b"", bytes }, after));
    }
    let (whole, after) = split(rest, delimiter)?;
    let (fields, bytes) = split(whole, b"\r\n\r\n")?;
    Some((Part { fields, bytes }, after))
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = memchr::memmem::find(bytes, at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}
