//! Reads the cases of `tests/frames`, whose `README.md` has the form.

use std::{fs, path::Path};

use super::{client::frame, unescaped};

/// What a client does, and what is to become of it.
#[derive(Debug, Default)]
pub(super) struct Case {
    pub(super) name: String,
    /// The target of its requests, which no other case has.
    pub(super) target: String,
    /// The connection's opening is left to the steps.
    pub(super) bare: bool,
    pub(super) steps: Vec<Step>,
    pub(super) verdicts: Vec<Verdict>,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits until all that was sent has been looked at.
    Sync,
    /// Waits for the answer on that stream.
    Answered(u32),
    /// Ends what the client sends.
    Close,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A whole answer on a stream; of a refusal by our own rules, its reason.
    Answer { stream: u32, status: u16, reason: Option<String> },
    /// The stream is reset.
    Reset { stream: u32, code: u32 },
    /// The connection ends, with that GOAWAY.
    Goaway { code: u32 },
    /// The connection ends.
    Closed,
    /// The connection may end, or not.
    Whatever,
    /// An answer in HTTP/1.1, and the connection's end.
    Http1 { status: u16, reason: Option<String> },
    /// Requests that the upstream executed.
    Executed { least: usize, most: usize },
}

/// The cases of one file.
pub(super) fn cases(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frames").join(file);
    let text = fs::read_to_string(path).unwrap();
    let mut reader = Reader::default();
    for line in text.lines() {
        if !line.starts_with('#') && !line.trim().is_empty() {
            reader.line(line);
        }
    }
    reader.unroll();
    reader.cases
}

#[derive(Default)]
struct Reader {
    cases: Vec<Case>,
    /// Lines that are sent so many times.
    repeated: Option<(usize, Vec<String>)>,
    /// The last stream that was opened.
    stream: u32,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if line.starts_with(' ') {
            let (_, lines) = self.repeated.as_mut().unwrap_or_else(|| panic!("nothing is repeated: {line}"));
            return lines.push(line.trim().to_owned());
        }
        self.unroll();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "case" => {
                self.stream = 0;
                let target = format!("/case/{}", self.cases.len() + 1);
                self.cases.push(Case { name: rest.to_owned(), target, ..Case::default() });
            }
            "repeat" => self.repeated = Some((rest.parse().unwrap(), Vec::new())),
            "bare" => self.case().bare = true,
            ">" => {
                let verdict = verdict(rest).unwrap_or_else(|| panic!("no such verdict: {line}"));
                self.case().verdicts.push(verdict);
            }
            _ => self.step(line),
        }
    }

    fn case(&mut self) -> &mut Case {
        self.cases.last_mut().expect("a case has begun")
    }

    fn unroll(&mut self) {
        let Some((count, lines)) = self.repeated.take() else { return };
        for _ in 0..count {
            for line in &lines {
                self.step(line);
            }
        }
    }

    fn step(&mut self, line: &str) {
        let mut words = tokens(line).into_iter();
        let first = words.next().unwrap();
        let step = match first.as_str() {
            "sync" => Step::Sync,
            "close" => Step::Close,
            "answered" => Step::Answered(words.next().unwrap().parse().unwrap()),
            "raw" => Step::Send(self.payload(words).0),
            kind => {
                let stream = self.stream_of(&words.next().unwrap());
                let flags = flags(&words.next().unwrap());
                let (payload, length) = self.payload(words);
                Step::Send(frame(self::kind(kind), flags, stream, length.unwrap_or(payload.len()), &payload))
            }
        };
        let steps = &mut self.case().steps;
        // A flood is sent in one go.
        match (steps.last_mut(), step) {
            (Some(Step::Send(sent)), Step::Send(more)) => sent.extend(more),
            (_, step) => steps.push(step),
        }
    }

    fn stream_of(&mut self, word: &str) -> u32 {
        match word {
            "next" => {
                self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
                self.stream
            }
            "same" => self.stream,
            number => {
                let number = number.parse().unwrap();
                self.stream = self.stream.max(number & !(1 << 31));
                number
            }
        }
    }

    /// The bytes of these words, and a length that is claimed in place of theirs.
    fn payload(&mut self, words: impl Iterator<Item = String>) -> (Vec<u8>, Option<usize>) {
        let (target, key) = (self.case().target.clone(), self.stream);
        let (mut bytes, mut length) = (Vec::new(), None);
        for word in words {
            if let Some(digits) = word.strip_prefix("hex:") {
                bytes.extend(hex(digits));
            } else if let Some(number) = word.strip_prefix("length:") {
                length = Some(number.parse().unwrap());
            } else if let Some(text) = word.strip_prefix('"') {
                bytes.extend(unescaped(text.strip_suffix('"').unwrap()));
            } else if let Some(method) = word.strip_prefix('@') {
                let (method, target) = match method {
                    "charge" => ("POST", format!("/v1{target}")),
                    other => (other, target.clone()),
                };
                let scope = [("authorization", "alice".to_owned()), ("idempotency-key", format!("{target}:{key}"))];
                let scope = scope.into_iter().filter(|_| target.starts_with("/v1"));
                for (name, value) in [
                    (":method", method.to_owned()),
                    (":scheme", "http".to_owned()),
                    (":authority", "api.test".to_owned()),
                    (":path", target.clone()),
                ]
                .into_iter()
                .chain(scope)
                {
                    literal(&mut bytes, name.as_bytes(), value.as_bytes());
                }
            } else {
                let at = word.get(1..).and_then(|rest| rest.find('=')).unwrap_or_else(|| panic!("what is {word}?")) + 1;
                let (name, value) = (&word[..at], word[at + 1..].trim_matches('"').replace("CASE", &target));
                literal(&mut bytes, &unescaped(name), &unescaped(&value));
            }
        }
        (bytes, length)
    }
}

/// Words between spaces; within double quotes a space is a byte like others.
fn tokens(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for char in line.chars() {
        quoted ^= char == '"';
        match char {
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// A literal field without indexing (RFC 7541 s6.2.2).
pub(super) fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        // An integer with a prefix of seven bits (RFC 7541 s5.1); no Huffman coding.
        match text.len() {
            length @ ..=126 => block.push(u8::try_from(length).unwrap()),
            length => {
                block.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).unwrap());
            }
        }
        block.extend_from_slice(text);
    }
}

const KINDS: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];

const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

fn kind(word: &str) -> u8 {
    let known = KINDS.iter().position(|name| *name == word).map(|number| u8::try_from(number).unwrap());
    known.or_else(|| byte(word)).unwrap_or_else(|| panic!("no such frame: {word}"))
}

fn flags(words: &str) -> u8 {
    words.split('+').fold(0, |flags, word| {
        flags
            | match word {
                "-" => 0,
                "END_STREAM" | "ACK" => 1,
                "END_HEADERS" => 4,
                "END" => 1 | 4,
                "PADDED" => 8,
                "PRIORITY" => 32,
                other => byte(other).unwrap_or_else(|| panic!("no such flag: {other}")),
            }
    })
}

fn byte(word: &str) -> Option<u8> {
    u8::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

fn code(word: &str) -> Option<u32> {
    let at = CODES.iter().position(|name| *name == word)?;
    u32::try_from(at).ok()
}

fn verdict(line: &str) -> Option<Verdict> {
    let words: Vec<_> = line.split(' ').collect();
    let reason = |words: &[&str]| words.first().map(|&word| word.to_owned());
    Some(match words[..] {
        ["closed"] => Verdict::Closed,
        ["served", "or", "closed"] => Verdict::Whatever,
        ["goaway", name] => Verdict::Goaway { code: code(name)? },
        ["reset", stream, name] => Verdict::Reset { stream: stream.parse().ok()?, code: code(name)? },
        ["executed", count] => Verdict::Executed { least: count.parse().ok()?, most: count.parse().ok()? },
        ["executed", "at", "most", count] => Verdict::Executed { least: 0, most: count.parse().ok()? },
        ["http1", status, ref rest @ ..] => Verdict::Http1 { status: status.parse().ok()?, reason: reason(rest) },
        [status, "on", stream, ref rest @ ..] => {
            Verdict::Answer { stream: stream.parse().ok()?, status: status.parse().ok()?, reason: reason(rest) }
        }
        _ => return None,
    })
}

/// A code's name, for who reads a failure.
pub(super) fn code_name(code: u32) -> &'static str {
    CODES.get(code as usize).copied().unwrap_or("a code that nobody knows")
}
