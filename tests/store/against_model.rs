//! The same random operations given to a plain model and to the memory store; answers, events and figures compared.
//!
//! The model is a map and a clock, written to be obvious. What it cannot foretell is when room runs out: it takes the
//! store's word that a claim did not fit, that a body or (with `allow_eviction`) a record was dropped, and then checks
//! that the contract allowed it.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use oncegate::{
    rule::{Expect, Record, Stored, UnknownReason},
    store::{
        Event, Figures, State, Store, StoreError, Swap, Write,
        memory::{MemoryOptions, MemoryStore},
    },
};
use proptest::{prelude::*, test_runner::Config};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokio::runtime::Runtime;

use crate::subject::{DAY, HOUR, answer, fingerprint, id, route, version};

const KEYS: u64 = 12;

prop_state_machine! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_store_does_what_the_model_does(sequential 1..80 => Subject);
}

/// One operation. What it expects is said relative to what the key holds then, so that most operations find it.
#[derive(Debug, Clone)]
enum Operation {
    Swap { key: u64, expect: Guess, again: bool, next: Option<Next> },
    Load { key: u64 },
    Advance(Duration),
    Upkeep,
}

#[derive(Debug, Clone, Copy)]
enum Guess {
    Absent,
    Right,
    Wrong,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    InFlight { lease: Duration, keep: Duration },
    Completed { body_bytes: usize, keep: Duration },
    Unknown { keep: Duration },
}

/// How much room there is.
#[derive(Debug, Clone, Copy)]
enum Room {
    Ample,
    Scant,
    ScantAndEvicting,
}

struct Subject {
    runtime: Runtime,
    store: MemoryStore,
    room: Room,
    model: Model,
    drawn: u128,
}

impl ReferenceStateMachine for Subject {
    type State = Room;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Room> {
        prop_oneof![Just(Room::Ample), Just(Room::Scant), Just(Room::ScantAndEvicting)].boxed()
    }

    fn transitions(_: &Room) -> BoxedStrategy<Operation> {
        let keep = prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::from_secs(20)),
            Just(HOUR),
            Just(DAY),
            Just(3 * DAY),
            Just(Duration::MAX),
        ];
        let lease = prop_oneof![Just(Duration::from_secs(5)), Just(Duration::from_secs(15)), Just(HOUR)];
        let next = prop_oneof![
            3 => (lease, keep.clone()).prop_map(|(lease, keep)| Next::InFlight { lease, keep }),
            2 => (0..1500_usize, keep.clone()).prop_map(|(body_bytes, keep)| Next::Completed { body_bytes, keep }),
            1 => keep.prop_map(|keep| Next::Unknown { keep }),
        ];
        let guess = prop_oneof![2 => Just(Guess::Absent), 5 => Just(Guess::Right), 1 => Just(Guess::Wrong)];
        let swap = (0..KEYS, guess, prop::bool::weighted(0.1), prop::option::weighted(0.85, next));
        let advance = prop_oneof![
            4 => 0..20_u64,
            1 => Just(3600),
            1 => Just(24 * 3600),
        ];
        prop_oneof![
            6 => swap.prop_map(|(key, expect, again, next)| Operation::Swap { key, expect, again, next }),
            2 => (0..KEYS).prop_map(|key| Operation::Load { key }),
            2 => advance.prop_map(|seconds| Operation::Advance(Duration::from_secs(seconds))),
            1 => Just(Operation::Upkeep),
        ]
        .boxed()
    }

    fn apply(room: Room, _: &Operation) -> Room {
        room
    }
}

impl StateMachineTest for Subject {
    type SystemUnderTest = Self;
    type Reference = Self;

    fn init_test(room: &Room) -> Self {
        let (max_bytes, allow_eviction) = match room {
            Room::Ample => (1 << 20, false),
            Room::Scant => (2 << 10, false),
            Room::ScantAndEvicting => (2 << 10, true),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let store = runtime.block_on(async { MemoryStore::new(MemoryOptions { max_bytes, allow_eviction }) });
        Self { runtime, store, room: *room, model: Model::default(), drawn: 0 }
    }

    fn apply(mut this: Self, _: &Room, operation: Operation) -> Self {
        match operation {
            Operation::Swap { key, expect, again, next } => this.swap(key, expect, again, next),
            Operation::Load { key } => this.load(key),
            Operation::Advance(time) => {
                this.runtime.block_on(tokio::time::advance(time));
                this.model.now += time;
            }
            Operation::Upkeep => this.upkeep(),
        }
        this.assert_account_holds();
        this
    }

    fn check_invariants(this: &Self, _: &Room) {
        let Figures { evicted_bodies, evicted_records, .. } = this.store.figures();
        match this.room {
            Room::Ample => assert_eq!((evicted_bodies, evicted_records), (0, 0)),
            Room::Scant => assert_eq!(evicted_records, 0),
            Room::ScantAndEvicting => {}
        }
    }
}

impl Subject {
    fn swap(&mut self, key: u64, guess: Guess, again: bool, next: Option<Next>) {
        let held = self.model.live(key).map(|cell| cell.version);
        let expect = match (guess, held) {
            (Guess::Absent, _) | (Guess::Right, None) => Expect::Absent,
            (Guess::Right, Some(held)) => Expect::Version(version(held)),
            (Guess::Wrong, _) => Expect::Version(version(u128::MAX)),
        };
        self.drawn += 1;
        // Now and then a step that was sent before is sent again.
        let named = held.filter(|_| again).unwrap_or(self.drawn);
        let next = next.map(Next::write);
        let evicted_before = self.store.figures().evicted_records;
        let swap = self.runtime.block_on(self.store.swap(&id(key), expect, version(named), next.clone()));
        match swap {
            Err(StoreError::Full) => {
                let is_claim = matches!(next.map(|write| write.record), Some(Record::InFlight { .. }));
                assert!(is_claim && expect == Expect::Absent && held.is_none(), "only a new claim may not fit");
                // The refusal cleared the key's expired record away.
                self.model.expire(key);
                self.assert_nothing_is_left_to_drop();
            }
            Err(error) => panic!("{error}"),
            Ok(swap) => {
                // The step wrote over the record that it expected: it may have ended since, and was not evicted.
                let written = matches!(swap, Swap::Done | Swap::DoneNotKept).then_some(key);
                self.forgive_evictions(evicted_before, written);
                let given = next.as_ref().is_some_and(Write::keeps);
                let answer = self.model.swap(key, expect, named, next);
                self.assert_same(&answer, &self.without_room(key, given, swap));
            }
        }
        self.forgive_dropped_bodies();
    }

    /// What the step would have said in a store with room, once what it says of that is found true.
    fn without_room(&self, key: u64, given: bool, swap: Swap) -> Swap {
        let kept = match &swap {
            Swap::Done if given => true,
            Swap::DoneNotKept => false,
            Swap::Done | Swap::Stale(_) => return swap,
        };
        // What is kept for no time is gone already.
        if let Some(cell) = self.runtime.block_on(self.store.load(&id(key))).unwrap() {
            let is_kept = match cell.record {
                Record::Completed { response, .. } => response.is_kept(),
                Record::InFlight { .. } | Record::Unknown { .. } => false,
            };
            assert_eq!(is_kept, kept);
        }
        Swap::Done
    }

    fn load(&mut self, key: u64) {
        let cell = self.runtime.block_on(self.store.load(&id(key))).unwrap();
        self.assert_same(&self.model.live(key).map(|cell| cell.seen(self.model.now)), &cell);
    }

    fn upkeep(&mut self) {
        let sorted = |mut events: Vec<Event>| {
            events.sort_by_key(|event| format!("{event:?}"));
            events
        };
        let events = self.runtime.block_on(self.store.upkeep()).unwrap();
        assert_eq!(sorted(events), sorted(self.model.upkeep()));
        let Figures { in_flight, completed, unknown, unknown_expiring, .. } = self.store.figures();
        assert_eq!([in_flight, completed, unknown, unknown_expiring], self.model.figures());
    }

    fn assert_same<T: PartialEq + Debug>(&self, model: &T, store: &T) {
        assert_eq!(model, store, "the model's and the store's, {:?} after the start", self.model.now);
    }

    fn stored(&self, key: u64) -> Option<Record<Stored>> {
        self.runtime.block_on(self.store.load(&id(key))).unwrap().map(|cell| cell.record)
    }

    /// Only settlements, which are always taken, may go beyond the account; and only when all bodies are gone.
    fn assert_account_holds(&self) {
        let Figures { bytes, bytes_max, .. } = self.store.figures();
        let is_kept = |key| matches!(self.stored(key), Some(Record::Completed { response, .. }) if response.is_kept());
        assert!(bytes <= bytes_max || !(0..KEYS).any(is_kept), "{bytes} of {bytes_max}");
    }

    /// Before a claim is refused, bodies go, and with `allow_eviction` completed records.
    fn assert_nothing_is_left_to_drop(&mut self) {
        for key in 0..KEYS {
            match self.stored(key) {
                Some(Record::Completed { response, .. }) => {
                    assert!(!response.is_kept(), "a body was left to drop");
                    assert!(!matches!(self.room, Room::ScantAndEvicting), "a record was left to evict");
                }
                Some(Record::InFlight { .. } | Record::Unknown { .. }) | None => {}
            }
        }
        // Records evicted on the way to a refusal are gone all the same.
        self.forgive_evictions(0, None);
    }

    /// A completed record that the store evicted is gone in the model too; any other must still be there. Not the one that
    /// was just written.
    fn forgive_evictions(&mut self, before: u64, written: Option<u64>) {
        if self.store.figures().evicted_records == before {
            return;
        }
        for key in (0..KEYS).filter(|key| Some(*key) != written) {
            let is_completed = self.model.live(key).is_some_and(|cell| matches!(cell.record, Record::Completed { .. }));
            if is_completed && self.stored(key).is_none() {
                self.model.cells.remove(&key);
            }
        }
    }

    /// An answer whose body the store dropped reads so in the model too, under the same version.
    fn forgive_dropped_bodies(&mut self) {
        if matches!(self.room, Room::Ample) {
            return;
        }
        for key in 0..KEYS {
            let stored = self.stored(key);
            if let (Some(cell), Some(Record::Completed { response: stored, .. })) =
                (self.model.cells.get_mut(&key), stored)
                && let Record::Completed { response, .. } = &mut cell.record
                && !stored.is_kept()
            {
                *response = response.without_body();
            }
        }
    }
}

impl Next {
    fn write(self) -> Write {
        let fingerprint = fingerprint();
        let (record, keep) = match self {
            Self::InFlight { lease, keep } => (Record::InFlight { fingerprint, lease, running: Duration::ZERO }, keep),
            Self::Completed { body_bytes, keep } => {
                (Record::Completed { fingerprint, response: answer(&vec![b'x'; body_bytes]) }, keep)
            }
            Self::Unknown { keep } => {
                (Record::Unknown { fingerprint, reason: UnknownReason::Lost, status: None }, keep)
            }
        };
        Write { record, keep, route: route() }
    }
}

// === the model ===

#[derive(Default)]
struct Model {
    now: Duration,
    cells: BTreeMap<u64, Cell>,
    events: Vec<Event>,
}

struct Cell {
    version: u128,
    written: Duration,
    expires: Duration,
    record: Record<Stored>,
    is_lapse_reported: bool,
    is_end_announced: bool,
}

impl Cell {
    fn seen(&self, now: Duration) -> oncegate::rule::Cell<Stored> {
        oncegate::rule::Cell {
            version: version(self.version),
            age: now - self.written,
            left: self.expires - now,
            route: route(),
            record: self.record.clone(),
        }
    }

    fn has_lapsed(&self, now: Duration) -> bool {
        matches!(self.record, Record::InFlight { lease, .. } if self.written + lease <= now)
    }
}

impl Model {
    fn live(&self, key: u64) -> Option<&Cell> {
        self.cells.get(&key).filter(|cell| cell.expires > self.now)
    }

    fn swap(&mut self, key: u64, expect: Expect, named: u128, next: Option<Write>) -> Swap {
        self.expire(key);
        let now = self.now;
        let held = self.cells.get(&key).map(|cell| cell.version);
        if held == Some(named) {
            return Swap::Done;
        }
        let expected = match expect {
            Expect::Absent => None,
            Expect::Version(expected) => Some(expected),
        };
        if held.map(version) != expected {
            return Swap::Stale(self.cells.get(&key).map(|cell| cell.seen(now)));
        }
        let before = self.cells.remove(&key);
        if before.is_some_and(|cell| cell.has_lapsed(now) && !cell.is_lapse_reported) {
            self.events.push(Event::Lapsed { id: id(key), route: route() });
        }
        if let Some(Write { record, keep, .. }) = next {
            // The store counts whole milliseconds in 64 bits.
            let expires = (now + keep.min(Duration::from_millis(u64::MAX) - now)).min(Duration::from_millis(u64::MAX));
            let (is_lapse_reported, is_end_announced) = (false, false);
            let cell = Cell { version: named, written: now, expires, record, is_lapse_reported, is_end_announced };
            self.cells.insert(key, cell);
        }
        Swap::Done
    }

    fn expire(&mut self, key: u64) {
        let (now, id, route) = (self.now, id(key), route());
        let Some(cell) = self.cells.remove(&key) else { return };
        if cell.expires > now {
            self.cells.insert(key, cell);
            return;
        }
        if cell.has_lapsed(cell.expires) && !cell.is_lapse_reported {
            self.events.push(Event::Lapsed { id, route: route.clone() });
        }
        match cell.record {
            Record::InFlight { .. } => {
                self.events.push(Event::UnknownExpired { id, route, reason: UnknownReason::Lapsed });
            }
            Record::Unknown { reason, .. } => self.events.push(Event::UnknownExpired { id, route, reason }),
            Record::Completed { .. } => {}
        }
    }

    fn upkeep(&mut self) -> Vec<Event> {
        (0..KEYS).for_each(|key| self.expire(key));
        let now = self.now;
        for (key, cell) in &mut self.cells {
            let (id, route, left) = (id(*key), route(), cell.expires - now);
            if cell.has_lapsed(now) && !cell.is_lapse_reported {
                cell.is_lapse_reported = true;
                self.events.push(Event::Lapsed { id, route: route.clone() });
            }
            let is_unknown = State::of(&cell.seen(now)) == State::Unknown;
            if is_unknown && left <= DAY && cell.expires - cell.written > DAY && !cell.is_end_announced {
                cell.is_end_announced = true;
                self.events.push(Event::UnknownExpiring { id, route, left });
            }
        }
        std::mem::take(&mut self.events)
    }

    /// In flight, completed, unknown, and of these the ones that end within a day.
    fn figures(&self) -> [u64; 4] {
        let cells: Vec<_> = self.cells.values().map(|cell| cell.seen(self.now)).collect();
        let count = |is: &dyn Fn(&&oncegate::rule::Cell<Stored>) -> bool| cells.iter().filter(is).count() as u64;
        let [in_flight, completed, unknown] = State::ALL.map(|state| count(&|cell| State::of(cell) == state));
        [in_flight, completed, unknown, count(&|cell| State::of(cell) == State::Unknown && cell.left <= DAY)]
    }
}
