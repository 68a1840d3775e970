//! What records take of the process's memory, and of other people's time.
//!
//! The process's size is measured in a process of its own: the test starts this binary anew with one ignored test and
//! `ALONE` in the environment, and reads the figures from its output.

use std::{fs, process::Command, sync::Arc, time::Duration};

use oncegate::{
    clock,
    rule::{Expect, Record, Stored},
    store::{
        Store, StoreError, Swap,
        memory::{MemoryOptions, MemoryStore},
    },
};

use crate::subject::{HOUR, Steps, answer, completed, fingerprint, id, in_flight, unknown, version, write};

const ALONE: &str = "ONCEGATE_TEST_ALONE";
const MIB: u64 = 1 << 20;

fn store(max_bytes: u64) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(MemoryOptions { max_bytes, allow_eviction: false }))
}

/// The process's resident bytes.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn holding(body: &[u8]) -> Record<Stored> {
    Record::Completed { fingerprint: fingerprint(), response: answer(body) }
}

/// Starts this binary for one ignored test only; what it printed after `figures:`.
fn alone(test: &str, what: &str) -> Vec<u64> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("memory::{test}"), "--ignored", "--nocapture"])
        .env(ALONE, what)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let (_, figures) = text.split_once("figures:").unwrap();
    figures.lines().next().unwrap().split_whitespace().map(|figure| figure.parse().unwrap()).collect()
}

/// The numbers in `ALONE`; `None` where this was not started by [`alone`].
fn told() -> Option<Vec<usize>> {
    let told = std::env::var(ALONE).ok()?;
    Some(told.split(' ').map(|number| number.parse().unwrap()).collect())
}

// contract: R-21
#[tokio::test(start_paused = true)]
async fn an_answer_is_one_allocation_shared_by_all_replays() {
    let store = store(MIB);
    store.put(1, 1, in_flight()).await;
    let response = answer(b"paid");
    let address = response.as_bytes().as_ptr();
    let settled = write(Record::Completed { fingerprint: fingerprint(), response }, HOUR);
    assert_eq!(store.replace(1, 1, 2, settled).await, Swap::Done);
    for _ in 0..2 {
        match store.cell(1).await.unwrap().record {
            Record::Completed { response, .. } => assert_eq!(response.as_bytes().as_ptr(), address),
            Record::InFlight { .. } | Record::Unknown { .. } => panic!("expected a completed record"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_1_kib_answer_takes_less_than_1_4_kib() {
    let store = store(256 * MIB);
    let empty = store.figures().bytes;
    let body = vec![b'x'; 1024 - answer(b"").as_bytes().len()];
    for key in 0..20_000 {
        store.put(key, 1, holding(&body)).await;
        // As on a quiet day: nearly every record has a deadline of its own.
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let each = (store.figures().bytes - empty) / 20_000;
    assert!(each < 1434, "{each} bytes");
}

// contract: R-21
#[test]
fn the_account_is_what_the_process_grows_by() {
    for (body_bytes, count) in [(0, 60_000), (100, 60_000), (1000, 30_000), (20_000, 3000), (200_000, 200)] {
        let figures = alone("grow", &format!("{body_bytes} {count}"));
        let [account, grown] = figures[..] else { panic!("two figures, not {figures:?}") };
        println!("answers of {body_bytes}: account {account}, grown by {grown}, {} a record", account / count);
        assert!(account.abs_diff(grown) * 4 <= grown, "answers of {body_bytes}: account {account}, grown by {grown}");
    }
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn grow() {
    let Some([body_bytes, count]) = told().as_deref().and_then(|told| <[usize; 2]>::try_from(told).ok()) else {
        return;
    };
    let store = store(1024 * MIB);
    for key in 0..100 {
        store.put(key, 1, in_flight()).await;
    }
    let (account, before) = (store.figures().bytes, resident());
    let body = vec![b'x'; body_bytes];
    for key in 100..100 + count as u64 {
        store.put(key, 1, in_flight()).await;
        assert_eq!(store.replace(key, 1, 2, write(holding(&body), HOUR)).await, Swap::Done);
        // Somebody was told the answer: from then on it is shared.
        assert!(store.cell(key).await.is_some());
    }
    println!("figures: {} {}", store.figures().bytes - account, resident() - before);
}

// contract: R-21, P-1
#[test]
fn many_keys_against_few_bytes_stay_within_them_and_none_is_forgotten() {
    many_keys(100_000, 8);
}

// contract: R-21, P-1
#[test]
#[ignore = "takes long without optimisation; the smaller one runs always"]
fn a_million_keys_against_64_mib_stay_within_them_and_none_is_forgotten() {
    many_keys(1_000_000, 64);
}

fn many_keys(keys: u64, mib: u64) {
    let figures = alone("crowd", &format!("{keys} {mib}"));
    let [idle, most, taken, refused, bodies] = figures[..] else { panic!("five figures, not {figures:?}") };
    println!("idle {idle}, at most {most}; taken {taken}, refused {refused}, bodies dropped {bodies}");
    assert!(most <= mib * MIB * 5 / 4 + idle, "{most} of {mib} MiB and {idle}");
    assert!(taken + refused == keys && taken > 0 && refused > 0 && bodies > 0);
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn crowd() {
    let Some([keys, mib]) = told().as_deref().and_then(|told| <[usize; 2]>::try_from(told).ok()) else { return };
    let store = store(mib as u64 * MIB);
    let mut taken = vec![u8::MAX; keys];
    let idle = resident();
    let mut most = idle;
    let body = [b'x'; 300];
    for (key, taken) in taken.iter_mut().enumerate() {
        let name = key as u64;
        let claim = store.swap(&id(name), Expect::Absent, version(1), write(in_flight(), HOUR)).await;
        *taken = match claim {
            Ok(swap) => {
                assert_eq!(swap, Swap::Done);
                match key % 50 {
                    0 => {}
                    1 => assert_eq!(store.replace(name, 1, 2, write(unknown(), HOUR)).await, Swap::Done),
                    _ => {
                        let swap = store.replace(name, 1, 2, write(holding(&body), HOUR)).await;
                        assert!(matches!(swap, Swap::Done | Swap::DoneNotKept), "{swap:?}");
                    }
                }
                1
            }
            Err(StoreError::Full) => 0,
            Err(error) => panic!("{error}"),
        };
        let figures = store.figures();
        assert!(figures.bytes <= figures.bytes_max);
        if key % 1000 == 0 {
            most = most.max(resident());
        }
    }
    for (key, taken) in taken.iter().enumerate() {
        let named = store.cell(key as u64).await.map(|cell| cell.version);
        let expected = (*taken == 1).then(|| version(if key % 50 == 0 { 1 } else { 2 }));
        assert_eq!(named, expected, "key {key}");
    }
    most = most.max(resident());
    let count = taken.iter().filter(|taken| **taken == 1).count();
    let evicted = store.figures().evicted_bodies;
    println!("figures: {idle} {most} {count} {} {evicted}", keys - count);
}

/// A claim, a settlement and a replay at a time, beside the housekeeping of a million records that expire at once.
// contract: R-20
#[tokio::test]
#[ignore = "a measurement of half a minute"]
async fn a_million_records_that_expire_at_once_stall_nobody() {
    const RECORDS: u64 = 1_000_000;
    let store = store(1024 * MIB);
    let end = clock::now() + Duration::from_secs(20);
    let body = [b'x'; 200];
    for key in 0..RECORDS {
        let keep = end.saturating_duration_since(clock::now());
        store.put_for(keep, key, 1, holding(&body)).await;
    }
    let (full, held) = (store.figures(), resident());
    assert_eq!(full.completed, RECORDS, "all of them, before the first expires");
    let quiet = traffic(&store, end - Duration::from_secs(4), 1 << 40).await;
    tokio::time::sleep_until(end + Duration::from_secs(2)).await;

    let housekeeping = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let start = clock::now();
            assert_eq!(store.events().await, []);
            start.elapsed()
        }
    });
    let mut busy = Vec::new();
    let mut first = 1 << 41;
    while !housekeeping.is_finished() {
        busy.extend(traffic(&store, clock::now() + Duration::from_millis(20), first).await);
        first += 1 << 32;
    }
    println!("before: {}", percentiles(quiet));
    println!("during: {}", percentiles(busy));
    println!("housekeeping took {:?}", housekeeping.await.unwrap());
    let left = store.figures();
    println!("account: {} before, {} after; resident {held} before, {} after", full.bytes, left.bytes, resident());
    assert!(left.bytes < full.bytes / 4);
}

/// What each round of a guarded request's steps took, its turn on the runtime included.
async fn traffic(store: &MemoryStore, until: clock::Instant, first: u64) -> Vec<Duration> {
    let mut took = Vec::new();
    for key in first.. {
        let start = clock::now();
        tokio::task::yield_now().await;
        store.put(key, 1, in_flight()).await;
        assert_eq!(store.replace(key, 1, 2, write(completed("paid"), HOUR)).await, Swap::Done);
        assert!(store.cell(key).await.is_some());
        took.push(start.elapsed());
        assert_eq!(store.replace(key, 2, 3, None).await, Swap::Done);
        if clock::now() >= until {
            break;
        }
    }
    took
}

fn percentiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    format!("{} rounds, p50 {:?}, p99 {:?}, p99.9 {:?}, most {:?}", took.len(), at(0.5), at(0.99), at(0.999), at(1.0))
}
