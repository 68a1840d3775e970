//! Every metric: names, help, labels (contract: section 10). Handles are resolved once; counting is an atomic addition.

mod families;
mod labels;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{Encoder, Histogram, IntCounter, IntCounterVec, Registry, TextEncoder};

use self::families::Families;
pub use self::labels::{OperatorChange, Prevented, Released, Reloaded, Unguarded, Would};
use super::process::ProcessCollector;
use crate::{
    clock,
    rule::{Outcome, Policy, RouteName, UnknownReason, method::Class, problem::Problem},
    store::{
        Figures,
        measured::{Done, Observe, Operation},
    },
};

/// Framing reasons and other words of `refused_total` beside the problems' codes.
const REASONS: [&str; 3] = ["method-connect", "body-timeout", "body-incomplete"];

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    /// Handed out again on a reload, so that a route keeps its handles.
    routes: Mutex<HashMap<RouteName, Arc<RouteMetrics>>>,
}

/// What is read off elsewhere when the metrics are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readings {
    /// The store's own figures.
    pub figures: Figures,
    /// Guarded exchanges under way.
    pub in_flight: usize,
    /// Requests that wait for an owner.
    pub waiters: usize,
    /// Settlements of records whose lease had lapsed.
    pub settled_late: u64,
    /// Unknown records that were run anew.
    pub run_anew: u64,
    /// Claims of uncertain fate: taken back, never there, not taken back.
    pub claims_abandoned: [u64; 3],
    /// Open connections of clients.
    pub downstream: usize,
    /// Open connections to upstreams.
    pub upstream: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All families, registered; those without a route's label have all their series.
    ///
    /// # Panics
    ///
    /// Never: names and labels are constants, and a test makes them all.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Families::register(&registry);
        registry.register(Box::new(ProcessCollector::new())).expect("the process metrics are registered once");
        families.loaded.set(clock::unix_seconds());
        Self { registry, families, routes: Mutex::new(HashMap::new()) }
    }

    /// The handles of a route; every series of it exists from now on.
    #[must_use]
    pub fn route(&self, name: &RouteName, policy: &Policy) -> Arc<RouteMetrics> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = routes.entry(name.clone()).or_insert_with(|| Arc::new(RouteMetrics::new(&self.families, name)));
        for entry in policy.release_on.entries() {
            _ = metrics.released.with_label_values(&[&name.0, entry.status.to_string().as_str()]);
        }
        Arc::clone(metrics)
    }

    /// Counts a lapsed lease (R-18).
    pub fn lapsed(&self, route: &RouteName) {
        self.families.lapsed.inc();
        self.families.unknown.with_label_values(&[&*route.0, UnknownReason::Lapsed.as_str()]).inc();
    }

    /// Counts an unknown record that was forgotten unresolved (P-5).
    pub fn unknown_expired(&self) {
        self.families.unknown_expired.inc();
    }

    /// Counts what an operator did to a record.
    pub fn changed_by_operator(&self, change: OperatorChange) {
        self.families.operator_changes.with_label_values(&[OperatorChange::WORDS[change as usize]]).inc();
    }

    /// Counts a store that came back empty (S-4).
    pub fn wiped(&self) {
        self.families.wiped.inc();
    }

    /// Counts a reload.
    pub fn reloaded(&self, result: Reloaded) {
        self.families.reloads.with_label_values(&[Reloaded::WORDS[result as usize]]).inc();
        if result == Reloaded::Ok {
            self.families.loaded.set(clock::unix_seconds());
        }
    }

    /// The handle of an upstream.
    #[must_use]
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        Arc::new(UpstreamMetrics(self.families.upstream_duration.with_label_values(&[name])))
    }

    /// The handles of a store of this kind.
    #[must_use]
    pub fn store(&self, kind: &str) -> StoreMetrics {
        StoreMetrics(Operation::ALL.map(|operation| {
            Done::ALL.map(|done| {
                let labels = [kind, operation.as_str(), done.as_str()];
                self.families.store_operation.with_label_values(&labels)
            })
        }))
    }

    /// The Prometheus text format.
    #[must_use]
    pub fn render(&self, readings: &Readings) -> String {
        self.families.read(readings);
        let mut text = Vec::with_capacity(64 << 10);
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("gathered families are complete, and a Vec takes every write");
        String::from_utf8(text).expect("the text format is UTF-8")
    }
}

/// The handles of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    name: RouteName,
    requests: [[IntCounter; Outcome::LABELS.len()]; Class::ALL.len()],
    duration: [Histogram; Outcome::LABELS.len()],
    prevented: Vec<IntCounter>,
    refused: IntCounterVec,
    fenced: IntCounter,
    unguarded: Vec<IntCounter>,
    observed: Vec<IntCounter>,
    released: IntCounterVec,
    unknown: [IntCounter; UnknownReason::ALL.len()],
}

impl RouteMetrics {
    fn new(families: &Families, name: &RouteName) -> Self {
        let route = &*name.0;
        let all = |family: &IntCounterVec, words: &[&str]| -> Vec<IntCounter> {
            words.iter().map(|word| family.with_label_values(&[route, *word])).collect()
        };
        let codes = Problem::ALL.iter().map(|problem| problem.code());
        codes.chain(REASONS).for_each(|reason| _ = families.refused.with_label_values(&[route, reason]));
        _ = families.released.with_label_values(&[route, "not_sent"]);
        Self {
            name: name.clone(),
            requests: Class::ALL.map(|class| {
                Outcome::LABELS.map(|outcome| families.requests.with_label_values(&[route, class.as_str(), outcome]))
            }),
            duration: Outcome::LABELS.map(|outcome| families.request_duration.with_label_values(&[route, outcome])),
            prevented: all(&families.prevented, Prevented::WORDS),
            refused: families.refused.clone(),
            fenced: families.fenced.with_label_values(&[route]),
            unguarded: all(&families.unguarded, Unguarded::WORDS),
            observed: all(&families.observed, Would::WORDS),
            released: families.released.clone(),
            unknown: UnknownReason::ALL.map(|reason| families.unknown.with_label_values(&[route, reason.as_str()])),
        }
    }

    /// A request ended.
    pub fn finished(&self, class: Class, outcome: &Outcome, took: Duration) {
        self.requests[class as usize][outcome.index()].inc();
        self.duration[outcome.index()].observe(took.as_secs_f64());
    }

    /// A request would have run again without Oncegate.
    pub fn prevented(&self, how: Prevented) {
        self.prevented[how as usize].inc();
    }

    /// Makes series for reasons beyond those that every route has, so that they exist before their first refusal.
    pub fn may_refuse(&self, reason: &'static str) {
        _ = self.refused.with_label_values(&[&*self.name.0, reason]);
    }

    /// A request was refused: a problem's code, or a framing reason.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[&*self.name.0, reason]).inc();
    }

    /// An outcome was refused by the store.
    pub fn fenced(&self) {
        self.fenced.inc();
    }

    /// A request was forwarded without its guard.
    pub fn unguarded(&self, why: Unguarded) {
        self.unguarded[why as usize].inc();
    }

    /// What enforcing would have done.
    pub fn observed(&self, would: Would) {
        self.observed[would as usize].inc();
    }

    /// A key was freed.
    pub fn released(&self, reason: Released) {
        let name = &*self.name.0;
        match reason {
            Released::NotSent => self.released.with_label_values(&[name, "not_sent"]).inc(),
            Released::Status(status) => self.released.with_label_values(&[name, status.to_string().as_str()]).inc(),
        }
    }

    /// A record became unknown.
    pub fn unknown(&self, reason: UnknownReason) {
        self.unknown[reason as usize].inc();
    }
}

/// The handle of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics(Histogram);

impl UpstreamMetrics {
    /// An exchange took so long.
    pub fn took(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

/// The handles of the store.
#[derive(Debug)]
pub struct StoreMetrics([[Histogram; Done::ALL.len()]; Operation::ALL.len()]);

impl Observe for StoreMetrics {
    fn observe(&self, operation: Operation, done: Done, took: Duration) {
        self.0[operation as usize][done as usize].observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_of_a_route_exists_from_the_start_and_the_text_is_well_formed() {
        let metrics = Metrics::new();
        let _route = metrics.route(&RouteName("charges \"a\"".into()), &Policy::default());
        let text = metrics.render(&Readings::default());
        assert!(text.contains(r#"oncegate_requests_total{class="safe",outcome="passed",route="charges \"a\""} 0"#));
        assert!(text.contains(r#"oncegate_released_total{reason="429",route="charges \"a\""} 0"#));
        for line in text.lines() {
            let sample =
                line.starts_with('#') || line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok());
            assert!(sample, "{line}");
        }
    }

    /// What `promtool check metrics` looks at: help and type once, before the samples; totals are counters and counters
    /// totals; base units; histograms that end.
    #[test]
    fn the_text_is_what_promtool_asks_for() {
        let metrics = Metrics::new();
        let route = metrics.route(&RouteName("charges".into()), &Policy::default());
        route.finished(Class::NonIdempotent, &Outcome::Failed, Duration::from_millis(3));
        metrics.upstream("payments").took(Duration::from_millis(2));
        let text = metrics.render(&Readings::default());
        let (mut seen, mut family, mut kind) = (std::collections::BTreeSet::new(), "", "");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(help.ends_with('.') && seen.insert(name), "{line}");
                (family, kind) = lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
                assert_eq!(family, name);
                assert!(name.starts_with("oncegate_") || name.starts_with("process_"), "{name}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
                assert!(
                    !["_ms", "_milliseconds", "_kb", "_count", "_sum"].iter().any(|unit| name.ends_with(unit)),
                    "{name}"
                );
                continue;
            }
            let end = line.find(['{', ' ']).unwrap();
            let suffix = line[..end].strip_prefix(family).unwrap_or_else(|| panic!("{line} stands under {family}"));
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            assert_eq!(suffix == "_bucket", line.contains("le=\""), "{line}");
        }
        let durations = text.matches("oncegate_request_duration_seconds_count").count();
        let ends =
            text.lines().filter(|line| line.contains("request_duration") && line.contains("le=\"+Inf\"")).count();
        assert_eq!((durations, ends), (Outcome::LABELS.len(), Outcome::LABELS.len()));
        assert!(text.contains("process_cpu_seconds_total") && text.contains("process_open_fds"));
    }

    #[test]
    fn totals_kept_elsewhere_never_go_back() {
        let metrics = Metrics::new();
        let readings = Readings { settled_late: 3, ..Readings::default() };
        assert!(metrics.render(&readings).contains("oncegate_settled_late_total 3"));
        assert!(metrics.render(&Readings::default()).contains("oncegate_settled_late_total 3"));
    }
}
