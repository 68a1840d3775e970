//! Every payload of the corpus through the real proxy to real servers: nothing that is refused reaches one of them, and
//! what goes on is parsed there as exactly the requests that were meant.
//!
//! The upstream may be spoken to on one connection only, and after each payload a canary goes the same way. Were a byte
//! too many or too few left on that connection, the canary would be what suffers for it. Payloads go whole; the short
//! ones also with an idempotency key, and in two pieces and broken off: at a sample of their bytes in each run, at every
//! byte in the tests that are run on demand (`cargo nextest run --test it --run-ignored only at_every_byte`).

mod echo;
mod meant;
#[path = "../corpus/reader.rs"]
mod reader;

pub(crate) use self::reader::unescaped;

use std::collections::BTreeMap;

use oncegate::server::{Reason, Refusal};

use self::{
    echo::Echo,
    meant::{Meant, meant},
    reader::{Payload, Verdict, corpus},
};
use super::harness::*;

/// Payloads up to this length are cut.
const SHORT: usize = 160;

/// One in so many places of a payload is cut in each run. A prime: the places wander from payload to payload.
const SAMPLE: usize = 29;

/// How a payload is sent.
#[derive(Debug, Clone, Copy)]
enum How {
    Whole,
    /// With an idempotency key, so that a request that may execute something is guarded.
    Keyed,
    /// In two pieces, the second a little later.
    Split(usize),
    /// So many bytes, and then no more.
    Broken(usize),
}

/// A proxy before a server.
struct Bench {
    proxy: Proxy,
    echo: Echo,
    /// The client whose requests must not suffer.
    bystander: Connection,
    canaries: usize,
    /// The upstream connection that the last canary went on.
    peer: String,
    /// Refusals so far, by reason.
    refused: BTreeMap<String, u32>,
    /// Requests that obey the rules and that the server declined all the same, with its status.
    declined: Vec<String>,
}

impl Bench {
    async fn before(echo: Echo) -> Self {
        let lines = format!("url = \"{}\"\nmax_connections = 1", echo.url);
        let proxy = Proxy::start(Config::at("http://127.0.0.1:1").upstream(&lines).log("access = false")).await;
        let bystander = proxy.connect().await;
        let mut bench = Self {
            proxy,
            echo,
            bystander,
            canaries: 0,
            peer: String::new(),
            refused: BTreeMap::new(),
            declined: Vec::new(),
        };
        assert!(bench.canary("the first").await.is_empty());
        bench
    }

    /// Sends one payload; then a canary, and looks at what the server read of both.
    async fn send(&mut self, payload: &Payload, how: How) {
        let what = format!("{how:?}: {payload}");
        let keyed;
        let sent = match how {
            How::Whole | How::Split(_) => &payload.bytes[..],
            How::Broken(count) => &payload.bytes[..count],
            How::Keyed => {
                let Some(bytes) = with_key(&payload.bytes, self.canaries) else { return };
                keyed = bytes;
                &keyed[..]
            }
        };
        let (heads, refusal) = match &payload.verdict {
            Verdict::Pass(count) | Verdict::Wait(count) => (*count, None),
            Verdict::Refuse(reason, count) => (*count, Some(reason)),
            // The last one has no whole body.
            Verdict::Break(reason, count) => (*count - 1, Some(reason)),
        };
        let meant = meant(sent, heads);
        let mut client = self.proxy.connect().await;
        match how {
            How::Split(at) => {
                client.write(&sent[..at]).await;
                pass(1).await;
                // It may have been refused by now.
                _ = client.try_write(&sent[at..]).await;
            }
            How::Whole | How::Keyed | How::Broken(_) => client.write(sent).await,
        }

        let mut reached: Vec<String> = Vec::new();
        for request in &meant {
            client.head_only = request.method == "HEAD";
            let reply = soon(client.reply()).await.unwrap_or_else(|error| panic!("{error}: {what}"));
            match reply.status {
                200 if client.head_only => reached.push(request.line()),
                200 => {
                    let said = reply.text().split_once(' ').map(|(_, line)| line.to_owned());
                    assert_eq!(said, Some(request.line()), "{what}");
                    if matches!(how, How::Keyed) && request.method == "POST" {
                        assert_eq!(reply.outcome(), "executed", "{what}");
                    }
                    reached.push(request.line());
                }
                // A guarded request may have neither trailers nor an upgrade.
                400 if matches!(how, How::Keyed) && reply.code() == "bad-request" && reply.outcome() == "rejected" => {}
                400..=599 if reply.code().is_empty() => self.declined.push(format!("{}: {what}", reply.status)),
                _ => panic!("{reply:?}\n{}: {what}", String::from_utf8_lossy(&reply.body)),
            }
        }
        client.head_only = false;
        match (refusal, how) {
            (Some(reason), How::Whole | How::Keyed | How::Split(_)) => {
                let reply = soon(client.reply()).await.unwrap_or_else(|error| panic!("{error}: {what}"));
                assert!(self.is_refusal(&reply, reason), "{reply:?}: {what}");
                assert!(client.is_closed().await, "{what}");
            }
            (Some(reason), How::Broken(_)) => {
                client.half_close().await;
                // Refused as soon as it is wrong; broken off before that, it may be told so, or nothing.
                if let Ok(reply) = soon(client.reply()).await {
                    let refused = self.is_refusal(&reply, reason);
                    assert!(refused || reply.status == 400, "{reply:?}: {what}");
                }
            }
            (None, _) if matches!(payload.verdict, Verdict::Wait(_)) || matches!(how, How::Broken(_)) => {
                client.half_close().await;
                // A request that is not whole may be declined, by either; it is never executed.
                if let Ok(reply) = soon(client.reply()).await {
                    assert!(reply.status >= 400, "{reply:?}: {what}");
                }
            }
            (None, _) => drop(client),
        }

        let last = self.peer.clone();
        let seen = self.canary(&what).await;
        let lines: Vec<_> = seen.iter().map(|parsed| parsed.line.as_str()).collect();
        assert_eq!(lines, reached, "{what}");
        // Nothing but requests that were whole at both ends: then the connection is the same.
        let untouched =
            matches!(payload.verdict, Verdict::Pass(_) | Verdict::Refuse(..)) && !matches!(how, How::Broken(_));
        if untouched && reached.len() == meant.len() {
            assert_eq!(self.peer, last, "the canary came on another connection: {what}");
            assert!(seen.iter().all(|parsed| parsed.peer == last), "{what}");
        }
    }

    /// Whether that is the refusal for `reason`; counts it.
    fn is_refusal(&mut self, reply: &Reply, reason: &str) -> bool {
        let known = Reason::ALL.iter().find(|known| known.as_str() == reason);
        let Refusal { status, detail, .. } = Refusal::from(*known.expect("the corpus names reasons that there are"));
        let is = reply.status == status.as_u16()
            && reply.code() == "bad-request"
            && reply.json()["detail"].as_str().is_some_and(|said| said.starts_with(detail.trim_end_matches('.')))
            && reply.field("connection") == Some("close");
        if is {
            *self.refused.entry(reason.to_owned()).or_default() += 1;
        }
        is
    }

    /// Sends a request that must be answered as ever. What the server read before it since the last one.
    async fn canary(&mut self, after: &str) -> Vec<echo::Parsed> {
        self.canaries += 1;
        let (target, body) = (format!("/canary/{}", self.canaries), format!("number {}", self.canaries));
        let request = self.proxy.post(&target).body(&body);
        self.bystander.write(request.bytes()).await;
        let reply = soon(self.bystander.reply()).await.unwrap_or_else(|error| panic!("{error}: after {after}"));
        let canary = Meant { method: "POST".into(), host: "api.test".into(), target, body: body.into_bytes() }.line();
        let said = reply.text().split_once(' ').map(|(_, line)| line);
        assert_eq!((reply.status, said), (200, Some(canary.as_str())), "after {after}");
        let mut seen = self.echo.until(&canary).await;
        self.peer = seen.pop().expect("the canary is the last").peer;
        seen
    }

    /// Every refusal was counted under its reason.
    async fn refusals_are_counted(&self) {
        let metrics = self.proxy.metrics().await;
        for reason in Reason::ALL.iter().map(|reason| reason.as_str()) {
            let counted = metrics.sum("oncegate_refused_total", &[("reason", reason)]);
            let told = f64::from(self.refused.get(reason).copied().unwrap_or_default());
            assert!((counted - told).abs() < 0.5, "{reason}: {told} clients were told so, {counted} counted");
        }
    }
}

/// The same bytes with a key, where they are those of one request.
fn with_key(bytes: &[u8], number: usize) -> Option<Vec<u8>> {
    const HOST: &[u8] = b"\r\nHost: a\r\n";
    let mut places = bytes.windows(HOST.len()).enumerate().filter(|(_, window)| *window == HOST);
    let (Some((at, _)), None) = (places.next(), places.next()) else { return None };
    let (head, rest) = bytes.split_at(at + HOST.len());
    Some([head, format!("Idempotency-Key: corpus-{number}\r\n").as_bytes(), rest].concat())
}

/// Sends the corpus whole, with keys, and its short payloads cut at one place in `sample`.
async fn sweep(echo: Option<Echo>, sample: usize) {
    let Some(echo) = echo else { return };
    let mut bench = Bench::before(echo).await;
    let corpus = corpus();
    for payload in &corpus {
        bench.send(payload, How::Whole).await;
    }
    // With a key, those at a limit would be beyond it.
    for payload in corpus.iter().filter(|payload| payload.bytes.len() <= SHORT) {
        bench.send(payload, How::Keyed).await;
    }
    // Odd methods and targets, which differ by server. Were it many, little would be shown of what it parses.
    assert!(bench.declined.len() < corpus.len() / 20, "{}", bench.declined.join("\n"));
    let mut place = 0;
    for payload in corpus.iter().filter(|payload| payload.bytes.len() <= SHORT) {
        for at in 1..payload.bytes.len() {
            place += 1;
            if place % sample == 0 {
                bench.send(payload, How::Split(at)).await;
                bench.send(payload, How::Broken(at)).await;
            }
        }
    }
    bench.refusals_are_counted().await;
    println!("{} payloads sent, {} declined by the server:", bench.canaries - 1, bench.declined.len());
    println!("{}", bench.declined.join("\n"));
}

macro_rules! upstreams {
    ($($name:ident $every_byte:ident $start:ident)+) => {
        $(
            // contract: section 8
            #[tokio::test]
            async fn $name() {
                sweep(Echo::$start().await, SAMPLE).await;
            }

            #[tokio::test]
            #[ignore = "takes minutes"]
            async fn $every_byte() {
                sweep(Echo::$start().await, 1).await;
            }
        )+
    };
}

upstreams! {
    nothing_is_smuggled_to_hyper at_every_byte_nothing_is_smuggled_to_hyper hyper
    nothing_is_smuggled_to_nginx at_every_byte_nothing_is_smuggled_to_nginx nginx
    nothing_is_smuggled_to_haproxy at_every_byte_nothing_is_smuggled_to_haproxy haproxy
    nothing_is_smuggled_to_node at_every_byte_nothing_is_smuggled_to_node node
    nothing_is_smuggled_to_h11 at_every_byte_nothing_is_smuggled_to_h11 h11
}
