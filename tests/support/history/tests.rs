//! Every kind of forged violation is found, and a lawful history is not called one.

use super::*;

const fn ms(time: u64) -> Time {
    Time::from_millis(time)
}

fn record() -> Record {
    Record { scope: "alice".into(), route: "/charges".into(), key: "k".into() }
}

fn answer(status: u16, outcome: &str, token: &str) -> Told {
    let is_replayed = outcome == "replayed";
    let (outcome, token) = (outcome.into(), token.into());
    Told::Answer(Answer { status, outcome, is_replayed, token, ..Answer::default() })
}

fn problem(status: u16, outcome: &str, code: &str, executed: &str) -> Told {
    let (outcome, code, executed) = (outcome.into(), code.into(), executed.into());
    Told::Answer(Answer { status, outcome, code, executed, ..Answer::default() })
}

fn call(number: u64, from: u64, to: u64, told: Told) -> Call {
    let body = "a".to_owned();
    let process = usize::try_from(number % 3).unwrap();
    Call { number, process, record: record(), body, from: ms(from), to: ms(to), told, is_last: false }
}

fn execution(call: u64, token: &str, from: u64, to: u64, fate: Fate) -> Execution {
    let body = "a".to_owned();
    Execution { call, record: record(), body, token: token.into(), from: ms(from), to: Some(ms(to)), fate }
}

fn event(trouble: Trouble, from: u64, to: u64) -> Event {
    Event { trouble, from: ms(from), to: ms(to) }
}

fn history(calls: Vec<Call>, executions: Vec<Execution>, events: Vec<Event>) -> History {
    History { calls, executions, events, aftermath: ms(100) }
}

/// Call 1 runs and is answered, call 2 gets the replay.
fn lawful() -> History {
    history(
        vec![call(1, 0, 30, answer(201, "executed", "t1")), call(2, 40, 50, answer(201, "replayed", "t1"))],
        vec![execution(1, "t1", 10, 20, Fate::Answered(201))],
        vec![],
    )
}

#[track_caller]
fn holds(history: &History) {
    let verdict = history.check();
    assert!(verdict.violations.is_empty(), "{}", verdict.violations[0]);
}

#[track_caller]
fn breaks(history: &History, rule: Rule) {
    let verdict = history.check();
    let rules: Vec<_> = verdict.violations.iter().map(|violation| violation.rule).collect();
    assert!(rules.contains(&rule), "found {rules:?}");
}

#[test]
fn a_lawful_history_is_lawful() {
    holds(&lawful());
    let mut released = lawful();
    released.calls.push(call(3, 0, 8, answer(429, "released", "t0")));
    released.executions.push(execution(3, "t0", 2, 5, Fate::Released(429)));
    holds(&released);
    // What could not be settled may be settled late: a release frees the key then.
    let mut unsettled = lawful();
    unsettled.calls.push(call(3, 0, 8, answer(429, "unsettled", "t0")));
    unsettled.executions.push(execution(3, "t0", 2, 5, Fate::Released(429)));
    holds(&unsettled);
    let mut lost = history(
        vec![
            call(1, 0, 30, problem(502, "unknown", "outcome-unknown", "maybe")),
            call(2, 40, 50, problem(409, "unknown", "outcome-unknown", "maybe")),
        ],
        vec![execution(1, "t1", 10, 20, Fate::Lost)],
        vec![],
    );
    lost.calls[1].is_last = true;
    holds(&lost);
    assert_eq!(lost.check().stayed_unknown, 1);
}

#[test]
fn a_second_execution_is_found() {
    let mut forged = lawful();
    forged.calls.push(call(3, 21, 90, answer(201, "executed", "t2")));
    forged.executions.push(execution(3, "t2", 25, 80, Fate::Answered(201)));
    breaks(&forged, Rule::RunsOnce);
    breaks(&forged, Rule::AnswersAlike);
    // Though nobody was told of it.
    forged.calls.pop();
    breaks(&forged, Rule::RunsOnce);
    // A store that forgot in between explains one more, and no more than one.
    forged.calls.push(call(3, 21, 90, answer(201, "executed", "t2")));
    forged.events.push(event(Trouble::StoreForgot, 15, 15));
    holds(&forged);
    assert_eq!(forged.check().ran_again, 1);
    forged.executions.push(execution(4, "t3", 95, 99, Fate::Answered(201)));
    breaks(&forged, Rule::RunsOnce);
}

#[test]
fn a_second_execution_that_no_forgetting_explains_is_found() {
    let mut forged = lawful();
    forged.executions.push(execution(3, "t2", 25, 80, Fate::Answered(201)));
    forged.events.push(event(Trouble::StoreForgot, 81, 81));
    breaks(&forged, Rule::RunsOnce);
}

#[test]
fn attempts_that_overlap_are_found() {
    let mut forged = lawful();
    forged.executions.push(execution(3, "t0", 15, 30, Fate::Released(503)));
    breaks(&forged, Rule::RunsAlone);
    let mut forged = lawful();
    forged.executions[0].to = None;
    forged.executions.push(execution(3, "t0", 15, 30, Fate::Released(503)));
    breaks(&forged, Rule::RunsAlone);
}

#[test]
fn a_call_that_is_sent_twice_is_found() {
    let mut forged = lawful();
    forged.executions.insert(0, execution(1, "t0", 2, 5, Fate::Released(503)));
    breaks(&forged, Rule::IsSentOnce);
}

#[test]
fn an_attempt_after_the_answer_is_found() {
    let mut forged = lawful();
    forged.executions.push(execution(3, "t2", 60, 70, Fate::Released(429)));
    breaks(&forged, Rule::EndsWithItsAnswer);
}

#[test]
fn an_answer_that_nothing_yielded_is_found() {
    let mut forged = lawful();
    forged.executions.clear();
    breaks(&forged, Rule::AnswersWithWhatRan);
    let mut forged = lawful();
    forged.executions[0].to = Some(ms(35));
    breaks(&forged, Rule::AnswersWithWhatRan);
    let mut forged = lawful();
    forged.executions[0].fate = Fate::Lost;
    breaks(&forged, Rule::AnswersWithWhatRan);
}

#[test]
fn an_answer_of_another_is_found() {
    for change in [
        (|record| record.scope = "bob".into()) as fn(&mut Record),
        |record| record.route = "/refunds".into(),
        |record| record.key = "j".into(),
    ] {
        let mut forged = lawful();
        change(&mut forged.calls[1].record);
        breaks(&forged, Rule::AnswersWithItsOwn);
    }
    let mut forged = lawful();
    forged.calls[1].body = "b".into();
    breaks(&forged, Rule::AnswersWithItsOwn);
}

#[test]
fn a_false_mark_is_found() {
    for told in [answer(201, "executed", "t1"), answer(200, "replayed", "t1"), answer(201, "released", "t1")] {
        let mut forged = lawful();
        forged.calls[1].told = told;
        breaks(&forged, Rule::SaysWhatWasSo);
    }
    let mut forged = lawful();
    if let Told::Answer(answer) = &mut forged.calls[1].told {
        answer.is_replayed = false;
    }
    breaks(&forged, Rule::SaysWhatWasSo);
    let mut forged = lawful();
    forged.calls[0].told = answer(201, "replayed", "t1");
    breaks(&forged, Rule::SaysWhatWasSo);
}

#[test]
fn a_false_refusal_is_found() {
    let mut forged = lawful();
    forged.calls[0].told = problem(503, "rejected", "store-unavailable", "no");
    breaks(&forged, Rule::RefusesTruly);
    let mut forged = lawful();
    forged.calls[1].told = problem(409, "rejected", "duplicate", "yes");
    holds(&forged);
    forged.executions.clear();
    breaks(&forged, Rule::RefusesTruly);
}

#[test]
fn a_misuse_that_was_none_is_found() {
    let mut forged = lawful();
    forged.calls[1].told = problem(422, "rejected", "key-reused", "");
    breaks(&forged, Rule::RefusesMisuseOnly);
    forged.calls[1].body = "b".into();
    holds(&forged);
}

#[test]
fn an_unknown_without_a_cause_is_found() {
    let unknown = || problem(409, "unknown", "outcome-unknown", "maybe");
    let mut forged = lawful();
    forged.calls[1].told = unknown();
    breaks(&forged, Rule::KnowsUnlessItCannot);
    // Call 1 went to process 1, and ended before these.
    forged.events = vec![event(Trouble::Killed(1), 35, 35), event(Trouble::Frozen(1), 35, 39)];
    breaks(&forged, Rule::KnowsUnlessItCannot);
    forged.events = vec![event(Trouble::Killed(2), 15, 15)];
    breaks(&forged, Rule::KnowsUnlessItCannot);
    for trouble in [Trouble::Killed(1), Trouble::Frozen(1), Trouble::StoreAway] {
        forged.events = vec![event(trouble, 15, 16)];
        holds(&forged);
        // It lies too far back for what passes, and forever explains what lasts.
        forged.calls[1].from = ms(1000);
        forged.calls[1].to = ms(1001);
        if matches!(trouble, Trouble::Killed(_)) {
            holds(&forged);
        } else {
            breaks(&forged, Rule::KnowsUnlessItCannot);
        }
        forged.calls[1].from = ms(40);
        forged.calls[1].to = ms(50);
    }
    forged.events = vec![event(Trouble::StoreAway, 60, 70)];
    breaks(&forged, Rule::KnowsUnlessItCannot);
}

#[test]
fn a_failover_explains_an_unknown_only_where_the_key_was_freed() {
    let mut forged = lawful();
    forged.calls[1].told = problem(409, "unknown", "outcome-unknown", "maybe");
    forged.events = vec![event(Trouble::FailedOver, 15, 35)];
    breaks(&forged, Rule::KnowsUnlessItCannot);
    let mut forged = history(
        vec![
            call(1, 0, 30, answer(429, "released", "t1")),
            call(2, 40, 50, problem(409, "unknown", "outcome-unknown", "maybe")),
        ],
        vec![execution(1, "t1", 10, 20, Fate::Released(429))],
        vec![event(Trouble::FailedOver, 15, 35)],
    );
    holds(&forged);
    forged.events.clear();
    breaks(&forged, Rule::KnowsUnlessItCannot);
}

#[test]
fn a_broken_connection_without_a_cause_is_found() {
    let mut forged = lawful();
    forged.calls.push(call(5, 60, 70, Told::Broken("reset".into())));
    breaks(&forged, Rule::KeepsConnections);
    forged.events = vec![event(Trouble::Killed(1), 65, 65)];
    breaks(&forged, Rule::KeepsConnections);
    forged.events = vec![event(Trouble::Killed(2), 65, 65)];
    holds(&forged);
    forged.calls[2].told = Told::GaveUp;
    forged.events.clear();
    holds(&forged);
}

#[test]
fn a_record_that_does_not_settle_is_found() {
    let mut forged = lawful();
    forged.calls[1].is_last = true;
    holds(&forged);
    for told in [
        problem(409, "in-flight", "in-flight", "maybe"),
        problem(503, "rejected", "store-unavailable", "no"),
        problem(409, "unknown", "outcome-unknown", "maybe"),
    ] {
        forged.calls[1].told = told;
        // What passes is no excuse for what stays.
        forged.events = vec![event(Trouble::StoreAway, 0, 50), event(Trouble::Frozen(1), 0, 50)];
        breaks(&forged, Rule::Settles);
    }
}

#[test]
fn a_violation_tells_the_whole_story() {
    let mut forged = lawful();
    forged.executions.push(execution(3, "t2", 60, 70, Fate::Answered(201)));
    forged.events.push(event(Trouble::Frozen(2), 55, 56));
    let told = forged.check().violations[0].to_string();
    let lines = ["alice /charges k", "call 1 to process 1 with a", "t1 runs for call 1", "t2 ends: Answered(201)"];
    for line in lines.iter().chain(&["-- no longer Frozen(2)", "was told 201 replayed: t1, marked replayed"]) {
        assert!(told.contains(line), "{line}: {told}");
    }
}
