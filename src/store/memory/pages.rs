//! Records a page at a time.
//!
//! A page goes through the shards in order, and through each by its entries' numbers. A record keeps its number for as
//! long as it lives, so that one that stays is seen exactly once, whatever comes and goes around it.

use std::{fmt, ops::ControlFlow, str::FromStr, time::Duration};

use super::{
    BATCH, MemoryStore,
    entry::{Entry, Millis},
};
use crate::store::{Filter, Page};

/// Where a page begins: a shard, and a number in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    shard: usize,
    number: usize,
}

/// A text that is not a cursor of this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this store")]
pub(super) struct NotACursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.number)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (shard, number) = text.split_once('-').ok_or(NotACursor)?;
        let number_of = |text: &str| text.parse().map_err(|_| NotACursor);
        Ok(Self { shard: number_of(shard)?, number: number_of(number)? })
    }
}

impl MemoryStore {
    /// A page of at most `limit` records, at least one if there are any. Between a few dozen records, locked or not,
    /// others get their turn.
    pub(super) async fn page(&self, filter: &Filter, from: Cursor, limit: usize) -> Page {
        let mut page = Page::default();
        for shard in from.shard..self.slots.len() {
            let mut number = if shard == from.shard { from.number } else { 0 };
            loop {
                match self.read(Cursor { shard, number }, filter, limit.max(1), &mut page) {
                    None => break,
                    Some(ControlFlow::Continue(next)) => number = next,
                    Some(ControlFlow::Break(next)) => {
                        page.next = Some(Cursor { shard, number: next }.to_string());
                        return page;
                    }
                }
                tokio::task::yield_now().await;
            }
        }
        page
    }

    /// Reads a few records; says where to go on, and whether the page is full. `None` is the shard's end.
    fn read(&self, from: Cursor, filter: &Filter, limit: usize, page: &mut Page) -> Option<ControlFlow<usize, usize>> {
        let Cursor { shard, number } = from;
        let shard = self.slots[shard].lock();
        let now = self.now();
        let end = number.saturating_add(BATCH);
        for (index, entry) in shard.slab.range(number, end)? {
            if !entry.is_expired(now) && matches(filter, entry, now) {
                page.records.push((entry.id, entry.details(now)));
                if page.records.len() == limit {
                    return Some(ControlFlow::Break(index.number() + 1));
                }
            }
        }
        Some(ControlFlow::Continue(end))
    }
}

fn matches(filter: &Filter, entry: &Entry, now: Millis) -> bool {
    let Filter { state, route, older } = filter;
    state.is_none_or(|state| state == entry.state(now).0)
        && route.as_ref().is_none_or(|route| route == entry.route())
        && older.is_none_or(|older| Duration::from_millis(entry.age(now)) >= older)
}
