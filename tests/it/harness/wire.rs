//! HTTP/1.1 as bytes, for both ends: small, strict about framing, and never the code under test.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Field lines in the order they came, names as written.
pub(crate) type Fields = Vec<(String, String)>;

/// A start line and its fields.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) fields: Fields,
}

/// The first field of that name.
pub(crate) fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// How a body ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    Close,
}

impl Framing {
    /// Of a message that may have a body; a request without either field has none.
    pub(crate) fn of(fields: &Fields, otherwise: Self) -> Self {
        if field(fields, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            Self::Chunked
        } else if let Some(length) = field(fields, "content-length") {
            Self::Length(length.trim().parse().unwrap())
        } else {
            otherwise
        }
    }
}

/// A body as it came.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: Fields,
    /// It ended as its framing says.
    pub(crate) whole: bool,
}

/// Reads messages from a stream.
pub(crate) struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Reads one line without its CRLF; `None` when the stream ends before its first byte.
    pub(crate) async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    async fn fields(&mut self) -> io::Result<Fields> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Reads a head; `None` when the stream ends before it begins.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(start) = self.line().await? else { return Ok(None) };
        Ok(Some(Head { start, fields: self.fields().await? }))
    }

    /// Reads a body as far as it comes, into `body`, so that a caller that gives up still has what came.
    pub(crate) async fn body(&mut self, framing: Framing, body: &mut Body) {
        body.whole = self.body_to_end(framing, body).await.is_ok();
    }

    async fn body_to_end(&mut self, framing: Framing, body: &mut Body) -> io::Result<()> {
        match framing {
            Framing::Length(length) => self.exactly(length, &mut body.bytes).await,
            Framing::Close => loop {
                body.bytes.append(&mut self.buffer);
                if self.fill().await? == 0 {
                    return Ok(());
                }
            },
            Framing::Chunked => loop {
                let line = self.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                if size == 0 {
                    body.trailers = self.fields().await?;
                    return Ok(());
                }
                self.exactly(size, &mut body.bytes).await?;
                if self.line().await?.as_deref() != Some("") {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            },
        }
    }

    async fn exactly(&mut self, mut left: usize, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let take = left.min(self.buffer.len());
            into.extend(self.buffer.drain(..take));
            left -= take;
            if left == 0 {
                return Ok(());
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits for the stream's end. Whether nothing more came before it.
    pub(crate) async fn ended(&mut self) -> bool {
        self.buffer.is_empty() && !matches!(self.fill().await, Ok(1..))
    }
}
