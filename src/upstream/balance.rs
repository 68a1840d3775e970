//! Which of several urls is asked: the less loaded of two chosen at random, among those that do not rest.
//!
//! Health is passive: an url that refused, reset or did not answer a new connection rests, twice as long each time,
//! until it answers again. When all rest, they are asked all the same.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::clock;

const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

/// The urls of an upstream.
#[derive(Debug)]
pub(super) struct Balance {
    endpoints: Box<[Arc<Endpoint>]>,
    draws: AtomicU64,
}

/// What is known of one url.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    /// Exchanges under way.
    load: AtomicUsize,
    /// Its TLS chose HTTP/1.1, though we speak HTTP/2 as well.
    http1_only: AtomicBool,
    /// Whether `rest` says anything, to be read without its lock.
    failing: AtomicBool,
    rest: Mutex<Rest>,
}

#[derive(Debug, Default)]
struct Rest {
    until: Option<Instant>,
    last: Duration,
}

/// An exchange under way at an url.
#[derive(Debug)]
pub(super) struct Load(Arc<Endpoint>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoint {
    pub(super) fn begin(self: &Arc<Self>) -> Load {
        self.load.fetch_add(1, Ordering::Relaxed);
        Load(Arc::clone(self))
    }

    /// It could not be reached, or broke a new connection.
    pub(super) fn failed(&self) {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        // Requests that fail together are one failure.
        if rest.until.is_none_or(|until| until <= now) {
            rest.last = (rest.last * 2).clamp(REST_MIN, REST_MAX);
            rest.until = Some(now + rest.last);
            self.failing.store(true, Ordering::Release);
        }
    }

    /// It answered.
    pub(super) fn answered(&self) {
        if self.failing.swap(false, Ordering::AcqRel) {
            *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Rest::default();
        }
    }

    pub(super) fn is_http1_only(&self) -> bool {
        self.http1_only.load(Ordering::Relaxed)
    }

    pub(super) fn set_http1_only(&self) {
        self.http1_only.store(true, Ordering::Relaxed);
    }

    fn rests(&self, now: Instant) -> bool {
        self.failing.load(Ordering::Acquire)
            && self.rest.lock().unwrap_or_else(PoisonError::into_inner).until.is_some_and(|until| until > now)
    }
}

impl Balance {
    pub(super) fn new(urls: usize) -> Self {
        Self { endpoints: (0..urls).map(|_| Arc::default()).collect(), draws: AtomicU64::new(0) }
    }

    pub(super) fn endpoint(&self, index: usize) -> &Arc<Endpoint> {
        &self.endpoints[index]
    }

    /// The url to ask, other than those tried already; `None` when all were.
    pub(super) fn choose(&self, tried: &[usize]) -> Option<usize> {
        if self.endpoints.len() == 1 {
            return tried.is_empty().then_some(0);
        }
        let now = clock::now();
        let untried = || (0..self.endpoints.len()).filter(|index| !tried.contains(index));
        let mut able: Vec<usize> = untried().filter(|index| !self.endpoints[*index].rests(now)).collect();
        if able.is_empty() {
            able = untried().collect();
        }
        let first = self.draw(&mut able)?;
        let second = self.draw(&mut able).unwrap_or(first);
        let load = |index: usize| self.endpoints[index].load.load(Ordering::Relaxed);
        Some(if load(second) < load(first) { second } else { first })
    }

    /// Takes one at random. Splitmix64 over a counter: good enough to spread, and free of locks.
    fn draw(&self, from: &mut Vec<usize>) -> Option<usize> {
        let mut z = self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let count = from.len() as u64;
        (count > 0).then(|| from.swap_remove((z % count) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_loaded_of_two_is_asked() {
        let balance = Balance::new(2);
        let _busy = balance.endpoint(0).begin();
        assert!((0..100).all(|_| balance.choose(&[]) == Some(1)));
    }

    #[test]
    fn equal_loads_share_the_work() {
        let balance = Balance::new(3);
        let mut asked = [0; 3];
        for _ in 0..3000 {
            asked[balance.choose(&[]).unwrap()] += 1;
        }
        assert!(asked.iter().all(|count| (700..1300).contains(count)), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_url_rests_longer_each_time_and_is_asked_when_all_rest() {
        let balance = Balance::new(2);
        let mut rests = Vec::new();
        for _ in 0..7 {
            balance.endpoint(0).failed();
            let start = clock::now();
            while balance.endpoint(0).rests(clock::now()) {
                assert_eq!(balance.choose(&[]), Some(1));
                tokio::time::advance(Duration::from_millis(500)).await;
            }
            rests.push((clock::now() - start).as_secs());
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 30, 30]);
        balance.endpoint(0).failed();
        balance.endpoint(1).failed();
        assert!(balance.choose(&[]).is_some());
        assert_eq!(balance.choose(&[0]), Some(1));
        assert_eq!(balance.choose(&[0, 1]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_the_rest() {
        let balance = Balance::new(2);
        balance.endpoint(0).failed();
        balance.endpoint(0).answered();
        assert!(!balance.endpoint(0).rests(clock::now()));
    }
}
