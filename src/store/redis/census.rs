//! The store's housekeeping: are the servers well, whose lease lapsed, which unknown record ends soon.
//!
//! Records that are not settled are named by their bucket's index, so nothing ever reads all records for this. One
//! replica at a time walks the indices (contract: R-18) and leaves its figures for the others. What was told of a record
//! is noted in the index, so that the next replica does not tell it again.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use redis::{Value, cmd};

use super::{
    Peeked, RedisStore,
    codec::{Summary, Written},
    facts::Facts,
    script::{LEAVE, MARK, TURN, milliseconds},
    server::Server,
    trouble::Trouble,
};
use crate::{
    clock::{self, Instant},
    rule::{RecordId, RouteName, UnknownReason, Version},
    store::{Event, Figures, State, StoreError},
};

/// Between two questions to a server about itself.
const EXAMINE: Duration = Duration::from_secs(5);
/// How long one replica has the walk to itself.
const TURN_KEPT: Duration = Duration::from_secs(30);
/// How long its figures are good for the others.
const FIGURES: Duration = Duration::from_secs(60);
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

/// What this replica remembers from one round to the next.
#[derive(Debug)]
pub(super) struct Census {
    every: Duration,
    walked: Option<Instant>,
    examined: Option<Instant>,
    /// Who this replica is to the others.
    name: u64,
    /// Unknown records seen in the last walk: their end is told with what was known of them.
    lost: HashMap<RecordId, Lost>,
    /// Keys that each server had evicted when it was last looked at.
    evicted: HashMap<String, u64>,
    persistence_told: bool,
}

#[derive(Debug, Clone)]
struct Lost {
    version: Version,
    route: RouteName,
    reason: UnknownReason,
    ends: Instant,
}

/// An entry of an index.
struct Entry {
    id: RecordId,
    told: u8,
}

/// What a walk found.
#[derive(Default)]
struct Walk {
    events: Vec<Event>,
    lost: HashMap<RecordId, Lost>,
    tally: Tally,
    /// Indices that name something.
    indices: u64,
}

/// What the one who walked leaves for the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    in_flight: u64,
    unknown: u64,
    expiring: u64,
    oldest_ms: u64,
    completed: u64,
}

impl Census {
    pub(super) fn new(every: Duration) -> Self {
        let name = getrandom::u64().expect("the system's random source answers");
        let (walked, examined) = (None, None);
        Self { every, walked, examined, name, lost: HashMap::new(), evicted: HashMap::new(), persistence_told: false }
    }
}

impl Tally {
    /// Of a walk that was not whole: no less than was found before.
    fn at_least(&mut self, before: &Figures) {
        self.in_flight = self.in_flight.max(before.in_flight);
        self.unknown = self.unknown.max(before.unknown);
        self.expiring = self.expiring.max(before.unknown_expiring);
        self.completed = self.completed.max(before.completed);
        let oldest = u64::try_from(before.unknown_oldest_age.as_millis()).unwrap_or(u64::MAX);
        self.oldest_ms = self.oldest_ms.max(oldest);
    }
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|last| clock::now() >= last + every)
}

impl RedisStore {
    pub(super) async fn look_after(&self) -> Result<Vec<Event>, StoreError> {
        let mut census = self.census.lock().await;
        let census = &mut *census;
        self.check_servers(census).await;
        let mut events: Vec<_> = (0..self.servers.marks().take_wiped()).map(|_| Event::Wiped).collect();
        if self.servers.marks().foreign() {
            events.push(Event::OtherIdKey);
        }
        match self.keep_count(census, &mut events).await {
            // What was found out is told, whatever else fails: it may be noted as told already.
            Err(error) if events.is_empty() => return Err(error),
            Err(error) => tracing::debug!(%error, "the store could not be looked after"),
            Ok(()) => {}
        }
        Ok(events)
    }

    async fn keep_count(&self, census: &mut Census, events: &mut Vec<Event>) -> Result<(), StoreError> {
        if let Err(error) = self.write_replays().await {
            tracing::debug!(%error, "replays could not be counted yet");
        }
        if !is_due(census.walked, census.every) {
            return Ok(());
        }
        census.walked = Some(clock::now());
        if !self.take_turn(census.name).await? {
            census.lost.clear();
            if let Some(tally) = self.read_tally().await? {
                self.publish(&tally);
            }
            return Ok(());
        }
        let mut walk = Walk::default();
        let walked = self.walk_all(&census.lost, &mut walk).await;
        for event in &walk.events {
            if let Event::UnknownExpired { id, .. } = event {
                census.lost.remove(id);
            }
        }
        events.append(&mut walk.events);
        let whole = walked?;
        walk.tally.completed = self.settled(&walk).await?;
        if !whole {
            // What a server that is away holds is not gone: its end is still to be told, and it still counts.
            for (id, lost) in census.lost.drain() {
                walk.lost.entry(id).or_insert(lost);
            }
            walk.tally.at_least(&self.figures.load());
        }
        census.lost = walk.lost;
        self.publish(&walk.tally);
        self.leave_tally(&walk.tally).await?;
        Ok(())
    }

    /// Walks every server's indices, past those that cannot be walked: the records of the others have their leases too.
    /// Whether none was left out.
    async fn walk_all(&self, before: &HashMap<RecordId, Lost>, walk: &mut Walk) -> Result<bool, StoreError> {
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
            None => Ok(true),
        }
    }

    /// How many keys are neither records that are not settled nor Oncegate's own: in a database of its own, the settled
    /// records.
    async fn settled(&self, walk: &Walk) -> Result<u64, Trouble> {
        let servers = self.servers.all();
        let mut keys = 0;
        for server in &servers {
            match server.ask(&cmd("DBSIZE"), self.deadline()).await {
                Ok(Value::Int(count)) => keys += u64::try_from(count).unwrap_or(0),
                Err(trouble) if servers.len() == 1 => return Err(trouble),
                // Those of a server that is away are not counted, as its records are not.
                Ok(_) | Err(_) => {}
            }
        }
        // The servers' marks, whose turn it is, and the figures, if they were there already.
        let own = servers.len() as u64 + 2;
        Ok(keys.saturating_sub(walk.tally.in_flight + walk.tally.unknown + walk.indices + own))
    }

    /// Asks every server whether it is well; one that hangs is hung up on (contract: S-8).
    async fn check_servers(&self, census: &mut Census) {
        if (self.servers.moves() || self.servers.all().is_empty())
            && let Err(error) = self.servers.look().await
        {
            tracing::warn!(error, "the store's servers are not known");
        }
        let examine = is_due(census.examined, EXAMINE.min(census.every));
        for server in self.servers.all() {
            let well = if examine || server.facts().is_none() || !server.answers() {
                server.examine(self.deadline()).await
            } else {
                server.ping(self.deadline()).await
            };
            if let Err(trouble) = well {
                tracing::debug!(server = %server.address(), %trouble, "a server of the store is not well");
                server.silent_to_ping();
            } else {
                server.heard_ping();
            }
        }
        if examine {
            census.examined = Some(clock::now());
            self.tell_of_servers(census);
        }
    }

    fn tell_of_servers(&self, census: &mut Census) {
        let servers = self.servers.all();
        let facts: Vec<_> = servers.iter().filter_map(|server| Some((server.address(), server.facts()?))).collect();
        // What a server had thrown away before it was first looked at is no news.
        let before = |(address, facts): &(String, Arc<Facts>)| {
            census
                .evicted
                .insert(address.clone(), facts.evicted)
                .map_or(0, |before| facts.evicted.saturating_sub(before))
        };
        let keys: u64 = facts.iter().map(before).sum();
        if keys > 0 {
            tracing::error!(keys, "Redis threw keys away for want of memory: if they were records, they may run again");
        }
        let facts: Vec<_> = facts.into_iter().map(|(_, facts)| facts).collect();
        let evicted = facts.iter().map(|facts| facts.evicted).sum();
        if !census.persistence_told && facts.iter().any(|facts| !facts.appends) {
            census.persistence_told = true;
            tracing::warn!(
                "a Redis server keeps no append-only file: a restart may forget records, whose requests would run again"
            );
        }
        let bytes = facts.iter().map(|facts| facts.memory.0).sum();
        let bytes_max = facts.iter().map(|facts| facts.memory.1).sum();
        let before = **self.figures.load();
        self.figures.store(Arc::new(Figures { bytes, bytes_max, redis_evicted_keys: evicted, ..before }));
    }

    fn publish(&self, tally: &Tally) {
        let Tally { in_flight, unknown, expiring, oldest_ms, completed } = *tally;
        let before = **self.figures.load();
        self.figures.store(Arc::new(Figures {
            in_flight,
            unknown,
            completed,
            unknown_expiring: expiring,
            unknown_oldest_age: Duration::from_millis(oldest_ms),
            ..before
        }));
    }

    /// Where the replicas tell each other what they do.
    async fn meeting(&self) -> Result<(u16, Arc<Server>), Trouble> {
        let bucket = self.servers.meeting();
        Ok((bucket, self.servers.serving(bucket, self.deadline()).await?))
    }

    /// Whether it is this replica's turn to walk.
    async fn take_turn(&self, name: u64) -> Result<bool, Trouble> {
        let (bucket, server) = self.meeting().await?;
        let mut take = TURN.command(true, 1);
        take.arg(self.names.census(bucket)).arg(name).arg(milliseconds(TURN_KEPT));
        Ok(server.ask(&take, self.deadline()).await? == Value::Int(1))
    }

    async fn leave_tally(&self, tally: &Tally) -> Result<(), Trouble> {
        let Tally { in_flight, unknown, expiring, oldest_ms, completed } = tally;
        let text = format!("{in_flight} {unknown} {expiring} {oldest_ms} {completed}");
        let (bucket, server) = self.meeting().await?;
        let mut leave = LEAVE.command(true, 1);
        leave.arg(self.names.figures(bucket)).arg(text).arg(milliseconds(FIGURES));
        server.ask(&leave, self.deadline()).await?;
        Ok(())
    }

    async fn read_tally(&self) -> Result<Option<Tally>, Trouble> {
        let (bucket, server) = self.meeting().await?;
        let figures = self.names.figures(bucket);
        let Value::BulkString(text) = server.ask(cmd("GET").arg(figures), self.deadline()).await? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&text);
        let numbers: Vec<u64> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
        Ok(match numbers[..] {
            [in_flight, unknown, expiring, oldest_ms, completed] => {
                Some(Tally { in_flight, unknown, expiring, oldest_ms, completed })
            }
            _ => None,
        })
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
                let read = self.index_pages(server, &pages).await?;
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

    /// A page of each of these buckets' indices, from the entry that is named.
    async fn index_pages(&self, server: &Arc<Server>, pages: &[(u16, usize)]) -> Result<Vec<Vec<Entry>>, StoreError> {
        let mut commands = redis::pipe();
        for (bucket, from) in pages {
            let key = self.names.open(*bucket);
            commands.cmd("ZRANGE").arg(key).arg(*from).arg(from + PAGE - 1).arg("WITHSCORES");
        }
        let answers = server.ask_all(&commands, self.deadline()).await?;
        Ok(answers.into_iter().map(entries).collect())
    }

    /// The ids that these buckets' indices name.
    pub(super) async fn indexed(&self, buckets: Range<u16>) -> Result<Vec<RecordId>, StoreError> {
        let mut ids = Vec::new();
        let mut pages: Vec<_> = buckets.map(|bucket| (bucket, 0)).collect();
        while let Some((first, _)) = pages.first() {
            let server = self.servers.serving(*first, self.deadline()).await?;
            let served = self.servers.buckets(&server);
            let (mine, mut others): (Vec<_>, Vec<_>) =
                pages.iter().partition(|(bucket, _)| bucket == first || served.contains(bucket));
            let read = self.index_pages(&server, &mine).await?;
            for ((bucket, from), entries) in mine.iter().zip(read) {
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

/// Reads `ZRANGE … WITHSCORES`: pairs of a member and its score.
fn entries(answer: Value) -> Vec<Entry> {
    let Value::Array(pairs) = answer else { return Vec::new() };
    let entry = |pair: Value| {
        let Value::Array(pair) = pair else { return None };
        let [Value::BulkString(member), score] = &pair[..] else { return None };
        let Value::Double(score) = score else { return None };
        let told = [END_TOLD, LAPSE_TOLD].into_iter().find(|told| *score >= f64::from(*told)).unwrap_or(0);
        Some(Entry { id: RecordId(member.as_slice().try_into().ok()?), told })
    };
    pairs.into_iter().filter_map(entry).collect()
}
