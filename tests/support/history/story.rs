//! One record's story, and the rules it is held to.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    time::Duration,
};

use super::{Answer, Call, Event, Execution, Fate, History, Record, Rule, Time, Told, Trouble, Verdict, Violation};

/// Everything that happened to one record, in order.
pub(crate) struct Story<'a> {
    history: &'a History,
    record: &'a Record,
    pub(crate) calls: Vec<&'a Call>,
    pub(crate) executions: Vec<&'a Execution>,
    /// The answers that a client takes for its request's own outcome.
    accepted: Vec<(&'a Call, &'a Answer)>,
    broken: Vec<(Rule, String)>,
}

impl<'a> Story<'a> {
    pub(crate) fn new(history: &'a History, record: &'a Record) -> Self {
        let (calls, executions, accepted, broken) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { history, record, calls, executions, accepted, broken }
    }

    pub(crate) fn check(
        &mut self,
        by_token: &HashMap<&str, &Execution>,
        by_number: &HashMap<u64, &Call>,
        verdict: &mut Verdict,
    ) {
        let answers = self.calls.iter().filter_map(|call| Some((*call, call.answer()?)));
        let accepted = answers.filter(|(_, answer)| {
            // An answer that says "not executed", or a hop's word, ends nothing though it could not be settled.
            let fate = by_token.get(answer.token.as_str()).map(|execution| execution.fate);
            answer.is_final() && !matches!(fate, Some(Fate::Released(_) | Fate::Unsure(_)))
        });
        self.accepted = accepted.collect();
        self.runs_once(by_number, verdict);
        self.runs_alone(by_number);
        self.is_sent_once();
        self.ends_with_its_answer();
        self.answers_alike();
        for call in self.calls.clone() {
            match &call.told {
                Told::Answer(answer) => {
                    self.answers_with_its_own(call, answer, by_token);
                    self.refuses_truly(call, answer);
                    self.knows_unless_it_cannot(call, answer);
                }
                Told::Broken(how) => self.keeps_connections(call, how),
                Told::GaveUp => {}
            }
        }
        if let Some(call) = self.calls.iter().copied().rfind(|call| call.is_last) {
            self.settles(call, verdict);
        }
        if !self.broken.is_empty() {
            let story = self.tell();
            let broken = std::mem::take(&mut self.broken).into_iter();
            verdict.violations.extend(broken.map(|(rule, what)| Violation { rule, what, story: story.clone() }));
        }
    }

    fn broke(&mut self, rule: Rule, what: String) {
        self.broken.push((rule, what));
    }

    /// When the first client had its answer.
    fn answered_at(&self) -> Option<Time> {
        self.accepted.iter().map(|(call, _)| call.to).min()
    }

    /// The executions that were not released.
    fn ran(&self) -> Vec<&'a Execution> {
        let ran = self.executions.iter().filter(|execution| !matches!(execution.fate, Fate::Released(_)));
        ran.copied().collect()
    }

    // === what must hold ===

    fn runs_once(&mut self, by_number: &HashMap<u64, &Call>, verdict: &mut Verdict) {
        let ran = self.ran();
        let forgotten = self.events(|trouble| trouble == Trouble::StoreForgot).count();
        if ran.len() > 1 {
            verdict.ran_again += 1;
            let answered = self.answered_at();
            if answered.is_some_and(|at| ran.iter().any(|execution| execution.from > at)) {
                verdict.answered_and_ran_again += 1;
            }
        }
        for pair in ran.windows(2) {
            if !self.forgot_between(claimed(pair[0], by_number).min(claimed(pair[1], by_number)), pair[1].from) {
                self.broke(Rule::RunsOnce, format!("{} ran though {} had run", pair[1].token, pair[0].token));
            }
        }
        if ran.len() > 1 + forgotten {
            self.broke(Rule::RunsOnce, format!("it ran {} times", ran.len()));
        }
    }

    fn runs_alone(&mut self, by_number: &HashMap<u64, &Call>) {
        for pair in self.executions.clone().windows(2) {
            let is_over = pair[0].to.is_some_and(|to| to <= pair[1].from);
            let since = claimed(pair[0], by_number).min(claimed(pair[1], by_number));
            if !is_over && !self.forgot_between(since, pair[1].from) {
                self.broke(Rule::RunsAlone, format!("{} ran while {} was running", pair[1].token, pair[0].token));
            }
        }
    }

    fn is_sent_once(&mut self) {
        let mut calls = BTreeSet::new();
        for execution in self.executions.clone() {
            if !calls.insert(execution.call) {
                self.broke(Rule::IsSentOnce, format!("call {} reached the upstream twice", execution.call));
            }
        }
    }

    fn ends_with_its_answer(&mut self) {
        let Some(answered) = self.answered_at() else { return };
        for execution in self.executions.clone() {
            if execution.from > answered && !self.forgot_between(Time::ZERO, execution.from) {
                self.broke(Rule::EndsWithItsAnswer, format!("{} ran after an accepted answer", execution.token));
            }
        }
    }

    fn answers_alike(&mut self) {
        let tokens: BTreeSet<_> = self.accepted.iter().map(|(_, answer)| answer.token.as_str()).collect();
        let forgotten = self.events(|trouble| trouble == Trouble::StoreForgot).count();
        if tokens.len() > 1 + forgotten {
            self.broke(Rule::AnswersAlike, format!("answered with {tokens:?}"));
        }
    }

    fn answers_with_its_own(&mut self, call: &Call, answer: &Answer, by_token: &HashMap<&str, &Execution>) {
        let number = call.number;
        if answer.is_replayed != (answer.outcome == "replayed" && answer.code.is_empty()) {
            self.broke(Rule::SaysWhatWasSo, format!("call {number}: {answer:?}"));
        }
        if !answer.code.is_empty() {
            return;
        }
        let Some(execution) = by_token.get(answer.token.as_str()) else {
            return self.broke(Rule::AnswersWithWhatRan, format!("call {number} was told {:?}", answer.token));
        };
        if execution.record != *self.record || execution.body != call.body {
            let whose = format!("{} {}", execution.record, execution.body);
            return self.broke(Rule::AnswersWithItsOwn, format!("call {number} was told {} of {whose}", answer.token));
        }
        if execution.fate == Fate::Lost || execution.to.is_none_or(|to| to > call.to) {
            self.broke(Rule::AnswersWithWhatRan, format!("call {number} was told {} too soon", answer.token));
        }
        let is_own = execution.call == number;
        let is_true = match (answer.outcome.as_str(), execution.fate) {
            ("executed", Fate::Answered(status)) => is_own && status == answer.status,
            ("unsettled" | "fenced", Fate::Answered(status) | Fate::Released(status) | Fate::Unsure(status)) => {
                is_own && status == answer.status
            }
            ("replayed", Fate::Answered(status)) => !is_own && status == answer.status,
            ("released", Fate::Released(status)) | ("unknown", Fate::Unsure(status)) => {
                is_own && status == answer.status
            }
            (_, Fate::Answered(_) | Fate::Released(_) | Fate::Unsure(_) | Fate::Lost) => false,
        };
        if !is_true {
            let said = format!("{} {:?}", answer.status, answer.outcome);
            self.broke(Rule::SaysWhatWasSo, format!("call {number} was told {said} of {execution:?}"));
        }
    }

    fn refuses_truly(&mut self, call: &Call, answer: &Answer) {
        let number = call.number;
        let of_this_call = self.executions.iter().find(|execution| execution.call == number);
        match answer.executed.as_str() {
            "no" => {
                if let Some(token) = of_this_call.map(|execution| execution.token.clone()) {
                    self.broke(Rule::RefusesTruly, format!("call {number}: {}, and ran as {token}", answer.code));
                }
            }
            "yes" if !self.executions.iter().any(|execution| execution.from <= call.to) => {
                self.broke(Rule::RefusesTruly, format!("call {number}: {}, and nothing ran", answer.code));
            }
            _ => {}
        }
        if answer.code == "key-reused" && self.calls.iter().all(|other| other.body == call.body) {
            self.broke(Rule::RefusesMisuseOnly, format!("call {number} was no misuse"));
        }
    }

    fn knows_unless_it_cannot(&mut self, call: &Call, answer: &Answer) {
        if answer.is_unknown() && self.lasting_cause(call.to).is_none() && self.passing_cause(call).is_none() {
            self.broke(Rule::KnowsUnlessItCannot, format!("call {}: unknown without a cause", call.number));
        }
    }

    fn keeps_connections(&mut self, call: &Call, how: &str) {
        let process = call.process;
        let of_it = [Trouble::Killed(process), Trouble::Down(process), Trouble::Frozen(process)];
        let mut troubles = self.events(|trouble| of_it.contains(&trouble));
        let has_cause = troubles.any(|event| event.from <= call.to && call.from <= event.to);
        drop(troubles);
        if !has_cause {
            self.broke(Rule::KeepsConnections, format!("call {}: {how}", call.number));
        }
    }

    fn settles(&mut self, call: &Call, verdict: &mut Verdict) {
        let Some(answer) = call.answer() else {
            return self.broke(Rule::Settles, format!("call {}, the last, has no answer", call.number));
        };
        if answer.is_unknown() && self.lasting_cause(call.to).is_some() {
            verdict.stayed_unknown += 1;
            return;
        }
        let is_settled = answer.is_final()
            || matches!(answer.outcome.as_str(), "released")
            || matches!(answer.code.as_str(), "key-reused" | "upstream-unreachable");
        if !is_settled {
            let said = format!("{} {} {}", answer.status, answer.outcome, answer.code);
            self.broke(Rule::Settles, format!("call {}, the last: {said}", call.number));
        }
    }

    // === causes ===

    fn events(&self, of: impl Fn(Trouble) -> bool) -> impl Iterator<Item = &'a Event> {
        self.history.events.iter().filter(move |event| of(event.trouble))
    }

    fn forgot_between(&self, from: Time, to: Time) -> bool {
        self.events(|trouble| trouble == Trouble::StoreForgot).any(|event| event.from <= to && from <= event.to)
    }

    /// Why nobody may ever know, as far as could be seen until then: an answer that the upstream lost, an owner that was
    /// killed, a store that forgot.
    pub(crate) fn lasting_cause(&self, until: Time) -> Option<&'static str> {
        let lost = self
            .executions
            .iter()
            .find(|execution| execution.from <= until && matches!(execution.fate, Fate::Lost | Fate::Unsure(_)));
        if lost.is_some() {
            return Some("the upstream lost the answer");
        }
        self.history.events.iter().filter(|event| event.from <= until).find_map(|event| match event.trouble {
            Trouble::Killed(process) => {
                let had_it = |call: &&Call| call.process == process && was_under_way(call, event);
                self.calls.iter().any(had_it).then_some("its owner was killed")
            }
            Trouble::StoreForgot => {
                let began = self.calls.first().is_some_and(|call| call.from <= event.to);
                began.then_some("the store forgot")
            }
            Trouble::FailedOver => self.was_freed_around(event).then_some("a failover lost that its key was freed"),
            Trouble::Down(_) | Trouble::Frozen(_) | Trouble::StoreAway => None,
        })
    }

    /// Whether the key was freed, or a claim taken back, while a failover may have lost that.
    fn was_freed_around(&self, event: &Event) -> bool {
        const UNREPLICATED_MAX: Duration = Duration::from_secs(1);
        let around = |time: Time| event.from <= time + UNREPLICATED_MAX && time <= event.to + UNREPLICATED_MAX;
        let released = self.executions.iter().filter(|execution| matches!(execution.fate, Fate::Released(_)));
        let refused =
            self.calls.iter().filter(|call| call.answer().is_some_and(|answer| answer.code == "store-unavailable"));
        released.filter_map(|execution| execution.to).chain(refused.map(|call| call.to)).any(around)
    }

    /// Why nobody could know just then: an owner that stood still, or a store in which no lease could be renewed.
    fn passing_cause(&self, call: &Call) -> Option<&'static str> {
        let near = |event: &&Event| event.from <= call.to && call.from <= event.to + self.history.aftermath;
        self.history.events.iter().filter(near).find_map(|event| match event.trouble {
            Trouble::Frozen(process) => {
                let had_it = |call: &&Call| call.process == process && was_under_way(call, event);
                self.calls.iter().any(had_it).then_some("its owner was frozen")
            }
            Trouble::StoreAway => Some("the store was away"),
            Trouble::Killed(_) | Trouble::Down(_) | Trouble::FailedOver | Trouble::StoreForgot => None,
        })
    }

    // === telling ===

    /// The record's history, a line an event.
    fn tell(&self) -> String {
        let mut lines: Vec<(Time, String)> = Vec::new();
        for Call { number, process, body, from, to, told, is_last, .. } in self.calls.iter().copied() {
            let last = if *is_last { ", the last" } else { "" };
            lines.push((*from, format!("call {number} to process {process} with {body}{last}")));
            lines.push((*to, format!("     {number} {}", tell_told(told))));
        }
        for Execution { call, body, token, from, to, fate, .. } in self.executions.iter().copied() {
            lines.push((*from, format!("          {token} runs for call {call} with {body}")));
            lines.push(match to {
                Some(to) => (*to, format!("          {token} ends: {fate:?}")),
                None => (Time::MAX, format!("          {token} never ended")),
            });
        }
        for Event { trouble, from, to } in &self.history.events {
            lines.push((*from, format!("  -- {trouble:?}")));
            if to != from {
                lines.push((*to, format!("  -- no longer {trouble:?}")));
            }
        }
        lines.sort();
        let mut text = format!("the record {}:\n", self.record);
        for (time, line) in lines {
            let time = if time == Time::MAX { "end".to_owned() } else { format!("{:.1}", time.as_secs_f64() * 1e3) };
            writeln!(text, "{time:>10} ms {line}").unwrap();
        }
        text
    }
}

fn tell_told(told: &Told) -> String {
    match told {
        Told::Broken(how) => format!("broke: {how}"),
        Told::GaveUp => "gave up".to_owned(),
        Told::Answer(answer) => {
            let Answer { status, outcome, is_replayed, code, executed, token } = answer;
            let replayed = if *is_replayed { ", marked replayed" } else { "" };
            if code.is_empty() {
                format!("was told {status} {outcome}: {token}{replayed}")
            } else {
                format!("was told {status} {outcome}: {code}, executed: {executed}{replayed}")
            }
        }
    }
}

/// The earliest that the record can have been claimed for that execution.
fn claimed(execution: &Execution, by_number: &HashMap<u64, &Call>) -> Time {
    by_number.get(&execution.call).map_or(execution.from, |call| call.from)
}

/// Whether the exchange of that call may have been under way in that time: it goes on though its client is gone, or was
/// told to come again.
fn was_under_way(call: &Call, event: &Event) -> bool {
    const EXCHANGE_MAX: Duration = Duration::from_secs(20);
    let to = match &call.told {
        Told::Answer(answer) if answer.code != "still-running" => call.to,
        Told::Answer(_) | Told::Broken(_) | Told::GaveUp => call.to + EXCHANGE_MAX,
    };
    call.from <= event.to && event.from <= to
}
