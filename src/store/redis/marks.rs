//! How a server is known again (contract: S-4, R-5).
//!
//! Each server keeps one key without an end: the check value of the id key, and a token drawn at random by whoever found
//! no such key. A token that changed says that the server lost its data since; a check value of another id key says that
//! another Oncegate, whose ids never meet ours, uses the same prefix.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redis::{Pipeline, Value};

use crate::rule::identity::IdKey;

const CHECK: usize = 16;

/// The marks of all servers.
#[derive(Debug)]
pub(super) struct Marks {
    check: [u8; CHECK],
    /// What was last seen, by key.
    seen: Mutex<HashMap<String, Vec<u8>>>,
    wiped: AtomicU64,
    foreign: AtomicBool,
    /// A mark of this id key was met.
    at_home: AtomicBool,
}

impl Marks {
    pub(super) fn new(id_key: &IdKey) -> Self {
        let check = check(id_key);
        let (seen, wiped) = (Mutex::default(), AtomicU64::new(0));
        Self { check, seen, wiped, foreign: AtomicBool::new(false), at_home: AtomicBool::new(false) }
    }

    /// Adds the two commands that leave a mark where there is none, and read it.
    pub(super) fn ask(&self, commands: &mut Pipeline, key: &str) {
        commands.cmd("SET").arg(key).arg(self.drawn()).arg("NX");
        commands.cmd("GET").arg(key);
    }

    /// A mark of this id key. Its token is drawn anew each time: what a process leaves on a server that lost its data must
    /// differ from what it had left before.
    fn drawn(&self) -> Vec<u8> {
        let mut token = [0; CHECK];
        getrandom::fill(&mut token).expect("the system's random source answers");
        [self.check, token].concat()
    }

    /// Reads the answer to `GET`; returns whether records may be trusted to that server.
    pub(super) fn read(&self, key: &str, answer: &Value) -> bool {
        let Value::BulkString(mark) = answer else {
            // A server without room for the mark, or a slot that has just moved: looked at again soon.
            return true;
        };
        if mark.get(..CHECK) != Some(&self.check[..]) {
            self.foreign.store(true, Ordering::Relaxed);
            return false;
        }
        self.at_home.store(true, Ordering::Relaxed);
        let mut seen = self.seen.lock().expect("nothing panics under the lock");
        let before = seen.insert(key.to_owned(), mark.clone());
        if before.is_some_and(|before| before != *mark) {
            self.wiped.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// How often a server came back empty since this was last asked.
    pub(super) fn take_wiped(&self) -> u64 {
        self.wiped.swap(0, Ordering::Relaxed)
    }

    /// Whether another id key was met, and never this one's: what served well does not end for a newcomer's mistake.
    pub(super) fn foreign(&self) -> bool {
        self.foreign.load(Ordering::Relaxed) && !self.at_home.load(Ordering::Relaxed)
    }
}

/// Whether a mark was left by those with this id key.
pub(super) fn is_marked_by(mark: &[u8], id_key: &IdKey) -> bool {
    mark.get(..CHECK) == Some(&check(id_key)[..])
}

/// Tells one id key from another, and nothing of either.
fn check(id_key: &IdKey) -> [u8; CHECK] {
    let digest = blake3::keyed_hash(&id_key.0, b"oncegate id key check");
    let mut check = [0; CHECK];
    check.copy_from_slice(&digest.as_bytes()[..CHECK]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(marks: &Marks) -> Value {
        Value::BulkString(marks.drawn())
    }

    // contract: S-4
    #[test]
    fn a_mark_that_changed_says_that_the_data_is_gone() {
        let marks = Marks::new(&IdKey::fixed());
        let first = mark(&marks);
        assert!(marks.read("a", &first) && marks.read("a", &first));
        assert!(marks.read("b", &mark(&marks)), "another server's");
        assert_eq!(marks.take_wiped(), 0);
        assert!(marks.read("a", &mark(&marks)));
        assert_eq!((marks.take_wiped(), marks.take_wiped()), (1, 0));
    }

    // contract: R-5
    #[test]
    fn a_mark_of_another_id_key_is_foreign() {
        let (ours, theirs) = (Marks::new(&IdKey::fixed()), Marks::new(&IdKey::from_secret(b"other")));
        assert!(!ours.foreign());
        assert!(!ours.read("a", &mark(&theirs)));
        assert!(ours.foreign());
        assert!(is_marked_by(&theirs.drawn(), &IdKey::from_secret(b"other")));
        assert!(!is_marked_by(&theirs.drawn(), &IdKey::fixed()) && !is_marked_by(b"", &IdKey::fixed()));
    }
}
