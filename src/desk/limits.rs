//! Counted resources: how many are held, and how many may be.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Counts what is held, up to a bound.
#[derive(Debug)]
pub struct Gauge {
    held: AtomicUsize,
    most: AtomicUsize,
    none: Notify,
}

impl Gauge {
    /// Up to `most` may be held at a time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { held: AtomicUsize::new(0), most: AtomicUsize::new(most), none: Notify::new() }
    }

    /// Takes one, or `None` at the bound.
    #[must_use]
    pub fn try_hold(self: &Arc<Self>) -> Option<Permit> {
        let most = self.most.load(Ordering::Relaxed);
        let taken =
            self.held.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |held| (held < most).then_some(held + 1));
        taken.is_ok().then(|| Permit(Some(Arc::clone(self))))
    }

    /// How many are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Changes the bound; what is held beyond it stays held.
    pub fn bound(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Returns when none is held.
    pub async fn none(&self) {
        loop {
            let notified = self.none.notified();
            if self.held() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One of a [`Gauge`], given back when dropped.
#[derive(Debug)]
pub struct Permit(Option<Arc<Gauge>>);

impl Permit {
    /// A permit that counts nowhere.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0
            && gauge.held.fetch_sub(1, Ordering::AcqRel) == 1
        {
            gauge.none.notify_waiters();
        }
    }
}

/// Bytes that may be held at a time.
#[derive(Debug)]
pub struct Budget {
    held: AtomicU64,
    most: AtomicU64,
}

impl Budget {
    /// Up to `most` bytes.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self { held: AtomicU64::new(0), most: AtomicU64::new(most) }
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Changes the bound; what is held beyond it stays held.
    pub fn bound(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Nothing yet, to be grown.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }
}

/// Bytes of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Held {
    /// Takes `bytes` more; `false`, and nothing taken, beyond the bound.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        let most = self.budget.most.load(Ordering::Relaxed);
        let grown = self.budget.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|held| *held <= most)
        });
        self.bytes += if grown.is_ok() { bytes } else { 0 };
        grown.is_ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_gives_no_more_than_its_bound_and_takes_back_what_is_dropped() {
        let gauge = Arc::new(Gauge::new(1));
        let permit = gauge.try_hold();
        assert!(permit.is_some() && gauge.try_hold().is_none());
        drop(permit);
        assert!(gauge.try_hold().is_some());
    }

    #[test]
    fn a_budget_refuses_what_would_pass_its_bound_and_keeps_the_rest() {
        let budget = Arc::new(Budget::new(10));
        let mut held = budget.hold();
        assert!(held.grow(7) && !held.grow(4) && held.grow(3));
        assert_eq!(budget.held(), 10);
        drop(held);
        assert_eq!(budget.held(), 0);
    }
}
