//! Thousands of clients that hold connections without making progress: all are let go by their deadline, and others are
//! served meanwhile.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use super::harness::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// The deadline of heads and of silent bodies.
const DEADLINE: Duration = Duration::from_secs(5);
/// What a busy machine may add to it.
const LATE: Duration = Duration::from_secs(10);
/// How long a dripping client waits between two bytes; long enough to be a silence where bodies are concerned.
const DRIP: Duration = Duration::from_millis(500);
/// What one held connection may take of memory.
const BYTES_EACH: u64 = 100 << 10;

/// How clients hold a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Says nothing at all.
    Silent,
    /// Sends a head that never ends, byte by byte.
    DripHead,
    /// Sends the beginning of a body, guarded or not, and then nothing.
    HalfBody { guarded: bool },
    /// Sends the beginning of HTTP/2's preface.
    HalfPreface,
    /// Sends HTTP/2's preface, and no settings.
    Preface,
}

impl Holds {
    const fn opening(self) -> &'static str {
        match self {
            Self::Silent => "",
            Self::DripHead => "GET /v1/a HTTP/1.1\r\nHost: h\r\nX-Long: ",
            Self::HalfBody { guarded: true } => {
                "POST /v1/a HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nIdempotency-Key: held\r\nContent-Length: 9\r\n\r\nab"
            }
            Self::HalfBody { guarded: false } => "PUT /v1/a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab",
            Self::HalfPreface => "PRI * HT",
            Self::Preface => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        }
    }

    /// Holds a connection, and tells how long it could.
    async fn hold(self, address: SocketAddr) -> Duration {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(self.opening().as_bytes()).await.unwrap();
        let mut said = [0; 4096];
        loop {
            match timeout(DRIP, stream.read(&mut said)).await {
                Ok(Ok(0) | Err(_)) => return begun.elapsed(),
                Ok(Ok(_)) => {}
                Err(_) if self == Self::DripHead && stream.write_all(b"x").await.is_err() => return begun.elapsed(),
                Err(_) => assert!(begun.elapsed() < DEADLINE + 2 * LATE, "{self:?} is held still"),
            }
        }
    }
}

const CROWD: [(Holds, usize); 6] = [
    (Holds::Silent, 2000),
    (Holds::DripHead, 2000),
    (Holds::HalfBody { guarded: true }, 250),
    (Holds::HalfBody { guarded: false }, 250),
    (Holds::HalfPreface, 300),
    (Holds::Preface, 100),
];

/// Holds all of them from a thread of its own, so that it does not delay what is measured.
fn crowd(address: SocketAddr) -> thread::JoinHandle<Vec<(Holds, Duration)>> {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut clients = JoinSet::new();
            for (holds, count) in CROWD {
                for _ in 0..count {
                    clients.spawn(async move { (holds, holds.hold(address).await) });
                }
            }
            clients.join_all().await
        })
    })
}

/// Four clients that behave, for as long; what their requests took, the longest last.
async fn normal_traffic(proxy: &Proxy, round: &str, time: Duration) -> Vec<Duration> {
    let begun = Instant::now();
    let client = |client| async move {
        let mut connection = proxy.connect().await;
        let mut took = Vec::new();
        while begun.elapsed() < time {
            let key = format!("{round}-{client}-{}", took.len());
            for (request, outcome) in
                [(proxy.get("/v1/a"), ""), (proxy.charge(&key), "executed"), (proxy.charge(&key), "replayed")]
            {
                let start = Instant::now();
                connection.exchange(request.bytes()).await.was(200, outcome);
                took.push(start.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A connection is opened afresh too.
        proxy.get("/v1/a").send().await.was(200, "");
        took
    };
    let (first, second, third, fourth) = tokio::join!(client(1), client(2), client(3), client(4));
    let mut all = [first, second, third, fourth].concat();
    all.sort_unstable();
    all
}

fn percentile_99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

/// Descriptors of the proxy that are not connections to the upstream.
async fn descriptors(proxy: &Proxy) -> usize {
    let upstream = proxy.metrics().await.sum("oncegate_connections", &[("side", "upstream")]) as usize;
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count() - upstream
}

/// Raises the limit of files that this process may open as far as it may; what it is then.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Where this is not granted, the limit stays as it was.
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[tokio::test]
async fn thousands_who_hold_connections_are_let_go_and_others_are_served() {
    let count: usize = CROWD.iter().map(|(_, count)| count).sum();
    let most = raise_descriptors();
    if most < count as u64 + 500 {
        eprintln!("skipped: this process may open {most} files, and {count} connections are needed (raise ulimit -n)");
        return;
    }
    let upstream = Upstream::start().await;
    let server = format!("header_timeout = \"{0}s\"\nbody_timeout = \"{0}s\"", DEADLINE.as_secs());
    let config = Config::new(&upstream).server(&server).log("access = false");
    let proxy = Proxy::start(config.descriptors(u32::try_from(most.min(20_000)).unwrap())).await;

    let baseline = normal_traffic(&proxy, "before", Duration::from_secs(2)).await;
    let (descriptors_before, bytes_before) = (descriptors(&proxy).await, proxy.resident_bytes());
    let crowd = crowd(proxy.address());
    eventually("all of them hold a connection", || async {
        proxy.metrics().await.sum("oncegate_connections", &[("side", "downstream")]) >= count as f64
    })
    .await;
    let bytes_each = proxy.resident_bytes().saturating_sub(bytes_before) / count as u64;
    let meanwhile = normal_traffic(&proxy, "meanwhile", DEADLINE).await;
    let held = tokio::task::spawn_blocking(|| crowd.join().unwrap()).await.unwrap();

    for (holds, time) in &held {
        assert!(*time < DEADLINE + LATE, "{holds:?} held a connection for {time:?}");
        assert!(*time >= DEADLINE, "{holds:?} had no more than {time:?}");
    }
    assert!(bytes_each < BYTES_EACH, "{bytes_each} bytes for each held connection");
    eventually("no descriptor is left", || async { descriptors(&proxy).await <= descriptors_before }).await;
    assert!(proxy.records("state=in_flight").await.is_empty(), "half a body claims nothing");
    let longest = held.iter().map(|(_, time)| *time).max().unwrap();
    eprintln!(
        "{count} connections held, the longest for {longest:?}, {bytes_each} bytes each; p99 of {} requests before: {:?}, \
         of {} meanwhile: {:?}",
        baseline.len(),
        percentile_99(&baseline),
        meanwhile.len(),
        percentile_99(&meanwhile),
    );
}
