//! The Redis store through the whole proxy: several processes, one truth (contract: S-1 to S-9).

mod trouble;
mod values;

use std::time::{Duration, Instant};

use crate::{
    harness::{Config, Proxy, Script, Upstream, eventually, http2, pass, soon},
    servers::{Options, Single, is_installed},
};

/// A server and an upstream; proxies before both are made as a test wants them.
struct Shared {
    redis: Single,
    upstream: Upstream,
}

/// Leaves the test where there is no Redis.
macro_rules! shared {
    () => {
        shared!(crate::servers::Options::new())
    };
    ($options:expr) => {
        if crate::servers::is_installed() { crate::redis::Shared::start($options).await } else { return }
    };
}
pub(crate) use shared;

impl Shared {
    async fn start(options: Options) -> Self {
        assert!(is_installed());
        Self { redis: tokio::task::block_in_place(|| Single::start(options)), upstream: Upstream::start().await }
    }

    /// A configuration of a proxy before this upstream, on this Redis. A machine that is busy with other tests is no
    /// trouble of Redis: where its time-out is the point, a test says [`QUICK`].
    fn config(&self) -> Config {
        let config = Config::new(&self.upstream).store("kind = \"redis\"").table("[store.redis]", &self.redis.toml());
        config.table("[store.redis]", "timeout = \"3s\"")
    }

    async fn proxy(&self) -> Proxy {
        Proxy::start(self.config()).await
    }

    /// Runs a command on the server.
    fn cli(&self, words: &[&str]) -> String {
        tokio::task::block_in_place(|| self.redis.cli(words))
    }

    /// The keys of records.
    fn records(&self) -> Vec<String> {
        let keys = self.cli(&["KEYS", "oncegate:*"]);
        keys.lines().filter(|key| key.len() > "oncegate:{000}".len() + 60).map(str::to_owned).collect()
    }

    fn commands(&self) -> u64 {
        tokio::task::block_in_place(|| self.redis.info("total_commands_processed")).unwrap().parse().unwrap()
    }
}

/// A charge as any replica sees it: clients name the service, not the replica.
fn charge(proxy: &Proxy, key: &str) -> crate::harness::Post {
    proxy.charge(key).host("api.example")
}

// contract: S-1, P-2
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_at_another_replica_is_answered_as_at_the_same_one() {
    let shared = shared!();
    let (one, other) = (shared.proxy().await, shared.proxy().await);
    let first = charge(&one, "k").send().await;
    first.was(200, "executed");
    let again = charge(&other, "k").send().await;
    again.was(200, "replayed");
    assert_eq!(first.body, again.body);
    charge(&other, "k").body("amount=200").send().await.refused(422, "key-reused");
    assert_eq!(shared.upstream.executions(), 1);
}

// contract: R-15
#[tokio::test(flavor = "multi_thread")]
async fn waiters_at_three_replicas_get_the_one_answer_and_ask_seldom() {
    let shared = shared!();
    const WAITERS: usize = 1000;
    let patient = "max_waiters = 1000\nresponse_timeout = \"60s\"\noutcome_timeout = \"70s\"";
    let config = || shared.config().policy(patient).descriptors(4096);
    let proxies = [Proxy::start(config()).await, Proxy::start(config()).await, Proxy::start(config()).await];
    shared.upstream.next(Script::hold());
    let mut owner = charge(&proxies[0], "k").begin().await;
    shared.upstream.saw(1).await;
    let mut waiting = Vec::with_capacity(WAITERS);
    for number in 0..WAITERS {
        waiting.push(charge(&proxies[number % 3], "k").begin().await);
    }
    eventually("all wait", || async {
        let mut waiters = 0.0;
        for proxy in &proxies {
            waiters += proxy.metrics().await.sum("oncegate_waiters", &[]);
        }
        waiters == WAITERS as f64
    })
    .await;
    let (before, begun) = (shared.commands(), Instant::now());
    // Longer than an owner's renewal and the look for lapsed leases are apart.
    pass(6000).await;
    let each_second = (shared.commands() - before) as f64 / begun.elapsed().as_secs_f64();
    assert!(each_second < 100.0, "{each_second} commands a second");
    shared.upstream.release();
    let answer = soon(owner.reply()).await.unwrap();
    for mut waiter in waiting {
        let reply = soon(waiter.reply()).await.unwrap();
        reply.was(200, "replayed");
        assert_eq!(reply.body, answer.body);
    }
    assert_eq!(shared.upstream.executions(), 1);
}

// contract: P-5, R-18
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owners_record_reads_as_unknown_at_the_others() {
    let shared = shared!();
    let config = || shared.config().store("lease = \"1s\"");
    let (dies, other) = (Proxy::start(config()).await, Proxy::start(config()).await);
    shared.upstream.next(Script::hold());
    let _lost = charge(&dies, "k").spawn();
    shared.upstream.saw(1).await;
    dies.signal("KILL").await;
    charge(&other, "k").send().await.refused(409, "outcome-unknown");
    assert_eq!(shared.upstream.executions(), 1);
    // By an operator's word at one replica it is free at all.
    let third = shared.proxy().await;
    let record = other.record().await;
    let resolve = format!("/records/{}/resolve", record["id"].as_str().unwrap());
    let resolved = other.admin("POST", &resolve).json("{\"executed\": false}").send().await;
    assert!(resolved.status < 300, "{resolved:?}");
    charge(&third, "k").send().await.was(200, "executed");
}

// contract: R-8
#[tokio::test(flavor = "multi_thread")]
async fn many_replicas_and_one_key_make_one_execution() {
    let shared = shared!();
    let proxies = [shared.proxy().await, shared.proxy().await, shared.proxy().await];
    for round in 0..20 {
        let key = format!("k{round}");
        let calls: Vec<_> = (0..12).map(|number| charge(&proxies[number % 3], &key).spawn()).collect();
        let mut bodies = Vec::new();
        for call in calls {
            bodies.push(call.await.unwrap().body);
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1);
    }
    assert_eq!(shared.upstream.executions(), 20);
}

// contract: R-5
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_another_id_key_does_not_start() {
    let shared = shared!();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "one\n").unwrap();
    let with = |secret: &std::path::Path| shared.config().store(&format!("secret_file = \"{}\"", secret.display()));
    let first = Proxy::start(with(secret.path())).await;
    charge(&first, "k").send().await.was(200, "executed");
    let (code, said) = Proxy::try_start(shared.config()).await.map(|_| ()).unwrap_err();
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("another id key") && said.contains("secret"), "{said}");
    // A new secret before the old one: the ids stay, and what was sealed by either opens.
    let rotated = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rotated.path(), "two\none\n").unwrap();
    let second = Proxy::start(with(rotated.path())).await;
    charge(&second, "k").send().await.was(200, "replayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_a_sealed_store_shows_no_key_no_caller_and_no_body() {
    let shared = shared!();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "one\n").unwrap();
    let config = shared
        .config()
        .store(&format!("secret_file = \"{}\"", secret.path().display()))
        .table("[store.redis]", "encrypt = true");
    let proxy = Proxy::start(config).await;
    shared.upstream.next(Script::answer(200).field("X-Secret", "vault-of-fields").body("vault-of-bodies"));
    let vault = proxy.post("/v1/charges").auth("vault-of-callers").key("vault-of-keys");
    vault.send().await.was(200, "executed");
    vault.send().await.was(200, "replayed");
    shared.cli(&["CONFIG", "SET", "rdbcompression", "no"]);
    shared.cli(&["SAVE"]);
    let dump = std::fs::read(shared.redis.directory().join("dump.rdb")).unwrap();
    assert!(memchr::memmem::find(&dump, b"oncegate:").is_some(), "the dump holds the records");
    assert!(memchr::memmem::find(&dump, b"vault").is_none());
    // Without sealing the same dump shows the answer: the search finds what is there.
    let plain = Proxy::start(shared.config().table("[store.redis]", "prefix = \"plain:\"")).await;
    shared.upstream.next(Script::answer(200).body("vault-of-bodies"));
    charge(&plain, "k").send().await.was(200, "executed");
    shared.cli(&["SAVE"]);
    let dump = std::fs::read(shared.redis.directory().join("dump.rdb")).unwrap();
    assert!(memchr::memmem::find(&dump, b"vault").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_the_same_records_at_every_replica() {
    let shared = shared!();
    let (one, other) = (shared.proxy().await, shared.proxy().await);
    for key in ["a", "b", "c"] {
        charge(&one, key).send().await.was(200, "executed");
    }
    shared.upstream.next(Script::reset());
    charge(&one, "d").send().await.refused(502, "outcome-unknown");
    charge(&one, "a").send().await.was(200, "replayed");
    let ids = |records: Vec<serde_json::Value>| {
        let mut ids: Vec<_> = records.iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(one.records("").await).len(), 4);
    assert_eq!(ids(one.records("").await), ids(other.records("").await));
    assert_eq!(other.records("state=unknown").await.len(), 1);
    assert_eq!(other.records("state=completed").await.len(), 3);
    let short = &ids(other.records("state=completed").await)[0][..16];
    let found = other.admin("GET", &format!("/records/{short}")).send().await;
    assert_eq!(found.status, 200, "{found:?}");
    // One replica looks after the store and leaves its figures for the others.
    for proxy in [&one, &other] {
        eventually("the figures", || async {
            let unknown = proxy.metrics().await.sum("oncegate_store_records", &[("state", "unknown")]);
            unknown == 1.0
        })
        .await;
    }
}

/// Redis' time-out as it is by default.
const QUICK: &str = "timeout = \"250ms\"";

/// What a fault may take to be noticed and to be over.
const WITHIN: Duration = Duration::from_secs(5);

// contract: section 4
#[tokio::test(flavor = "multi_thread")]
async fn replays_that_nobody_takes_are_held_within_max_buffered() {
    let shared = shared!();
    shared.upstream.program(|_| Script::answer(200).body("x".repeat(400 << 10)));
    let proxy = Proxy::start(shared.config().server("max_buffered = \"1MiB\"")).await;
    charge(&proxy, "k").send().await.was(200, "executed");
    let mut client = http2(proxy.address(), 1).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(soon(client.send_request(charge(&proxy, "k").http2())).await.unwrap());
    }
    let refused = answers.pop().unwrap();
    assert_eq!(refused.headers()["idempotency-status"], "rejected");
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    assert_eq!(statuses, [200, 200, 503], "two of 400 KiB fit 1 MiB");
    let patient = charge(&proxy, "k").send().await;
    patient.refused(503, "overloaded");
    assert_eq!(patient.json()["executed"], "yes", "{patient:?}");
    // Those who take nothing keep nobody else from being served.
    charge(&proxy, "other").send().await.was(200, "executed");
    drop((answers, refused, client));
    eventually("their room is back", || async { charge(&proxy, "k").send().await.status == 200 }).await;
    assert_eq!(shared.upstream.executions(), 2);
}
