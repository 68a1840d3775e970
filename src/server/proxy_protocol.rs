//! The PROXY protocol, versions 1 and 2, as HAProxy's `doc/proxy-protocol.txt` has it: what a proxy before us says, in a
//! connection's first bytes, of the client that it speaks for.
//!
//! [`parse`] is a pure function of the bytes so far, and gives the same verdict however they were split. Whom to ask for a
//! header, and what its lack costs, is its caller's business; additional values (TLVs) are skipped.

#[cfg(any(test, fuzzing))]
mod properties;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

#[cfg(any(test, fuzzing))]
pub(crate) use self::properties::hold;

/// What version 1, a line of text, begins with (section 2.1).
const TEXT: &[u8] = b"PROXY ";
/// The longest line, its CR LF included (section 2.1).
const TEXT_MAX: usize = 107;

/// What version 2, which is binary, begins with (section 2.2).
const BINARY: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, and the length of what follows.
const BINARY_HEAD: usize = 16;
/// What may follow that: addresses, and values that are skipped. Those of TLS with a client's certificate are the longest
/// that anybody sends, a few hundred bytes.
const BINARY_BODY_MAX: usize = 4096;

/// What a proxy said of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// Nothing: a connection of its own (`LOCAL`), or one whose client has no IP address (`UNKNOWN`).
    Unnamed,
    /// Who connected where. IPv4 addresses are never in their IPv6-mapped form.
    Named {
        /// The client's end.
        client: SocketAddr,
        /// The proxy's end, which is ours as far as the client knows.
        local: SocketAddr,
    },
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it begins otherwise")]
    Missing,
    #[error("it breaks off")]
    BrokenOff,
    #[error("it is too long")]
    TooLong,
    #[error("its line is malformed")]
    Line,
    #[error("its version or command is unknown")]
    Command,
    #[error("its address family or transport is unknown")]
    Family,
    #[error("it is too short for its addresses")]
    TooShort,
}

/// Reads the header that `input` begins with, and says how long it is; `None` when its end is not there yet.
///
/// # Errors
/// What `input` begins with is no header, whatever follows.
pub(super) fn parse(input: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let begins_with = |signature: &[u8]| {
        let common = input.len().min(signature.len());
        input[..common] == signature[..common]
    };
    if begins_with(BINARY) {
        parse_binary(input)
    } else if begins_with(TEXT) {
        parse_text(input)
    } else {
        Err(Malformed::Missing)
    }
}

fn parse_text(input: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let window = &input[..input.len().min(TEXT_MAX)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() < TEXT_MAX { Ok(None) } else { Err(Malformed::TooLong) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(Malformed::Line)?;
    let rest = line.strip_prefix(TEXT).and_then(|rest| std::str::from_utf8(rest).ok()).ok_or(Malformed::Line)?;
    Ok(Some((line_header(rest).ok_or(Malformed::Line)?, end + 1)))
}

/// What follows `PROXY `.
fn line_header(rest: &str) -> Option<Header> {
    let mut words = rest.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever else stands there is to be ignored.
        return Some(Header::Unnamed);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (client, local) = (address()?, address()?);
    let mut port = || decimal(words.next()?);
    let header = named((client, port()?), (local, port()?));
    words.next().is_none().then_some(header)
}

/// A port as plain digits: neither sign nor leading zeros.
fn decimal(text: &str) -> Option<u16> {
    let plain = text == "0" || text.starts_with(|first: char| ('1'..='9').contains(&first));
    text.parse().ok().filter(|_| plain)
}

fn parse_binary(input: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some((head, rest)) = input.split_first_chunk::<BINARY_HEAD>() else { return Ok(None) };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, LOCAL | PROXY) {
        return Err(Malformed::Command);
    }
    if length > BINARY_BODY_MAX {
        return Err(Malformed::TooLong);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let header = if command == LOCAL { Header::Unnamed } else { binary_header(family, body)? };
    Ok(Some((header, BINARY_HEAD + length)))
}

/// Version 2 in the upper four bits, the command in the lower.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

fn binary_header(family: u8, body: &[u8]) -> Result<Header, Malformed> {
    // A datagram's sender is as good a client: a proxy that speaks HTTP/3 tells of its own.
    let (family, transport) = (family >> 4, family & 0x0f);
    match (family, transport) {
        (0..=3, 0) | (0, 1..=2) => Ok(Header::Unnamed),
        (1, 1..=2) => binary_addresses(body, |octets: [u8; 4]| Ipv4Addr::from(octets).into()),
        (2, 1..=2) => binary_addresses(body, |octets: [u8; 16]| Ipv6Addr::from(octets).into()),
        // The paths of a Unix socket's ends, which name no client.
        (3, 1..=2) => Ok(Header::Unnamed),
        _ => Err(Malformed::Family),
    }
}

/// Two addresses, then their two ports.
fn binary_addresses<const N: usize>(body: &[u8], address: impl Fn([u8; N]) -> IpAddr) -> Result<Header, Malformed> {
    let whole = || {
        let (client, rest) = body.split_first_chunk::<N>()?;
        let (local, rest) = rest.split_first_chunk::<N>()?;
        let (client_port, rest) = rest.split_first_chunk()?;
        let (local_port, _values) = rest.split_first_chunk()?;
        let port = |bytes: &[u8; 2]| u16::from_be_bytes(*bytes);
        Some(named((address(*client), port(client_port)), (address(*local), port(local_port))))
    };
    whole().ok_or(Malformed::TooShort)
}

fn named(client: (IpAddr, u16), local: (IpAddr, u16)) -> Header {
    let canonical = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
    Header::Named { client: canonical(client), local: canonical(local) }
}

/// What is read at once: the header, and mostly all of what follows it in the first segment.
const FIRST_READ: usize = 4096;

/// Reads a header, and what happened to come with it, which is left in `read` without the header. How long that may take is
/// the caller's to bound; what had come by then stands in `read`.
///
/// # Errors
/// The transport's; of the kind `InvalidData`, with a [`Malformed`] within, where there is no header.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> io::Result<Header> {
    let malformed = |what: Malformed| io::Error::new(io::ErrorKind::InvalidData, what);
    read.reserve(FIRST_READ);
    loop {
        if stream.read_buf(read).await? == 0 {
            return Err(malformed(Malformed::BrokenOff));
        }
        if let Some((header, length)) = parse(read).map_err(malformed)? {
            read.drain(..length);
            return Ok(header);
        }
    }
}

#[cfg(test)]
mod tests;
