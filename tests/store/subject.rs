//! What the suite is run on, and the words its cases are written in.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use oncegate::{
    rule::{Cell, Expect, Fingerprint, Policy, Record, RecordId, RouteName, Stored, UnknownReason, Version},
    store::{
        Details, Event, Figures, Filter, Look, Page, Store, StoreError, Swap, Write,
        faulty::{Fault, FaultyStore, Step},
        memory::{MemoryOptions, MemoryStore},
    },
};

pub(crate) const LEASE: Duration = Duration::from_secs(15);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A store under test, and its clock.
pub(crate) trait Subject: Sized + Send + Sync + 'static {
    type Store: Store;

    /// A store that holds nothing.
    fn empty() -> impl Future<Output = Self> + Send;

    fn store(&self) -> &Arc<Self::Store>;

    /// Lets the store's clock run on.
    fn advance(&self, time: Duration) -> impl Future<Output = ()> + Send;

    /// How exactly the store's clock can be told: the time that passes by itself meanwhile.
    const TICK: Duration = Duration::from_millis(1);

    /// How soon after a change those who wait for it must be woken.
    const SOON: Duration = Duration::from_millis(1);

    /// Whether the bytes it tells of are those of the records alone.
    const KNOWS_BYTES: bool = true;

    /// The figures of now; a store that reckons them from time to time does so.
    fn figures(&self) -> impl Future<Output = Figures> + Send {
        async { self.store().figures() }
    }

    /// Whether two times are the same, as exactly as can be told.
    fn is(time: Duration, expected: Duration) -> bool {
        time.abs_diff(expected) < Self::TICK
    }
}

pub(crate) struct Memory(Arc<MemoryStore>);

impl Subject for Memory {
    type Store = MemoryStore;

    async fn empty() -> Self {
        Self(Arc::new(MemoryStore::new(MemoryOptions { max_bytes: 64 << 20, allow_eviction: false })))
    }

    fn store(&self) -> &Arc<MemoryStore> {
        &self.0
    }

    async fn advance(&self, time: Duration) {
        tokio::time::advance(time).await;
    }
}

/// A subject that loses requests and replies, used by a caller who heeds the contract.
pub(crate) struct Faulty<S: Subject> {
    subject: S,
    store: Arc<Heedful<S::Store>>,
}

impl<S: Subject> Subject for Faulty<S> {
    type Store = Heedful<S::Store>;

    async fn empty() -> Self {
        let subject = S::empty().await;
        let faulty = FaultyStore::new(Arc::clone(subject.store()));
        faulty.seed(7, &[(Fault::LoseReply, 250), (Fault::LoseRequest, 150), (Fault::Refuse, 100)]);
        // Whatever else is drawn, these steps of each case go wrong.
        faulty.script(Step::Claim, Fault::LoseReply);
        faulty.script(Step::Settle, Fault::LoseReply);
        faulty.script(Step::Free, Fault::LoseReply);
        Self { subject, store: Arc::new(Heedful(faulty)) }
    }

    fn store(&self) -> &Arc<Heedful<S::Store>> {
        &self.store
    }

    async fn advance(&self, time: Duration) {
        self.subject.advance(time).await;
    }
}

/// Does what a writer in doubt must do: looks for its own version, and sends the same step again.
pub(crate) struct Heedful<S>(FaultyStore<S>);

impl<S: Store> Store for Heedful<S> {
    const MAY_LOSE: bool = S::MAY_LOSE;
    const LENDS: bool = S::LENDS;

    async fn load(&self, id: &RecordId) -> Result<Option<Cell<Stored>>, StoreError> {
        loop {
            if let Ok(cell) = self.0.load(id).await {
                return Ok(cell);
            }
        }
    }

    async fn swap(
        &self,
        id: &RecordId,
        expect: Expect,
        version: Version,
        next: Option<Write>,
    ) -> Result<Swap, StoreError> {
        let mut in_doubt = false;
        loop {
            match self.0.swap(id, expect, version, next.clone()).await {
                // A free that was lost on its way back finds nothing to free.
                Ok(Swap::Stale(None)) if in_doubt && next.is_none() => return Ok(Swap::Done),
                Ok(swap) => return Ok(swap),
                Err(StoreError::Full) => return Err(StoreError::Full),
                Err(StoreError::Refused(_) | StoreError::Damaged(_)) => {}
                Err(StoreError::Unknown(_)) => {
                    in_doubt = true;
                    if self.load(id).await?.is_some_and(|cell| cell.version == version) {
                        return Ok(Swap::Done);
                    }
                }
            }
        }
    }

    async fn changed(&self, id: &RecordId, seen: Version) -> Option<Look> {
        self.0.changed(id, seen).await
    }

    fn replayed(&self, id: &RecordId) {
        self.0.replayed(id);
    }

    async fn list(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.0.inner().list(filter, after, limit).await
    }

    async fn find(&self, short: oncegate::rule::record::ShortId) -> Result<Vec<RecordId>, StoreError> {
        self.0.inner().find(short).await
    }

    async fn details(&self, id: &RecordId) -> Result<Option<Details>, StoreError> {
        self.0.inner().details(id).await
    }

    async fn discard(&self, id: &RecordId) -> Result<bool, StoreError> {
        self.0.inner().discard(id).await
    }

    async fn upkeep(&self) -> Result<Vec<Event>, StoreError> {
        self.0.inner().upkeep().await
    }

    fn figures(&self) -> Figures {
        self.0.figures()
    }
}

/// An id as good as a keyed hash.
pub(crate) fn id(number: u64) -> RecordId {
    RecordId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

pub(crate) fn version(number: u128) -> Version {
    Version(number.to_be_bytes())
}

pub(crate) fn fingerprint() -> Fingerprint {
    Fingerprint([7; 32])
}

/// One name, shared by all who use it, as routes share theirs.
pub(crate) fn route() -> RouteName {
    static ROUTE: LazyLock<RouteName> = LazyLock::new(|| RouteName("create charge".into()));
    ROUTE.clone()
}

pub(crate) fn in_flight() -> Record<Stored> {
    Record::InFlight { fingerprint: fingerprint(), lease: LEASE, running: Duration::from_secs(3) }
}

pub(crate) fn completed(body: &str) -> Record<Stored> {
    Record::Completed { fingerprint: fingerprint(), response: answer(body.as_bytes()) }
}

pub(crate) fn unknown() -> Record<Stored> {
    Record::Unknown { fingerprint: fingerprint(), reason: UnknownReason::Answered, status: Some(502) }
}

pub(crate) fn answer(body: &[u8]) -> Stored {
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, HeaderValue::from_static("/v1/charges/1"));
    Stored::keep(&Policy::default(), 201, &headers, &[Bytes::copy_from_slice(body)])
}

/// What writes this record for `keep`.
pub(crate) fn write(record: Record<Stored>, keep: Duration) -> Option<Write> {
    Some(Write { record, keep, route: route() })
}

/// Short forms of what the cases do most.
pub(crate) trait Steps: Store {
    fn cell(&self, key: u64) -> impl Future<Output = Option<Cell<Stored>>> + Send {
        async move { self.load(&id(key)).await.unwrap() }
    }

    /// Writes `record` for an hour where there is none, as version `named`.
    fn put(&self, key: u64, named: u128, record: Record<Stored>) -> impl Future<Output = ()> + Send {
        self.put_for(HOUR, key, named, record)
    }

    fn put_for(
        &self,
        keep: Duration,
        key: u64,
        named: u128,
        record: Record<Stored>,
    ) -> impl Future<Output = ()> + Send {
        async move {
            assert_eq!(self.claim_by(key, named, write(record, keep)).await, Swap::Done);
        }
    }

    fn claim_by(&self, key: u64, named: u128, next: Option<Write>) -> impl Future<Output = Swap> + Send {
        async move { self.swap(&id(key), Expect::Absent, version(named), next).await.unwrap() }
    }

    /// Replaces version `seen` by `next`, as version `named`.
    fn replace(&self, key: u64, seen: u128, named: u128, next: Option<Write>) -> impl Future<Output = Swap> + Send {
        async move { self.swap(&id(key), Expect::Version(version(seen)), version(named), next).await.unwrap() }
    }

    fn events(&self) -> impl Future<Output = Vec<Event>> + Send {
        async move { self.upkeep().await.unwrap() }
    }
}

impl<S: Store> Steps for S {}
