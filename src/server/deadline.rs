//! The one timer that watches a connection.
//!
//! hyper knows only the time a head takes, and only once its first byte is there. The states are kept in a [`Pulse`],
//! which the transport, the service and the answer's body stamp as they go; the connection's task compares it with the
//! limits when it runs anyway or its timer fires. The timer is moved only when a deadline comes *closer* than what it is
//! set to, so a keep-alive connection causes one timer operation per idle span, not per request.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::Sleep;

use super::{
    Limits,
    pulse::{Pulse, Wait},
};

/// When a connection is to be drained: never without `max_connection_age`. A timer beside the [`Deadline`], since it is
/// there for whoever wants it, and stays where it is set.
pub(super) struct Age(Option<Pin<Box<Sleep>>>);

/// How much later than its age a connection may be drained, as a part of it.
const JITTER: f64 = 0.1;

impl Age {
    pub(super) fn new(pulse: &Pulse, limits: &Limits) -> Self {
        Self(limits.max_connection_age.map(|age| {
            // Without randomness all are drained on time.
            let random = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
            Box::pin(tokio::time::sleep_until(pulse.start() + age.mul_f64(1.0 + JITTER * random)))
        }))
    }

    /// Whether it is time. If not, the task is woken when it is.
    pub(super) fn is_reached(&mut self, cx: &mut Context<'_>) -> bool {
        self.0.as_mut().is_some_and(|sleep| sleep.is_elapsed() || sleep.as_mut().poll(cx).is_ready())
    }
}

/// The one timer of a connection.
pub(super) struct Deadline {
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    /// Set to when the first head is due.
    pub(super) fn new(pulse: &Pulse, limits: &Limits) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(pulse.start() + limits.header_timeout)) }
    }

    /// Ready with what was waited for in vain. To be polled after each change of the pulse.
    pub(super) fn poll(&mut self, pulse: &Pulse, limits: &Limits, cx: &mut Context<'_>) -> Poll<Wait> {
        loop {
            let due = pulse.due(limits);
            if let Some((at, _)) = due
                && at < self.sleep.deadline()
            {
                self.sleep.as_mut().reset(at);
            }
            if self.sleep.is_elapsed() && due.is_none() {
                // Nothing to watch. Whatever ends that runs this task, which comes by here again.
                return Poll::Pending;
            }
            ready!(self.sleep.as_mut().poll(cx));
            match due {
                None => return Poll::Pending,
                Some((at, wait)) if at <= self.sleep.deadline() => return Poll::Ready(wait),
                Some((at, _)) => self.sleep.as_mut().reset(at),
            }
        }
    }
}
