//! How records are named in Redis.
//!
//! `PREFIX{2af}0123…`: the first ten bits of the record's id as three hex digits, within braces, then the id. The braces
//! make Redis Cluster keep all keys of one such *bucket* on one server, so that a record and its bucket's index of
//! unsettled records (`PREFIX{2af}open`) can be written in one step (contract: S-1).

use std::{collections::HashMap, fmt::Write as _};

use redis::cluster_routing::Slot;

use crate::rule::{RecordId, record::ShortId};

/// The first bucket.
pub(super) const FIRST: u16 = 0;
/// Buckets that the records are spread over.
pub(super) const BUCKETS: u16 = 1024;

/// The keys that a step on one record touches.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) bucket: u16,
    pub(super) id: [u8; 32],
    pub(super) record: String,
    pub(super) open: String,
}

/// Names keys under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The keys of a record.
    pub(super) fn of(&self, id: &RecordId) -> Keys {
        let bucket = bucket_of(id);
        Keys { bucket, id: id.0, record: self.record(id), open: self.open(bucket) }
    }

    /// The key of a record's value.
    pub(super) fn record(&self, id: &RecordId) -> String {
        let mut key = String::with_capacity(self.prefix.len() + 5 + 64);
        _ = write!(key, "{}{{{:03x}}}{id}", self.prefix, bucket(id.0[0], id.0[1]));
        key
    }

    /// The index of a bucket's records that are in flight or unknown.
    pub(super) fn open(&self, bucket: u16) -> String {
        format!("{}{{{bucket:03x}}}open", self.prefix)
    }

    /// The key by which a bucket's server is known again: it goes when the server loses its data.
    pub(super) fn mark(&self, bucket: u16) -> String {
        format!("{}{{{bucket:03x}}}mark", self.prefix)
    }

    /// Who looks for lapsed leases at present, as the replicas tell each other in this bucket.
    pub(super) fn census(&self, bucket: u16) -> String {
        format!("{}{{{bucket:03x}}}census", self.prefix)
    }

    /// What the one who looked found.
    pub(super) fn figures(&self, bucket: u16) -> String {
        format!("{}{{{bucket:03x}}}figures", self.prefix)
    }

    /// The pattern that all records' keys match, and the indices' too.
    pub(super) fn all(&self) -> String {
        format!("{}{{???}}*", escaped(&self.prefix))
    }

    /// The pattern of the records that begin so.
    pub(super) fn beginning(&self, short: ShortId) -> String {
        format!("{}{{{:03x}}}{short}*", escaped(&self.prefix), bucket(short.0[0], short.0[1]))
    }

    /// The record that a key names; `None` for an index or a stranger's key.
    pub(super) fn read(&self, key: &[u8]) -> Option<RecordId> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        let digits = rest.get(5..)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// The bucket of an id that begins with these bytes.
pub(super) fn bucket(first: u8, second: u8) -> u16 {
    u16::from(first) << 2 | u16::from(second) >> 6
}

/// The bucket of a record.
pub(super) fn bucket_of(id: &RecordId) -> u16 {
    bucket(id.0[0], id.0[1])
}

/// The slots of Redis Cluster that the buckets lie in, under this prefix.
pub(super) fn slots(names: &Names) -> Vec<u16> {
    let numbers: HashMap<_, _> = (0..SLOTS).filter_map(|number| Some((Slot::new(number)?, number))).collect();
    (0..BUCKETS).map(|bucket| numbers[&Slot::for_key(names.open(bucket))]).collect()
}

/// Slots of a Redis Cluster.
const SLOTS: u16 = 16_384;

/// Text in which Redis' patterns find only itself.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, letter| {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^') {
            escaped.push('\\');
        }
        escaped.push(letter);
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_from_its_key_and_from_no_other() {
        let names = Names::new("one*gate:");
        let id = RecordId(*blake3::hash(b"1").as_bytes());
        let keys = names.of(&id);
        assert_eq!(names.read(keys.record.as_bytes()), Some(id));
        assert_eq!(names.read(keys.open.as_bytes()), None);
        assert_eq!(names.read(b"another"), None);
        assert!(names.beginning(id.short()).starts_with("one\\*gate:{"));
    }

    #[test]
    fn a_records_keys_lie_in_one_slot_and_buckets_in_many() {
        let names = Names::new("oncegate:");
        let id = RecordId(*blake3::hash(b"1").as_bytes());
        let keys = names.of(&id);
        let slots = slots(&names);
        assert_eq!(Slot::new(slots[usize::from(keys.bucket)]), Some(Slot::for_key(&keys.record)));
        let different: std::collections::HashSet<_> = slots.iter().collect();
        assert!(different.len() > 900, "{}", different.len());
    }
}
