//! What clients were told, against what the upstream did: a checker that knows nothing of how the proxy works.
//!
//! Clients log every [`Call`], the upstream logs every [`Execution`], and the test logs the [`Trouble`] it made. Every call
//! carries a number of its own that the upstream sees, so that each execution can be laid at one call's door; every
//! execution draws a token of its own that the answer carries, so that each answer can be traced to one execution.
//! [`History::check`] then holds, for every record, what [`Rule`] lists.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "history/story.rs"]
mod story;
#[path = "history/tests.rs"]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use self::story::Story;

/// Time since the round began.
pub(crate) type Time = Duration;

/// What one idempotency key of one caller on one route stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Record {
    pub(crate) scope: String,
    pub(crate) route: String,
    pub(crate) key: String,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.scope, self.route, self.key)
    }
}

/// One request of one client, sent once.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Its own number, which the upstream sees.
    pub(crate) number: u64,
    /// The process it was sent to.
    pub(crate) process: usize,
    pub(crate) record: Record,
    /// What the fingerprint is made of.
    pub(crate) body: String,
    pub(crate) from: Time,
    pub(crate) to: Time,
    pub(crate) told: Told,
    /// Asked after everything was healed and quiet; the last of these must settle its record.
    pub(crate) is_last: bool,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Answer(Answer),
    /// The connection broke.
    Broken(String),
    /// The client went away by itself.
    GaveUp,
}

/// A whole answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The token of `Idempotency-Status`.
    pub(crate) outcome: String,
    /// `Idempotent-Replayed: true`
    pub(crate) is_replayed: bool,
    /// The code of a problem; empty where the answer is the upstream's.
    pub(crate) code: String,
    /// The problem's word on whether something was executed.
    pub(crate) executed: String,
    /// The upstream's token; empty where the answer is a problem.
    pub(crate) token: String,
}

impl Answer {
    /// It is an answer of the upstream that is not marked as unknown or released.
    pub(crate) fn is_final(&self) -> bool {
        self.code.is_empty() && matches!(self.outcome.as_str(), "executed" | "replayed" | "unsettled" | "fenced")
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.code == "outcome-unknown" || self.outcome == "unknown"
    }
}

impl Call {
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match &self.told {
            Told::Answer(answer) => Some(answer),
            Told::Broken(_) | Told::GaveUp => None,
        }
    }
}

/// One request that the upstream has read whole.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    /// The call whose request it was.
    pub(crate) call: u64,
    pub(crate) record: Record,
    pub(crate) body: String,
    pub(crate) token: String,
    pub(crate) from: Time,
    /// When its answer, or what there was of it, was about to leave; none while it runs.
    pub(crate) to: Option<Time>,
    pub(crate) fate: Fate,
}

/// What the upstream did after it had executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A whole answer that is the outcome.
    Answered(u16),
    /// A whole answer that says: not executed.
    Released(u16),
    /// A whole answer of a hop that cannot know.
    Unsure(u16),
    /// No whole answer.
    Lost,
}

/// What the test did to the proxies and their store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A process was killed, at once.
    Killed(usize),
    /// A process was not there, or was on its way out.
    Down(usize),
    /// A process stood still.
    Frozen(usize),
    /// The store could not be reached, or not be relied on, and had forgotten nothing afterwards.
    StoreAway,
    /// A replica took over. What nobody waited for may be lost with the old master: a key that was freed there may read as
    /// claimed again, and then as unknown.
    FailedOver,
    /// The store may have forgotten what it had acknowledged.
    StoreForgot,
}

/// When it was so.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) trouble: Trouble,
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// A record runs once, unless it was released, or the store forgot it.
    RunsOnce,
    /// No two attempts of a record are under way together.
    RunsAlone,
    /// One call is sent upstream once.
    IsSentOnce,
    /// After an accepted answer nothing of the record reaches the upstream.
    EndsWithItsAnswer,
    /// All accepted answers of a record carry one token.
    AnswersAlike,
    /// An answer is that of an execution that had ended.
    AnswersWithWhatRan,
    /// An answer is that of its own record and request.
    AnswersWithItsOwn,
    /// `Idempotency-Status` and `Idempotent-Replayed` say what was so.
    SaysWhatWasSo,
    /// "Not executed" is said of calls that were not, "executed" of records that were.
    RefusesTruly,
    /// A key is called misused only where it was used for another request.
    RefusesMisuseOnly,
    /// An unknown outcome has a cause: a process that was killed or frozen, a store that was away, an answer that the
    /// upstream lost.
    KnowsUnlessItCannot,
    /// Connections break only with their process.
    KeepsConnections,
    /// When all is healed and quiet, every record has its answer or a lasting cause for having none.
    Settles,
}

/// A rule that did not hold for a record.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) what: String,
    /// Everything that happened to the record, in order.
    pub(crate) story: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}\n{}", self.rule, self.what, self.story)
    }
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    pub(crate) records: usize,
    /// Records that ran again because the store had forgotten them.
    pub(crate) ran_again: usize,
    /// Records that were answered before they ran again.
    pub(crate) answered_and_ran_again: usize,
    /// Records whose outcome stayed unknown, with a lasting cause.
    pub(crate) stayed_unknown: usize,
}

/// A round, as it went.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) calls: Vec<Call>,
    pub(crate) executions: Vec<Execution>,
    pub(crate) events: Vec<Event>,
    /// How long trouble that has passed may still be the cause of something.
    pub(crate) aftermath: Duration,
}

impl History {
    /// Checks every record against every rule.
    pub(crate) fn check(&self) -> Verdict {
        let by_token: HashMap<&str, &Execution> =
            self.executions.iter().map(|execution| (execution.token.as_str(), execution)).collect();
        let by_number: HashMap<u64, &Call> = self.calls.iter().map(|call| (call.number, call)).collect();
        let mut verdict = Verdict::default();
        for mut story in self.stories().into_values() {
            verdict.records += 1;
            story.check(&by_token, &by_number, &mut verdict);
        }
        verdict.violations.sort_by_key(|violation| violation.rule);
        verdict
    }

    /// The records of which something lasting explains that nobody knows their outcome.
    pub(crate) fn may_stay_unknown(&self) -> HashSet<Record> {
        let stories = self.stories().into_iter();
        let excused = stories.filter(|(_, story)| story.lasting_cause(Duration::MAX).is_some());
        excused.map(|(record, _)| record.clone()).collect()
    }

    fn stories(&self) -> BTreeMap<&Record, Story<'_>> {
        let mut stories: BTreeMap<&Record, Story<'_>> = BTreeMap::new();
        for call in &self.calls {
            stories.entry(&call.record).or_insert_with(|| Story::new(self, &call.record)).calls.push(call);
        }
        for execution in &self.executions {
            let story = stories.entry(&execution.record).or_insert_with(|| Story::new(self, &execution.record));
            story.executions.push(execution);
        }
        for story in stories.values_mut() {
            story.calls.sort_by_key(|call| call.from);
            story.executions.sort_by_key(|execution| execution.from);
        }
        stories
    }
}
