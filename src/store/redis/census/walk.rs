//! Reads the indices of records that are not settled, and says what is to be told of them.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use redis::Value;

use super::{
    super::{
        Peeked, RedisStore,
        codec::{Summary, Written},
        script::MARK,
        server::Server,
        trouble::Trouble,
    },
    Lost, Tally,
};
use crate::{
    clock,
    rule::{RecordId, UnknownReason},
    store::{Event, State, StoreError},
};

/// Buckets asked for at a time, and records.
const BATCH: usize = 128;
/// Buckets that are looked for at a time.
const LOOKED_FOR: usize = 32;
/// Records of a bucket read at a time.
const PAGE: usize = 1000;
/// So long before its end an unknown record is announced (contract: P-5).
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What was told of a record, as the index notes it.
const LAPSE_TOLD: u8 = 1;
const END_TOLD: u8 = 2;

/// An entry of an index.
struct Entry {
    id: RecordId,
    told: u8,
}

/// What a walk found.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) events: Vec<Event>,
    pub(super) lost: HashMap<RecordId, Lost>,
    pub(super) tally: Tally,
    /// Indices that name something.
    pub(super) indices: u64,
    /// Why an index could not be read, if one could not.
    pub(super) unread: Option<StoreError>,
}

impl RedisStore {
    /// Walks every server's indices, past those that cannot be walked: the records of the others have their leases too.
    /// Whether none was left out.
    pub(super) async fn walk_all(&self, before: &HashMap<RecordId, Lost>, walk: &mut Walk) -> Result<bool, StoreError> {
        let (mut walked, mut failed) = (0, None);
        for server in self.servers.all() {
            match self.walk(&server, before, walk).await {
                Ok(()) => walked += 1,
                Err(error) => failed = Some((server, error)),
            }
        }
        match failed {
            Some((server, error)) if walked > 0 => {
                tracing::debug!(server = %server.address(), %error, "a server was left out of the walk");
                Ok(false)
            }
            Some((_, error)) => Err(error),
            None => Ok(walk.unread.is_none()),
        }
    }

    async fn walk(
        &self,
        server: &Arc<Server>,
        before: &HashMap<RecordId, Lost>,
        walk: &mut Walk,
    ) -> Result<(), StoreError> {
        let buckets = self.filled(server, self.servers.buckets(server)).await?;
        for buckets in buckets.chunks(BATCH) {
            let mut pages: Vec<(u16, usize)> = buckets.iter().map(|bucket| (*bucket, 0)).collect();
            while !pages.is_empty() {
                let mut read = Vec::with_capacity(pages.len());
                for ((bucket, _), page) in pages.iter().zip(self.index_pages(server, &pages).await?) {
                    read.push(match page {
                        Ok(entries) => entries,
                        // Its slot is on its way, something else stands in its place: the others can be read.
                        Err(error @ (StoreError::Damaged(_) | StoreError::Refused(_))) => {
                            tracing::debug!(index = %self.names.open(*bucket), %error, "an index cannot be read");
                            walk.unread = Some(error);
                            Vec::new()
                        }
                        Err(error @ (StoreError::Full | StoreError::Unknown(_))) => return Err(error),
                    });
                }
                let begins = |(entries, page): &(&Vec<Entry>, &(u16, usize))| page.1 == 0 && !entries.is_empty();
                walk.indices += read.iter().zip(&pages).filter(begins).count() as u64;
                let further = |((bucket, from), entries): (&(u16, usize), &Vec<Entry>)| {
                    (entries.len() == PAGE).then_some((*bucket, from + PAGE))
                };
                pages = pages.iter().zip(&read).filter_map(further).collect();
                let entries: Vec<_> = read.into_iter().flatten().collect();
                for entries in entries.chunks(BATCH) {
                    self.judge(server, entries, before, walk).await?;
                }
            }
        }
        Ok(())
    }

    /// Those of these buckets that may have an index. Most have none, and an idle server should be asked little; but in a
    /// Cluster a question is about one slot.
    async fn filled(&self, server: &Arc<Server>, buckets: Vec<u16>) -> Result<Vec<u16>, StoreError> {
        if self.servers.is_cluster() {
            return Ok(buckets);
        }
        let mut commands = redis::pipe();
        for buckets in buckets.chunks(LOOKED_FOR) {
            let keys: Vec<_> = buckets.iter().map(|bucket| self.names.open(*bucket)).collect();
            commands.cmd("EXISTS").arg(keys);
        }
        let answers = server.ask_all(&commands, self.deadline()).await?;
        // One that may not be asked so is asked for each of them.
        let filled = buckets.chunks(LOOKED_FOR).zip(answers).filter(|(_, answer)| *answer != Value::Int(0));
        Ok(filled.flat_map(|(buckets, _)| buckets).copied().collect())
    }

    /// A page of each of these buckets' indices, from the entry that is named; or why it cannot be read.
    async fn index_pages(
        &self,
        server: &Arc<Server>,
        pages: &[(u16, usize)],
    ) -> Result<Vec<Result<Vec<Entry>, StoreError>>, StoreError> {
        let mut commands = redis::pipe();
        for (bucket, from) in pages {
            let key = self.names.open(*bucket);
            commands.cmd("ZRANGE").arg(key).arg(*from).arg(from + PAGE - 1).arg("WITHSCORES");
        }
        let answers = server.ask_all(&commands, self.deadline()).await?;
        Ok(answers.into_iter().map(|answer| entries(answer).map_err(StoreError::from)).collect())
    }

    /// The ids that these buckets' indices name; all of them, or an error.
    pub(in super::super) async fn indexed(&self, buckets: Range<u16>) -> Result<Vec<RecordId>, StoreError> {
        let mut ids = Vec::new();
        let mut pages: Vec<_> = buckets.map(|bucket| (bucket, 0)).collect();
        while let Some((first, _)) = pages.first() {
            let server = self.servers.serving(*first, self.deadline()).await?;
            let served = self.servers.buckets(&server);
            let (mine, mut others): (Vec<_>, Vec<_>) =
                pages.iter().partition(|(bucket, _)| bucket == first || served.contains(bucket));
            let read = self.index_pages(&server, &mine).await?;
            for ((bucket, from), entries) in mine.iter().zip(read) {
                let entries = entries.map_err(|error| match error {
                    StoreError::Damaged(why) => {
                        StoreError::Refused(format!("{} is no index: {why}", self.names.open(*bucket)))
                    }
                    other @ (StoreError::Full | StoreError::Refused(_) | StoreError::Unknown(_)) => other,
                })?;
                if entries.len() == PAGE {
                    others.push((*bucket, from + PAGE));
                }
                ids.extend(entries.iter().map(|entry| entry.id));
            }
            pages = others;
        }
        Ok(ids)
    }

    async fn judge(
        &self,
        server: &Arc<Server>,
        entries: &[Entry],
        before: &HashMap<RecordId, Lost>,
        walk: &mut Walk,
    ) -> Result<(), StoreError> {
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        for (entry, peeked) in entries.iter().zip(self.peek(&ids).await?) {
            let now = clock::now();
            let version = match &peeked {
                Some(Peeked { summary: Ok(summary), .. }) => Some(summary.version),
                Some(Peeked { summary: Err(_), .. }) => continue,
                None => None,
            };
            if let Some(lost) = before.get(&entry.id)
                && version != Some(lost.version)
                && (version.is_none() || now >= lost.ends)
            {
                let Lost { route, reason, .. } = lost.clone();
                walk.events.push(Event::UnknownExpired { id: entry.id, route, reason });
            }
            match peeked {
                None => self.note(server, entry, &[], 0).await?,
                Some(Peeked { summary: Err(_), .. }) => {}
                Some(Peeked { summary: Ok(summary), left }) => {
                    self.judge_one(server, entry, &summary, left, walk).await?;
                }
            }
        }
        Ok(())
    }

    async fn judge_one(
        &self,
        server: &Arc<Server>,
        entry: &Entry,
        summary: &Summary,
        left: Duration,
        walk: &mut Walk,
    ) -> Result<(), StoreError> {
        let age = summary.age(left);
        let reason = match &summary.written {
            Written::InFlight { lease, .. } if age < *lease => {
                walk.tally.in_flight += 1;
                return Ok(());
            }
            Written::InFlight { .. } => UnknownReason::Lapsed,
            Written::Unknown { reason, .. } => *reason,
            Written::Completed => return Ok(()),
        };
        let (id, route) = (entry.id, summary.route.clone());
        // The beginning and the time left were read one after the other: what is told is looked at as a whole.
        let tell_lapse = reason == UnknownReason::Lapsed && entry.told < LAPSE_TOLD;
        let tell_end = left < DAY && summary.keep > DAY && entry.told < END_TOLD;
        if tell_lapse || tell_end {
            match self.look(&id).await {
                Ok(None) => return Ok(()),
                Ok(Some(details)) => {
                    if details.cell.version != summary.version || State::of(&details.cell) != State::Unknown {
                        return Ok(());
                    }
                }
                // Its beginning can be read, which is all that is told of it; one bad value must not hide all others.
                Err(StoreError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut tell = async |told, event| {
            let noted = self.note(server, entry, &summary.version.0, told).await;
            // What may have been noted nobody else will tell: rather twice than never.
            if matches!(noted, Ok(()) | Err(Trouble::Doubt(_))) {
                walk.events.push(event);
            }
            noted
        };
        if tell_lapse {
            tell(LAPSE_TOLD, Event::Lapsed { id, route: route.clone() }).await?;
        }
        if tell_end {
            tell(END_TOLD, Event::UnknownExpiring { id, route: route.clone(), left }).await?;
        }
        walk.tally.unknown += 1;
        walk.tally.expiring += u64::from(left < DAY);
        let lease = summary.lease().unwrap_or_default();
        let unknown_ms = u64::try_from(age.saturating_sub(lease).as_millis()).unwrap_or(u64::MAX);
        walk.tally.oldest_ms = walk.tally.oldest_ms.max(unknown_ms);
        let ends = clock::now() + left;
        walk.lost.insert(id, Lost { version: summary.version, route, reason, ends });
        Ok(())
    }

    /// Notes in the index what was told of a record, if it is still of the version that was seen (empty: none).
    async fn note(&self, server: &Arc<Server>, entry: &Entry, seen: &[u8], told: u8) -> Result<(), Trouble> {
        let keys = self.names.of(&entry.id);
        let mut command = MARK.command(true, 2);
        command.arg(&keys.record).arg(&keys.open).arg(seen).arg(&entry.id.0[..]).arg(told);
        server.ask(&command, self.deadline()).await?;
        Ok(())
    }
}

/// Reads `ZRANGE … WITHSCORES`: pairs of a member and its score. What is refused is not empty.
fn entries(answer: Value) -> Result<Vec<Entry>, Trouble> {
    let Value::Array(pairs) = answer.extract_error().map_err(Trouble::of)? else {
        return Err(Trouble::Doubt("ZRANGE was answered by something else".to_owned()));
    };
    let entry = |pair: Value| {
        let Value::Array(pair) = pair else { return None };
        let [Value::BulkString(member), score] = &pair[..] else { return None };
        let Value::Double(score) = score else { return None };
        let told = [END_TOLD, LAPSE_TOLD].into_iter().find(|told| *score >= f64::from(*told)).unwrap_or(0);
        Some(Entry { id: RecordId(member.as_slice().try_into().ok()?), told })
    };
    Ok(pairs.into_iter().filter_map(entry).collect())
}
