//! The grammar of field lines, and of the values that framing reads.

use memchr::memchr3;

use crate::server::refusal::Reason;

/// A field line's parts.
pub(super) struct Field<'a> {
    pub(super) name: &'a [u8],
    /// Without the white space around it.
    pub(super) value: &'a [u8],
    /// Where the value begins in the line.
    pub(super) value_start: usize,
}

/// A field line without its CR LF (RFC 9112 s5).
pub(super) fn parse(line: &[u8]) -> Result<Field<'_>, Reason> {
    let mut classes = 0;
    let name_end = line
        .iter()
        .position(|&byte| {
            let class = CLASS[usize::from(byte)];
            classes |= class;
            class & TOKEN == 0
        })
        .unwrap_or(line.len());
    if name_end == 0 || line.get(name_end) != Some(&b':') {
        return Err(match line.first() {
            Some(b' ' | b'\t') => Reason::ObsFold,
            Some(_) | None => Reason::FieldName,
        });
    }
    let name = &line[..name_end];
    if classes & UNDERSCORE != 0 && looks_like_framing(name) {
        return Err(Reason::Lookalike);
    }
    let raw = &line[name_end + 1..];
    if has_control(raw) {
        return Err(Reason::ControlCharacter);
    }
    let value = raw.trim_ascii_start();
    let value_start = line.len() - value.len();
    Ok(Field { name, value: value.trim_ascii_end(), value_start })
}

/// Whether a value has a byte that is neither visible, nor SP, HTAB or obs-text (RFC 9110 s5.5).
fn has_control(value: &[u8]) -> bool {
    // Without an early exit, which the compiler turns into a few vector instructions.
    value.iter().fold(false, |found, &byte| found | ((byte < b' ' && byte != b'\t') | (byte == 0x7f)))
}

/// Whether some upstream, reading `_` as `-`, would take the name for one of those that frame or route a request, which it
/// is not.
pub(in crate::server) fn looks_like_framing(name: &[u8]) -> bool {
    const FRAMING: [&[u8]; 8] = [
        b"content-length",
        b"transfer-encoding",
        b"host",
        b"connection",
        b"upgrade",
        b"expect",
        b"trailer",
        b"keep-alive",
    ];
    let like = |framing: &[u8]| {
        name.len() == framing.len()
            && name.contains(&b'_')
            && name
                .iter()
                .zip(framing)
                .all(|(&byte, &meant)| byte.to_ascii_lowercase() == meant || (byte == b'_' && meant == b'-'))
    };
    FRAMING.into_iter().any(like)
}

/// A plain decimal number, as every parser reads it: no sign, no leading zero, no list; less than 2^63.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || (value.len() > 1 && value[0] == b'0') {
        return None;
    }
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    // 19 digits are less than 2^64.
    let number = value.iter().try_fold(0u64, |number, &byte| Some(number * 10 + digit(byte)?))?;
    i64::try_from(number).is_ok().then_some(number)
}

/// Refuses to have Connection remove a field that framing or routing reads: the next hop would read another request.
pub(super) fn connection(value: &[u8]) -> Result<(), Reason> {
    if value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close") {
        return Ok(());
    }
    const NEVER: [&[u8]; 3] = [b"host", b"content-length", b"transfer-encoding"];
    let names_framing = value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .any(|option| NEVER.iter().any(|name| option.eq_ignore_ascii_case(name)));
    if names_framing { Err(Reason::ConnectionNames) } else { Ok(()) }
}

/// `host` or `host:port`: a name of letters, digits, `-`, `.` and `_`, an IPv4 address, or an IPv6 address in brackets.
/// A subset of RFC 3986 s3.2 that every parser reads alike: no userinfo, no percent-encoding, no empty port.
pub(in crate::server) fn authority_is_valid(authority: &[u8]) -> bool {
    let port = match authority {
        [b'[', rest @ ..] => {
            let Some(end) = memchr3(b']', b'%', b'/', rest) else { return false };
            let address = &rest[..end];
            let is_address = std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
            if rest[end] != b']' || !is_address {
                return false;
            }
            &rest[end + 1..]
        }
        _ => {
            let end = authority.iter().position(|&byte| CLASS[usize::from(byte)] & HOST == 0);
            let end = end.unwrap_or(authority.len());
            if end == 0 {
                return false;
            }
            &authority[end..]
        }
    };
    match port {
        [] => true,
        [b':', digits @ ..] if (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            digits.iter().fold(0, |port, byte| port * 10 + u32::from(byte - b'0')) <= 65535
        }
        _ => false,
    }
}

/// Whether these bytes may stand in a path and a query: what hyper's URI takes, less what is not ASCII, a fragment's `#`,
/// and nothing that needs a second look.
pub(super) fn path_and_query_is_valid(target: &[u8]) -> bool {
    let path_end = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at(path_end);
    let all =
        |bytes: &[u8], class: u8| bytes.iter().fold(class, |common, &byte| common & CLASS[usize::from(byte)]) != 0;
    all(path, PATH) && all(query, QUERY)
}

/// Whether a byte may stand in a token (RFC 9110 s5.6.2).
pub(super) const fn is_token_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

const TOKEN: u8 = 1;
const UNDERSCORE: u8 = 2;
const HOST: u8 = 4;
const PATH: u8 = 8;
const QUERY: u8 = 16;

/// What each byte may be part of.
const CLASS: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        let letter = byte as u8;
        let alphanumeric = letter.is_ascii_alphanumeric();
        let mut class = 0;
        if alphanumeric
            || matches!(
                letter,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            class |= TOKEN;
        }
        if letter == b'_' {
            class |= UNDERSCORE;
        }
        if alphanumeric || matches!(letter, b'-' | b'.' | b'_') {
            class |= HOST;
        }
        if !matches!(letter, b'"' | b'#' | b'<' | b'>' | b'?' | b'`' | b'{' | b'}') {
            class |= PATH;
        }
        if !matches!(letter, b'"' | b'#' | b'<' | b'>') {
            class |= QUERY;
        }
        classes[byte] = class;
        byte += 1;
    }
    classes
};
