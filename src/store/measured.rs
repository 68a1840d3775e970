//! A store whose operations are timed.

use std::{sync::Arc, time::Duration};

use super::{Details, Event, Figures, Filter, Look, Page, Store, StoreError, Swap, Write};
use crate::{
    clock,
    rule::{Cell, Expect, Record, RecordId, Stored, Version, record::ShortId},
};

/// What a store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// What is known of a key.
    Load,
    /// To take a key.
    Claim,
    /// To write how a request ended.
    Settle,
    /// To free a key.
    Release,
    /// What operators ask for.
    Manage,
    /// Its own housekeeping.
    Upkeep,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 6] = [Self::Load, Self::Claim, Self::Settle, Self::Release, Self::Manage, Self::Upkeep];

    /// The `operation` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Claim => "claim",
            Self::Settle => "settle",
            Self::Release => "release",
            Self::Manage => "manage",
            Self::Upkeep => "upkeep",
        }
    }

    fn of(next: Option<&Write>) -> Self {
        match next.map(|write| &write.record) {
            None => Self::Release,
            Some(Record::InFlight { .. }) => Self::Claim,
            Some(Record::Completed { .. } | Record::Unknown { .. }) => Self::Settle,
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It was answered.
    Ok,
    /// It was refused: it did not happen.
    Refused,
    /// Nobody can tell.
    Failed,
}

impl Done {
    /// Every end.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Refused, Self::Failed];

    /// The `result` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    fn of<T>(result: &Result<T, StoreError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(StoreError::Full | StoreError::Refused(_) | StoreError::Damaged(_)) => Self::Refused,
            Err(StoreError::Unknown(_)) => Self::Failed,
        }
    }
}

/// Is told how long operations take.
pub trait Observe: Send + Sync + 'static {
    /// An operation ended.
    fn observe(&self, operation: Operation, done: Done, took: Duration);
}

/// Times the operations of a store.
#[derive(Debug)]
pub struct Measured<S, O> {
    inner: Arc<S>,
    observer: O,
}

impl<S: Store, O: Observe> Measured<S, O> {
    /// Times `inner`, and tells `observer`.
    pub fn new(inner: Arc<S>, observer: O) -> Self {
        Self { inner, observer }
    }

    async fn timed<T>(
        &self,
        operation: Operation,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let started = clock::now();
        let result = run.await;
        self.observer.observe(operation, Done::of(&result), clock::now() - started);
        result
    }
}

impl<S: Store, O: Observe> Store for Measured<S, O> {
    const MAY_LOSE: bool = S::MAY_LOSE;
    const LENDS: bool = S::LENDS;

    async fn load(&self, id: &RecordId) -> Result<Option<Cell<Stored>>, StoreError> {
        self.timed(Operation::Load, self.inner.load(id)).await
    }

    async fn swap(
        &self,
        id: &RecordId,
        expect: Expect,
        version: Version,
        next: Option<Write>,
    ) -> Result<Swap, StoreError> {
        let operation = Operation::of(next.as_ref());
        self.timed(operation, self.inner.swap(id, expect, version, next)).await
    }

    async fn changed(&self, id: &RecordId, seen: Version) -> Option<Look> {
        self.inner.changed(id, seen).await
    }

    fn replayed(&self, id: &RecordId) {
        self.inner.replayed(id);
    }

    async fn list(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.timed(Operation::Manage, self.inner.list(filter, after, limit)).await
    }

    async fn find(&self, short: ShortId) -> Result<Vec<RecordId>, StoreError> {
        self.timed(Operation::Manage, self.inner.find(short)).await
    }

    async fn details(&self, id: &RecordId) -> Result<Option<Details>, StoreError> {
        self.timed(Operation::Manage, self.inner.details(id)).await
    }

    async fn discard(&self, id: &RecordId) -> Result<bool, StoreError> {
        self.timed(Operation::Manage, self.inner.discard(id)).await
    }

    async fn upkeep(&self) -> Result<Vec<Event>, StoreError> {
        self.timed(Operation::Upkeep, self.inner.upkeep()).await
    }

    fn figures(&self) -> Figures {
        self.inner.figures()
    }
}
