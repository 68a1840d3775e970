//! Every metric: names, help, labels (contract: section 10). Handles are resolved once; counting is an atomic addition.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};

use super::process::ProcessCollector;
use crate::{
    clock,
    rule::{Outcome, Policy, RouteName, UnknownReason, method::Class, problem::Problem},
    store::{
        Figures,
        measured::{Done, Observe, Operation},
    },
};

/// From 100 µs to five minutes, which is the default `outcome_timeout`.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0, 300.0];

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            const WORDS: &'static [&'static str] = &[$($word),*];
        }
    };
}

labels! {
    /// The `how` of `duplicates_prevented_total`.
    Prevented {
        /// Answered from the record at once.
        Replayed => "replayed",
        /// Waited for the owner's answer.
        Waited => "waited",
        /// Refused: in flight, or `on_duplicate = "reject"`.
        Rejected => "rejected",
        /// Refused: the outcome is unknown.
        Held => "held",
    }
}

labels! {
    /// The `why` of `unguarded_total`.
    Unguarded {
        /// The store could not be asked.
        StoreDown => "store_down",
        /// The body was larger than `max_request_body`.
        BodyTooLarge => "body_too_large",
        /// The scope's value changes with each request.
        ScopeUnstable => "scope_unstable",
        /// gRPC always passes.
        Grpc => "grpc",
    }
}

labels! {
    /// The `would` of `observed_total`.
    Would {
        /// Forwarded.
        Executed => "executed",
        /// Answered from the record.
        Replayed => "replayed",
        /// Waited for the owner, or refused.
        InFlight => "in-flight",
        /// Refused: another request had the key.
        KeyReused => "key-reused",
        /// Refused: the outcome is unknown.
        Unknown => "unknown",
        /// Refused: the answer was not kept.
        NotKept => "not-kept",
        /// Refused for another reason.
        Rejected => "rejected",
    }
}

labels! {
    /// The `change` of `operator_changes_total`.
    OperatorChange {
        /// An unknown record was executed.
        ResolvedExecuted => "resolved_executed",
        /// An unknown record was not executed: its key is free.
        ResolvedNotExecuted => "resolved_not_executed",
        /// A record is forgotten: its key is free.
        Forgotten => "forgotten",
    }
}

labels! {
    /// The `result` of `config_reloads_total`.
    Reloaded {
        /// The new configuration holds.
        Ok => "ok",
        /// It is valid, but may not be taken without a restart or consent.
        Refused => "refused",
        /// It is not valid.
        Failed => "failed",
    }
}

/// The `reason` of `released_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Nothing was sent.
    NotSent,
    /// An answer of `release_on`.
    Status(u16),
}

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

#[derive(Debug)]
struct Families {
    requests: IntCounterVec,
    request_duration: HistogramVec,
    upstream_duration: HistogramVec,
    prevented: IntCounterVec,
    refused: IntCounterVec,
    fenced: IntCounterVec,
    unguarded: IntCounterVec,
    observed: IntCounterVec,
    released: IntCounterVec,
    unknown: IntCounterVec,
    in_flight: IntGauge,
    waiters: IntGauge,
    lapsed: IntCounter,
    settled_late: IntCounter,
    run_anew: IntCounter,
    operator_changes: IntCounterVec,
    abandoned: IntCounterVec,
    unknown_expiring: IntGauge,
    unknown_expired: IntCounter,
    store_up: IntGauge,
    store_operation: HistogramVec,
    store_records: IntGaugeVec,
    unknown_oldest_age: Gauge,
    store_bytes: IntGauge,
    store_bytes_max: IntGauge,
    evictions: IntCounterVec,
    wiped: IntCounter,
    redis_evicted_keys: IntCounter,
    connections: IntGaugeVec,
    reloads: IntCounterVec,
    loaded: Gauge,
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

/// Brings a counter up to a total that is kept elsewhere.
fn catch_up(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[expect(clippy::cast_possible_wrap, reason = "no count of a process comes near 2^63")]
fn whole(count: u64) -> i64 {
    count as i64
}

impl Families {
    fn register(registry: &Registry) -> Self {
        fn kept<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
            let collector = made.expect("names and labels are valid constants");
            registry.register(Box::new(collector.clone())).expect("each name is registered once");
            collector
        }
        let name = |name: &str| format!("oncegate_{name}");
        let counters = |of: &str, help: &str, labels: &[&str]| {
            kept(registry, IntCounterVec::new(Opts::new(name(of), help), labels))
        };
        let counter = |of: &str, help: &str| kept(registry, IntCounter::new(name(of), help));
        let gauge = |of: &str, help: &str| kept(registry, IntGauge::new(name(of), help));
        let gauges =
            |of: &str, help: &str, labels: &[&str]| kept(registry, IntGaugeVec::new(Opts::new(name(of), help), labels));
        let seconds = |of: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name(of), help).buckets(SECONDS.to_vec());
            kept(registry, HistogramVec::new(options, labels))
        };
        let float = |of: &str, help: &str| kept(registry, Gauge::new(name(of), help));

        let build = GaugeVec::new(Opts::new(name("build_info"), "Which version this is; always 1."), &["version"]);
        kept(registry, build).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let families = Self {
            requests: counters("requests_total", "Requests, by how they ended.", &["route", "class", "outcome"]),
            request_duration: seconds(
                "request_duration_seconds",
                "From a request's head to the end of its answer.",
                &["route", "outcome"],
            ),
            upstream_duration: seconds(
                "upstream_duration_seconds",
                "Of a guarded exchange, or to the head of a passed answer.",
                &["upstream"],
            ),
            prevented: counters(
                "duplicates_prevented_total",
                "Requests that would have run again without Oncegate.",
                &["route", "how"],
            ),
            refused: counters("refused_total", "Requests that Oncegate refused itself.", &["route", "reason"]),
            fenced: counters("fenced_total", "Outcomes refused since somebody else had written.", &["route"]),
            unguarded: counters("unguarded_total", "Requests forwarded without their guard.", &["route", "why"]),
            observed: counters("observed_total", "What enforcing would have done.", &["route", "would"]),
            released: counters("released_total", "Keys freed: nothing was executed.", &["route", "reason"]),
            unknown: counters("unknown_total", "Records that became unknown.", &["route", "reason"]),
            in_flight: gauge("in_flight", "Guarded exchanges under way."),
            waiters: gauge("waiters", "Requests that wait for an owner."),
            lapsed: counter("leases_lapsed_total", "Leases that lapsed: their records read as unknown."),
            settled_late: counter("settled_late_total", "Settlements of records whose lease had lapsed."),
            run_anew: counter("unknown_run_anew_total", "Unknown records run anew, since their route says retry."),
            operator_changes: counters("operator_changes_total", "Records changed by an operator.", &["change"]),
            abandoned: counters("claims_abandoned_total", "Claims of uncertain fate, taken back.", &["result"]),
            unknown_expiring: gauge("unknown_expiring", "Unknown records that will be forgotten within a day."),
            unknown_expired: counter("unknown_expired_total", "Unknown records forgotten unresolved."),
            store_up: gauge("store_up", "Whether the store answers, and is fit for guarded requests."),
            store_operation: seconds(
                "store_operation_duration_seconds",
                "Of one operation of the store.",
                &["store", "operation", "result"],
            ),
            store_records: gauges("store_records", "Records in the store; use max over replicas.", &["state"]),
            unknown_oldest_age: float("unknown_oldest_age_seconds", "Age of the oldest unknown record."),
            store_bytes: gauge("store_bytes", "Bytes that the records take."),
            store_bytes_max: gauge("store_bytes_max", "Bytes that the records may take; 0 without a bound."),
            evictions: counters("store_evictions_total", "Dropped for want of room.", &["what"]),
            wiped: counter("store_wiped_total", "Times the store came back empty."),
            redis_evicted_keys: counter("redis_evicted_keys_total", "Keys that the Redis server evicted."),
            connections: gauges("connections", "Open connections.", &["side"]),
            reloads: counters("config_reloads_total", "Reloads of the configuration.", &["result"]),
            loaded: float("config_loaded_timestamp_seconds", "When the configuration was last loaded."),
        };
        OperatorChange::WORDS.iter().for_each(|word| _ = families.operator_changes.with_label_values(&[word]));
        Reloaded::WORDS.iter().for_each(|word| _ = families.reloads.with_label_values(&[word]));
        families
    }

    fn read(&self, readings: &Readings) {
        let Readings { figures, in_flight, waiters, settled_late, run_anew, claims_abandoned, downstream, upstream } =
            *readings;
        self.in_flight.set(whole(in_flight as u64));
        self.waiters.set(whole(waiters as u64));
        catch_up(&self.settled_late, settled_late);
        catch_up(&self.run_anew, run_anew);
        for (result, total) in ["ok", "refused", "failed"].into_iter().zip(claims_abandoned) {
            catch_up(&self.abandoned.with_label_values(&[result]), total);
        }
        self.connections.with_label_values(&["downstream"]).set(whole(downstream as u64));
        self.connections.with_label_values(&["upstream"]).set(whole(upstream as u64));
        let Figures {
            up,
            in_flight,
            completed,
            unknown,
            unknown_expiring,
            unknown_oldest_age,
            bytes,
            bytes_max,
            evicted_bodies,
            evicted_records,
            redis_evicted_keys,
        } = figures;
        self.store_up.set(i64::from(up));
        for (state, records) in [("in_flight", in_flight), ("completed", completed), ("unknown", unknown)] {
            self.store_records.with_label_values(&[state]).set(whole(records));
        }
        self.unknown_expiring.set(whole(unknown_expiring));
        self.unknown_oldest_age.set(unknown_oldest_age.as_secs_f64());
        self.store_bytes.set(whole(bytes));
        self.store_bytes_max.set(whole(bytes_max));
        catch_up(&self.evictions.with_label_values(&["body"]), evicted_bodies);
        catch_up(&self.evictions.with_label_values(&["record"]), evicted_records);
        catch_up(&self.redis_evicted_keys, redis_evicted_keys);
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
