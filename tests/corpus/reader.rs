//! Reads the corpus: `README.md` has the form. Shared by the test binaries that send it.

use std::{fmt, fs, path::Path};

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// So many requests are handled, and the connection is good for another.
    Pass(usize),
    /// So many requests are handled; the next one's head is refused for that reason.
    Refuse(String, usize),
    /// So many requests are handled, the last of which has a body that breaks off for that reason.
    Break(String, usize),
    /// So many requests are handled as far as they are there.
    Wait(usize),
}

/// Raw bytes of a client, and what is to become of them.
pub(crate) struct Payload {
    /// As it stands in its file.
    pub(crate) line: String,
    pub(crate) verdict: Verdict,
    pub(crate) bytes: Vec<u8>,
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line.fmt(f)
    }
}

/// Every payload, in an order that does not change.
pub(crate) fn corpus() -> Vec<Payload> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut payloads = Vec::new();
    for path in files {
        let text = fs::read_to_string(path).unwrap();
        payloads.extend(text.lines().filter(|line| !line.starts_with('#')).map(parse));
    }
    assert!(payloads.len() >= 400, "only {} payloads", payloads.len());
    payloads
}

fn parse(line: &str) -> Payload {
    let (verdict, bytes) = line.split_once(" | ").unwrap_or_else(|| panic!("no verdict: {line}"));
    let words: Vec<_> = verdict.split(' ').collect();
    let verdict = match words[..] {
        ["pass", count] => Verdict::Pass(count.parse().unwrap()),
        ["wait", count] => Verdict::Wait(count.parse().unwrap()),
        ["refuse", reason, "after", count] => Verdict::Refuse(reason.to_owned(), count.parse().unwrap()),
        ["break", reason, "after", count] => Verdict::Break(reason.to_owned(), count.parse().unwrap()),
        _ => panic!("no such verdict: {line}"),
    };
    Payload { line: line.to_owned(), verdict, bytes: unescaped(bytes) }
}

/// Bytes from their escaped form.
pub(crate) fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => {
                let (escape, length) = match rest.as_bytes()[0] {
                    b'r' => (b'\r', 1),
                    b'n' => (b'\n', 1),
                    b't' => (b'\t', 1),
                    b'0' => (0, 1),
                    b'\\' => (b'\\', 1),
                    b'"' => (b'"', 1),
                    b'x' => (u8::from_str_radix(&rest[1..3], 16).unwrap(), 3),
                    other => panic!("no such escape: {}", char::from(other)),
                };
                bytes.push(escape);
                rest = &rest[length..];
            }
            '{' if repetition(rest).is_some() => {
                let (count, repeated, length) = repetition(rest).unwrap();
                bytes.extend(unescaped(repeated).repeat(count));
                rest = &rest[length..];
            }
            _ => bytes.extend(first.to_string().as_bytes()),
        }
    }
    bytes
}

fn repetition(text: &str) -> Option<(usize, &str, usize)> {
    let (inner, _) = text.split_once('}')?;
    let (count, repeated) = inner.split_once('*')?;
    Some((count.parse().ok()?, repeated, inner.len() + 1))
}
