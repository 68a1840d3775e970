//! Where clients, the upstream and the faults note what they see, by one clock.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::history::{Call, Event, Execution, Fate, History, Record, Time, Trouble};

/// The log of a round.
#[derive(Debug)]
pub(crate) struct Log {
    start: Instant,
    calls: AtomicU64,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    history: History,
    executions_by_record: HashMap<Record, u32>,
}

impl Log {
    pub(crate) fn new(aftermath: Duration) -> Self {
        let history = History { aftermath, ..History::default() };
        let written = Mutex::new(Written { history, ..Written::default() });
        Self { start: Instant::now(), calls: AtomicU64::new(0), written }
    }

    pub(crate) fn now(&self) -> Time {
        self.start.elapsed()
    }

    pub(crate) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn call(&self, call: Call) {
        self.written.lock().unwrap().history.calls.push(call);
    }

    /// Notes that a request was read whole; `decide` is told how often its record ran before. Returns the execution's place,
    /// its token, and what was decided.
    pub(crate) fn begin<T>(
        &self,
        record: &Record,
        call: u64,
        body: String,
        decide: impl FnOnce(u32) -> (Fate, T),
    ) -> (usize, String, Fate, T) {
        let mut written = self.written.lock().unwrap();
        let before = written.executions_by_record.entry(record.clone()).or_default();
        let (fate, more) = decide(*before);
        *before += 1;
        let place = written.history.executions.len();
        let token = format!("tok-{}", place + 1);
        let execution =
            Execution { call, record: record.clone(), body, token: token.clone(), from: self.now(), to: None, fate };
        written.history.executions.push(execution);
        (place, token, fate, more)
    }

    /// Notes that an execution's answer is about to leave.
    pub(crate) fn end(&self, place: usize) {
        self.written.lock().unwrap().history.executions[place].to = Some(self.now());
    }

    /// Notes trouble for as long as `work` lasts.
    pub(crate) fn during<T>(&self, trouble: Trouble, work: impl FnOnce() -> T) -> T {
        // It is written down before it is made: it may show at once.
        let place = {
            let mut written = self.written.lock().unwrap();
            let event = Event { trouble, from: self.now(), to: Time::MAX };
            written.history.events.push(event);
            written.history.events.len() - 1
        };
        let done = work();
        self.written.lock().unwrap().history.events[place].to = self.now();
        done
    }

    /// What has been seen so far.
    pub(crate) fn history(&self) -> History {
        self.written.lock().unwrap().history.clone()
    }
}
