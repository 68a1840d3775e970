//! Replays that were counted and not yet written down. They may be lost: they are for the operator's eyes.

use dashmap::DashMap;
use redis::Value;

use super::{
    RedisStore,
    keys::bucket_of,
    script::COUNT,
    trouble::{Remedy, Trouble},
};
use crate::rule::RecordId;

/// Records whose replays wait to be written down, at most; further ones are not counted.
const WAITING_MOST: usize = 10_000;
/// Written down in one round, at most: counting must not cost more than what is counted.
const ROUND_MOST: usize = 500;

/// Replays by record.
#[derive(Debug, Default)]
pub(super) struct Replays {
    waiting: DashMap<RecordId, u32>,
}

impl Replays {
    pub(super) fn count(&self, id: &RecordId) {
        if let Some(mut count) = self.waiting.get_mut(id) {
            *count = count.saturating_add(1);
        } else if self.waiting.len() < WAITING_MOST {
            *self.waiting.entry(*id).or_insert(0) += 1;
        }
    }

    /// How many of a record's replays wait.
    pub(super) fn pending(&self, id: &RecordId) -> u64 {
        self.waiting.get(id).map_or(0, |count| u64::from(*count))
    }

    fn take(&self) -> Vec<(RecordId, u32)> {
        let ids: Vec<_> = self.waiting.iter().take(ROUND_MOST).map(|entry| *entry.key()).collect();
        ids.into_iter().filter_map(|id| self.waiting.remove(&id)).collect()
    }
}

impl RedisStore {
    /// Writes down what was counted.
    pub(super) async fn write_replays(&self) -> Result<(), Trouble> {
        let mut waiting = self.replays.take();
        while let Some((first, _)) = waiting.first() {
            let server = self.servers.serving(bucket_of(first), self.deadline()).await?;
            let (served, first) = (self.servers.buckets(&server), bucket_of(first));
            let here = |(id, _): &(RecordId, u32)| bucket_of(id) == first || served.contains(&bucket_of(id));
            let (counts, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(here);
            waiting = others;
            let ask = |whole: bool| {
                let mut commands = redis::pipe();
                for (id, count) in &counts {
                    let mut command = COUNT.command(whole, 1);
                    commands.add_command(command.arg(self.names.record(id)).arg(count).to_owned());
                }
                commands
            };
            let answers = server.ask_all(&ask(false), self.deadline()).await?;
            let unknown = answers.into_iter().next().map(Value::extract_error);
            if let Some(Err(error)) = unknown
                && Trouble::of(error).remedy() == Remedy::SendScript
            {
                server.ask_all(&ask(true), self.deadline()).await?;
            }
        }
        Ok(())
    }
}
