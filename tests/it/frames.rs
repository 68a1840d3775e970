//! HTTP/2 frames as only hostile or broken clients send them, raw, to the real proxy. `tests/frames` has the sequences with
//! the verdict that each must get.
//!
//! After each, the upstream has executed what was meant and no more, a stream error has left the connection usable, and
//! another client is served as ever.

mod client;
mod script;

use std::collections::BTreeMap;

use self::{
    client::Client,
    script::{Case, Step, Verdict, cases},
};
use super::{harness::*, smuggling::unescaped};

/// A proxy before an upstream, both for all cases of a file.
struct Bench {
    proxy: Proxy,
    upstream: Upstream,
    /// Refusals so far, by reason.
    refused: BTreeMap<String, u32>,
}

impl Bench {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let server = "header_timeout = \"1s\"\nmax_in_flight = 50";
        let proxy = Proxy::start(Config::new(&upstream).server(server).log("access = false")).await;
        Self { proxy, upstream, refused: BTreeMap::new() }
    }

    /// Plays one case. How many executions it may come to, of which some may be late.
    async fn run(&mut self, case: &Case) -> Result<usize, String> {
        let mut client = Client::connect(self.proxy.address()).await;
        if !case.bare {
            client.open().await;
        }
        for step in &case.steps {
            match step {
                Step::Send(bytes) => client.send(bytes).await,
                Step::Sync => client.sync().await,
                Step::Answered(stream) => {
                    let came = |seen: &client::Seen| seen.answers.get(stream).is_some_and(|answer| answer.ended);
                    client.until(|seen| came(seen) || seen.closed).await;
                }
                Step::Close => client.close().await,
            }
        }

        let mut open = true;
        let mut executed = None;
        let mut meant = 0;
        for verdict in &case.verdicts {
            let came = match verdict {
                Verdict::Answer { stream, status, reason } => {
                    meant += usize::from(*status == 200);
                    self.counts(reason.as_deref());
                    let is = |answer: &client::Answer| answer.status == *status && answer.ended;
                    client.until(|seen| seen.answers.get(stream).is_some_and(is)).await
                }
                Verdict::Reset { stream, code } => {
                    client.until(|seen| seen.resets.get(stream).is_some_and(|said| said == code)).await
                }
                Verdict::Goaway { code } => {
                    open = false;
                    client.until(|seen| seen.goaway == Some(*code) && seen.closed).await
                }
                Verdict::Closed => {
                    open = false;
                    client.until(|seen| seen.closed).await
                }
                Verdict::Whatever => {
                    open = false;
                    client.sync().await;
                    true
                }
                Verdict::Http1 { status, reason } => {
                    open = false;
                    meant += usize::from(*status == 200);
                    self.counts(reason.as_deref());
                    let line = format!("HTTP/1.1 {status} ");
                    client.until(|seen| seen.http1.starts_with(line.as_bytes())).await
                }
                Verdict::Executed { least, most } => {
                    executed = Some((*least, *most));
                    self.executes(case, *least).await
                }
            };
            if !came {
                return Err(format!("not {verdict:?}, but: {}", client.told()));
            }
        }
        if open {
            client.sync().await;
            if client.seen().closed || client.seen().goaway.is_some() {
                return Err(format!("the connection has ended: {}", client.told()));
            }
        }
        let told = client.told();
        drop(client);
        self.serves_others().await?;

        let (least, most) = executed.unwrap_or((meant, meant));
        match self.executions(case) {
            executed if executed < least => Err(format!("{executed} executions, meant were at least {least}: {told}")),
            executed if executed > most => Err(format!("{executed} executions, meant were at most {most}: {told}")),
            _ => Ok(most),
        }
    }

    /// How many requests of a case the upstream executed.
    fn executions(&self, case: &Case) -> usize {
        let is_of = |target: &str| target.strip_prefix("/v1").unwrap_or(target) == case.target;
        self.upstream.requests().iter().filter(|seen| seen.executed && is_of(&seen.target)).count()
    }

    /// Waits until the upstream has executed so many of a case's requests; whether it does.
    async fn executes(&self, case: &Case, least: usize) -> bool {
        for _ in 0..300 {
            if self.executions(case) >= least {
                return true;
            }
            pass(10).await;
        }
        false
    }

    fn counts(&mut self, reason: Option<&str>) {
        if let Some(reason) = reason {
            *self.refused.entry(reason.to_owned()).or_default() += 1;
        }
    }

    /// The process is not much larger than an idle one.
    fn holds_little(&self, what: &str) {
        let megabytes = self.proxy.resident_bytes() >> 20;
        println!("{megabytes} MiB are held {what}");
        assert!(megabytes < 64, "{megabytes} MiB are held {what}");
    }

    /// Another client is served.
    async fn serves_others(&self) -> Result<(), String> {
        let mut client = Client::connect(self.proxy.address()).await;
        client.open().await;
        client.send(&get(1, CANARY)).await;
        let answered = |seen: &client::Seen| seen.answers.get(&1).is_some_and(|answer| answer.ended);
        let came = client.until(|seen| answered(seen)).await;
        if came && client.seen().answers[&1].status == 200 {
            Ok(())
        } else {
            Err(format!("another client is not served: {}", client.told()))
        }
    }
}

/// The target of requests that must be served whatever happens.
const CANARY: &str = "/canary";

/// HEADERS of a GET: indexed `:method` and `:scheme`, literal `:path` and `:authority`.
fn get(stream: u32, target: &str) -> Vec<u8> {
    let length = u8::try_from(target.len()).unwrap();
    let block = [&[0x82, 0x86, 0x04, length][..], target.as_bytes(), &[0x01, 1, b'a']].concat();
    client::frame(1, 1 | 4, stream, block.len(), &block)
}

/// HEADERS of a guarded POST without content.
fn charge(stream: u32, key: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (":path", "/v1/charges"),
        (":authority", "api.test"),
        ("authorization", "Bearer alice"),
        ("idempotency-key", key),
    ] {
        script::literal(&mut block, name.as_bytes(), value.as_bytes());
    }
    client::frame(1, 1 | 4, stream, block.len(), &block)
}

/// Runs every case of a file.
async fn play(file: &str, least: usize) -> Bench {
    let mut bench = Bench::start().await;
    let cases = cases(file);
    assert!(cases.len() >= least, "only {} cases in {file}", cases.len());
    let (mut wrong, mut bounds) = (Vec::new(), Vec::new());
    for case in &cases {
        assert!(!case.verdicts.is_empty(), "no verdict: {}", case.name);
        match bench.run(case).await {
            Ok(most) => bounds.push((case, most)),
            Err(what) => wrong.push(format!("{}: {what}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{} of {} in {file}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));

    // Once more, when nothing is under way: a request that is not its client's any more may have come late.
    let known = |target: &str| target == CANARY || cases.iter().any(|case| target.ends_with(&case.target));
    let stray = bench.upstream.requests().into_iter().find(|seen| !known(&seen.target));
    assert!(stray.is_none(), "{stray:?}");
    for (case, most) in bounds {
        assert!(bench.executions(case) <= most, "{}", case.name);
    }
    let metrics = bench.proxy.metrics().await;
    for (reason, count) in &bench.refused {
        let counted = metrics.sum("oncegate_refused_total", &[("reason", reason)]);
        assert!((counted - f64::from(*count)).abs() < 0.5, "{reason}: {count} refused, {counted} counted");
    }
    bench
}

// contract: section 8
#[tokio::test]
async fn a_connection_opens_as_it_should_or_not_at_all() {
    play("opening.txt", 15).await;
}

// contract: section 8
#[tokio::test]
async fn settings_are_heeded_or_end_the_connection() {
    play("settings.txt", 15).await;
}

// contract: section 8
#[tokio::test]
async fn frames_of_the_wrong_shape_end_the_connection() {
    play("layout.txt", 25).await;
}

// contract: section 8
#[tokio::test]
async fn streams_are_opened_and_ended_in_order() {
    play("streams.txt", 30).await;
}

// contract: section 8
#[tokio::test]
async fn field_sections_are_those_that_http_1_could_say() {
    play("fields.txt", 80).await;
}

// contract: section 8
#[tokio::test]
async fn bodies_are_framed_by_frames_alone() {
    play("bodies.txt", 30).await;
}

// contract: section 8
#[tokio::test]
async fn floods_are_cut_off_or_cost_nothing() {
    let bench = play("floods.txt", 20).await;
    bench.holds_little("after the floods");
}

// contract: section 8
#[tokio::test]
async fn answers_that_nobody_takes_are_left_with_the_upstream() {
    const ANSWER: usize = 1 << 20;
    let bench = Bench::start().await;
    bench.upstream.program(|seen| {
        if seen.target == CANARY { Script::token() } else { Script::answer(200).body(vec![b'x'; ANSWER]) }
    });
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(bench.proxy.address()).await;
        client.open().await;
        // SETTINGS_INITIAL_WINDOW_SIZE = 0
        client.send(&client::frame(4, 0, 0, 6, &[0, 4, 0, 0, 0, 0])).await;
        for stream in (1..200).step_by(2) {
            client.send(&get(stream, "/large")).await;
        }
        clients.push(client);
    }
    bench.upstream.saw(200).await;
    for client in &mut clients {
        let headed = |seen: &client::Seen| seen.answers.len() == 100;
        assert!(client.until(headed).await, "{}", client.told());
        assert!(client.seen().answers.values().all(|answer| answer.body.is_empty()));
    }
    pass(300).await;
    bench.serves_others().await.unwrap();
    bench.holds_little("of 200 MiB that nobody takes");
    // One that is taken after all is whole.
    clients[0].send(&client::frame(8, 0, 0, 4, &[0, 0x7f, 0, 0])).await;
    clients[0].send(&client::frame(8, 0, 7, 4, &[0, 0x7f, 0, 0])).await;
    let taken = |seen: &client::Seen| seen.answers[&7].ended && seen.answers[&7].body.len() == ANSWER;
    assert!(clients[0].until(taken).await, "{}", clients[0].seen().answers[&7].body.len());
}

/// HEADERS of a POST whose content is yet to come; guarded, with a key.
fn post_begun(stream: u32, key: Option<&str>) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &str, value: &str| script::literal(&mut block, name.as_bytes(), value.as_bytes());
    literal(":path", "/v1/charges");
    literal(":authority", "api.test");
    literal("authorization", "Bearer alice");
    key.into_iter().for_each(|key| literal("idempotency-key", key));
    client::frame(1, 4, stream, block.len(), &block)
}

// contract: R-7, P-7
#[tokio::test]
async fn half_a_request_whose_stream_is_reset_is_no_request() {
    let bench = Bench::start().await;
    let (proxy, upstream) = (&bench.proxy, &bench.upstream);
    // NO_ERROR, which hyper takes for the body's end; what others say; and, of that, nothing: the connection closes.
    for (round, code) in [Some(0), Some(0), Some(0), Some(1), Some(7), Some(8), None].into_iter().enumerate() {
        for half in [&b"amou"[..], b""] {
            for at_once in [true, false] {
                let key = format!("{round}-{}-{at_once}", half.len());
                for key in [Some(key.as_str()), None] {
                    let mut client = Client::connect(proxy.address()).await;
                    client.open().await;
                    let mut frames = vec![post_begun(1, key)];
                    if !half.is_empty() {
                        frames.push(client::frame(0, 0, 1, half.len(), half));
                    }
                    frames.extend(code.map(|code: u8| client::frame(3, 0, 1, 4, &[0, 0, 0, code])));
                    if at_once {
                        client.send(&frames.concat()).await;
                    } else {
                        for frame in frames {
                            client.send(&frame).await;
                            pass(5).await;
                        }
                    }
                    if code.is_some() {
                        client.sync().await;
                    }
                    client.close().await;
                }
            }
        }
    }
    pass(200).await;
    assert!(upstream.requests().iter().all(|seen| !seen.executed), "{:?}", upstream.requests());
    assert!(proxy.records("").await.is_empty());
    proxy.post("/v1/charges").auth("Bearer alice").key("0-4-true").send().await.was(200, "executed");
}

// contract: P-4, section 8
#[tokio::test]
async fn what_is_left_of_reset_streams_is_bounded_and_not_lost() {
    const IN_FLIGHT: usize = 50;
    let bench = Bench::start().await;
    let (proxy, upstream) = (&bench.proxy, &bench.upstream);
    upstream.program(|seen| if seen.target == CANARY { Script::token() } else { Script::hold() });
    // Fewer at a time than would be called a flood, and each begun before it is reset: nothing but the bound on requests
    // under way holds them back.
    for round in 0..40 {
        let mut client = Client::connect(proxy.address()).await;
        client.open().await;
        let streams = || (1..120).step_by(2);
        for stream in streams() {
            client.send(&charge(stream, &format!("{round}-{stream}"))).await;
        }
        client.sync().await;
        for stream in streams() {
            client.send(&client::frame(3, 0, stream, 4, &[0, 0, 0, 8])).await;
        }
        client.sync().await;
        assert!(!client.seen().closed, "round {round}: {}", client.told());
    }
    bench.serves_others().await.unwrap();
    let charged = || upstream.executions_by_key().into_iter().filter(|(key, _)| !key.is_empty()).count();
    assert_eq!(charged(), IN_FLIGHT);
    bench.holds_little("by what is under way");

    upstream.program(|_| Script::token());
    upstream.release();
    eventually("what was under way is over", || async { proxy.metrics().await.sum("oncegate_in_flight", &[]) < 0.5 })
        .await;
    for (key, times) in upstream.executions_by_key() {
        if !key.is_empty() {
            assert_eq!(times, 1, "{key}");
            proxy.request("POST", "/v1/charges").auth("alice").key(&key).body("").send().await.was(200, "replayed");
        }
    }
    proxy.charge("another").send().await.was(200, "executed");
}
