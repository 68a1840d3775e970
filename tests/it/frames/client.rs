//! A client that sends frames as they are told to it, and notes what comes.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinHandle,
};

use super::{super::harness::soon, script::code_name};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// SETTINGS_HEADER_TABLE_SIZE = 0: what is said to us refers to nothing said before.
pub(super) const SETTINGS: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];

/// A frame that claims that length.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, length: usize, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(length).unwrap().to_be_bytes();
    [&[high, middle, low, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// What has come so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By stream.
    pub(super) answers: BTreeMap<u32, Answer>,
    pub(super) resets: BTreeMap<u32, u32>,
    pub(super) goaway: Option<u32>,
    /// Answers to our PINGs.
    pub(super) pongs: usize,
    /// What came in place of frames.
    pub(super) http1: Vec<u8>,
    pub(super) closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// It came whole.
    pub(super) ended: bool,
}

/// One connection.
pub(super) struct Client {
    writer: OwnedWriteHalf,
    seen: watch::Receiver<Seen>,
    reading: JoinHandle<()>,
    /// Our PINGs, to be told from those of a flood.
    pings: usize,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// What our PINGs carry, as no other does.
const PING: [u8; 8] = *b"are-you?";

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        let (sink, seen) = watch::channel(Seen::default());
        let reading = tokio::spawn(async move {
            // However it ends, it has ended.
            _ = read(reader, &sink).await;
            sink.send_modify(|seen| seen.closed = true);
        });
        Self { writer, seen, reading, pings: 0 }
    }

    /// Opens the connection as every client does.
    pub(super) async fn open(&mut self) {
        self.send(&[PREFACE, &SETTINGS].concat()).await;
    }

    /// Sends as much as is taken: the other side may have ended the connection.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        _ = soon(self.writer.write_all(bytes)).await;
    }

    pub(super) async fn close(&mut self) {
        _ = self.writer.shutdown().await;
    }

    /// Waits until all that was sent has been looked at, or the connection has ended.
    pub(super) async fn sync(&mut self) {
        self.pings += 1;
        let pings = self.pings;
        self.send(&frame(6, 0, 0, PING.len(), &PING)).await;
        self.until(|seen| seen.pongs >= pings || seen.closed).await;
    }

    /// Waits until this holds; whether it does.
    pub(super) async fn until(&mut self, is: impl FnMut(&Seen) -> bool) -> bool {
        tokio::time::timeout(Duration::from_secs(10), self.seen.wait_for(is)).await.is_ok_and(|is| is.is_ok())
    }

    /// Looks at what has come.
    pub(super) fn seen(&self) -> watch::Ref<'_, Seen> {
        self.seen.borrow()
    }

    /// What has come, for who reads a failure.
    pub(super) fn told(&self) -> String {
        let seen = self.seen();
        let mut told: Vec<_> =
            seen.answers.iter().map(|(stream, answer)| format!("{} on {stream}", answer.status)).collect();
        told.extend(seen.resets.iter().map(|(stream, code)| format!("reset {stream} {}", code_name(*code))));
        told.extend(seen.goaway.map(|code| format!("goaway {}", code_name(code))));
        told.extend(seen.closed.then(|| "closed".to_owned()));
        if !seen.http1.is_empty() {
            told.push(String::from_utf8_lossy(&seen.http1).into_owned());
        }
        told.truncate(20);
        told.join(", ")
    }
}

async fn read(mut reader: OwnedReadHalf, sink: &watch::Sender<Seen>) -> io::Result<()> {
    let mut header = [0; 9];
    loop {
        reader.read_exact(&mut header).await?;
        if header.starts_with(b"HTTP/1") {
            let mut text = header.to_vec();
            let ended = reader.read_to_end(&mut text).await;
            sink.send_modify(|seen| seen.http1 = text);
            ended?;
            return Ok(());
        }
        let [high, middle, low, kind, flags, id @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        reader.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes(id);
        sink.send_modify(|seen| note(seen, kind, flags, stream, &payload));
    }
}

fn note(seen: &mut Seen, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    match kind {
        0 => {
            let answer = seen.answers.entry(stream).or_default();
            answer.body.extend_from_slice(payload);
            answer.ended |= flags & 1 != 0;
        }
        1 => {
            let answer = seen.answers.entry(stream).or_default();
            if answer.status == 0 {
                answer.status = status(payload);
            }
            answer.ended |= flags & 1 != 0;
        }
        3 => _ = seen.resets.insert(stream, word(0)),
        6 if flags & 1 != 0 && *payload == PING => seen.pongs += 1,
        7 => seen.goaway = Some(word(4)),
        _ => {}
    }
}

/// The status of an answer: its first field. Nothing before it is in the table (see [`SETTINGS`]).
fn status(mut block: &[u8]) -> u16 {
    while let [update, rest @ ..] = block
        && update & 0xe0 == 0x20
    {
        block = rest;
        if update & 0x1f == 0x1f {
            let end = block.iter().position(|byte| byte & 0x80 == 0).unwrap();
            block = &block[end + 1..];
        }
    }
    match block {
        // The static table (RFC 7541 appendix A).
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        // A literal whose name is that of one of these.
        [0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e, length, rest @ ..] => {
            let text = &rest[..usize::from(length & 0x7f)];
            let digits = if length & 0x80 == 0 { String::from_utf8(text.to_vec()).unwrap() } else { digits(text) };
            digits.parse().unwrap()
        }
        other => panic!("an answer that does not begin with its status: {other:02x?}"),
    }
}

/// Three digits in Huffman code (RFC 7541 appendix B): 0 to 2 take five bits, the others six.
fn digits(text: &[u8]) -> String {
    let bits: Vec<u8> = text.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let mut rest = &bits[..];
    let mut digits = String::new();
    for _ in 0..3 {
        let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | bit);
        let (digit, length) = match number(&rest[..5]) {
            digit @ 0..=2 => (digit, 5),
            _ => (number(&rest[..6]) - 0b01_1001 + 3, 6),
        };
        digits.push(char::from(b'0' + digit));
        rest = &rest[length..];
    }
    digits
}

#[test]
fn a_status_is_read_in_each_of_its_codings() {
    assert_eq!(status(&[0x20, 0x88]), 200);
    assert_eq!(status(&[0x3f, 0xe1, 0x1f, 0x8c]), 400);
    assert_eq!(status(&[0x08, 3, b'4', b'1', b'7']), 417);
    // From RFC 7541 C.6.1: 302 in Huffman code.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
    assert_eq!(digits(&[0x64, 0x0e, 0xff]), "307");
}
