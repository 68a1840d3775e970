//! From text to one value: units, addresses, key sources, patterns. Nothing here knows where the text stood.

mod pattern;
mod request;

use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use http::Uri;
use ipnet::IpNet;
use redis::IntoConnectionInfo as _;

use super::settled::{Address, UpstreamTarget, UpstreamUrl};

pub(crate) use self::{
    pattern::{host, path},
    request::{fingerprint_part, header_name, key_source, media_type, method, scope_part, status},
};

/// Why a text is not the value that its key takes, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// What is wrong. Never repeats the text: it may hold a secret.
    pub(crate) message: String,
    /// What to write.
    pub(crate) help: String,
}

/// A [`Wrong`].
pub(crate) fn wrong<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), help: help.into() })
}

/// What durations are written with, and how many milliseconds each is.
const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// What sizes are written with, and how many bytes each is.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Longer than any record need be kept, and far from where adding to a clock would overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The schema's pattern for [`duration`].
pub(crate) const DURATION_PATTERN: &str = r"^([0-9]+(ms|s|m|h|d))+$";

/// The schema's pattern for [`size`].
pub(crate) const SIZE_PATTERN: &str = r"^[0-9]+(B|KiB|MiB|GiB|KB|MB|GB)$";

/// `30s`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    let bad = || Wrong {
        message: "not a duration".to_owned(),
        help: "a duration is whole numbers with units, which are ms, s, m, h and d: say 30s, 5m, 24h".to_owned(),
    };
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        // A number beyond all numbers is a long time too.
        let number: u64 = number.parse().or_else(|_| if number.is_empty() { Err(bad()) } else { Ok(u64::MAX) })?;
        if unit.is_empty() {
            return wrong("a duration without a unit", "add one of ms, s, m, h, d: say 30s, 5m, 24h");
        }
        let (_, each) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        millis = number.checked_mul(*each).and_then(|part| millis.checked_add(part)).unwrap_or(u64::MAX);
        rest = tail;
    }
    let duration = Duration::from_millis(millis);
    match (text.is_empty(), duration > LONGEST) {
        (true, _) => Err(bad()),
        (false, true) => wrong("longer than ten years", "say at most 3650d"),
        (false, false) => Ok(duration),
    }
}

/// [`duration`], but not of no length.
pub(crate) fn timeout(text: &str) -> Result<Duration, Wrong> {
    match duration(text)? {
        Duration::ZERO => wrong("a time of no length", "everything would be out of time at once: say 30s, 5m, 24h"),
        some => Ok(some),
    }
}

/// [`timeout`], or `off`.
pub(crate) fn timeout_or_off(text: &str) -> Result<Option<Duration>, Wrong> {
    if text == "off" { Ok(None) } else { timeout(text).map(Some) }
}

/// `64MiB`.
pub(crate) fn size(text: &str) -> Result<u64, Wrong> {
    let help = "a size is a whole number with its unit: say 512B, 32KiB, 64MiB, 2GiB";
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let Ok(number) = number.parse::<u64>() else { return wrong("not a size", help) };
    if unit.is_empty() {
        return wrong("a size without a unit", help);
    }
    let Some((_, each)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else { return wrong("not a size", help) };
    match number.checked_mul(*each) {
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        Some(_) | None => wrong("a size beyond every machine", help),
    }
}

/// The shortest text that reads back as this duration.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, each) = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, each)| millis.is_multiple_of(*each) && millis >= *each)
        .unwrap_or(&("s", 1_000));
    format!("{}{unit}", millis / each)
}

/// The shortest text that reads back as this size.
pub(crate) fn show_size(bytes: u64) -> String {
    let (unit, each) = SIZE_UNITS[..4]
        .iter()
        .rev()
        .find(|(_, each)| bytes.is_multiple_of(*each) && bytes >= *each)
        .unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / each)
}

/// Sockets' paths are held in 108 bytes, the last of them NUL.
const UNIX_PATH_BYTES: usize = 107;

fn unix_path(path: &str) -> Result<PathBuf, Wrong> {
    match path.len() {
        _ if path.contains('\0') => wrong("a unix socket's path with a NUL", "say \"unix:/run/oncegate.sock\""),
        0 => wrong("a unix socket without a path", "say \"unix:/run/oncegate.sock\""),
        1..=UNIX_PATH_BYTES => Ok(PathBuf::from(path)),
        _ => wrong(
            "a unix socket's path of more than 107 bytes",
            "choose a shorter one: say \"unix:/run/oncegate.sock\"",
        ),
    }
}

/// Where to listen: `0.0.0.0:8080`, `[::]:8080`, `unix:/run/oncegate.sock`.
pub(crate) fn address(text: &str) -> Result<Address, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(Address::Unix);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Address::Tcp(address));
    }
    let help = match text.rsplit_once(':') {
        Some(("", port)) if port.parse::<u16>().is_ok() => {
            format!("for every address of the host say \"0.0.0.0:{port}\" or \"[::]:{port}\"")
        }
        Some(("localhost", port)) if port.parse::<u16>().is_ok() => format!("say \"127.0.0.1:{port}\""),
        _ => "say an address and a port, \"0.0.0.0:8080\" or \"[::]:8080\", or \"unix:/run/oncegate.sock\"".to_owned(),
    };
    wrong("not an address to listen on", help)
}

/// A network, or one address.
pub(crate) fn network(text: &str) -> Result<IpNet, Wrong> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .or_else(|_| wrong("not a network", "say \"10.0.0.0/8\", \"192.0.2.7\" or \"fd00::/8\""))
}

/// An upstream's URL.
pub(crate) fn upstream_url(text: &str) -> Result<UpstreamUrl, Wrong> {
    const SAY: &str = "say \"http://127.0.0.1:9000\", \"https://api.internal\" or \"unix:/run/app.sock\"";
    if let Some(path) = text.strip_prefix("unix:") {
        let target = UpstreamTarget::Unix(unix_path(path)?);
        return Ok(UpstreamUrl { target, tls: false, authority: "localhost".to_owned() });
    }
    let Ok(uri) = text.parse::<Uri>() else { return wrong("not a URL", SAY) };
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(_) | None => return wrong("a URL whose scheme is not http, https or unix", SAY),
    };
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return wrong("a URL without a host", SAY);
    };
    if authority.as_str().contains('@') {
        return wrong("a URL with user information", "leave it out: the client's Authorization goes on unchanged");
    }
    if uri.path() != "/" || uri.query().is_some() || text.ends_with('?') {
        return wrong("a URL with a path", "leave the path out: the path of each request goes on unchanged");
    }
    let bracketed = authority.host().strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bracketed.is_some_and(|host| host.parse::<Ipv6Addr>().is_err()) {
        return wrong("a URL with brackets around what is no IPv6 address", "say \"http://[::1]:9000\"");
    }
    let host = bracketed.unwrap_or_else(|| authority.host());
    // Read by hand: `Authority` takes a port beyond 65535 for none.
    let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or_default().strip_prefix(':') {
        None if tls => 443,
        None => 80,
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => port,
            Ok(_) | Err(_) => return wrong("a URL with a port that is none", SAY),
        },
    };
    let target = UpstreamTarget::Tcp(host.to_owned(), port);
    Ok(UpstreamUrl { target, tls, authority: authority.as_str().to_owned() })
}

/// A Redis server's URL, which stays text: it may hold a password.
pub(crate) fn redis_url(text: &str) -> Result<String, Wrong> {
    const SAY: &str = "say \"redis://127.0.0.1:6379/0\", or rediss:// for TLS";
    let rest = text.strip_prefix("redis://").or_else(|| text.strip_prefix("rediss://"));
    let Some(place) = rest.map(|rest| rest.rsplit_once('@').map_or(rest, |(_, place)| place)) else {
        return wrong("not the URL of a Redis server", SAY);
    };
    if place.is_empty() || place.starts_with(['/', ':']) || text.contains(char::is_whitespace) {
        return wrong("not the URL of a Redis server", SAY);
    }
    // The database's number is behind the first slash; the client takes any other path for a bad one, but for slashes
    // around it, and a negative one for good.
    let database = place.split(['?', '#']).next().and_then(|place| place.split_once('/')).map_or("", |(_, path)| path);
    let database = database.trim_matches('/');
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return wrong("the URL of a Redis server with a database that is no number", SAY);
    }
    // Read as the client will read it.
    match text.into_connection_info() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => wrong("not the URL of a Redis server: its host or its port is none", SAY),
    }
}

/// A documentation URL that can stand in a `Link` field.
pub(crate) fn docs_url(text: &str) -> Result<String, Wrong> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"'));
    let web = text.parse::<Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    if plain && web {
        Ok(text.to_owned())
    } else {
        wrong("not the URL of a page", "say \"https://docs.example.com/idempotency\"")
    }
}

/// A name that stands behind a prefix.
fn named(name: &str, say: &str) -> Result<String, Wrong> {
    if name.is_empty() {
        wrong("a name is missing", say)
    } else if name.chars().any(char::is_control) {
        wrong("a name with control characters", say)
    } else {
        Ok(name.to_owned())
    }
}

/// Any text that is not empty and has no control characters.
pub(crate) fn line(text: &str) -> Result<String, Wrong> {
    named(text, "say a few words on one line").map_err(|_| Wrong {
        message: "an empty text, or one with control characters".to_owned(),
        help: "say a few words on one line".to_owned(),
    })
}

/// The most that a route's name may have, bytes: it stands in every record and every series.
const ROUTE_NAME_MOST: usize = 128;

/// A route's name.
pub(crate) fn route_name(text: &str) -> Result<String, Wrong> {
    let name = line(text)?;
    if name.len() > ROUTE_NAME_MOST {
        let message = format!("a name of {} bytes", name.len());
        return wrong(
            message,
            format!("say it in {ROUTE_NAME_MOST} bytes at most; id = \"…\" keeps the records of the old name"),
        );
    }
    Ok(name)
}

/// A file's path.
pub(crate) fn file(text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() || text.contains('\0') {
        wrong("not the path of a file", "say \"/etc/oncegate/secret\"")
    } else {
        Ok(PathBuf::from(text))
    }
}

#[cfg(test)]
mod tests;
