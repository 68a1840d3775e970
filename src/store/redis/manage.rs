//! What operators ask for: records by state, by route, by the beginning of their id.
//!
//! Records in flight or unknown are named by the buckets' indices; all others are found by SCAN over the masters, a
//! bounded part of it for each page, which never blocks Redis.

use std::sync::Arc;

use redis::{Value, cmd};

use super::{
    Peeked, RedisStore,
    codec::Summary,
    keys::{self, BUCKETS},
    script::DISCARD,
    server::Server,
};
use crate::{
    rule::{RecordId, record::ShortId},
    store::{Details, Filter, Page, State, StoreError},
};

/// Buckets whose indices are read at a time.
const INDICES: u16 = 128;
/// Keys that one SCAN looks at.
const SCAN_COUNT: usize = 1000;
/// What else could stand under a record's name is nothing to list.
const STRINGS: [&str; 2] = ["TYPE", "string"];
/// SCANs for one page, at most: it may be empty, and have a next one.
const SCANS_MOST: usize = 50;

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cursor {
    /// In the indices from this bucket on, after this id: buckets are in the order of their ids.
    Index { bucket: u16, after: Option<RecordId> },
    /// At this server, in this part of its SCAN, after this id.
    Scan { server: usize, cursor: u64, after: Option<RecordId> },
}

impl Cursor {
    fn begin(filter: &Filter) -> Self {
        match filter.state {
            Some(State::InFlight | State::Unknown) => Self::Index { bucket: 0, after: None },
            Some(State::Completed) | None => Self::Scan { server: 0, cursor: 0, after: None },
        }
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let kind = parts.next()?;
        let mut number = || parts.next()?.parse::<u64>().ok();
        let mut cursor = match kind {
            "i" => {
                Self::Index { bucket: u16::try_from(number()?).ok().filter(|bucket| *bucket < BUCKETS)?, after: None }
            }
            "s" => Self::Scan { server: usize::try_from(number()?).ok()?, cursor: number()?, after: None },
            _ => return None,
        };
        let id = parts.next()?;
        if !id.is_empty() {
            *cursor.after() = Some(id.parse().ok()?);
        }
        parts.next().is_none().then_some(cursor)
    }

    fn after(&mut self) -> &mut Option<RecordId> {
        match self {
            Self::Index { after, .. } | Self::Scan { after, .. } => after,
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let after = match self {
            Self::Index { bucket, after } => {
                write!(f, "i.{bucket}.")?;
                after
            }
            Self::Scan { server, cursor, after } => {
                write!(f, "s.{server}.{cursor}.")?;
                after
            }
        };
        after.map_or(Ok(()), |id| write!(f, "{id}"))
    }
}

impl RedisStore {
    pub(super) async fn page(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let mut cursor = match after {
            None => Cursor::begin(filter),
            Some(text) => Cursor::read(text)
                .ok_or_else(|| StoreError::Refused("the cursor is none of this store's".to_owned()))?,
        };
        let mut page = Page::default();
        for _ in 0..SCANS_MOST {
            let (mut ids, next) = match &cursor {
                Cursor::Index { bucket, .. } => {
                    let end = (bucket + INDICES).min(BUCKETS);
                    let next = (end < BUCKETS).then_some(Cursor::Index { bucket: end, after: None });
                    (self.indexed(*bucket..end).await?, next)
                }
                Cursor::Scan { server, cursor, .. } => {
                    let servers = self.servers.all();
                    let Some(asked) = servers.get(*server) else { return Ok(page) };
                    let (next, ids) = self.scan(asked, *cursor, &self.names.all(), SCAN_COUNT, &STRINGS).await?;
                    let next = match next {
                        0 if server + 1 < servers.len() => {
                            Some(Cursor::Scan { server: server + 1, cursor: 0, after: None })
                        }
                        0 => None,
                        next => Some(Cursor::Scan { server: *server, cursor: next, after: None }),
                    };
                    (ids, next)
                }
            };
            // One part is walked in the ids' order, so that a page may end within it.
            ids.sort_unstable();
            ids.dedup();
            if let Some(after) = *cursor.after() {
                ids.retain(|id| *id > after);
            }
            for id in self.filtered(filter, ids).await? {
                if page.records.len() == limit {
                    page.next = Some(cursor.to_string());
                    return Ok(page);
                }
                if let Some(details) = self.look_leniently(&id).await?
                    && fits(filter, &details)
                {
                    page.records.push((id, details));
                }
                *cursor.after() = Some(id);
            }
            match next {
                None => return Ok(page),
                Some(next) => cursor = next,
            }
        }
        page.next = Some(cursor.to_string());
        Ok(page)
    }

    /// Those of these records that fit, as far as their beginnings tell.
    async fn filtered(&self, filter: &Filter, ids: Vec<RecordId>) -> Result<Vec<RecordId>, StoreError> {
        let mut fitting = Vec::new();
        for ids in ids.chunks(SCAN_COUNT) {
            let peeked = self.peek(ids).await?;
            let fits = |summary: &Summary, age| {
                let state = summary.state(age);
                filter.state.is_none_or(|wanted| wanted == state)
                    && filter.route.as_ref().is_none_or(|route| *route == summary.route)
            };
            fitting.extend(ids.iter().zip(peeked).filter_map(|(id, peeked)| {
                let peeked = peeked?;
                let summary = peeked.summary.as_ref().ok()?;
                fits(summary, peeked.age(summary)).then_some(*id)
            }));
        }
        Ok(fitting)
    }

    /// A record, as far as it can be read: one bad value must not hide all others, nor itself from those who are to mend
    /// it. What is not even one in its beginning is none.
    async fn look_leniently(&self, id: &RecordId) -> Result<Option<Details>, StoreError> {
        match self.look(id).await {
            Err(StoreError::Damaged(_)) => {
                let peeked = self.peek(std::slice::from_ref(id)).await?.pop().flatten();
                Ok(peeked.and_then(|Peeked { summary, left }| {
                    let cell = summary.ok()?.without_payload(left);
                    Some(Details { cell, replays: self.replays.pending(id) })
                }))
            }
            looked => looked,
        }
    }

    pub(super) async fn beginning(&self, short: ShortId) -> Result<Vec<RecordId>, StoreError> {
        let bucket = keys::bucket(short.0[0], short.0[1]);
        // What an operator is called for is seldom settled: the index is quick, and SCAN is not.
        let indexed = self.indexed(bucket..bucket + 1).await.unwrap_or_default();
        let mut found: Vec<_> = indexed.into_iter().filter(|id| id.short() == short).collect();
        if found.is_empty() {
            let server = self.servers.serving(bucket, self.deadline()).await?;
            let pattern = self.names.beginning(short);
            let mut cursor = 0;
            loop {
                let (next, ids) = self.scan(&server, cursor, &pattern, 10 * SCAN_COUNT, &[]).await?;
                found.extend(ids);
                if next == 0 {
                    break;
                }
                cursor = next;
            }
            found.sort_unstable();
            found.dedup();
        }
        let mut there = Vec::new();
        for id in found {
            match self.look(&id).await {
                Ok(None) => {}
                // One that cannot be read is there: an operator may want it gone.
                Ok(Some(_)) | Err(StoreError::Damaged(_)) => there.push(id),
                Err(error) => return Err(error),
            }
        }
        Ok(there)
    }

    /// Deletes exactly what was seen, if that is no record.
    pub(super) async fn throw_away(&self, id: &RecordId) -> Result<bool, StoreError> {
        let seen = match self.held(id).await {
            Ok(None) => return Ok(false),
            Ok(Some((value, left))) => match self.cell(id, value.clone(), left) {
                Ok(_) => return Ok(false),
                Err(_) => value,
            },
            // It is no string: the script looks at that itself.
            Err(StoreError::Damaged(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        let keys = self.names.of(id);
        let server = self.servers.serving(keys.bucket, self.deadline()).await?;
        let mut command = DISCARD.command(true, 2);
        command.arg(&keys.record).arg(&keys.open).arg(seen).arg(&keys.id[..]);
        let is_gone = server.ask(&command, self.deadline()).await? == Value::Int(1);
        self.watches.wrote(id);
        Ok(is_gone)
    }

    async fn scan(
        &self,
        server: &Arc<Server>,
        cursor: u64,
        pattern: &str,
        count: usize,
        kind: &[&str],
    ) -> Result<(u64, Vec<RecordId>), StoreError> {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count).arg(kind);
        let answer = server.ask(&command, self.deadline()).await?;
        let odd = || StoreError::Refused("SCAN was answered by something else".to_owned());
        let Value::Array(parts) = answer else { return Err(odd()) };
        let Ok([Value::BulkString(next), Value::Array(keys)]) = <[Value; 2]>::try_from(parts) else {
            return Err(odd());
        };
        let next = std::str::from_utf8(&next).ok().and_then(|next| next.parse().ok()).ok_or_else(odd)?;
        let id = |key: Value| if let Value::BulkString(key) = key { self.names.read(&key) } else { None };
        Ok((next, keys.into_iter().filter_map(id).collect()))
    }
}

fn fits(filter: &Filter, details: &Details) -> bool {
    filter.state.is_none_or(|state| State::of(&details.cell) == state)
        && filter.route.as_ref().is_none_or(|route| *route == details.cell.route)
        && filter.older.is_none_or(|older| State::age(&details.cell) >= older)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_no_other_text_is() {
        let id = Some(RecordId([7; 32]));
        for cursor in [
            Cursor::Index { bucket: 3, after: None },
            Cursor::Index { bucket: 1023, after: id },
            Cursor::Scan { server: 0, cursor: u64::MAX, after: id },
        ] {
            assert_eq!(Cursor::read(&cursor.to_string()), Some(cursor));
        }
        for text in ["", "i", "i.1024.", "i.1", "x.1.", "s.1.", "s.1.2.zz", "s.1.2..", "i.-1."] {
            assert_eq!(Cursor::read(text), None, "{text}");
        }
    }
}
