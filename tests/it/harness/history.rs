//! What clients were told against what the upstream did: a checker that knows nothing of how the proxy works.

use std::collections::{BTreeMap, BTreeSet};

use super::{Reply, Upstream};

/// The answers of a round.
#[derive(Debug, Default)]
pub(crate) struct History {
    told: Vec<Told>,
}

#[derive(Debug)]
struct Told {
    caller: String,
    key: String,
    status: u16,
    outcome: String,
    code: String,
    executed: String,
    body: String,
}

impl History {
    /// Notes what a caller was told about a key.
    pub(crate) fn note(&mut self, caller: &str, key: &str, reply: &Reply) {
        assert!(reply.whole, "a cut answer: {reply:?}");
        let code = reply.code();
        let executed =
            if code.is_empty() { String::new() } else { reply.json()["executed"].as_str().unwrap_or_default().into() };
        let body = reply.text().to_owned();
        let (status, outcome) = (reply.status, reply.outcome().to_owned());
        self.told.push(Told { caller: caller.into(), key: key.into(), status, outcome, code, executed, body });
    }

    /// Statuses and problem codes, counted.
    pub(crate) fn counts(&self) -> BTreeMap<(u16, String), usize> {
        let mut counts = BTreeMap::new();
        for told in &self.told {
            let word = if told.code.is_empty() { told.outcome.clone() } else { told.code.clone() };
            *counts.entry((told.status, word)).or_default() += 1;
        }
        counts
    }

    /// Fails unless, for every record: it ran at most once, or only after a release; every accepted answer carries the
    /// token of its own execution, and the same one; no token was told for another caller or key; and what was said not to
    /// be executed was not.
    #[track_caller]
    pub(crate) fn check(&self, upstream: &Upstream) {
        let mut executions: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for seen in upstream.requests().iter().filter(|seen| seen.executed) {
            let caller = seen.field("authorization").unwrap_or_default().trim_start_matches("Bearer ").to_owned();
            let key = seen.field("idempotency-key").unwrap_or_default().to_owned();
            executions.entry((caller, key)).or_default().push(seen.token.clone());
        }
        let mut told: BTreeMap<(String, String), Vec<&Told>> = BTreeMap::new();
        for one in &self.told {
            told.entry((one.caller.clone(), one.key.clone())).or_default().push(one);
        }
        for (record, answers) in &told {
            let ran = executions.get(record).cloned().unwrap_or_default();
            let released = answers.iter().filter(|one| one.outcome == "released").count();
            assert!(
                ran.len() <= 1 + released,
                "{record:?} ran {} times, released {released} times: {answers:#?}",
                ran.len()
            );
            let accepted: BTreeSet<&str> = answers
                .iter()
                .filter(|one| matches!(one.outcome.as_str(), "executed" | "replayed"))
                .map(|one| one.body.as_str())
                .collect();
            assert!(accepted.len() <= 1, "{record:?} was answered differently: {accepted:?}");
            for token in &accepted {
                assert!(
                    ran.iter().any(|one| one == token),
                    "{record:?} was told {token:?}, which is none of its own: {ran:?}"
                );
            }
            if answers.iter().all(|one| one.executed == "no" && one.outcome != "released") {
                assert!(ran.is_empty(), "{record:?} ran, and every answer says that it did not: {answers:#?}");
            }
        }
        for (record, ran) in &executions {
            assert!(told.contains_key(record) || ran.len() <= 1, "{record:?} ran {} times, untold", ran.len());
        }
    }
}
