//! A store that fails on demand: what tests put between the code and a working store.
//!
//! Faults are scripted, one step at a time, or drawn from a seed; a store can also be down as a whole. Each fault keeps
//! to the contract of [`Store`]: what is refused was not written, and what may have been written is
//! [`StoreError::Unknown`].

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::watch;

use super::{Details, Event, Figures, Filter, Look, Page, Store, StoreError, Swap, Write};
use crate::rule::{Cell, Expect, Record, RecordId, Stored, Version, record::ShortId};

/// What goes wrong with one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused before anything was done.
    Refuse,
    /// Refused as [`StoreError::Full`].
    Full,
    /// Done after so long.
    Delay(Duration),
    /// Done at once; the reply takes so long.
    DelayReply(Duration),
    /// Never reaches the store: [`StoreError::Unknown`], and not done.
    LoseRequest,
    /// Done, but the reply is lost: [`StoreError::Unknown`].
    LoseReply,
    /// [`StoreError::Unknown`] at once, and done after so long.
    Late(Duration),
    /// Does not return until [`FaultyStore::release`]; done then.
    Hang,
}

/// Which step goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// [`Store::load`].
    Load,
    /// A swap that expects no record and writes one in flight.
    Claim,
    /// A swap that replaces a record by one in flight: a renewal, or an unknown record claimed anew.
    Renew,
    /// A swap that writes a completed or unknown record.
    Settle,
    /// A swap that frees the key.
    Free,
    /// What operators and housekeeping ask for: list, find, details, discard, upkeep.
    Manage,
}

impl Step {
    fn of(expect: Expect, next: Option<&Write>) -> Self {
        match (next.map(|write| &write.record), expect) {
            (None, _) => Self::Free,
            (Some(Record::InFlight { .. }), Expect::Absent) => Self::Claim,
            (Some(Record::InFlight { .. }), Expect::Version(_)) => Self::Renew,
            (Some(Record::Completed { .. } | Record::Unknown { .. }), _) => Self::Settle,
        }
    }
}

/// Wraps a store, and fails on demand. Clones share everything.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: Arc<S>,
    plan: Arc<Mutex<Plan>>,
    /// Counts the calls of `release`: what hangs waits for the next.
    gate: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Plan {
    scripted: HashMap<Step, VecDeque<Fault>>,
    odds: Option<Odds>,
    is_down: bool,
    hanging: usize,
    met: u64,
}

/// Faults drawn from a seed.
#[derive(Debug)]
struct Odds {
    state: u64,
    per_thousand: Vec<(Fault, u32)>,
}

impl Odds {
    fn draw(&mut self) -> Option<Fault> {
        // splitmix64: a few lines that give the same faults on every machine.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mut lot = ((bits ^ (bits >> 31)) % 1000) as u32;
        for (fault, share) in &self.per_thousand {
            match lot.checked_sub(*share) {
                Some(rest) => lot = rest,
                None => return Some(*fault),
            }
        }
        None
    }
}

impl<S> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        let Self { inner, plan, gate } = self;
        Self { inner: Arc::clone(inner), plan: Arc::clone(plan), gate: gate.clone() }
    }
}

impl<S: Store> FaultyStore<S> {
    /// Wraps a store; nothing fails yet.
    #[must_use]
    pub fn new(inner: Arc<S>) -> Self {
        Self { inner, plan: Arc::default(), gate: watch::Sender::new(0) }
    }

    /// The store behind.
    #[must_use]
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }

    /// The next such step meets this fault; called again, the one after that.
    pub fn script(&self, step: Step, fault: Fault) {
        self.plan().scripted.entry(step).or_default().push_back(fault);
    }

    /// From now on steps without a script meet faults drawn from `seed`, each in so many of a thousand.
    pub fn seed(&self, seed: u64, per_thousand: &[(Fault, u32)]) {
        self.plan().odds = Some(Odds { state: seed, per_thousand: per_thousand.to_vec() });
    }

    /// Takes the store down (every step is refused), or brings it back.
    pub fn set_down(&self, is_down: bool) {
        self.plan().is_down = is_down;
    }

    /// Lets everything go on that hangs now.
    pub fn release(&self) {
        self.gate.send_modify(|released| *released += 1);
    }

    /// How many steps hang now.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.plan().hanging
    }

    /// How many faults were met since the start, refusals of a store that is down included.
    #[must_use]
    pub fn met(&self) -> u64 {
        self.plan().met
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().expect("no step panics under the lock")
    }

    fn next_fault(&self, step: Step) -> Option<Fault> {
        let mut plan = self.plan();
        let fault = if plan.is_down {
            Some(Fault::Refuse)
        } else {
            let scripted = plan.scripted.get_mut(&step).and_then(VecDeque::pop_front);
            scripted.or_else(|| plan.odds.as_mut().and_then(Odds::draw))
        };
        plan.met += u64::from(fault.is_some());
        fault
    }

    /// Runs a step as the plan has it.
    async fn step<T: Send + 'static>(
        &self,
        step: Step,
        run: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.next_fault(step) {
            None => run.await,
            Some(Fault::Refuse) => Err(StoreError::Refused("scripted".to_owned())),
            Some(Fault::Full) => Err(StoreError::Full),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                run.await
            }
            Some(Fault::DelayReply(time)) => {
                let done = run.await;
                tokio::time::sleep(time).await;
                done
            }
            Some(Fault::LoseRequest) => Err(StoreError::Unknown("the request was lost".to_owned())),
            Some(Fault::LoseReply) => {
                let _lost = run.await;
                Err(StoreError::Unknown("the reply was lost".to_owned()))
            }
            Some(Fault::Late(time)) => {
                // What is on its way arrives, whether or not anybody still waits for it.
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    let _lost = run.await;
                });
                Err(StoreError::Unknown("timed out".to_owned()))
            }
            Some(Fault::Hang) => {
                let mut gate = self.gate.subscribe();
                let hanging = Hanging::enter(&self.plan);
                gate.changed().await.expect("the store keeps the sender");
                drop(hanging);
                run.await
            }
        }
    }
}

/// Counted while it lives.
struct Hanging<'a>(&'a Mutex<Plan>);

impl<'a> Hanging<'a> {
    fn enter(plan: &'a Mutex<Plan>) -> Self {
        plan.lock().expect("no step panics under the lock").hanging += 1;
        Self(plan)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        if let Ok(mut plan) = self.0.lock() {
            plan.hanging -= 1;
        }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    const MAY_LOSE: bool = S::MAY_LOSE;
    const LENDS: bool = S::LENDS;

    async fn load(&self, id: &RecordId) -> Result<Option<Cell<Stored>>, StoreError> {
        let (inner, id) = (Arc::clone(&self.inner), *id);
        self.step(Step::Load, async move { inner.load(&id).await }).await
    }

    async fn swap(
        &self,
        id: &RecordId,
        expect: Expect,
        version: Version,
        next: Option<Write>,
    ) -> Result<Swap, StoreError> {
        let (inner, id) = (Arc::clone(&self.inner), *id);
        let step = Step::of(expect, next.as_ref());
        self.step(step, async move { inner.swap(&id, expect, version, next).await }).await
    }

    async fn changed(&self, id: &RecordId, seen: Version) -> Option<Look> {
        self.inner.changed(id, seen).await
    }

    fn replayed(&self, id: &RecordId) {
        self.inner.replayed(id);
    }

    async fn list(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let (inner, filter, after) = (Arc::clone(&self.inner), filter.clone(), after.map(str::to_owned));
        self.step(Step::Manage, async move { inner.list(&filter, after.as_deref(), limit).await }).await
    }

    async fn find(&self, short: ShortId) -> Result<Vec<RecordId>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.step(Step::Manage, async move { inner.find(short).await }).await
    }

    async fn details(&self, id: &RecordId) -> Result<Option<Details>, StoreError> {
        let (inner, id) = (Arc::clone(&self.inner), *id);
        self.step(Step::Manage, async move { inner.details(&id).await }).await
    }

    async fn discard(&self, id: &RecordId) -> Result<bool, StoreError> {
        let (inner, id) = (Arc::clone(&self.inner), *id);
        self.step(Step::Manage, async move { inner.discard(&id).await }).await
    }

    /// Events of a round whose reply is lost are lost with it.
    async fn upkeep(&self) -> Result<Vec<Event>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.step(Step::Manage, async move { inner.upkeep().await }).await
    }

    fn figures(&self) -> Figures {
        let up = !self.plan().is_down;
        Figures { up, ..self.inner.figures() }
    }
}
