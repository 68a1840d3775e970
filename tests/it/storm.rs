//! Storms of duplicates, judged by a history checker that knows nothing of how the proxy works.

use super::harness::*;

const KEYS: usize = 200;
const COPIES: usize = 50;
/// Connections at work at one time: enough that every key's copies meet each other.
const AT_ONCE: usize = 400;

/// Sends every key `COPIES` times, shuffled by stride, and notes every answer.
async fn storm(proxy: &Proxy) -> History {
    let jobs: Vec<usize> = (0..KEYS * COPIES)
        .map(|number| number / 2 * 7919 % (KEYS * COPIES / 2) + number % 2 * (KEYS * COPIES / 2))
        .collect();
    let jobs = std::sync::Arc::new((std::sync::atomic::AtomicUsize::new(0), jobs));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (jobs, base) = (jobs.clone(), proxy.post("/v1/charges"));
        workers.spawn(async move {
            let mut told = Vec::new();
            loop {
                let next = jobs.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(job) = jobs.1.get(next) else { return told };
                let (key, caller) = (format!("k-{}", job % KEYS), format!("caller-{}", job % KEYS % 3));
                let reply = base.clone().key(&key).auth(&caller).send().await;
                told.push((caller, key, reply));
            }
        });
    }
    let mut history = History::default();
    while let Some(told) = workers.join_next().await {
        for (caller, key, reply) in told.unwrap() {
            history.note(&caller, &key, &reply);
        }
    }
    history
}

fn total(history: &History) -> usize {
    history.counts().values().sum()
}

// contract: P-1
// contract: P-2
// contract: P-3
#[tokio::test]
async fn ten_thousand_duplicates_of_two_hundred_keys_are_two_hundred_executions() {
    let upstream = Upstream::start().await;
    upstream.program(|seen| Script::slow(if seen.number % 3 == 0 { 30 } else { 1 }));
    let proxy = Proxy::start(Config::new(&upstream).upstream("queue_timeout = \"5s\"")).await;
    let history = storm(&proxy).await;
    history.check(&upstream);
    assert_eq!(upstream.executions(), KEYS);
    let counts = history.counts();
    assert_eq!(counts.get(&(200, "executed".into())), Some(&KEYS), "{counts:?}");
    assert_eq!(counts.get(&(200, "replayed".into())), Some(&(KEYS * (COPIES - 1))), "{counts:?}");
    assert_eq!(total(&history), KEYS * COPIES);
}

// contract: P-1
// contract: P-5
#[tokio::test]
async fn a_storm_while_the_upstream_resets_one_exchange_in_ten() {
    let upstream = Upstream::start().await;
    upstream.program(|seen| match seen.number % 10 {
        3 => Script::reset(),
        _ => Script::slow(2),
    });
    let proxy = Proxy::start(Config::new(&upstream).upstream("queue_timeout = \"5s\"")).await;
    let history = storm(&proxy).await;
    history.check(&upstream);
    assert_eq!(upstream.requests().len(), KEYS, "never sent again");
    let counts = history.counts();
    let lost = KEYS / 10;
    assert_eq!(counts.get(&(502, "outcome-unknown".into())), Some(&lost), "{counts:?}");
    assert_eq!(counts.get(&(409, "outcome-unknown".into())), Some(&(lost * (COPIES - 1))), "{counts:?}");
    assert_eq!(counts.get(&(200, "executed".into())), Some(&(KEYS - lost)), "{counts:?}");
    assert_eq!(counts.get(&(200, "replayed".into())), Some(&((KEYS - lost) * (COPIES - 1))), "{counts:?}");
}

// contract: P-1
// contract: R-15
#[tokio::test]
async fn a_storm_where_duplicates_in_flight_are_rejected() {
    let upstream = Upstream::start().await;
    upstream.program(|_| Script::slow(20));
    let proxy =
        Proxy::start(Config::new(&upstream).policy("on_in_flight = \"reject\"").upstream("queue_timeout = \"5s\""))
            .await;
    let history = storm(&proxy).await;
    history.check(&upstream);
    assert_eq!(upstream.executions(), KEYS);
    let mut counts = history.counts();
    assert_eq!(counts.remove(&(200, "executed".into())), Some(KEYS), "{counts:?}");
    let replayed = counts.remove(&(200, "replayed".into())).unwrap_or_default();
    let busy = counts.remove(&(409, "in-flight".into())).unwrap_or_default();
    assert_eq!((counts.len(), KEYS + replayed + busy), (0, KEYS * COPIES), "{counts:?}");
}

// contract: P-1
#[tokio::test]
async fn a_storm_of_releases_runs_each_key_to_its_first_outcome_and_no_further() {
    let upstream = Upstream::start().await;
    upstream.program(|seen| if seen.number % 4 == 1 { Script::answer(429) } else { Script::slow(2) });
    let proxy = Proxy::start(Config::new(&upstream).upstream("queue_timeout = \"5s\"")).await;
    let history = storm(&proxy).await;
    history.check(&upstream);
    let counts = history.counts();
    let released = counts.get(&(429, "released".into())).copied().unwrap_or_default();
    assert!(released > 0, "{counts:?}");
    assert_eq!(upstream.executions(), KEYS + released, "{counts:?}");
    assert_eq!(counts.get(&(200, "executed".into())), Some(&KEYS), "{counts:?}");
}
