//! The same random operations given to a plain map and to the store on a real server; what each finds is compared.
//!
//! Times are five seconds away from every boundary, so that the time which passes by itself decides nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use oncegate::{
    rule::{Cell, Expect, Record, Stored},
    store::{Store, Swap, Write},
};
use proptest::{collection::vec, prelude::*, test_runner::Config};

use crate::{
    redis::{OnRedis, Servers},
    servers::{Options, Single, is_installed},
    subject::{Subject, completed, id, in_flight, route, unknown, version},
};

const KEYS: u64 = 4;
const SHORT: Duration = Duration::from_secs(35);
const LONG: Duration = Duration::from_secs(3605);

#[derive(Debug, Clone)]
enum Operation {
    /// `right`: what the key holds is expected; else something else is.
    Swap {
        key: u64,
        right: bool,
        next: Option<(u8, bool)>,
    },
    /// The last write once more.
    Again,
    Load {
        key: u64,
    },
    Advance {
        seconds: u64,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let next = prop::option::weighted(0.8, (0..3_u8, any::<bool>()));
    prop_oneof![
        6 => (0..KEYS, prop::bool::weighted(0.8), next).prop_map(|(key, right, next)| Operation::Swap { key, right, next }),
        1 => Just(Operation::Again),
        2 => (0..KEYS).prop_map(|key| Operation::Load { key }),
        1 => prop_oneof![Just(10_u64), Just(1000)].prop_map(|seconds| Operation::Advance { seconds }),
    ]
}

/// What a key holds: the write, and how long it is still kept.
type Held = (u128, Record<Stored>, Duration);

#[derive(Default)]
struct Model {
    held: HashMap<u64, Held>,
    drawn: u128,
}

fn record(kind: u8) -> Record<Stored> {
    match kind {
        0 => in_flight(),
        1 => completed("paid"),
        _ => unknown(),
    }
}

fn same(cell: Option<&Cell<Stored>>, held: Option<&Held>) -> bool {
    match (cell, held) {
        (None, None) => true,
        (Some(cell), Some((named, record, _))) => cell.version == version(*named) && cell.record == *record,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

async fn run(subject: OnRedis, operations: &[Operation]) {
    let (store, mut model) = (Arc::clone(subject.store()), Model::default());
    let mut last: Option<(u64, Expect, u128, Option<Write>)> = None;
    for operation in operations {
        match operation {
            Operation::Swap { key, right, next } => {
                let seen = model.held.get(key).map(|(named, ..)| *named);
                let expect = match (seen, right) {
                    (Some(named), true) => Expect::Version(version(named)),
                    (None, true) | (Some(_), false) => Expect::Absent,
                    (None, false) => Expect::Version(version(0)),
                };
                model.drawn += 1;
                let keep = |long| if long { LONG } else { SHORT };
                let next = next.map(|(kind, long)| Write { record: record(kind), keep: keep(long), route: route() });
                let swap = store.swap(&id(*key), expect, version(model.drawn), next.clone()).await.unwrap();
                last = Some((*key, expect, model.drawn, next.clone()));
                match swap {
                    Swap::Done => {
                        assert!(*right, "{operation:?}");
                        match next {
                            Some(next) => _ = model.held.insert(*key, (model.drawn, next.record, next.keep)),
                            None => _ = model.held.remove(key),
                        }
                    }
                    Swap::DoneNotKept => panic!("Redis keeps what it takes: {operation:?}"),
                    // An absent key that was to be freed is as it was to be.
                    Swap::Stale(cell) => assert!(!*right && same(cell.as_ref(), model.held.get(key)), "{operation:?}"),
                }
            }
            Operation::Again => {
                let Some((key, expect, named, Some(next))) = last.clone() else { continue };
                let there = model.held.get(&key).is_some_and(|(held, ..)| *held == named);
                let free = !model.held.contains_key(&key) && expect == Expect::Absent;
                if free {
                    // It expired or was freed meanwhile: the same step would be a new write.
                    continue;
                }
                let swap = store.swap(&id(key), expect, version(named), Some(next)).await.unwrap();
                assert_eq!(swap == Swap::Done, there, "{operation:?}: {swap:?}");
            }
            Operation::Load { key } => {
                let cell = store.load(&id(*key)).await.unwrap();
                assert!(same(cell.as_ref(), model.held.get(key)), "{cell:?}");
            }
            Operation::Advance { seconds } => {
                let time = Duration::from_secs(*seconds);
                subject.advance(time).await;
                model.held.retain(|_, (.., left)| *left > time);
                model.held.values_mut().for_each(|(.., left)| *left -= time);
            }
        }
    }
}

// contract: S-1
#[test]
fn the_store_does_what_a_map_does() {
    if !is_installed() {
        return;
    }
    let servers = Arc::new(Servers::Single(Single::start(Options::new())));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    proptest!(config, |(operations in vec(operation(), 1..60))| {
        runtime.block_on(run(OnRedis::on(&servers, |_| {}), &operations));
    });
}
