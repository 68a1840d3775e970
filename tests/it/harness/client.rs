//! A raw client: exact bytes out, one checked answer in.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

use super::{
    soon,
    wire::{Body, Fields, Framing, Head, Reader, field},
};

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// The 1xx before it.
    pub(crate) interim: Vec<Head>,
    /// The body ended as its framing says.
    pub(crate) whole: bool,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// Every value of that name, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The token of `Idempotency-Status`; empty where there is none.
    pub(crate) fn outcome(&self) -> &str {
        self.field("idempotency-status").unwrap_or_default().split(';').next().unwrap_or_default()
    }

    /// A parameter of `Idempotency-Status`; empty where it has no value.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let parameters = self.field("idempotency-status")?.split(';').skip(1);
        parameters
            .map(|text| text.split_once('=').unwrap_or((text, "")))
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    /// The problem's code; empty where the answer is none.
    pub(crate) fn code(&self) -> String {
        if self.field("content-type") != Some("application/problem+json") {
            return String::new();
        }
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Fails unless this is that refusal.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{self:#?}\n{}",
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    /// Fails unless this is an answer of that status whose `Idempotency-Status` begins with that token.
    #[track_caller]
    pub(crate) fn was(&self, status: u16, outcome: &str) -> &Self {
        assert_eq!(
            (self.status, self.outcome()),
            (status, outcome),
            "{self:#?}\n{}",
            String::from_utf8_lossy(&self.body)
        );
        self
    }
}

/// One connection to the proxy.
pub(crate) struct Connection<R = OwnedReadHalf, W = OwnedWriteHalf> {
    reader: Reader<R>,
    writer: W,
    /// The answer to come has no body, whatever its fields say.
    pub(crate) head_only: bool,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.unwrap()
    }

    pub(crate) async fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: Reader::new(reader), writer, head_only: false })
    }

    /// Closes the connection with RST.
    pub(crate) fn reset(self) {
        let stream: &TcpStream = self.reader.stream().as_ref();
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Connection<tokio::io::ReadHalf<tokio::net::UnixStream>, tokio::io::WriteHalf<tokio::net::UnixStream>> {
    pub(crate) async fn open_unix(path: &std::path::Path) -> Self {
        let (reader, writer) = tokio::io::split(tokio::net::UnixStream::connect(path).await.unwrap());
        Self { reader: Reader::new(reader), writer, head_only: false }
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).await.unwrap();
    }

    pub(crate) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.writer.write_all(bytes.as_ref()).await
    }

    /// Ends what we send; answers may still come.
    pub(crate) async fn half_close(&mut self) {
        self.writer.shutdown().await.unwrap();
    }

    /// Reads the next answer, and the 1xx before it.
    pub(crate) async fn reply(&mut self) -> io::Result<Reply> {
        let mut reply = self.head().await?;
        if matches!(reply.status, 204 | 304) || self.head_only || reply.status == 101 {
            reply.whole = true;
        } else {
            let mut body = Body::default();
            self.reader.body(Framing::of(&reply.fields, Framing::Close), &mut body).await;
            reply = Reply { body: body.bytes, trailers: body.trailers, whole: body.whole, ..reply };
        }
        Ok(reply)
    }

    /// Reads the next answer's head, and the 1xx before it; the body stays on the wire.
    pub(crate) async fn head(&mut self) -> io::Result<Reply> {
        let mut interim = Vec::new();
        loop {
            let head = self.reader.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let status =
                head.start.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(head);
            } else {
                return Ok(Reply {
                    status,
                    fields: head.fields,
                    body: Vec::new(),
                    trailers: Vec::new(),
                    interim,
                    whole: false,
                });
            }
        }
    }

    /// Reads one line of a body that is still on the wire.
    pub(crate) async fn line(&mut self) -> io::Result<Option<String>> {
        self.reader.line().await
    }

    pub(crate) async fn exchange(&mut self, request: impl AsRef<[u8]>) -> Reply {
        self.write(request).await;
        soon(self.reply()).await.unwrap()
    }

    /// Whether the other side closes now, with nothing more to say.
    pub(crate) async fn is_closed(&mut self) -> bool {
        soon(self.reader.ended()).await
    }
}

/// A request being written down.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    address: SocketAddr,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) host: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Option<Vec<u8>>,
}

impl Post {
    /// A request without a body.
    pub(crate) fn new(address: SocketAddr, method: &str, target: &str) -> Self {
        Self {
            address,
            method: method.into(),
            target: target.into(),
            host: "api.test".into(),
            fields: Vec::new(),
            body: None,
        }
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    /// With `Idempotency-Key`.
    pub(crate) fn key(self, key: impl AsRef<str>) -> Self {
        self.field("Idempotency-Key", key.as_ref())
    }

    /// With `Authorization`: the scope of the tests' configuration.
    pub(crate) fn auth(self, who: &str) -> Self {
        self.field("Authorization", &format!("Bearer {who}"))
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Takes every field of that name away.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_vec());
        self
    }

    pub(crate) fn json(self, body: &str) -> Self {
        self.without("content-type").field("Content-Type", "application/json").body(body)
    }

    /// As bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), self.body.as_deref().unwrap_or_default()].concat()
    }

    /// Sends it on a connection of its own and reads the answer.
    pub(crate) async fn send(&self) -> Reply {
        soon(self.try_send()).await.unwrap()
    }

    pub(crate) async fn try_send(&self) -> io::Result<Reply> {
        let mut connection = Connection::try_open(self.address).await?;
        connection.head_only = self.method == "HEAD";
        connection.try_write(self.bytes()).await?;
        connection.reply().await
    }

    /// Sends it and leaves the answer on the wire.
    pub(crate) async fn begin(&self) -> Connection {
        let mut connection = Connection::open(self.address).await;
        connection.head_only = self.method == "HEAD";
        connection.write(self.bytes()).await;
        connection
    }

    /// Sends it in a task of its own.
    pub(crate) fn spawn(&self) -> tokio::task::JoinHandle<Reply> {
        let post = self.clone();
        tokio::spawn(async move { post.send().await })
    }
}
