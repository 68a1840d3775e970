//! The upstream: it logs what it executes, and has bad days that the seed draws.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::{
    history::{Fate, Record},
    log::Log,
    luck::Luck,
    wire::{Body, Framing, Head, Reader, field},
};

/// The field that carries a call's number.
pub(crate) const CALL: &str = "X-Call";

/// A running upstream, which ends with its round.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    log: Arc<Log>,
    is_calm: AtomicBool,
}

impl Upstream {
    pub(crate) async fn start(seed: u64, log: Arc<Log>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { seed, log, is_calm: AtomicBool::new(false) });
        let serving = shared.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                connections.spawn(async move { shared.serve(stream).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, shared, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it answers everything, and at once.
    pub(crate) fn calm_down(&self) {
        self.shared.is_calm.store(true, Ordering::SeqCst);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// How an answer is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    BeforeTheHead,
    WithinTheHead,
    WithinTheBody,
}

/// What it does with one request.
#[derive(Debug, Clone, Copy)]
struct Mood {
    delay: Duration,
    loss: Loss,
}

impl Shared {
    async fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let (reader, mut writer) = stream.into_split();
        let mut reader = Reader::new(reader);
        while let Ok(Some(head)) = reader.head().await {
            let mut body = Body::default();
            reader.body(Framing::of(&head.fields, Framing::Length(0)), &mut body).await;
            if !body.whole {
                return;
            }
            let (record, call) = read(&head);
            let body = String::from_utf8(body.bytes).unwrap();
            let (place, token, fate, mood) = self.log.begin(&record, call, body, |before| self.draw(&record, before));
            tokio::time::sleep(mood.delay).await;
            self.log.end(place);
            let (status, more) = match fate {
                Fate::Answered(status) | Fate::Unsure(status) => (status, ""),
                Fate::Released(status) => (status, "Retry-After: 1\r\n"),
                Fate::Lost => (201, ""),
            };
            let length = token.len();
            let answer = format!(
                "HTTP/1.1 {status} Drawn\r\nContent-Type: text/plain\r\n{more}Content-Length: {length}\r\n\r\n{token}"
            );
            let sent = match (fate, mood.loss) {
                (Fate::Answered(_) | Fate::Unsure(_) | Fate::Released(_), _) => answer.len(),
                (Fate::Lost, Loss::BeforeTheHead) => 0,
                (Fate::Lost, Loss::WithinTheHead) => 30,
                (Fate::Lost, Loss::WithinTheBody) => answer.len() - 2,
            };
            if writer.write_all(&answer.as_bytes()[..sent]).await.is_err() || sent < answer.len() {
                return;
            }
        }
    }

    /// What befalls a record's next execution is drawn by the record, so that it is the same however calls meet.
    fn draw(&self, record: &Record, before: u32) -> (Fate, Mood) {
        if self.is_calm.load(Ordering::SeqCst) {
            return (Fate::Answered(201), Mood { delay: Duration::ZERO, loss: Loss::BeforeTheHead });
        }
        let words = ["upstream", &record.scope, &record.route, &record.key, &before.to_string()];
        let mut luck = Luck::of(self.seed, &words);
        let fate = match luck.within(0..100) {
            0..4 => Fate::Released(429),
            4..8 => Fate::Released(503),
            8..11 => Fate::Lost,
            11 => Fate::Unsure(502),
            12 => Fate::Unsure(504),
            13..18 => Fate::Answered(500),
            _ => Fate::Answered(201),
        };
        let delay = if luck.chance(10) { luck.millis(150..700) } else { luck.millis(0..30) };
        let loss = [Loss::BeforeTheHead, Loss::WithinTheHead, Loss::WithinTheBody][luck.index(3)];
        (fate, Mood { delay, loss })
    }
}

fn read(head: &Head) -> (Record, u64) {
    let of = |name| field(&head.fields, name).unwrap_or_default().to_owned();
    let route = head.start.split(' ').nth(1).unwrap_or_default().to_owned();
    let record = Record { scope: of("authorization"), route, key: of("idempotency-key") };
    (record, of(CALL).parse().unwrap())
}
