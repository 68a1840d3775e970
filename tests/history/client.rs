//! A client: it sends one call at a time, to whichever process it is told, and logs what it was told.

use std::{collections::HashMap, io, net::SocketAddr, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{
    history::{Answer, Call, Record, Told},
    upstream::CALL,
    wire::{Body, Framing, Reader, field},
    world::World,
};

/// The longest that anybody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) process: usize,
    pub(crate) record: Record,
    pub(crate) body: String,
    /// After which time the client goes away.
    pub(crate) gives_up_after: Option<Duration>,
    pub(crate) is_last: bool,
}

/// Connections to the processes, kept as long as they work.
#[derive(Default)]
pub(crate) struct Client {
    connections: HashMap<usize, Connection>,
}

struct Connection {
    address: SocketAddr,
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Client {
    /// Asks, logs, and returns what was told.
    pub(crate) async fn ask(&mut self, world: &World, question: Question) -> Told {
        let Question { process, record, body, gives_up_after, is_last } = question;
        let number = world.log.next_call();
        let from = world.log.now();
        let wait = gives_up_after.unwrap_or(PATIENCE);
        let told = match tokio::time::timeout(wait, self.exchange(world, process, &record, &body, number)).await {
            Ok(Ok((connection, answer))) => {
                self.connections.insert(process, connection);
                Told::Answer(answer)
            }
            Ok(Err(error)) => Told::Broken(error.to_string()),
            Err(_) if gives_up_after.is_some() => Told::GaveUp,
            Err(_) => Told::Broken(format!("no answer within {PATIENCE:?}")),
        };
        let to = world.log.now();
        world.log.call(Call { number, process, record, body, from, to, told: told.clone(), is_last });
        told
    }

    /// Sends one request and reads its answer. The connection is given back only where it can be used again.
    async fn exchange(
        &mut self,
        world: &World,
        process: usize,
        record: &Record,
        body: &str,
        number: u64,
    ) -> io::Result<(Connection, Answer)> {
        let address = world.address(process);
        let kept = self.connections.remove(&process).filter(|connection| connection.address == address);
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(address).await?,
        };
        let Record { scope, route, key } = record;
        let length = body.len();
        let request = format!(
            "POST {route} HTTP/1.1\r\nHost: api.test\r\nAuthorization: {scope}\r\nIdempotency-Key: {key}\r\n\
             {CALL}: {number}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        connection.writer.write_all(request.as_bytes()).await?;
        let answer = connection.answer().await?;
        Ok((connection, answer))
    }
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { address, reader: Reader::new(reader), writer })
    }

    async fn answer(&mut self) -> io::Result<Answer> {
        let head = self.reader.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let word = head.start.split(' ').nth(1);
        let status = word.and_then(|word| word.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut body = Body::default();
        self.reader.body(Framing::of(&head.fields, Framing::Close), &mut body).await;
        if !body.whole {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if field(&head.fields, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            // No address is that: it will not be used again.
            self.address = SocketAddr::from(([0, 0, 0, 0], 0));
        }
        let of = |name| field(&head.fields, name).unwrap_or_default();
        let mut answer = Answer {
            status,
            outcome: of("idempotency-status").split(';').next().unwrap_or_default().to_owned(),
            is_replayed: of("idempotent-replayed") == "true",
            ..Answer::default()
        };
        if of("content-type") == "application/problem+json" {
            let problem: serde_json::Value = serde_json::from_slice(&body.bytes)?;
            let member = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
            answer.code = member("code");
            answer.executed = member("executed");
        } else {
            answer.token = String::from_utf8_lossy(&body.bytes).into_owned();
        }
        Ok(answer)
    }
}

/// A request to the admin interface; the body of its answer.
pub(crate) async fn scrape(address: SocketAddr) -> String {
    let mut connection = Connection::open(address).await.unwrap();
    connection.writer.write_all(b"GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, connection.answer()).await.expect("metrics come").unwrap();
    assert_eq!(answer.status, 200);
    answer.token
}
