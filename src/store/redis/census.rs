//! The store's housekeeping: are the servers well, whose lease lapsed, which unknown record ends soon.
//!
//! Records that are not settled are named by their bucket's index, so nothing ever reads all records for this. One
//! replica at a time walks the indices (contract: R-18) and leaves its figures for the others. What was told of a record
//! is noted in the index, so that the next replica does not tell it again.

mod walk;

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{Value, cmd};

use self::walk::Walk;
use super::{
    RedisStore,
    facts::Facts,
    script::{LEAVE, TURN, milliseconds},
    server::Server,
    trouble::Trouble,
};
use crate::{
    clock::{self, Instant},
    rule::{RecordId, RouteName, UnknownReason, Version},
    store::{Event, Figures, StoreError},
};

/// Between two questions to a server about itself.
const EXAMINE: Duration = Duration::from_secs(5);
/// How long one replica has the walk to itself.
const TURN_KEPT: Duration = Duration::from_secs(30);
/// How long its figures are good for the others.
const FIGURES: Duration = Duration::from_secs(60);

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
    unread_told: bool,
}

#[derive(Debug, Clone)]
struct Lost {
    version: Version,
    route: RouteName,
    reason: UnknownReason,
    ends: Instant,
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
        let (lost, evicted, persistence_told, unread_told) = (HashMap::new(), HashMap::new(), false, false);
        Self { every, walked, examined, name, lost, evicted, persistence_told, unread_told }
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
        if let (Some(error), false) = (&walk.unread, census.unread_told) {
            tracing::warn!(%error, "records that are not settled cannot all be looked through: what is lost there is not told");
        }
        census.unread_told = walk.unread.is_some();
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
}
