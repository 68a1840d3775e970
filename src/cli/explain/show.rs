//! A finding, for people and for scripts.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use super::finding::{BODY_NOT_READ, Finding, KeyFound, NO_KEY, Request, Would, bytes};
use crate::{
    config::settled::Route,
    rule::{
        key,
        policy::{ErrorFormat, KeySource, OnDuplicate, OnInFlight, OnUnknown, Policy},
        problem::Problem,
    },
};

/// Columns of a terminal that nobody has widened.
const COLUMNS: usize = 80;
/// Of the words at the left.
const LABEL: usize = 13;

/// For scripts (contract: section 9). `would` has a word for each kind of request: the outcome that a metric would
/// count, or the code of a problem.
pub(super) fn json(finding: &Finding) -> Value {
    let Finding { considered, route, upstream, class, key, scope, fingerprint, would } = finding;
    json!({
        "route": route.as_ref().map(|route| route.name.to_string()),
        "considered": considered.iter().map(|(route, because)| {
            json!({ "route": route.name.to_string(), "because": because })
        }).collect::<Vec<_>>(),
        "upstream": upstream,
        "class": class.as_str(),
        "guarded": matches!(would, Would::Guard | Would::Observe),
        "key": key.as_ref().map(|KeyFound { source, length }| json!({ "source": source, "length": length })),
        "scope": scope.iter().map(|(part, present)| json!({ "part": part, "present": present })).collect::<Vec<_>>(),
        "fingerprint": fingerprint,
        "would": would_json(finding),
    })
}

fn would_json(finding: &Finding) -> Value {
    let same = |word: &str| json!({ "first": word, "retry": word, "concurrent": word, "changed": word });
    match (&finding.would, finding.route.as_ref().map(|route| &route.policy)) {
        (Would::Pass(_) | Would::Observe | Would::ObserveRefusal(..), _) => same("passed"),
        (Would::Unguarded(_), _) => same("unguarded"),
        (Would::Refuse(problem, _), _) => same(problem.code()),
        (Would::Malformed(_) | Would::NotAllowed, _) | (Would::Guard, None) => same(Problem::BadRequest.code()),
        (Would::Guard, Some(policy)) => json!({
            "first": "executed",
            "retry": match policy.on_duplicate {
                OnDuplicate::Replay => "replayed",
                OnDuplicate::Reject => "duplicate",
                OnDuplicate::Ack => "ack",
            },
            "concurrent": if waits(policy) { "waited" } else { "in-flight" },
            "changed": if window(policy, finding).is_some() { "executed" } else { "key-reused" },
        }),
    }
}

/// For people.
pub(super) fn text(request: &Request, finding: &Finding) -> String {
    let Finding { considered, route, upstream, class, key, scope, fingerprint, would } = finding;
    let mut text = format!("{} {}{}\n\n", request.method, request.host, request.path);
    let none = || "none".to_owned();
    line(
        &mut text,
        "route",
        &route.as_ref().map_or_else(none, |route| format!("{} ({})", route.name, route.path.text)),
    );
    let is_chosen = |route: &Arc<Route>| finding.route.as_ref().is_some_and(|chosen| Arc::ptr_eq(chosen, route));
    for (route, because) in considered.iter().filter(|(route, _)| !is_chosen(route)) {
        line(&mut text, "", &format!("not {}: {because}", route.name));
    }
    line(&mut text, "class", class.as_str());
    let (guarded, why) = match would {
        Would::Guard => ("yes", ""),
        Would::Observe | Would::ObserveRefusal(..) => ("observed only", ""),
        Would::Pass(why) | Would::Unguarded(why) => ("no: ", *why),
        Would::Refuse(..) | Would::Malformed(_) | Would::NotAllowed => ("refused", ""),
    };
    line(&mut text, "guarded", &format!("{guarded}{why}"));
    if let Some(KeyFound { source, length }) = key {
        line(&mut text, "key", &format!("{source}, {}", bytes(*length)));
    } else if let (Some(route), Some(not_read)) = (route, body_not_read(would)) {
        let listed = |sources: Vec<&KeySource>| sources.into_iter().map(looked_at).collect::<Vec<_>>().join(", ");
        let (inside, outside): (Vec<_>, Vec<_>) =
            route.policy.key.iter().partition(|source| not_read && is_in_body(source));
        let mut found = "none".to_owned();
        for (what, sources) in [("looked at", outside), ("not looked at", inside)] {
            if !sources.is_empty() {
                found.push_str(&format!("; {what} {}", listed(sources)));
            }
        }
        line(&mut text, "key", &found);
    }
    if !scope.is_empty() {
        let part = |(part, present): &(String, bool)| format!("{part}{}", if *present { "" } else { " (missing)" });
        line(&mut text, "scope", &scope.iter().map(part).collect::<Vec<_>>().join(", "));
        if let Some(lack) = lack(scope, would) {
            line(&mut text, "", lack);
        }
    }
    if !fingerprint.is_empty() {
        line(&mut text, "fingerprint", &fingerprint.join(", "));
    }
    text.push('\n');
    let upstream = upstream.as_deref().unwrap_or("the upstream");
    match (would, finding.route.as_ref().map(|route| &route.policy)) {
        (Would::Guard, Some(policy)) => guarded_lines(&mut text, upstream, policy, window(policy, finding)),
        (Would::Observe, _) => {
            line(&mut text, "every time", &format!("streamed to {upstream} and back; counted as if it were guarded"));
        }
        (Would::ObserveRefusal(problem, why), _) => {
            let refusal = refusal(*problem, why);
            line(
                &mut text,
                "every time",
                &format!("streamed to {upstream} and back; enforcing would refuse it: {refusal}"),
            );
        }
        (Would::Unguarded(_), _) => {
            let marked = format!("streamed to {upstream} and back, a repetition too; marked and counted as unguarded");
            line(&mut text, "every time", &marked);
        }
        (Would::Pass(_), _) => {
            line(&mut text, "every time", &format!("streamed to {upstream} and back, a repetition too"));
        }
        (Would::Refuse(problem, why), _) => {
            line(&mut text, "every time", &format!("{}; nothing is sent", refusal(*problem, why)));
        }
        (Would::Malformed(refusal), _) => {
            let (status, why) = (refusal.status.as_u16(), refusal.detail.trim_end_matches('.'));
            line(&mut text, "every time", &format!("{status} bad-request ({why}); nothing is sent"));
        }
        (Would::NotAllowed, _) | (Would::Guard, None) => {
            line(&mut text, "every time", "405 bad-request: Oncegate opens no tunnels; nothing is sent");
        }
    }
    text
}

fn refusal(problem: Problem, why: &str) -> String {
    format!("{} {}: {why}", problem.row().status, problem.code())
}

/// Whether a concurrent request waits at all.
fn waits(policy: &Policy) -> bool {
    match policy.on_in_flight {
        OnInFlight::Wait => policy.max_waiters > 0 && !policy.wait_timeout.is_zero(),
        OnInFlight::Reject => false,
    }
}

/// What comes of parts of the scope that a guarded request lacks (contract: R-5).
fn lack(scope: &[(String, bool)], would: &Would) -> Option<&'static str> {
    let is_guarded = matches!(would, Would::Guard | Would::Observe);
    if !is_guarded || scope.iter().all(|(_, present)| *present) {
        None
    } else if scope.iter().any(|(_, present)| *present) {
        Some("a missing part is a value like any other: with it, this is another caller")
    } else {
        Some("shared with every caller who sends none of this; one with another credential is refused (scope-missing)")
    }
}

/// Of a request without a key, whether it may have one where nobody looks; `None` of every other.
fn body_not_read(would: &Would) -> Option<bool> {
    match (would, would.problem()) {
        (Would::Pass(NO_KEY), _) | (_, Some(Problem::KeyMissing)) => Some(false),
        (Would::Pass(BODY_NOT_READ), _) | (_, Some(Problem::BodyTooLarge)) => Some(true),
        (
            Would::Pass(_)
            | Would::Unguarded(_)
            | Would::Refuse(..)
            | Would::ObserveRefusal(..)
            | Would::Malformed(_)
            | Would::NotAllowed
            | Would::Guard
            | Would::Observe,
            _,
        ) => None,
    }
}

fn guarded_lines(text: &mut String, upstream: &str, policy: &Policy, window: Option<Duration>) {
    let kept = span(window.unwrap_or(policy.retention));
    line(text, "first", &format!("sent to {upstream} once; its answer is stored, then given, and kept for {kept}"));
    let retry = match policy.on_duplicate {
        OnDuplicate::Replay => format!("the stored answer; {upstream} is not asked again"),
        OnDuplicate::Reject => format!("409 duplicate; {upstream} is not asked again"),
        OnDuplicate::Ack => format!("200, empty; {upstream} is not asked again"),
    };
    line(text, "retry", &retry);
    let concurrent = if waits(policy) {
        format!("waits up to {} for the first one's answer, then 409 in-flight", span(policy.wait_timeout))
    } else {
        "409 in-flight at once".to_owned()
    };
    line(text, "concurrent", &concurrent);
    let changed = match (window, policy.error_format) {
        (Some(_), _) => "another content is another key: sent, as a first one",
        (None, ErrorFormat::Problem) => "422 key-reused, whatever became of the first one",
        (None, ErrorFormat::Stripe) => "400 key-reused, whatever became of the first one",
    };
    line(text, "changed", changed);
    let unknown = match policy.on_unknown {
        OnUnknown::Hold => {
            let held = span(window.unwrap_or(policy.unknown_retention));
            format!("outcome-unknown: each retry gets 409 until an operator resolves it, or {held} have passed")
        }
        OnUnknown::Retry => format!("a retry is sent to {upstream} again (on_unknown = \"retry\")"),
    };
    line(text, "no answer", &unknown);
}

/// The window of a key that is the content.
fn window(policy: &Policy, finding: &Finding) -> Option<Duration> {
    let found = &finding.key.as_ref()?.source;
    policy.key.iter().find_map(|source| match source {
        KeySource::Content { window } => found.starts_with("content:").then_some(*window),
        KeySource::Header(_)
        | KeySource::Query(_)
        | KeySource::Json(_)
        | KeySource::Form(_)
        | KeySource::Composite(_) => None,
    })
}

fn is_in_body(source: &KeySource) -> bool {
    match source {
        KeySource::Header(_) | KeySource::Query(_) => false,
        KeySource::Json(_) | KeySource::Form(_) | KeySource::Content { .. } => true,
        KeySource::Composite(parts) => parts.iter().any(is_in_body),
    }
}

fn looked_at(source: &KeySource) -> String {
    let label = key::label(source);
    match source {
        KeySource::Json(_) => format!("{label} (of a JSON Content-Type)"),
        KeySource::Form(_) => format!("{label} (of a form's Content-Type)"),
        KeySource::Header(_) | KeySource::Query(_) | KeySource::Composite(_) | KeySource::Content { .. } => {
            label.into_owned()
        }
    }
}

/// A label and a text, broken at spaces.
fn line(text: &mut String, label: &str, value: &str) {
    let mut lines = vec![String::new()];
    for word in value.split(' ') {
        let last = lines.last_mut().expect("never empty");
        if last.is_empty() {
            last.push_str(word);
        } else if LABEL + last.width() + 1 + word.width() > COLUMNS {
            lines.push(word.to_owned());
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    for (nth, value) in lines.iter().enumerate() {
        let label = if nth == 0 { label } else { "" };
        writeln!(text, "{label:<LABEL$}{value}").expect("a String takes every write");
    }
}

/// A duration in the largest unit that tells it whole.
fn span(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units: [(u128, &str); 4] = [(86_400_000, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    match units.into_iter().find(|(unit, _)| ms.is_multiple_of(*unit) && ms / unit > 1) {
        Some((unit, name)) => format!("{} {name}", ms / unit),
        None if ms.is_multiple_of(1_000) => format!("{} s", ms / 1_000),
        None => format!("{ms} ms"),
    }
}
