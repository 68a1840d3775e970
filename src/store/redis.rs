//! The Redis store: one truth for many replicas (contract: S-1 to S-9).
//!
//! One value per record and one short script that compares a version and writes bytes; the rule stays in
//! [`crate::rule`]. A record's age is what it was to be kept, less what Redis still keeps it: Redis' own clock, and no
//! other (contract: R-22). Versions are random, so a step may be sent again wherever its fate is in doubt.
//!
//! `servers` knows who keeps what, `server` keeps connections to one of them, `codec` and `seal` turn records into bytes,
//! `watch` waits for other processes' writes, `census` looks for lapsed leases, `manage` serves operators.

mod census;
mod codec;
mod dialer;
mod facts;
mod keys;
mod manage;
mod marks;
mod replays;
mod script;
mod seal;
mod server;
mod servers;
mod trouble;
mod watch;

use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use redis::Value;
use tokio::sync::Mutex;

#[cfg(any(test, fuzzing))]
pub(crate) use self::codec::hold as codec_holds;
pub(crate) use self::servers::masters;
use self::{
    census::Census,
    codec::{Codec, Damaged, PEEK, Summary},
    keys::Names,
    marks::Marks,
    replays::Replays,
    script::{ALWAYS, CLAIM, Found, NO_VERSION, Step},
    servers::Servers,
    trouble::Trouble,
    watch::{Glance, Watches},
};
use super::{Details, Event, Figures, Filter, Look, Page, Store, StoreError, Swap, Write};
use crate::{
    clock::{self, Instant},
    config::{secrets::Secrets, settled},
    rule::{Cell, Expect, Record, RecordId, Stored, Version, identity::IdKey, record::ShortId},
};

/// How a Redis store is set up.
#[derive(Debug)]
pub struct RedisOptions<'a> {
    /// `[store.redis]`
    pub config: &'a settled::Redis,
    /// A full server may forget live records.
    pub allow_eviction: bool,
    /// Seal what is stored, when that is asked for; the last keys the ids.
    pub secrets: Option<&'a Secrets>,
    /// The key of the record ids, which all replicas must share.
    pub id_key: &'a IdKey,
    /// Between two looks for lapsed leases.
    pub census: Duration,
}

/// Between two looks for lapsed leases, where nothing else is wanted: they are found within 60 s (contract: R-18).
pub const CENSUS: Duration = Duration::from_secs(5);

/// Redis reckons ends in signed milliseconds since 1970; nobody keeps a record for longer than this.
const KEEP_MOST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Keeps the records in Redis.
#[derive(Debug)]
pub struct RedisStore {
    names: Names,
    servers: Servers,
    codec: Codec,
    timeout: Duration,
    /// Replicas that must have a claim and a completion (contract: S-2).
    replicas: u32,
    watches: Watches,
    replays: Replays,
    census: Mutex<Census>,
    figures: ArcSwap<Figures>,
}

/// Another id key is in use with the same prefix: this process' ids would never meet the others' (contract: R-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another id key is in use in this Redis: all replicas need the same store.secret_file")]
pub struct OtherIdKey;

/// The keys of which one is a server's mark: of a Cluster's node, the first that it serves; of another server the first.
pub(crate) fn mark_keys(prefix: &str) -> impl Iterator<Item = String> {
    let names = Names::new(prefix);
    (keys::FIRST..keys::BUCKETS).map(move |bucket| names.mark(bucket))
}

/// Whether the mark of a server is that of this id key (contract: R-5).
pub(crate) fn is_marked_by(mark: &[u8], id_key: &IdKey) -> bool {
    marks::is_marked_by(mark, id_key)
}

impl RedisStore {
    /// A store that has not connected yet: at start Redis may be away (contract: S-8).
    ///
    /// # Errors
    ///
    /// A sentence, when a URL, a password or a certificate cannot be used.
    pub fn new(options: &RedisOptions<'_>) -> Result<Self, String> {
        let RedisOptions { config, allow_eviction, secrets, id_key, census } = options;
        let names = Names::new(&config.prefix);
        let codec = match secrets {
            Some(secrets) if config.encrypt => Codec::sealed(secrets),
            Some(_) | None => Codec::plain(),
        };
        Ok(Self {
            servers: Servers::new(config, names.clone(), (*allow_eviction, Marks::new(id_key)))?,
            names,
            codec,
            timeout: config.timeout,
            replicas: config.replicas,
            watches: Watches::default(),
            replays: Replays::default(),
            census: Mutex::new(Census::new(*census)),
            figures: ArcSwap::default(),
        })
    }

    /// Looks at the servers for at most `patience`, before anything relies on them. That they are away is no error.
    ///
    /// # Errors
    ///
    /// [`OtherIdKey`], when another id key is in use there.
    pub async fn first_look(&self, patience: Duration) -> Result<(), OtherIdKey> {
        _ = tokio::time::timeout(patience, self.examine()).await;
        // Their drivers may belong to a runtime that ends with this look, and what they said may not have been logged.
        self.servers.all().iter().for_each(|server| server.forget());
        if self.servers.marks().foreign() { Err(OtherIdKey) } else { Ok(()) }
    }

    /// Asks every server about itself; says what it could not find out.
    async fn examine(&self) {
        if let Err(error) = self.servers.look().await {
            tracing::debug!(error, "the store's servers are not known");
        }
        for server in self.servers.all() {
            if let Err(trouble) = server.examine(self.deadline()).await {
                tracing::debug!(server = %server.address(), %trouble, "a server of the store does not answer");
            }
        }
    }

    fn deadline(&self) -> Instant {
        clock::now() + self.timeout
    }

    async fn step(&self, step: &Step<'_>, replicas: u32) -> Result<Found, StoreError> {
        let (answer, acknowledged) = match self.servers.step(step, replicas, self.deadline()).await {
            Ok(answered) => answered,
            Err(trouble) => return Err(self.not_done(step, trouble)),
        };
        match Found::read(answer) {
            // Its reply says that it wrote: only whether enough others have it is not known (contract: S-2, R-8).
            Some(Found::Done) if !acknowledged => {
                self.servers.refused_write();
                Err(StoreError::Unknown(format!("fewer than {replicas} replicas acknowledged")))
            }
            Some(found) => Ok(found),
            None => Err(StoreError::Unknown("the server answered something that is not the script's".to_owned())),
        }
    }

    fn not_done(&self, step: &Step<'_>, trouble: Trouble) -> StoreError {
        let refused = trouble.is_of_the_server() && !step.value.is_empty();
        match StoreError::from(trouble) {
            // A record is a string: what stands in its place was put there by somebody else.
            StoreError::Damaged(_) => self.damaged(&RecordId(step.keys.id), Damaged::Foreign),
            error @ StoreError::Refused(_) if refused => {
                self.servers.refused_write();
                error
            }
            error @ (StoreError::Full | StoreError::Refused(_) | StoreError::Unknown(_)) => error,
        }
    }

    /// Reads a value with what Redis still keeps it for.
    fn cell(&self, id: &RecordId, value: Vec<u8>, left: Option<Duration>) -> Result<Details, StoreError> {
        let decoded = self.codec.decode(id, Bytes::from(value)).map_err(|damaged| self.damaged(id, damaged))?;
        let Some(left) = left else { return Err(self.damaged(id, Damaged::Foreign)) };
        let age = decoded.keep.saturating_sub(left);
        let cell = Cell { version: decoded.version, age, left, route: decoded.route, record: decoded.record };
        Ok(Details { cell, replays: u64::from(decoded.replays) + self.replays.pending(id) })
    }

    /// A value that is not a record's is never replayed, and its request never run again (contract: S-6).
    fn damaged(&self, id: &RecordId, damaged: Damaged) -> StoreError {
        tracing::error!(record = %id.short(), %damaged, "what Redis holds for a record cannot be used");
        StoreError::Damaged(damaged.to_string())
    }

    async fn look(&self, id: &RecordId) -> Result<Option<Details>, StoreError> {
        let held = self.held(id).await?;
        held.map(|(value, left)| self.cell(id, value, left)).transpose()
    }

    /// A record's value as it stands, and for how long it is still kept.
    async fn held(&self, id: &RecordId) -> Result<Option<(Vec<u8>, Option<Duration>)>, StoreError> {
        let keys = self.names.of(id);
        let step = Step {
            script: &ALWAYS,
            keys: &keys,
            expect: NO_VERSION,
            value: &[],
            keep: Duration::ZERO,
            claims: false,
            open: false,
        };
        match self.step(&step, 0).await? {
            Found::Held(value, left) => Ok(Some((value, left))),
            Found::Nothing => Ok(None),
            Found::Done => Err(StoreError::Unknown("a look was answered as a write".to_owned())),
        }
    }

    /// What stands in the beginnings of these records' values, and for how long they are kept; cheap, and not atomic.
    async fn peek(&self, ids: &[RecordId]) -> Result<Vec<Option<Peeked>>, StoreError> {
        let mut peeked = vec![None; ids.len()];
        let mut left: Vec<_> = (0..ids.len()).collect();
        while let Some(first) = left.first() {
            let deadline = self.deadline();
            let server = self.servers.serving(keys::bucket_of(&ids[*first]), deadline).await?;
            let served = self.servers.buckets(&server);
            let here = |at: &usize| served.contains(&keys::bucket_of(&ids[*at]));
            let (mine, others): (Vec<_>, Vec<_>) = left.iter().partition(|at| *at == first || here(at));
            let mut commands = redis::pipe();
            for at in &mine {
                let key = self.names.record(&ids[*at]);
                commands.cmd("GETRANGE").arg(&key).arg(0).arg(PEEK - 1);
                commands.cmd("PTTL").arg(&key);
            }
            let answers = server.ask_all(&commands, deadline).await?;
            for (at, answer) in mine.iter().zip(answers.chunks(2)) {
                peeked[*at] = self.peeked(&ids[*at], answer)?;
            }
            left = others;
        }
        Ok(peeked)
    }

    fn peeked(&self, id: &RecordId, answer: &[Value]) -> Result<Option<Peeked>, StoreError> {
        match answer {
            [Value::BulkString(start), _] if start.is_empty() => Ok(None),
            [_, Value::Int(-2)] => Ok(None),
            [Value::BulkString(start), Value::Int(left)] => {
                let left = u64::try_from(*left).map_or(Duration::ZERO, Duration::from_millis);
                Ok(Some(Peeked { summary: self.codec.peek(id, start), left }))
            }
            // What is no string is no record; the others are read all the same.
            [Value::ServerError(error), ..] if error.code() == "WRONGTYPE" => {
                Ok(Some(Peeked { summary: Err(Damaged::Foreign), left: Duration::ZERO }))
            }
            [Value::ServerError(error), ..] | [_, Value::ServerError(error)] => {
                Err(StoreError::Refused(format!("{} {}", error.code(), error.details().unwrap_or_default())))
            }
            [..] => Err(StoreError::Refused("the server answered something else than was asked".to_owned())),
        }
    }
}

/// The beginning of a record's value.
#[derive(Debug, Clone)]
struct Peeked {
    summary: Result<Summary, Damaged>,
    left: Duration,
}

impl Peeked {
    fn age(&self, summary: &Summary) -> Duration {
        summary.age(self.left)
    }
}

impl Store for RedisStore {
    const MAY_LOSE: bool = true;
    const LENDS: bool = false;

    async fn load(&self, id: &RecordId) -> Result<Option<Cell<Stored>>, StoreError> {
        Ok(self.look(id).await?.map(|details| details.cell))
    }

    async fn swap(
        &self,
        id: &RecordId,
        expect: Expect,
        version: Version,
        next: Option<Write>,
    ) -> Result<Swap, StoreError> {
        let keys = self.names.of(id);
        // What is kept for no time is as good as freed, and Redis knows no such expiry.
        let next = next.filter(|next| !next.keep.is_zero());
        let next = next.map(|next| Write { keep: next.keep.min(KEEP_MOST), ..next });
        let value = next.as_ref().map(|next| self.codec.encode(id, version, next)).unwrap_or_default();
        let (open, acknowledged) = match next.as_ref().map(|next| &next.record) {
            // A claim anew of an unknown record cannot be told from a renewal: both are waited for.
            Some(Record::InFlight { .. }) => (true, true),
            Some(Record::Unknown { .. }) => (true, false),
            Some(Record::Completed { .. }) => (false, true),
            None => (false, false),
        };
        let claims = open && expect == Expect::Absent;
        let step = Step {
            script: if claims { &CLAIM } else { &ALWAYS },
            keys: &keys,
            expect: match &expect {
                Expect::Absent => &[],
                Expect::Version(version) => &version.0,
            },
            value: &value,
            keep: next.as_ref().map_or(Duration::ZERO, |next| next.keep),
            claims,
            open,
        };
        let replicas = if acknowledged { self.replicas } else { 0 };
        match self.step(&step, replicas).await? {
            Found::Done => {
                self.watches.wrote(id);
                Ok(Swap::Done)
            }
            Found::Nothing => Ok(Swap::Stale(None)),
            Found::Held(value, left) => Ok(Swap::Stale(Some(self.cell(id, value, left)?.cell))),
        }
    }

    async fn changed(&self, id: &RecordId, seen: Version) -> Option<Look> {
        let glance = || async {
            let Ok(mut peeked) = self.peek(std::slice::from_ref(id)).await else { return Glance::Nothing };
            match peeked.pop().flatten() {
                Some(Peeked { summary: Ok(summary), left }) if !summary.has_lapsed(left) => {
                    Glance::Version(summary.version)
                }
                Some(_) | None => Glance::Other,
            }
        };
        self.watches.changed(id, seen, glance, || self.load(id)).await
    }

    fn replayed(&self, id: &RecordId) {
        self.replays.count(id);
    }

    async fn list(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.page(filter, after, limit).await
    }

    async fn find(&self, short: ShortId) -> Result<Vec<RecordId>, StoreError> {
        self.beginning(short).await
    }

    async fn details(&self, id: &RecordId) -> Result<Option<Details>, StoreError> {
        self.look(id).await
    }

    async fn discard(&self, id: &RecordId) -> Result<bool, StoreError> {
        self.throw_away(id).await
    }

    async fn upkeep(&self) -> Result<Vec<Event>, StoreError> {
        self.look_after().await
    }

    fn figures(&self) -> Figures {
        Figures { up: self.servers.serve(), ..**self.figures.load() }
    }
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        trouble.to_string()
    }
}
