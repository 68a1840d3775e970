//! A request's head: request line and fields.

use std::ops::Range;

use memchr::memchr;

use super::{
    FIELDS_MAX, Framing,
    field::{self, Field, authority_is_valid},
};
use crate::server::refusal::Reason;

/// The longest target that hyper's URI holds, with room to spare.
const TARGET_MAX: usize = 65_000;

/// A head that is being looked at, line by line. Offsets are into the input, which begins with the head's first byte.
#[derive(Debug)]
pub(super) struct Head {
    /// Where the line begins that is not whole yet.
    line: usize,
    /// No line ends between `line` and here.
    searched: usize,
    /// The request line is behind us.
    requested: bool,
    /// HTTP/1.0.
    old: bool,
    fields: usize,
    /// The authority of an absolute-form target, and its scheme's default port.
    target: Option<(Range<usize>, &'static [u8])>,
    host: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Head {
    pub(super) const fn new() -> Self {
        Self {
            line: 0,
            searched: 0,
            requested: false,
            old: false,
            fields: 0,
            target: None,
            host: None,
            length: None,
            chunked: false,
            upgrade: false,
        }
    }

    /// The head's length and its body's framing, once it is whole.
    pub(super) fn scan(&mut self, input: &[u8], max: usize) -> Result<Option<(usize, Framing)>, Reason> {
        // What cannot begin a request (a TLS handshake on a plain port, say) need not be waited for.
        let begins_well = self.requested || field::is_token_byte(input[0]) || input[0] == b'\r';
        if !begins_well {
            return Err(if input[0] == b'\n' { Reason::LineEnd } else { Reason::RequestLine });
        }
        loop {
            let end = memchr(b'\n', &input[self.searched..]).map(|at| self.searched + at);
            if end.map_or(input.len(), |end| end + 1) > max {
                return Err(if self.requested { Reason::HeadTooLarge } else { Reason::TargetTooLong });
            }
            let Some(end) = end else {
                self.searched = input.len();
                return Ok(None);
            };
            let start = self.line;
            self.line = end + 1;
            self.searched = end + 1;
            let line = input[start..end].strip_suffix(b"\r").ok_or(Reason::LineEnd)?;
            match (self.requested, line.is_empty()) {
                (true, false) => self.field(line, start)?,
                (true, true) => return self.finish(input).map(|framing| Some((end + 1, framing))),
                (false, false) => self.request_line(line, start)?,
                // RFC 9112 s2.2: one empty line before a request is tolerated, which old clients send after a body.
                (false, true) if start == 0 => {}
                (false, true) => return Err(Reason::RequestLine),
            }
        }
    }

    /// Whether there is an Upgrade (RFC 9110 s7.8).
    pub(super) const fn asks_for_upgrade(&self) -> bool {
        self.upgrade
    }

    fn request_line(&mut self, line: &[u8], start: usize) -> Result<(), Reason> {
        self.requested = true;
        let method_end = memchr(b' ', line).ok_or(Reason::RequestLine)?;
        let method = &line[..method_end];
        if method.is_empty() || !method.iter().copied().all(field::is_token_byte) {
            return Err(Reason::RequestLine);
        }
        let rest = &line[method_end + 1..];
        let target_end = memchr(b' ', rest).ok_or(Reason::RequestLine)?;
        let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
        match method {
            b"CONNECT" => return Err(Reason::MethodConnect),
            b"PRI" => return Err(Reason::MethodPri),
            _ => {}
        }
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.old = true,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                return Err(Reason::Version);
            }
            _ => return Err(Reason::RequestLine),
        }
        if target.len() > TARGET_MAX {
            return Err(Reason::TargetTooLong);
        }
        self.target(method, target, start + method_end + 1)
    }

    /// RFC 9112 s3.2. What is let on is a subset of what hyper takes, and never has a fragment, which hyper would cut off
    /// in silence.
    fn target(&mut self, method: &[u8], target: &[u8], start: usize) -> Result<(), Reason> {
        if matches!(target, [b'/', ..] | b"*") {
            return target_is_valid(method, target).then_some(()).ok_or(Reason::Target);
        }
        let (scheme_bytes, default_port) = if starts_with_ignoring_case(target, b"http://") {
            (7, b":80".as_slice())
        } else if starts_with_ignoring_case(target, b"https://") {
            (8, b":443".as_slice())
        } else {
            return Err(Reason::Target);
        };
        let rest = &target[scheme_bytes..];
        let authority_end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_end);
        if !authority_is_valid(authority) || !field::path_and_query_is_valid(path) {
            return Err(Reason::Target);
        }
        let authority_start = start + scheme_bytes;
        self.target = Some((authority_start..authority_start + authority_end, default_port));
        Ok(())
    }

    fn field(&mut self, line: &[u8], start: usize) -> Result<(), Reason> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(Reason::TooManyFields);
        }
        let Field { name, value, value_start } = field::parse(line)?;
        // Every name that framing reads has a length of its own but two.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host.is_some() {
                    return Err(Reason::HostRepeated);
                }
                if !authority_is_valid(value) {
                    return Err(Reason::HostInvalid);
                }
                let start = start + value_start;
                self.host = Some(start..start + value.len());
            }
            6 if name.eq_ignore_ascii_case(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Reason::Expectation);
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => field::connection(value)?,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(Reason::LengthRepeated);
                }
                self.length = Some(field::content_length(value).ok_or(Reason::LengthInvalid)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reason::Coding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// What only the whole head shows.
    fn finish(&mut self, input: &[u8]) -> Result<Framing, Reason> {
        let host = self.host.clone().ok_or(Reason::HostMissing)?;
        if let Some((authority, default_port)) = self.target.clone()
            && !same_authority(&input[authority], &input[host], default_port)
        {
            return Err(Reason::Authority);
        }
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Reason::LengthWithCoding),
            (None, true) if self.old => Err(Reason::Coding),
            (None, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::Length(0)),
        }
    }
}

/// Whether a target is in origin-form, or `*` with OPTIONS (RFC 9112 s3.2, RFC 9113 s8.3.1).
pub(in crate::server) fn target_is_valid(method: &[u8], target: &[u8]) -> bool {
    match target {
        [b'/', ..] => field::path_and_query_is_valid(target),
        b"*" => method == b"OPTIONS",
        _ => false,
    }
}

/// Whether two authorities are one: whatever their case, with `default_port` (`:80`) given or left out.
pub(in crate::server) fn same_authority(one: &[u8], other: &[u8], default_port: &[u8]) -> bool {
    let bare = |authority| <[u8]>::strip_suffix(authority, default_port).unwrap_or(authority);
    bare(one).eq_ignore_ascii_case(bare(other))
}

fn starts_with_ignoring_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
